"""What clients change of a model: whether it can be learning, and what many come to. No Paddle here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

# L2 norm above which numbers are no learning; weights of a net are thousands at most.
LARGEST = 1e12
# A client whose changes are so many times as long as the others' median is named.
OUTLIER = 5.0
# Fewer clients than this have no median to speak of.
_LEAST_CLIENTS = 4
# Numbers of each client; what fits a processor's cache is sorted in a third of the time.
_AT_ONCE = 1 << 15


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
        changes: float32 [clients, numbers], at least one client.
        trim: share of the clients that are left out at either end, rounded up; one or two are left in any case, so
            that 0.5 is the median.

    Returns:
        float32 [numbers], to the bit the same of the same clients in the same order.
    """
    clients, numbers = changes.shape
    cut = min(math.ceil(round(trim * clients, 9)), (clients - 1) // 2)
    mean: np.ndarray = np.empty(numbers, np.float32)
    for start in range(0, numbers, _AT_ONCE):
        part = changes[:, start : start + _AT_ONCE].copy()
        _extremes_outside(part, cut)
        part[cut : clients - cut].mean(axis=0, out=mean[start : start + _AT_ONCE])
    return mean


def _extremes_outside(values: np.ndarray, cut: int) -> None:
    """Brings the `cut` smallest of each column to its front and the largest to its end, in place.

    By comparing neighbours: numpy's own sort takes ten times as long for half a million short columns.
    """
    last = len(values) - 1
    for done in range(cut):
        for low in [*range(done, last - done), *range(last - done - 2, done - 1, -1)]:
            smaller = np.minimum(values[low], values[low + 1])
            np.maximum(values[low], values[low + 1], out=values[low + 1])
            values[low] = smaller
