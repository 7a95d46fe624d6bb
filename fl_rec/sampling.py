"""Leave-one-out split and sampled negatives: the protocol of the NCF paper (arXiv:1708.05031)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fl_rec.data import parse_table, read_bytes
from fl_rec.errors import ConfigError, DataError

TEST_NEGATIVES = 99


def leave_one_out(user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split each user's latest interaction off; of equal timestamps the later line counts as later.

    ``user`` and ``time`` are int64 [n]. Returns the training and the test interactions as int64 indices, both
    by user and then time. A user's only interaction stays in training: nobody could be tested who was never
    trained.
    """
    order = np.lexsort((time, user))
    boundary = np.diff(user[order], prepend=-1, append=-1) != 0
    is_test = boundary[1:] & ~boundary[:-1]
    return order[~is_test], order[is_test]


class AbsentItems:
    """For each user the items that are in none of their pairs, by rank, without listing them.

    A user's j-th present item t_j has t_j - j absent items before it, so the absent item of rank r is r plus
    the number of j with t_j - j <= r: one binary search per draw, exact, with no rejection.
    """

    def __init__(self, pairs: np.ndarray, num_users: int, num_items: int) -> None:
        """``pairs`` is int64 [n, 2] of (user, item), in any order, repeats allowed."""
        keys = np.unique(pairs[:, 0] * num_items + pairs[:, 1])
        user = keys // num_items
        self._first = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=num_users))])
        self._stride = num_items + 1
        present_rank = np.arange(len(keys)) - self._first[user]
        self._absent_before = user * self._stride + keys % num_items - present_rank
        self.count: np.ndarray = num_items - np.diff(self._first)
        """int64 [num_users]: how many items are absent."""

    def item(self, user: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Return the absent items of these ranks, each in [0, count[user]); int64, any equal shapes."""
        preceding = np.searchsorted(self._absent_before, user * self._stride + rank, side="right")
        items: np.ndarray = rank + preceding - self._first[user]
        return items


def sample_train_rows(
    train: np.ndarray, num_users: int, num_items: int, num_neg: int, rng: np.random.Generator
) -> np.ndarray:
    """Add ``num_neg`` negatives to each training positive (user, item) of int64 [n, 2].

    Negatives are drawn with replacement, uniformly over the items that are not TRAINING items of the user.
    The user's test item is one of them: to leave it out would tell the model which item it is never told to
    dislike. Returns int64 [n * (1 + num_neg), 3], each positive followed by its negatives.
    """
    if num_neg < 1:
        raise ConfigError(f"num_neg must be at least 1. Received: {num_neg}. The usual value is 4.")
    absent = AbsentItems(train, num_users, num_items)
    full = np.flatnonzero(absent.count == 0)
    if full.size:
        raise DataError(
            "A user must have at least one item that is not a training item, or no negative can be drawn. "
            f"Received: {full.size} user(s) with all {num_items} items, first user id {full[0]}. "
            "Remove these users."
        )
    rows: np.ndarray = np.zeros((len(train), 1 + num_neg, 3), dtype=np.int64)
    rows[:, :, 0] = train[:, :1]
    rows[:, 0, 1] = train[:, 1]
    rows[:, 0, 2] = 1
    user = rows[:, 1:, 0]
    rows[:, 1:, 1] = absent.item(user, rng.integers(0, absent.count[user]))
    return rows.reshape(-1, 3)


def sample_test_rows(
    train: np.ndarray, test: np.ndarray, num_users: int, num_items: int, rng: np.random.Generator
) -> np.ndarray:
    """Follow each test positive of int64 [m, 2] by 99 distinct items that its user never touched.

    A user with fewer such items gets all of them. Returns int64 [rows, 3], a user's rows together, positive
    first.
    """
    absent = AbsentItems(np.concatenate([train, test]), num_users, num_items)
    groups = []
    for user, item in test:
        available = absent.count[user]
        rank = rng.choice(available, min(TEST_NEGATIVES, available), replace=False)
        groups.append(_test_group(user, item, absent.item(np.full_like(rank, user), rank)))
    return np.concatenate(groups)


def adopt_test_positives(path: Path, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Let a ``.test.negative`` file say which of a user's items is the test positive.

    Real data has users whose latest ratings bear one timestamp, and a published split has chosen among them. ``train``
    int64 [n, 2] and ``test`` int64 [m, 2] are (user, item). Where the file names another of the user's items, that one
    and the test positive change places. Returns both, and how many did. DataError if the file is malformed.
    """
    tested_at = {user: row for row, user in enumerate(test[:, 0].tolist())}
    known = set(map(tuple, test.tolist()))
    wanted = [pair for pair in map(tuple, _parse_test_negative(path)[:, :2].tolist()) if pair not in known]
    candidates = np.flatnonzero(np.isin(train[:, 0], [user for user, _ in wanted]))
    trained_at = dict(zip(map(tuple, train[candidates].tolist()), candidates))
    train, test = train.copy(), test.copy()
    moved = 0
    for pair in wanted:
        if pair in trained_at and pair[0] in tested_at:
            at, row = trained_at[pair], tested_at[pair[0]]
            train[at, 1], test[row, 1] = test[row, 1], train[at, 1]
            moved += 1
    return train, test, moved


def _parse_test_negative(path: Path) -> np.ndarray:
    """Return user, positive and negatives of each line, int64 [lines, 2 + 99]."""
    text = read_bytes(path).replace(b"(", b"").replace(b")", b"").replace(b",", b"\t")
    return parse_table(text, 2 + TEST_NEGATIVES, b"\t", str(path))


def read_test_rows(path: Path, test: np.ndarray, num_items: int) -> np.ndarray:
    """Take the test set from a ``.test.negative`` file, plain or gzip: ``(user,item)`` and 99 items, by tabs.

    The negatives are used as they are, in their order. DataError, with the line number, if the file is not
    about exactly the test positives int64 [m, 2], or has an item id that is not below ``num_items``.
    """
    table = _parse_test_negative(path)
    remedy = "Use the negatives that belong to this source, or leave --test_negative out to sample them."
    expected = dict(test.tolist())
    seen = set()
    for line, (user, item) in enumerate(table[:, :2].tolist(), 1):
        if user not in expected or user in seen:
            problem = "is listed twice" if user in seen else "has no test item"
            raise DataError(
                f"{path}, line {line}: each line must be for another tested user. "
                f"Received user {user}, who {problem}. {remedy}"
            )
        if item != expected[user]:
            raise DataError(
                f"{path}, line {line}: the positive of user {user} must be item {expected[user]}. Received "
                f"{item}. {remedy}"
            )
        seen.add(user)
    missing = sorted(expected.keys() - seen)
    if missing:
        raise DataError(
            f"{path}, line {len(table)}: the file must have a line for each of {len(expected)} tested users. "
            f"Received {len(table)} lines; the first missing is user {missing[0]}. {remedy}"
        )
    beyond = np.flatnonzero((table >= num_items)[:, 2:].any(axis=1))
    if beyond.size:
        raise DataError(
            f"{path}, line {beyond[0] + 1}: an item id must be below {num_items}. Received "
            f"{table[beyond[0], 2:].max()}. {remedy}"
        )
    table = table[np.argsort(table[:, 0], kind="stable")]
    return np.concatenate([_test_group(row[0], row[1], row[2:]) for row in table])


def _test_group(user: int, item: int, negatives: np.ndarray) -> np.ndarray:
    rows: np.ndarray = np.zeros((1 + len(negatives), 3), dtype=np.int64)
    rows[:, 0] = user
    rows[0, 1:] = item, 1
    rows[1:, 1] = negatives
    return rows
