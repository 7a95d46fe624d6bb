"""A client's end of the coordinator's service. No Paddle is imported here."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

# Paddle's reader forks beside this channel's threads, and only to start a program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from fl_rec.coordinator.messages import ClientReport, Decision, MessageError
from fl_rec.coordinator.wire import (
    CHUNK,
    CLIENT_KEY,
    KEEPALIVE,
    KEEPALIVE_ANSWER,
    METHOD,
    TOKEN_KEY,
    channel_options,
    decode_decision,
    encode,
    split,
)
from fl_rec.errors import RunError
from fl_rec.secure.tls import Tls, channel_credentials, why_refused

log = logging.getLogger(__name__)

# The coordinator is gone, or never was; anything else that it answers is its last word.
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# Seconds for which a connection is waited for before an attempt, growing; and what lies between attempts at least.
FIRST_WAIT, LONGEST_WAIT, PAUSE = 0.5, 2.0, 0.1


class CoordinatorLost(RunError):
    """The coordinator could not be reached in time."""


class CoordinatorClient:
    """Sends reports and waits for decisions.

    Args:
        endpoint: "host:port" of the coordinator.
        token: gives the client's own; it is asked again before each attempt, since the coordinator may start late.
        max_message_bytes: longest message of either side.
        answer_timeout: seconds that one attempt waits for an answer.
        compression: runner.compress_report, for the reports.
        tls: the client's files; None without TLS.

    Raises:
        ConfigError: the files of `tls` will not do.
    """

    def __init__(
        self,
        endpoint: str,
        token: Callable[[], str],
        max_message_bytes: int,
        answer_timeout: float,
        compression: str = "none",
        tls: Tls | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._token, self._max, self._answer_timeout = token, max_message_bytes, answer_timeout
        self._compression, self._tls = compression, tls
        if tls is None:
            self._channel = grpc.insecure_channel(endpoint, options=channel_options())
        else:
            self._channel = grpc.secure_channel(endpoint, channel_credentials(tls), options=channel_options())
        # What fits a chunk needs no thread that sends one after the other; on the way it is a stream all the same.
        self._send, self._send_chunks = self._channel.unary_stream(METHOD), self._channel.stream_stream(METHOD)

    def report(self, report: ClientReport, timeout: float) -> Decision:
        """Tells the coordinator, and waits for its decision.

        Args:
            timeout: seconds for which a coordinator that can't be reached is tried again, with growing pauses; 0 for
                one attempt.

        Raises:
            CoordinatorLost: it could not be reached in that time, or one side does not take the other's certificate.
            MessageError: the report can't be compressed so.
            RunError: it is too long; or it was refused, or answered with what is no decision.
        """
        data = encode(report, self._compression)
        if len(data) > self._max:
            raise RunError(
                f"A report must be at most coordinator.max_message_bytes={self._max} long. Received: {len(data)} "
                "bytes. Make the fields of report_fields() smaller, or raise the limit."
            )
        wait, lost_at = FIRST_WAIT, 0.0
        why: str | None = None  # it could not be reached, once that is known
        while True:
            # A coordinator that stands still is connected to by the kernel, and never greets.
            connected = self._await_connection(wait)
            began = time.monotonic()
            try:
                limit = self._answer_timeout if connected else LONGEST_WAIT
                return decode_decision(self._exchange(report.client, data, limit))
            except MessageError as err:
                raise RunError(f"The coordinator must answer with a decision. {err}") from err
            except grpc.RpcError as err:
                if err.code() not in _GONE:
                    raise RunError(
                        f"The coordinator refused the report of client {report.client} for round {report.round} "
                        f"({err.code().name}): {err.details()}"
                    ) from err
                if connected and time.monotonic() - began > KEEPALIVE + KEEPALIVE_ANSWER:
                    lost_at = 0.0  # it was there all that time
                    why = None
                lost_at = lost_at or time.monotonic()
                over = time.monotonic() - lost_at + PAUSE > timeout
                if not connected and (why is None or over):
                    why = why_refused(self.endpoint, self._tls)
                if why:
                    raise CoordinatorLost(f"The coordinator at {self.endpoint} could not be reached. {why}") from err
                if over:
                    raise CoordinatorLost(
                        f"The coordinator at {self.endpoint} could not be reached for {timeout:g} s "
                        f"({err.code().name}: {err.details()})."
                    ) from err
                log.info("the coordinator at %s is not there (%s); trying again", self.endpoint, err.code().name)
            time.sleep(PAUSE)
            wait = min(2 * wait, LONGEST_WAIT, max(PAUSE, lost_at + timeout - time.monotonic()))

    def _exchange(self, client: int, data: bytes, timeout: float) -> bytes:
        shown = ((CLIENT_KEY, str(client)), (TOKEN_KEY, self._token()))
        options = {"timeout": timeout, "metadata": shown}
        call = self._send(data, **options) if len(data) <= CHUNK else self._send_chunks(split(data), **options)
        answer = bytearray()
        for chunk in call:
            if len(answer) + len(chunk) > self._max:
                call.cancel()
                raise RunError(
                    f"A decision must be at most coordinator.max_message_bytes={self._max} long. Received: "
                    f"{len(answer) + len(chunk)} bytes or more. Configure both sides alike."
                )
            answer += chunk
        return bytes(answer)

    def _await_connection(self, seconds: float) -> bool:
        # Older gRPC's (1.70, the last for Python 3.8) make connections only while somebody waits.
        ready, connected = threading.Event(), grpc.channel_ready_future(self._channel)
        connected.add_done_callback(lambda _: ready.set())
        # Its own result(seconds) goes by the clock on the wall, and waits an hour more when that is set back.
        found = ready.wait(seconds)
        connected.cancel()
        return found

    def close(self) -> None:
        # A thread of gRPC's that looked for a connection goes on for some 0.2 s, and would fail where there is no
        # channel any more; there is no other way to know.
        state = getattr(self._channel, "_connectivity_state", None)
        deadline = time.monotonic() + LONGEST_WAIT
        while getattr(state, "polling", False) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._channel.close()
