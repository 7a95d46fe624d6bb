"""What a client's report can't be, by what the coordinator knows without asking. No Paddle is imported here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fl_rec.config import Config
from fl_rec.coordinator.messages import ClientReport
from fl_rec.coordinator.strategies import Standing
from fl_rec.data.manifest import load_manifest
from fl_rec.errors import DataError


@dataclass(frozen=True)
class Limits:
    """What a client's report can't be above; infinity where nobody knows.

    Attributes:
        shard_rows: rows of its training shard, or items where each is a row of its own.
        test_users: users of its test shard.
    """

    shard_rows: float = math.inf
    test_users: float = math.inf


def limits_of(config: Config, clients: int) -> Sequence[Limits]:
    """By the manifest of the training shards, if it is there and each client has a shard of it."""
    unknown = [Limits()] * clients
    try:
        manifest = load_manifest(config.runner.train_data_dir)
    except DataError:
        return unknown  # whoever reads the shards says so
    if manifest is None or len(manifest.shards) != clients:
        return unknown
    # Rows of the proxy set are trained beside a client's own.
    more = config.distillation.positives if config.distillation.proxy_data_dir is not None else 0
    own_tests = manifest.folder_of("test") == config.runner.test_data_dir
    return [
        Limits(each.train.rows * manifest.group_size + more, each.test.users if own_tests else math.inf)
        for each in manifest.shards
    ]


def strange(report: ClientReport, standing: Standing, limits: Limits, told: bool) -> str:
    """What of a report can't be, in words; "" if all can.

    Args:
        standing: what is known of the client.
        told: whether it was told what to do in the round that it reports of.
    """
    if report.shard_rows > limits.shard_rows:
        return f"shard_rows={report.shard_rows:,} of a shard of {limits.shard_rows:,}"
    if report.test_users > limits.test_users:
        return f"test_users={report.test_users:,} of a test shard of {limits.test_users:,}"
    if standing.report is not None and report.shard_rows != standing.report.shard_rows:
        return f"shard_rows={report.shard_rows:,}, after {standing.report.shard_rows:,} before"
    if report.rows and told and standing.last_joined != report.round - 1:
        return f"rows={report.rows:,} of a round in which it had to wait"
    if report.rows and not math.isfinite(report.train_loss):
        return f"train_loss={report.train_loss} of {report.rows:,} rows"
    return ""
