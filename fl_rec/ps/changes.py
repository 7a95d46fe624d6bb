"""What clients change of a model: whether it can be learning, and what many come to. No Paddle here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# L2 norm above which numbers are no learning; weights of a net are thousands at most.
LARGEST = 1e12
# A client whose changes are so many times as long as the others' median is named.
OUTLIER = 5.0
# Fewer clients than this have no median to speak of.
_LEAST_CLIENTS = 4


def norm(values: Iterable[np.ndarray]) -> float:
    """The L2 norm of all numbers of some float32 arrays; infinity above float32's largest, NaN with one that is NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(sum(float(np.vdot(each, each)) for each in values))


def sound(length: Any) -> Any:
    """Whether numbers of such a norm, or of each of several, can be learning; NaN's and infinity's can't."""
    return np.abs(length) <= LARGEST


def clip(length: float, longest: float | None) -> float:
    """The factor by which changes of such a norm are no longer than `longest`; None: they may be as they are."""
    return 1.0 if longest is None or length <= longest else longest / length


def outliers(lengths: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Who of some clients is far beyond the others.

    Args:
        lengths: float [clients], at least 0.
        who: bool [clients], those that count.

    Returns:
        bool [clients].
    """
    if np.count_nonzero(who) < _LEAST_CLIENTS:
        return np.zeros(len(lengths), bool)
    far: np.ndarray = who & (lengths > OUTLIER * np.median(lengths[who]))
    return far


def trimmed(changes: np.ndarray, trim: float) -> np.ndarray:
    """The mean of each number over clients, without so many of the largest and of the smallest (arXiv:1803.01498).

    Args:
        changes: float32 [clients, ...], at least one client; its memory is used.
        trim: share of the clients that are left out at either end, rounded up; one or two are left in any case, so
            that 0.5 is the median.

    Returns:
        float32 [...].
    """
    clients = len(changes)
    cut = min(math.ceil(round(trim * clients, 9)), (clients - 1) // 2)
    _sort(changes)
    mean: np.ndarray = changes[cut : clients - cut].mean(axis=0)
    return mean


def _sort(values: Sequence[np.ndarray] | np.ndarray) -> None:
    """Sorts along the first axis, in place.

    By comparing neighbours, which for ten clients is 45 passes over memory: several times as fast as numpy's sort of
    half a million short columns.
    """
    count = len(values)
    for step in range(count):
        for low in range(step % 2, count - 1, 2):
            smaller = np.minimum(values[low], values[low + 1])
            np.maximum(values[low], values[low + 1], out=values[low + 1])
            values[low][...] = smaller
