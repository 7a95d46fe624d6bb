"""User-level differential privacy of what a worker shares: clipping, noise, and what they guarantee. No Paddle here.

In every round a worker draws each of its users with the same chance, independently of the others and of other rounds
(Poisson sampling), clips the change that each drawn user makes to all shared parameters together, adds the changes up,
and adds Gaussian noise to every coordinate: DP-FedAvg (arXiv:1710.06963), with each worker adding all of the noise to
its own users' sum, so that nobody need be trusted to add it later.

The guarantee is (epsilon, delta)-differential privacy for one user more or less, with all of that user's rows, against
whoever sees what the workers send and the models that come of it, in all rounds together: the servers, the other
workers, and who gets the shared model. A user is in one worker only, as gen_heter_data.py deals them out, so that the
guarantee of a worker's users is everybody's. A user's own private parameters may remember earlier rounds: whether the
user is drawn is independent of them, so that each round is still a sampled Gaussian mechanism, given the rounds before.

It does not cover
- the figures of metrics.jsonl, result.json and the tables: counts of rows, losses, AUC, HR, NDCG and seconds, which
  workers tell each other as they are, and with validation shards the choice of the last epoch and the best by them;
- the worker itself, which has its users' rows, and writes their private parameters to the run's folder;
- what a model that training starts from has been trained on, and the numbers of users and items;
- whoever can tell how numpy rounds its noise, which is drawn in floating point and not by a cryptographic generator
  (Mironov, "On significance of the least significant bits for differential privacy", 2012).
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import asdict, dataclass
from typing import Any, Mapping, MutableMapping, NamedTuple

import numpy as np

from fl_rec.config import Config
from fl_rec.errors import ConfigError

NO_ACCOUNTANT = (
    "privacy.clip needs dp-accounting, which computes epsilon. Received: no such package in this Python. Install it "
    'with pip install "fl_rec[dp]", or leave privacy.clip out.'
)


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


def add_noise(total: MutableMapping[str, np.ndarray], deviation: float, generator: np.random.Generator) -> None:
    """Adds N(0, deviation^2) to every coordinate of the sum, in place: also to those that no user has changed."""
    for values in total.values():
        values += generator.normal(0.0, deviation, values.shape)


def epsilon(noise_multiplier: float, users_per_round: float, rounds: int, delta: float) -> float:
    """The epsilon that holds with `delta` after some rounds, for one user more or less.

    It is that of the Poisson-sampled Gaussian mechanism, composed over rounds by Renyi differential privacy
    (arXiv:1908.10530) in Google's dp-accounting. Its accountant of privacy losses would give up to a tenth or so less,
    but takes gigabytes and minutes when there is little noise.

    Args:
        noise_multiplier: standard deviation of the noise over the norm that changes are clipped to.
        users_per_round: chance of a user to be drawn for a round.
        rounds: how many there were.
        delta: above 0.

    Returns:
        0 before the first round; infinity without noise.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    if rounds == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    try:
        import dp_accounting  # imports scipy for a second or two
        from dp_accounting import rdp
    except ImportError as err:
        raise ConfigError(NO_ACCOUNTANT) from err
    round_ = dp_accounting.PoissonSampledDpEvent(users_per_round, dp_accounting.GaussianDpEvent(noise_multiplier))
    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    return float(accountant.compose(round_, rounds).get_epsilon(delta))


def users_per_round(config: Config) -> float:
    """The chance of each user to be drawn for a round: by default, that of taking part once an epoch on average."""
    given = config.privacy.users_per_round
    return 1 / config.runner.rounds_per_epoch if given is None else given


@dataclass(frozen=True)
class Spent:
    """The guarantee after some rounds.

    Attributes:
        epsilon: None if there is no such number, because there was no noise.
        delta: see `PrivacyConfig`, as the others.
        rounds: how many there were.
    """

    epsilon: float | None
    delta: float
    rounds: int
    noise_multiplier: float
    clip: float | None
    users_per_round: float

    @classmethod
    def of(cls, config: Config, rounds: int) -> Spent:
        """The guarantee of `rounds` rounds."""
        settings, chance = config.privacy, users_per_round(config)
        value = epsilon(settings.noise_multiplier, chance, rounds, settings.delta)
        known = value if math.isfinite(value) else None
        return cls(known, settings.delta, rounds, settings.noise_multiplier, settings.clip, chance)

    def __str__(self) -> str:
        if self.epsilon is None:
            return "no differential privacy without noise"
        return f"epsilon {self.epsilon:.3g} at delta {self.delta:g}"

    def to_record(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return asdict(self)


def require_accountant() -> None:
    """Raises ConfigError if dp-accounting is not installed, without importing it."""
    if importlib.util.find_spec("dp_accounting") is None:
        raise ConfigError(NO_ACCOUNTANT)
