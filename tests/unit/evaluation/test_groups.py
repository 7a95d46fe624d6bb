"""Users by how much history they have."""

from __future__ import annotations

import numpy as np
import pytest

from fl_rec.evaluation.groups import BOUNDS, History, added, sums
from fl_rec.evaluation.ranking import Ranking


@pytest.mark.parametrize("factor", [1, 10**9], ids=["small ids", "large ones"])
def test_history_is_what_was_chosen(factor: int) -> None:
    users = np.repeat([3, 1, 8], [30, 20, 5]) * factor
    labels = np.ones(55, np.int8)
    labels[:10] = 0
    known = History.of((users[:, None], np.zeros((55, 1), np.int64), labels[:, None]))
    assert dict(zip(known.users.tolist(), known.counts.tolist())) == {1 * factor: 20, 3 * factor: 20, 8 * factor: 5}
    assert known.groups(np.array([1, 3, 8, 2, 9, 0]) * factor).tolist() == [1, 1, 0, 0, 0, 0]


def test_a_row_may_have_several_items() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    known = History.of((np.array([[4], [4], [7]]), np.zeros((3, 3), np.int64), labels))
    assert known.groups(np.array([4, 7])).tolist() == [0, 0] and known.counts.tolist()[0] == 4


@pytest.mark.parametrize(("count", "group"), [(0, 0), (19, 0), (20, 1), (49, 1), (50, 2), (99, 2), (100, 3), (200, 4)])
def test_bounds(count: int, group: int) -> None:
    known = History(np.array([5]), np.array([count]))
    assert known.groups(np.array([5])).tolist() == [group]
    assert History(np.empty(0, np.int64), np.empty(0, np.int64)).groups(np.array([5])).tolist() == [0]


def test_a_ranking_by_history_adds_up() -> None:
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(50), 10)
    labels, scores = np.tile([1] + [0] * 9, 50), rng.random(500)
    found = Ranking(users, labels, None, History(np.arange(50), np.arange(50) * 5)).measure(scores, 3)
    assert [each[0] for each in found.groups] == [4, 6, 10, 20, 10] and len(found.groups) == len(BOUNDS)
    assert sum(each[1] for each in found.groups) == found.hits > 0
    assert sum(each[2] for each in found.groups) == pytest.approx(found.ndcg_sum)
    alone = Ranking(users[:40], labels[:40]).measure(scores[:40], 3)
    assert (found.groups[0][1], found.groups[0][2]) == (alone.hits, pytest.approx(alone.ndcg_sum))
    assert alone.groups == (), "nobody has asked"


def test_sums_and_what_is_added() -> None:
    one = sums(np.array([0, 4, 4]), np.array([True, False, True]), np.array([0.5, 0.0, 1.0]))
    assert one == ((1, 1, 0.5), (0, 0, 0.0), (0, 0, 0.0), (0, 0, 0.0), (2, 1, 1.0))
    assert added([one, one])[4] == (4, 2, 2.0) and added([one, ()]) == () == added([])
