"""Roles that freeze, and roles that only look so. The whole matrix is benchmarks/faults.py."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from fl_rec.runs import roles

from .conftest import PROMPT, Finished, Job, role_process

HEARTBEAT = 3
# A worker that keeps Python's global lock for longer than that, a device and a strategy that take as long.
SLOW_TRAINER = """\
import ctypes, sys, time
from fl_rec.trainer import main
from fl_rec.trainer.coordinated import CoordinatedTrainer
class Slow(CoordinatedTrainer):
    def train_epoch(self, epoch, local_epochs=1.0):
        if self.role.name == "worker.1":
            ctypes.PyDLL(None).usleep(3_000_000)
        if self.role.name == "worker.2":
            time.sleep(3)
        return super().train_epoch(epoch, local_epochs)
sys.exit(main(Slow))
"""
SLOW_STRATEGY = """\
import time
from fl_rec.coordinator.strategies.join_all import JoinAll
class Slow(JoinAll):
    def decide(self, reports, round):
        time.sleep(3 if round == 0 else 0)
        return super().decide(reports, round)
"""


@pytest.fixture
def long_job(job: Job) -> Job:
    job.runner.update(epochs=1000, heartbeat_timeout=HEARTBEAT)
    return job


def end_of(job: Job, started: subprocess.Popen, role: str) -> Finished:
    """The end of a job one role of which has just been frozen."""
    began = time.monotonic()
    finished = job.wait(started, PROMPT)
    assert time.monotonic() - began < PROMPT
    assert finished.code == 1
    assert finished.result["role"] == role and finished.result["kind"] == "frozen"
    assert f"{role} failed: no sign of life for " in finished.errors
    assert f"(runner.heartbeat_timeout={HEARTBEAT}) while " in finished.errors
    assert "A signal has stopped it." in finished.errors
    assert job.processes() == []
    return finished


def test_a_frozen_role_is_named_and_not_those_that_wait_for_it(long_job: Job) -> None:
    started = long_job.start()
    role_process(long_job, "worker.2")
    role_process(long_job, "server.0").suspend()
    assert " while serving (for " in end_of(long_job, started, "server.0").errors


def test_a_worker_that_freezes_at_its_start(long_job: Job) -> None:
    long_job.runner["start_timeout"] = 90
    started = long_job.start()
    role_process(long_job, "worker.1", roles.STARTING).suspend()
    end_of(long_job, started, "worker.1")


def test_a_server_that_is_killed_at_its_start(long_job: Job) -> None:
    started = long_job.start()
    role_process(long_job, "server.0", roles.STARTING).kill()
    finished = long_job.wait(started, PROMPT)
    assert (finished.code, finished.result["role"], finished.result["kind"]) == (1, "server.0", "died")


def test_a_pause_does_no_harm(long_job: Job) -> None:
    """Each kind of role stops for less than the timeout; and the launcher for longer, which is nobody's silence."""
    long_job.runner["epochs"] = 6
    started = long_job.start()
    role_process(long_job, "worker.2")
    for role in ("server.0", "worker.1"):
        process = role_process(long_job, role)
        process.suspend()
        time.sleep(HEARTBEAT / 2)
        process.resume()
    started.send_signal(signal.SIGSTOP)
    time.sleep(HEARTBEAT + 2)
    started.send_signal(signal.SIGCONT)
    finished = long_job.wait(started)
    assert finished.code == 0, finished.errors
    assert [each["epoch"] for each in finished.records("all")] == list(range(1, 7))


def test_who_is_slow_is_not_frozen(job: Job, tmp_path: Path) -> None:
    """Native code that keeps Python's global lock, sleep, a reader and a strategy, each for longer than the timeout."""
    (tmp_path / "fl_slow.py").write_text(SLOW_TRAINER)
    (tmp_path / "fl_strategy.py").write_text(SLOW_STRATEGY)
    job.runner.update(heartbeat_timeout=2, pipe_command="sleep 3; cat", test_data_dir=None, exchanges_per_epoch=2)
    job.coordinator = {"strategy": "fl_strategy.py:Slow"}
    job.arguments = ["--coordinator_num", 1, "--script", tmp_path / "fl_slow.py"]
    finished = job.wait(job.start())
    assert finished.code == 0, finished.errors
    assert len(finished.records("all")) == 1
