"""A worker in the place of one that was lost: it keeps in step with the others, and neither trains nor tests.

Paddle's barriers need every worker, so that who goes on without one has somebody sit in its place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_rec.evaluation.evaluator import Evaluator
from fl_rec.evaluation.metrics import Evaluation
from fl_rec.nets.structure import Structure
from fl_rec.runs.directory import AWAY_KEY
from fl_rec.trainer.local_training import LocalTraining

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet


class AwayTraining(LocalTraining):
    """Trains nothing until a worker is back.

    Args:
        local: how it trains then.
        until: the epoch with which it comes back.

    Attributes:
        away: whether it is.
    """

    def __init__(self, local: LocalTraining, until: float) -> None:
        super().__init__(local.rows)
        self._local, self._until = local, until
        self.away = True

    @property
    def structure(self) -> Structure | None:
        return self._local.structure

    def begin_epoch(self, epoch: int) -> None:
        self.away = epoch < self._until
        self._local.begin_epoch(epoch)

    def portions(self, local_epochs: float, exchanges: int) -> Sequence[int]:
        return [0] * max(exchanges, 1) if self.away else self._local.portions(local_epochs, exchanges)

    def train(self, portion: int, title: str) -> None:
        if self.away:
            self._local.sit_out()
        else:
            self._local.train(portion, title)

    def state(self) -> dict[str, np.ndarray]:
        return self._local.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._local.restore(state)

    def figures(self) -> Mapping[str, Any]:
        return self._local.figures()

    def result(self) -> Mapping[str, Any]:
        return self._local.result()

    def __str__(self) -> str:
        return str(self._local)

    def close(self) -> None:
        self._local.close()


class AwayEvaluator:
    """Tests nothing until a worker is back; see `Evaluator`."""

    def __init__(self, evaluator: Evaluator, local: AwayTraining) -> None:
        self._evaluator, self._local = evaluator, local
        self.validates = evaluator.validates

    def evaluate(self, net: InferenceNet) -> tuple[Evaluation, Evaluation]:
        return (Evaluation(), Evaluation()) if self._local.away else self._evaluator.evaluate(net)


def unless_lost(worker: int, local: LocalTraining, evaluator: Evaluator) -> tuple[LocalTraining, Any]:
    """How a worker trains and tests: as given, unless the launcher says that it was lost."""
    entries = (entry.split(":") for entry in os.environ.get(AWAY_KEY, "").split(",") if entry)
    until = {int(number): float(epoch) for number, epoch in entries}.get(worker)
    if until is None:
        return local, evaluator
    away = AwayTraining(local, until)
    return away, AwayEvaluator(evaluator, away)
