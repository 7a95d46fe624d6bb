"""What comes before another attempt: what can be changed, and how often it goes on by itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fl_rec.errors import ConfigError, DataError
from fl_rec.job import attempts
from fl_rec.job.judge import Failure
from fl_rec.job.launch import LaunchOptions
from fl_rec.runs.directory import Launch, RunDirectory


def options(run: RunDirectory, **given: Any) -> LaunchOptions:
    return LaunchOptions(**{"config_yaml": run.config, "resume": run.path, "server_num": 0, **given})


def failure(role: str, kind: Any = "died") -> Failure:
    return Failure(role, "why", Path("log"), kind)


def restarts(loss: str, most: int = 0) -> attempts.Restarts:
    runner: Any = SimpleNamespace(on_worker_loss=loss)
    return attempts.Restarts(runner, most)


def test_it_is_started_as_it_was(run: RunDirectory) -> None:
    Launch(3, 2, 1).write(run)
    filled = attempts.filled_in(options(run))
    assert (filled.worker_num, filled.server_num, filled.coordinator_num, filled.own_script) == (3, 2, 1, "")
    assert attempts.filled_in(options(run, server_num=5, worker_num=3)).server_num == 5


def test_another_number_of_workers(run: RunDirectory) -> None:
    Launch(3, 1, 0).write(run)
    with pytest.raises(ConfigError, match="as many workers as it had, .*: 3. Received: --worker_num 4"):
        attempts.filled_in(options(run, worker_num=4))


def test_a_script_of_ones_own_is_named_again(run: RunDirectory, tmp_path: Path) -> None:
    script = (tmp_path / "mine.py").resolve()
    Launch(3, 1, 0, str(script)).write(run)
    with pytest.raises(ConfigError, match=f"run only if you name it: --script {script}"):
        attempts.filled_in(options(run))
    assert attempts.filled_in(options(run, script=script)).training_script == script


@pytest.mark.parametrize("content", ["", "{}", '{"workers": "3", "servers": 1, "coordinators": 0, "script": ""}'])
def test_no_run_to_go_on_with(run: RunDirectory, content: str) -> None:
    run.launch.write_text(content)
    with pytest.raises(DataError, match="Received: .*launch.json"):
        attempts.filled_in(options(run))
    run.metrics.unlink()
    with pytest.raises(DataError, match="RUN must be a run's folder. Received: .*, which has no metrics.jsonl"):
        attempts.filled_in(options(run))


def test_a_run_that_has_ended_is_not_begun_anew(run: RunDirectory) -> None:
    run.result.write_text('{"state": "done"}')
    run.metrics.write_text("its figures")
    job: Any = SimpleNamespace(config=SimpleNamespace(runner=SimpleNamespace(model_save_path=None)))
    with pytest.raises(ConfigError, match="goes on from its last checkpoint. Received: .*, which has none that is"):
        attempts.take_up(run, job)
    assert run.metrics.read_text() == "its figures"


@pytest.mark.parametrize(("most", "loss", "role", "allowed"), [
    (0, "stop", "worker.1", 0),
    (2, "stop", "worker.1", 2),
    (2, "stop", "server.0", 2),
    (0, "restart", "worker.1", 3),
    (0, "restart", "server.0", 0),
    (1, "continue", "worker.1", 1),
])  # fmt: skip
def test_how_often(most: int, loss: str, role: str, allowed: int) -> None:
    made, lost = restarts(loss, most), failure(role)
    for _ in range(allowed):
        assert made.are_left(lost)
        made.count(lost, 0)
    assert not made.are_left(lost)


def test_what_a_role_has_told_would_only_come_again() -> None:
    assert not restarts("restart", 5).are_left(failure("worker.0", "failed"))
    assert restarts("restart", 5).are_left(failure("worker.0", "frozen"))


def test_a_worker_that_was_lost_sits_an_epoch_out() -> None:
    made = restarts("continue", 9)
    assert made.away == ""
    assert made.count(failure("worker.2"), None) == "1 of 9, without worker.2 in this epoch"
    assert made.away == "2:2"
    assert made.count(failure("server.0"), 3) == "2 of 9"
    assert made.count(failure("worker.0"), 3) == "3 of 9, without worker.0 in this epoch"
    assert made.away == "0:5,2:2"
    assert made.count(failure("worker.0"), 4) == "4 of 9, without worker.0 from now on: it was lost before"
    assert made.away == "0:inf,2:2"
    assert restarts("restart").count(failure("worker.0"), 4) == "1 of 3"
