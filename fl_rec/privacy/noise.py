"""What one worker adds of differential privacy's noise."""

from __future__ import annotations

import math
from typing import NamedTuple


class NoisePart(NamedTuple):
    """A worker's part of the noise.

    Attributes:
        share: the standard deviation of what it adds, over that of all; below 1 where others' noise hides it too.
        room: how far from 0 each number may be before it is added, so that what it comes to can be shared as it is.
    """

    share: float = 1.0
    room: float = math.inf


ALL_OF_IT = NoisePart()
