"""Tables of interactions, users and items: CSV and the like, JSON lines, Parquet, RecBole's atomic files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fl_rec.data.ids import checked_ids
from fl_rec.data.sources.archive import Files, table_file
from fl_rec.data.sources.base import Dataset, Items, Users
from fl_rec.data.sources.columns import Columns, columns_of
from fl_rec.data.sources.interactions import read_interactions, to_dataset
from fl_rec.data.sources.tables import Table
from fl_rec.errors import DataError
from fl_rec.typed import PositiveInt

log = logging.getLogger("prepare")


def tabular(
    seed: int,
    *,
    path: Path,
    user: str = "",
    item: str = "",
    time: str = "",
    value: str = "",
    client: str = "",
    separator: str = "",
    min_value: float | None = None,
    min_interactions: PositiveInt = 1,
) -> Dataset:
    """A table of interactions, each a positive: plain, .gz, or alone in a zip.

    ``user``, ``item``, ``time`` and ``value`` are columns by their name in the header, or, where there is none, by
    their number from 1; those left out are guessed from the header. ``client`` is a column that becomes one of users.
    """
    given = {"user": user, "item": item, "time": time, "value": value}
    table = Table(table_file(path), separator_of(separator))
    both = ("user", "client")
    columns = columns_of(table.first, {"user": user, "client": client}, both, both, table.file.name) if client else None
    read = read_interactions(table, given, min_value is not None)
    users = None if columns is None else _first_values(table, columns, client)
    return to_dataset("table", read, min_value, min_interactions, users)


def recbole(seed: int, *, path: Path, min_value: float | None = None, min_interactions: PositiveInt = 1) -> Dataset:
    """RecBole's atomic files, NAME.inter and, if they are there, NAME.user and NAME.item, of a folder or zip."""
    files = Files(path)
    found = files.ending(".inter")
    if len(found) != 1:
        raise DataError(f"This source must hold one .inter file. Received: {path} with {', '.join(found) or 'none'}.")
    stem = found[0].removesuffix(".gz").removesuffix("inter")
    tables = {end: Table(files.table(stem + end), "\t") for end in ("inter", "user", "item") if files.find(stem + end)}
    return to_dataset(
        "recbole",
        read_interactions(tables["inter"], {}, min_value is not None),
        min_value,
        min_interactions,
        read_users(tables["user"]) if "user" in tables else None,
        read_items(tables["item"]) if "item" in tables else None,
    )


def _first_values(table: Table, columns: Columns, client: str) -> Users:
    """What a column of interactions says of each user in their first line; a warning if others say something else."""
    rows = table.rows()
    if columns.header:
        next(rows)
    value: dict[str, str] = {}
    several = {}
    for _, row in rows:
        who, what = (row[columns.at[role]].strip() for role in ("user", "client"))
        if value.setdefault(who, what) != what:
            several[who] = what
    for who, what in list(several.items())[:1]:
        log.warning(
            "warning: %d of %d users have several values of %s, such as %s with %r and %r; the first counts",
            *(len(several), len(value), client, who, value[who], what),
        )
    return Users(checked_ids(list(value), table.file.name), {client: np.array(list(value.values()), np.str_)})


def separator_of(text: str) -> str:
    r"""As it is written on a command line: ``tab`` and ``\t`` are one."""
    return "\t" if text in ("tab", "\\t") else text


def read_users(table: Table, given: Mapping[str, str] | None = None) -> Users:
    """Read a table of users with a header: all columns beside the ids. DataError, with the line, if it is none."""
    at = columns_of(table.first, given or {}, ("user",), ("user",), table.file.name).at["user"]
    columns = _columns(table)
    names = [name.split(":")[0].strip() for name in table.first]
    own = {name: np.array(column, np.str_) for n, (name, column) in enumerate(zip(names, columns)) if n != at}
    return Users(checked_ids(columns[at], table.file.name), own)


def read_items(table: Table, given: Mapping[str, str] | None = None, separator: str = "") -> Items:
    """Read a table of items with a header: ids, titles and tags. DataError, with the line, if it is none.

    Args:
        table: where they are; other columns are left alone.
        given: columns by role, as in `columns_of`.
        separator: between tags; '' for the first of ``|``, ``;`` and ``,`` that occurs. RecBole's are apart by a blank.
    """
    at = dict(columns_of(table.first, given or {}, ("item", "title", "tags"), ("item",), table.file.name).at)
    sequences = [n for n, name in enumerate(table.first) if name.endswith(":token_seq")]
    if sequences and table.first[at.get("tags", sequences[0])].endswith(":token_seq"):
        at.setdefault("tags", sequences[0])
        separator = separator or " "
    log.info(
        "columns of %s: %s",
        table.file.name.rpartition("/")[2],
        ",".join(f"{k}={table.first[n]}" for k, n in at.items()),
    )
    columns = _columns(table)
    blank = [""] * len(columns[0])
    tags = columns[at["tags"]] if "tags" in at else blank
    separator = separator or next((each for each in "|;," if any(each in text for text in tags)), "|")
    joined = ["|".join(tag.strip() for tag in text.split(separator) if tag.strip()) for text in tags]
    return Items(
        checked_ids(columns[at["item"]], table.file.name), columns[at["title"]] if "title" in at else blank, joined
    )


def _columns(table: Table) -> list[list[str]]:
    """The texts of each column, without the header."""
    rows = table.rows()
    next(rows)
    kept = []
    for line, row in rows:
        if len(row) != len(table.first):
            raise DataError(
                f"{table.file.name}, line {line}: a line must have {len(table.first)} fields separated by "
                f"{table.separator!r}. Received {len(row)}: {table.separator.join(row)[:60]!r}. Correct the line."
            )
        kept.append([text.strip() for text in row])
    return [list(column) for column in zip(*kept)] if kept else [[] for _ in table.first]
