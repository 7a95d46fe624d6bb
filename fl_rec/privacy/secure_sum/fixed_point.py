"""Numbers of float32 as multiples of one step, that add up exactly modulo 2^32, and in tables of float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# 2^-22, about 2.4e-7. What a client sends is rounded to the nearest multiple, so that a sum is off by half a step for
# each client at most.
STEP = 2.0**-22
# Steps that a sum may have, 256 in all. That is half of what 32 bits hold, so that what is no sum of clients' numbers
# shows: each number of it is out of bounds with a chance of a half.
_MOST = 1 << 30
# Bits of a limb: float32 has all integers up to 2^24, and so all sums of 256 limbs.
_LIMB = 16
MOST_CLIENTS = 1 << (24 - _LIMB)


def limit(clients: int) -> float:
    """How far from 0 each number of each of so many clients may be."""
    return (_MOST // clients) * STEP


def encoded(values: np.ndarray, clients: int) -> np.ndarray | None:
    """Multiples of the step modulo 2^32, uint32, of float32; None if one of them is beyond `limit` or no number."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(values * np.float32(1 / STEP))
    within = bool(np.all(np.abs(steps) <= _MOST // clients))  # False of NaN
    return steps.astype(np.int32).view(np.uint32) if within else None


def decoded(total: np.ndarray, factor: float, clients: int) -> np.ndarray | None:
    """Float32 of a sum of so many clients' encoded numbers times a factor; None if it can't be such a sum."""
    steps = total.view(np.int32)
    within = bool(np.all(np.abs(steps.astype(np.int64)) <= clients * (_MOST // clients)))
    return (steps * (STEP * factor)).astype(np.float32) if within else None


def limbs(values: np.ndarray) -> list[np.ndarray]:
    """Two integers of 16 bits in float32, of uint32; the lower ones first."""
    return [(values & np.uint32((1 << _LIMB) - 1)).astype(np.float32), (values >> np.uint32(_LIMB)).astype(np.float32)]


def joined(sums: Sequence[np.ndarray], clients: int) -> np.ndarray | None:
    """Uint32 of the sums of up to so many clients' limbs, float32; None if they can't be such sums."""
    most = clients * ((1 << _LIMB) - 1)
    if not all(bool(np.all((each >= 0) & (each <= most) & (each == np.rint(each)))) for each in sums):
        return None
    low, high = (each.astype(np.uint32) for each in sums)
    return low + (high << np.uint32(_LIMB))
