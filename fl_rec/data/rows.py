"""Which rows a worker trains next, as files and pipe commands for Paddle's data feed. No Paddle is imported here.

Both sources go on from where the last call ended, and begin their data anew at its end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from fl_rec.data.reader import AS_IS, Reader
from fl_rec.errors import RunError


class Source(Protocol):
    """What draws rows anew, such as `fl_rec.data.sampling.FreshNegatives`: so many lines, and an epoch's text."""

    lines: int

    def epoch(self, number: int) -> np.ndarray: ...


class TrainingRows(ABC):
    """A worker's training rows, in an endless sequence of readings."""

    def __init__(self) -> None:
        self._reading = self._next = 0

    @property
    @abstractmethod
    def count(self) -> int:
        """Rows of one reading."""

    @property
    def at_start(self) -> bool:
        """Whether a new reading comes next."""
        return self._next == 0

    def take(self, wanted: int | None) -> Iterator[tuple[list[Path], str]]:
        """The next rows.

        Args:
            wanted: how many; None for a whole reading, whose rows then need not be counted.

        Yields:
            the files and the pipe command of each stretch of one reading; use it before the next one is taken.
        """
        if wanted is None:
            yield self._stretch(self._reading, None)
            self._reading += 1
            return
        while wanted > 0:
            stop = min(self._next + wanted, self.count)
            whole = stop - self._next == self.count
            yield self._stretch(self._reading, None if whole else slice(self._next, stop))
            wanted -= stop - self._next
            self._next = stop % self.count
            self._reading += self.at_start

    @abstractmethod
    def text(self, reading: int) -> bytes:
        """All rows of a reading as MultiSlot text, for who does not train through Paddle's data feed."""

    @abstractmethod
    def _stretch(self, reading: int, rows: slice | None) -> tuple[list[Path], str]:
        """The files and the pipe command that give these rows of a reading, or all of them."""

    @abstractmethod
    def close(self) -> None:
        """Removes what was written."""


class ShardRows(TrainingRows):
    """The rows of the shards as they are, the same in every reading.

    Args:
        shards: files; parts can be taken of a single one only.
        reader: turns them into MultiSlot text.
        count: their rows; None if nobody knows, when they are counted at need.
        timeout: seconds for the reader to have them counted.
    """

    def __init__(self, shards: Sequence[Path], reader: Reader, count: int | None, timeout: float) -> None:
        super().__init__()
        self._shards = list(shards)
        self._reader = reader
        self._count = count
        self._timeout = timeout

    @property
    def count(self) -> int:
        if self._count is None:
            self._count = sum(self._reader.read(path, self._timeout).count(b"\n") for path in self._shards)
        return self._count

    def text(self, reading: int) -> bytes:
        return b"".join(self._reader.read(path, self._timeout) for path in self._shards)

    def _stretch(self, reading: int, rows: slice | None) -> tuple[list[Path], str]:
        return self._shards, self._reader.pipe(rows)

    def close(self) -> None:
        pass


class FreshRows(TrainingRows):
    """The shards' positives, in every reading with other negatives and in another order.

    Args:
        source: what draws them.
        file: where the rows that are to be trained next are written.
    """

    def __init__(self, source: Source, file: Path) -> None:
        super().__init__()
        self._source = source
        self._file = file
        self._drawn = -1

    @property
    def count(self) -> int:
        return self._source.lines

    def text(self, reading: int) -> bytes:
        return self._source.epoch(reading).tobytes()

    def _stretch(self, reading: int, rows: slice | None) -> tuple[list[Path], str]:
        if reading != self._drawn:
            self._text, self._drawn = self._source.epoch(reading), reading
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._text[rows or slice(None)].tofile(self._file)
        except OSError as err:
            raise RunError(
                f"runner.resample_negatives writes each epoch's rows. Received: {self._file}, which can't be written "
                f"({err.strerror or err}). Free some space, or name another runner.run_dir."
            ) from err
        return [self._file], AS_IS

    def close(self) -> None:
        self._file.unlink(missing_ok=True)
