"""What a process of a job opens to the network, where it can be seen without one."""

from __future__ import annotations

import ctypes
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from fl_rec.ps import native
from fl_rec.ps.doors import guard_gloos_store, knows
from fl_rec.ps.native import never_call
from fl_rec.runs.audit import REFUSALS, Audit


def test_only_functions_that_paddle_calls_can_be_left_out() -> None:
    assert never_call("_ZN4brpc6Server18AddBuiltinServicesEv")
    for function in ("no_such_function", "_ZN4brpc6ServerD0Ev"):
        assert not never_call(function)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(("how", "done"), [("lazy", True), ("now", False)])
def test_slots_that_cannot_be_written_are_left_alone(
    how: str, done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, library = tmp_path / "calls.c", tmp_path / f"{how}.so"
    source.write_text("int inner(void *p) { return 5; } int outer(void *p) { return inner(p); }")
    subprocess.run(
        ["cc", "-O0", "-fPIC", "-shared", f"-Wl,-z,relro,-z,{how}", source, "-o", library], check=True, timeout=60
    )
    monkeypatch.setattr(native.paddle.base.libpaddle, "__file__", str(library))
    assert never_call("inner") is done
    assert ctypes.CDLL(str(library)).outer(None) == (0 if done else 5)


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """`guard()` starts a store that waits for two workers."""
    from paddle.distributed.fleet.utils import http_server

    for name in ("KVHTTPServer", "KVHandler"):  # put back at the end
        monkeypatch.setattr(http_server, name, getattr(http_server, name))

    def guard() -> Any:
        guard_gloos_store("127.0.0.1", "job_worker", Audit(tmp_path / "audit.jsonl"))
        store = http_server.KVServer(0, {"job_worker": 2})
        store.start()
        return store

    return guard


def test_the_store_stays_until_all_workers_have_its_answer(
    guard: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddle.distributed.fleet.utils.http_server import KVHandler

    answer, asked, may_answer = KVHandler.send_status_code, threading.Event(), threading.Event()

    def answer_late(self: Any, code: int) -> None:
        asked.set()
        assert may_answer.wait(60)
        answer(self, code)

    def leave(worker: int) -> int:
        connection = HTTPConnection("127.0.0.1", store.http_server.server_address[1], timeout=60)
        connection.request("DELETE", f"/job_worker/{worker}")
        return connection.getresponse().status

    store = guard()
    try:
        assert [leave(0), leave(0)] == [200, 200]  # who has been told twice is one
        assert not store.should_stop()
        monkeypatch.setattr(KVHandler, "send_status_code", answer_late)
        with ThreadPoolExecutor(1) as workers:
            last = workers.submit(leave, 1)
            assert asked.wait(60)
            assert not store.should_stop()
            may_answer.set()
            assert last.result() == 200
        deadline = time.monotonic() + 60
        while not store.should_stop():
            assert time.monotonic() < deadline
    finally:
        store.stop()


def test_how_often_the_store_has_refused_is_told(guard: Callable[[], Any], tmp_path: Path) -> None:
    store = guard()
    port = store.http_server.server_address[1]
    assert knows(("127.0.0.1", port), "job_worker")
    with ThreadPoolExecutor(4) as strangers:
        assert not any(strangers.map(lambda number: knows(("127.0.0.1", port), f"{number}_worker"), range(50)))
    store.stop()
    told = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sum(1 + each.get("untold", 0) for each in told) == 50 and len(told) == REFUSALS + 1


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"", False),
    ],
)
def test_who_answers_something_else_is_not_this_jobs_store(answer: bytes, known: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1024).startswith(b"GET /job_worker/ HTTP/1.1\r\n")
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert knows(server.getsockname(), "job_worker") is known
        thread.join()
