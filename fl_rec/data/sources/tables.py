"""Tables as text, line by line: CSV and the like, JSON lines, Parquet, whatever is in their fields."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fl_rec.data.sources.archive import TableFile
from fl_rec.errors import ConfigError, DataError

_SEPARATORS = ("::", "\t", ",", ";", "|")
# Rows that a Parquet file may have, beside any few: one of as many equal ones as it likes takes a hundred bytes.
_ROWS_PER_BYTE, _FREE_ROWS = 8, 1 << 22
# Stands for a separator of several letters, which no reader takes.
UNIT = "\x1f"

Rows = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True)
class Table:
    """A file's rows; blank lines are none.

    Attributes:
        given: the separator; '' to find it in the first line. JSON lines and Parquet have none.
    """

    file: TableFile
    given: str = ""

    @cached_property
    def encoding(self) -> str:
        """UTF-8, if all of the file is; else what older files are written in."""
        with self.file.open() as raw:
            block = raw.read(1 << 20)
            if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16"
            decoder = codecs.getincrementaldecoder("utf-8")()
            try:
                while block:
                    decoder.decode(block)
                    block = raw.read(1 << 20)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                return "latin-1"
        return "utf-8-sig"

    @cached_property
    def kind(self) -> str:
        """text, json or parquet. DataError if the file is empty."""
        if self.file.name.removesuffix(".gz").endswith((".parquet", ".pq")):
            return "parquet"
        return "json" if self._line.lstrip().startswith(("{", "[")) else "text"

    @cached_property
    def separator(self) -> str:
        if self.given:
            return self.given
        best = max(_SEPARATORS, key=self._line.count)
        if best not in self._line:
            raise DataError(
                f"{self.file.name}: the first line must have several fields, separated by one of "
                f"{', '.join(map(repr, _SEPARATORS))}. Received: {self._line.strip()[:60]!r}. Name another: --separator"
            )
        return best

    @property
    def quote(self) -> str | None:
        return '"' if self.separator in (",", ";") else None

    @cached_property
    def first(self) -> list[str]:
        """Fields of the first line, or names of the columns. DataError if the file is empty."""
        return next(self.rows())[1]

    def rows(self) -> Rows:
        """Yield each row with the number of its line; names of columns come first, if a file has them."""
        return {"text": self._text, "json": self._json, "parquet": self._parquet}[self.kind]()

    @cached_property
    def _line(self) -> str:
        """The first that is not blank."""
        with self.file.open() as raw, io.TextIOWrapper(raw, self.encoding) as text:
            line = next((line for line in text if line.strip()), None)
        if line is None:
            raise DataError(f"A data file must hold at least one row. Received: {self.file.name}, which is empty.")
        return line

    def _text(self) -> Rows:
        separator = self.separator
        with self.file.open() as raw, io.TextIOWrapper(raw, self.encoding, newline="") as text:
            lines = text if len(separator) == 1 else (line.replace(separator, UNIT) for line in text)
            delimiter = separator if len(separator) == 1 else UNIT
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE)
            try:
                for row in reader:
                    if len(row) > 1 or (row and row[0].strip()):
                        yield reader.line_num, row
            except csv.Error as err:
                raise DataError(
                    f"{self.file.name}, line {reader.line_num}: a line must be readable as CSV. Received one that is "
                    f"not ({err}). Correct or remove the line."
                ) from err

    def _json(self) -> Rows:
        names: list[str] = []
        with self.file.open() as raw, io.TextIOWrapper(raw, self.encoding) as text:
            for number, line in enumerate(text, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError(f"it is a {type(record).__name__}")
                except ValueError as err:
                    raise DataError(
                        f"{self.file.name}, line {number}: a line must be one JSON object. Received: {line[:60]!r} "
                        f"({err}). Write the file as JSON lines."
                    ) from err
                if not names:
                    names = list(record)
                    yield number, names
                yield number, [_plain(record.get(name)) for name in names]

    def _parquet(self) -> Rows:
        with self.file.open() as raw:
            found = parquet_file(raw, self.file.name)
            yield 1, found.schema_arrow.names
            batches = (batch.to_pylist() for batch in found.iter_batches())
            for number, record in enumerate(itertools.chain.from_iterable(batches), 1):
                yield number, [_plain(value) for value in record.values()]


def parquet_file(raw: Any, name: str) -> Any:
    """A pyarrow ParquetFile. ConfigError without pyarrow; DataError if it is none."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as err:
        raise ConfigError(f"Parquet is read by pyarrow. Received: {name}. pip install 'fl_rec[parquet]'") from err
    try:
        found = parquet.ParquetFile(raw)
    except ArrowInvalid as err:
        raise DataError(f"A Parquet file must be readable. Received: {name} ({err}). Check path and download.") from err
    rows, size = found.metadata.num_rows, raw.seek(0, io.SEEK_END)
    if rows > max(_FREE_ROWS, _ROWS_PER_BYTE * size):
        raise DataError(
            f"A Parquet file takes more than a bit for each row. Received: {name}, {rows:,} rows in {size:,} bytes. "
            "Write it as CSV, if you trust who made it."
        )
    return found


def _plain(value: Any) -> str:
    """A field's text; of a list, however deep, its texts joined with ``|``."""
    if isinstance(value, list | tuple):
        return "|".join(filter(None, map(_plain, value)))
    return "" if value is None else str(value)
