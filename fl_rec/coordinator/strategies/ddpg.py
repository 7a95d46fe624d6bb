"""A learned strategy: deep deterministic policy gradient (DDPG, arXiv:1509.02971). Paddle is imported when it is made.

One actor, shared by all clients, sees a client's features beside the fleet's mean and gives two numbers: a score, which
decides whether the client trains, and how long. The critic pools over clients (Deep Sets, arXiv:1703.06114). So a
policy is indifferent to how clients are numbered, and fits any number of them. Against overestimation there are two
critics, of which the lower one counts, a smoothed target and an actor that learns every other step (arXiv:1802.09477).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fl_rec.coordinator.messages import JOIN, WAIT, ClientReport, Decision
from fl_rec.coordinator.strategies.base import Fleet, Strategy
from fl_rec.coordinator.strategies.ddpg_agent import (
    ACTIONS,
    AMOUNT,
    EPOCH_SECONDS,
    FEATURES,
    SCORE,
    Agent,
    Options,
    Transition,
)
from fl_rec.errors import ConfigError

POLICY_NAME = "ddpg_policy.npz"


class Ddpg(Strategy):
    """Learns who trains, and how much, so that the metric rises fast in time.

    The reward of a round is the gain of the fleet's metric (HR@K, the mean over test users) in points of 0.01, minus
    `time_weight` times the round's time; the unit is what join_all's round is expected to take. Later rewards are
    discounted by that time too, not by the number of rounds (a semi-Markov decision process), since a policy would
    otherwise cram into a round what two could do faster.

    Args:
        agent: what has been learned before, shared and changed; None for one of its own.

    Attributes:
        agent: what it learns with.
        total_reward: discounted sum of the rewards so far.
    """

    Options = Options

    def __init__(self, fleet: Fleet, options: Any = None, agent: Agent | None = None) -> None:
        super().__init__(fleet, options)
        if self.options.min_local_epochs > self.options.max_local_epochs:
            raise ConfigError(
                "options.min_local_epochs must not be above options.max_local_epochs. Received: "
                f"{self.options.min_local_epochs:g} and {self.options.max_local_epochs:g}."
            )
        self.agent = agent or Agent(self.options, fleet.seed)
        if agent is None and self.options.policy is not None:
            self.agent.load(self.options.policy)
        self.total_reward, self._worth = 0.0, 1.0
        self._metrics: list[float] = []
        self._before: tuple[np.ndarray, np.ndarray, float] | None = None

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        random = self.random(round)
        self._metrics.append(self._metric(reports))
        state = self._state(reports, round)
        if self._before is not None:
            before, action, join_all = self._before
            gain, time = self._outcome(reports, join_all)
            reward = gain - self.options.time_weight * time
            discount = self.options.discount**time if round < self.fleet.epochs else 0.0
            self.total_reward += self._worth * reward
            self._worth *= discount
            if self.options.learn:
                self.agent.remember(Transition(before, action, reward, discount, state))
                self.agent.learn(self.fleet.clients, random)
                if self.fleet.folder is not None:
                    self.agent.save(self.fleet.folder / POLICY_NAME)
        action = self.behave(state, round, random)
        # The critic learns from what was done, and who did not report waits.
        action[[client for client in self.fleet if client not in reports], SCORE] = -1
        decisions = self._decisions(action, state, reports)
        self._before = (state, action.astype(np.float32), max(self.epoch_seconds().values(), default=math.nan))
        return decisions

    def behave(self, state: np.ndarray, round: int, random: np.random.Generator) -> np.ndarray:
        """float64[clients, 2] from -1 to 1: the policy's actions, and exploration.

        DDPG learns from whatever was done: override it to have other behaviour learned from.
        """
        action = self.agent.act(state)
        if self.options.explore:
            # Most of it is the whole fleet's: a round that is shorter for all is never found by each client alone.
            own, common = random.standard_normal(action.shape), random.standard_normal(ACTIONS)
            noise = math.sqrt(0.2) * own + math.sqrt(0.8) * common
            action = action + self.options.noise * self.options.noise_decay**round * noise
        within: np.ndarray = np.clip(action, -1, 1)
        return within

    def _decisions(
        self, action: np.ndarray, state: np.ndarray, reports: Mapping[int, ClientReport]
    ) -> dict[int, Decision]:
        scores = (action[:, SCORE] + 1) / 2
        work = self.options.local_epochs(action[:, AMOUNT], np.exp(state[:, EPOCH_SECONDS]))
        # The least that can be is one client.
        best = max(reports, key=lambda client: float(scores[client]), default=None)
        decisions = {}
        for client in reports:
            joins, reason = scores[client] >= 0.5 or client == best, f"score {scores[client]:.2f}"
            decisions[client] = (
                Decision(JOIN, local_epochs=float(work[client]), reason=reason)
                if joins
                else Decision(WAIT, reason=reason)
            )
        return decisions

    def _state(self, reports: Mapping[int, ClientReport], round: int) -> np.ndarray:
        """float32[clients, features], each of about unit size; 0 is what is not known."""
        clients = self.fleet.clients
        heard = {client: each.report for client, each in self.standing.items() if each.report is not None}
        needed = self.epoch_seconds()
        per_row = {client: needed[client] / max(1, heard[client].shard_rows) for client in needed}
        mean_rows = float(np.mean([each.shard_rows for each in heard.values()] or [0])) or 1.0
        mean_per_row = float(np.mean(list(per_row.values()) or [0])) or 1.0
        slowest = max(needed.values(), default=0) or 1.0
        gain = self._metrics[-1] - self._metrics[-2] if len(self._metrics) > 1 else math.nan
        state = np.zeros((clients, self.agent.features))
        for client, report in heard.items():
            standing = self.standing[client]
            trained, before = standing.trained, standing.before
            known = {
                "loss": trained.train_loss if trained else math.nan,
                "loss_change": 10 * (trained.train_loss - before.train_loss) if trained and before else math.nan,
                "metric": report.hr,
                "metric_gain": 100 * gain,
                "row_share": _log(report.shard_rows / mean_rows),
                "seconds_per_row": _log(per_row[client] / mean_per_row),
                "epoch_seconds": _log(needed[client] / slowest),
                "staleness": math.log1p(round - 1 - standing.last_joined),
                "times_joined": standing.times_joined / max(1, round),
                "last_work": report.rows / max(1, report.shard_rows),
                "progress": round / self.fleet.epochs,
                "present": float(client in reports),
            }
            state[client, : len(FEATURES)] = [known[name] for name in FEATURES]
            if self.options.dense_field in report.extra:
                state[client, len(FEATURES) :] = self._project(report.extra[self.options.dense_field])
        return np.clip(np.nan_to_num(state), -5, 5).astype(np.float32)

    def _project(self, field: Any) -> np.ndarray:
        """float64[dense_size]: a random projection of all numbers of a field, scaled to unit size."""
        flat = np.nan_to_num(np.ravel(np.asarray(field, np.float64)))
        random = np.random.default_rng([self.fleet.seed, len(flat)])
        size = float(np.linalg.norm(flat)) or 1.0
        return np.asarray(random.standard_normal((self.options.dense_size, len(flat))) @ (flat / size))

    def _metric(self, reports: Mapping[int, ClientReport]) -> float:
        """The fleet's: that of the round before if it is not known."""
        known = [each for each in reports.values() if math.isfinite(each.hr) and each.test_users]
        if not known:
            return self._metrics[-1] if self._metrics else math.nan
        return float(np.average([each.hr for each in known], weights=[each.test_users for each in known]))

    def _outcome(self, reports: Mapping[int, ClientReport], join_all: float) -> tuple[float, float]:
        """Of the round before: points that the metric gained, and its time in rounds of join_all.

        The metric before any training is not known, so the first round counts by its time and by what comes of it.

        Args:
            join_all: seconds that join_all's round was expected to take.
        """
        if len(self._metrics) == 2:  # in round 0 the unit was rows of work
            join_all = max(self.epoch_seconds().values(), default=math.nan)
        seconds = max((each.seconds for each in reports.values() if each.trained), default=0.0)
        gain = 100 * (self._metrics[-1] - self._metrics[-2])
        return gain if math.isfinite(gain) else 0.0, seconds / join_all if join_all > 0 else 0.0


def _log(value: float) -> float:
    return math.log(value) if value > 0 else 0.0
