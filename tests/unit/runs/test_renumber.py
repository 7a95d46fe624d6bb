"""Runs of earlier versions count their epochs from 0."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.api import Run
from fl_rec.errors import DataError
from fl_rec.runs import renumber, training_state
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.saved import SavedModel

IDENTITY = {"run": "a", "net": "b", "data": "c"}


def as_before(path: Path) -> None:
    """Has a model.json or a checkpoint.json be as an earlier version wrote it, of the epoch that its folder says."""
    content = json.loads(path.read_text())
    del content["first_epoch"]
    epoch = int(path.parent.name)
    path.write_text(json.dumps({**content, "epoch": epoch, "identity": {**content["identity"], "epoch": epoch}}))


@pytest.fixture
def old(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """Twelve epochs, the models of all and the checkpoints of the last two."""
    for epoch in range(12):
        run.append_metrics([{"epoch": epoch, "client": client, "hr": epoch / 100} for client in (0, "all")])
        folder = run.model / str(epoch)
        folder.mkdir(parents=True)
        (folder / "rec_static.pdmodel").write_text(f"epoch {epoch}")
        signature: dict[str, Any] = {"epoch": epoch, "identity": {"epoch": epoch}}
        (folder / "model.json").write_text(json.dumps(signature))
        training_state.write_shared(run, epoch, {"items": np.full(2, epoch)})
        content = training_state.content(run, epoch, (epoch - 1, math.nan), IDENTITY)
        training_state.complete(run, epoch, content, 2)
        as_before(run.checkpoint / str(epoch) / "checkpoint.json")
    totals = [{**each, "epoch": each["epoch"] - 1, "top_k": 10} for each in run.read_totals()]
    result = {"state": "done", "model": str(run.model / "11"), "last": totals[-1], "best": totals[-1], "epochs": totals}
    run.result.write_text(json.dumps(result))
    return run


def test_it_is_read_as_if_it_counted_from_one(old: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each["epoch"] for each in old.read_totals()] == list(range(1, 13))
    model = SavedModel.open(old.model / "3")
    assert model.epoch == 4 and model.signature["identity"] == {"epoch": 4}
    assert model.metrics() == {"epoch": 4, "client": "all", "hr": 0.03}
    assert SavedModel.of_epoch(old.model, 4).folder == old.model / "3"
    old.config.write_text("runner: {train_data_dir: data}\n")
    assert Run(old.path).model(1) == old.model / "0" and Run(old.path).model() == old.model / "11"
    assert old.read_result().last == {"epoch": 12, "hr@10": 0.11}
    with pytest.raises(DataError, match=r"Received: .*model/13, which is no folder."):
        SavedModel.of_epoch(old.model, 13)


def test_the_first_epoch_of_a_run_is_not_zero(run: RunDirectory) -> None:
    with pytest.raises(DataError, match="model/0, which is no folder. The first epoch has number 1."):
        SavedModel.open(run.model / "0")


def assert_renumbered(run: RunDirectory) -> None:
    assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()[::2]] == list(range(1, 13))
    assert sorted(int(path.name) for path in run.model.iterdir()) == list(range(1, 13))
    for epoch in (1, 12):
        assert (run.model / str(epoch) / "rec_static.pdmodel").read_text() == f"epoch {epoch - 1}"
        assert SavedModel.of_epoch(run.model, epoch).folder == run.model / str(epoch)
    assert SavedModel.open(run.path).folder == run.model / "12", "that of the result"
    assert training_state.epochs(run) == [11, 12]
    state = training_state.newest(run)
    assert state is not None and state.epoch == 12 and state.best[0] == 11
    assert state.content["identity"]["epoch"] == 12 and state.shared()["items"].tolist() == [11, 11]
    training_state.go_back(run, training_state.TrainingState.read(run, 11))
    assert [each["epoch"] for each in run.read_totals()] == list(range(1, 12)), "lengths are those of the new lines"


def test_a_run_that_goes_on_is_renumbered(old: RunDirectory) -> None:
    renumber.renumber(old, old.model)
    assert_renumbered(old)
    before = old.metrics.read_bytes()
    renumber.renumber(old, old.model)
    assert old.metrics.read_bytes() == before and training_state.epochs(old) == [11], "12 has gone before"


@pytest.mark.parametrize("renames", [0, 1, 7])
def test_it_may_be_broken_off_at_any_moment(old: RunDirectory, monkeypatch: pytest.MonkeyPatch, renames: int) -> None:
    done: list[Path] = []

    def rename(path: Path, to: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(to)
        path.replace(to)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            renumber.renumber(old, old.model)
    renumber.renumber(old, old.model)
    assert_renumbered(old)
