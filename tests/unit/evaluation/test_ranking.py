"""HR@K and NDCG@K against hand-computed lists and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import Evaluation
from fl_rec.evaluation.ranking import Ranking, rank_metrics


def one_user(labels: list[int], scores: list[float], k: int = 10) -> Evaluation:
    return rank_metrics([7] * len(labels), labels, scores, k)


@pytest.mark.parametrize("rank", [1, 2, 3, 10])
def test_a_single_positive_gains_by_the_log_of_its_rank(rank: int) -> None:
    scores = np.arange(100, 0, -1.0)
    labels = np.arange(1, 101) == rank
    sums = rank_metrics(np.zeros(100), labels, scores, k=10)
    assert (sums.users, sums.hits) == (1, 1)
    assert sums.ndcg_sum == pytest.approx(1 / math.log2(rank + 1))


def test_a_positive_below_k_is_no_hit() -> None:
    assert one_user([0, 0, 1], [3, 2, 1], k=2) == Evaluation(users=1, hits=0, ndcg_sum=0.0)


def test_by_hand_with_two_users_in_mixed_order() -> None:
    # User 5: positives at ranks 1 and 3. User 2: its positive at rank 2.
    users, labels, scores = [5, 2, 5, 2, 5], [1, 0, 0, 1, 1], [0.9, 0.8, 0.5, 0.7, 0.1]
    sums = rank_metrics(users, labels, scores, k=3)
    ideal = 1 + 1 / math.log2(3)
    assert (sums.users, sums.hits) == (2, 2)
    assert sums.ndcg_sum == pytest.approx((1 + 1 / 2) / ideal + 1 / math.log2(3))


def test_the_ideal_list_is_cut_at_k_too() -> None:
    assert one_user([1, 1, 1, 0], [4, 3, 2, 1], k=2).ndcg_sum == pytest.approx(1.0)


@pytest.mark.parametrize("k", [1, 5, 10, 50])
def test_agrees_with_scikit_learn(k: int) -> None:
    from sklearn.metrics import ndcg_score

    random = np.random.default_rng(k)
    labels, scores = random.random((40, 30)) < 0.15, random.permutation(1200).reshape(40, 30) / 1200
    labels[:, 0] = True
    users = np.repeat(random.permutation(10_000)[:40], 30)
    shuffled = random.permutation(1200)
    sums = rank_metrics(users[shuffled], labels.ravel()[shuffled], scores.ravel()[shuffled], k)
    expected = sum(ndcg_score([row], [score], k=k) for row, score in zip(labels, scores))
    best = np.take_along_axis(labels, np.argsort(-scores, axis=1), axis=1)[:, :k]
    assert sums.users == 40
    assert sums.hits == np.count_nonzero(best.any(axis=1))
    assert sums.ndcg_sum == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_what_is_counted_is_what_sorting_would_find(k: int) -> None:
    """With ties, users without a positive, and users with positives alone, in mixed order."""
    random = np.random.default_rng(k)
    users, labels = random.integers(0, 40, 600), random.random(600) < 0.3
    labels[users == 1], labels[users == 2] = False, True
    ranking = Ranking(users, labels)
    for levels in (1, 5, 1000):
        scores = (random.integers(0, levels, 600) / levels).astype(np.float32)
        figures = []
        for user in np.unique(users[labels]):
            mine = users == user
            best_first = labels[mine][np.lexsort((labels[mine], -scores[mine]))]
            gains = 1 / np.log2(np.arange(len(best_first)) + 2)
            ideal = gains[: min(k, best_first.sum())].sum()
            figures.append((best_first[:k].any(), gains[:k][best_first[:k]].sum() / ideal))
        hits, ndcgs = zip(*figures)
        sums = ranking.measure(scores, k)
        assert (sums.users, sums.hits, sums.ndcg_sum) == (len(figures), sum(hits), pytest.approx(sum(ndcgs)))


@pytest.mark.parametrize("positive", [0, 5, 99])
def test_one_score_for_all_items_is_no_hit_wherever_the_positive_stands(positive: int) -> None:
    labels = [int(row == positive) for row in range(100)]
    assert one_user(labels, [0.5] * 100) == Evaluation(users=1, tied=1)


def test_ties_cost_the_positive_only_its_equals() -> None:
    sums = one_user([1, 0, 0, 0], [0.5, 0.9, 0.5, 0.1])
    assert sums.ndcg_sum == pytest.approx(1 / math.log2(3 + 1))


@pytest.mark.parametrize(
    ("better", "equal", "tied"),
    [(0, 2, 1), (1, 1, 1), (1, 0, 0), (2, 0, 0), (2, 1, 0)],
)
def test_a_miss_by_a_tie_is_one_that_better_luck_would_make_a_hit(better: int, equal: int, tied: int) -> None:
    # The better of two positives counts; its equals come before it.
    scores = [0.5, 0.4] + [0.9] * better + [0.5] * equal + [0.4] * 5
    sums = one_user([1, 1] + [0] * (len(scores) - 2), scores, k=2)
    assert (sums.tied, sums.hits) == (tied, int(better + equal < 2))


def test_an_item_is_in_a_users_list_once() -> None:
    """As in the authors' evaluation, which keeps scores by item; 156 users of ml-1m.test.negative are such."""
    users, items, labels = [3] * 5 + [4], [5, 8, 5, 8, 9, 5], [1, 0, 0, 0, 0, 1]
    scores = [0.5, 0.9, 0.5, 0.9, 0.1, 0.5]
    sums = rank_metrics(users, labels, scores, 2, items)
    assert (sums.users, sums.hits, sums.ndcg_sum) == (2, 2, pytest.approx(1 + 1 / math.log2(3)))
    assert rank_metrics(users, labels, scores, 2) == Evaluation(2, 1, 1.0)
    # A positive that is there twice has not two places in the ideal list.
    assert rank_metrics([1, 1, 1], [1, 1, 0], [0.9, 0.9, 0.8], 3, [6, 6, 7]) == Evaluation(1, 1, 1.0)


def test_what_tells_two_items_apart_may_be_any_feature() -> None:
    features = [[5, 0], [5, 1], [5, 0]]
    assert rank_metrics([1, 1, 1], [1, 0, 0], [0.5, 0.5, 0.5], 2, features) == Evaluation(1, 1, 1 / math.log2(3))


def test_a_user_without_a_positive_is_not_counted() -> None:
    assert rank_metrics([1, 1, 2], [0, 0, 1], [0.9, 0.8, 0.1]) == Evaluation(1, 1, 1.0)


@pytest.mark.parametrize("labels", [[], [0, 0]])
def test_nobody_to_rank(labels: list[int]) -> None:
    assert rank_metrics([1] * len(labels), labels, [0.5] * len(labels)) == Evaluation(0, 0, 0.0)


def test_columns_of_shape_rows_by_one_are_taken_as_paddle_gives_them() -> None:
    users, labels = np.array([[1], [1]], np.int64), np.array([[1], [0]], np.int64)
    assert rank_metrics(users, labels, np.array([[0.9], [0.1]], np.float32)) == Evaluation(1, 1, 1.0)


@pytest.mark.parametrize(
    ("users", "labels", "scores", "k", "message"),
    [
        ([1, 1], [0, 1], [math.nan, math.nan], 10, "Received: 2 of 2 that are NaN. A training that diverges"),
        ([1], [0, 1], [0.1, 0.2], 10, "A row has one user and one label. Received: 1 and 2."),
        ([1, 1], [0, 3], [0.1, 0.2], 10, "A label must be 0 or 1. Received: 1 of 2 that are not."),
        ([1, 1], [0, 1], [0.1, 0.2], 0, "k must be at least 1. Received: k=0."),
    ],
)
def test_refuses(users: list[int], labels: list[int], scores: list[float], k: int, message: str) -> None:
    with pytest.raises(DataError) as caught:
        rank_metrics(users, labels, scores, k)
    assert message in str(caught.value)
