"""Who may report, and how much at a time: what a call meets before the coordinator. No Paddle is imported here."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Mapping

import grpc

from fl_rec.coordinator.door import Bounds, Door
from fl_rec.coordinator.guest import Guest
from fl_rec.coordinator.messages import MessageError
from fl_rec.coordinator.service import Coordinator, Refused
from fl_rec.coordinator.wire import CALL, CLIENT_KEY, SERVICE, TOKEN_KEY, server_options, split
from fl_rec.runs.audit import Audit
from fl_rec.secure.rates import Rate
from fl_rec.secure.tls import Tls

# Characters of a refusal. It travels in a header, and those are lost beyond 8 KiB.
LONGEST_REASON = 800
# Messages of a client that come in at a time, those of all beside one of each, and seconds for each.
OWN_MESSAGES, MORE_MESSAGES, RECEIVE_SECONDS = 2, 4, 20.0
# gRPC logs each header that is no UTF-8, with its traceback; strangers send what they like.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: record.msg != "Invalid encoding on %s")
# Calls of a client at once and in a second, beside those that bring it a new decision.
CALLS, CALLS_A_SECOND = 64, 10.0


def token_for(secret: str, client: int) -> str:
    """A client's own token in a run: who has it learns no other's.

    Args:
        secret: the run's, which the coordinator alone has.
    """
    return hmac.new(secret.encode(), f"client-{client}".encode(), hashlib.sha256).hexdigest()


class Reception:
    """Serves a coordinator, once it is opened.

    Args:
        coordinator: has started.
        secret: the run's, from which its clients' tokens are.
        max_message_bytes: longest message of either side.
        audit: told who joined and who was refused.
        tls: the coordinator's files; None without TLS.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        secret: str,
        max_message_bytes: int,
        audit: Audit,
        tls: Tls | None = None,
    ) -> None:
        self._coordinator, self._secret, self._longest = coordinator, secret, max_message_bytes
        self._audit, clients = audit, coordinator.clients
        self._door = Door(Bounds.of(clients, max_message_bytes), audit, tls)
        self._intake = _Intake(max_message_bytes, clients + MORE_MESSAGES)
        self._rates = [Rate(CALLS, CALLS_A_SECOND) for _ in range(clients)]
        self._last: dict[int, bytes] = {}
        self._joined: set[int] = set()
        self._server = grpc.aio.server(options=server_options(clients))
        handler = grpc.stream_stream_rpc_method_handler(self._report)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {CALL: handler}),))

    async def open(self, endpoint: str) -> int:
        """Listens at "host:port", and gives the port; 0 lets the system choose. RunError if it is taken."""
        try:
            self._server.add_insecure_port(self._door.inside)
            await self._server.start()
            return await self._door.open(endpoint)
        except BaseException:
            await self.stop(None)
            raise

    async def stop(self, grace: float | None) -> None:
        """Ends after so many seconds, in which last answers may be given."""
        await self._server.stop(grace)
        self._door.close()
        self._audit.close()

    async def _report(self, chunks: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        guest = self._door.guest(context.peer())
        if guest is None:  # it has gone by now
            await context.abort(grpc.StatusCode.UNAVAILABLE, "The connection is closed.")
            return
        try:
            answer = await self._answer(guest, dict(context.invocation_metadata()), chunks)
        except (MessageError, Refused) as err:
            status, kind = grpc.StatusCode.INVALID_ARGUMENT, "message"
            if isinstance(err, Refused):
                status, kind = err.status, err.kind
            reason = str(err)
            if kind:
                self._door.refused(guest, reason, kind)
            shown = reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + " ..."
            await context.abort(status, shown)  # it raises
        for chunk in split(answer):
            yield chunk

    async def _answer(self, guest: Guest, told: Mapping[str, str], chunks: AsyncIterator[bytes]) -> bytes:
        client = self._admitted(guest, told)
        if not self._rates[client].take():
            raise Refused(
                grpc.StatusCode.UNAVAILABLE,
                f"A client asks {CALLS_A_SECOND:g} times a second at most. Received: more from client {client}.",
                "rate",
            )
        answer = await self._coordinator.answer(await self._intake.read(chunks, client), client)
        if len(answer) > self._longest:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"A decision must be at most coordinator.max_message_bytes={self._longest} long. "
                f"Received: {len(answer)} bytes from the strategy.",
            )
        if answer is not self._last.get(client):  # a round's decision is one object, however often it is asked for
            self._last[client] = answer
            self._rates[client].give_back()
        return answer

    def _admitted(self, guest: Guest, told: Mapping[str, str]) -> int:
        """Which client a call is from. Raises Refused if it does not show that it is."""
        named = str(told.get(CLIENT_KEY, ""))
        client = int(named) if named.isascii() and named.isdecimal() and len(named) < 10 else -1
        token = str(told.get(TOKEN_KEY, ""))
        if guest.certified and client not in guest.certified:
            names = ", ".join(f"client-{each}" for each in sorted(guest.certified))
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"A client reports as itself. Received: one as client {named or '?'}, by the certificate of {names}. "
                "Give each client tls.cert and tls.key of its own number.",
                "identity",
            )
        # A certificate may be used in many runs, and a token in one; who has no token yet has its certificate.
        known = hmac.compare_digest(token.encode(), token_for(self._secret, client).encode())
        if not known and (token or not guest.certified):
            raise Refused(
                grpc.StatusCode.UNAUTHENTICATED,
                f"A client shows its own token of its run. Received: another, or none, as client {named or '?'}.",
                "token",
            )
        if client >= self._coordinator.clients:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Clients are 0 to {self._coordinator.clients - 1}. Received: a report of {client}.",
            )
        self._door.shown(guest, client)
        if client not in self._joined:
            self._joined.add(client)
            self._audit.tell("joined", f"client-{client}", f"from {guest.who}")
        return client


class _Intake:
    """Takes messages in, each within RECEIVE_SECONDS. Who floods it floods itself out: of more than OWN_MESSAGES of a
    client the first is told no more, nor are the longest where all together are too much; a client's report is whole at
    once.

    Args:
        limit: longest message, in bytes.
        most: `limit` times as many bytes at a time.
    """

    def __init__(self, limit: int, most: int) -> None:
        self._limit, self._most = limit, most
        self._open: dict[asyncio.Future[bytes], bytearray] = {}
        self._bytes = 0  # of all that are open: to add them up at each chunk would take the square of their number
        self._of_client: dict[int, list[asyncio.Future[bytes]]] = {}  # in the order in which they came

    async def read(self, chunks: AsyncIterator[bytes], client: int) -> bytes:
        """A whole message. Raises Refused."""
        own = self._of_client.setdefault(client, [])
        if len(own) >= OWN_MESSAGES:
            own[0].cancel()
        message = bytearray()
        reading = asyncio.ensure_future(self._join(chunks, message))
        self._open[reading] = message
        own.append(reading)
        try:
            await asyncio.wait({reading}, timeout=RECEIVE_SECONDS)
        finally:
            if not reading.done():
                reading.cancel()
            self._bytes -= len(self._open.pop(reading))
            own.remove(reading)
        if not reading.done() or reading.cancelled():
            raise Refused(
                grpc.StatusCode.UNAVAILABLE,
                f"A report must be told within {RECEIVE_SECONDS:g} s, and sooner while others tell as much. "
                f"Received: {len(message)} bytes and no end, from client {client}.",
                "unfinished",
            )
        return reading.result()

    async def _join(self, chunks: AsyncIterator[bytes], message: bytearray) -> bytes:
        async for chunk in chunks:
            if len(message) + len(chunk) > self._limit:
                raise Refused(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"A report must be at most coordinator.max_message_bytes={self._limit} long. Received: "
                    f"{len(message) + len(chunk)} bytes or more. Make the fields of report_fields() smaller, or raise "
                    "the limit.",
                )
            message += chunk
            self._bytes += len(chunk)
            if self._bytes > self._most * self._limit:
                max(self._open, key=lambda each: len(self._open[each])).cancel()
        return bytes(message)
