"""Hit rate and NDCG of ranked lists, one per user, as in He et al., Neural Collaborative Filtering
(arXiv:1708.05031), for any number of positives per user.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.errors import DataError
from fl_rec.evaluation.auc import check_labels, check_scores
from fl_rec.evaluation.metrics import Evaluation


class Ranking:
    """Rows that are ranked again and again: whose each is, and which are positive.

    A positive's rank is counted, not sorted for: it comes after its user's better positives and after the negatives
    that score as high as it does.

    A user's list has an item once, as in the authors' evaluation: of an item that is in several of a user's rows one
    counts, a positive one if there is one. In their own ml-1m.test.negative 156 of 6,040 positives are among the 99
    negatives that they are to beat.

    Args:
        users: int64[rows], the user of each row, in any order.
        labels: 0 or 1, [rows]; relevance is binary.
        items: int64[rows], or [rows, features] of which all together are the item; None: each row has another one.

    Raises:
        DataError: unequal lengths, or a label other than 0 and 1.
    """

    def __init__(self, users: Any, labels: Any, items: Any = None) -> None:
        users, labels = np.ravel(users), check_labels(labels)
        if len(users) != len(labels):
            raise DataError(f"A row has one user and one label. Received: {len(users)} and {len(labels)}.")
        self._rows = len(users)
        counts = np.ones(len(users), bool) if items is None else _once(users, labels, items)
        # By user; one without a positive has no ideal list to compare with.
        positives = np.flatnonzero(labels & counts)
        self._positives = positives[np.argsort(users[positives], kind="stable")]
        ranked, self._user, self._count = np.unique(users[self._positives], return_inverse=True, return_counts=True)
        self._place = np.arange(len(positives)) - np.repeat(np.cumsum(self._count) - self._count, self._count)
        self._negatives = np.flatnonzero(~labels & counts & np.isin(users, ranked))
        self._user_of_negative = np.searchsorted(ranked, users[self._negatives])

    def measure(self, scores: Any, k: int) -> Evaluation:
        """Rank each user's rows by score, highest first, and judge the first `k`.

        A positive ranks below the negatives with an equal score: a net that gives every item the same score,
        as one that has collapsed does, would otherwise look perfect whenever positives come first in the data.

        Args:
            scores: float[rows].
            k: length of the list that counts, at least 1.

        Returns:
            Sums over the users with a positive. NDCG is DCG / ideal DCG, both at `k`, with gain 1 and discount
            log2(rank + 1), rank from 1.

        Raises:
            DataError: too few or too many scores, one that is NaN, or `k` below 1.
        """
        scores = check_scores(scores, self._rows)
        if k < 1:
            raise DataError(f"k must be at least 1. Received: k={k}.")
        users = len(self._count)
        positives, negatives = scores[self._positives], scores[self._negatives]
        positives = positives[np.lexsort((-positives, self._user))]
        discount, dcg = 1 / np.log2(np.arange(k) + 2), np.zeros(users)
        # A user's k-th positive and those after it are not among the first k.
        for place in range(min(k, int(self._count.max(initial=0)))):
            those = self._place == place
            user, least = self._user[those], np.full(users, np.inf, scores.dtype)
            least[user] = positives[those]
            above = self._user_of_negative[negatives >= least[self._user_of_negative]]
            rank = place + np.bincount(above, minlength=users)[user]
            dcg[user] += np.where(rank < k, discount[np.minimum(rank, k - 1)], 0.0)
        ideal = np.cumsum(discount)[np.minimum(self._count, k) - 1]
        best = positives[self._place == 0]
        above = np.bincount(self._user_of_negative[negatives > best[self._user_of_negative]], minlength=users)
        # A gain is never 0 where a positive was found.
        hit = dcg > 0
        return Evaluation(
            users=users,
            hits=int(np.count_nonzero(hit)),
            ndcg_sum=float((dcg / ideal).sum()),
            tied=int(np.count_nonzero(~hit & (above < k))),
        )


def _once(users: np.ndarray, labels: np.ndarray, items: Any) -> np.ndarray:
    """Whether a row is the one that counts for its user's item, bool[rows]."""
    rows = np.column_stack([users, items])
    order = np.lexsort((~labels, *rows.T[::-1]))
    counts = np.ones(len(rows), bool)
    counts[order[1:]] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    return counts


def rank_metrics(users: Any, labels: Any, scores: Any, k: int = 10, items: Any = None) -> Evaluation:
    """Ranks rows once; see `Ranking`."""
    return Ranking(users, labels, items).measure(scores, k)
