"""The page of a job while it trains: served by the launcher, on this machine, at an address that has a secret in it."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fl_rec.errors import ConfigError
from fl_rec.job.observers import Observer, RoleView, Started
from fl_rec.page.content import content_of
from fl_rec.page.render import run_page
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.listing import TRAINING
from fl_rec.runs.result import RunResult
from fl_rec.secure import is_loopback

# Connections at a time; another one is closed. Each takes a thread, and one of the files that the launcher may open.
_CONNECTIONS = 64
# Who has asked within these seconds is shown the end, and has as long to ask for it.
_PATIENCE = 3.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def pages(address: str | None, insecure: bool, say: Callable[[str], None]) -> list[Observer]:
    """The page at an address, "HOST:PORT", or none at None.

    Args:
        insecure: whether others than this machine may come to it.
        say: told what to open.

    Raises:
        ConfigError: the address will not do.
    """
    return [LivePage(*_parsed(address, insecure), say)] if address else []


def _parsed(text: str, insecure: bool) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = (host or "127.0.0.1").strip("[]")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ConfigError(
            f"--ui takes HOST:PORT, the port from 0, any free one, to 65535. Received: {text}. Leave it out, or write "
            "--ui 127.0.0.1:8080"
        )
    if not (is_loopback(host) or insecure):
        raise ConfigError(
            f"--ui serves this machine alone. Received: {text}, where others could read it on its way, secret and all. "
            "Leave the address out and come through ssh -L, or add --insecure."
        )
    return host, int(port)


class LivePage(Observer):
    """Serves a job's page from before its start until its end.

    Args:
        host, port: where; port 0 is any free one.
        say: told the url when there is something to see.

    Attributes:
        url: what to open.

    Raises:
        ConfigError: it can't listen there.
    """

    def __init__(self, host: str, port: int, say: Callable[[str], None]) -> None:
        try:
            self._server = _Server(host, port, self)
        except OSError as err:
            raise ConfigError(
                f"--ui must be able to listen. Received: {host}:{port} ({err.strerror or err}). Leave the address out, "
                "and a free port is taken."
            ) from err
        self._token = secrets.token_urlsafe(16)
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/{self._token}/"
        self._say = say
        self._run: RunDirectory | None = None
        self._roles: Mapping[str, RoleView] = {}
        self._result: RunResult | None = None
        self._read: tuple[Any, dict[str, Any]] = (None, {})
        self._reading = threading.Lock()
        self._asked, self._told = -_PATIENCE, threading.Event()

    def starting(self, job: Started) -> None:
        self._run = job.run
        threading.Thread(target=self._server.serve_forever, name="page", daemon=True).start()
        self._say(self.url)

    def poll(self, roles: Mapping[str, RoleView]) -> None:
        self._roles = roles

    def ended(self, result: RunResult) -> None:
        """Returns when who looks at the page has its last state."""
        self._result = result
        if time.monotonic() - self._asked < _PATIENCE:
            self._told.wait(_PATIENCE)
        if self._run is not None:
            self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Type and content of what is asked for; None if there is no such thing, or it was asked without the token."""
        token, _, name = path.lstrip("/").partition("?")[0].partition("/")
        known = hmac.compare_digest(token.encode(), self._token.encode()) and name in ("", "content.json")
        if self._run is None or not known:
            return None
        self._asked, over = time.monotonic(), self._result is not None
        content = self._content(self._run)
        if name == "":
            return "text/html; charset=utf-8", run_page(content, live=True).encode("utf-8", "replace")
        if over:
            self._told.set()
        return "application/json", json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")

    def _content(self, run: RunDirectory) -> dict[str, Any]:
        result = self._result
        with self._reading:
            now = _state_of(run), result is None
            if self._read[0] != now:
                self._read = now, content_of(run)
            content = self._read[1]
        state = TRAINING if result is None else result.state
        progress = {name: _plain(view) for name, view in self._roles.items()} if result is None else None
        return {**content, "run": {**content["run"], "state": state}, "progress": progress}


def _state_of(run: RunDirectory) -> list[tuple[int, int] | None]:
    """What changes when something has been written."""
    found: list[tuple[int, int] | None] = []
    for path in (*run.records, run.result, run.config):
        try:
            status = path.stat()
            found.append((status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def _plain(view: RoleView) -> dict[str, Any]:
    progress = view.progress
    how_far = {"epoch": progress.epoch, "rows": progress.rows, "rows_of_epoch": progress.of_rows} if progress else {}
    return {"state": view.state, "what": view.activity.what if view.activity else "", **how_far}


class _Server(ThreadingHTTPServer):
    """Each request in a thread, and none of them keeps the process from ending."""

    daemon_threads = True

    def __init__(self, host: str, port: int, page: LivePage) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page, self._free = page, threading.Semaphore(_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no matter."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10
    server_version, sys_version = "fl_rec", ""

    def do_GET(self) -> None:
        answer = self.server.page.answer(self.path)
        if answer is None:
            self._send(
                HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here. Open the address as it was shown.\n"
            )
            return
        kind, body = answer
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, kind, b"", tag)
        else:
            self._send(HTTPStatus.OK, kind, body, tag)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, tag: str | None = None) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: it would come between what the terminal shows, with the token."""
