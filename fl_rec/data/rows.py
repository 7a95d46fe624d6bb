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
    """A worker's training rows, in an endless sequence of passes over the data."""

    def __init__(self) -> None:
        self._pass = self._next = 0

    @property
    @abstractmethod
    def count(self) -> int:
        """Rows of one pass."""

    @property
    def at_start(self) -> bool:
        """Whether a new pass comes next."""
        return self._next == 0

    def take(self, wanted: int | None) -> Iterator[tuple[list[Path], str]]:
        """The next rows.

        Args:
            wanted: how many; None for a whole pass, whose rows then need not be counted.

        Yields:
            the files and the pipe command of each part of one pass; use it before the next one is taken.
        """
        if wanted is None:
            yield self._part(self._pass, None)
            self._pass += 1
            return
        while wanted > 0:
            stop = min(self._next + wanted, self.count)
            whole = stop - self._next == self.count
            yield self._part(self._pass, None if whole else slice(self._next, stop))
            wanted -= stop - self._next
            self._next = stop % self.count
            self._pass += self.at_start

    @abstractmethod
    def text(self, number: int) -> bytes:
        """All rows of a pass as MultiSlot text, for who does not train through Paddle's data feed."""

    @abstractmethod
    def _part(self, number: int, rows: slice | None) -> tuple[list[Path], str]:
        """The files and the pipe command that give these rows of a pass, or all of them."""

    @abstractmethod
    def close(self) -> None:
        """Removes what was written."""


class ShardRows(TrainingRows):
    """The rows of the shards as they are, the same in every pass.

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

    def text(self, number: int) -> bytes:
        return b"".join(self._reader.read(path, self._timeout) for path in self._shards)

    def _part(self, number: int, rows: slice | None) -> tuple[list[Path], str]:
        return self._shards, self._reader.pipe(rows)

    def close(self) -> None:
        pass


class FreshRows(TrainingRows):
    """The shards' positives, in every pass with other negatives and in another order.

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

    def text(self, number: int) -> bytes:
        return self._source.epoch(number).tobytes()

    def _part(self, number: int, rows: slice | None) -> tuple[list[Path], str]:
        if number != self._drawn:
            self._text, self._drawn = self._source.epoch(number), number
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
