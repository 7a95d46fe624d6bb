"""benchmarks/sizing.py, by the model that is recorded and by one that is made up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_rec.errors import DataError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def sizing() -> Iterator[Any]:
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import sizing

        yield sizing
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
                del sys.modules[name]


def play(sizing: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sizing.py", *arguments])
    code: int = sizing.main()
    return code


def test_a_table_for_ten_a_thousand_and_a_hundred_thousand(
    sizing: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(sizing, monkeypatch, "--quick") == 0
    *table, line = capsys.readouterr().out.splitlines()
    assert "10 Gbit/s for each server" in table[0]
    figures = json.loads(line)
    assert (figures["benchmark"], figures["failures"]) == ("sizing", [])
    assert [each["clients"] for each in figures["fleets"]] == [10, 1_000, 1_000, 100_000, 100_000]
    ten = figures["fleets"][0]
    # By hand: 5 exchanges, in each of which a worker asks for 4,000 ids and sends what it has trained, 136 bytes each.
    sent = 5 * (9590 + 0.992 * 4000 * 136 + 12 * 4000) + 5 * (11200 + 4000 * 128)
    assert ten["bytes_per_worker"] == pytest.approx(sent, rel=1e-3)
    assert ten["memory"] == pytest.approx(10 * ten["worker_memory"] + ten["servers"] * ten["server_memory"])
    assert ten["worker_memory"] == pytest.approx(2.97e8 + 14.3 * 200_000 + 1150 * 1000 + (36.1 + 6.25 * 128) * 4000)


def test_the_fewest_servers(sizing: Any) -> None:
    """Servers that need a second each for a worker and exchange, with workers that need 0.1 s for it."""
    growth_model = sys.modules[sizing.Model.__module__]
    each = {"worker_cpu": 0.1, "server_cpu": 1.0, "sent": 0.0, "received": 0.0}
    keys = [(quantity, "synchronous") for quantity in each]
    terms = {
        key: {**dict.fromkeys(growth_model.BY_MODE[key], 0.0), "worker and exchange": each[key[0]]} for key in keys
    }
    model = sizing.Model(terms, 2)
    # 5 exchanges of 32 workers, 8 cores: 20 s of one server. A worker's 0.5 s and 0.032 of waiting come on top, so that
    # an epoch takes 0.84 s with 64 servers, of which 1.5 times are 1.27; with 32 it is 1.16, with 16 1.78.
    fleet = sizing.Fleet(32, 32, rows=0, users=1)
    spent = model.cluster(fleet.point(4000, 32), 8, sizing.BANDWIDTH, sizing.LATENCY)
    assert (spent["servers' processors"], spent["workers' exchange"]) == pytest.approx((0.625, 0.5))
    assert sizing.servers_for(model, fleet, 4000) == 32


def test_a_model_that_is_wrong_is_a_failure(
    sizing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.loads(sizing.RECORDED.read_text())
    for point in line["points"]:
        point["sent"] *= 1.6 if point["checks"] else 3  # those that were fitted are not looked at
    path = tmp_path / "growth.json"
    path.write_text(json.dumps(line))
    assert play(sizing, monkeypatch, "--quick", "--growth", str(path)) == 1
    assert "within 1.5 times what was measured. Received: sent 0.61 times." in capsys.readouterr().err
    path.write_text("{}")
    with pytest.raises(DataError, match=r"must be the last line of growth.py, in a file. Received: .*growth.json"):
        sizing.read(path)
