"""Watching, judging and ending a job: real small processes, no Paddle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fl_rec.job import watch as watching
from fl_rec.job.judge import Failure, Patience, first_error
from fl_rec.job.watch import (
    Mark,
    log_path,
)
from fl_rec.runs import roles
from fl_rec.runs.directory import RunDirectory

DEADLINE = 30.0
PATIENCE = Patience(DEADLINE, DEADLINE, DEADLINE, True)
ROLES = ("server.0", "worker.0", "worker.1")
SEGMENTATION_FAULT = """\
I1122 20:05:30.320583  2190 brpc_ps_client.cc:733] BrpcPsClient::FinalizeWorker begin


--------------------------------------
C++ Traceback (most recent call last):
--------------------------------------
No stack trace in paddle, may be caused by external reasons.

----------------------
Error Message Summary:
----------------------
FatalError: `Segmentation fault` is detected by the operating system.
  [TimeInfo: *** Aborted at 1795378461 (unix time) try "date -d @1795378461" if you are using GNU date ***]
  [SignalInfo: *** SIGSEGV (@0x0) received by PID 12142 (TID 0x7f40ad613b80) from PID 0 ***]
"""
TRACEBACK = """\
INFO started
Traceback (most recent call last):
  File "net.py", line 7, in net
    raise ValueError(f"fc_layers: {layers}")
ValueError: fc_layers: [3]
worker.0: error: ValueError: fc_layers: [3]
"""
pytestmark = pytest.mark.usefixtures("fast")
ALL_DONE = [(role, "done", "") for role in ROLES]

Spawn = Callable[..., subprocess.Popen]
SetStatus = Callable[..., None]
Watch = Callable[..., "Failure | None"]


@pytest.fixture
def leader(sleeper: Spawn) -> subprocess.Popen:
    return sleeper()


@pytest.fixture
def watch(run: RunDirectory, leader: subprocess.Popen) -> Watch:
    fleetrun = psutil.Process(leader.pid)

    def watch(
        *,
        start_timeout: float = DEADLINE,
        heartbeat: float = DEADLINE,
        barrier: float = DEADLINE,
        coordinator: bool = True,
        on_poll: Callable[[], None] = lambda: None,
    ) -> Failure | None:
        # A watch that does not end is a failure of the test, and not a hang of the tests.
        deadline = time.monotonic() + DEADLINE

        def poll(_views: object) -> None:
            assert time.monotonic() < deadline, "watch must have come to an end"
            on_poll()

        patience = Patience(start_timeout, heartbeat, barrier, coordinator)
        return watching.watch(run, ROLES, fleetrun, patience, lambda role: log_path(run, role), poll)

    return watch


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait(DEADLINE)


def ended(process: subprocess.Popen) -> bool:
    """Whether it comes to an end. Its exit code is lost where psutil has waited for it, so it is not looked at."""
    return process.wait(DEADLINE) is not None


def ready(process: subprocess.Popen) -> None:
    """Waits for the process's first line."""
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"


def write_log(run: RunDirectory, role: str, text: str) -> Path:
    path = log_path(run, role)
    path.write_text(text, encoding="utf-8")
    return path


# -- the mark of a job's processes -------------------------------------------------------------------------


def test_mark_finds_its_processes_and_no_other(mark: Mark, sleeper: Spawn) -> None:
    mine = sleeper(FL_REC_TEST_MARK=mark.value)
    sleeper(FL_REC_TEST_MARK=mark.value + "0")
    sleeper(FL_REC_OTHER_MARK=mark.value)
    assert [process.pid for process in mark.processes()] == [mine.pid]


def test_mark_finds_an_orphan_in_a_session_of_its_own(mark: Mark, spawn: Spawn) -> None:
    # As gloo's store, which server 0 forks: its parent ends first.
    parent = spawn("sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!", FL_REC_TEST_MARK=mark.value)
    assert ended(parent)
    deadline = time.monotonic() + DEADLINE
    while len(mark.processes()) != 1:  # while it begins the kernel does not show its environment
        assert time.monotonic() < deadline
    mark.end()
    assert mark.processes() == []


def test_zombie_is_not_alive(mark: Mark, sleeper: Spawn) -> None:
    child = sleeper(FL_REC_TEST_MARK=mark.value)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert mark.processes() == []


def test_who_starts_a_program_at_the_first_look_is_ended(
    mark: Mark, sleeper: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel shows no environment of it for a moment; of 876 ends with one of them, 21 left it behind."""
    starting, unseen, look = sleeper(FL_REC_TEST_MARK=mark.value), [1], Mark.processes
    monkeypatch.setattr(Mark, "processes", lambda self: [] if unseen and unseen.pop() else look(self))
    mark.end()
    assert starting.wait(DEADLINE) == -signal.SIGTERM


def test_end_is_polite(mark: Mark, spawn: Spawn) -> None:
    script = "trap 'echo good bye; exit' TERM; echo ready; while :; do sleep 0.01; done"
    polite = spawn("sh", "-c", script, FL_REC_TEST_MARK=mark.value)
    ready(polite)
    mark.end()
    assert polite.communicate(timeout=DEADLINE)[0].endswith(b"good bye\n")


def test_end_kills_who_will_not_go_and_spares_the_bystander(
    mark: Mark, spawn: Spawn, sleeper: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_rec.job.watch.GRACE_SECONDS", 0.2)
    stubborn = spawn("sh", "-c", "trap '' TERM; echo ready; exec sleep 60", FL_REC_TEST_MARK=mark.value)
    stopped = sleeper(FL_REC_TEST_MARK=mark.value)
    os.kill(stopped.pid, signal.SIGSTOP)
    bystander = sleeper(FL_REC_TEST_MARK="another job")
    ready(stubborn)
    mark.end()
    assert ended(stubborn) and ended(stopped)
    assert bystander.poll() is None
    assert mark.processes() == []


def test_end_does_not_wait_for_those_who_reap(mark: Mark, spawn: Spawn, bare_python: tuple[str, ...]) -> None:
    """A parent that never asks keeps a zombie, as a container's first process may."""
    code = f"""import os, subprocess, time
child = subprocess.Popen(["sleep", "60"], env={{**os.environ, "FL_REC_TEST_MARK": {mark.value!r}}})
print("ready", flush=True)
time.sleep(60)"""
    ready(spawn(*bare_python, code))
    deadline = time.monotonic() + DEADLINE
    while not mark.processes():  # a parent goes on before the child's environment can be read
        assert time.monotonic() < deadline, "the child should have been found"
    start = time.monotonic()
    mark.end()
    assert time.monotonic() - start < watching.GRACE_SECONDS
    assert mark.processes() == []


def test_end_of_a_job_that_has_ended(mark: Mark) -> None:
    start = time.monotonic()
    mark.end()
    assert time.monotonic() - start < watching.GRACE_SECONDS


# -- the judgement -----------------------------------------------------------------------------------------


def test_all_workers_done(watch: Watch, set_status: SetStatus) -> None:
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.DONE)
    set_status("worker.1", roles.DONE)
    assert watch() is None


def test_all_workers_done_and_the_rest_gone(
    watch: Watch, set_status: SetStatus, leader: subprocess.Popen, sleeper: Spawn
) -> None:
    server = sleeper()
    set_status("server.0", roles.RUNNING, server)
    set_status("worker.0", roles.DONE)
    set_status("worker.1", roles.DONE)
    end(server)
    end(leader)
    assert watch() is None


def test_job_goes_on_until_the_last_worker_is_done(watch: Watch, set_status: SetStatus) -> None:
    looks: list[int] = []

    def poll() -> None:
        looks.append(1)
        if len(looks) == 3:
            set_status("worker.1", roles.DONE)

    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.DONE)
    set_status("worker.1", roles.RUNNING)
    assert watch(on_poll=poll) is None
    assert len(looks) == 4


def test_failed_role(watch: Watch, set_status: SetStatus, run: RunDirectory) -> None:
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.RUNNING)
    set_status("worker.1", roles.FAILED, error="the reader exited with 1")
    failure = watch()
    assert failure == Failure("worker.1", "the reader exited with 1", run.log / "workerlog.1")
    assert str(failure) == f"worker.1 failed: the reader exited with 1\n  its log: {run.log}/workerlog.1"


def test_first_of_two_failures(watch: Watch, set_status: SetStatus) -> None:
    set_status("server.0", roles.FAILED, error="nobody answers", at=8.5)
    set_status("worker.1", roles.FAILED, error="a shard is missing", at=7.5)
    failure = watch()
    assert failure is not None and (failure.role, failure.reason) == ("worker.1", "a shard is missing")


def test_killed_role(watch: Watch, set_status: SetStatus, sleeper: Spawn, run: RunDirectory) -> None:
    worker = sleeper()
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.RUNNING)
    set_status("worker.1", roles.RUNNING, worker)
    log = write_log(run, "worker.1", "INFO epoch 1\nRuntimeError: no more memory\nINFO good bye\n")
    end(worker)
    assert watch() == Failure(
        "worker.1",
        "it ended without a word: killed, or crashed in native code. "
        "First error in its log: RuntimeError: no more memory",
        log,
        "died",
    )


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "killed by SIGKILL, as by kill -9, or by Linux if memory has run out."),
        (signal.SIGSEGV, "crashed in native code (SIGSEGV)."),
        (signal.SIGTERM, "killed by SIGTERM."),
        (40, "killed by signal 40."),
    ],
)
def test_signal_that_has_ended_a_role(
    watch: Watch, set_status: SetStatus, sleeper: Spawn, number: int, how: str
) -> None:
    worker = sleeper()
    set_status("worker.1", roles.RUNNING, worker)
    worker.send_signal(number)
    failure = watch()
    assert failure is not None and failure.reason == f"it ended without a word: {how} It left no log."


def test_role_whose_number_another_process_has_now(watch: Watch, set_status: SetStatus, run: RunDirectory) -> None:
    set_status("worker.0", roles.STARTING)
    path = run.roles / "worker.0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": roles.started(1)}))
    failure = watch()
    assert failure is not None and failure.role == "worker.0"
    assert failure.reason.startswith("it ended without a word")


def test_server_is_the_cause_when_workers_end_with_it(watch: Watch, set_status: SetStatus, sleeper: Spawn) -> None:
    gone, left = sleeper(), ROLES[-1]
    for role in ROLES:
        set_status(role, roles.RUNNING, None if role == left else gone)
    end(gone)
    failure = watch()
    assert failure is not None and failure.role == "server.0"


def test_workers_that_crash_all_at_once_are_the_cause_of_the_servers_end(
    watch: Watch, set_status: SetStatus, sleeper: Spawn
) -> None:
    gone = sleeper()
    for role in ROLES:
        set_status(role, roles.RUNNING, gone)
    end(gone)
    failure = watch()
    assert failure is not None and failure.role == "worker.0"


def test_server_is_the_cause_when_workers_complain(watch: Watch, set_status: SetStatus, sleeper: Spawn) -> None:
    server = sleeper()
    set_status("server.0", roles.RUNNING, server, at=1.0)
    set_status("worker.0", roles.FAILED, error="Not connected", at=20.0)
    set_status("worker.1", roles.RUNNING)
    end(server)
    failure = watch()
    assert failure is not None and failure.role == "server.0"


def test_server_that_fleetrun_stops_is_not_the_cause_of_what_all_workers_complained_of(
    watch: Watch, set_status: SetStatus, sleeper: Spawn
) -> None:
    # fleetrun stops the servers as soon as the last worker has ended, well or not.
    server = sleeper()
    set_status("server.0", roles.RUNNING, server)
    set_status("worker.0", roles.FAILED, error="a barrier was broken", at=9.0)
    set_status("worker.1", roles.FAILED, error="a shard is missing", at=7.5)
    end(server)
    failure = watch()
    assert failure is not None and (failure.role, failure.reason) == ("worker.1", "a shard is missing")


def test_vanished_role_is_the_cause_even_of_a_failure_before_it_was_heard_of(
    watch: Watch, set_status: SetStatus, sleeper: Spawn
) -> None:
    worker = sleeper()
    set_status("worker.0", roles.FAILED, error="the port is taken", at=1.0)
    set_status("worker.1", roles.STARTING, worker, at=2.0)
    end(worker)
    failure = watch()
    assert failure is not None and failure.role == "worker.1"
    assert failure.reason.startswith("it ended without a word")


@pytest.mark.parametrize("reading", [1, 2, 3, 4])
def test_role_that_ends_well_between_two_looks_has_not_vanished(
    watch: Watch,
    set_status: SetStatus,
    sleeper: Spawn,
    leader: subprocess.Popen,
    monkeypatch: pytest.MonkeyPatch,
    reading: int,
) -> None:
    worker = sleeper()
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.DONE)
    set_status("worker.1", roles.RUNNING, worker)

    readings: list[int] = []
    read = roles.read_statuses

    def read_and_end(folder: Path) -> dict[str, roles.RoleStatus]:
        # The last worker ends, and fleetrun with it, just after its status was read.
        statuses = read(folder)
        readings.append(1)
        if len(readings) == reading:
            set_status("worker.1", roles.DONE, worker)
            end(worker)
            end(leader)
        return statuses

    monkeypatch.setattr(roles, "read_statuses", read_and_end)
    assert watch() is None
    assert len(readings) >= reading


@pytest.mark.parametrize("role", ["server.0", "coordinator.0"])
def test_failed_server_is_told_though_all_workers_are_done(watch: Watch, set_status: SetStatus, role: str) -> None:
    set_status(role, roles.FAILED, error="the tables can't be saved")
    set_status("worker.0", roles.DONE)
    set_status("worker.1", roles.DONE)
    failure = watch()
    assert failure is not None and (failure.role, failure.reason) == (role, "the tables can't be saved")


def test_role_that_never_starts(watch: Watch, set_status: SetStatus, run: RunDirectory) -> None:
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.RUNNING)
    assert watch(start_timeout=0.05) == Failure(
        "worker.1",
        "not running 0.05 s after the start (runner.start_timeout). Raise it if this machine is busy. It left no log.",
        run.log / "workerlog.1",
    )


def test_all_late_roles_are_named(watch: Watch, set_status: SetStatus, run: RunDirectory) -> None:
    set_status("worker.0", roles.STARTING)
    set_status("worker.1", roles.RUNNING)
    write_log(run, "server.0", "INFO waiting\n")
    failure = watch(start_timeout=0.05)
    assert failure is not None and failure.role == "server.0"
    assert failure.reason.endswith(
        "; neither is worker.0. Raise it if this machine is busy. Last line of its log: INFO waiting"
    )


def test_start_timeout_is_not_for_those_that_run(watch: Watch, set_status: SetStatus) -> None:
    looks: list[int] = []

    def poll() -> None:
        looks.append(1)
        if len(looks) == 5:
            set_status("worker.0", roles.DONE)
            set_status("worker.1", roles.DONE)

    for role in ROLES:
        set_status(role, roles.RUNNING)
    assert watch(start_timeout=0.001, on_poll=poll) is None


@pytest.mark.parametrize("reaped", [True, False])
def test_fleetrun_gone_without_a_worker(
    watch: Watch, set_status: SetStatus, run: RunDirectory, leader: subprocess.Popen, reaped: bool
) -> None:
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.DONE)
    log = write_log(run, "worker.1", TRACEBACK.splitlines()[-1])

    def poll() -> None:
        leader.kill()
        if reaped:
            leader.wait(DEADLINE)

    failure = watch(on_poll=poll)
    assert failure == Failure(
        "worker.1",
        "it never came to its end: what started it has ended. "
        "First error in its log: worker.0: error: ValueError: fc_layers: [3]",
        log,
        "died",
    )


def test_fleetrun_gone_before_the_workers_were_done(
    watch: Watch, set_status: SetStatus, leader: subprocess.Popen
) -> None:
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.DONE)
    set_status("worker.1", roles.RUNNING)
    end(leader)
    failure = watch()
    assert failure is not None and (failure.role, failure.kind) == ("starter", "died")
    assert failure.reason.startswith("it ended before the workers that it has started")


# -- what a log says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Its log is empty."),
        ("\n  \n", "Its log is empty."),
        ("INFO one\nINFO two\n\n", "Last line of its log: INFO two"),
        ("INFO one\n  ValueError: two\nKeyError: three\n", "First error in its log: ValueError: two"),
        ("paddle.base.core.EnforceNotMet: x\nworker.0: error: y", "First error in its log: worker.0: error: y"),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'\n",
            "First error in its log: terminate called after throwing an instance of 'std::bad_alloc'",
        ),
        (
            "F1122 20:05:30.3 12 ps.cc:7] Check failed: fd >= 0\n",
            "First error in its log: F1122 20:05:30.3 12 ps.cc:7] Check failed: fd >= 0",
        ),
        (
            "FatalError: `Segmentation fault` is detected by the operating system.\n",
            "First error in its log: FatalError: `Segmentation fault` is detected by the operating system.",
        ),
        ("Killed\n", "First error in its log: Killed"),
    ],
)
def test_first_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "log"
    path.write_text(text, encoding="utf-8")
    assert first_error(path) == said


def test_first_error_of_a_crash_in_native_code(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(SEGMENTATION_FAULT, encoding="utf-8")
    assert first_error(path) == (
        "First error in its log: FatalError: `Segmentation fault` is detected by the operating system."
    )


def test_first_error_is_the_message_and_not_the_line_of_code(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(TRACEBACK, encoding="utf-8")
    assert first_error(path) == "First error in its log: ValueError: fc_layers: [3]"


def test_log_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe\nOSError: caf\xe9\n")
    assert first_error(path) == "First error in its log: OSError: caf\ufffd"


def test_no_log(tmp_path: Path) -> None:
    assert first_error(tmp_path / "none") == "It left no log."
    assert first_error(tmp_path) == "It left no log."


def test_names_of_logs(run: RunDirectory) -> None:
    names = [log_path(run, role).name for role in ("server.0", "worker.11", "coordinator.0")]
    assert names == ["serverlog.0", "workerlog.11", "coordinator.0"]
