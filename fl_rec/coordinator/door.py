"""The coordinator's door: every connection comes in here, with TLS or without, and goes on to gRPC, which listens at a
socket that nobody else can open. What gRPC can't tell or limit is told and limited here: why a certificate was not
taken, how many connections an address or a client has, how much it sends, and how long it may be a stranger.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fl_rec.coordinator.comings import Comings, Strangers
from fl_rec.coordinator.guest import Guest
from fl_rec.errors import ConfigError, RunError
from fl_rec.runs.audit import Audit
from fl_rec.secure.rates import Rate
from fl_rec.secure.tls import Tls, server_context

log = logging.getLogger(__name__)

# Between two looks at the list of revoked certificates.
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Bounds:
    """What may come in.

    Attributes:
        strangers: connections at a time that have not shown whose they are. One more, and the oldest one goes, of the
            address that has most. The addresses of an IPv6 network of 64 bits are one here.
        of_a_client: connections of a client at a time. One more, and its oldest goes.
        of_an_address: connections that an address opens at once, and again in `seconds`: a greeting by TLS takes some
            milliseconds.
        shown_within: seconds in which a connection shows whose it is, TLS's greeting and all.
        unshown: bytes that it may send before.
        bytes: what a client may send at once, and again in two seconds.
        refusals: refused calls after which a connection goes.
    """

    strangers: int
    of_an_address: int
    bytes: int
    of_a_client: int = 4
    seconds: float = 5.0
    shown_within: float = 20.0
    unshown: int = 1 << 18
    refusals: int = 20

    @classmethod
    def of(cls, clients: int, longest: int) -> Bounds:
        """For so many clients, who may all come at once, and messages of so many bytes at most."""
        return cls(strangers=64 + 2 * clients, of_an_address=100 + 2 * clients, bytes=4 * max(longest, 1 << 20))


class Door:
    """Listens, and has gRPC speak with who may come in.

    Args:
        bounds: what may come in.
        audit: told who may not.
        tls: the coordinator's files; None without TLS.

    Attributes:
        context: what judges a client's certificate; None without TLS.
        inside: where gRPC is to listen, "unix:PATH".
    """

    def __init__(self, bounds: Bounds, audit: Audit, tls: Tls | None = None) -> None:
        self.bounds, self._audit, self._tls = bounds, audit, tls
        self.context = server_context(tls) if tls is not None else None
        self._folder = Path(tempfile.mkdtemp(prefix="fl_rec_"))
        # The path of a socket must be short, and that of a folder for temporary files may not be.
        self._held: int | None = os.open(self._folder, os.O_RDONLY)
        self.inside = f"unix:/proc/self/fd/{self._held}/grpc"
        self._all: dict[Guest, None] = {}  # in the order in which they came
        self._strangers = Strangers()
        self._by_name: dict[str, Guest] = {}
        self._by_client: dict[int, dict[Guest, None]] = {}
        self._comings = Comings(bounds.of_an_address, bounds.seconds)
        self._sendings: dict[int, Rate] = {}
        self._server: asyncio.Server | None = None
        self._looks: asyncio.Task[None] | None = None

    async def open(self, endpoint: str) -> int:
        """Listens at "host:port"; the port, which the system chooses for 0. RunError if it can't."""
        host, _, port = endpoint.rpartition(":")
        with suppress(ValueError, OSError):  # a connection takes three descriptors
            resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Guest(self), host.strip("[]"), int(port), backlog=1024
            )
        except OSError as err:
            raise RunError(
                f"The coordinator must be able to listen on its port. Received: {endpoint}, which can't be bound. "
                "Free the port or, if the system chose it, start again."
            ) from err
        if self._tls is not None and self._tls.crl is not None:
            self._looks = asyncio.get_running_loop().create_task(self._follow(self._tls, self._tls.crl))
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Has all who are in go, and lets nobody in any more."""
        if self._server is not None:
            self._server.close()
        if self._looks is not None:
            self._looks.cancel()
        for guest in list(self._all):
            guest.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def guest(self, peer: str) -> Guest | None:
        """Whose connection it is, by gRPC's `context.peer()`."""
        return self._by_name.get(peer.rpartition(":")[2])

    def came(self, guest: Guest) -> bool:
        """Whether a new connection may stay."""
        self._all[guest] = None
        if not self._comings.take(guest.origin):
            text = f"it opens more than {self.bounds.of_an_address} connections in {self.bounds.seconds:g} s"
            self.refused(guest, text, "connections")
            return False
        self._strangers.add(guest)
        if len(self._strangers) > self.bounds.strangers:
            oldest = self._strangers.oldest()
            text = f"{self.bounds.strangers} later connections have not shown whose they are either"
            self.refused(oldest, text, "connections")
            oldest.close()
        return True

    def connected(self, guest: Guest, name: str) -> None:
        """It has a connection to gRPC, of this name."""
        self._by_name[name] = guest

    def shown(self, guest: Guest, client: int) -> None:
        """It has shown that it is this client's."""
        self._strangers.discard(guest)
        guest.clients.add(client)
        guest.rate = self._sendings.setdefault(client, self.new_rate())
        own = self._by_client.setdefault(client, {})
        own[guest] = None
        if len(own) > self.bounds.of_a_client:
            oldest = next(iter(own))
            self.refused(oldest, f"client {client} has {self.bounds.of_a_client} later connections", "connections")
            oldest.close()

    def refused(self, guest: Guest, why: str, kind: str) -> None:
        """Has it written; a connection that is refused too often goes.

        Args:
            kind: see `Audit.tell`.
        """
        self._audit.tell("refused", guest.who, why, kind)
        guest.refusals += 1
        if guest.refusals == self.bounds.refusals:
            asyncio.get_running_loop().call_later(1.0, guest.close)  # when it has had its answers

    def gone(self, guest: Guest) -> None:
        """It is closed."""
        self._all.pop(guest, None)
        self._strangers.discard(guest)
        if self._by_name.get(guest.name) is guest:  # told more than once, and the system gives a name again
            del self._by_name[guest.name]
        for client in guest.clients:
            self._by_client[client].pop(guest, None)

    def new_rate(self) -> Rate:
        """Of bytes."""
        return Rate(self.bounds.bytes, self.bounds.bytes / 2)

    async def _follow(self, tls: Tls, crl: Path) -> None:
        """When the list of revoked certificates has changed, has all who are in go: who may comes again."""
        known = _stamp(crl)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (stamp := _stamp(crl)) == known:
                continue
            known = stamp
            try:
                self.context = server_context(tls)
            except ConfigError as err:
                log.warning("the list of revoked certificates stays as it was: %s", err)
                continue
            log.info("%s has changed: all connect again", crl)
            for guest in list(self._all):
                guest.close()


def _stamp(path: Path) -> tuple[int, int] | None:
    """By which it is seen that a file has changed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
