"""What benchmarks/secure_aggregation.py counts of the messages between clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fl_rec.privacy.secure_sum.member import Member


@pytest.fixture
def benchmark(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("secure_aggregation")


def test_bytes_of_dealing_are_those_of_keys_and_of_all_shares_to_each_other(benchmark: Any) -> None:
    members = [Member(number) for number in range(5)]
    keys = {member.number: member.keys for member in members}
    dealt = members[0].deal(keys, 4)
    # gloo tells everyone everything: of what a client has for each, zeros for itself.
    told = len(dealt[1]) * 5 + 8 + len(keys[0])
    found = benchmark.dealing(5)
    assert found["sent_bytes"] == 4 * told == 4 * (8 + 64 + 5 * 48)
    assert found["sent_bytes"] < 4 * benchmark.between_clients(5, secure=True)
    assert found["deal_seconds"] > 0 and found["read_seconds"] > 0
