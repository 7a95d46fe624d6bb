"""MovieLens 1M and 100K."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fl_rec.data.partition import Dealt, Policy, UserTable, place
from fl_rec.data.sources.base import Dataset, Files, Items, Users, from_interactions, split_fields
from fl_rec.data.text import parse_table
from fl_rec.errors import ConfigError
from fl_rec.files import read_bytes


def movielens_1m(seed: int, *, path: Path) -> Dataset:
    """ratings.dat, users.dat and movies.dat of ``path``, a folder or zip."""
    files = Files(path)
    # One-byte separators parse fast; a stray comma or colon in a line still shows as a wrong number of
    # fields.
    ratings = parse_table(files.read("ratings.dat").replace(b"::", b","), 4, b",", files.where("ratings.dat"))
    users = _users(files.fields("users.dat", "::", 5))
    movies = _movies([(row[0], row[1], row[2]) for row in files.fields("movies.dat", "::", 3)])
    return from_interactions("ml-1m", ratings[:, 0], ratings[:, 1], ratings[:, 3], users, movies)


def movielens_100k(seed: int, *, path: Path) -> Dataset:
    """u.data, u.user, u.item and u.genre of ``path``, a folder or zip."""
    files = Files(path)
    ratings = parse_table(files.read("u.data"), 4, b"\t", files.where("u.data"))
    users = _users(files.fields("u.user", "|", 5))
    names = []
    if files.find("u.genre"):
        names = [line.split("|")[0] for line in files.read("u.genre").decode("latin-1").split()]
    movies = _movies(
        [
            (row[0], row[1], "|".join(name for name, flag in zip(names, row[5:]) if flag == "1"))
            for row in files.fields("u.item", "|", 5)
        ]
    )
    return from_interactions("ml-100k", ratings[:, 0], ratings[:, 1], ratings[:, 3], users, movies)


def read_users(path: Path) -> Users:
    """Zip codes of a ``users.dat`` or ``u.user`` file."""
    content = read_bytes(path)
    return _users(split_fields(content, "::" if b"::" in content else "|", 5, str(path)))


def _users(rows: list[list[str]]) -> Users:
    zip_code = np.array([row[4] for row in rows], np.str_)
    return Users(np.array([int(row[0]) for row in rows], np.int64), {"zip_code": zip_code}, "zip_first_digit")


def _movies(rows: list[tuple[str, str, str]]) -> Items:
    ids, titles, genres = zip(*rows) if rows else ((), (), ())
    return Items(np.array([int(each) for each in ids], np.int64), list(titles), list(genres))


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
