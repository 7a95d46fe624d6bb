"""User-level differential privacy of what a worker shares: clipping, noise, and what they guarantee. No Paddle here.

For every exchange a worker draws each of its users with the same chance, independently of the others and of other
exchanges (Poisson sampling), clips the change that each drawn user makes to all shared parameters together, adds the
changes up, and adds Gaussian noise to every coordinate: DP-FedAvg (arXiv:1710.06963), with each worker adding all of
the noise to its own users' sum, so that nobody need be trusted to add it later. With runner.secure_aggregation nobody
sees a worker's sum, but only that of all: there each adds so much that any `threshold_of` the workers add all of it,
and the guarantee supposes that so many of those in a sum are honest and don't collude.

The guarantee is (epsilon, delta)-differential privacy for one user more or less, with all of that user's rows, against
whoever sees what the workers send and the models that come of it, in all exchanges together: the servers, the other
workers, and who gets the shared model. A user is in one worker only, as `fl-rec partition` deals them out, so that the
guarantee of a worker's users is everybody's; workers compare before they train (`fl_rec.privacy.one_worker_each`). An
exchange is paid for before it is sent, whatever becomes of the run (`fl_rec.privacy.accountant.Ledger`). A user's own
private parameters may remember earlier exchanges: whether the user is drawn is independent of them, so that each is
still a sampled Gaussian mechanism, given those before.

It does not cover
- the figures of metrics.jsonl, result.json and the tables: counts of rows, losses, AUC, HR, NDCG and seconds, which
  workers tell each other as they are, and with validation shards the choice of the last epoch and the best by them;
- other runs with the same users: each counts its own exchanges, and their epsilons and deltas add up;
- the worker itself, which has its users' rows, and writes their private parameters to the run's folder;
- what a model that training starts from has been trained on, which is why it must be declared to be public
  (`privacy.public_start`), and the numbers of users and items;
- whoever can tell how numpy rounds its noise, which is drawn in floating point and not by a cryptographic generator
  (Mironov, "On significance of the least significant bits for differential privacy", 2012).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

import numpy as np

from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.privacy import accountant
from fl_rec.privacy.secure_sum.clients import threshold_of


def check(config: Config, _job: Facts) -> Config:
    """ConfigError if what computes epsilon is not installed."""
    if config.privacy.clip is not None and config.privacy.noise_multiplier:
        accountant.require_accountant()
    return config


def notes_of(config: Config, job: Facts) -> list[str]:
    """What the user should know of a guarantee that is less than it seems."""
    privacy, users, notes = config.privacy, config.hyper_parameters.num_users, []
    if privacy.clip is None:
        return []
    if users and privacy.delta > 1 / users:
        notes.append(
            f"privacy.delta={privacy.delta:g} is above 1 / {users:,} users: publishing all rows of one user in "
            f"{1 / privacy.delta:,.0f} would keep such a promise. Set it well below {1 / users:.1g}."
        )
    if config.runner.secure_aggregation:
        notes.append(
            f"epsilon supposes that of the workers that a sum is of, {threshold_of(job.workers)} of {job.workers} at "
            "least are honest, and tell nobody their noise: with runner.secure_aggregation each adds a part of it."
        )
    return notes


class Change(NamedTuple):
    """What one user changes of one parameter.

    Attributes:
        rows: int64 [n], the rows of a table that are changed, each once; None for a whole parameter.
        values: float64 [n, ...], or of the parameter's shape.
    """

    rows: np.ndarray | None
    values: np.ndarray

    @classmethod
    def of_rows(cls, rows: np.ndarray, values: np.ndarray) -> Change:
        """The change of a table whose rows may be there several times, int64 [m] with float [m, ...], to be added."""
        distinct, where = np.unique(rows, return_inverse=True)
        added: np.ndarray = np.zeros((len(distinct), *values.shape[1:]))
        np.add.at(added, where.reshape(-1), values)
        return cls(distinct, added)


def norm(changes: Mapping[str, Change]) -> float:
    """The L2 norm of all changes together."""
    return math.sqrt(sum(float(np.square(change.values).sum()) for change in changes.values()))


def clipped(changes: Mapping[str, Change], clip: float) -> dict[str, Change]:
    """One user's changes, scaled down by one factor to a norm of `clip` if theirs is larger.

    Changes that are not finite count as none: they would tell of their user, however much noise is added.
    """
    length = norm(changes)
    if not math.isfinite(length):
        return {}
    factor = min(1.0, clip / length) if length else 1.0
    return {name: change._replace(values=change.values * factor) for name, change in changes.items()}


def add(total: MutableMapping[str, np.ndarray], changes: Mapping[str, Change]) -> None:
    """Adds one user's changes to the sum, in place."""
    for name, change in changes.items():
        total[name][slice(None) if change.rows is None else change.rows] += change.values


def cut(total: MutableMapping[str, np.ndarray], room: float) -> None:
    """Takes each number of the sum that is further than `room` from 0 back to that, in place.

    Two sums are not farther apart after it than they were before.
    """
    for values in total.values():
        np.clip(values, -room, room, out=values)


def add_noise(total: MutableMapping[str, np.ndarray], deviation: float, generator: np.random.Generator) -> None:
    """Adds N(0, deviation^2) to every coordinate of the sum, in place: also to those that no user has changed."""
    for values in total.values():
        values += generator.normal(0.0, deviation, values.shape)
