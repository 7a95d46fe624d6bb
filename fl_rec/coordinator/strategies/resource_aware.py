"""A common deadline: slow clients train less, and very slow ones wait (after FedCS, arXiv:1804.08333)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_rec.coordinator.messages import JOIN, WAIT, ClientReport, Decision
from fl_rec.coordinator.strategies.base import Strategy
from fl_rec.typed import Keys, PositiveFloat, key


class Options(Keys):
    deadline: PositiveFloat | None = key(None, "seconds that a client may train; null: what half of the clients need")
    min_local_epochs: PositiveFloat = key(0.1, "a client that could do less by the deadline waits")


class ResourceAware(Strategy):
    """Every client trains as much of an epoch as it can by the deadline."""

    Options = Options

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        needed = self.epoch_seconds()
        deadline = self.options.deadline
        if deadline is None or not any(each.trained for each in self.standing.values()):
            # Before anybody has trained, what is known of the clients can only be compared with one another.
            deadline = float(np.median([needed[client] for client in reports]))
        return {client: self._decide(needed[client], deadline) for client in reports}

    def _decide(self, needed: float, deadline: float) -> Decision:
        if needed <= deadline:
            return Decision(JOIN, reason="in time")
        possible = deadline / needed
        if possible < self.options.min_local_epochs:
            return Decision(WAIT, reason=f"could do {possible:.2f} of an epoch by the deadline")
        return Decision(JOIN, local_epochs=possible, reason="shortened to the deadline")
