"""A worker in the place of one that was lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fl_rec.evaluation.metrics import Evaluation
from fl_rec.runs.directory import AWAY_KEY
from fl_rec.trainer.away import AwayTraining, unless_lost


class Local:
    """Trains what it is told."""

    rows = SimpleNamespace(count=7)
    structure = "a structure"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def begin_epoch(self, epoch: int) -> None:
        self.calls.append(epoch)

    def portions(self, local_epochs: float, exchanges: int) -> list[int]:
        return [4, 3]

    def train(self, portion: int, title: str) -> None:
        self.calls.append((portion, title))

    def sit_out(self) -> None:
        self.calls.append("away")

    def state(self) -> dict[str, int]:
        return {"rows": 1}


TESTED = Evaluation(4, 2, 1.0), Evaluation(3, 1, 1.0)
EVALUATOR: Any = SimpleNamespace(validates=True, evaluate=lambda net: TESTED)


def test_nobody_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AWAY_KEY, raising=False)
    local: Any = Local()
    assert unless_lost(1, local, EVALUATOR) == (local, EVALUATOR)
    monkeypatch.setenv(AWAY_KEY, "0:3,2:inf")
    assert unless_lost(1, local, EVALUATOR) == (local, EVALUATOR)


def test_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AWAY_KEY, "0:9,1:3")
    inner: Any = Local()
    local, evaluator = unless_lost(1, inner, EVALUATOR)
    assert isinstance(local, AwayTraining) and local.structure == "a structure" and local.shard_rows == 7
    local.begin_epoch(2)
    assert local.portions(1.0, 2) == [0, 0] and local.portions(1.0, 0) == [0]
    local.train(4, "epoch 2")
    assert evaluator.evaluate(None) == (Evaluation(), Evaluation()) and evaluator.validates
    local.begin_epoch(3)
    assert local.portions(1.0, 2) == [4, 3]
    local.train(4, "epoch 3")
    assert evaluator.evaluate(None) == TESTED and local.state() == {"rows": 1}
    assert inner.calls == [2, "away", 3, (4, "epoch 3")]
