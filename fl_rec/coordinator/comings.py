"""Who comes to the coordinator's door and from where, in the same time however many there are: it is strangers who
make them many.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from fl_rec.secure.rates import Rate

if TYPE_CHECKING:
    from fl_rec.coordinator.guest import Guest

# Bits of an IPv6 address that tell networks apart; whoever has one may use all the 2^64 addresses in it.
_NETWORK = 64


def origin_of(host: str) -> str:
    """Where an address counts as coming from: itself, or the network of an IPv6 address."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, _NETWORK), strict=False))
    return host


class Strangers:
    """Connections that have not shown whose they are."""

    def __init__(self) -> None:
        self._of: dict[str, OrderedDict[Guest, None]] = {}  # by origin, in the order in which they came
        self._with: dict[int, OrderedDict[str, None]] = {}  # origins by how many they have
        self._count = self._most = 0

    def __len__(self) -> int:
        return self._count

    def add(self, guest: Guest) -> None:
        own = self._of.setdefault(guest.origin, OrderedDict())
        own[guest] = None
        self._count += 1
        self._recount(guest.origin, len(own) - 1, len(own))

    def discard(self, guest: Guest) -> None:
        own = self._of.get(guest.origin)
        if own is None or guest not in own:
            return
        del own[guest]
        self._count -= 1
        self._recount(guest.origin, len(own) + 1, len(own))
        if not own:
            del self._of[guest.origin]

    def oldest(self) -> Guest:
        """Of the origin that has most."""
        return next(iter(self._of[next(iter(self._with[self._most]))]))

    def _recount(self, origin: str, before: int, after: int) -> None:
        if before:
            del self._with[before][origin]
            if not self._with[before]:
                del self._with[before]
        if after:
            self._with.setdefault(after, OrderedDict())[origin] = None
        if after > self._most or self._most not in self._with:
            self._most = after


class Comings:
    """How often each origin may come.

    Args:
        burst: at once, and again in so many `seconds`.
    """

    def __init__(self, burst: int, seconds: float) -> None:
        self._burst, self._seconds = burst, seconds
        self._rates: OrderedDict[str, Rate] = OrderedDict()  # who came last is last

    def take(self, origin: str) -> bool:
        """Whether it may come now."""
        rate = self._rates.get(origin)
        if rate is None:
            # Who has not come of late is as one who never came.
            while self._rates and (oldest := next(iter(self._rates.values()))).left() == oldest.burst:
                self._rates.popitem(last=False)
            rate = self._rates[origin] = Rate(self._burst, self._burst / self._seconds)
        self._rates.move_to_end(origin)
        return rate.take()
