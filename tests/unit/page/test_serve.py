"""The page of a job that trains: who may see it, and what it is told until the end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import pytest

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.job.observers import RoleView, Started
from fl_rec.page import serve
from fl_rec.page.serve import LivePage
from fl_rec.runs.activity import Activity, Progress
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult
from tests.unit.conftest import DEADLINE
from tests.unit.page.conftest import MakeRun, lines


def started(run: RunDirectory) -> Started:
    return Started("job.yaml", Config.load(run.config), {}, run, 2, 1, 0, (), (1000, 2000), ())


@pytest.fixture
def run(make_run: MakeRun) -> RunDirectory:
    """Of a job that has not come to an epoch yet."""
    made = make_run(epochs=3, clients=2, result={})
    made.metrics.write_text("")
    return made


@pytest.fixture
def page(run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[LivePage]:
    monkeypatch.setattr(serve, "_PATIENCE", 0.0)  # nobody looks on at the end
    told: list[str] = []
    page = LivePage("127.0.0.1", 0, told.append)
    page.starting(started(run))
    assert told == [page.url]
    yield page
    page.ended(RunResult(state="done"))


def get(page: LivePage, path: str, **headers: str) -> http.client.HTTPResponse:
    """`path` is taken from the page's own folder."""
    url = urlsplit(page.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=DEADLINE)
    connection.request("GET", path if path.startswith("/") else url.path + path, headers=headers)
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    return answer


def test_nobody_sees_it_without_the_token(page: LivePage) -> None:
    assert urlsplit(page.url).hostname == "127.0.0.1" and len(urlsplit(page.url).path) > 20
    right = urlsplit(page.url).path
    for path in ("/", "/content.json", right[:-2] + "/", "/" + "x" * 22 + "/content.json", right + "../../etc/passwd"):
        answer = get(page, path)
        assert (answer.status, answer.text) == (404, "There is nothing here. Open the address as it was shown.\n")
    assert get(page, "").status == get(page, "content.json").status == 200


def test_who_opens_many_connections_takes_no_files(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve._Handler, "timeout", 2 * DEADLINE)
    monkeypatch.setattr(serve, "_CONNECTIONS", 2)
    monkeypatch.setattr(serve, "_PATIENCE", 0.0)
    page = LivePage("127.0.0.1", 0, lambda _: None)
    page.starting(started(run))
    with ExitStack() as held:
        address = ("127.0.0.1", urlsplit(page.url).port)
        peers = [held.enter_context(socket.create_connection(address, DEADLINE)) for _ in range(5)]
        assert [peer.recv(1) for peer in peers[2:]] == [b""] * 3
    for _ in range(4):  # those who have gone have made room, as soon as that is seen
        deadline = time.monotonic() + DEADLINE
        while True:
            with suppress(OSError, http.client.HTTPException):
                assert get(page, "").status == 200
                break
            assert time.monotonic() < deadline
    page.ended(RunResult(state="done"))


def test_a_connection_for_which_there_is_no_thread_keeps_no_place(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_CONNECTIONS", 1)
    monkeypatch.setattr(serve, "_PATIENCE", 0.0)
    page = LivePage("127.0.0.1", 0, lambda _: None)
    page.starting(started(run))

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(serve.ThreadingHTTPServer, "process_request", fail)
        with socket.create_connection(("127.0.0.1", urlsplit(page.url).port or 0), DEADLINE) as peer:
            assert peer.recv(1) == b""
    assert get(page, "").status == 200
    page.ended(RunResult(state="done"))


def test_what_a_browser_is_told_not_to_do(page: LivePage) -> None:
    for path in ("", "content.json", "/"):
        answer = get(page, path)
        assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert "data-live" in get(page, "").text


def test_it_follows_the_job(page: LivePage, run: RunDirectory) -> None:
    doing = Activity("training epoch 1", 0.0, progress=Progress(1, 500, 1000, 0.5))
    page.poll({"server.0": RoleView("running", None), "worker.0": RoleView("running", doing)})
    content = json.loads(get(page, "content.json").text)
    assert content["progress"] == {
        "server.0": {"state": "running", "what": ""},
        "worker.0": {"state": "running", "what": "training epoch 1", "epoch": 1, "rows": 500, "rows_of_epoch": 1000},
    }
    assert (content["epochs"], content["run"]["state"]) == ([], "training")
    run.append_metrics(lines(1, 2))
    assert json.loads(get(page, "content.json").text)["epochs"] == [1]
    run.write_result(RunResult(state="done", model="m"))  # by the first worker, while the others still leave
    assert json.loads(get(page, "content.json").text)["run"]["state"] == "training"


def test_what_is_known_already_is_not_sent_again(page: LivePage, run: RunDirectory) -> None:
    first = get(page, "content.json")
    again = get(page, "content.json", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.text) == (304, "")
    run.append_metrics(lines(1, 2))
    assert get(page, "content.json", **{"If-None-Match": first.headers["ETag"]}).status == 200


def test_the_end_waits_for_who_looks_on(run: RunDirectory) -> None:
    page = LivePage("127.0.0.1", 0, print)
    page.starting(started(run))
    get(page, "content.json")
    end = threading.Thread(target=page.ended, args=[RunResult(state="failed")])
    end.start()
    content = json.loads(get(page, "content.json").text)
    end.join(DEADLINE)
    assert content["run"]["state"] == "failed" and content["progress"] is None and not end.is_alive()
    with pytest.raises(ConnectionRefusedError):
        get(page, "")


def test_where_it_may_listen() -> None:
    assert serve.pages(None, False, print) == []
    for address in ("127.0.0.1:0", "0", "localhost:0", "[::1]:0"):
        (page,) = serve.pages(address, False, print)
        page.ended(RunResult(state="done"))
    (page,) = serve.pages("0.0.0.0:0", True, print)
    page.ended(RunResult(state="done"))
    for address in ("0.0.0.0:8080", "192.0.2.1:0", "example.org:80"):
        with pytest.raises(ConfigError, match=f"--ui serves this machine alone. Received: {address}, .* --insecure."):
            serve.pages(address, False, print)
    for address in ("127.0.0.1:99999", "127.0.0.1", "127.0.0.1:-1", "127.0.0.1:x"):
        with pytest.raises(ConfigError, match=rf"--ui takes HOST:PORT, .* to 65535. Received: {address}\. "):
            serve.pages(address, True, print)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        rule = f"--ui must be able to listen. Received: {address} .Address already in use"
        with pytest.raises(ConfigError, match=rule):
            serve.pages(address, False, print)
