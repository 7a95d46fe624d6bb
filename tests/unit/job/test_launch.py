"""Starting, watching, judging and ending a job: real small processes, a stand-in for fleetrun, no Paddle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fl_rec import cli, environment
from fl_rec.config import Config
from fl_rec.job import launch
from fl_rec.job import watch as watching
from fl_rec.job.launch import LaunchOptions
from fl_rec.job.watch import (
    FLEETRUN_MARK,
    Failure,
    Mark,
    _first_error,
    _stdout_of,
    log_path,
    start_watch,
    watch_by_hand,
)
from fl_rec.runs import roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.roles import Role

DEADLINE = 30.0
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
# Stands in for fleetrun and all its roles: `says` is a list of (role, state, error).
FLEETRUN = """\
import json, os, sys, time
run = os.environ["FL_REC_RUN_DIR"]
print("this is fleetrun")
for role, state, error in {says!r}:
    status = dict(role=role, pid=1, created=0.0, state=state, error=error, times={{state: time.time()}})
    with open(run + "/tmp", "w") as file: json.dump(status, file)
    os.replace(run + "/tmp", run + "/roles/" + role + ".json")
    open(run + "/log/" + role.replace(".", "log."), "w").close()
with open(run + "/tables.txt", "a") as file: file.write("epoch 0: AUC 0.7\\n\\n")
with open(run + "/result.json", "w") as file: json.dump(dict(state="done", model="the/model"), file)
time.sleep({seconds})
"""
ALL_DONE = [(role, "done", "") for role in ROLES]

Spawn = Callable[..., subprocess.Popen]
SetStatus = Callable[..., None]
Watch = Callable[..., "Failure | None"]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.job.watch.POLL_SECONDS", 0.01)
    monkeypatch.setattr(environment, "check", lambda: None)


@pytest.fixture
def mark() -> Mark:
    return Mark("FL_REC_TEST_MARK", uuid.uuid4().hex)


@pytest.fixture
def sleeper(spawn: Spawn) -> Callable[..., subprocess.Popen]:
    """`sleeper(ENV=value)`: a process that does nothing for a minute."""
    return lambda **env: spawn("sleep", "60", **env)


@pytest.fixture
def leader(sleeper: Spawn) -> subprocess.Popen:
    return sleeper()


@pytest.fixture
def watch(run: RunDirectory, leader: subprocess.Popen) -> Watch:
    fleetrun = psutil.Process(leader.pid)

    def watch(*, start_timeout: float = DEADLINE, on_poll: Callable[[], None] = lambda: None) -> Failure | None:
        # A watch that does not end is a failure of the test, and not a hang of the tests.
        deadline = time.monotonic() + DEADLINE

        def poll() -> None:
            assert time.monotonic() < deadline, "watch must have come to an end"
            on_poll()

        return watching.watch(run, ROLES, fleetrun, start_timeout, lambda role: log_path(run, role), poll)

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
    assert len(mark.processes()) == 1
    mark.end()
    assert mark.processes() == []


def test_zombie_is_not_alive(mark: Mark, sleeper: Spawn) -> None:
    child = sleeper(FL_REC_TEST_MARK=mark.value)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert mark.processes() == []


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
    log = write_log(run, "worker.1", "INFO epoch 0\nRuntimeError: no more memory\nINFO good bye\n")
    end(worker)
    assert watch() == Failure(
        "worker.1",
        "it ended without a word: killed, or crashed in native code. "
        "First error in its log: RuntimeError: no more memory",
        log,
    )


def test_role_whose_number_another_process_has_now(watch: Watch, set_status: SetStatus, run: RunDirectory) -> None:
    set_status("worker.0", roles.STARTING)
    path = run.roles / "worker.0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": 86400.0}))
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
        "not running 0.05 s after the start (runner.start_timeout), as worker.1. "
        "Raise it if this machine is busy. It left no log.",
        run.log / "workerlog.1",
    )


def test_all_late_roles_are_named(watch: Watch, set_status: SetStatus, run: RunDirectory) -> None:
    set_status("worker.0", roles.STARTING)
    set_status("worker.1", roles.RUNNING)
    write_log(run, "server.0", "INFO waiting\n")
    failure = watch(start_timeout=0.05)
    assert failure is not None and failure.role == "server.0"
    assert failure.reason.endswith(
        ", as server.0, worker.0. Raise it if this machine is busy. Last line of its log: INFO waiting"
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
        "it never came to its end. First error in its log: worker.0: error: ValueError: fc_layers: [3]",
        log,
    )


def test_fleetrun_gone_before_the_workers_were_done(
    watch: Watch, set_status: SetStatus, leader: subprocess.Popen
) -> None:
    set_status("server.0", roles.RUNNING)
    set_status("worker.0", roles.DONE)
    set_status("worker.1", roles.RUNNING)
    end(leader)
    failure = watch()
    assert failure is not None and failure.role == "worker.1"


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
    assert _first_error(path) == said


def test_first_error_of_a_crash_in_native_code(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(SEGMENTATION_FAULT, encoding="utf-8")
    assert _first_error(path) == (
        "First error in its log: FatalError: `Segmentation fault` is detected by the operating system."
    )


def test_first_error_is_the_message_and_not_the_line_of_code(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(TRACEBACK, encoding="utf-8")
    assert _first_error(path) == "First error in its log: ValueError: fc_layers: [3]"


def test_log_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe\nOSError: caf\xe9\n")
    assert _first_error(path) == "First error in its log: OSError: caf\ufffd"


def test_no_log(tmp_path: Path) -> None:
    assert _first_error(tmp_path / "none") == "It left no log."
    assert _first_error(tmp_path) == "It left no log."


def test_names_of_logs(run: RunDirectory) -> None:
    names = [log_path(run, role).name for role in ("server.0", "worker.11", "coordinator.0")]
    assert names == ["serverlog.0", "workerlog.11", "coordinator.0"]


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


# -- tables as they come -----------------------------------------------------------------------------------


def test_tables_are_shown_once(run: RunDirectory) -> None:
    said: list[str] = []
    show = launch._TableTail(run, said.append)
    show()
    assert said == []
    run.append_table("epoch 0: AUC 0.71 é")
    show()
    show()
    run.append_table("epoch 1")
    run.append_table("epoch 2")
    show()
    assert said == ["epoch 0: AUC 0.71 é\n", "epoch 1\n\nepoch 2\n"]


# -- from the command line to the result -------------------------------------------------------------------


@pytest.fixture
def fleetrun(monkeypatch: pytest.MonkeyPatch, bare_python: tuple[str, ...]) -> Callable[..., None]:
    """`fleetrun(says, seconds)`: what stands in for it says this of the roles, and stays for so long."""

    def fleetrun(says: list[tuple[str, str, str]], seconds: float = 0) -> None:
        command = [*bare_python, FLEETRUN.format(says=says, seconds=seconds)]
        monkeypatch.setattr(launch, "_fleetrun_command", lambda *_arguments: command)

    return fleetrun


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("no process may be started")

    monkeypatch.setattr(subprocess, "Popen", start)


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `fl-rec run`."""
    try:
        code: Any = cli.main(["run", *map(str, arguments)])
    except SystemExit as err:
        code = err.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_job_that_ends_well(
    make_job: Callable[..., Path], fleetrun: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fleetrun(ALL_DONE)
    code, out, err = run_cli(capsys, "-m", make_job())
    run = RunDirectory(tmp_path / "run")
    assert (code, err) == (0, "")
    assert "data      2 shards, 5 training rows\n" in out
    assert "roles     1 server(s), 2 worker(s), 0 coordinator(s)\n" in out
    assert f"run       {run.path}\nlogs      {run.log}\n" in out
    assert out.count("epoch 0: AUC 0.7\n") == 1
    assert out.endswith(f"done      {run.result}\nmodel     the/model\n")
    assert (run.log / "fleetrun").read_text() == "this is fleetrun\n"
    assert Config.load(run.config).hyper_parameters.num_users == 2


def test_job_that_fails(
    make_job: Callable[..., Path], fleetrun: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fleetrun([*ALL_DONE[:2], ("worker.1", "failed", "the reader exited with 1")], seconds=60)
    code, out, err = run_cli(capsys, "-m", make_job())
    log = tmp_path / "run" / "log" / "workerlog.1"
    assert code == 1
    assert err == f"fl_rec: worker.1 failed: the reader exited with 1\n  its log: {log}\n"
    assert "done  " not in out
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == {
        "state": "failed",
        "role": "worker.1",
        "error": "the reader exited with 1",
        "log": str(log),
    }
    assert Mark("FL_REC_RUN_DIR", str(tmp_path / "run")).processes() == []


def test_failure_is_told_though_the_disk_is_full(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "write_result", full)
    fleetrun([("worker.0", "failed", "a shard is missing")])
    code, _, err = run_cli(capsys, "-m", make_job())
    assert code == 1
    assert "worker.0 failed: a shard is missing" in err


def test_failure_of_fleetrun_itself_is_quoted(
    make_job: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    bare_python: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As with --servers 127.0.0.1, of which fleetrun dies before it starts a role.
    command = [*bare_python, "raise IndexError('list index out of range')"]
    monkeypatch.setattr(launch, "_fleetrun_command", lambda *_arguments: command)
    code, _, err = run_cli(capsys, "-m", make_job())
    assert code == 1
    assert "IndexError: list index out of range" in err


@pytest.mark.usefixtures("nothing_starts")
def test_run_directory_that_had_its_run(make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = make_job()
    RunDirectory.claim(path.parent.parent / "run", "an earlier job")
    code, _, err = run_cli(capsys, "-m", path)
    assert code == 2
    assert err.startswith("fl-rec: error: A run directory holds one run, and this one has had its own. Received: ")


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "runner.epoch=5"], "option -o: runner.epoch: unknown key. Did you mean runner.epochs?"),
        (["-o", "runner.epochs"], "option -o: must be key=value. Received: 'runner.epochs'."),
        (["-o", "runner.train_data_dir=nowhere"], "runner.train_data_dir must be a folder of shards. Received: "),
        (["--worker_num", "3"], "Shard k belongs to worker k, so there must be as many shards as workers. "),
        (
            ["--script", "no_such.py"],
            "--script must name a training script. Received: no_such.py, which is not a file.",
        ),
        (
            ["--coordinator_num", "1", "--script", str(launch.DEFAULT_SCRIPTS[0])],
            "--coordinator_num must be 0 with static_fl_trainer.py. Received: 1.",
        ),
        (
            ["--script", str(launch.DEFAULT_SCRIPTS[1])],
            "--coordinator_num must be 1 with static_fl_trainer_with_coordinator.py. Received: 0.",
        ),
        (["--coordinator_num", "1", "-o", "coordinator.strategy=randomk"], "coordinator.strategy must be one of "),
        (["--coordinator_num", "1", "-o", "coordinator.options={k: 3}"], "coordinator.options: k: unknown key."),
        (
            ["--servers", "a:1,b:2"],
            "--servers must name one host:port per server. Received: a:1,b:2 for --server_num 1.",
        ),
        (["--server_num", "2", "--servers", "a:1"], "--servers must name one host:port per server. Received: a:1"),
    ],
)
def test_mistake_is_one_message(
    make_job: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = run_cli(capsys, "-m", make_job(), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"fl-rec: error: {message}")
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists(), "a mistake leaves no run directory"


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("servers", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:http", ":7001"])
def test_server_without_a_port(make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], servers: str) -> None:
    code, _, err = run_cli(capsys, "-m", make_job(), "--servers", servers)
    assert code == 2
    assert f"Received: {servers}" in err


@pytest.mark.usefixtures("nothing_starts")
def test_relative_name_of_the_default_script(
    make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = launch.DEFAULT_SCRIPTS[0]
    monkeypatch.chdir(script.parent)
    arguments = ("--script", script.name, "--coordinator_num", "1")
    code, _, err = run_cli(capsys, "-m", make_job(), *arguments)
    assert code == 2
    assert "--coordinator_num must be 0 with static_fl_trainer.py" in err


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--worker_num", "0"], "argument --worker_num: must be at least 1, received 0"),
        (["--server_num", "-1"], "argument --server_num: must be at least 1, received -1"),
        (["--coordinator_num", "2"], "argument --coordinator_num: invalid choice: 2 (choose from 0, 1)"),
        (["--workers", "2"], "unrecognized arguments: --workers 2"),
    ],
)
def test_option_that_is_refused(
    make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run_cli(capsys, "-m", make_job(), *arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.usefixtures("nothing_starts")
def test_number_that_is_none(make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(capsys, "-m", make_job(), "--worker_num", "ten")
    assert code == 2
    assert "ten" in err and "_count" not in err


def test_command_as_a_process(tmp_path: Path) -> None:
    main = "import sys; from fl_rec import cli, environment; environment.check = lambda: None; sys.exit(cli.main())"
    done = subprocess.run(
        [sys.executable, "-c", main, "run", "-m", "no_such.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(environment.CLONE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    text = done.stderr.decode()
    assert text.startswith("fl-rec: error: no_such.yaml: cannot be read as a configuration: No such file or directory.")
    assert text.count("\n") == 1


def test_command_of_fleetrun(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = LaunchOptions(
        Path("a job.yaml"), ("runner.epochs=5", "runner.seed=1"), None, 2, 1, "a:1,b:2", Path("my trainer.py")
    )
    here = tmp_path.resolve()
    assert launch._fleetrun_command(options, 10, run) == [
        sys.executable,
        *("-m", "paddle.distributed.launch", f"--log_dir={run.log}", "--worker_num=10", "--server_num=2"),
        *("--servers=a:1,b:2", "--coordinator_num=1", f"{here}/my trainer.py", "-m", f"{here}/a job.yaml"),
        *("-o", "runner.epochs=5", "-o", "runner.seed=1"),
    ]


# -- signals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_job_and_nothing_else(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    sleeper: Spawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    bystander = sleeper(FL_REC_RUN_DIR=str(tmp_path / "another run"))
    fleetrun([("worker.0", "done", "")], seconds=60)
    polls: list[int] = []
    shown = launch._TableTail.__call__

    def show(tail: launch._TableTail) -> None:
        shown(tail)
        polls.append(1)
        if (tmp_path / "run" / "result.json").exists() and len(polls) > 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(launch._TableTail, "__call__", show)
    before = signal.getsignal(number)
    code, out, _ = run_cli(capsys, "-m", make_job())
    assert code == 128 + number
    assert out.endswith(f"\nstopped by {number.name}: ending the job's processes\n")
    content = json.loads((tmp_path / "run" / "result.json").read_text())
    assert content == {"state": "failed", "error": f"stopped by {number.name}"}
    assert Mark("FL_REC_RUN_DIR", str(tmp_path / "run")).processes() == []
    assert bystander.poll() is None
    assert signal.getsignal(number) is before


def test_second_signal_does_not_interrupt_the_clearing_up() -> None:
    with pytest.raises(launch._Signalled, match="stopped by SIGTERM"), launch._signals_as_exceptions():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(DEADLINE)
        finally:
            os.kill(os.getpid(), signal.SIGINT)


def test_signal_in_the_moment_of_the_start(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = subprocess.Popen

    def start_interrupted(*arguments: Any, **options: Any) -> subprocess.Popen:
        process = start(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_interrupted)
    fleetrun([], seconds=60)
    path = make_job()
    mark = Mark("FL_REC_RUN_DIR", str(path.parent.parent / "run"))
    try:
        code, _, _ = run_cli(capsys, "-m", path)
        assert mark.processes() == []
        assert code == 128 + signal.SIGINT
    finally:
        mark.end()


def test_ignored_signal_stays_ignored() -> None:
    # nohup ./fl_run.sh & ... and the terminal is closed.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with launch._signals_as_exceptions():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_while_a_failed_job_is_being_ended(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = Mark.end

    def end_interrupted(mark: Mark) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        ended(mark)

    monkeypatch.setattr(Mark, "end", end_interrupted)
    fleetrun([("worker.0", "failed", "a shard is missing")], seconds=60)
    path = make_job()
    mark = Mark("FL_REC_RUN_DIR", str(path.parent.parent / "run"))
    try:
        code, _, err = run_cli(capsys, "-m", path)
        assert mark.processes() == []
        assert code == 1 and "worker.0 failed: a shard is missing" in err
    finally:
        ended(mark)


# -- a job that a bare fleetrun started --------------------------------------------------------------------


@pytest.fixture
def by_hand(
    run: RunDirectory, leader: subprocess.Popen, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], int]:
    monkeypatch.setenv(FLEETRUN_MARK, mark.value)
    return lambda: watch_by_hand([str(run.path), str(leader.pid), "30", *ROLES])


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
    assert leader.wait(DEADLINE) == -signal.SIGTERM
    assert ended(worker)
    assert bystander.poll() is None
    content = json.loads(run.result.read_text())
    assert (content["state"], content["role"], content["error"]) == ("failed", "worker.1", "a shard is missing")
    assert content["log"].endswith("/log/workerlog.1")
    assert capsys.readouterr().out.startswith("fl_rec: worker.1 failed: a shard is missing\n  its log: ")


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

    monkeypatch.setattr("fl_rec.job.watch._stdout_of", log_as_fleetrun_ends)
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
    assert leader.wait(DEADLINE) == -signal.SIGTERM


def test_by_hand_the_watch_is_a_process_of_its_own(
    run: RunDirectory, set_status: SetStatus, leader: subprocess.Popen, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FLEETRUN_MARK, mark.value)
    set_status("worker.1", roles.FAILED, error="a shard is missing")
    role = Role("worker", 0, 2, ("127.0.0.1:1",), "")
    try:
        start_watch(run, role, psutil.Process(leader.pid), DEADLINE)
        assert leader.wait(DEADLINE) == -signal.SIGTERM
        assert json.loads(run.result.read_text())["role"] == "worker.1"
        assert (run.log / "watch").read_text().startswith("fl_rec: worker.1 failed: a shard is missing\n")
    finally:
        for process in mark.processes():
            process.kill()
