"""Who of a job gives no sign of life, seen from outside of it. No Paddle is imported here.

A role may compute, sleep or wait as long as it likes: its sign of life is none of its work (`fl_rec.runs.activity`). A
server's is that it answers, since a thread of its own says nothing of those that serve.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from fl_rec.runs import activity, roles
from fl_rec.runs.roles import RoleStatus

# brpc answers on the port of a parameter server, if only that there is no such page.
_REQUEST = b"GET /health HTTP/1.0\r\n\r\n"
# Seconds between two questions to a server.
_PAUSE = 1.0
# What is not seen between two looks may have lasted as long as the looker itself stood still: no more of it counts.
LONGEST_STEP = 1.0


class Awake:
    """A clock of seconds in which this process stands still while it is stopped, if it is asked all the time."""

    def __init__(self) -> None:
        self._seconds, self._asked = 0.0, time.monotonic()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._seconds += min(now - self._asked, LONGEST_STEP)
            self._asked = now
            return self._seconds


class Signs:
    """Signs of life of a job's processes, by name; `look` gathers them, again and again.

    Attributes:
        awake: seconds for which this has been looking; those in which this process was stopped don't count.
    """

    def __init__(self) -> None:
        self.awake = 0.0
        self._clock = Awake()
        self._clocks: dict[str, float | None] = {}
        self._last: dict[str, float] = {}
        self._questions: dict[str, Question] = {}

    def look(self, processes: Mapping[str, RoleStatus]) -> None:
        """Notes who has given a sign since the last look."""
        self.awake = self._clock()
        for name, status in processes.items():
            clock = activity.processor_time(status.pid)
            moved = clock is None or clock != self._clocks.get(name)
            self._clocks[name] = clock
            if status.endpoint and status.state == roles.RUNNING:
                question = self._questions.setdefault(name, Question(status.endpoint))
                moved = question.is_answered() or (moved and not question.answers)
            if moved or name not in self._last:
                self._last[name] = self.awake

    def silence(self, name: str) -> float:
        """Seconds since the last sign of life; 0 for whom nobody has looked at yet."""
        return self.awake - self._last.get(name, self.awake)

    def close(self) -> None:
        for question in self._questions.values():
            question.close()


class Question:
    """Whether a server answers, asked without waiting.

    Args:
        endpoint: "host:port".

    Attributes:
        answers: how often it has.
    """

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._address = (host, int(port))
        self._socket: socket.socket | None = None
        self._asked = False
        self._next = 0.0
        self.answers = 0

    def is_answered(self) -> bool:
        """Whether an answer has come since the last call. A question that none has come to is not asked again."""
        try:
            if self._socket is None:
                if time.monotonic() < self._next:
                    return False
                self._next = time.monotonic() + _PAUSE
                self._socket = socket.socket()
                self._socket.setblocking(False)
                self._socket.connect_ex(self._address)
            if not self._asked:
                self._socket.sendall(_REQUEST)
                self._asked = True
            # And a port that nobody listens on may be given to the very socket that asks for it.
            answered = self._socket.recv(1 << 12).startswith(b"HTTP")
        except BlockingIOError:
            return False
        except OSError:  # nobody listens, or not yet
            answered = False
        self.close()
        self.answers += answered
        return answered

    def close(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._socket, self._asked = None, False
