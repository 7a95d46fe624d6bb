"""What rows are, and which of them a worker trains next. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
from annotated_types import Ge, Le
from pydantic import Strict

from fl_rec.errors import DataError

Rows = tuple[np.ndarray, ...]
"""One array [rows, width] per slot of the training program: a row's user first, its items, their labels last of the
feeds, and what distillation adds. Ids are int32 or, where they don't fit, int64; labels int8."""

LARGEST_ID = 10**18 - 1
"""The longest run of nines that an int64 holds."""

MAX_IDS = 50_000_000
"""Users or items that a data set may have: tables are as long as the highest id, so one wrong digit could take all
memory."""

Size = Annotated[int, Strict(), Ge(1), Le(MAX_IDS)]
"""How many users or items somebody says that there are."""


class Sizes(NamedTuple):
    """How many users and items there are, whose ids are below; None: nobody has said."""

    users: int | None = None
    items: int | None = None


ANY_SIZES = Sizes()


def checked(slots: Sequence[np.ndarray], sizes: Sizes, name: str, line: int = 1) -> list[np.ndarray]:
    """Rows that somebody wrote, if they are such as can be trained and tested.

    Args:
        slots: [rows, width] each, of whole numbers or floats: users, whatever a net takes beside, and labels. The
            middle one of three has the items.
        sizes: ids must be below.
        name: of the file, which has one row per line.
        line: that of the first row.

    Returns:
        the same, ids and labels int64.

    Raises:
        DataError: an id is not a whole number from 0 up, or too large; a label is neither 0 nor 1; another number is
            none of a float32; or a row has several users, or not as many labels as items.
    """
    kinds = {0: ("user", sizes.users), len(slots) - 1: ("label", 2)}
    if len(slots) == 3:
        kinds[1] = "item", sizes.items
    if len(slots) == 3 and (slots[0].shape[1] != 1 or slots[1].shape != slots[2].shape):
        raise DataError(
            f"{name}, line {line}: a row must have one user, and as many labels as items. Received: "
            f"{', '.join(str(slot.shape[1]) for slot in slots)} values in its slots. Write the file again."
        )
    found = []
    for number, slot in enumerate(slots):
        kind, size = kinds.get(number, ("", None))
        limit = LARGEST_ID + 1 if size is None else size
        if not (kind and _all_in_range(slot, limit)):
            good = _in_range(slot, limit) if kind else np.abs(slot) <= np.finfo(np.float32).max
            if not good.all():
                row, column = np.argwhere(~good)[0]
                raise DataError(f"{name}, line {line + row}: {_broken(slots, int(row), slot[row, column], kind, size)}")
        found.append(slot.astype(np.int64, copy=False) if kind else slot)
    return found


def _all_in_range(slot: np.ndarray, size: int) -> bool:
    """As `_in_range` of whole numbers, in a part of the time; False of others."""
    return slot.dtype.kind in "iu" and (not slot.size or bool(slot.min() >= 0 and slot.max() < size))


def _in_range(slot: np.ndarray, size: int) -> np.ndarray:
    """Where there is a whole number from 0 to size - 1."""
    good: np.ndarray = (slot >= 0) & (slot < size)
    return good & (slot == np.floor(slot)) if slot.dtype.kind == "f" else good


def _broken(slots: Sequence[np.ndarray], row: int, value: Any, kind: str, size: int | None) -> str:
    """The rule, what was received, and the remedy."""
    value = f"{value:g}" if isinstance(value, float) else value
    if not kind:
        return f"a value must be a finite number. Received: {value}. Correct it, or leave the row out."
    if kind == "label":
        remedy = "Write 1 where the user chose the item, or rated it well enough, and 0 where not."
        if [slot.ravel()[row] for slot in slots if slot.shape[1] == 1] == [0, 1, 2]:
            remedy = "These are the columns' numbers, in a header line as PaddleRec's splitter writes it: remove it."
        return f"a label must be 0 or 1. Received: {value}. {remedy}"
    where = "0 up" if size is None else f"0 to {size - 1:,}, below num_{kind}s={size}"
    remedy = f"Number the {kind}s from 0 up without wide gaps"
    remedy += "." if size is None else ", or take the data that the number, or the model, was made for."
    return f"a{'n' * (kind == 'item')} {kind}'s id must be a whole number from {where}. Received: {value}. {remedy}"


def check_table(rows: Any, columns: int, sizes: Sizes, name: str) -> None:
    """DataError unless it is an array [rows, columns] of whole numbers: a user, an item, and of three a label."""
    if not (isinstance(rows, np.ndarray) and rows.shape == (len(rows), columns) and rows.dtype.kind in "iu"):
        found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise DataError(f"{name} must be whole numbers [rows, {columns}]. Received: {found}. Correct what makes them.")
    limits = [LARGEST_ID + 1 if size is None else size for size in sizes]
    if not all(map(_all_in_range, rows.T, (*limits, 2))):
        slots = [rows[:, n : n + 1] for n in range(columns)]
        checked([*slots, np.ones((len(rows), 1), np.int8)][:3], sizes, name)  # which says where


def narrowed(slot: np.ndarray, narrowest: type[np.signedinteger[Any]]) -> np.ndarray:
    """Values in the narrowest of this type, int32 and int64 that holds them all, or float32 if they are floats."""
    if slot.dtype.kind == "f":
        return slot.astype(np.float32)
    lowest, highest = slot.min(initial=0), slot.max(initial=0)
    for dtype in (narrowest, np.int32):
        if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
            return slot.astype(dtype)
    return slot


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

    @property
    def position(self) -> tuple[int, int]:
        """The pass, and the row in it, that come next."""
        return self._pass, self._next

    def go_to(self, number: int, row: int) -> None:
        """Has these come next."""
        self._pass, self._next = number, row
        if row:  # the rest of a pass is of when it was drawn
            self.of_pass(number)

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
