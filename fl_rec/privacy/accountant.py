"""The guarantee of exchanges with differential privacy: epsilon, and what it was computed from."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fl_rec.config import Config
from fl_rec.errors import ConfigError, RunError
from fl_rec.files import read_json, write_json
from fl_rec.outside import Count, Number, as_typed

NO_ACCOUNTANT = (
    "privacy.clip needs dp-accounting, which computes epsilon. Received: no such package in this Python. Install it "
    'with pip install "fl_rec[dp]", or leave privacy.clip out.'
)


def epsilon(noise_multiplier: float, users_per_exchange: float, exchanges: int, delta: float) -> float:
    """The epsilon that holds with `delta` after some exchanges, for one user more or less.

    It is that of the Poisson-sampled Gaussian mechanism, composed over exchanges by Renyi differential privacy
    (arXiv:1908.10530) in Google's dp-accounting. Its accountant of privacy losses would give up to a tenth or so less,
    but takes gigabytes and minutes when there is little noise.

    Args:
        noise_multiplier: standard deviation of the noise over the norm that changes are clipped to.
        users_per_exchange: chance of a user to be drawn for an exchange.
        exchanges: how many there were.
        delta: above 0.

    Returns:
        0 before the first exchange; infinity without noise.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    if exchanges == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    try:
        import dp_accounting  # imports scipy for a second or two
        from dp_accounting import rdp
    except ImportError as err:
        raise ConfigError(NO_ACCOUNTANT) from err
    one = dp_accounting.PoissonSampledDpEvent(users_per_exchange, dp_accounting.GaussianDpEvent(noise_multiplier))
    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    return float(accountant.compose(one, exchanges).get_epsilon(delta))


def users_per_exchange(config: Config) -> float:
    """The chance of each user to be drawn for an exchange: by default, that of taking part once an epoch on average."""
    given = config.privacy.users_per_exchange
    return 1 / config.runner.exchanges_per_epoch if given is None else given


@dataclass(frozen=True)
class Spent:
    """The guarantee after some exchanges.

    Attributes:
        epsilon: None if there is no such number, because there was no noise.
        delta: see `PrivacyConfig`, as the others.
        exchanges: how many there were.
    """

    epsilon: float | None
    delta: float
    exchanges: int
    noise_multiplier: float
    clip: float | None
    users_per_exchange: float

    @classmethod
    def of(cls, config: Config, exchanges: int) -> Spent:
        """The guarantee of so many exchanges."""
        settings, chance = config.privacy, users_per_exchange(config)
        value = epsilon(settings.noise_multiplier, chance, exchanges, settings.delta)
        known = value if math.isfinite(value) else None
        return cls(known, settings.delta, exchanges, settings.noise_multiplier, settings.clip, chance)

    def __str__(self) -> str:
        if self.epsilon is None:
            return "no differential privacy without noise"
        return f"epsilon {self.epsilon:.3g} at delta {self.delta:g}"

    def to_record(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class _Paid:
    noise_multiplier: Number
    users_per_exchange: Number
    exchanges: Count


class Ledger:
    """The exchanges that a worker has paid for in a run, on disk before they are sent: who has seen what a run sent
    before it broke off has seen it, though it goes on from before.

    Args:
        path: the file; it need not be there.
        config: the job's.

    Attributes:
        exchanges: how many there were.

    Raises:
        ConfigError: those that the file tells of were paid for by other settings.
        DataError: it is no such file.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self._terms = {
            "noise_multiplier": config.privacy.noise_multiplier,
            "users_per_exchange": users_per_exchange(config),
        }
        content = read_json(path) if path.is_file() else {**self._terms, "exchanges": 0}
        paid = as_typed(_Paid, content, "What privacy was spent is as a worker wrote it.", path, "Begin a new run.")
        self.exchanges = paid.exchanges
        if (before := {name: getattr(paid, name) for name in self._terms}) != self._terms:
            raise ConfigError(
                f"The privacy spent is told of exchanges that are all alike, and this run has had {self.exchanges} "
                f"with {before}. Received: {self._terms}. Set them as they were, or begin a new run."
            )

    def pay(self) -> None:
        """For one exchange more. Raises RunError: it can't be written."""
        self.exchanges += 1
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            write_json(self._path, {**self._terms, "exchanges": self.exchanges})
        except OSError as err:
            raise RunError(
                f"What privacy has been spent is written before it is, and {self._path} can't be ({err.strerror}). "
                "Free some space, or name another runner.run_dir."
            ) from err


def require_accountant() -> None:
    """Raises ConfigError if dp-accounting is not installed, without importing it."""
    if importlib.util.find_spec("dp_accounting") is None:
        raise ConfigError(NO_ACCOUNTANT)
