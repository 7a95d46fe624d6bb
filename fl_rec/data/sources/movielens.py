"""MovieLens 1M and 100K."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fl_rec.data.sources.base import Dataset, Files, from_interactions, split_fields
from fl_rec.data.text import parse_table
from fl_rec.files import read_bytes


def movielens_1m(seed: int, *, path: Path) -> Dataset:
    """ratings.dat, users.dat and movies.dat of ``path``, a folder or zip."""
    files = Files(path)
    # One-byte separators parse fast; a stray comma or colon in a line still shows as a wrong number of
    # fields.
    ratings = parse_table(files.read("ratings.dat").replace(b"::", b","), 4, b",", files.where("ratings.dat"))
    users = {int(row[0]): row[4] for row in files.fields("users.dat", "::", 5)}
    movies = {int(row[0]): (row[1], row[2]) for row in files.fields("movies.dat", "::", 3)}
    return from_interactions("ml-1m", ratings[:, 0], ratings[:, 1], ratings[:, 3], users, movies)


def movielens_100k(seed: int, *, path: Path) -> Dataset:
    """u.data, u.user, u.item and u.genre of ``path``, a folder or zip."""
    files = Files(path)
    ratings = parse_table(files.read("u.data"), 4, b"\t", files.where("u.data"))
    users = {int(row[0]): row[4] for row in files.fields("u.user", "|", 5)}
    names = []
    if files.find("u.genre"):
        names = [line.split("|")[0] for line in files.read("u.genre").decode("latin-1").split()]
    movies = {}
    for row in files.fields("u.item", "|", 5):
        movies[int(row[0])] = (row[1], "|".join(name for name, flag in zip(names, row[5:]) if flag == "1"))
    return from_interactions("ml-100k", ratings[:, 0], ratings[:, 1], ratings[:, 3], users, movies)


def with_zip_codes(dataset: Dataset, path: Path) -> Dataset:
    """Return the data set with the zip codes of a ``users.dat`` or ``u.user`` file, looked up by UserID."""
    content = read_bytes(path)
    rows = split_fields(content, "::" if b"::" in content else "|", 5, str(path))
    zip_codes = {int(row[0]): row[4] for row in rows}
    return dataclasses.replace(
        dataset, zip_code=np.array([zip_codes.get(n, "") for n in dataset.original_user.tolist()])
    )
