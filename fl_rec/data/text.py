"""Row files, shards and their manifest: what the data tools write and the trainer reads.

A *row* is ``(user, item, label)``: 0-based ids and a label of 0 or 1. Two text layouts hold one row per line:

* ``multislot``: ``1 <user> 1 <item> 1 <label>``, each value after the number of values in its slot: what Paddle's
  datasets read.
* ``csv``: ``<user>,<item>,<label>``, no header.

MultiSlot text also holds *groups*, a positive and its negatives in one line, for losses that compare them:
``1 <user> G <positive> <negative>... G 1 0 0 ...``.

Numpy only; nothing here imports Paddle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fl_rec.errors import DataError
from fl_rec.files import atomic_write, read_bytes

_ROWS_PER_WRITE = 1 << 18
# Some 15,000 rows: the numbers' positions take several times their text's memory, which a processor's cache holds.
_BYTES_PER_PARSE = 1 << 18


_MAX_DIGITS = 18  # 10**18 - 1 is the longest run of nines that an int64 holds


class Layout(NamedTuple):
    """How a line is written: one template per column, and the file's suffix."""

    columns: tuple[str, ...]
    suffix: str


LAYOUTS: Mapping[str, Layout] = {
    "multislot": Layout(("1 {} ", "1 {} ", "1 {}\n"), ".txt"),
    "csv": Layout(("{},", "{},", "{}\n"), ".csv"),
}


def grouped_layout(group_size: int) -> Layout:
    """Return how MultiSlot text holds groups of ``group_size`` items: columns are the user and then the items."""
    labels = " ".join(["1"] + ["0"] * (group_size - 1))
    first, last = f"1 {{}} {group_size} ", f"{{}} {group_size} {labels}\n"
    return Layout((first, *["{} "] * (group_size - 1), last), LAYOUTS["multislot"].suffix)


def parse_table(text: bytes, columns: int, separator: bytes, name: str) -> np.ndarray:
    """Parse lines of ``columns`` whole numbers >= 0 into int64 [rows, columns].

    ``separator`` is one byte; ``name`` says in the DataError, which carries the line number, whose text it
    is.
    """
    text = _unix_lines(text)
    table = _regular_integers(text, separator * (columns - 1) + b"\n")
    if table is not None:
        return table
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) != columns:
            raise DataError(
                f"{name}, line {number}: a line must have {columns} fields separated by "
                f"{separator.decode()!r}. Received {len(fields)}: {_excerpt(line)}. Correct or remove the "
                "line."
            )
        for field in fields:
            if not field.isdigit() or len(field) > _MAX_DIGITS:
                raise DataError(
                    f"{name}, line {number}: a field must be a whole number of at most {_MAX_DIGITS} digits. "
                    f"Received {_excerpt(field)} in {_excerpt(line)}. Correct the field (ids are numbers "
                    "from 0 up, and there is no header line)."
                )
        rows.append([int(field) for field in fields])
    return np.array(rows, dtype=np.int64).reshape(-1, columns)


def read_rows(path: Path) -> np.ndarray:
    """Read the rows of a ``.csv`` file, or of MultiSlot text, into int64 [rows, 3]; groups become rows.

    DataError as for `parse_csv_rows`, `parse_multislot` and `ungrouped`.
    """
    if path.suffix == LAYOUTS["csv"].suffix:
        return parse_csv_rows(read_bytes(path), str(path))
    return ungrouped(parse_multislot(read_bytes(path), 3, str(path)), str(path))


def ungrouped(slots: Sequence[np.ndarray], name: str) -> np.ndarray:
    """Rows int64 [n * group, 3] of slots [n, 1], [n, group] and [n, group]. DataError if they are of other widths."""
    users, items, labels = slots
    if users.shape[1] != 1 or items.shape != labels.shape:
        raise DataError(
            "A training row has one user, and as many labels as items. Received: "
            f"{[slot.shape[1] for slot in slots]} values in the slots of {name}."
        )
    return np.stack([np.broadcast_to(users, items.shape), items, labels], axis=-1).reshape(-1, 3).astype(np.int64)


def parse_csv_rows(text: bytes, name: str) -> np.ndarray:
    """Parse ``user,item,label`` lines into int64 [rows, 3]. DataError, with the line number, if malformed."""
    rows = parse_table(text, 3, b",", name)
    bad = np.flatnonzero(rows[:, 2] > 1)
    if bad.size:
        raise DataError(
            f"{name}, line {bad[0] + 1}: a label must be 0 or 1. Received {rows[bad[0], 2]}. "
            "The columns are user,item,label, in this order."
        )
    return rows


def parse_multislot(text: bytes, num_slots: int, name: str = "MultiSlot text") -> list[np.ndarray]:
    """Parse MultiSlot text: per line and slot a count, then that many values.

    Returns one array [rows, width] per slot, int64, or float64 if any value of the slot is not a whole
    number; [0, 1] for empty text. Each slot must keep one width over all lines. DataError (with line number)
    otherwise.
    """
    return [np.concatenate(parts) for parts in zip(*multislot_blocks(text, num_slots, name))]


def multislot_blocks(text: bytes, num_slots: int, name: str = "MultiSlot text") -> Iterator[list[np.ndarray]]:
    """Yield what `parse_multislot` returns in blocks of rows, of which int64 is no matter while it is parsed."""
    if not text or text.isspace():
        yield [np.empty((0, 1), dtype=np.int64) for _ in range(num_slots)]
        return
    text = _unix_lines(text)
    widths = [len(values) for values in _line_slots(text[: text.index(b"\n")], num_slots, f"{name}, line 1")]
    starts = np.cumsum([0] + [width + 1 for width in widths])
    terminators = b" " * (int(starts[-1]) - 1) + b"\n"
    start = 0
    while start < len(text):
        stop = text.find(b"\n", start + _BYTES_PER_PARSE) + 1 or len(text)
        block = text[start:stop]
        table = _regular_integers(block, terminators)
        if table is not None and (table[:, starts[:-1]] == widths).all():
            yield [table[:, start + 1 : start + 1 + width] for start, width in zip(starts, widths)]
        else:
            yield _irregular_multislot(block, widths, name, 1 + text.count(b"\n", 0, start))
        start = stop


def narrowed(slot: np.ndarray, narrowest: type[np.signedinteger[Any]]) -> np.ndarray:
    """Values in the narrowest of this type, int32 and int64 that holds them all, or float32 if they are floats."""
    if slot.dtype.kind == "f":
        return slot.astype(np.float32)
    lowest, highest = slot.min(initial=0), slot.max(initial=0)
    for dtype in (narrowest, np.int32):
        if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
            return slot.astype(dtype)
    return slot


def multislot_text(slots: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Write rows as MultiSlot text whose lines are all of one width, numbers with leading zeros.

    So text is made as arrays of bytes: a tenth of a second per million rows. ``slots`` are arrays [rows, width], at
    least one row. Yields uint8 [some rows, width of a line], every line with its ``\\n``.
    """
    writers = [_number_writer(slot) for slot in slots]
    counts = [np.frombuffer(f"{slot.shape[1]} ".encode(), np.uint8) for slot in slots]
    for start in range(0, len(slots[0]), _ROWS_PER_WRITE):
        columns = []
        for slot, count, write in zip(slots, counts, writers):
            part = slot[start : start + _ROWS_PER_WRITE]
            columns += [np.broadcast_to(count, (len(part), len(count))), write(part).reshape(len(part), -1)]
        lines = np.concatenate(columns, axis=1)
        lines[:, -1] = ord("\n")  # in place of a blank
        yield lines


def _number_writer(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What turns parts of these values [...] into text with a blank behind, uint8 [..., width], all of one width."""
    if values.dtype.kind == "f":
        # One digit more than float32 needs.
        return lambda part: np.char.mod("%16.9e ", part).astype("S17").reshape(*part.shape, 1).view(np.uint8)
    lowest, highest = min(int(values.min()), 0), int(values.max())
    digits = len(str(max(highest, -lowest)))
    if highest - lowest >= values.size:
        return lambda part: _digits(part, digits, lowest < 0)
    # Each number's text is made once and looked up, a negative one's from the table's end.
    numbers = np.concatenate([np.arange(highest + 1), np.arange(lowest, 0)])
    table = _digits(numbers, digits, lowest < 0)
    return lambda part: np.take(table, part, axis=0)


def _digits(values: np.ndarray, digits: int, signed: bool) -> np.ndarray:
    text = np.full((*values.shape, signed + digits + 1), ord(" "), np.uint8)
    if signed:
        text[..., 0] = np.where(values < 0, ord("-"), ord("0"))
        values = np.abs(values)
    for column in reversed(range(signed, signed + digits)):
        values, digit = np.divmod(values, 10)
        text[..., column] = digit + ord("0")
    return text


def _unix_lines(text: bytes) -> bytes:
    text = text.replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") else text + b"\n"


def _excerpt(text: bytes) -> str:
    return repr(text[:60].decode("latin-1") + ("..." if len(text) > 60 else ""))


def _regular_integers(text: bytes, terminators: bytes) -> np.ndarray | None:
    """Parse text in which every line is digits ended by exactly these bytes in turn; None if any line is not.

    Column by column and digit by digit: np.fromstring takes three times as long, accepts ragged lines, and stops at bad
    fields with no more than a warning.
    """
    characters = np.frombuffer(text, dtype=np.uint8)
    digits = characters - np.uint8(ord("0"))  # anything else wraps to more than 9
    ends = np.flatnonzero(digits > 9)
    if ends.size == 0 or ends.size % len(terminators) or ends[-1] != characters.size - 1:
        return None
    ends = np.ascontiguousarray(ends.reshape(-1, len(terminators)).T)
    table: np.ndarray = np.empty(ends.shape, np.int64)
    before = np.concatenate([[-1], ends[-1, :-1]])
    for column, terminator in enumerate(terminators):
        end, values = ends[column], table[column]
        length = end - before - 1
        longest = int(length.max())
        if length.min() < 1 or longest > _MAX_DIGITS or (characters[end] != terminator).any():
            return None
        values[:] = digits[end - 1]
        for place in range(1, longest):
            values += np.where(length > place, digits[end - 1 - place], 0) * np.int64(10**place)
        before = end
    return np.transpose(table)


def _irregular_multislot(text: bytes, widths: Sequence[int], name: str, first: int) -> list[np.ndarray]:
    """The slow way, for floats and spare blanks, which also knows the line number of whatever is wrong.

    The text begins with line `first`.
    """
    slots: list[list[list[float]]] = [[] for _ in widths]
    for number, line in enumerate(text.splitlines(), first):
        where = f"{name}, line {number}"
        for slot, (values, width) in enumerate(zip(_line_slots(line, len(widths), where), widths)):
            if len(values) != width:
                raise DataError(
                    f"{where}: slot {slot} must have the same number of values in every line, {width} as in "
                    f"line 1. Received {len(values)}: {_excerpt(line)}. Pad the slot or write the file again."
                )
            slots[slot].append(values)
    arrays = [np.array(values) for values in slots]
    return [array.astype(np.int64 if array.dtype.kind == "i" else np.float64) for array in arrays]


def _line_slots(line: bytes, num_slots: int, where: str) -> list[list[float]]:
    tokens = line.split()
    slots: list[list[float]] = []
    try:
        start = 0
        for _ in range(num_slots):
            width = int(tokens[start])
            values = [
                int(token) if token.isdigit() else float(token) for token in tokens[start + 1 : start + 1 + width]
            ]
            if width < 1 or len(values) != width:
                raise ValueError(f"count {width} before {len(values)} values")
            slots.append(values)
            start += 1 + width
        if start != len(tokens):
            raise ValueError(f"{len(tokens) - start} tokens left over")
    except (ValueError, IndexError) as err:
        raise DataError(
            f"{where}: a line must hold {num_slots} slots, each a count of at least 1 and then that many "
            f"numbers. Received {_excerpt(line)} ({err}). Write the file again, or set the number of slots "
            "that it has."
        ) from err
    return slots


def write_rows(path: Path, rows: np.ndarray, layout: Layout) -> tuple[int, str]:
    """Write int64 rows [n, columns] as text, atomically; return the file's size in bytes and its SHA-256 in hex."""
    digest = hashlib.sha256()
    size = 0
    with atomic_write(path) as file:
        for chunk in _text_chunks(rows, layout.columns):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _text_chunks(rows: np.ndarray, templates: Sequence[str]) -> Iterator[bytes]:
    # Ids repeat, so each one's text is made once and looked up; a format call per row is 20 times slower.
    tables = {}
    for template in dict.fromkeys(templates):
        alike = [column for column, other in enumerate(templates) if other == template]
        tables[template] = np.array([template.format(n) for n in range(rows[:, alike].max(initial=0) + 1)], object)
    for start in range(0, len(rows), _ROWS_PER_WRITE):
        part = rows[start : start + _ROWS_PER_WRITE]
        text = tables[templates[0]][part[:, 0]]
        for column, template in enumerate(templates[1:], 1):
            text = text + tables[template][part[:, column]]
        yield "".join(text.tolist()).encode("ascii")
