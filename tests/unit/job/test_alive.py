"""Signs of life, seen from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from fl_rec.job import alive
from fl_rec.job.alive import Question, Signs
from fl_rec.runs import activity, roles
from fl_rec.runs.roles import RoleStatus

DEADLINE = 30.0
Spawn = Callable[..., subprocess.Popen]


def status_of(pid: int, endpoint: str = "") -> RoleStatus:
    return RoleStatus("worker.0", pid, roles.started(pid), roles.RUNNING, "", {}, endpoint)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the looker has seen pass; the last of them is now."""
    seconds = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[-1])
    return seconds


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> dict[int, float | None]:
    """Processor time by process number."""
    taken: dict[int, float | None] = {1: 5.0, 2: 7.0}
    monkeypatch.setattr(activity, "processor_time", lambda pid: taken[pid])
    return taken


def test_who_takes_processor_time_is_not_silent(clock: list[float], processor: dict[int, float | None]) -> None:
    signs, processes = Signs(), {"worker.0": status_of(1), "worker.1": status_of(2)}
    assert signs.silence("worker.0") == 0, "nobody has looked yet"
    for step in range(40):
        signs.look(processes)
        clock.append(clock[-1] + 0.5)
        processor[1] = 5.0 + step * 1e-6
    signs.look(processes)
    assert (signs.silence("worker.0"), signs.silence("worker.1")) == (0, 20.0)
    processor[2] = 7.000001
    signs.look(processes)
    assert signs.silence("worker.1") == 0


def test_a_looker_that_was_stopped_itself_counts_none_of_it(
    clock: list[float], processor: dict[int, float | None]
) -> None:
    """An hour's sleep of the launcher, in which the others may have been stopped too, is no hour of their silence."""
    signs, processes = Signs(), {"worker.0": status_of(1)}
    signs.look(processes)
    clock.append(clock[-1] + 3600)
    signs.look(processes)
    assert signs.silence("worker.0") == signs.awake == alive.LONGEST_STEP


def test_a_process_whose_time_nobody_tells_is_not_silent(
    clock: list[float], processor: dict[int, float | None]
) -> None:
    signs, processor[1] = Signs(), None
    for _ in range(10):
        signs.look({"worker.0": status_of(1)})
        clock.append(clock[-1] + 1)
    assert signs.silence("worker.0") == 0


@pytest.fixture
def server() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        yield listener


def endpoint_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_question_that_is_answered(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "_PAUSE", 0.05)
    question = Question(endpoint_of(server))
    for answer in (1, 2):
        assert not question.is_answered(), "it does not wait"
        assert until(lambda: question.is_answered() or question._asked)
        peer, _ = server.accept()
        with peer:
            assert peer.recv(100).startswith(b"GET /health")
            assert not question.is_answered()
            peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nOK")
        assert until(question.is_answered)
        assert question.answers == answer
    question.close()


def test_a_question_that_nobody_answers(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a server that is stopped: the kernel takes the connection."""
    monkeypatch.setattr(alive, "_PAUSE", 0.01)
    question = Question(endpoint_of(server))
    for _ in range(20):
        assert not question.is_answered()
        time.sleep(0.01)
    assert question._asked and question.answers == 0, "asked once, and still waiting"
    port = server.getsockname()[1]
    question.close()
    server.close()
    refused = Question(f"127.0.0.1:{port}")
    assert not any(refused.is_answered() for _ in range(20))
    refused.close()


def test_a_server_that_answered_once_must_go_on_to(
    clock: list[float], processor: dict[int, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beat says nothing of those who serve; but before it serves there is nothing else."""
    answers = iter([False] * 20 + [True] + [False] * 20)

    class Scripted:
        answers = 0

        def __init__(self, endpoint: str) -> None:
            assert endpoint == "a:1"

        def is_answered(self) -> bool:
            answered = next(answers)
            self.answers += answered
            return answered

    monkeypatch.setattr(alive, "Question", Scripted)
    signs, silences = Signs(), []
    for step in range(41):
        processor[1] = float(step)
        signs.look({"server.0": status_of(1, "a:1")})
        silences.append(signs.silence("server.0"))
        clock.append(clock[-1] + 1)
    assert silences == [0.0] * 21 + [float(step) for step in range(1, 21)]


def test_a_stopped_process_is_silent(spawn: Spawn) -> None:
    """Without fakes, and with a healthy one beside it."""
    code = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)"
    healthy, stopped = (spawn(sys.executable, "-S", "-c", code) for _ in range(2))
    for each in (healthy, stopped):
        assert each.stdout.readline() == b"ready\n"
    os.kill(stopped.pid, signal.SIGSTOP)
    signs = Signs()
    processes = {"worker.0": status_of(healthy.pid), "worker.1": status_of(stopped.pid)}

    def silent() -> bool:
        signs.look(processes)
        return signs.silence("worker.1") > 1

    assert until(silent)
    assert signs.silence("worker.0") < 0.8
