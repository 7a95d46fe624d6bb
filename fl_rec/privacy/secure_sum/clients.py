"""How many clients a secure sum needs, and whether a job can have one. No cryptography is imported here."""

from __future__ import annotations

import importlib.util

from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.privacy.noise import ALL_OF_IT, NoisePart
from fl_rec.privacy.secure_sum.fixed_point import MOST_CLIENTS, FixedPoint

# Of two, each would know the other's from the sum.
LEAST_CLIENTS = 3
# Of normal noise, what is never seen: one number in 10^15 is beyond.
_DEVIATIONS = 8
# Steps that a worker's noise must have: how a number is rounded then hangs on its users by less than 1 in 10^30, and
# the sum of what was rounded tells no more than that of what was not.
_LEAST_NOISE = 2.0
# What is imported, and the package that has it.
_PACKAGES = {"cryptography": "cryptography", "Crypto": "pycryptodome"}


def threshold_of(clients: int) -> int:
    """How many of some clients must stay to the end: a third may be lost, if enough are left. Fewer learn nothing."""
    return max(clients - clients // 3, LEAST_CLIENTS)


def least_of(config: Config, clients: int) -> int:
    """How many of so many clients must train at once: with differential privacy as many as add all of its noise."""
    return LEAST_CLIENTS if config.privacy.clip is None else threshold_of(clients)


def noise_part(config: Config, clients: int) -> NoisePart:
    """What each of so many clients adds of differential privacy's noise: any `threshold_of` them add all of it.

    Numbers are cut off where no fixed-point number is, and noise must not be: what it is added to is, before.
    """
    if config.privacy.clip is None:
        return ALL_OF_IT
    runner, least = config.runner, threshold_of(clients)
    share = least**-0.5
    factor = runner.server_learning_rate / (1 if runner.aggregation == "sum" else least)
    return NoisePart(
        share,
        FixedPoint.of(clients).limit / factor
        - _DEVIATIONS * config.privacy.noise_multiplier * config.privacy.clip * share,
    )


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
    if config.privacy.clip is not None:
        _check_noise(config, job.workers, config.privacy.clip)
    return config


def _check_noise(config: Config, clients: int, clip: float) -> None:
    """ConfigError if differential privacy's noise, or a user's change beside it, is too large or too small."""
    runner, multiplier, numbers = config.runner, config.privacy.noise_multiplier, FixedPoint.of(clients)
    part = noise_part(config, clients)
    received = f"Received: privacy.noise_multiplier={multiplier:g}, privacy.clip={clip:g}"
    if part.room < clip:
        raise ConfigError(
            f"runner.secure_aggregation has each of {clients} workers share numbers of up to {numbers.limit:.3g}, "
            f"within which {_DEVIATIONS} standard deviations of the noise and a user's change must be, times "
            f"runner.server_learning_rate={runner.server_learning_rate:g}. {received} with "
            f"runner.aggregation={runner.aggregation}. Lower that rate or privacy.clip, or take the mean."
        )
    factor = runner.server_learning_rate / (1 if runner.aggregation == "sum" else clients)
    noise = factor * multiplier * clip * part.share
    if multiplier and noise < _LEAST_NOISE * numbers.step:
        raise ConfigError(
            f"runner.secure_aggregation rounds what each of {clients} workers shares to multiples of "
            f"{numbers.step:.3g}. Its noise, times runner.server_learning_rate={runner.server_learning_rate:g}, must "
            f"have a deviation of {_LEAST_NOISE:g} of these for epsilon to hold. {received}: {noise:.3g}. "
            "Raise one of the three, or leave runner.secure_aggregation out."
        )
