"""RUN/audit.jsonl: who joined, was refused, was excluded or has finished, and why. Several processes may write it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from fl_rec.files import append_line
from fl_rec.secure.rates import Rate
from fl_rec.tables import printable

log = logging.getLogger(__name__)

What = Literal["joined", "refused", "excluded", "finished"]
# Refusals of a kind at once, and seconds for each one more: a day's flood takes some 300 KB of a kind.
REFUSALS, SECONDS = 20, 60.0
LONGEST = 400


class Audit:
    """Writes what happened at a job's doors, a line each: {"time", "what", "who", "why"}.

    Refusals, which outsiders cause, are written as far as they are few; a line says how many of its kind were left out
    before it, `untold`, and `close` says the rest. Several threads may tell.

    Args:
        path: the file.
        clock: seconds, for tests.
        logged: whether each line is logged too.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, logged: bool = True) -> None:
        self._path, self._clock, self._logged = path, clock, logged
        self._lock = threading.Lock()
        self._rates: dict[str, Rate] = {}
        self._untold: dict[str, tuple[int, str, str]] = {}

    def tell(self, what: What, who: str, why: str, kind: str = "") -> None:
        """Writes a line, and logs it; where none can be written, that is logged.

        Args:
            who: a client, a host or an address.
            why: in words.
            kind: of a refusal, by which few are told from many; there are few kinds.
        """
        with self._lock:
            untold = 0
            if what == "refused":
                rate = self._rates.setdefault(kind, Rate(REFUSALS, 1 / SECONDS, self._clock))
                untold = self._untold.pop(kind, (0, "", ""))[0]
                if not rate.take():
                    self._untold[kind] = untold + 1, who, why
                    return
            self._write(what, who, why, untold)

    def close(self) -> None:
        """Says how many were left out."""
        with self._lock:
            for count, who, why in self._untold.values():
                self._write("refused", who, why, count - 1)
            self._untold = {}

    def _write(self, what: str, who: str, why: str, untold: int) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, str | int] = {"time": now, "what": what, "who": who[:LONGEST], "why": why[:LONGEST]}
        line |= {"untold": untold} if untold else {}
        if self._logged:
            level = logging.WARNING if what == "refused" else logging.INFO
            log.log(level, "%s: %s: %s", what, printable(who[:LONGEST]), printable(why[:LONGEST]))
        try:
            append_line(self._path, json.dumps(line))
        except OSError as err:
            log.warning("%s can't be written (%s)", self._path, err.strerror)
