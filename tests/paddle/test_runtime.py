"""What workers tell each other, with sums that are made here."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.ps.runtime import PsRuntime

WORKERS = 3


class Sums:
    """Gloo's sums, and how many numbers went into each."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._given: list[np.ndarray] = []
        self._together = threading.Barrier(WORKERS, timeout=30)

    def all_reduce(self, values: np.ndarray, mode: str, world: str) -> np.ndarray:
        assert (values.dtype, mode, world) == (np.int64, "sum", "worker")
        assert values.min() >= 0, "or workers would not all sum numbers of one type"
        self._given.append(values)
        self._together.wait()
        total = sum(self._given)
        if self._together.wait() == 0:
            self.sizes.append(values.size)
            self._given.clear()
        self._together.wait()
        return total


@pytest.fixture()
def sums() -> Sums:
    return Sums()


@pytest.fixture()
def runtimes(sums: Sums) -> list[Any]:
    made = []
    for index in range(WORKERS):
        runtime: Any = PsRuntime.__new__(PsRuntime)
        runtime.role, runtime.fleet = SimpleNamespace(index=index, num_workers=WORKERS), SimpleNamespace(util=sums)
        runtime._within_deadline, runtime._room = lambda what: contextlib.nullcontext(), {}
        made.append(runtime)
    return made


def gathered(runtimes: list[Any], values: np.ndarray) -> list[np.ndarray]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda runtime, mine: runtime.gather(mine, "figures"), runtimes, values))


@pytest.mark.parametrize("n", [1, 4, 5000])
def test_a_gather_is_exact_for_all(runtimes: list[Any], n: int) -> None:
    """NaN, infinities and the last bits too."""
    values = np.random.default_rng(n).normal(size=(WORKERS, n)) * 10.0 ** np.arange(-100, 200, 100)[:, None]
    values[1, 0], values[2, 0] = np.nan, -np.inf
    for _ in range(2):
        for told in gathered(runtimes, values):
            assert told.dtype == np.float64 and told.tobytes() == values.tobytes()


def test_counts_travel_small_once_their_size_is_known(sums: Sums, runtimes: list[Any]) -> None:
    values = np.random.default_rng(0).poisson(3.0, (WORKERS, 16_401)).astype(np.float64)
    gathered(runtimes, values)
    gathered(runtimes, values)
    tried, known, again = sums.sizes
    assert tried < known == again < values.size / 6
    gathered(runtimes, values[:, :1])
    assert sums.sizes[3:] == [WORKERS * 5], "small ones stay small"
