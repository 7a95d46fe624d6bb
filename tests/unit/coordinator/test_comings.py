"""Who comes to the door: origins, strangers of whom the oldest goes, and how often an origin may come."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from fl_rec.coordinator import comings
from fl_rec.coordinator.comings import Comings, Strangers, origin_of
from fl_rec.secure.rates import Rate


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("?", "?"),
    ],
)
def test_an_origin_is_an_address_or_a_network(host: str, origin: str) -> None:
    assert origin_of(host) == origin


def test_the_oldest_of_the_origin_that_has_most() -> None:
    """As one would count it, through 3,000 comings and goings."""
    draw, all_of_them, held = random.Random(5), [], Strangers()
    for _ in range(3000):
        if all_of_them and draw.random() < 0.45:
            gone: Any = all_of_them.pop(draw.randrange(len(all_of_them)))
            held.discard(gone)
            held.discard(gone)  # told twice
        else:
            all_of_them.append(_Guest(draw.choice("abcdefg")))
            held.add(all_of_them[-1])
        counts = Counter(each.origin for each in all_of_them)
        assert len(held) == len(all_of_them)
        if all_of_them:
            oldest = held.oldest()
            assert counts[oldest.origin] == max(counts.values())
            assert oldest is next(each for each in all_of_them if each.origin == oldest.origin)
    for each in all_of_them:
        held.discard(each)
    assert vars(held) == vars(Strangers())


def test_none_but_the_one_that_goes_is_looked_at() -> None:
    """An attacker has as many addresses as the door takes strangers."""
    looks = 0

    class Seen(_Guest):
        @property
        def origin(self) -> str:
            nonlocal looks
            looks += 1
            return self._origin

    held = Strangers()
    for number in range(1000):
        held.add(Seen(f"10.0.{number >> 8}.{number & 255}"))
    before = looks
    held.oldest()
    assert looks == before


def test_who_came_of_late_is_known_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 0.0, 0

    class Looked(Rate):
        def left(self) -> float:
            nonlocal looks
            looks += 1
            return super().left()

    monkeypatch.setattr(comings, "Rate", lambda burst, more: Looked(burst, more, lambda: now))
    came = Comings(2, 5.0)
    for number in range(1000):
        assert came.take(f"192.0.2.{number}")
    assert looks < 3 * 1000, "one that comes looks at itself and the oldest"
    assert [came.take("192.0.2.1") for _ in range(2)] == [True, False]
    now = 2.0
    assert came.take("a") and len(came._rates) == 1001
    now = 4.0
    assert came.take("b") and list(came._rates) == ["192.0.2.1", "a", "b"]


class _Guest(SimpleNamespace):
    def __init__(self, origin: str) -> None:
        super().__init__()
        self._origin = origin

    @property
    def origin(self) -> str:
        return self._origin

    __hash__ = object.__hash__
    __eq__ = object.__eq__
