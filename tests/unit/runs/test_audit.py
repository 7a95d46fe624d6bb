"""RUN/audit.jsonl: what is written, and how little of a flood."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fl_rec.runs.audit import LONGEST, REFUSALS, SECONDS, Audit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    audit.tell("joined", "client-0", "from 10.0.0.1:5")
    audit.tell("refused", "10.0.0.9:7", "x" * 9999, "token")
    audit.tell("finished", "client-0", "in round 3")
    audit.close()
    first, second, third = lines(path)
    assert list(first) == ["time", "what", "who", "why"] and first["time"].endswith("+00:00")
    assert (first["what"], first["who"], first["why"]) == ("joined", "client-0", "from 10.0.0.1:5")
    assert second["why"] == "x" * LONGEST and third["what"] == "finished"
    assert [each.levelname for each in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert "joined: client-0: from 10.0.0.1:5" in caplog.text


def test_a_flood_in_several_threads_is_counted(tmp_path: Path) -> None:
    def clock() -> float:
        time.sleep(0.001)  # so that another thread has its turn
        return 0.0

    audit = Audit(tmp_path / "audit.jsonl", clock)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: audit.tell("refused", f"{number}", "why"), range(4 * REFUSALS)))
    audit.close()
    assert sum(1 + each.get("untold", 0) for each in lines(tmp_path / "audit.jsonl")) == 4 * REFUSALS


def test_a_flood_is_counted(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "audit.jsonl"
    audit = Audit(path, clock)
    for number in range(10_000):
        audit.tell("refused", f"10.0.0.1:{number}", "why", "token")
    audit.tell("refused", "10.0.0.2:1", "another kind", "certificate")
    assert [each["who"] for each in lines(path)] == [*(f"10.0.0.1:{k}" for k in range(REFUSALS)), "10.0.0.2:1"]
    clock.now += SECONDS
    for number in range(5):
        audit.tell("refused", f"10.0.0.3:{number}", "why", "token")
    assert lines(path)[-1]["who"] == "10.0.0.3:0"
    assert lines(path)[-1]["untold"] == 10_000 - REFUSALS
    audit.close()
    audit.close()
    last = lines(path)
    assert (last[-1]["who"], last[-1]["untold"]) == ("10.0.0.3:4", 3)
    assert sum(1 + each.get("untold", 0) for each in last) == 10_006, "each is written or counted"
    for _ in range(1000):  # what clients that are known do is not left out
        audit.tell("excluded", "client-1", "no report in time")
    assert len(lines(path)) == len(last) + 1000


def test_where_it_can_not_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(tmp_path / "no" / "audit.jsonl")
    audit.tell("refused", "10.0.0.9:7", "why", "token")
    assert "refused: 10.0.0.9:7: why" in caplog.text and "audit.jsonl can't be written (No such file" in caplog.text
