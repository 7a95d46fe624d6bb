"""What a source of data is made of: the `Dataset` that it returns, and how interactions are numbered and split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fl_rec.data.ids import rows_of
from fl_rec.data.partition import UserTable
from fl_rec.data.rows import MAX_IDS, Sizes, check_table
from fl_rec.data.tags import ItemTags
from fl_rec.errors import DataError

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
        DataError: a column of users has one of the names `USER_COLUMNS`; ids are not below the numbers of users and
            items, which have an id of their own each, or labels are neither 0 nor 1; or there is nothing to train.
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
        sizes = Sizes(self.num_users, self.num_items)
        for name, pairs, rows in (("training", self.train, self.train_rows), ("test", self.test, self.test_rows)):
            check_table(pairs, 2, sizes, f"the {name} positives of {self.kind}")
            if rows is not None:
                check_table(rows, 3, sizes, f"the {name} rows of {self.kind}")
        if not len(self.train):
            raise DataError(
                f"A data set must have a training row of label 1. Received: {self.kind}, without any. Add some."
            )
        for name, size in (("users", self.num_users), ("items", self.num_items)):
            if size > MAX_IDS:
                raise DataError(f"A data set may have {MAX_IDS:,} {name}. Received: {size:,}. Leave some out.")

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


def with_users(dataset: Dataset, users: Users) -> Dataset:
    """Return the data set with these columns of its users beside its own, looked up by the source's ids."""
    at = rows_of(dataset.original_user, users.original_id)  # -1, the last, is unknown
    columns = {name: np.append(column, "")[at] for name, column in users.columns.items()}
    columns = {**dataset.user_columns, **columns}
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
    known = all(each.dtype.kind in "iuU" for each in (user, item))
    times = user if time is None else np.asarray(time)
    if not (known and user.ndim == 1 and len(user) and user.shape == item.shape == times.shape):
        received = ", ".join(f"{each.dtype} {list(each.shape)}" for each in (user, item, times))
        raise DataError(
            "Interactions must be users and items, whole numbers or texts, and times, of one length of at least 1. "
            f"Received: {received}."
        )
    original_user, user = factorize(user)
    original_item, item = factorize(item)
    appearance = _by_appearance(item, len(original_item))
    original_item, item = original_item[appearance], _inverse(appearance)[item]
    order = np.argsort(user, kind="stable") if time is None else _by_user_and_time(user, times)
    user, item = user[order], item[order]
    del order
    latest = _latest(user, item, len(original_item))
    repeated = len(user) - int(latest.sum())
    if repeated:
        user, item = user[latest], item[latest]
    del latest
    # The last of each user's is tested, unless it is the only one: nobody could be tested who was never trained.
    last = np.append(user[1:] != user[:-1], True)
    test = last & ~np.insert(last[:-1], 0, True)
    blank = [""] * len(original_item)
    dataset = Dataset(
        kind=kind,
        train=np.stack([user[~test], item[~test]], axis=1),
        test=np.stack([user[test], item[test]], axis=1),
        original_user=original_user,
        items=Items(original_item, blank, blank),
        notes={
            "repeated_interactions_dropped": repeated,
            "users_without_test_item": len(original_user) - int(test.sum()),
        },
    )
    dataset = dataset if users is None else with_users(dataset, users)
    return dataset if items is None else with_items(dataset, items)


def factorize(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different ids in order, [k], and which of them each is, int32 [n]."""
    if ids.dtype.kind in "iu" and ids.min() >= 0 and ids.max() < 2 * len(ids):
        # Of small numbers a table is enough, and sorting 32 million takes seconds.
        there: np.ndarray = np.zeros(int(ids.max()) + 1, bool)
        there[ids] = True
        rank = np.cumsum(there, dtype=np.int32) - np.int32(1)
        return np.flatnonzero(there), rank[ids]
    known, which = np.unique(ids, return_inverse=True)
    return known, which.astype(np.int32)


def _by_appearance(item: np.ndarray, count: int) -> np.ndarray:
    """Items in the order in which they first appear, [count]."""
    first = np.empty(count, np.int64)
    first[item[::-1]] = np.arange(len(item))[::-1]  # of several, the last that is written stays
    return np.argsort(first)


def _inverse(order: np.ndarray) -> np.ndarray:
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank


def _by_user_and_time(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The order by user and then time, of equal times by line."""
    if time.dtype.kind in "iuf" and (time == np.floor(time)).all():
        low = time.min()
        span = float(time.max()) - float(low) + 1
        if span * (float(user.max()) + 1) < 2**53:
            # One sort of whole numbers takes half as long as two.
            keys = user.astype(np.int64) * int(span)
            keys += (time - low).astype(np.int64)
            return np.argsort(keys, kind="stable")
    return np.lexsort((time, user))


def _latest(user: np.ndarray, item: np.ndarray, num_items: int) -> np.ndarray:
    """Which of a user's interactions, in order of time, is the last with its item; bool [n]."""
    keys = user.astype(np.int64) * num_items + item
    ordered = np.sort(keys)
    if (ordered[1:] != ordered[:-1]).all():
        return np.ones(len(keys), bool)
    last: np.ndarray = np.zeros(len(keys), bool)
    last[len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1]] = True
    return last
