"""What benchmarks/tunnel.py makes of two jobs' figures, and what it says where it can't start any."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def tunnel(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("tunnel")


def epoch(seconds: float, hr: float) -> dict[str, float]:
    return {"seconds": seconds, "exchange_seconds": seconds / 10, "hr": hr, "ndcg": hr / 2}


def test_an_epoch_is_the_median_and_bytes_are_those_after_the_first(tunnel: Any) -> None:
    spent = [tunnel.Spent(5_000, 1.0), tunnel.Spent(6_000, 1.5), tunnel.Spent(9_000, 4.0)]
    cost = tunnel.cost_of([epoch(9, 0.1), epoch(2, 0.2), epoch(3, 0.3)], spent)
    expected = {"seconds": 3, "exchange_seconds": 0.3, "wire_bytes": 2000, "tunnel_seconds": 1.5}
    assert cost == pytest.approx({**expected, "hr": 0.3, "ndcg": 0.15})


def test_roles_lie_on_the_hosts_in_turn(tunnel: Any) -> None:
    servers, workers, link = tunnel.layout(["a", "b", "c"], 4)
    assert (servers, link) == ("--servers=a:8900,b:8900", "--insecure")
    assert workers == "--workers=a:8800,b:8801,c:8802,a:8803"


def test_both_ways_side_by_side(tunnel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "describe_data", lambda data: {"workers": data.num_shards})
    spent = {"direct": [tunnel.Spent(0, 0.0), tunnel.Spent(1_000, 0.01)]}
    spent["tunnel"] = [tunnel.Spent(0, 0.0), tunnel.Spent(1_200, 2.0)]
    found = {
        way: [tunnel.cost_of([epoch(seconds, 0.7)] * 2, spent[way]) for seconds in those]
        for way, those in {"direct": (1.0, 2.0), "tunnel": (5.0, 4.0)}.items()
    }
    args = argparse.Namespace(config=tunnel.BEST_CONFIG, epochs=2, pairs=2, openvpn="")
    made = tunnel.report(args, argparse.Namespace(num_shards=10), found)
    title, _, _, *lines = made.text.splitlines()
    assert title == "ml1m_best.yaml, 10 workers on 3 hosts, 10 exchanges an epoch: one epoch"
    assert lines[0].split()[-3:] == ["1.50", "4.50", "3.00"]
    assert lines[2].split()[-3:] == ["1,000", "1,200", "1.20"]
    assert lines[3].split()[-3:] == ["0.01", "2.00", "-"]
    assert made.figures["ratio"]["wire_bytes"] == 1.2 and made.figures["ratio"]["hr"] == 1.0
    json.dumps(made.figures)


@pytest.mark.parametrize(
    ("programs", "user", "said"),
    [
        (("ip", "nft"), 0, "The tunnel needs openvpn, nft. Received: a machine without openvpn."),
        (("ip", "nft", "openvpn"), 1000, "Network namespaces need root and the command ip."),
    ],
)
def test_where_it_cannot_run_it_says_why(
    tunnel: Any,
    programs: tuple[str, ...],
    user: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, *_: name if name in programs else None)
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr(sys, "argv", ["tunnel.py", "--quick"])
    monkeypatch.setattr("fl_rec.environment.check", lambda: None)
    assert tunnel.main() == 2
    assert said in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["tunnel.py", "--epochs", "1"])
    with pytest.raises(SystemExit):
        tunnel.main()
    assert "must be at least 2. Received: 1" in capsys.readouterr().err
