"""A few clients, drawn anew each round (FedAvg, arXiv:1602.05629)."""

from __future__ import annotations

from collections.abc import Mapping

from fl_rec.coordinator.messages import JOIN, ClientReport, Decision
from fl_rec.coordinator.strategies.base import Strategy
from fl_rec.typed import Keys, PositiveInt, key


class Options(Keys):
    k: PositiveInt = key(5, "clients that train in a round")


class RandomK(Strategy):
    """`k` of the clients that report, all equally likely."""

    Options = Options

    @property
    def most(self) -> int:
        return min(int(self.options.k), self.fleet.clients)

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        clients = sorted(reports)
        drawn = self.random(round).choice(clients, min(self.options.k, len(clients)), replace=False)
        return {int(client): Decision(JOIN, reason="drawn") for client in drawn}
