"""Everyone trains every round."""

from __future__ import annotations

from collections.abc import Mapping

from fl_rec.coordinator.messages import JOIN, ClientReport, Decision
from fl_rec.coordinator.strategies.base import Strategy


class JoinAll(Strategy):
    """Every client that reports trains one local epoch, as without a coordinator."""

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        return {client: Decision(JOIN) for client in reports}
