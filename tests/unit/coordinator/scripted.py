"""A strategy that decides as a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fl_rec.coordinator.messages import ClientReport, Decision
from fl_rec.coordinator.strategies import Fleet, Strategy

Decide = Callable[[Mapping[int, ClientReport], int], Any]


class Scripted(Strategy):
    """Decides as a test says."""

    def __init__(self, fleet: Fleet, decide: Decide) -> None:
        super().__init__(fleet)
        self.script = decide

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        return self.script(reports, round)
