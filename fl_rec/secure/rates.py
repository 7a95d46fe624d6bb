"""How often something may happen."""

from __future__ import annotations

import time
from collections.abc import Callable


class Rate:
    """So much at once, and so much more a second.

    Args:
        burst: at once, after a pause.
        per_second: what comes back.
        clock: seconds, for tests.
    """

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst, self._per_second, self._clock = burst, per_second, clock
        self._left, self._at = burst, clock()

    def take(self, amount: float = 1.0) -> bool:
        """Takes it, unless there is less."""
        if self.left() < amount:
            return False
        self._left -= amount
        return True

    def owe(self, amount: float) -> float:
        """Takes it all the same; the seconds after which nothing is owed any more."""
        self._left = self.left() - amount
        return max(0.0, -self._left / self._per_second)

    def give_back(self) -> None:
        """Of one that was taken and does not count."""
        self._left = min(self.burst, self.left() + 1)

    def left(self) -> float:
        now = self._clock()
        self._left = min(self.burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left
