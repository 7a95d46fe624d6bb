"""Reads a table's interactions: fast where all of it is numbers, with care and line numbers where it is not."""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import warnings
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from fl_rec.data.ids import MAX_DIGITS, checked_ids
from fl_rec.data.rows import narrowed
from fl_rec.data.sources.base import Dataset, Items, Users, factorize, from_interactions, with_items, with_users
from fl_rec.data.sources.columns import Columns, columns_of
from fl_rec.data.sources.tables import UNIT, Table, parquet_file
from fl_rec.errors import DataError

log = logging.getLogger("prepare")

_BYTES_PER_READ = 1 << 24
_ROLES = ("user", "item", "time", "value")


@dataclass(frozen=True)
class Ids:
    """An id of each interaction: ``code``, whole numbers [n], or places in ``ids`` where there are such."""

    code: np.ndarray
    ids: np.ndarray | None = None

    def numbered(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids in order, int64 or str [k], and which each interaction has, [n]."""
        if self.ids is None:
            return factorize(self.code)
        order = np.argsort(self.ids)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return self.ids[order], rank[self.code]


@dataclass(frozen=True)
class Interactions:
    """A table's, in its order; ``time`` and ``value`` are float64 [n], or None if it has none."""

    user: Ids
    item: Ids
    time: np.ndarray | None
    value: np.ndarray | None


def read_interactions(table: Table, given: Mapping[str, str], with_value: bool) -> Interactions:
    """Read the columns of users, items, times if there are any, and values if they are wanted.

    Args:
        table: where they are.
        given: columns by role, as in `columns_of`.
        with_value: whether there must be a value.

    Raises:
        DataError: a line is not so; it has the line's number.
    """
    roles = _ROLES if with_value else _ROLES[:3]
    needed = ("user", "item", *roles[3:])
    columns = columns_of(table.first, given, roles, needed, table.file.name)
    log.info("columns of %s: %s", table.file.name.rpartition("/")[2], columns.said(table.first))
    if table.kind == "parquet":
        read = _read_parquet(table, columns)
    else:
        read = _read_numbers(table, columns) if table.kind == "text" else None
    return read or _read_rows(table, columns)


# -- all numbers ------------------------------------------------------------------------------------------------


def _read_numbers(table: Table, columns: Columns) -> Interactions | None:
    """The fast way, by numpy's own parser; None if anything is no number, or no id as Python writes it."""
    separator = table.separator if len(table.separator) == 1 else UNIT
    roles = {place: role for role, place in columns.at.items()}
    kinds = {"user": "i8", "item": "i8", "time": "f8", "value": "f8"}
    dtype = [(roles.get(n, f"column {n}"), kinds.get(roles.get(n, ""), "U1")) for n in range(len(table.first))]
    parts = []
    with table.file.open() as raw:
        if columns.header:
            raw.readline()
        while block := raw.read(_BYTES_PER_READ):
            block += raw.readline()
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n")
            if separator != table.separator:
                block = block.replace(table.separator.encode(), separator.encode())
            if _has_padded(block):
                return None
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # no rows, or a whole number with a point
                    rows = np.loadtxt(
                        io.StringIO(block.decode("ascii")),
                        dtype,
                        delimiter=separator,
                        quotechar=table.quote,
                        comments=None,
                        ndmin=1,
                    )
            except (ValueError, Warning):
                return None
            part = {role: rows[role] for role in columns.at}
            if not all(_is_plain(part[role]) for role in part):
                return None
            parts.append(
                {role: narrowed(part[role], np.int32) if role in _ROLES[:2] else part[role].copy() for role in part}
            )
    if not parts:
        return None
    read = {role: np.concatenate([part.pop(role) for part in parts]) for role in columns.at}
    return Interactions(Ids(read["user"]), Ids(read["item"]), read.get("time"), read.get("value"))


def _has_padded(block: bytes) -> bool:
    """Whether a field may begin with +, -0 or a 0 before a digit: an id that is a text, as 007 is not 7."""
    text = np.frombuffer(b"\n" + block + b"\n", np.uint8)
    zeros = np.flatnonzero(text == ord("0"))
    left, right = (text[zeros + step] for step in (-1, 1))
    padded = ~_DIGITS[left] & (left != ord(".")) & _DIGITS[right]
    return b"+" in block or (b"-" in block and b"-0" in block) or bool(padded.any())


_DIGITS = np.isin(np.arange(256), np.frombuffer(b"0123456789", np.uint8))


def _is_plain(values: np.ndarray) -> bool:
    if values.dtype.kind == "f":
        return bool(np.isfinite(values).all())
    return bool((values >= 0).all() and (values < 10**MAX_DIGITS).all())


# -- anything ---------------------------------------------------------------------------------------------------


def _read_rows(table: Table, columns: Columns) -> Interactions:
    """The careful way: ids are texts, times may be dates, and an error has its line."""
    name, width, at = table.file.name, len(table.first), columns.at
    user_at, item_at, time_at, value_at = (at.get(role, -1) for role in _ROLES)
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item, time, value = array("i"), array("i"), array("d"), array("d")
    read_time: Callable[[str], float] | None = None
    rows = table.rows()
    if columns.header:
        next(rows)
    for line, row in rows:
        try:
            if len(row) != width:
                raise _Wrong(f"a line must have {width} fields separated by {table.separator!r}", len(row))
            who, what = row[user_at].strip(), row[item_at].strip()
            if not (who and what):
                raise _Wrong(f"{'an item' if who else 'a user'} must have an id", "''")
            user.append(users.setdefault(who, len(users)))
            item.append(items.setdefault(what, len(items)))
            if time_at >= 0:
                read_time = read_time or (_number if _is_number(row[time_at]) else _date)
                time.append(read_time(row[time_at]))
            if value_at >= 0:
                value.append(_number(row[value_at], "a value must be a number"))
        except _Wrong as err:
            excerpt = (table.separator if table.kind == "text" else ", ").join(row)
            excerpt = repr(excerpt[:60] + ("..." if len(excerpt) > 60 else ""))
            raise DataError(
                f"{name}, line {line}: {err.rule}. Received {err.received}: {excerpt}. Correct or remove the line."
            ) from err
    if not user:
        raise DataError(f"A data file must hold at least one row. Received: {name}, which has none below its header.")
    return Interactions(
        Ids(np.array(user, np.int32), checked_ids(list(users), name)),
        Ids(np.array(item, np.int32), checked_ids(list(items), name)),
        np.array(time) if time_at >= 0 else None,
        np.array(value) if value_at >= 0 else None,
    )


class _Wrong(ValueError):
    def __init__(self, rule: str, received: object) -> None:
        super().__init__(rule)
        self.rule, self.received = rule, received


_TIME = "a time must be a number of seconds or milliseconds, or in all lines a date such as 2024-05-01 12:30:00"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: str, rule: str = _TIME) -> float:
    if not _is_number(text):
        raise _Wrong(rule, f"{text!r:.60}")
    return float(text)


def _date(text: str) -> float:
    """Seconds since 1970 of an ISO date; without a zone it is UTC."""
    try:
        date = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace(" UTC", "+00:00"))
    except ValueError as err:
        raise _Wrong(_TIME, f"{text!r:.60}") from err
    return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()


# -- Parquet ----------------------------------------------------------------------------------------------------


def _read_parquet(table: Table, columns: Columns) -> Interactions | None:
    """By column; None if times are texts, or ids neither whole numbers nor texts."""
    import pyarrow as pa

    names = {role: table.first[place] for role, place in columns.at.items()}
    with table.file.open() as raw:
        read = parquet_file(raw, table.file.name).read(columns=list(names.values()))
    found = {role: read.column(name) for role, name in names.items()}
    for role, column in found.items():
        if column.null_count:
            raise DataError(
                f"{table.file.name}: every row must have a {role}. Received: {column.null_count} without, in the "
                f"column {names[role]}. Remove them."
            )
    ids = {role: _arrow_ids(found[role], pa, table.file.name) for role in _ROLES[:2]}
    numbers = {role: _arrow_numbers(found[role], pa) for role in _ROLES[2:] if role in found}
    if not read.num_rows or None in ids.values() or any(each is None for each in numbers.values()):
        return None
    return Interactions(ids["user"], ids["item"], numbers.get("time"), numbers.get("value"))  # type: ignore[arg-type]


def _arrow_ids(column: Any, pa: Any, name: str) -> Ids | None:
    if pa.types.is_integer(column.type):
        values = column.to_numpy()
        return Ids(narrowed(values, np.int32)) if _is_plain(values) else None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        encoded = column.combine_chunks().dictionary_encode()
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        return Ids(encoded.indices.to_numpy(), checked_ids(encoded.dictionary.to_pylist(), name))
    return None


def _arrow_numbers(column: Any, pa: Any) -> np.ndarray | None:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    values = column.to_numpy().astype(np.float64)
    return values if np.isfinite(values).all() else None


# -- to a data set ----------------------------------------------------------------------------------------------


def to_dataset(
    kind: str,
    read: Interactions,
    min_value: float | None = None,
    min_interactions: int = 1,
    users: Users | None = None,
    items: Items | None = None,
) -> Dataset:
    """Leave out what is below the limits, and number the rest, as `from_interactions` does.

    Args:
        kind: a word for meta.json.
        read: all interactions.
        min_value: those of a lower value are left out.
        min_interactions: users with fewer different items, after that, are left out. Items are not: it is done once.
        users, items: what is known of them.

    Raises:
        DataError: nothing is left.
    """
    user_ids, user = read.user.numbered()
    item_ids, item = read.item.numbered()
    time = read.time
    notes = {}
    if min_value is not None and read.value is not None:
        kept = read.value >= min_value
        notes["below_min_value"] = int((~kept).sum())
        _require(kept, f"A value must be at least {min_value:g} for an interaction to count", f"{read.value.max():g}")
        log.info("%d of %d interactions have a value below %g: left out", (~kept).sum(), len(kept), min_value)
        user, item, time = user[kept], item[kept], None if time is None else time[kept]
    if min_interactions > 1:
        pairs = np.unique(user.astype(np.int64) * len(item_ids) + item)
        count = np.bincount(pairs // len(item_ids), minlength=len(user_ids))
        few = (count > 0) & (count < min_interactions)
        notes["users_below_min_interactions"] = int(few.sum())
        _require(~few[user], f"A user must have at least {min_interactions} different items", f"{count.max()}")
        log.info("%d of %d users have fewer than %d items: left out", few.sum(), (count > 0).sum(), min_interactions)
        kept = ~few[user]
        user, item, time = user[kept], item[kept], None if time is None else time[kept]
    dataset = from_interactions(kind, user, item, time)
    dataset = dataclasses.replace(
        dataset,
        original_user=user_ids[dataset.original_user],
        items=dataclasses.replace(dataset.items, original_id=item_ids[dataset.items.original_id]),
        notes={**dataset.notes, **notes},
    )
    dataset = dataset if users is None else with_users(dataset, users)
    return dataset if items is None else with_items(dataset, items)


def _require(kept: np.ndarray, rule: str, highest: str) -> None:
    if not kept.any():
        raise DataError(f"{rule}. Received: none; the highest is {highest}. Ask for less.")
