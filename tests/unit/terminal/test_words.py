"""Figures, settings and paths, as people say them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fl_rec.terminal.words import changed, compared, duration, place, plural, shown, signed


@pytest.mark.parametrize(
    ("hr", "text"),
    [
        (0.463, "0.011 above popularity (0.452): a hit for 1.1 more of 100 users"),
        (0.4524, "as good as popularity (0.452), which needs no model"),
        (0.419, "0.033 BELOW popularity (0.452): ranking by counts is better"),
    ],
)
def test_against_popularity(hr: float, text: str) -> None:
    assert compared(hr, 0.452) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (94, "1 min 34 s")),
        *((3599.7, "1 h 0 min"), (7510, "2 h 5 min")),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((True, "true"), (None, "null"), (0.001, "0.001"), ("bpr", "bpr"), ("/a/b/net.py", "net.py")),
        *(([64, 32], "[64, 32]"), ({"k": 3, "*": [1]}, "{k: 3, *: [1]}")),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert shown(value) == text


def test_settings_without_what_is_said_elsewhere() -> None:
    settings = {
        "runner.epochs": 3,
        "runner.geo_step": 20,
        "runner.run_dir": "x",
        "hyper_parameters.optimizer.class": "sgd",
    }
    assert changed({**settings, "coordinator.strategy": "utility"}) == (
        "geo_step=20, optimizer.class=sgd, coordinator.strategy=utility"
    )
    assert changed({"runner.epochs": 3}) == ""


def test_a_path_as_one_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place(tmp_path / "runs" / "a") == "runs/a" and place(tmp_path.parent / "b") == str(tmp_path.parent / "b")


def test_counts_and_differences() -> None:
    assert (plural(1, "epoch"), plural(1200, "row"), plural(0, "epoch")) == ("1 epoch", "1,200 rows", "0 epochs")
    assert (signed(0.0114), signed(-0.5), signed(math.nan)) == ("+0.011", "-0.500", "")
