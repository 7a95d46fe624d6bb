"""A job that a bare fleetrun started: watched, ended and shown, with small processes in its roles' place."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fl_rec.config import Config
from fl_rec.job.hosts.company import Alone, NotMet
from fl_rec.job.judge import Failure, Patience
from fl_rec.job.watch import FLEETRUN_MARK, Mark, log_path
from fl_rec.runs import roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.roles import Role
from fl_rec.terminal.fleetrun import _end, _stdout_of, end_unwatched, start_watch, watch_by_hand

DEADLINE = 30.0
PATIENCE = Patience(DEADLINE, DEADLINE, DEADLINE, True)
ROLES = ("server.0", "worker.0", "worker.1")
pytestmark = pytest.mark.usefixtures("fast")
ALL_DONE = [(role, "done", "") for role in ROLES]

Spawn = Callable[..., subprocess.Popen]
SetStatus = Callable[..., None]


@pytest.fixture
def leader(sleeper: Spawn) -> subprocess.Popen:
    return sleeper()


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait(DEADLINE)


def ended(process: subprocess.Popen) -> bool:
    """Whether it comes to an end. Its exit code is lost where psutil has waited for it, so it is not looked at."""
    return process.wait(DEADLINE) is not None


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["--worker_num=2", "x.py"], "/started/here/log"),
        (["--log_dir", "other logs", "x.py"], "/started/here/other logs"),
        (["--log_dir=other", "x.py"], "/started/here/other"),
        (["--log_dir=/var/other", "x.py"], "/var/other"),
    ],
)
def test_log_under_a_bare_fleetrun(run: RunDirectory, arguments: list[str], folder: str) -> None:
    fleetrun: Any = SimpleNamespace(cmdline=lambda: ["fleetrun", *arguments], cwd=lambda: "/started/here")
    assert _stdout_of(fleetrun, "worker.1", run) == Path(folder, "workerlog.1")


@pytest.fixture
def by_hand(
    run: RunDirectory, leader: subprocess.Popen, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], int]:
    monkeypatch.setenv(FLEETRUN_MARK, mark.value)
    return lambda: watch_by_hand(
        [str(run.path), str(leader.pid), json.dumps(dataclasses.asdict(PATIENCE)), "{}", *ROLES]
    )


def test_by_hand_a_failure_ends_fleetrun_and_its_roles(
    by_hand: Callable[[], int],
    run: RunDirectory,
    set_status: SetStatus,
    leader: subprocess.Popen,
    sleeper: Spawn,
    mark: Mark,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker, bystander = sleeper(), sleeper(**{FLEETRUN_MARK: "another job"})
    set_status("worker.0", roles.RUNNING, worker)
    set_status("worker.1", roles.FAILED, error="a shard is missing")
    assert by_hand() == 1
    assert leader.wait(DEADLINE) == -signal.SIGHUP
    assert ended(worker)
    assert bystander.poll() is None
    content = json.loads(run.result.read_text())
    assert (content["state"], content["role"], content["error"]) == ("failed", "worker.1", "a shard is missing")
    assert content["log"].endswith("/log/workerlog.1")
    assert capsys.readouterr().out.startswith("fl_rec: worker.1 failed: a shard is missing\n  its log: ")


def test_by_hand_hosts_that_do_not_meet_leave_no_run(
    by_hand: Callable[[], int],
    run: RunDirectory,
    leader: subprocess.Popen,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def meet(*_arguments: Any) -> None:
        raise NotMet(Failure("worker.1", "its host must come", None))

    monkeypatch.setattr(Alone, "meet", meet)
    monkeypatch.setattr(Alone, "is_new", True)
    assert by_hand() == 1
    assert leader.wait(DEADLINE) == -signal.SIGHUP
    assert "worker.1 failed: its host must come\n  nothing has begun" in capsys.readouterr().out
    assert not run.path.exists()


def test_a_mistake_is_told_once_on_fleetruns_terminal_and_ends_it(
    spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mark").mkdir()
    monkeypatch.setenv(FLEETRUN_MARK, str(tmp_path / "mark"))
    monkeypatch.setattr(sys, "argv", ["my_trainer.py"])
    monkeypatch.setattr("fl_rec.terminal.fleetrun._SECONDS", 0.1)
    # As under nohup.
    code = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    stranger, fleetrun = spawn("sleep", "60"), spawn(sys.executable, "-c", code, "my_trainer.py")
    assert fleetrun.stdout is not None and fleetrun.stdout.readline() == b"\n"
    ended: list[psutil.Process] = []
    monkeypatch.setattr("fl_rec.terminal.fleetrun._end", ended.append)
    for parent in (stranger, fleetrun, fleetrun):
        monkeypatch.setattr("os.getppid", lambda number=parent.pid: number)
        end_unwatched("runner.epochs must be more.")
    (one,) = ended
    _end(one)
    assert fleetrun.wait(DEADLINE) == -signal.SIGTERM and stranger.poll() is None
    assert fleetrun.stdout.read() == b"fl_rec: error: runner.epochs must be more.\n"


TRACKER = """
from fl_rec.trackers import Tracker

class Mine(Tracker):
    def begin(self, epochs):
        self.told = ["begin"]
    def log(self, epoch, figures):
        self.told += [f"{epoch} {whose}" for whose in figures]
    def end(self, done, model):
        (self.run.path / "told").write_text(", ".join([*self.told, f"done {done}"]))
"""
FIGURES = ("seconds", "rows_per_second", "train_loss", "train_auc", "test_auc", "hr", "ndcg")


def test_by_hand_the_job_is_shown_on_fleetruns_terminal(
    by_hand: Callable[[], int],
    run: RunDirectory,
    load_job: Callable[..., Config],
    set_status: SetStatus,
    leader: subprocess.Popen,
    begin: Callable[..., None],
) -> None:
    """Which roles write to their logs, and the watch to its own; from its first epoch, though it be over by then. Its
    trackers are told the same."""
    tracker = run.path / "mine.py"
    tracker.write_text(TRACKER)
    load_job(f"runner.log_to=[{tracker}:Mine]").dump(run.config)
    begin(run, "fleetrun --worker_num=2 tools/static_fl_trainer.py -m ../my_job.yaml")
    line = {**dict.fromkeys(FIGURES, 0.5), "rows": 5, "test_users": 2, "top_k": 10, "epoch": 1}
    run.append_metrics([{**line, "client": client} for client in (0, 1, "all")])
    run.end("done", model=run.model / "1")
    for role, state, _ in ALL_DONE:
        set_status(role, state)
    threading.Timer(1.0, end, [leader]).start()
    assert by_hand() == 0
    assert leader.stdout is not None
    lines = [line[9:].rstrip() for line in leader.stdout.read().decode().splitlines()]
    assert lines[:2] == [
        "job       my_job.yaml: 1 epoch, 2 workers, 1 server, geo",
        "data      5 rows, 2 to 3 a client",
    ]
    assert any(line.startswith("epoch 1/1  loss 0.5000  AUC 0.500  HR@10 0.500  NDCG@10 0.500") for line in lines)
    assert "result    HR@10 0.500, NDCG@10 0.500: epoch 1, the last" in lines
    assert f"model     {run.model}/1" in lines
    assert (run.path / "told").read_text() == "begin, 1 client_0, 1 client_1, 1 all, done True"


def test_by_hand_a_job_that_can_not_be_shown_is_watched_all_the_same(
    by_hand: Callable[[], int],
    run: RunDirectory,
    set_status: SetStatus,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run.config.write_text("no configuration")
    set_status("worker.1", roles.FAILED, error="a shard is missing")
    assert by_hand() == 1
    assert "fl_rec: worker.1 failed: a shard is missing" in capsys.readouterr().out
    assert run.read_result()["role"] == "worker.1"


def test_by_hand_what_a_good_job_leaves_is_ended(
    by_hand: Callable[[], int], set_status: SetStatus, leader: subprocess.Popen, sleeper: Spawn, mark: Mark
) -> None:
    server = sleeper(**{FLEETRUN_MARK: mark.value})
    for role, state, _ in ALL_DONE:
        set_status(role, state)
    threading.Timer(0.1, end, [leader]).start()
    assert by_hand() == 0
    assert ended(leader) and ended(server)


def test_by_hand_fleetrun_ends_before_its_workers(
    by_hand: Callable[[], int],
    set_status: SetStatus,
    leader: subprocess.Popen,
    sleeper: Spawn,
    mark: Mark,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def log_as_fleetrun_ends(_fleetrun: psutil.Process, role: str, run: RunDirectory) -> Path:
        end(leader)
        return log_path(run, role)

    monkeypatch.setattr("fl_rec.terminal.fleetrun._stdout_of", log_as_fleetrun_ends)
    server = sleeper(**{FLEETRUN_MARK: mark.value})
    set_status("server.0", roles.RUNNING, server)
    assert by_hand() == 1
    assert server.poll() is not None


def test_by_hand_a_full_disk_does_not_keep_the_job_alive(
    by_hand: Callable[[], int],
    set_status: SetStatus,
    leader: subprocess.Popen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "write_result", full)
    set_status("worker.1", roles.FAILED, error="no space")
    assert by_hand() == 1
    assert leader.wait(DEADLINE) == -signal.SIGHUP


def test_by_hand_the_watch_is_a_process_of_its_own(
    run: RunDirectory,
    load_job: Callable[..., Config],
    set_status: SetStatus,
    leader: subprocess.Popen,
    mark: Mark,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(FLEETRUN_MARK, mark.value)
    set_status("worker.1", roles.FAILED, error="a shard is missing")
    role = Role("worker", 0, 2, ("127.0.0.1:1",), "")
    try:
        start_watch(run, role, psutil.Process(leader.pid), load_job())
        assert leader.wait(DEADLINE) == -signal.SIGHUP
        assert json.loads(run.result.read_text())["role"] == "worker.1"
        assert (run.log / "watch").read_text().startswith("fl_rec: worker.1 failed: a shard is missing\n")
        assert leader.stdout is not None and leader.stdout.readline().decode()[9:] == f"starting  {run.path}\n"
    finally:
        for process in mark.processes():
            process.kill()
