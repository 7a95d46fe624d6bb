"""AUC from counts in buckets. What takes long to import is imported by those who need it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.evaluation.auc import AucBuckets


def test_is_close_to_the_exact_auc() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 5000)
    scores = np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    assert AucBuckets.from_scores(scores, labels).auc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


def test_is_exact_where_buckets_lose_nothing_ties_included() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(2)
    labels, scores = random.integers(0, 2, 500), random.integers(0, 65, 500) / 64
    measured = AucBuckets.from_scores(scores, labels, num_buckets=64).auc()
    assert measured == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_puts_a_score_where_paddle_puts_it() -> None:
    counts = AucBuckets.from_scores([0.0, 0.24, 0.25, 1.0], [0, 1, 1, 1], num_buckets=4)
    assert counts.negatives.tolist() == [1, 0, 0, 0, 0]
    assert counts.positives.tolist() == [1, 1, 0, 0, 1]
    assert counts.positives.dtype == np.int64


@pytest.mark.parametrize(
    ("scores", "auc"), [([0.9, 0.1], 1.0), ([0.1, 0.9], 0.0), ([0.5, 0.5], 0.5), ([1.0, 0.0], 1.0)]
)
def test_one_pair(scores: list[float], auc: float) -> None:
    assert AucBuckets.from_scores(scores, [1, 0]).auc() == auc


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []])
def test_one_class_alone_has_no_auc(labels: list[int]) -> None:
    assert math.isnan(AucBuckets.from_scores([0.5] * len(labels), labels).auc())


def test_a_sum_is_the_auc_of_all_rows_which_a_mean_is_not() -> None:
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 300), random.random(300)
    scores[:100] = (scores[:100] + labels[:100]) / 2
    parts = [AucBuckets.from_scores(scores[part], labels[part]) for part in (slice(100), slice(100, 300))]
    together = (parts[0] + parts[1]).auc()
    assert together == AucBuckets.from_scores(scores, labels).auc()
    assert abs(together - (parts[0].auc() + parts[1].auc()) / 2) > 0.01


def test_takes_the_statistics_of_paddles_operator() -> None:
    counts = AucBuckets(np.array([[0, 2]]), np.array([[1, 1]]))
    assert counts.positives.shape == (2,)
    assert counts.auc() == 0.75


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([-0.1, 0.5, 1.5], [0, 1, 1], "A score must be in [0, 1]. Received: 2 of 3 outside."),
        ([math.nan, 0.5], [0, 1], "A score must be a number. Received: 1 of 2 that are NaN."),
        ([0.1, 0.5], [2, 1], "A label must be 0 or 1. Received: 1 of 2 that are not."),
        ([0.1], [0, 1], "A row has one label and one score. Received: 2 and 1."),
    ],
)
def test_refuses_what_is_no_score_or_label(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(DataError) as caught:
        AucBuckets.from_scores(scores, labels)
    assert message in str(caught.value)


def test_refuses_to_add_unequal_buckets() -> None:
    with pytest.raises(DataError, match="Received: 5 and 9"):
        AucBuckets.empty(4) + AucBuckets.empty(8)
    with pytest.raises(DataError, match="Received: 2 and 3"):
        AucBuckets(np.zeros(2), np.zeros(3))
