"""What a source of data is made of: the `Dataset` that it returns, the `Files` that it reads, and how interactions are
numbered and split.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.data.ids import rows_of
from fl_rec.data.partition import UserTable
from fl_rec.data.sampling import leave_one_out
from fl_rec.data.tags import ItemTags
from fl_rec.errors import DataError
from fl_rec.files import read_bytes

# What is written of every user, beside the columns that a source has of its own.
USER_COLUMNS = ("user", "original_id", "activity", "tag")


@dataclass(frozen=True)
class Users:
    """What a source knows of users: their ids, int64 or str [users], and columns of str [users], '' where unknown.

    ``partitioner`` is how `fl-rec partition` cuts by it unless told.
    """

    original_id: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    partitioner: str = "iid"


@dataclass(frozen=True)
class Items:
    """A catalogue: the source's own ids, int64 or str [items], titles ('' if unknown), and tags joined with ``|``."""

    original_id: np.ndarray
    title: list[str]
    tags: list[str]


@dataclass(frozen=True)
class Dataset:
    """Interactions, split, before any negative is sampled.

    ``train`` [n, 2] and ``test`` [m, 2], int32 or int64, hold positives (user, item), by user; ``test`` has at
    most one per user. ``train_rows`` and ``test_rows``, int64 [rows, 3] of (user, item, label), are set when
    the source comes with negatives. ``original_user`` has the source's own ids, int64 or str [users], and
    ``user_columns`` what else it knows of users, str [users] by name, '' where unknown. ``partitioner`` is what
    `fl-rec partition` cuts by unless told. ``notes`` go to meta.json.

    Raises:
        DataError: a column of users has one of the names `USER_COLUMNS`.
    """

    kind: str
    train: np.ndarray
    test: np.ndarray
    original_user: np.ndarray
    items: Items
    user_columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    train_rows: np.ndarray | None = None
    test_rows: np.ndarray | None = None
    partitioner: str = "iid"
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = [name for name in self.user_columns if name in USER_COLUMNS]
        if taken:
            raise DataError(
                f"A column of users must have a name of its own, and none of {', '.join(USER_COLUMNS)}. Received: "
                f"{', '.join(taken)}. Rename the column."
            )

    @property
    def num_users(self) -> int:
        return len(self.original_user)

    @property
    def num_items(self) -> int:
        return len(self.items.original_id)

    def user_table(self) -> UserTable:
        """Return what partitioners see: the tag is the most frequent one among a user's training items."""
        tags = ItemTags.of(self.items.tags)
        counts = tags.counts(self.train[:, 0], self.train[:, 1], self.num_users)
        # A column of zeros comes first, so that argmax gives the empty name to a user without any known tag.
        most = np.insert(counts, 0, 0, axis=1).argmax(axis=1)
        return UserTable(
            user=np.arange(self.num_users),
            activity=np.bincount(self.train[:, 0], minlength=self.num_users),
            columns=self.user_columns,
            tag=np.array(["", *tags.names])[most],
            positives=lambda: self.train,
            item_tags=tags,
        )


class Files:
    """A folder's or zip's files, at the top or one folder down (archives wrap theirs in a folder)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if not path.is_dir():
            try:
                self._zip = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as err:
                raise DataError(
                    f"--source must be a folder or a zip. Received: {path} ({err}). Download it again."
                ) from err

    def find(self, *names: str) -> str:
        """Return the path inside of the first of these files that is there, '' if none is."""
        return next((found for name in names for found in self._all(name)), "")

    def where(self, name: str) -> str:
        return str(self.path / self.find(name))

    def read(self, name: str) -> bytes:
        """Return a file's content. DataError if there is none, or it can't be read."""
        if not self.find(name):
            raise DataError(f"This source must hold {name}. Received: {self.path}, which does not.")
        if self._zip is None:
            return read_bytes(self.path / self.find(name))
        try:
            content = self._zip.read(self.find(name))
        # The last is what zipfile raises for a compression that it does not know.
        except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as err:
            raise DataError(
                f"A zip member must be readable. Received: {self.where(name)} ({err}). Download the archive again."
            ) from err
        if not content.strip():
            raise DataError(f"A data file must hold at least one row. Received: {self.where(name)}, which is empty.")
        return content

    def fields(self, name: str, separator: str, least: int) -> list[list[str]]:
        """Return `split_fields` of the file, [] if there is none."""
        if not self.find(name):
            return []
        return split_fields(self.read(name), separator, least, self.where(name))

    def _all(self, name: str) -> list[str]:
        """Return the paths inside of the files of this name, the least deep first."""
        if self._zip is None:
            found = [self.path / name, *sorted(self.path.glob(f"*/{name}"))]
            return [path.relative_to(self.path).as_posix() for path in found if path.is_file()]
        deepest = name.count("/") + 1
        inside = [n for n in self._zip.namelist() if n == name or n.endswith("/" + name)]
        return sorted((n for n in inside if n.count("/") <= deepest), key=lambda n: (n.count("/"), n))


def split_fields(content: bytes, separator: str, least: int, name: str) -> list[list[str]]:
    """Split lines into at least ``least`` fields, the first a whole number. DataError has the line number."""
    lines = content.decode("latin-1").split("\n")  # what older MovieLens files are written in
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = [text.strip() for text in line.split(separator)]
        if len(row) < least or not (row[0].isascii() and row[0].isdigit()):
            raise DataError(
                f"{name}, line {number}: a line must start with a whole number and have at least {least} "
                f"fields separated by {separator!r}. Received: {line[:60]!r}. Correct the line."
            )
        rows.append(row)
    return rows


def with_users(dataset: Dataset, users: Users) -> Dataset:
    """Return the data set with these columns of its users instead of its own, looked up by the source's ids."""
    at = rows_of(dataset.original_user, users.original_id)  # -1, the last, is unknown
    columns = {name: np.append(column, "")[at] for name, column in users.columns.items()}
    return dataclasses.replace(dataset, user_columns=columns, partitioner=users.partitioner)


def with_items(dataset: Dataset, items: Items) -> Dataset:
    """Return the data set with these titles and tags instead of its own, looked up by the source's ids."""
    at = rows_of(dataset.items.original_id, items.original_id).tolist()
    title, tags = ([texts[n] for n in at] for texts in ([*items.title, ""], [*items.tags, ""]))
    return dataclasses.replace(dataset, items=Items(dataset.items.original_id, title, tags))


def from_interactions(
    kind: str,
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray | None = None,
    users: Users | None = None,
    items: Items | None = None,
) -> Dataset:
    """Number users and items, drop repeated pairs, and split each user's latest interaction off.

    Ids become 0-based: an item's is its order of first appearance, a user's is the rank of its original id (numbers by
    value, texts by code point), which is UserID - 1 when none is missing.

    Args:
        kind: a word for meta.json, such as "ml-1m".
        user, item: the source's own ids, whole numbers or str [n].
        time: [n], higher is later; without it the later line is the later one.
        users: what is known of users, in any order; it may have others, and lack some.
        items: titles and tags, likewise.

    Raises:
        DataError: the arrays are not so, or empty.
    """
    user, item = (np.asarray(each) for each in (user, item))
    time = np.arange(len(user)) if time is None else np.asarray(time)
    known = all(each.dtype.kind in "iuU" for each in (user, item))
    if not (known and user.ndim == 1 and len(user) and user.shape == item.shape == time.shape):
        received = ", ".join(f"{each.dtype} {list(each.shape)}" for each in (user, item, time))
        raise DataError(
            "Interactions must be users and items, whole numbers or texts, and times, of one length of at least 1. "
            f"Received: {received}."
        )
    original_user, user = np.unique(user, return_inverse=True)
    by_value, first, rank = np.unique(item, return_index=True, return_inverse=True)
    appearance = np.argsort(first)
    original_item = by_value[appearance]
    item = np.argsort(appearance)[rank]
    # Of a repeated pair the latest counts: np.unique keeps the first it meets, so latest first.
    latest_first = np.lexsort((time, user))[::-1]
    keys = user[latest_first] * len(original_item) + item[latest_first]
    kept = np.sort(latest_first[np.unique(keys, return_index=True)[1]])
    pairs = np.stack([user, item], axis=1)[kept].astype(np.int32)
    train, test = leave_one_out(pairs[:, 0], time[kept])
    blank = [""] * len(original_item)
    dataset = Dataset(
        kind=kind,
        train=pairs[train],
        test=pairs[test],
        original_user=original_user,
        items=Items(original_item, blank, blank),
        notes={
            "repeated_ratings_dropped": len(user) - len(kept),
            "users_without_test_item": len(original_user) - len(test),
        },
    )
    dataset = dataset if users is None else with_users(dataset, users)
    return dataset if items is None else with_items(dataset, items)
