"""AUC by counts in buckets of scores, which can be added over workers. No Paddle is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_rec.errors import DataError


def check_rows(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Flatten and check the labels and scores of some rows.

    Args:
        labels: 0 or 1, of any shape with one element per row.
        scores: numbers, likewise.

    Returns:
        labels as bool[rows], scores as float64[rows].

    Raises:
        DataError: unequal lengths, a label other than 0 and 1, or a score that is NaN.
    """
    labels, scores = np.ravel(labels), np.ravel(scores).astype(np.float64)
    if len(labels) != len(scores):
        raise DataError(f"A row has one label and one score. Received: {len(labels)} and {len(scores)}.")
    strange = np.count_nonzero((labels != 0) & (labels != 1))
    if strange:
        raise DataError(f"A label must be 0 or 1. Received: {strange:,} of {len(labels):,} that are not.")
    missing = np.count_nonzero(np.isnan(scores))
    if missing:
        raise DataError(
            f"A score must be a number. Received: {missing:,} of {len(scores):,} that are NaN. "
            "A training that diverges ends so: lower the learning rate."
        )
    return labels == 1, scores


# An array has no single truth value, so a generated __eq__ would raise.
@dataclass(frozen=True, eq=False)
class AucBuckets:
    """Counts of rows by score, from which the area under the ROC curve follows, and which can be added.

    Bucket i holds the scores in [i, i + 1) / num_buckets, the last one the score 1, as in Paddle's ``auc``
    operator; its ``stat_pos`` and ``stat_neg``, of shape [1, num_buckets + 1], are accepted as they are.

    Attributes:
        positives: int64[num_buckets + 1], rows with label 1.
        negatives: int64[num_buckets + 1], rows with label 0.
    """

    positives: np.ndarray
    negatives: np.ndarray

    def __post_init__(self) -> None:
        for name in ("positives", "negatives"):
            object.__setattr__(self, name, np.ravel(getattr(self, name)).astype(np.int64))
        if len(self.positives) != len(self.negatives):
            raise DataError(
                "Positives and negatives must have the same buckets. "
                f"Received: {len(self.positives)} and {len(self.negatives)}."
            )

    @classmethod
    def empty(cls, num_buckets: int = 4096) -> AucBuckets:
        """No rows."""
        return cls(np.zeros(num_buckets + 1), np.zeros(num_buckets + 1))

    @classmethod
    def from_scores(cls, scores: Any, labels: Any, num_buckets: int = 4096) -> AucBuckets:
        """Count rows.

        Args:
            scores: float[rows] in [0, 1].
            labels: 0 or 1, [rows].
            num_buckets: resolution; scores closer than 1 / num_buckets may count as ties.

        Raises:
            DataError: see `check_rows`; or a score lies outside [0, 1].
        """
        labels, scores = check_rows(labels, scores)
        outside = np.count_nonzero((scores < 0) | (scores > 1))
        if outside:
            raise DataError(
                f"A score must be in [0, 1]. Received: {outside:,} of {len(scores):,} outside. "
                "Let the net end in a sigmoid."
            )
        buckets = (scores * num_buckets).astype(np.int64)
        size = num_buckets + 1
        return cls(np.bincount(buckets[labels], minlength=size), np.bincount(buckets[~labels], minlength=size))

    def __add__(self, other: AucBuckets) -> AucBuckets:
        if len(self.positives) != len(other.positives):
            raise DataError(
                "Only equal numbers of buckets can be added. "
                f"Received: {len(self.positives)} and {len(other.positives)}."
            )
        return AucBuckets(self.positives + other.positives, self.negatives + other.negatives)

    def auc(self) -> float:
        """Chance that a positive scores above a negative, a tie counting half; NaN if a class is absent.

        It is the area under the ROC curve by the trapezoidal rule.
        """
        positives, negatives = int(self.positives.sum()), int(self.negatives.sum())
        if not positives or not negatives:
            return math.nan
        above = positives - np.cumsum(self.positives)
        # Doubled, so that the halves of ties stay integers and the sum exact.
        pairs = int((self.negatives * (2 * above + self.positives)).sum())
        return pairs / (2 * positives * negatives)
