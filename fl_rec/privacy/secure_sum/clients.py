"""How many clients a secure sum needs, and whether a job can have one. No cryptography is imported here."""

from __future__ import annotations

import importlib.util

from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.privacy.secure_sum.fixed_point import MOST_CLIENTS

# Of two, each would know the other's from the sum.
LEAST_CLIENTS = 3
# What is imported, and the package that has it.
_PACKAGES = {"cryptography": "cryptography", "Crypto": "pycryptodome"}


def threshold_of(clients: int) -> int:
    """How many of some clients must stay to the end: a third may be lost, and fewer than these learn nothing."""
    return clients - clients // 3


def noise_share(clients: int) -> float:
    """The standard deviation of the noise that each of them adds, if that of any `threshold_of` them is to be 1."""
    return float(threshold_of(clients) ** -0.5)


def check(config: Config, job: Facts) -> Config:
    """ConfigError if a job of so many workers can't add up so, or a package is missing; none is imported."""
    if not config.runner.secure_aggregation:
        return config
    if not LEAST_CLIENTS <= job.workers <= MOST_CLIENTS:
        raise ConfigError(
            f"runner.secure_aggregation needs {LEAST_CLIENTS} to {MOST_CLIENTS} workers: of two, each knows the "
            "other's changes from their sum, and of more, float32 can't hold the sum exactly. Received: "
            f"{job.workers}. Have as many, or leave runner.secure_aggregation out."
        )
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(
            "runner.secure_aggregation needs the packages cryptography and pycryptodome. Received: a Python without "
            f'{" and ".join(missing)}. Install them with pip install "fl_rec[secure]", or leave '
            "runner.secure_aggregation out."
        )
    return config
