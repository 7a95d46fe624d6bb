"""Users by how much history they have: who is new is often served worst."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fl_rec.data.rows import Rows

# Of training positives, the least of each group: 0 to 19, 20 to 49, ..., 200 and more.
BOUNDS = (0, 20, 50, 100, 200)

Sums = tuple[tuple[int, int, float], ...]
"""Users, hits and the sum of NDCG of each group; empty where nobody knows the history."""


@dataclass(frozen=True)
class History:
    """How many training positives users have.

    Attributes:
        users: int64[users], ascending.
        counts: int64[users].
    """

    users: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, rows: Rows) -> History:
        """Of a worker's training rows: users [n, 1] first, labels [n, group] last."""
        users, liked = rows[0][:, 0], (rows[-1] == 1).sum(axis=1)
        highest = int(users.max(initial=-1))
        if highest < 4 * len(users):  # sorting rows would take the longer
            counts = np.bincount(users, liked).astype(np.int64)
            return cls(np.flatnonzero(counts), counts[counts > 0])
        ids, place = np.unique(users, return_inverse=True)
        return cls(ids, np.bincount(place, liked).astype(np.int64))

    def groups(self, users: np.ndarray) -> np.ndarray:
        """The group of each user, int64; who has no positive is in the first."""
        if not len(self.users):
            return np.zeros(len(users), np.int64)
        place = np.minimum(np.searchsorted(self.users, users), len(self.users) - 1)
        counts = np.where(self.users[place] == users, self.counts[place], 0)
        return np.searchsorted(BOUNDS, counts, side="right") - 1


def sums(groups: np.ndarray, hit: np.ndarray, ndcg: np.ndarray) -> Sums:
    """By group, of each user's group, int64; whether there was a hit, bool; and NDCG, float."""
    columns = [np.bincount(groups, weights, len(BOUNDS)) for weights in (None, hit, ndcg)]
    return tuple((int(users), int(hits), float(gain)) for users, hits, gain in zip(*columns))


def added(parts: Iterable[Sums]) -> Sums:
    """All together; empty if one of them is."""
    parts = list(parts)
    if not parts or not all(parts):
        return ()
    return tuple(
        (sum(users), sum(hits), float(sum(gain))) for users, hits, gain in (zip(*group) for group in zip(*parts))
    )
