"""Data that somebody else has split: PaddleRec's CSVs, and the NCF paper's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fl_rec.data.rows import MAX_IDS
from fl_rec.data.sampling import read_test_rows
from fl_rec.data.sources.archive import Files
from fl_rec.data.sources.base import Dataset, Items
from fl_rec.data.text import parse_csv_rows, parse_table
from fl_rec.errors import DataError
from fl_rec.files import read_bytes

# Training and test rows; each is one of these names.
PADDLEREC_FILES = (("big_train/train_data.csv", "train_data.csv"), ("big_test/test_data.csv", "test_data.csv"))


_RENUMBER = "Number users and items from 0 up without wide gaps."


def paddlerec(seed: int, *, path: Path) -> Dataset:
    """Keep the rows, negatives included, as they are, but a user's test rows together, positive first."""
    files = Files(path)
    train_name, test_name = (files.find(*names) or names[0] for names in PADDLEREC_FILES)
    train_rows = parse_csv_rows(files.read(train_name), files.where(train_name))
    test_rows = parse_csv_rows(files.read(test_name), files.where(test_name))
    test_rows = test_rows[np.lexsort((1 - test_rows[:, 2], test_rows[:, 0]))]
    users, positives = test_rows[:, 0], test_rows[test_rows[:, 2] == 1]
    _require_one_test_item(files.where(test_name), np.unique(users), positives[:, 0])
    both = np.concatenate([train_rows, test_rows])
    train = train_rows[train_rows[:, 2] == 1, :2]
    return _without_catalogue("paddlerec", train, positives[:, :2], both[:, :2], train_rows, test_rows)


def ncf_prefix(path: Path) -> Path:
    """Return what stands before ``.train.rating``: the one prefix found in a folder, or ``path`` itself."""
    found = sorted({p.name.split(".train.rating")[0] for p in path.glob("*.train.rating*")})
    if len(found) > 1:
        raise DataError(
            f"A folder must hold one data set. Received: {path} with {', '.join(found)}. "
            f"Give the prefix, such as --source {path / found[0]}."
        )
    return path / found[0] if found else path


def ncf_files(prefix: Path) -> dict[str, Path]:
    """Return the paper's files by kind, plain or gzip; none unless both rating files are there."""
    files = {}
    for kind in ("test.negative", "test.rating", "train.rating"):
        for ending in (kind + ".gz", kind):
            path = prefix.with_name(f"{prefix.name}.{ending}")
            if path.is_file():
                files[kind] = path
    return files if {"train.rating", "test.rating"} <= files.keys() else {}


def ncf(seed: int, *, path: Path) -> Dataset:
    """The NCF paper's files, by their folder or their path up to ``.train.rating``."""
    files = ncf_files(ncf_prefix(path))
    if not files:
        raise DataError(f"This source must hold .train.rating and .test.rating. Received: {path}, which does not.")
    train, test = _read_pairs(files["train.rating"]), _read_pairs(files["test.rating"])
    test = test[np.argsort(test[:, 0], kind="stable")]
    _require_one_test_item(str(files["test.rating"]), np.unique(test[:, 0]), test[:, 0])
    test_rows = None
    seen = np.concatenate([train, test])
    if "test.negative" in files:
        test_rows = read_test_rows(files["test.negative"], test, num_items=MAX_IDS)
        seen = np.concatenate([seen, test_rows[:, :2]])
    return _without_catalogue("ncf", train, test, seen, None, test_rows)


def _read_pairs(path: Path) -> np.ndarray:
    content = read_bytes(path)
    columns = content.split(b"\n", 1)[0].count(b"\t") + 1
    if columns < 2:
        raise DataError(f"{path}, line 1: a line must have a user and an item, separated by a tab. Received one field.")
    return parse_table(content, columns, b"\t", str(path))[:, :2]


def _require_one_test_item(name: str, users: np.ndarray, positives: np.ndarray) -> None:
    if users[-1] >= MAX_IDS:
        raise DataError(f"{name}: a user id must be below {MAX_IDS}. Received: {users[-1]}. {_RENUMBER}")
    counts = np.bincount(positives, minlength=int(users[-1]) + 1)[users]
    if (counts != 1).any():
        worst = int(np.argmax(counts != 1))
        raise DataError(
            f"{name}: a tested user must have exactly one positive. Received {counts[worst]} for user "
            f"{users[worst]}. Use a leave-one-out test set."
        )


def _without_catalogue(
    kind: str,
    train: np.ndarray,
    test: np.ndarray,
    pairs: np.ndarray,
    train_rows: np.ndarray | None,
    test_rows: np.ndarray | None,
) -> Dataset:
    """Build a data set whose users are numbered by UserID - 1, and of whose items only the ids are known."""
    num_users, num_items = (int(n) + 1 for n in pairs.max(axis=0))
    if max(num_users, num_items) > MAX_IDS:
        raise DataError(
            f"A user or item id must be below {MAX_IDS}. Received: {max(num_users, num_items) - 1}. {_RENUMBER}"
        )
    return Dataset(
        kind=kind,
        train=train[np.argsort(train[:, 0], kind="stable")],
        test=test,
        original_user=np.arange(num_users) + 1,
        items=Items(np.arange(num_items), [""] * num_items, [""] * num_items),
        train_rows=train_rows,
        test_rows=test_rows,
    )
