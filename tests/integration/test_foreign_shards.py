"""Shards that somebody else wrote: from `fl-rec shards` to recommendations, by the ids that are in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Commands, Job

USERS, ITEMS, OWN = 24, 60, 6


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MultiSlot shards by hand, of which the training ones are gzip; user u has had u, u + 1, ... up to u + OWN."""
    folder = tmp_path_factory.mktemp("clicks")
    for kind in ("train", "test"):
        (folder / kind).mkdir()
    for shard in range(2):
        users, rows = range(shard, USERS, 2), {"train": [], "test": []}
        for user in users:
            rows["train"] += [(user, item, int(item < user + OWN)) for item in range(user, user + 3 * OWN)]
            rows["test"] += [(user, user + OWN, 1), *((user, item, 0) for item in range(48, ITEMS))]
        texts = {kind: "".join("1 {} 1 {} 1 {}\n".format(*row) for row in rows[kind]).encode() for kind in rows}
        (folder / "train" / f"clicks-{shard}.gz").write_bytes(gzip.compress(texts["train"]))
        (folder / "test" / f"clicks-{shard}").write_bytes(texts["test"])
    return folder


def test_from_shards_to_recommendations(job: Job, foreign: Path, commands: Commands) -> None:
    told = commands.succeed("shards", foreign)
    assert f" {USERS * 3 * OWN} " in told and f"ids       {USERS} users, {ITEMS} items" in told
    job.runner.update(train_data_dir=str(foreign / "train"), test_data_dir=str(foreign / "test"))
    finished = job.succeed()
    (record,) = finished.records("all")
    assert (record["rows"], record["test_users"]) == (USERS * 3 * OWN, USERS)
    exported = finished.run.path / "exported"
    assert f"ids       {USERS} users, {ITEMS} items" in commands.succeed("export", finished.run.path)
    shown = json.loads(commands.succeed("recommend", "--model", exported, "--user", 7, "--top", 5, "--format", "json"))
    items = [each["item"] for each in shown["recommendations"]]
    assert shown["user"] == 7 and len(set(items)) == 5
    assert not set(items) & set(range(7, 7 + OWN + 1)), "what the user has had"
    evaluated = commands.succeed("evaluate", finished.run.path, "--data", foreign, "--format", "json")
    assert json.loads(evaluated)["hr"] == record["hr"]
    assert np.isfinite(record["test_auc"])
