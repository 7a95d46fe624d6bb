"""Who is sent away while the hub waits for its hosts, and what is said of it. No Paddle is imported here."""

from __future__ import annotations

import time

from fl_rec.errors import DataError
from fl_rec.tables import printable

# How many different refusals are told on the terminal, since a stranger may come again and again; see the audit.
_MOST = 20


class Differs(DataError):
    """A host that can't come as it is.

    Args:
        host: its name.
        why: in words.
    """

    def __init__(self, host: str, why: str) -> None:
        super().__init__(why)
        self.host = host


class Refusals:
    """A host that was refused is waited for all the same: it may be mended and started again, alone; and without TLS
    whoever says that it is that host may be a stranger, who must not end a job.

    Args:
        here: the hub.
        seconds: for which it waits, from now on.
        notes: what is to be told on the terminal, to which this adds.

    Attributes:
        hosts: why a host was refused last, by its name.
        stranger: completes "nothing has linked", if somebody has.
    """

    def __init__(self, here: str, seconds: float, notes: list[str]) -> None:
        self._here, self._until, self._notes = here, time.monotonic() + seconds, notes
        self._ends = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
        self._said: set[str] = set()
        self.stranger = ""
        self.hosts: dict[str, str] = {}

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._until - time.monotonic())

    def refused(self, peer: str, err: Exception, named: str) -> str:
        """Has it told here.

        Args:
            peer: from where it linked.
            err: why it is refused.
            named: who that was; "" of a stranger.

        Returns:
            what is told there.
        """
        if not isinstance(err, Differs):
            self.stranger = f", but what was refused ({peer}: {err})"
            self._say(f"a host was refused, which linked from {peer.rpartition(':')[0]}: {err}")
            return str(err)
        self.hosts[err.host] = str(err)
        self._say(
            f"{named} was refused: {err} It is waited for until {self._ends} (runner.start_timeout): mend it there and "
            "start the same command there again; or end this one, and mend it here"
        )
        return f"{err} {self._here} waits for {self.left:.0f} s more: mend it there, or here and start again."

    def _say(self, text: str) -> None:
        text = printable(text)  # some of it is who came's own
        if text not in self._said and len(self._said) < _MOST:
            self._said.add(text)
            self._notes.append(text)
