"""Where positives rank among a user's items, and what that is if items are ranked by how often they were chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from fl_rec.outside import Count

# Of ranks that are counted; a list that counts for HR@K is shorter.
MOST = 1000


class Lists:
    """Rows that are ranked again and again: whose each is, and which are positive.

    A positive's rank is counted, not sorted for: it comes after its user's better positives and after the negatives
    that score as high as it does.

    A user's list has an item once, as in the authors' evaluation (arXiv:1708.05031): of an item that is in several of
    a user's rows one counts, a positive one if there is one. In their own ml-1m.test.negative 156 of 6,040 positives
    are among the 99 negatives that they are to beat.

    Args:
        users: int64[rows], the user of each row, in any order.
        labels: bool[rows].
        items: int64[rows], or [rows, features] of which all together are the item; None: each row has another one.

    Attributes:
        users: int64[users with a positive], ascending.
        count: int64[users], how many positives each has.
    """

    def __init__(self, users: np.ndarray, labels: np.ndarray, items: Any = None) -> None:
        counts = np.ones(len(users), bool) if items is None else _once(users, labels, items)
        # By user; one without a positive has no ideal list to compare with.
        positives = np.flatnonzero(labels & counts)
        self._positives = positives[np.argsort(users[positives], kind="stable")]
        self.users, self._user, self.count = np.unique(users[self._positives], return_inverse=True, return_counts=True)
        self._place = np.arange(len(positives)) - np.repeat(np.cumsum(self.count) - self.count, self.count)
        self._negatives = np.flatnonzero(~labels & counts & np.isin(users, self.users))
        self._user_of_negative = np.searchsorted(self.users, users[self._negatives])

    def ranks(self, scores: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each user's best positive, then of the second best, up to `most`: users, and ranks from 0, both int64.

        Args:
            scores: float[rows].
        """
        positives, negatives = self._of_positives(scores), scores[self._negatives]
        for place in range(min(most, int(self.count.max(initial=0)))):
            those = self._place == place
            user, least = self._user[those], np.full(len(self.count), np.inf, scores.dtype)
            least[user] = positives[those]
            above = self._user_of_negative[negatives >= least[self._user_of_negative]]
            yield user, place + np.bincount(above, minlength=len(self.count))[user]

    def better(self, scores: np.ndarray) -> np.ndarray:
        """How many negatives of each user score higher than the best positive, int64[users]."""
        best = self._of_positives(scores)[self._place == 0]
        above = self._user_of_negative[scores[self._negatives] > best[self._user_of_negative]]
        return np.bincount(above, minlength=len(self.count))

    def _of_positives(self, scores: np.ndarray) -> np.ndarray:
        """By user, the highest first."""
        positives = scores[self._positives]
        found: np.ndarray = positives[np.lexsort((-positives, self._user))]
        return found


def _once(users: np.ndarray, labels: np.ndarray, items: Any) -> np.ndarray:
    """Whether a row is the one that counts for its user's item, bool[rows]."""
    rows = np.column_stack([users, items])
    order = np.lexsort((~labels, *rows.T[::-1]))
    counts = np.ones(len(rows), bool)
    counts[order[1:]] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    return counts


@dataclass(frozen=True)
class Ranked:
    """Users with equally many positives, by where these rank.

    Attributes:
        positives: how many each has.
        users: how many users.
        first: how many have their best positive at rank 1, 2, ...; the others' come after the last one.
        every: likewise how many positives are at each rank.
    """

    positives: Annotated[Count, Ge(1)]
    users: Count
    first: tuple[Count, ...]
    every: tuple[Count, ...]

    def sums(self, top_k: int) -> tuple[int, float]:
        """Users with a hit among the first K, and the sum of users' NDCG@K; see `Ranking.measure`."""
        gain = sum(count / math.log2(rank + 2) for rank, count in enumerate(self.every[:top_k]))
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(self.positives, top_k)))
        return sum(self.first[:top_k]), gain / ideal


def by_popularity(rows: np.ndarray, chosen: np.ndarray) -> tuple[Ranked, ...]:
    """How rows [n, 3] of user, item and label rank if items are ordered by how often they were chosen, int64[items]."""
    lists, scores = Lists(rows[:, 0], rows[:, 2] == 1, rows[:, 1]), chosen[rows[:, 1]].astype(np.float64)
    numbers, kind = np.unique(lists.count, return_inverse=True)
    first, every = (np.zeros((len(numbers), MOST), np.int64) for _ in range(2))
    for place, (users, ranks) in enumerate(lists.ranks(scores, MOST)):
        near = ranks < MOST
        for counts in (first, every) if place == 0 else (every,):
            np.add.at(counts, (kind[users[near]], ranks[near]), 1)
    return tuple(
        Ranked(int(number), int((kind == row).sum()), _cut(first[row]), _cut(every[row]))
        for row, number in enumerate(numbers)
    )


def figures(groups: Sequence[Ranked], top_k: int) -> dict[str, float] | None:
    """`hr@K` and `ndcg@K` of users; None without any, or if `top_k` is above `MOST`."""
    users = sum(each.users for each in groups)
    if not users or top_k > MOST:
        return None
    hits, ndcg = (sum(sums) for sums in zip(*(each.sums(top_k) for each in groups)))
    return {f"hr@{top_k}": hits / users, f"ndcg@{top_k}": ndcg / users}


def _cut(counts: np.ndarray) -> tuple[int, ...]:
    """Without the zeros at the end."""
    return tuple(counts[: int(np.flatnonzero(counts).max(initial=-1)) + 1].tolist())
