"""Leave-one-out split and sampled negatives: the protocol of the NCF paper (arXiv:1708.05031).

Whatever is drawn of data is drawn from a `Stream` of the run's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path

import numpy as np

from fl_rec.data.rows import ANY_SIZES, Rows, check_table, narrowed
from fl_rec.data.text import parse_table
from fl_rec.errors import ConfigError, DataError
from fl_rec.files import read_bytes

Ids = Callable[[np.ndarray], np.ndarray]


class Stream(IntEnum):
    """What random numbers are for. A number that changes changes everybody's data."""

    PARTITION = 0
    TRAIN_NEGATIVES = 1
    TEST_NEGATIVES = 2
    SYNTHETIC = 3
    FRESH_NEGATIVES = 4  # and the epoch
    VALIDATION_NEGATIVES = 5
    HOLD_OUT = 6
    PUBLIC_USERS = 7
    PROXY_ROWS = 8  # and the round
    STUDENT_ORDER = 9  # and the epoch

    @classmethod
    def shard_order(cls, shard: int) -> int:
        """Of the order of a shard's rows. Others have these numbers too, but none that is drawn with shards."""
        return shard + 1


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Return the PCG64 generator of a `Stream` of ``seed``, and of numbers within; all are independent."""
    return np.random.Generator(np.random.PCG64([seed, *stream]))


TEST_NEGATIVES = 99


# With what is drawn for them some 20 MB.
_ROWS_PER_BLOCK = 1 << 18


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


def hold_out_one(train: np.ndarray, num_items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split one random item of each user off, uniformly: the paper's validation data (section 4.1).

    ``train`` is int32 or int64 [n, 2] of (user, item), items below ``num_items``, in any order, repeats allowed: an
    item goes with all its repeats, or it would be both trained and validated. A user's only item stays in training.
    Returns the pairs that stay, in their order, and the validation pairs, by user, int64 [k, 2]. Which items are drawn
    does not depend on the order of ``train``.
    """
    distinct = _keys(train, num_items)
    _, drawn = leave_one_out(distinct // num_items, rng.permutation(len(distinct)))
    held_out = distinct[drawn]
    keys = train[:, 0].astype(np.int64) * num_items + train[:, 1]
    return train[~np.isin(keys, held_out)], np.stack(np.divmod(held_out, num_items), axis=1)


def _keys(pairs: np.ndarray, num_items: int) -> np.ndarray:
    """Each pair's number, int64, ascending, without repeats: a tenth of the time of np.unique, which hashes them."""
    keys = np.sort(pairs[:, 0].astype(np.int64) * num_items + pairs[:, 1])
    distinct: np.ndarray = keys[np.diff(keys, prepend=-1) != 0]
    return distinct


class AbsentItems:
    """For each user the items that are in none of their pairs, by rank, without listing them.

    A user's j-th present item t_j has t_j - j absent items before it, so the absent item of rank r is r plus
    the number of j with t_j - j <= r: exact, with no rejection. That number is mostly what it is at the last of evenly
    spaced ranks, a look-up; where a t_j - j lies between, it is a binary search, which takes ten times as long.
    """

    def __init__(self, pairs: np.ndarray, num_users: int, num_items: int) -> None:
        """``pairs`` is int32 or int64 [n, 2] of (user, item), in any order, repeats allowed."""
        keys = _keys(pairs, num_items)
        user = keys // num_items
        self._first = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=num_users))])
        self._stride = num_items + 1
        present_rank = np.arange(len(keys)) - self._first[user]
        self._absent_before = user * self._stride + keys % num_items - present_rank
        self.count: np.ndarray = num_items - np.diff(self._first)
        """int64 [num_users]: how many items are absent."""
        ranks = int(num_users * self._stride)
        self._shift = max(0, (ranks // (4 * max(1, len(keys)))).bit_length() - 1)
        self._preceding = np.searchsorted(self._absent_before, np.arange(0, ranks, 1 << self._shift)).astype(np.int32)
        self._next = np.append(self._absent_before, np.iinfo(np.int64).max)

    def item(self, user: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Return the absent items of these ranks, each in [0, count[user]); int64, any shapes that broadcast."""
        wanted = user.astype(np.int64, copy=False) * self._stride + rank
        preceding = np.take(self._preceding, wanted >> self._shift)
        more = np.flatnonzero(np.take(self._next, preceding) <= wanted)
        preceding.reshape(-1)[more] = np.searchsorted(self._absent_before, np.take(wanted, more), side="right")
        items: np.ndarray = rank + preceding - self._first[user]
        return items

    def draw(self, user: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
        """Return so many absent items of each of these users [n], uniformly, with replacement; int64 [n, number]."""
        user = user[:, None]
        return self.item(user, rng.integers(0, self.count[user], (len(user), number)))


def _absent_items(
    train: np.ndarray, num_users: int, num_items: int, ids: Ids = lambda users: users, first: int = 0
) -> AbsentItems:
    """What negatives of training positives (user, item) are drawn from; DataError if a user has nothing."""
    absent = AbsentItems(train, num_users, num_items)
    full = np.flatnonzero(absent.count == 0)
    if full.size:
        raise DataError(
            "A user must have at least one item that is not a training item, or no negative can be drawn. "
            f"Received: {full.size} user(s) with all {num_items} items, first user id {ids(full)[0] + first}. "
            "Remove these users."
        )
    return absent


FindAbsent = Callable[[np.ndarray, int, int], AbsentItems]


class PairsByUser:
    """Pairs (user, item), from which those of some users are taken, so that what is made of them is made in blocks.

    Args:
        pairs: [n, 2] each; those that are by user already are not copied.
    """

    def __init__(self, *pairs: np.ndarray) -> None:
        self._pairs = [
            each if (each[1:, 0] >= each[:-1, 0]).all() else each[np.argsort(each[:, 0], kind="stable")]
            for each in pairs
        ]

    def absent_items(self, first: int, last: int, num_items: int, find: FindAbsent = AbsentItems) -> AbsentItems:
        """Of the users from first to last, who are numbered from 0 in it."""
        found = []
        for pairs in self._pairs:
            start, stop = np.searchsorted(pairs[:, 0], [first, last + 1])
            found.append(pairs[start:stop] - [first, 0])
        return find(np.concatenate(found), last + 1 - first, num_items)


class TrainRows:
    """Training positives, each followed by negatives, in blocks: together they can be more than memory holds.

    Negatives are drawn with replacement, uniformly over the items that are not TRAINING items of the user. The user's
    test item is one of them: to leave it out would tell the model which item it is never told to dislike.
    """

    def __init__(self, train: np.ndarray, num_items: int, num_neg: int, seed: int) -> None:
        """Draw nothing yet.

        Args:
            train: positives [n, 2] of (user, item); in the order of the rows, which is best by user.
            num_items: all items, which may be drawn.
            num_neg: negatives per positive; 0 for none, when they are drawn anew in every epoch.
            seed: of `Stream.TRAIN_NEGATIVES`.

        Raises:
            ConfigError: a number of negatives below 0.
        """
        if num_neg < 0:
            raise ConfigError(f"num_neg must be 0 or more. Received: {num_neg}. The usual value is 4.")
        self._train, self._num_items, self._num_neg, self._seed = train, num_items, num_neg, seed

    def __len__(self) -> int:
        return len(self._train) * (1 + self._num_neg)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield int32 [rows, 3], the same each time. DataError if a user has all items."""
        rng = generator(self._seed, Stream.TRAIN_NEGATIVES)
        by_user = PairsByUser(self._train)
        for positives in _blocks(self._train, 1 + self._num_neg):
            first, last = int(positives[:, 0].min()), int(positives[:, 0].max())
            rows: np.ndarray = np.zeros((len(positives), 1 + self._num_neg, 3), np.int32)
            rows[:, :, 0] = positives[:, :1]
            rows[:, 0, 1] = positives[:, 1]
            rows[:, 0, 2] = 1
            if self._num_neg:
                absent = by_user.absent_items(first, last, self._num_items, partial(_absent_items, first=first))
                rows[:, 1:, 1] = absent.draw(positives[:, 0].astype(np.int64) - first, self._num_neg, rng)
            yield rows.reshape(-1, 3)


def _blocks(pairs: np.ndarray, rows_of_each: int) -> Iterator[np.ndarray]:
    """Yield pairs of which so many rows each are made."""
    size = max(1, _ROWS_PER_BLOCK // rows_of_each)
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


class FreshNegatives:
    """A worker's training positives, in every epoch with other negatives and in another order.

    Negatives are those of `TrainRows`.

    Attributes:
        count: number of rows of an epoch.
    """

    def __init__(
        self,
        rows: np.ndarray,
        num_items: int,
        num_neg: int,
        group_size: int,
        seed: int,
        ids: Ids = lambda users: users,
    ) -> None:
        """Draw nothing yet.

        Args:
            rows: the worker's training rows, int64 [n, 3] of (user, item, label). Those of label 1 are the positives,
                each of which is trained as often as it is there.
            num_items: all items, which may be drawn.
            num_neg: negatives per positive.
            group_size: items of a row: 1, or 1 + num_neg for a positive followed by its negatives.
            seed: give each worker one of its own, or they all draw with the same random numbers.
            ids: the users' ids, if they are other numbers than those in the rows.

        Raises:
            ConfigError: num_neg or group_size is neither of these.
            DataError: these are no rows, there is no positive, an item is too large, or a user has all items.
        """
        if group_size not in (1, 1 + num_neg):
            raise ConfigError(
                f"group_size must be 1, or 1 + num_neg = {1 + num_neg} to have a positive and its negatives in one "
                f"row. Received: {group_size}."
            )
        if num_neg < 1:
            raise ConfigError(f"num_neg must be at least 1. Received: {num_neg}. The usual value is 4.")
        check_table(rows, 3, ANY_SIZES, "training rows")
        positives = rows[rows[:, 2] == 1, :2]
        if not len(positives):
            raise DataError(
                f"Training rows must hold a positive, or there is nothing to draw negatives for. Received: {len(rows)} "
                "rows, all with label 0. Make the shards again."
            )
        if positives[:, 1].max() >= num_items:
            raise DataError(
                f"An item's id must be below {num_items}, the number of items. Received: {positives[:, 1].max()}. "
                "Make the shards again, or set hyper_parameters.num_items."
            )
        # By user, neighbouring draws look up neighbouring keys.
        positives = positives[np.argsort(positives[:, 0], kind="stable")]
        self._absent = _absent_items(positives, int(positives[-1, 0]) + 1, num_items, ids)
        self._seed, self._num_neg, self._group_size = seed, num_neg, group_size
        self._user, self._item = positives[:, 0], positives[:, 1:]
        self.count = len(positives) * (1 + num_neg) // group_size

    def epoch(self, number: int) -> Rows:
        """Return an epoch's rows, the same for the same number: users [count, 1], items, labels [count, group_size]."""
        rng = generator(self._seed, Stream.FRESH_NEGATIVES, number)
        negatives = self._absent.draw(self._user, self._num_neg, rng)
        items = narrowed(np.concatenate([self._item, negatives], axis=1), np.int32)
        labels = np.zeros(items.shape, np.int8)
        labels[:, 0] = 1
        users = narrowed(np.repeat(self._user[:, None], self.count // len(items), axis=0), np.int32)
        order = rng.permutation(self.count)
        rows = (users, *(each.reshape(self.count, self._group_size) for each in (items, labels)))
        return tuple(np.take(slot, order, axis=0) for slot in rows)


def sample_test_rows(
    seen: Sequence[np.ndarray], test: np.ndarray, num_items: int, rng: np.random.Generator
) -> np.ndarray:
    """Follow each test positive of [m, 2] by 99 distinct items that are in none of its user's pairs, here and in seen.

    A user with fewer such items gets all of them. Returns int32 [rows, 3], a user's rows together, positive
    first. Validation rows are made in the same way, without the test set: an item that can't be a negative would be
    known to be the test item.
    """
    by_user, group = PairsByUser(*seen, test), 1 + TEST_NEGATIVES
    made: np.ndarray = np.zeros((len(test) * group, 3), np.int32)
    count = 0
    for block in _blocks(test, group):
        first, last = int(block[:, 0].min()), int(block[:, 0].max())
        absent = by_user.absent_items(first, last, num_items)
        available = absent.count[block[:, 0] - first].tolist()
        ranks = [rng.choice(number, min(TEST_NEGATIVES, number), replace=False) for number in available]
        size = np.array([1 + len(each) for each in ranks])
        start = np.cumsum(size) - size
        rows = made[count : count + size.sum()]
        rows[:, 0] = np.repeat(block[:, 0], size)
        rows[start, 2] = 1
        negative = rows[:, 2] == 0
        rows[start, 1] = block[:, 1]
        rows[negative, 1] = absent.item(rows[negative, 0].astype(np.int64) - first, np.concatenate(ranks))
        count += len(rows)
    return made[:count]


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
