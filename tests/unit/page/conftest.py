"""Runs on disk as a job has written them, without the job."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.coordinator.messages import JOIN, WAIT, ClientReport, Decision
from fl_rec.coordinator.rounds import Round, RoundLog
from fl_rec.data.manifest import MANIFEST_NAME, MANIFEST_VERSION, SLOTS, Manifest, Shard, ShardFile
from fl_rec.data.ranks import Ranked
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation, Times
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.result import RunResult

MakeRun = Callable[..., RunDirectory]
# What would be markup, were it not data.
STRANGE = "</script><script>document.title='taken'</script><!--"
NAMES = [STRANGE, "北海道", '<b>Ōsaka</b> & "co"']


def figures(epoch: int, client: int) -> EpochMetrics:
    """Some, different for each epoch and client."""
    rng = np.random.default_rng([epoch, client])
    buckets = [AucBuckets(*rng.integers(0, 50, (2, 8)).astype(float)) for _ in range(2)]
    users = 40 + 10 * client
    hits = int(users * (0.2 + 0.02 * epoch + 0.01 * client))
    # Who is new is served worst; nobody has 50 to 99.
    groups = ((10, 1, 0.5), (users - 15, hits - 4, 3.0), (0, 0, 0.0), (0, 0, 0.0), (5, 3, 2.0))
    return EpochMetrics(
        client=client,
        epoch=epoch,
        rows=1000 * (client + 1),
        seconds=0.5 + float(rng.random()),
        loss_sum=1000 * (client + 1) * (0.3 + 0.3 / epoch),
        train=buckets[0],
        test=Evaluation(users, hits, hits / math.e, buckets[1], groups=groups),
        times=Times(*(0.25 + rng.random(5)).round(4).tolist()),
    )


def lines(epoch: int, clients: int) -> list[dict[str, Any]]:
    """An epoch's lines of metrics.jsonl, in the order in which workers may come."""
    everyone = [figures(epoch, client) for client in range(clients)]
    return [each.to_record() for each in (*everyone[::-1], EpochMetrics.total(everyone))]


def manifest(folder: Path, clients: int) -> Manifest:
    def file(kind: str, client: int, rows: int) -> ShardFile:
        return ShardFile(f"{kind}/part-{client:03d}", rows, rows // 5, 40 + 10 * client, 90, 1, "0")

    shards = tuple(
        Shard(file("fl_train_data", client, 1000 * (client + 1)), file("fl_test_data", client, 500))
        for client in range(clients)
    )
    shares = [[round(0.5 + 0.1 * client / clients, 4), 0.2] for client in range(clients)]
    return Manifest(
        version=MANIFEST_VERSION,
        format="multislot",
        slots=SLOTS,
        seed=1,
        source={"kind": "synthetic", "name": "synthetic"},
        partitioner={},
        num_shards=clients,
        num_users=400,
        num_items=90,
        unplaced={},
        dropped_users=0,
        totals={},
        shards=shards,
        folder=folder,
        clients=tuple([*NAMES, *map(str, range(clients))][:clients]),
        difference={
            "common_items": {"mean": 0.5, "shards": [0.25] * clients},
            "tags": {"mean": 0.1, "shards": [0.125] * clients},
            "tastes": {"names": ["Drama", STRANGE], "all": [0.5, 0.25], "shards": shares},
        },
        popularity=tuple((Ranked(1, 40 + 10 * client, (0, 8), (0, 8)),) for client in range(clients)),
    )


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run(epochs, clients, ...)` writes a run's folder, whose job has ended well unless `result` says else."""

    def make_run(
        epochs: int = 3,
        clients: int = 3,
        *,
        name: str = "a run",
        rounds: bool = False,
        result: dict[str, Any] | None = None,
        **sections: Any,
    ) -> RunDirectory:
        run, _ = RunDirectory.claim(tmp_path / "runs" / name, "0 nobody 0")
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / MANIFEST_NAME).write_text(json.dumps(manifest(data, clients).to_json()), encoding="utf-8")
        runner = {"train_data_dir": str(data / "fl_train_data"), "epochs": epochs, **sections.pop("runner", {})}
        run.config.write_text(json.dumps({"runner": runner, **sections}), encoding="utf-8")
        Launch(clients, 1, int(rounds)).write(run)
        for epoch in range(1, epochs + 1):
            run.append_metrics(lines(epoch, clients))
        for number in range(epochs if rounds else 0):
            RoundLog(run.rounds).append(a_round(number, clients))
        if result is None:
            result = {"state": "done", "model": f"model/{epochs}"}
        if result:
            run.write_result(RunResult(**result))
        return run

    return make_run


def a_round(number: int, clients: int) -> Round:
    """In which one client waits, another one each time, and the last one was never heard of."""
    reports = {
        client: ClientReport(client, number, 1000, extra={"large": np.zeros(2000, np.float32)})
        for client in range(clients - 1)
    }
    decisions = {
        client: Decision(WAIT, reason="it waits: <i>slow</i>") if client == number % clients else Decision(JOIN, 2, 0.5)
        for client in range(clients)
    }
    sizes = {client: 300 + client for client in reports}
    return Round(number, "random_k", reports, decisions, (clients - 1,), 0.25, sizes, sizes)
