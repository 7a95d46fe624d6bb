"""One connection that has come to the coordinator's door: its outer end, TLS if need be, and its way to gRPC."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from typing import TYPE_CHECKING

from fl_rec.coordinator.comings import origin_of
from fl_rec.secure.tls import names_of, refusal

if TYPE_CHECKING:
    from fl_rec.coordinator.door import Door

log = logging.getLogger(__name__)

# Bytes that are taken out of TLS at once, and seconds for the last ones to be sent.
_BLOCK, _LINGER = 1 << 16, 5.0
_CLIENT = re.compile(r"client-(0|[1-9][0-9]{0,8})")


class Guest(asyncio.Protocol):
    """A connection's outer end, which opens the inner one when it may come in.

    Attributes:
        origin: where it comes from, see `origin_of`.
        who: its address with its port and, with TLS, its names, for people.
        certified: the clients in its certificate, which are all that it may be; empty if it names none.
        clients: whom it has shown to be.
        refusals: how often it was refused.
        rate: of the bytes that it sends, with all that the same client sends.
        name: as gRPC knows it; "" before it is in.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self.origin = self.who = self.name = ""
        self.certified: frozenset[int] = frozenset()
        self.clients: set[int] = set()
        self.refusals, self.rate = 0, door.new_rate()
        self._outer: asyncio.Transport | None = None
        self._inner: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._later: dict[str, asyncio.Handle | asyncio.Task[None]] = {}
        self._kept = bytearray()  # what is to go in when it can
        self._sent = 0
        self._held: set[str] = set()
        self._lock = None if door.context is None else _Lock(door.context)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._outer = transport
        host, port = (transport.get_extra_info("peername") or ("?", 0))[:2]
        self.origin, self.who = origin_of(host), f"{host}:{port}"
        if not self._door.came(self):
            self.close()
            return
        self._later["look"] = self._loop.call_later(self._door.bounds.shown_within, self._look)
        if self._lock is None:
            self._later["in"] = self._loop.create_task(self._come_in())

    def data_received(self, data: bytes) -> None:
        self._sent += len(data)
        if not self.clients and self._sent > self._door.bounds.unshown:
            self._refuse(f"it sends {self._sent:,} bytes before it shows whose they are", "bytes")
            return
        wait = self.rate.owe(len(data))
        if wait:
            self.hold("rate")
            self._later["rate"] = self._loop.call_later(wait, self.let_go, "rate")
        self._send_in(data if self._lock is None else self._unlocked(self._lock, data))

    def connection_lost(self, _: Exception | None) -> None:
        self.close()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_reading()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_reading()

    def hold(self, why: str) -> None:
        """Reads no more of it, until all who had it so let go."""
        self._held.add(why)
        if self._outer is not None:
            self._outer.pause_reading()

    def let_go(self, why: str) -> None:
        self._held.discard(why)
        if self._outer is not None and not self._held:
            self._outer.resume_reading()

    def close(self) -> None:
        """Closes both ends."""
        self._door.gone(self)
        for each in self._later.values():
            each.cancel()
        outer, inner, self._outer, self._inner = self._outer, self._inner, None, None
        if outer is not None:
            outer.close()
            self._loop.call_later(_LINGER, outer.abort)  # one who takes nothing off
        if inner is not None:
            inner.close()

    # -- the inner end -------------------------------------------------------------------------------------------

    def entered(self, inner: asyncio.Transport) -> None:
        self._inner = inner
        inner.write(bytes(self._kept))
        self._kept.clear()

    def send_out(self, data: bytes) -> None:
        """What gRPC says."""
        if self._outer is not None:
            self._outer.write(data if self._lock is None else self._lock.locked(data))

    def left(self) -> None:
        """gRPC has closed its end, if nobody else did."""
        if self._outer is not None and not (self.clients or self.refusals):
            self._refuse("it speaks no gRPC, or TLS where there is none", "protocol")
        self.close()

    async def _come_in(self) -> None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            end.setblocking(False)
            end.bind("")  # the system gives it a name, by which gRPC tells it from others
            await self._loop.sock_connect(end, self._door.inside.removeprefix("unix:"))
            self.name = end.getsockname()[1:].decode()
            self._door.connected(self, self.name)
            await self._loop.create_unix_connection(lambda: _Inner(self), sock=end)
        except asyncio.CancelledError:
            end.close()
            raise
        except OSError as err:
            end.close()
            log.warning("a connection of %s can't be taken in (%s)", self.who, err)
            self.close()

    def _send_in(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.write(data)
        else:
            self._kept += data

    # -- who it is -----------------------------------------------------------------------------------------------

    def _unlocked(self, lock: _Lock, data: bytes) -> bytes:
        greeted = lock.greeted
        try:
            clear = lock.unlocked(data)
        except ssl.SSLError as err:
            self._answer(lock)  # TLS's own word why
            if greeted:
                self.close()
            else:
                self._refuse(refusal(err), "certificate")
            return b""
        self._answer(lock)
        if lock.greeted and not greeted:
            self.who = f"{self.who} ({', '.join(sorted(lock.names))})"
            self.certified = frozenset(int(found[1]) for each in lock.names if (found := _CLIENT.fullmatch(each)))
            for client in self.certified:
                self._door.shown(self, client)
            self._later["in"] = self._loop.create_task(self._come_in())
        return clear

    def _answer(self, lock: _Lock) -> None:
        answer = lock.answer()
        if self._outer is not None and answer:
            self._outer.write(answer)

    def _look(self) -> None:
        if not self.clients:
            self._refuse(f"it has not shown whose it is within {self._door.bounds.shown_within:g} s", "time")

    def _refuse(self, why: str, kind: str) -> None:
        self._door.refused(self, why, kind)
        self.close()


class _Inner(asyncio.Protocol):
    """The end at gRPC."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._guest.entered(transport)

    def data_received(self, data: bytes) -> None:
        self._guest.send_out(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._guest.left()

    def pause_writing(self) -> None:
        self._guest.hold("gRPC")

    def resume_writing(self) -> None:
        self._guest.let_go("gRPC")


class _Lock:
    """TLS without a socket: asyncio's own does not tell a client why its certificate is not taken.

    Attributes:
        greeted: whether the greeting is over.
        names: in the other's certificate, from then on.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.greeted, self.names = False, frozenset[str]()

    def unlocked(self, data: bytes) -> bytes:
        """What it says. SSLError if it is no TLS, or the certificate is not taken."""
        self._in.write(data)
        clear = bytearray()
        try:
            if not self.greeted:
                self._tls.do_handshake()
                self.greeted, self.names = True, names_of(self._tls.getpeercert() or {})
            while block := self._tls.read(_BLOCK):
                clear += block
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return bytes(clear)

    def locked(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self.answer()

    def answer(self) -> bytes:
        """What TLS itself has to say."""
        return self._out.read()
