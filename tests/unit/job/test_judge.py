"""Who is blamed for silence: the one who gives no sign of life, and not those who wait for it. Real small processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from fl_rec.job import watch as watching
from fl_rec.job.judge import STARTER, Failure, Judge, Patience
from fl_rec.job.watch import log_path
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import RunDirectory

DEADLINE = 30.0
HEARTBEAT = 0.8
ROLES = ("server.0", "worker.0", "worker.1", "coordinator.0")
BUSY = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)"
pytestmark = pytest.mark.usefixtures("fast")

Spawn = Callable[..., subprocess.Popen]
SetStatus = Callable[..., None]
Watch = Callable[..., "Failure | None"]


@pytest.fixture
def role_of(spawn: Spawn, set_status: SetStatus) -> Callable[..., subprocess.Popen]:
    """`role_of(name)` starts a process that lives, and has written that it runs."""

    def role_of(name: str, state: str = roles.RUNNING) -> subprocess.Popen:
        process = spawn(sys.executable, "-S", "-c", BUSY)
        assert process.stdout.readline() == b"ready\n"
        set_status(name, state, process)
        return process

    return role_of


@pytest.fixture
def leader(spawn: Spawn) -> subprocess.Popen:
    process = spawn(sys.executable, "-S", "-c", BUSY)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def watch(run: RunDirectory, leader: subprocess.Popen) -> Watch:
    def watch(
        on_poll: Callable[[], None] = lambda: None,
        *,
        expected: tuple[str, ...] = ROLES[:3],
        heartbeat: float = HEARTBEAT,
        barrier: float = DEADLINE,
        start: float = DEADLINE,
        coordinator: bool = True,
    ) -> Failure | None:
        deadline = time.monotonic() + DEADLINE

        def poll(_views: object) -> None:
            assert time.monotonic() < deadline, "watch must have come to an end"
            on_poll()

        patience = Patience(start, heartbeat, barrier, coordinator)
        fleetrun = psutil.Process(leader.pid)
        return watching.watch(run, expected, fleetrun, patience, lambda role: log_path(run, role), poll)

    return watch


@pytest.fixture
def does(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`does(role, what, seconds, for_others)` writes what a role has been doing for so long."""

    def does(role: str, what: str, seconds: float = 0.0, for_others: bool = False) -> None:
        monkeypatch.setattr(activity._Own, "file", os.open(run.roles / f"{role}.activity", os.O_WRONLY | os.O_CREAT))
        activity._change(what=what, since=time.monotonic() - seconds, for_others=for_others)
        os.close(activity._Own.file)

    monkeypatch.setattr(activity._Own, "activity", activity._Own.activity)
    yield does
    monkeypatch.setattr(activity._Own, "file", None)


@pytest.mark.parametrize("frozen", ["server.0", "worker.1"])
@pytest.mark.parametrize("state", [roles.STARTING, roles.RUNNING])
def test_the_frozen_one_is_named_with_what_it_did(
    watch: Watch, role_of: Callable[..., subprocess.Popen], does: Callable[..., None], frozen: str, state: str
) -> None:
    processes = {name: role_of(name, state) for name in ROLES[:3]}
    does(frozen, "training epoch 3", seconds=40)
    does("worker.0", "epoch 3: all flushed", seconds=20, for_others=True)
    processes[frozen].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    failure = watch()
    assert failure is not None and (failure.role, failure.kind) == (frozen, "frozen")
    assert "no sign of life for 1 s (runner.heartbeat_timeout=0.8) while training epoch 3 (for 4" in failure.reason
    assert "A signal has stopped it." in failure.reason
    assert time.monotonic() - began > HEARTBEAT


def test_one_that_goes_on_in_time_is_not_blamed(
    watch: Watch, role_of: Callable[..., subprocess.Popen], set_status: SetStatus
) -> None:
    processes = {name: role_of(name) for name in ROLES[:3]}
    processes["worker.1"].send_signal(signal.SIGSTOP)
    began = time.monotonic()

    def poll() -> None:
        if time.monotonic() - began > HEARTBEAT / 2:
            processes["worker.1"].send_signal(signal.SIGCONT)
        if time.monotonic() - began > 3 * HEARTBEAT:
            for worker in ROLES[1:3]:
                set_status(worker, roles.DONE)

    assert watch(poll) is None


def test_who_gives_up_on_a_frozen_one_is_not_to_blame(
    watch: Watch, role_of: Callable[..., subprocess.Popen], set_status: SetStatus
) -> None:
    role_of("server.0")
    worker = psutil.Process(role_of("worker.1").pid)
    worker.suspend()
    deadline = time.monotonic() + DEADLINE
    while worker.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    set_status("worker.0", roles.FAILED, error="one did not come")
    failure = watch(heartbeat=DEADLINE)
    assert failure is not None and (failure.role, failure.kind) == ("worker.1", "frozen")
    assert "worker.0 said: one did not come" in failure.reason


@pytest.mark.parametrize("tells", [True, False])
def test_who_saw_another_fail_is_not_to_blame(
    watch: Watch,
    role_of: Callable[..., subprocess.Popen],
    set_status: SetStatus,
    does: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tells: bool,
) -> None:
    """As of a worker without memory: the others see that its connections close, and tell it first."""
    monkeypatch.setattr("fl_rec.job.judge.TELLING_SECONDS", DEADLINE / 2 if tells else 0.3)
    role_of("server.0"), role_of("worker.1")
    does("worker.0", "epoch 1: all sent", for_others=True)
    does("worker.1", "exchanging in epoch 1")
    set_status("worker.0", roles.FAILED, error="one has ended", at=time.monotonic())
    looks: list[int] = []

    def poll() -> None:
        looks.append(1)
        if tells and len(looks) == 5:
            set_status("worker.1", roles.FAILED, error="MemoryError", at=time.monotonic())

    failure = watch(poll, heartbeat=DEADLINE)
    assert failure is not None
    if tells:
        assert (failure.role, failure.reason, failure.kind) == ("worker.1", "MemoryError", "failed")
    else:
        assert (failure.role, failure.kind) == ("worker.1", "frozen")
        assert failure.reason.startswith("worker.0 said: one has ended It was exchanging in epoch 1 (for ")


def test_an_error_of_its_own_is_its_own(
    watch: Watch, role_of: Callable[..., subprocess.Popen], set_status: SetStatus
) -> None:
    role_of("server.0"), role_of("worker.1")
    set_status("worker.0", roles.FAILED, error="a shard is missing")
    failure = watch(heartbeat=DEADLINE)
    assert failure is not None and (failure.role, failure.kind) == ("worker.0", "failed")


def test_who_keeps_the_others_waiting(
    watch: Watch, role_of: Callable[..., subprocess.Popen], does: Callable[..., None]
) -> None:
    """It lives, and does not come: the one that waits is not to blame."""
    for name in ROLES[:3]:
        role_of(name)
    does("worker.0", "epoch 3: all flushed", seconds=60, for_others=True)
    does("worker.1", "training epoch 3", seconds=90)
    failure = watch(barrier=50.0, heartbeat=DEADLINE)
    assert failure is not None and (failure.role, failure.kind) == ("worker.1", "frozen")
    assert failure.reason.startswith(
        "worker.0 waited for the other workers (epoch 3: all flushed), and one did not come within "
        "runner.barrier_timeout=50 s: worker.1: training epoch 3 (for 90 s). Raise it if that may take so long."
    )


def test_a_late_one_is_named_with_what_it_does_and_not_who_waits_for_it(
    watch: Watch, role_of: Callable[..., subprocess.Popen], does: Callable[..., None]
) -> None:
    role_of("server.0")
    for name in ("worker.0", "worker.1"):
        role_of(name, roles.STARTING)
    does("worker.0", "the first worker's initial parameters", seconds=2, for_others=True)
    does("worker.1", "joining the servers", seconds=40)
    failure = watch(start=0.05, heartbeat=DEADLINE)
    assert failure is not None and (failure.role, failure.kind) == ("worker.1", "failed")
    assert "not running 0.05 s after the start (runner.start_timeout), but joining the servers (for 4" in failure.reason
    assert " s); neither is worker.0. Raise it if this machine is busy." in failure.reason


def test_all_wait_for_each_other(
    watch: Watch, role_of: Callable[..., subprocess.Popen], does: Callable[..., None]
) -> None:
    for name in ROLES[:3]:
        role_of(name)
    does("worker.0", "epoch 3: all flushed", seconds=60, for_others=True)
    does("worker.1", "epoch 3: all evaluated", seconds=70, for_others=True)
    failure = watch(barrier=50.0, heartbeat=DEADLINE)
    assert failure is not None and failure.role == "worker.1"
    assert failure.reason.startswith("worker.1 waited for the other workers (epoch 3: all evaluated), and one did not")


@pytest.mark.parametrize("needed", [True, False])
def test_frozen_coordinator(
    watch: Watch, run: RunDirectory, role_of: Callable[..., subprocess.Popen], set_status: SetStatus, needed: bool
) -> None:
    """It ends the job if that ends with its coordinator; else it is noted, and noted when it is back."""
    coordinator = {name: role_of(name) for name in ROLES}["coordinator.0"]
    coordinator.send_signal(signal.SIGSTOP)
    began = time.monotonic()

    def poll() -> None:
        if "is frozen" in run.tables.read_text():
            coordinator.send_signal(signal.SIGCONT)
        if "is back" in run.tables.read_text() or (needed and time.monotonic() - began > 10 * HEARTBEAT):
            for worker in ROLES[1:3]:
                set_status(worker, roles.DONE)

    failure = watch(poll, expected=ROLES, coordinator=needed)
    if needed:
        assert failure is not None and (failure.role, failure.kind) == ("coordinator.0", "frozen")
    else:
        assert failure is None
        said = run.tables.read_text()
        assert "note: coordinator.0 is frozen: no sign of life for 1 s (runner.heartbeat_timeout=0.8)" in said
        assert said.count("note: coordinator.0 is back.") == 1


def test_frozen_starter(
    watch: Watch, role_of: Callable[..., subprocess.Popen], leader: subprocess.Popen, set_status: SetStatus
) -> None:
    """As long as a role is missing it is needed; later the job does without it."""
    leader.send_signal(signal.SIGSTOP)
    role_of("server.0"), role_of("worker.0")
    failure = watch()
    assert failure is not None and (failure.role, failure.kind) == (STARTER, "frozen")
    assert failure.log.name == "start"
    role_of("worker.1")
    began = time.monotonic()

    def poll() -> None:
        if time.monotonic() - began > 2 * HEARTBEAT:
            for worker in ROLES[1:3]:
                set_status(worker, roles.DONE)

    assert watch(poll) is None


def test_server_that_ends_before_any_worker_has_come(watch: Watch, role_of: Callable[..., subprocess.Popen]) -> None:
    server = role_of("server.0", roles.STARTING)
    server.kill()
    server.wait(DEADLINE)
    failure = watch()
    assert failure is not None and (failure.role, failure.kind) == ("server.0", "died")


def test_a_worker_that_crashed_by_anothers_end_is_not_blamed(
    watch: Watch, role_of: Callable[..., subprocess.Popen], run: RunDirectory
) -> None:
    role_of("server.0")
    said = "terminate called after throwing an instance of 'gloo::TimeoutException'"
    for number, text in enumerate((said, "an epoch")):
        log_path(run, f"worker.{number}").write_text(f"{text}\n")
        worker = role_of(f"worker.{number}")
        worker.kill()
        worker.wait(DEADLINE)
    failure = watch()
    assert failure is not None and (failure.role, failure.kind) == ("worker.1", "died")


def test_a_worker_that_crashed_by_its_servers_end_may_be_seen_first(
    watch: Watch, role_of: Callable[..., subprocess.Popen]
) -> None:
    server, worker = role_of("server.0"), role_of("worker.0")
    role_of("worker.1")
    worker.kill()
    worker.wait(DEADLINE)

    def poll() -> None:  # after the look
        server.kill()
        server.wait(DEADLINE)

    failure = watch(poll)
    assert failure is not None and (failure.role, failure.kind) == ("server.0", "died")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_role_that_fleetrun_started_and_that_wrote_nothing(
    run: RunDirectory, spawn: Spawn, role_of: Callable[..., subprocess.Popen], number: int
) -> None:
    """It is known by what fleetrun gives it."""
    given = {
        "TRAINING_ROLE": "TRAINER",
        "PADDLE_PSERVERS_IP_PORT_LIST": "127.0.0.1:1",
        "PADDLE_TRAINERS_NUM": "2",
        "PADDLE_TRAINER_ID": "1",
    }
    code = f"""import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time\\nwhile True: time.sleep(0.01)"], env={given!r})
print(child.pid, flush=True)
while True: time.sleep(0.01)"""
    leader = spawn(sys.executable, "-S", "-c", code)
    child = int(leader.stdout.readline())
    role_of("server.0"), role_of("worker.0")
    patience = Patience(DEADLINE, HEARTBEAT, DEADLINE, True)
    judge = Judge(run, ROLES[:3], psutil.Process(leader.pid), patience, lambda role: log_path(run, role))
    try:
        judge.look()
        assert judge.failure() is None
        os.kill(child, number)
        deadline = time.monotonic() + DEADLINE
        while (failure := judge.failure()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
            judge.look()
        assert failure is not None
        assert (failure.role, failure.kind) == ("worker.1", "died" if number == signal.SIGKILL else "frozen")
    finally:
        os.kill(child, signal.SIGKILL)
        judge.close()
