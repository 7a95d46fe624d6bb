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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fl_rec.data.rows import ANY_SIZES, LARGEST_ID, Sizes, checked
from fl_rec.errors import DataError
from fl_rec.files import atomic_write, lines_of, read_bytes

_ROWS_PER_WRITE = 1 << 18
# Some 15,000 rows: the numbers' positions take several times their text's memory, which a processor's cache holds.
_BYTES_PER_PARSE = 1 << 18
_PARSES_PER_BLOCK = 64


_MAX_DIGITS = len(str(LARGEST_ID))


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


def parse_table(text: bytes, columns: int, separator: bytes, name: str, first: int = 1) -> np.ndarray:
    """Parse lines of ``columns`` whole numbers >= 0 into int64 [rows, columns].

    ``separator`` is one byte; ``name`` says in the DataError, which carries the line number, whose text it
    is, and ``first`` is the number of its first line.
    """
    text = _unix_lines(text)
    table = _regular_integers(text, separator * (columns - 1) + b"\n")
    if table is not None:
        return table
    rows = []
    for number, line in enumerate(text.splitlines(), first):
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


def read_rows(path: Path, sizes: Sizes = ANY_SIZES) -> np.ndarray:
    """Read the rows of a file into int64 [rows, 3]; groups become rows. DataError as for `read_slots`."""
    return ungrouped(read_slots(path, sizes)[1])


def read_slots(path: Path, sizes: Sizes = ANY_SIZES) -> tuple[str, list[np.ndarray]]:
    """Read users int64 [rows, 1], items and labels [rows, group] of a file, plain or gzip.

    Returns the layout's name, and these. DataError, with the line number, as for `parse_table`, `parse_multislot` and
    `checked`.
    """
    text, name = read_bytes(path), str(path)
    if is_csv(text):
        return "csv", np.hsplit(parse_csv_rows(text, name, sizes), 3)
    return "multislot", checked(parse_multislot(text, 3, name), sizes, name)


def is_csv(text: bytes) -> bool:
    """Whether the first line has commas, which MultiSlot text never has."""
    return b"," in text.partition(b"\n")[0]


def ungrouped(slots: Sequence[np.ndarray]) -> np.ndarray:
    """Rows int64 [n * group, 3] of slots [n, 1], [n, group] and [n, group]."""
    users, items, labels = slots
    return np.stack([np.broadcast_to(users, items.shape), items, labels], axis=-1).reshape(-1, 3).astype(np.int64)


def parse_csv_rows(text: bytes, name: str, sizes: Sizes = ANY_SIZES, first: int = 1) -> np.ndarray:
    """Parse ``user,item,label`` lines into int64 [rows, 3]. DataError, with the line number, if malformed."""
    rows = parse_table(text, 3, b",", name, first)
    checked(np.hsplit(rows, 3), sizes, name, first)
    return rows


def csv_blocks(path: Path, sizes: Sizes) -> Iterator[np.ndarray]:
    """Yield the rows of a CSV that may be larger than memory, int32 [some rows, 3]. DataError as for `read_rows`."""
    rows, count = [], 0
    for text in lines_of(path, _BYTES_PER_PARSE):
        rows.append(parse_csv_rows(text, str(path), sizes, 1 + count).astype(np.int32))
        count += len(rows[-1])
        if len(rows) == _PARSES_PER_BLOCK:
            yield np.concatenate(rows)
            rows = []
    if rows:
        yield np.concatenate(rows)


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
    head = text[: text.index(b"\n")]
    if is_csv(text):
        raise DataError(
            f"{name}, line 1: MultiSlot text has no commas. Received: {_excerpt(head)}. Of a line user,item,label a "
            'reader makes it: runner.pipe_command="python queuedataset_reader.py"'
        )
    widths = [len(values) for values in _line_slots(head, num_slots, f"{name}, line 1")]
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
            # numpy 1 makes floats of uint8 and a large int64.
            values += np.multiply(np.where(length > place, digits[end - 1 - place], 0), 10**place, dtype=np.int64)
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


def count_slots(text: bytes) -> int:
    """Slots of the first line, if it is MultiSlot text."""
    tokens, start, slots = text.partition(b"\n")[0].split(), 0, 0
    while start < len(tokens) and tokens[start].isdigit():
        start += 1 + int(tokens[start])
        slots += 1
    return slots


def _line_slots(line: bytes, num_slots: int, where: str) -> list[list[float]]:
    tokens = line.split()
    slots: list[list[float]] = []
    try:
        if b"_" in line:  # which Python takes for a part of a number
            raise ValueError("an underscore")
        start = 0
        for _ in range(num_slots):
            width = int(tokens[start])
            values = [
                int(token) if token.isdigit() and len(token) <= _MAX_DIGITS else float(token)
                for token in tokens[start + 1 : start + 1 + width]
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


def write_rows(path: Path, rows: np.ndarray | Iterable[np.ndarray], layout: Layout) -> tuple[int, str]:
    """Write rows [n, columns], or blocks of them, as text; return the file's size in bytes and its SHA-256 in hex.

    Rows are whole numbers of any type. The file is written whole or not at all.
    """
    digest = hashlib.sha256()
    size = 0
    texts = {template: _Texts(template) for template in layout.columns}
    with atomic_write(path) as file:
        for block in [rows] if isinstance(rows, np.ndarray) else rows:
            for start in range(0, len(block), _ROWS_PER_WRITE):
                part = block[start : start + _ROWS_PER_WRITE]
                chunk = _joined([texts[template].of(column) for template, column in zip(layout.columns, part.T)])
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    return size, digest.hexdigest()


class _Texts:
    """Numbers as a template has them. Ids repeat, so each one's text is made once and looked up."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._table: np.ndarray = np.empty(0)

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Their texts, filled up with zero bytes; those of up to 8 bytes as numbers, which are looked up sooner."""
        highest = int(numbers.max())
        if highest >= len(self._table):
            texts = np.array([self._template.format(n) for n in range(max(highest + 1, 2 * len(self._table)))], "S")
            width = texts.dtype.itemsize
            kind = next((kind for kind in (np.uint16, np.uint32, np.uint64) if kind().itemsize >= width), None)
            self._table = texts if kind is None else texts.astype(f"S{kind().itemsize}").view(kind)
        return np.take(self._table, numbers)


def _joined(columns: Sequence[np.ndarray]) -> bytes:
    """Texts side by side, without the zero bytes between."""
    lines = np.empty(len(columns[0]), [(str(number), column.dtype) for number, column in enumerate(columns)])
    for number, column in enumerate(columns):
        lines[str(number)] = column
    return lines.tobytes().translate(None, b"\0")
