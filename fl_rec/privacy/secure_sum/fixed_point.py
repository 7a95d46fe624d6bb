"""Numbers of float32 as multiples of one step, that add up exactly modulo a power of 2, in tables of float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FixedPoint:
    """Integers that a job of so many clients adds up.

    A table of float32 has all integers from -2^24 to 2^24: so a number goes there in limbs that are small enough for
    the limbs of all clients to add up within these, in any order.

    Attributes:
        clients: how many there are.
        limbs: of how many a number is.
        bits: of each.
        step: what an integer of 1 stands for; a client's number is rounded up or down to a multiple of it by chance, so
            that it is the number on average, and a sum off by less than a step for each client.
    """

    clients: int
    limbs: int
    bits: int
    step: float

    @classmethod
    def of(cls, clients: int) -> FixedPoint:
        """One limb up to 16 clients, which costs half as much as the two of more."""
        return cls(clients, 1, 21, 2.0**-16) if clients <= 16 else cls(clients, 2, 16, 2.0**-22)

    @property
    def most(self) -> int:
        """How far from 0 each of a client's integers may be.

        All of them come to half of what there is room for, so that what is no sum of theirs shows: each number of it
        is beyond with a chance of a half. A multiple of 4, which float32 has up to 2^26.
        """
        return (1 << (self.limbs * self.bits - 2)) // self.clients & ~3

    @property
    def limit(self) -> float:
        """How far from 0 each of a client's numbers may be."""
        return self.most * self.step

    def encoded(self, values: np.ndarray, factor: float, generator: np.random.Generator) -> np.ndarray:
        """Integers, as uint32 and modulo 2^32, of finite float32 times a factor; those beyond `most` become that."""
        steps = np.multiply(values, np.float32(factor / self.step))
        steps += generator.random(len(values), np.float32)
        np.floor(steps, out=steps)
        np.clip(steps, -self.most, self.most, out=steps)
        rounded: np.ndarray = steps.astype(np.int32).view(np.uint32)
        return rounded

    def decoded(self, total: np.ndarray, factor: float) -> np.ndarray | None:
        """Float32 of a sum of encoded numbers times a factor; None if it can't be such a sum."""
        steps, most = _signed(total, self.limbs * self.bits), self.clients * self.most
        return steps.astype(np.float32) * np.float32(self.step * factor) if _within(steps, most) else None

    def limb(self, values: np.ndarray, place: int) -> np.ndarray:
        """One limb of uint32, integers in float32; the first is the lowest."""
        for _ in range(place):
            values = (values - _signed(values, self.bits).view(np.uint32)) >> np.uint32(self.bits)
        return _signed(values, self.bits).astype(np.float32)

    def add_limb(self, total: np.ndarray, sums: np.ndarray, place: int) -> bool:
        """Adds sums of limbs, float32, to a total, uint32, in place; False if they can't be such sums."""
        if not _within(sums, self.clients << (self.bits - 1)):
            return False
        total += sums.astype(np.int32).view(np.uint32) << np.uint32(self.bits * place)
        return True


# Of two limbs: half of 2^16 for each.
MOST_CLIENTS = 1 << (24 - 15)


def _signed(values: np.ndarray, bits: int) -> np.ndarray:
    """The lowest bits of uint32 as integers from -2^(bits - 1), int32."""
    above = np.uint32(32 - bits)
    signed: np.ndarray = (values << above).view(np.int32)
    signed >>= above.astype(np.int32)
    return signed


def _within(values: np.ndarray, most: int) -> bool:
    """False of any that is no number, too."""
    return bool(values.min(initial=0) >= -most and values.max(initial=0) <= most)
