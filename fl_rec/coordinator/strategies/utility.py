"""Clients by what there is to learn from them and how fast they are, after Oort (arXiv:2010.06081)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fl_rec.coordinator.messages import JOIN, WAIT, ClientReport, Decision
from fl_rec.coordinator.strategies.base import Strategy, outliers
from fl_rec.typed import Fraction, Keys, PositiveFloat, PositiveInt, key


class Options(Keys):
    k: PositiveInt = key(5, "clients that train in a round")
    speed_quantile: Fraction = key(0.5, "share of the clients that count as fast enough")
    speed_exponent: PositiveFloat = key(2.0, "how much slower ones lose: (wanted / needed seconds) to this")
    exploration: Fraction = key(0.9, "share of k for clients that never trained, at the start")
    exploration_decay: Fraction = key(0.98, "factor on it each round")
    exploration_least: Fraction = key(0.2, "what it does not fall below")
    cut_off: Fraction = key(0.95, "clients of at least this share of the k-th best utility are drawn from")


class Utility(Strategy):
    """`k` clients: mostly those of the highest utility, the rest new ones, fast ones first.

    The utility of a client is rows times root mean squared loss in Oort; a report has the mean loss, which takes its
    place. Long not seen, it grows: sqrt(0.1 ln(round) / round last trained) of the highest utility is added.
    Who claims ten times the others' median loss or more is not believed to be of that use, and waits.
    """

    Options = Options

    @property
    def most(self) -> int:
        return min(int(self.options.k), self.fleet.clients)

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        options, random = self.options, self.random(round)
        needed = self.epoch_seconds()
        wanted = float(np.quantile([needed[client] for client in reports], options.speed_quantile))
        losses = {client: self._loss(client) for client in reports}
        far = outliers(losses)
        waits = {client: Decision(WAIT, reason=f"a loss of {losses[client]:.3g} is beyond belief") for client in far}
        losses = {client: loss for client, loss in losses.items() if client not in far}
        known = [client for client, loss in losses.items() if math.isfinite(loss)]
        new = [client for client, loss in losses.items() if not math.isfinite(loss)]
        k = min(options.k, len(losses))
        share = max(options.exploration_least, options.exploration * options.exploration_decay**round)
        explored = min(len(new), max(round_half_up(share * k), k - len(known)))

        chosen = {}
        utilities = self._utilities(known, needed, wanted, round)
        if utilities and k > explored:
            threshold = options.cut_off * sorted(utilities.values(), reverse=True)[: k - explored][-1]
            good = {client: value for client, value in utilities.items() if value >= threshold}
            for client in draw(good, k - explored, random):
                chosen[client] = Decision(JOIN, reason=f"utility {utilities[client]:.2f}")
        speeds = {client: 1 / needed[client] if needed[client] > 0 else 0.0 for client in new}
        for client in draw(speeds, explored, random):
            never = self.standing[client].trained is None
            chosen[client] = Decision(JOIN, reason="not trained yet" if never else "its loss is not known")
        return {**chosen, **waits}

    def _loss(self, client: int) -> float:
        """When it last trained; NaN if it never did."""
        last = self.standing[client].trained
        return math.nan if last is None else last.train_loss

    def _utilities(self, known: list[int], needed: Mapping[int, float], wanted: float, round: int) -> dict[int, float]:
        """Relative to the highest statistical utility."""
        statistical = {}
        for client in known:
            last = self.standing[client].trained
            if last is not None:
                # A net's own loss may fall below 0, and weights may not.
                statistical[client] = last.rows * max(0.0, last.train_loss)
        if not statistical:
            return {}
        # As Oort clips outliers at a quantile.
        highest = float(np.quantile(list(statistical.values()), 0.95)) or 1.0
        utilities = {}
        for client, value in statistical.items():
            since = max(1, self.standing[client].last_joined + 1)
            utility = min(value, highest) / highest + math.sqrt(0.1 * math.log(max(1, round)) / since)
            if needed[client] > wanted:
                utility *= (wanted / needed[client]) ** self.options.speed_exponent
            utilities[client] = utility
        return utilities


def draw(weights: Mapping[int, float], k: int, random: np.random.Generator) -> list[int]:
    """`k` different clients at most, the likelier the higher their weight; those of weight 0 last."""
    clients, values = list(weights), np.array(list(weights.values()), float)
    k = min(k, len(clients))
    if not k:
        return []
    values = np.maximum(values, 1e-9 * (values.max() or 1.0))
    return [int(client) for client in random.choice(clients, k, replace=False, p=values / values.sum())]


def round_half_up(value: float) -> int:
    return int(value + 0.5)
