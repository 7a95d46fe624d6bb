"""What many clients' changes come to, number by number; no Paddle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_rec.ps import changes


@pytest.mark.parametrize("clients", [1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize("trim", [0.0, 0.1, 0.3, 0.49, 0.5])
def test_the_mean_without_the_extremes(clients: int, trim: float) -> None:
    numbers = changes._AT_ONCE + 5
    values = np.random.default_rng(clients).normal(size=(clients, numbers)).astype(np.float32)
    before = values.copy()
    cut = min(math.ceil(trim * clients - 1e-9), (clients - 1) // 2)
    wanted = np.sort(values, axis=0)[cut : clients - cut].mean(axis=0)
    found = changes.trimmed(values, trim)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(values, before)
    if trim == 0.5:
        np.testing.assert_allclose(found, np.median(values, axis=0), atol=1e-6)


def test_one_of_ten_moves_nothing_far() -> None:
    values = np.random.default_rng(0).normal(size=(10, 1000)).astype(np.float32)
    values[3] = 1e12
    found = changes.trimmed(values, 0.1)
    others = np.delete(values, 3, axis=0)
    assert (found <= others.max(axis=0)).all() and (found >= others.min(axis=0)).all()


def test_norms() -> None:
    assert changes.norm([np.float32([3]), np.float32([[0, 4]])]) == 5
    assert changes.sound(np.array([0, 1e12, 1.1e12, math.nan, math.inf])).tolist() == [True, True, False, False, False]
    assert not changes.sound(-1.1e12), "of a client that says so"
    assert math.isinf(changes.norm([np.float32([1e30])])) and math.isnan(changes.norm([np.float32([math.nan, 1])]))
    assert [changes.clip(length, 2.0) for length in (1.0, 2.0, 8.0)] == [1, 1, 0.25] and changes.clip(8.0, None) == 1


def test_outliers() -> None:
    lengths, all_of = np.array([1.0, 2.0, 3.0, 10.1, 0.0]), np.array([True, True, True, True, False])
    assert changes.outliers(lengths, all_of).tolist() == [False] * 5
    assert changes.outliers(np.array([1.0, 2.0, 2.0, 10.1, 99.0]), all_of).tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]
