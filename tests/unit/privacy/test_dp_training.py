"""Users and their rows, of which rounds with differential privacy draw. What needs Paddle is in tests/paddle."""

from __future__ import annotations

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.privacy.dp_training import _Users

# Of users 2, 5 and 9, whose rows take turns.
USERS = np.array([[9], [2], [5], [2], [9], [9]])
ITEMS = np.array([[10], [20], [30], [21], [11], [12]])


class Coins:
    """A generator whose coins are known."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def random(self, count: int) -> np.ndarray:
        assert count == len(self.values), "a coin a user"
        return np.array(self.values)


def drawn(chance: float, *coins: float) -> list[list[list[int]]]:
    """User and items of each user who is drawn."""
    slots = _Users([USERS, ITEMS]).draw(chance, Coins(*coins))  # type: ignore[arg-type]
    return [[slot[:, 0].tolist() for slot in each] for each in slots]


def test_each_users_rows_are_together_and_in_their_order() -> None:
    assert drawn(1.0, 0.0, 0.5, 0.999) == [[[2, 2], [20, 21]], [[5], [30]], [[9, 9, 9], [10, 11, 12]]]


def test_a_user_is_drawn_whose_coin_is_below_the_chance() -> None:
    assert [user for (user, *_), _ in drawn(0.3, 0.29, 0.31, 0.1)] == [2, 9]
    assert drawn(0.3, 0.3, 0.3, 0.9) == []


def test_each_is_drawn_with_the_chance_and_independently() -> None:
    generator, times = np.random.default_rng(3), 4000
    users = _Users([USERS, ITEMS])
    found = np.zeros((times, 10))
    for each in found:
        each[[int(slots[0][0, 0]) for slots in users.draw(0.2, generator)]] = 1
    found = found[:, [2, 5, 9]]
    # Within four standard errors of a chance of 0.2, and of pairs' 0.04.
    assert found.mean(axis=0).tolist() == pytest.approx([0.2] * 3, abs=4 * (0.16 / times) ** 0.5)
    pairs = (found[:, [0, 0, 1]] * found[:, [1, 2, 2]]).mean(axis=0)
    assert pairs.tolist() == pytest.approx([0.04] * 3, abs=4 * (0.04 * 0.96 / times) ** 0.5)


def test_nobody_can_be_drawn_of_no_rows() -> None:
    nothing = np.empty((0, 1), np.int64)
    assert list(_Users([nothing, nothing]).draw(1.0, Coins())) == []  # type: ignore[arg-type]


def test_two_users_of_a_row() -> None:
    with pytest.raises(DataError, match="A training row must have one user, who is kept private. Received: 2 values"):
        _Users([np.zeros((1, 2), np.int64)])
