"""MovieLens: 1M and 10M (.dat), 100K (u.data), 20M, 25M, 32M and latest (.csv), each a table with known columns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fl_rec.data.ids import checked_ids
from fl_rec.data.partition import Dealt, Policy, UserTable, place
from fl_rec.data.sources.archive import Files, table_file
from fl_rec.data.sources.base import Dataset, Items, Users
from fl_rec.data.sources.interactions import read_interactions, to_dataset
from fl_rec.data.sources.tables import Table
from fl_rec.errors import ConfigError, DataError
from fl_rec.typed import PositiveInt

_NUMBERS = {"user": "1", "item": "2", "value": "3", "time": "4"}
_NAMES = {"user": "userId", "item": "movieId", "value": "rating", "time": "timestamp"}
# Files of users, their separator and their columns after the id.
_USERS = {
    "users.dat": ("::", ("gender", "age", "occupation", "zip_code")),
    "u.user": ("|", ("age", "gender", "occupation", "zip_code")),
}
_NO_GENRES = "(no genres listed)"


def movielens_dat(
    seed: int, *, path: Path, min_value: float | None = None, min_interactions: PositiveInt = 1
) -> Dataset:
    """ratings.dat, and users.dat and movies.dat if they are there, of ``path``, a folder or zip: 1M and 10M."""
    files = Files(path)
    read = read_interactions(Table(files.table("ratings.dat"), "::"), _NUMBERS, min_value is not None)
    with_users = bool(files.find("users.dat"))
    users = users_of(Table(files.table("users.dat"), "::"), "users.dat") if with_users else None
    rows = _rows(files, "movies.dat", "::", 3)
    kind = "ml-1m" if with_users else "ml-10m"
    return to_dataset(kind, read, min_value, min_interactions, users, _movies([(r[0], r[1], r[2]) for r in rows]))


def movielens_100k(
    seed: int, *, path: Path, min_value: float | None = None, min_interactions: PositiveInt = 1
) -> Dataset:
    """u.data, and u.user, u.item and u.genre if they are there, of ``path``, a folder or zip."""
    files = Files(path)
    read = read_interactions(Table(files.table("u.data"), "\t"), _NUMBERS, min_value is not None)
    users = users_of(Table(files.table("u.user"), "|"), "u.user") if files.find("u.user") else None
    names = [row[0] for row in _rows(files, "u.genre", "|", 2)]
    movies = [
        (row[0], row[1], "|".join(name for name, flag in zip(names, row[5:]) if flag == "1"))
        for row in _rows(files, "u.item", "|", 5)
    ]
    return to_dataset("ml-100k", read, min_value, min_interactions, users, _movies(movies))


def movielens_csv(
    seed: int, *, path: Path, min_value: float | None = None, min_interactions: PositiveInt = 1
) -> Dataset:
    """ratings.csv, and movies.csv if it is there, of ``path``, a folder or zip: 20M, 25M, 32M, latest."""
    files = Files(path)
    read = read_interactions(Table(files.table("ratings.csv"), ","), _NAMES, min_value is not None)
    movies = [(row[0], row[1], row[2]) for row in _rows(files, "movies.csv", ",", 3)[1:]]
    return to_dataset("movielens", read, min_value, min_interactions, None, _movies(movies))


def read_movielens_users(path: Path) -> Users | None:
    """Users of a ``users.dat`` or ``u.user`` file; None if the file is called otherwise."""
    name = path.name.removesuffix(".gz")
    return users_of(Table(table_file(path), _USERS[name][0]), name) if name in _USERS else None


def users_of(table: Table, name: str) -> Users:
    """Users of a table in the layout of a file of this name."""
    names = _USERS[name][1]
    rows = _checked(table, 1 + len(names))
    columns = [np.array(column, np.str_) for column in zip(*rows)]
    return Users(
        checked_ids([row[0] for row in rows], table.file.name), dict(zip(names, columns[1:])), "zip_first_digit"
    )


def _movies(rows: list[tuple[str, str, str]]) -> Items:
    tags = ["" if genres == _NO_GENRES else genres for _, _, genres in rows]
    return Items(checked_ids([row[0] for row in rows], "movies"), [row[1] for row in rows], tags)


def _rows(files: Files, name: str, separator: str, least: int) -> list[list[str]]:
    return _checked(Table(files.table(name), separator), least) if files.find(name) else []


def _checked(table: Table, least: int) -> list[list[str]]:
    """All rows. DataError, with the line, if one has fewer fields."""
    kept = []
    for line, row in table.rows():
        if len(row) < least:
            raise DataError(
                f"{table.file.name}, line {line}: a line must have at least {least} fields separated by "
                f"{table.separator!r}. Received: {table.separator.join(row)[:60]!r}. Correct the line."
            )
        kept.append([text.strip() for text in row])
    return kept


def zip_first_digit(
    users: UserTable, num_shards: int, rng: np.random.Generator, *, bad_zip: Policy = "spread"
) -> Dealt:
    """Shard by region: ``digit * num_shards // 10`` of the zip code's first digit, so at most 10 shards.

    ``bad_zip`` is for zip codes that don't start with a digit; see `place`.
    """
    if num_shards > 10:
        raise ConfigError(
            f"zip_first_digit fills at most 10 shards, one per digit. Received: num_shards={num_shards}. "
            "Use --num_shards 10 or less, or --partitioner iid."
        )
    zip_code = users.column("zip_code")
    first = zip_code.astype("U1")
    good = np.isin(first, list("0123456789"))  # other digits of Unicode are none of a zip code
    shard: np.ndarray = np.full(len(users), -1)
    shard[good] = first[good].astype(np.int64) * num_shards // 10
    dealt = place(
        *(users, num_shards, shard, bad_zip),
        rule="a zip code {} start with a digit",
        others=f"have another (user {np.argmin(good)} has {str(zip_code[np.argmin(good)])!r})",
        option="zip_first_digit:bad_zip",
    )
    digits = [[str(digit) for digit in range(10) if digit * num_shards // 10 == k] for k in range(num_shards)]
    return dataclasses.replace(dealt, clients=[f"zip {', '.join(each)}" for each in digits])
