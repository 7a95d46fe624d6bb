"""What a run is resumed from: whole or not at all, and a folder as it was then."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.coordinator.checkpoints import Checkpoints
from fl_rec.errors import DataError
from fl_rec.runs import roles, training_state
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult
from fl_rec.runs.training_state import TrainingState

IDENTITY = {"run": "a", "net": "b", "data": "c"}


def write(run: RunDirectory, epoch: int, keep: int = 2, best: tuple[int, float] = (0, math.nan)) -> None:
    """A checkpoint of two workers, and the records that come before it."""
    run.append_metrics([{"epoch": epoch, "client": "all", "hr": epoch / 10}])
    run.append_table(f"epoch {epoch}")
    training_state.write_shared(run, epoch, {"items": np.full((2, 3), epoch, np.float32)})
    for worker in range(2):
        parts = {"program": {"users": np.array([worker + 0.5])}, "local": {"rows": np.array([epoch, 1])}, "trainer": {}}
        training_state.write_own(run, epoch, worker, parts)
    training_state.complete(run, epoch, training_state.content(run, epoch, best, IDENTITY), keep)


def test_what_is_written_is_read(run: RunDirectory) -> None:
    write(run, 4, best=(3, 0.25))
    state = TrainingState.read(run, 4)
    assert state.epoch == 4 and state.best == (3, 0.25)
    assert state.content["identity"] == {**IDENTITY, "epoch": 4}
    assert state.shared()["items"].tolist() == [[4, 4, 4]] * 2
    assert state.own(1)["program"]["users"].tolist() == [1.5] and state.own(0)["local"]["rows"].tolist() == [4, 1]
    assert "trainer" not in state.own(0)


def test_a_figure_that_is_none(run: RunDirectory) -> None:
    write(run, 1)
    best = TrainingState.read(run, 1).best
    assert best[0] == 0 and math.isnan(best[1])


def test_only_this_user_can_read_a_workers_part(run: RunDirectory) -> None:
    write(run, 1)
    folder = run.checkpoint / "1"
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder / "worker", folder / "worker" / "1.npz")] == [
        "0o700",
        "0o700",
        "0o600",
    ]


def test_the_oldest_go(run: RunDirectory) -> None:
    for epoch in range(1, 12):
        write(run, epoch, keep=3)
    assert training_state.epochs(run) == [9, 10, 11], "by number, not by name"
    newest = training_state.newest(run)
    assert newest is not None and newest.epoch == 11


def test_none_yet(run: RunDirectory) -> None:
    assert training_state.epochs(run) == [] and training_state.newest(run) is None


def test_a_checkpoint_that_was_broken_off_is_none(run: RunDirectory) -> None:
    write(run, 1)
    training_state.write_shared(run, 2, {"items": np.zeros(1)})
    training_state.write_own(run, 2, 0, {"program": {"users": np.zeros(1)}})
    assert training_state.epochs(run) == [1]
    write(run, 2)
    assert training_state.epochs(run) == [1, 2], "what was left of it is in nobody's way"
    assert sorted(path.name for path in run.checkpoint.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("file", ["shared.npz", "worker/1.npz", "checkpoint.json"])
def test_the_one_before_a_damaged_one_is_taken(run: RunDirectory, file: str) -> None:
    write(run, 1)
    write(run, 2)
    path = run.checkpoint / "2" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content[:-2] if file.endswith("json") else content)
    with pytest.raises(DataError, match="A checkpoint must be whole"):
        TrainingState.read(run, 2)
    newest = training_state.newest(run)
    assert newest is not None and newest.epoch == 1


def test_a_workers_part_that_is_missing(run: RunDirectory) -> None:
    write(run, 1)
    (run.checkpoint / "1" / "worker" / "1.npz").unlink()
    with pytest.raises(DataError, match=r"Received: .*1.npz"):
        TrainingState.read(run, 1)


def test_going_back(run: RunDirectory) -> None:
    run.coordinator.mkdir()
    (run.coordinator / "address.json").write_text("{}")
    (run.coordinator / "teacher.npz").write_text("of epoch 1")
    (run.coordinator / ".teacher.npz.7.tmp").write_text("half of epoch 2")
    run.rounds.write_text("round 0\n")
    write(run, 1)
    assert [path.name for path in (run.checkpoint / "1" / "coordinator").iterdir()] == ["teacher.npz"]
    before = {path: path.read_bytes() for path in run.records}
    # What the next epoch leaves when it is broken off.
    run.append_metrics([{"epoch": 2, "client": 0}])
    run.append_table("epoch 2")
    run.rounds.write_text("round 0\nround 1\nrou")
    (run.coordinator / "teacher.npz").write_text("of epoch 2")
    (run.coordinator / "policy.npz").write_text("new")
    (run.log / "workerlog.0").write_text("trouble")
    roles.write_status(run.roles, "worker.0", roles.FAILED, "trouble")
    run.write_result(RunResult(state="failed"))
    training_state.go_back(run, training_state.newest(run))
    assert {path: path.read_bytes() for path in run.records} == before
    assert (run.coordinator / "teacher.npz").read_text() == "of epoch 1"
    assert sorted(path.name for path in run.coordinator.iterdir()) == ["address.json", "teacher.npz"]
    assert not run.result.exists() and list(run.roles.iterdir()) == []
    kept = run.log / "before-1"
    assert [path.name for path in run.log.iterdir()] == ["before-1"]
    assert (kept / "workerlog.0").read_text() == "trouble"
    assert json.loads((kept / "result.json").read_text())["state"] == "failed"
    assert roles.read_statuses(kept / "roles")["worker.0"].error == "trouble"


def test_going_back_before_the_newest_as_other_hosts_have_it(run: RunDirectory) -> None:
    for epoch in (1, 2, 3):
        write(run, epoch, keep=3)
    training_state.go_back(run, TrainingState.read(run, 2))
    assert [each["epoch"] for each in run.read_metrics()] == [1, 2]
    assert training_state.whole(run) == [1, 2], "epoch 3 is trained anew, and this one is not taken for it"


def test_what_a_host_with_the_coordinator_alone_goes_on_from(run: RunDirectory) -> None:
    run.coordinator.mkdir()
    runner: Any = SimpleNamespace(save_interval=2, epochs=7, keep_checkpoints=1)
    kept = Checkpoints(runner, run, "c")
    for round in range(8):
        # As of a strategy that has decided this round.
        (run.coordinator / "policy.npz").write_text(str(round))
        with open(run.rounds, "a") as rounds:
            rounds.write(f"round {round}\n")
        kept.decided(round)
    # Two more than the workers keep, since it is first of all to have an epoch's.
    assert training_state.whole(run) == [4, 6, 7]
    state = TrainingState.read(run, 6)
    assert state.content["identity"] == {"run": run.identity, "data": "c", "epoch": 6}
    training_state.go_back(run, state)
    assert (run.coordinator / "policy.npz").read_text() == "5", "which decides round 6 anew"
    assert run.rounds.read_text().splitlines()[-1] == "round 5"
    assert training_state.whole(run) == [4, 6]


def test_going_back_again_and_to_the_beginning(run: RunDirectory) -> None:
    write(run, 1)
    (run.log / "start").write_text("first")
    training_state.go_back(run, None)
    assert run.metrics.read_text() == run.tables.read_text() == "" and not run.rounds.exists()
    (run.log / "start").write_text("second")
    training_state.go_back(run, None)
    assert [(run.log / f"before-{number}" / "start").read_text() for number in (1, 2)] == ["first", "second"]


def test_records_that_are_shorter_than_they_were(run: RunDirectory) -> None:
    write(run, 1)
    length = run.metrics.stat().st_size
    run.metrics.write_bytes(run.metrics.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=rf"Received: .*metrics.jsonl of {length - 1} bytes, of which there were {length}"
    ):
        training_state.go_back(run, training_state.newest(run))


def test_an_interrupted_run_keeps_its_figures(run: RunDirectory) -> None:
    run.end("interrupted", error="why")
    found = run.read_result()
    assert (found.state, found.error, found.last, found.epochs) == ("interrupted", "why", None, [])
    totals = [{"epoch": epoch, "client": "all", "hr": 0.1, "top_k": 10} for epoch in (1, 2)]
    run.append_metrics([{"epoch": 1, "client": 0}, *totals, {"epoch": 3, "client": 0}])
    run.end("interrupted", error="why")
    found = run.read_result()
    assert found.epochs == [{"epoch": epoch, "hr@10": 0.1} for epoch in (1, 2)] and found.last == found.epochs[1]
    assert found.best is None, "nothing has chosen it"


def test_one_launcher_at_a_time(run: RunDirectory, tmp_path: Path) -> None:
    from fl_rec.errors import RunError

    with run.held():
        with pytest.raises(RunError, match="A run has one job at a time"), run.held():
            pytest.fail("two have it")
    with run.held():
        pass
