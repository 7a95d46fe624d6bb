"""A simulated fleet, on which any strategy can be played in milliseconds. No Paddle is imported here.

What it takes from a recorded run, in which all clients trained in every epoch, is each client's learning curve and one
speed. What it makes of them is a model, and a simple one:

- A round brings the fleet forward by p = share^participation * amount epochs of a run in which all train: share is the
  part of all rows that joiners' shards hold, amount their mean local epochs by rows. Of that, every client gets
  (1 - locality) * p, and the rest goes to joiners by their own local epochs, so that the mean over all rows is p.
  locality 0.3 and participation 0.25 were fitted to two real runs on MovieLens 1M: five of ten clients at random, and
  all with a tenth to a whole local epoch each (benchmarks/recorded). They predict each client's HR@10 to 0.02, which is
  its standard error; participation 1, progress by rows alone, is off by 0.05 where five train: fewer clients a round
  cost less than their share of the rows, and less local work costs what it is. Where joiners hold less than 0.4 of the
  rows, which neither run shows, progress falls in proportion, lest a strategy be led to train one fast client alone.
- Its metrics are read off its recorded curve at e_i: made monotone, linear between epochs, and flat before the first
  and after the last one. That work on one client alone wears off is thus not in the model, nor are interference and
  overfitting. A learning rate's factor has no effect.
- A round takes as long as its slowest joiner and a fixed overhead. A joiner takes rows * (seconds per row * slow-down
  + bytes per row / bandwidth), times log-normal noise. Seconds per row are the record's median over clients and epochs,
  one for all clients: processes that share cores say little about a single client's speed.
- The reported losses have Gaussian noise; the metrics have none.

Times are of use for comparing strategies with one another. They do not tell how long a real run takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.coordinator.messages import FINISH, JOIN, ClientReport, Device
from fl_rec.coordinator.strategies.base import Strategy
from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import read_lines
from fl_rec.runs.directory import RunDirectory

SLOWEST = 10.0
# Part of the rows; the model was fitted to rounds of more.
LEAST_SHARE = 0.4
RISING, FALLING = ("train_auc", "test_auc", "hr", "ndcg"), ("train_loss",)


@dataclass(frozen=True, eq=False)
class Recording:
    """What is taken from a run's metrics.jsonl.

    Attributes:
        rows: int64[clients], rows of each client's shard.
        test_users: int64[clients].
        seconds_per_row: median over clients and epochs.
        curves: name of a metric of `ClientReport` -> float64[clients, epochs], after each epoch; monotone.
    """

    rows: np.ndarray
    test_users: np.ndarray
    seconds_per_row: float
    curves: Mapping[str, np.ndarray]

    @property
    def clients(self) -> int:
        return len(self.rows)

    @property
    def epochs(self) -> int:
        return int(self.curves["hr"].shape[1])

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Reads a metrics.jsonl, or that of a run directory.

        Raises:
            DataError: there is none, it is malformed, or not every client trained on its whole shard in every epoch.
        """
        file = RunDirectory(path).metrics if path.is_dir() else path
        names = ("rows", "seconds", "test_users", *FALLING, *RISING)
        try:
            records = read_lines(file)
            lines = {(each["client"], each["epoch"]): each for each in records if each["client"] != ALL}
            clients, epochs = (sorted({key[axis] for key in lines}) for axis in (0, 1))
            table = {
                name: np.array([[lines[client, epoch][name] for epoch in epochs] for client in clients], np.float64)
                for name in names
            }
        except (DataError, ValueError, KeyError, TypeError, OverflowError) as err:
            raise DataError(
                f"A recorded run has one line per client and epoch in its metrics.jsonl. Received: {file} ({err!r}). "
                "Give a run directory or a metrics.jsonl of a run that ended."
            ) from err
        rows = table["rows"]
        whole = clients == list(range(len(clients))) and epochs == list(range(1, len(epochs) + 1)) and bool(lines)
        if (
            not whole
            or (rows <= 0).any()
            or (rows != rows[:, :1]).any()
            or not np.isfinite([table[name] for name in names]).all()
        ):
            raise DataError(
                "A fleet is simulated from a run in which every client trained on its whole shard and was evaluated "
                f"after every epoch. Received: {file}, clients {clients}, epochs {epochs}. Record a run without a "
                "coordinator, with test data, and train at least one epoch."
            )
        curves = {name: _rising(table[name]) for name in RISING}
        curves.update({name: -_rising(-table[name]) for name in FALLING})
        per_row = float(np.median(table["seconds"] / rows))
        return cls(rows[:, 0].astype(np.int64), table["test_users"][:, 0].astype(np.int64), per_row, curves)

    def metrics_at(self, epochs: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric, float64[clients], when the clients are as far as after `epochs`, float64[clients]."""
        at = np.arange(1, self.epochs + 1)
        return {
            name: np.array([np.interp(epoch, at, curve) for epoch, curve in zip(epochs, curves)])
            for name, curves in self.curves.items()
        }


@dataclass(frozen=True)
class Round:
    """What a round was.

    Attributes:
        round: its number, from 0.
        joined: local epochs of the clients that trained.
        seconds: simulated seconds from the start to its end.
        epochs: local epochs done so far, mean over clients by rows of their shards.
        metric: HR@K of all test users after it.
    """

    round: int
    joined: Mapping[int, float]
    seconds: float
    epochs: float
    metric: float


@dataclass(frozen=True)
class Play:
    """How a strategy did, round by round."""

    rounds: Sequence[Round]

    def reached(self, target: float) -> Round | None:
        """The first round after which the metric is `target` or more; None if there is none."""
        return next((each for each in self.rounds if each.metric >= target), None)


@dataclass(frozen=True, eq=False)
class SimulatedFleet:
    """A fleet of the recorded clients, of any speeds.

    Attributes:
        recording: where their shards, their learning curves and the speed of a row come from.
        slow_downs: float[clients], how many times longer each one's processor takes; its capacity is 1 / slow_down.
        seed: of the noise, which is the same for every strategy.
        locality: of the module's docstring, 0 to 1: how much a client's metric hangs on its own work.
        participation: of the module's docstring, 0 to 1: how much a round's progress hangs on how many train.
        overhead: seconds that a round takes besides training: evaluation, barriers, the coordinator.
        time_noise: standard deviation of the logarithm of a client's time in a round.
        loss_noise: standard deviation of a reported loss, relative to it.
        bytes_per_row: to and from the parameter servers.
        bandwidth: of every client, bytes per second.
    """

    recording: Recording
    slow_downs: np.ndarray
    seed: int = 0
    locality: float = 0.3
    participation: float = 0.25
    overhead: float = 2.0
    time_noise: float = 0.05
    loss_noise: float = 0.01
    bytes_per_row: float = 0.0
    bandwidth: float = math.inf

    def __post_init__(self) -> None:
        if len(self.slow_downs) != self.recording.clients:
            raise DataError(
                f"A simulated fleet needs one slow-down for each of its {self.recording.clients} recorded clients. "
                f"Received: {len(self.slow_downs)}."
            )

    def epoch_seconds(self) -> np.ndarray:
        """float64[clients], what one local epoch takes each of them without noise."""
        per_row = self.recording.seconds_per_row * self.slow_downs + self.bytes_per_row / self.bandwidth
        return np.asarray(self.recording.rows * per_row)

    def play(self, strategy: Strategy, target: float = math.inf) -> Play:
        """Plays a strategy until its fleet's epochs are over, all clients have finished, or `target` is reached.

        Args:
            strategy: a new one, for as many clients.
        """
        shard_rows, users = self.recording.rows, self.recording.test_users
        own, effective = np.zeros(self.recording.clients), np.zeros(self.recording.clients)
        last: dict[int, dict[str, Any]] = {client: {} for client in strategy.fleet}
        rounds: list[Round] = []
        seconds = 0.0
        for round in range(strategy.fleet.epochs + 1):
            reports = {
                client: self._report(client, round, last[client])
                for client in strategy.fleet
                if client not in strategy.finished
            }
            decisions = strategy.next_round(reports, round)
            if all(each.next_state == FINISH for each in decisions.values()):
                break
            joined = {client: each.local_epochs for client, each in decisions.items() if each.next_state == JOIN}
            random = np.random.default_rng([self.seed, round])
            slower = np.exp(self.time_noise * random.standard_normal(len(own)))
            louder = 1 + self.loss_noise * random.standard_normal(len(own))
            rows = np.array([np.rint(joined.get(client, 0.0) * shard_rows[client]) for client in strategy.fleet])
            own += rows / shard_rows
            epochs = float(np.average(own, weights=shard_rows))
            took = self.epoch_seconds() * rows / shard_rows * slower
            seconds += took.max() + self.overhead
            effective += progress(rows / shard_rows, shard_rows, self.locality, self.participation)
            metrics = self.recording.metrics_at(effective)
            metric = float(np.average(metrics["hr"], weights=users))
            metrics["train_loss"] = metrics["train_loss"] * louder
            for client in strategy.fleet:
                last[client] = {name: float(values[client]) for name, values in metrics.items()}
                last[client].update(rows=int(rows[client]), seconds=float(took[client]), test_users=int(users[client]))
                if not rows[client]:
                    last[client].update(train_loss=math.nan, train_auc=math.nan)
            rounds.append(Round(round, joined, float(seconds), epochs, metric))
            if metric >= target:
                break
        return Play(tuple(rounds))

    def _report(self, client: int, round: int, last: Mapping[str, Any]) -> ClientReport:
        """As a real client would fill it in; `last`: its figures of the round before, none in round 0."""
        bytes_each_way = int(last.get("rows", 0) * self.bytes_per_row / 2)
        return ClientReport(
            client=client,
            round=round,
            shard_rows=int(self.recording.rows[client]),
            device=Device("simulated", 1 / float(self.slow_downs[client]), self.bandwidth),
            bytes_sent=bytes_each_way,
            bytes_received=bytes_each_way,
            **last,
        )


def progress(local_epochs: np.ndarray, shard_rows: np.ndarray, locality: float, participation: float) -> np.ndarray:
    """How far a round brings each client, as the module's docstring has it.

    Args:
        local_epochs: float[clients], 0 for who waits.
        shard_rows: int[clients].

    Returns:
        float64[clients], in epochs of a run in which all train.
    """
    mean = float(np.average(local_epochs, weights=shard_rows))
    if mean == 0:
        return np.zeros(len(shard_rows))
    share = float(np.average(local_epochs > 0, weights=shard_rows))
    fleet = min(share / LEAST_SHARE, 1) * max(share, LEAST_SHARE) ** participation * (mean / share)
    return np.asarray(fleet * ((1 - locality) + locality * local_epochs / mean))


def permuted_slow_downs(clients: int, seed: int) -> np.ndarray:
    """float64[clients], evenly from 1 to 10, dealt to the clients by `seed`."""
    return np.random.default_rng(seed).permutation(np.linspace(1, SLOWEST, clients))


def _rising(values: np.ndarray) -> np.ndarray:
    """A monotone curve through the noise of each row: midway between its bounds from below and from above."""
    below = np.maximum.accumulate(values, axis=1)
    above = np.minimum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((below + above) / 2)
