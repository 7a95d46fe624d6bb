"""A strategy around another one, for scheduling_real.py: all finish as soon as the metric is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fl_rec.coordinator import FINISH, ClientReport, Decision, Fleet, Strategy
from fl_rec.coordinator.strategies import new_strategy
from fl_rec.typed import Keys, PositiveFloat, Values, key


class Options(Keys):
    strategy: str = key(..., "who decides")
    options: Values = key({}, "its options")
    target: PositiveFloat = key(0.5, "HR@K of all test users")


class UntilTarget(Strategy):
    """Decides as `options.strategy` does, until all clients together reach `options.target`."""

    Options = Options

    def __init__(self, fleet: Fleet, options: Any) -> None:
        super().__init__(fleet, options)
        self.inner = new_strategy(options.strategy, options.options, fleet)

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        decisions = self.inner.next_round(reports, round)
        if round > 0 and hit_rate(reports) >= self.options.target:
            return {client: Decision(FINISH, reason="the target is reached") for client in reports}
        return decisions


def hit_rate(reports: Mapping[int, ClientReport]) -> float:
    """HR@K of all test users together."""
    users = [each.test_users for each in reports.values()]
    return float(np.average([each.hr for each in reports.values()], weights=users))
