"""Hit rate and NDCG of ranked lists, one per user, as in He et al., Neural Collaborative Filtering
(arXiv:1708.05031), for any number of positives per user.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.errors import DataError
from fl_rec.evaluation.auc import check_rows
from fl_rec.evaluation.metrics import Evaluation


def rank_metrics(users: Any, labels: Any, scores: Any, k: int = 10) -> Evaluation:
    """Rank each user's rows by score, highest first, and judge the first `k`.

    A positive ranks below the negatives with an equal score: a net that gives every item the same score,
    as one that has collapsed does, would otherwise look perfect whenever positives come first in the data.

    Args:
        users: int64[rows], the user of each row, in any order.
        labels: 0 or 1, [rows]; relevance is binary.
        scores: float[rows].
        k: length of the list that counts, at least 1.

    Returns:
        Sums over the users with a positive; a user without one has no ideal list to compare with.
        NDCG is DCG / ideal DCG, both at `k`, with gain 1 and discount log2(rank + 1), rank from 1.

    Raises:
        DataError: unequal lengths, a label other than 0 and 1, a score that is NaN, or `k` below 1.
    """
    labels, scores = check_rows(labels, scores)
    users = np.ravel(users)
    if len(users) != len(labels):
        raise DataError(f"A row has one user and one label. Received: {len(users)} and {len(labels)}.")
    if k < 1:
        raise DataError(f"k must be at least 1. Received: k={k}.")
    if not len(users):
        return Evaluation()

    # The last key is the first to sort by; labels come last, which makes ties pessimistic.
    order = np.lexsort((labels, -scores, users))
    users, labels = users[order], labels[order]
    first = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    sizes = np.diff(np.r_[first, len(users)])
    rank = np.arange(len(users)) - np.repeat(first, sizes)

    found = labels & (rank < k)
    discount = 1 / np.log2(np.arange(k) + 2)
    gain = np.where(found, discount[np.minimum(rank, k - 1)], 0.0)
    dcg, positives = np.add.reduceat(gain, first), np.add.reduceat(labels.astype(np.int64), first)

    counted = positives > 0
    ideal = np.cumsum(discount)[np.minimum(positives[counted], k) - 1]
    return Evaluation(
        users=int(np.count_nonzero(counted)),
        # A gain is never 0 where a positive was found.
        hits=int(np.count_nonzero(dcg)),
        ndcg_sum=float((dcg[counted] / ideal).sum()),
    )
