"""Which rows a worker trains next, as arrays. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Rows = tuple[np.ndarray, ...]
"""One array [rows, width] per slot of the training program: a row's user first, its items, their labels last of the
feeds, and what distillation adds. Ids are int32 or, where they don't fit, int64; labels int8."""


class Source(Protocol):
    """What gives the rows of each pass over the data: `SameRows`, or what draws them anew.

    Attributes:
        count: rows of a pass.
    """

    @property
    def count(self) -> int: ...

    def epoch(self, number: int) -> Rows:
        """The rows of a pass, the same for the same number."""


@dataclass(frozen=True)
class SameRows:
    """The rows of the shards as they are, in every pass."""

    rows: Rows

    @property
    def count(self) -> int:
        return len(self.rows[0])

    def epoch(self, number: int) -> Rows:
        return self.rows


class TrainingRows:
    """A worker's training rows, in an endless sequence of passes over the data."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._drawn = -1
        self._pass = self._next = 0

    @property
    def count(self) -> int:
        """Rows of one pass."""
        return self._source.count

    def of_pass(self, number: int) -> Rows:
        """All rows of a pass, drawn once if it is asked for again."""
        if number != self._drawn:
            self._rows, self._drawn = self._source.epoch(number), number
        return self._rows

    def take(self, wanted: int) -> Iterator[Rows]:
        """The next rows; they go on where the last ones ended, and begin the data anew at its end.

        Yields:
            parts of one pass each. A whole pass is what the source gives: of rows that don't change, the same object.
        """
        while wanted > 0:
            stop = min(self._next + wanted, self.count)
            rows, taken = self.of_pass(self._pass), stop - self._next
            yield rows if taken == self.count else tuple(slot[self._next : stop] for slot in rows)
            wanted -= taken
            self._next = stop % self.count
            self._pass += self._next == 0
