"""AUC by counts in buckets of scores, which can be added over workers. No Paddle is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_rec.errors import DataError


def check_labels(labels: Any) -> np.ndarray:
    """The labels of some rows as bool[rows]. DataError: a label other than 0 and 1."""
    labels = np.ravel(labels)
    positive: np.ndarray = labels == 1
    strange = np.count_nonzero(~positive & (labels != 0))
    if strange:
        raise DataError(f"A label must be 0 or 1. Received: {strange:,} of {len(labels):,} that are not.")
    return positive


def check_scores(scores: Any, rows: int) -> np.ndarray:
    """The scores of so many rows as float[rows]. DataError: their number is another, or a score is NaN."""
    scores = np.ravel(scores)
    floats: np.ndarray = scores.astype(np.result_type(scores, np.float32), copy=False)
    if len(floats) != rows:
        raise DataError(f"A row has one label and one score. Received: {rows} and {len(floats)}.")
    missing = np.count_nonzero(np.isnan(floats))
    if missing:
        raise DataError(
            f"A score must be a number. Received: {missing:,} of {len(floats):,} that are NaN. "
            "A training that diverges ends so: lower the learning rate."
        )
    return floats


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
            DataError: see `check_labels` and `check_scores`; or a score lies outside [0, 1].
        """
        labels = check_labels(labels)
        scores = check_scores(scores, len(labels))
        outside = np.count_nonzero((scores < 0) | (scores > 1))
        if outside:
            raise DataError(
                f"A score must be in [0, 1]. Received: {outside:,} of {len(scores):,} outside. "
                "Let the net end in a sigmoid."
            )
        buckets, size = (scores * num_buckets).astype(np.int64), num_buckets + 1
        positives = np.bincount(buckets[labels], minlength=size)
        return cls(positives, np.bincount(buckets, minlength=size) - positives)

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
