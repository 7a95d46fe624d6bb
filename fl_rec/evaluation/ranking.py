"""Hit rate and NDCG of ranked lists, one per user, as in He et al., Neural Collaborative Filtering
(arXiv:1708.05031), for any number of positives per user.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.data.ranks import Lists
from fl_rec.errors import DataError
from fl_rec.evaluation.auc import check_labels, check_scores
from fl_rec.evaluation.groups import History, sums
from fl_rec.evaluation.metrics import Evaluation


class Ranking:
    """Rows that are ranked again and again; see `Lists`.

    Args:
        users: int64[rows], the user of each row, in any order.
        labels: 0 or 1, [rows]; relevance is binary.
        items: see `Lists`.
        history: how much users have; None: figures by it aren't wanted.

    Raises:
        DataError: unequal lengths, or a label other than 0 and 1.
    """

    def __init__(self, users: Any, labels: Any, items: Any = None, history: History | None = None) -> None:
        users, labels = np.ravel(users), check_labels(labels)
        if len(users) != len(labels):
            raise DataError(f"A row has one user and one label. Received: {len(users)} and {len(labels)}.")
        self._rows, self._lists = len(users), Lists(users, labels, items)
        self._groups = None if history is None else history.groups(self._lists.users)

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
        count = self._lists.count
        discount, dcg = 1 / np.log2(np.arange(k) + 2), np.zeros(len(count))
        # A user's k-th positive and those after it are not among the first k.
        for users, ranks in self._lists.ranks(scores, k):
            dcg[users] += np.where(ranks < k, discount[np.minimum(ranks, k - 1)], 0.0)
        ideal = np.cumsum(discount)[np.minimum(count, k) - 1]
        # A gain is never 0 where a positive was found.
        hit, ndcg = dcg > 0, dcg / ideal
        return Evaluation(
            users=len(count),
            hits=int(np.count_nonzero(hit)),
            ndcg_sum=float(ndcg.sum()),
            tied=int(np.count_nonzero(~hit & (self._lists.better(scores) < k))),
            groups=() if self._groups is None else sums(self._groups, hit, ndcg),
        )


def rank_metrics(users: Any, labels: Any, scores: Any, k: int = 10, items: Any = None) -> Evaluation:
    """Ranks rows once; see `Ranking`."""
    return Ranking(users, labels, items).measure(scores, k)
