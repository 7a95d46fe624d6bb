"""Sources of data: tables, archives, and data that others have split."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np

from fl_rec.data import catalogue
from fl_rec.data.sources.archive import table_file
from fl_rec.data.sources.base import Dataset, from_interactions, with_items, with_users
from fl_rec.data.sources.movielens import read_movielens_users
from fl_rec.data.sources.registry import load_source
from fl_rec.data.sources.tables import Table
from fl_rec.data.sources.tabular import read_items, read_users
from tests.fuzzing.base import (
    ITEMS,
    USERS,
    ids_are_below,
    interactions,
    lines,
    ranked_rows,
    reader,
    sound,
    trained_rows,
)
from tests.fuzzing.mutations import Files


def text_rows(user: str = "u", item: str = "it") -> list[tuple[str, str, float, str]]:
    return [(f"{user}{u}", f"{item} {i}é", r + 0.5, f"2024-05-01 12:{t % 60:02d}:00") for u, i, r, t in interactions()]


def json_lines() -> bytes:
    rows = (
        {"user_id": f"u{u}", "parent_asin": i, "rating": r, "timestamp": t, "n": {}} for u, i, r, t in interactions()
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def archive(files: Files) -> bytes:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


def movielens() -> Files:
    users = [(u, "MF"[u % 2], 25, u, f"{u % 10}1234") for u in range(1, USERS + 1)]
    movies = [(i, f"Movie {i} (1999)", "Drama|War" if i % 2 else "Comedy") for i in range(1, ITEMS + 1)]
    return {
        "ratings.dat": lines("::", interactions()),
        "users.dat": lines("::", users),
        "movies.dat": lines("::", movies),
    }


def movielens_100k() -> Files:
    users = [(u, 24, "M", "artist", f"8{u:04d}") for u in range(1, USERS + 1)]
    movies = [(i, f"Movie {i}", "1-Jan-95", "", "", i % 2, 1) for i in range(1, ITEMS + 1)]
    return {
        "u.data": lines("\t", interactions()),
        "u.user": lines("|", users),
        "u.item": lines("|", movies),
        "u.genre": b"Drama|0\nWar|1\n",
    }


def movielens_csv() -> Files:
    movies = [(i, f'"Movie, {i}"', "Drama|War") for i in range(1, ITEMS + 1)]
    return {
        "ratings.csv": lines(",", interactions(), "userId,movieId,rating,timestamp\n"),
        "movies.csv": lines(",", movies, "movieId,title,genres\n"),
    }


def recbole() -> Files:
    return {
        "x.inter": lines("\t", interactions(), "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"),
        "x.user": lines("\t", ((u, 20) for u in range(1, USERS)), "user_id:token\tage:float\n"),
        "x.item": lines("\t", ((i, "a b") for i in range(1, ITEMS)), "item_id:token\tclass:token_seq\n"),
    }


def paddlerec() -> Files:
    return {"train_data.csv": lines(",", trained_rows()), "test_data.csv": lines(",", ranked_rows())}


def ncf() -> Files:
    negatives = [(f"({u},{u})", *((u + 1 + n) % 200 for n in range(99))) for u in range(USERS)]
    return {
        "ml.train.rating": lines("\t", ((u, i, 4, 1) for u, i, label in trained_rows() if label)),
        "ml.test.rating": lines("\t", ((u, u, 4, 1) for u in range(USERS))),
        "ml.test.negative": lines("\t", negatives),
    }


def dataset_is_sound(dataset: Dataset, folder: Path) -> None:
    """Ids within sizes, no two users or items the same, and all of it written and read back."""
    users, items = len(dataset.original_user), len(dataset.items.original_id)
    for name in ("train", "test"):
        pairs = getattr(dataset, name)
        sound(pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype.kind == "i", f"{name} is {pairs.dtype}")
        ids_are_below(pairs[:, 0], users, f"{name} users")
        ids_are_below(pairs[:, 1], items, f"{name} items")
    for rows in filter(lambda rows: rows is not None, (dataset.train_rows, dataset.test_rows)):
        ids_are_below(rows[:, 0], users, "users of rows")
        ids_are_below(rows[:, 1], items, "items of rows")
        sound(np.isin(rows[:, 2], (0, 1)).all(), "labels of rows")
    sound(len(dataset.train) > 0, "no training row")
    for ids in (dataset.original_user, dataset.items.original_id):
        texts = [str(each) for each in ids.tolist()]
        sound(len(set(texts)) == len(texts), "two of one id")
        sound("" not in texts, "an id without text")
        sound("nan" not in (each.lower() for each in texts), "NaN is an id")
    sound(len(dataset.items.title) == len(dataset.items.tags) == items, "titles of items")
    catalogue.write_users(folder / "out" / "users.csv", dataset)
    catalogue.write_items(folder / "out" / "items.csv", dataset.items)
    sound(
        list(map(str, catalogue.read_original_users(folder / "out" / "users.csv")[1]))
        == list(map(str, dataset.original_user)),
        "users' ids are not what is read back",
    )
    sound(catalogue.read_items(folder / "out" / "items.csv").title == list(dataset.items.title), "titles read back")


def same_pairs(dataset: Dataset, text: bytes, separator: str, header: bool, at: tuple[int, int]) -> None:
    """Of a plain file every pair is there; `csv` does not see it so, or nothing is odd about it."""
    try:
        decoded = text.decode("ascii")
    except UnicodeDecodeError:
        return
    if re.search(r'["\r\x00-\x08\x0b-\x1f]', decoded):
        return
    rows = [line.split(separator) for line in decoded.split("\n") if line.strip()]
    width = len(rows[0])
    for row in rows:
        sound(len(row) == width, f"a line of {len(row)} fields, not {width}")
    found = {(row[at[0]].strip(), row[at[1]].strip()) for row in rows[header:]}
    users, items = dataset.original_user, dataset.items.original_id
    pairs = np.concatenate([dataset.train, dataset.test])
    sound({(str(users[u]), str(items[i])) for u, i in pairs.tolist()} == found, "other pairs than in the file")


def of_source(folder: Path, name: str = "", **options: str) -> Dataset:
    dataset = load_source(str(folder / name) if name else str(folder), 1, options)
    dataset_is_sound(dataset, folder)
    return dataset


@reader(lambda: {"t.csv": lines(",", interactions(), "user_id,item_id,rating,timestamp\n")}, 8)
def table_csv(folder: Path) -> None:
    dataset = of_source(folder, "t.csv")
    if (folder / "t.csv").read_bytes()[:2] != b"\x1f\x8b":
        same_pairs(dataset, (folder / "t.csv").read_bytes(), ",", True, (0, 1))


@reader(lambda: {"t.tsv": lines("\t", text_rows(), "user\titem\tscore\tdate\n")}, 8)
def table_tsv(folder: Path) -> None:
    of_source(folder, "t.tsv", min_value="2", min_interactions="2")


@reader(lambda: {"t.jsonl": json_lines()}, 8)
def table_json(folder: Path) -> None:
    of_source(folder, "t.jsonl", min_value="1")


@reader(lambda: {"t.zip": archive({"a/t.csv": lines(",", interactions(), "user,item,rating,time\n")})})
def table_zip(folder: Path) -> None:
    of_source(folder, "t.zip")


def parquet() -> Files:
    import pyarrow as pa
    from pyarrow import parquet

    user, item, rating, time = zip(*interactions())
    files: Files = {}
    for name, users in (
        ("n.parquet", list(user)),
        ("t.parquet", [f"u{u}" for u in user]),
        ("f.parquet", [u / 1 for u in user]),
    ):
        out = io.BytesIO()
        parquet.write_table(
            pa.table({"user": users, "item": list(item), "rating": list(rating), "time": list(time)}), out
        )
        files[name] = out.getvalue()
    return files


def table_parquet(folder: Path) -> None:
    for path in sorted(folder.glob("*.parquet")):
        of_source(folder, path.name, min_value="1")


try:
    import pyarrow  # noqa: F401
except ImportError:
    pass
else:
    reader(parquet)(table_parquet)

for _name, _corpus in (
    ("movielens_1m", movielens),
    ("movielens_100k", movielens_100k),
    ("movielens_csv", movielens_csv),
    ("recbole", recbole),
    ("paddlerec", paddlerec),
    ("ncf", ncf),
):
    reader(_corpus, 3, name=_name)(lambda folder: of_source(folder) and None)


def tables() -> Files:
    return {
        "users.csv": lines(",", ((u, 20 + u, f'"a, {u}"') for u in range(1, USERS + 1)), "user,age,city\n"),
        "users.dat": movielens()["users.dat"],
        "items.json": "".join(
            json.dumps({"item": i, "title": f"T {i}", "tags": ["a", "b"]}) + "\n" for i in range(1, ITEMS + 1)
        ).encode(),
    }


@reader(tables, 6)
def tables_of_users_and_items(folder: Path) -> None:
    pairs = np.array([(u, i) for u, i, _, _ in interactions()])
    dataset = from_interactions("x", pairs[:, 0], pairs[:, 1])
    for name in ("users.csv", "users.dat"):
        file = folder / name
        users = read_movielens_users(file) or read_users(Table(table_file(file)))
        sound(all(len(column) == len(users.original_id) for column in users.columns.values()), "columns of users")
        dataset_is_sound(with_users(dataset, users), folder)
    dataset_is_sound(with_items(dataset, read_items(Table(table_file(folder / "items.json")))), folder)
