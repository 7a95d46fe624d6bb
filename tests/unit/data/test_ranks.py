"""Where positives rank, and how good ranking by popularity is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fl_rec.data.ranks import MOST, Ranked, by_popularity, figures
from fl_rec.evaluation.ranking import rank_metrics


def rows(users: int, items: int, positives: int, seed: int) -> np.ndarray:
    """Each user's list: some positives, among items of which some come twice."""
    rng = np.random.default_rng(seed)
    found = []
    for user in range(users):
        listed = rng.integers(0, items, 30)
        own = 1 + user % positives
        found += [(user, item, int(place < own)) for place, item in enumerate(listed)]
    return rng.permutation(np.array(found, np.int32))


@pytest.mark.parametrize("positives", [1, 3])
@pytest.mark.parametrize("top_k", [1, 5, 10, 29, 200])
def test_it_is_what_the_evaluation_would_say(positives: int, top_k: int) -> None:
    test, chosen = rows(40, 60, positives, seed=3), np.random.default_rng(4).integers(0, 6, 60)
    expected = rank_metrics(test[:, 0], test[:, 2], chosen[test[:, 1]], top_k, test[:, 1])
    groups = by_popularity(test, chosen)
    assert [each.positives for each in groups][:1] == [1] and sum(each.users for each in groups) == 40
    found = figures(groups, top_k)
    assert found == pytest.approx({f"hr@{top_k}": expected.hit_rate, f"ndcg@{top_k}": expected.ndcg}, abs=1e-12)


def test_a_tie_counts_against_it() -> None:
    test = np.array([[0, 0, 1], [0, 1, 0], [0, 2, 0], [7, 2, 1], [7, 1, 0]])
    (group,) = by_popularity(test, np.array([3, 3, 5]))
    assert group == Ranked(1, 2, (1, 0, 1), (1, 0, 1))
    assert figures([group], 1) == {"hr@1": 0.5, "ndcg@1": 0.5} and figures([group], 3) == {"hr@3": 1.0, "ndcg@3": 0.75}


def test_of_several_shards() -> None:
    one, other = Ranked(1, 3, (3,), (3,)), Ranked(1, 1, (), ())
    assert figures([one, other], 10) == {"hr@10": 0.75, "ndcg@10": 0.75}


def test_what_nothing_tells() -> None:
    assert figures([], 10) is None and figures([Ranked(1, 3, (3,), (3,))], MOST + 1) is None
    assert by_popularity(np.array([[0, 1, 0]]), np.array([1, 1])) == (), "nobody has a positive"


def test_ranks_far_away_are_not_listed() -> None:
    many = np.array([[0, item, int(item == 0)] for item in range(MOST + 1)])
    (group,) = by_popularity(many, np.arange(MOST + 1))
    assert group == Ranked(1, 1, (), ()) and json.dumps(figures([group], MOST)) == '{"hr@1000": 0.0, "ndcg@1000": 0.0}'
