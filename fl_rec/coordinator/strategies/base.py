"""What a strategy is. No Paddle is imported here."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.config import Config
from fl_rec.coordinator.messages import FINISH, JOIN, WAIT, ClientReport, Decision
from fl_rec.errors import RunError
from fl_rec.plugins import where_raised
from fl_rec.typed import Keys


@dataclass(frozen=True)
class Fleet:
    """The clients that a strategy decides for.

    Attributes:
        clients: how many there are; their numbers are 0 to clients - 1.
        epochs: rounds of training at most.
        seed: `runner.seed`.
        folder: where a strategy may keep files of its own, such as what it has learned; None to keep none.
        config: the job's configuration, for a strategy that trains a net of its own; None if there is no job.
    """

    clients: int
    epochs: int
    seed: int = 0
    folder: Path | None = None
    config: Config | None = None

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.clients))


@dataclass
class Standing:
    """What is known of a client, kept by `Strategy` from round to round.

    Attributes:
        report: its last report; None before the first.
        trained: its last report after a round in which it trained; None until then.
        before: the one before `trained`.
        times_joined: rounds that it was told to join.
        last_joined: the last of them; -1 if there was none.
    """

    report: ClientReport | None = None
    trained: ClientReport | None = None
    before: ClientReport | None = None
    times_joined: int = 0
    last_joined: int = -1


def outliers(values: Mapping[int, float], factor: float = 10.0) -> set[int]:
    """The clients whose value is so many times the median of them all; of fewer than four there are none."""
    finite = {client: value for client, value in values.items() if math.isfinite(value)}
    if len(finite) < 4:
        return set()
    limit = factor * abs(float(np.median(list(finite.values()))))
    return {client for client, value in finite.items() if value > limit > 0}


class NoOptions(Keys):
    """A strategy with nothing to set."""


class Strategy(ABC):
    """Who trains next, how much, and when to stop.

    Subclass it and write `decide`; name it in `coordinator.strategy`, as `module:Class` or `path/to/file.py:Class`.
    It runs in the coordinator's process, one round at a time. When a coordinator is started again, the recorded
    reports go through a new object in order, so that what it has learned of them is the same: draw random numbers
    from `random(round)`.

    Attributes:
        Options: typed keys (`fl_rec.typed.Keys`), which `coordinator.options` may set.
        fleet: the clients that it decides for.
        options: an `Options`.
        standing: what is known of each client, for all of them.
        finished: the clients that were told to FINISH.
        excluded: the clients that `exclude` was called for, and why.
    """

    Options: type[Keys] = NoOptions

    def __init__(self, fleet: Fleet, options: Any = None) -> None:
        self.fleet = fleet
        self.options: Any = self.Options() if options is None else options
        self.standing = {client: Standing() for client in fleet}
        self.finished: set[int] = set()
        self.excluded: dict[int, str] = {}

    @property
    def report_fields(self) -> Mapping[str, tuple[int, ...]]:
        """Fields of a report that it needs, with their shapes; they are added to coordinator.report_fields."""
        return {}

    @property
    def most(self) -> int:
        """How many clients it lets train in a round at most."""
        return self.fleet.clients

    @abstractmethod
    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        """What the clients do in a round.

        Args:
            reports: those that came in time, by client, at least one; finished clients send none.
            round: from 0. In round 0 nothing has been trained; round `fleet.epochs` only takes the last figures in,
                and whatever is decided, all finish.

        Returns:
            decisions by client. Who is left out waits.
        """

    def exclude(self, client: int, reason: str) -> None:
        """From now on a client waits, whatever `decide` says: it trains nothing, so that nothing of it reaches the
        servers any more. What it has changed before is in the model, and stays there.

        Args:
            reason: for people; it stands in each round's table.
        """
        self.excluded[client] = reason

    def random(self, round: int) -> np.random.Generator:
        """Random numbers of a round, the same whenever it is asked for."""
        return np.random.default_rng([self.fleet.seed, round])

    def epoch_seconds(self) -> dict[int, float]:
        """How long one local epoch would take each client that has ever reported.

        As it last did, per row; for one that has not trained yet as its device's capacity tells, compared with those
        that have. Before anybody has trained there is no second to compare with, and the unit is rows of work.
        """
        heard = {client: each.report for client, each in self.standing.items() if each.report is not None}
        trained = {client: each.trained for client, each in self.standing.items() if each.trained is not None}
        unit = np.median([each.seconds_per_row * each.device.capacity for each in trained.values()]) if trained else 1.0
        return {
            client: report.shard_rows
            * (trained[client].seconds_per_row if client in trained else float(unit) / report.device.capacity)
            for client, report in heard.items()
        }

    def next_round(self, reports: Mapping[int, ClientReport], round: int) -> dict[int, Decision]:
        """One decision for every client, who is told so: the coordinator's call, not to be overridden.

        Raises:
            RunError: `decide` failed, or did not return decisions.
        """
        decisions = self.propose(reports, round)
        self.told(decisions, round)
        return decisions

    def propose(self, reports: Mapping[int, ClientReport], round: int) -> dict[int, Decision]:
        """As `next_round`, and nobody is told yet."""
        for client, report in sorted(reports.items()):
            standing = self.standing[client]
            standing.report = report
            if report.trained:
                standing.before, standing.trained = standing.trained, report
        try:
            decided = self.decide(dict(sorted(reports.items())), round) if reports else {}
        except Exception as err:
            what = f"{type(err).__name__}: {err}{where_raised(err)}"
            raise RunError(f"{self} failed in round {round}: {what}") from err
        self._check(decided, round)
        return {client: self._complete(client, decided, reports, round) for client in self.fleet}

    def told(self, decisions: Mapping[int, Decision], round: int) -> None:
        """Notes who joined, and who has finished."""
        for client, decision in decisions.items():
            if decision.next_state == FINISH:
                self.finished.add(client)
            elif decision.next_state == JOIN:
                self.standing[client].times_joined += 1
                self.standing[client].last_joined = round

    def __str__(self) -> str:
        return f"the strategy {type(self).__name__}"

    def _check(self, decided: Any, round: int) -> None:
        fits = isinstance(decided, Mapping) and all(isinstance(each, Decision) for each in decided.values())
        if not fits:
            raise RunError(
                f"{self} must return a mapping of clients to Decision from decide. Received: {decided!r:.200}."
            )
        unknown = [client for client in decided if client not in self.standing]
        if unknown:
            raise RunError(
                f"{self} must decide for clients 0 to {self.fleet.clients - 1}. Received: {unknown} in round {round}."
            )

    def _complete(
        self, client: int, decided: Mapping[int, Decision], reports: Mapping[int, ClientReport], round: int
    ) -> Decision:
        if client in self.finished:
            return Decision(FINISH, reason="finished before")
        if round >= self.fleet.epochs:
            return Decision(FINISH, reason="that was the last epoch")
        if client in self.excluded:
            return Decision(WAIT, reason=f"excluded: {self.excluded[client]}")
        if client in decided:
            return decided[client]
        return Decision(WAIT, reason="not chosen" if client in reports else "no report in time")
