"""Who trains in an epoch, named by coordinator.strategy: before each one the coordinator asks it."""

from fl_rec.coordinator import JOIN, Decision, Strategy
from fl_rec.typed import Keys, PositiveInt, key


class Options(Keys):
    """What coordinator.options may set."""

    waiting: PositiveInt = key(1, "clients that wait, each in its turn")


class InTurn(Strategy):
    """All train but a few, and those are others every time."""

    Options = Options

    def decide(self, reports, round):
        """A decision for each client that is to train; `reports` has what each has told of itself, by its number."""
        clients, waiting = self.fleet.clients, min(self.options.waiting, self.fleet.clients - 1)
        waits = {(round * waiting + turn) % clients for turn in range(waiting)}
        return {client: Decision(JOIN, reason="its turn") for client in reports if client not in waits}
