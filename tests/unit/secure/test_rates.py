"""How often something may happen, by a clock of the test's."""

from __future__ import annotations

from fl_rec.secure.rates import Rate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_much_at_once_and_so_much_a_second() -> None:
    clock = Clock()
    rate = Rate(3, 0.5, clock)
    assert [rate.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 1.9
    assert not rate.take()
    clock.now += 0.1
    assert [rate.take(), rate.take()] == [True, False]
    rate.give_back()
    assert [rate.take(), rate.take()] == [True, False]
    clock.now += 1000
    assert rate.left() == 3


def test_what_is_owed() -> None:
    clock = Clock()
    rate = Rate(10, 5, clock)
    assert (rate.owe(10), rate.owe(10)) == (0, 2)
    clock.now += 1
    assert rate.owe(0) == 1
    clock.now += 1
    assert rate.owe(0) == 0
