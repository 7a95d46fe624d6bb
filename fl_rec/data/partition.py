"""Partitioners: which shard, and so which worker, each user belongs to.

A partitioner is a function ``(users: UserTable, num_shards: int, rng: np.random.Generator) -> shards``, where
``shards`` is an integer array [users] with a shard number from 0 to num_shards - 1, or -1 to leave the user
out. Keyword-only parameters are options, set after a colon: ``dirichlet_genre:alpha=0.3``; their types are checked.
A user's own is named ``module:function`` or ``path/to/file.py:function``, options after a second colon.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fl_rec.errors import ConfigError, DataError
from fl_rec.plugins import Registry, split_options
from fl_rec.typed import PositiveFloat, PositiveInt, options_of, read_options

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UserTable:
    """Users, one per entry of each array [users]."""

    user: np.ndarray
    """int64, the id; entry n is user n."""
    activity: np.ndarray
    """int64, number of training positives."""
    columns: Mapping[str, np.ndarray]
    """str, what the source knows of users, by its own names; '' if unknown."""
    tag: np.ndarray
    """str, the most frequent tag among the training items; '' if unknown."""

    def __len__(self) -> int:
        return len(self.user)


Partitioner = Callable[..., np.ndarray]


def has_bad_zip(users: UserTable) -> np.ndarray:
    """Return bool [users]: the zip code is empty or does not start with an ASCII digit."""
    return ~np.isin(_zip_code(users).astype("U1"), list("0123456789"))


def _zip_code(users: UserTable) -> np.ndarray:
    return users.columns.get("zip_code", np.full(len(users), "", "U1"))


def zip_first_digit(
    users: UserTable,
    num_shards: int,
    rng: np.random.Generator,
    *,
    bad_zip: Literal["spread", "drop", "error"] = "spread",
) -> np.ndarray:
    """Shard by region: ``digit * num_shards // 10`` of the zip code's first digit, so at most 10 shards.

    ``bad_zip`` is for zip codes that don't start with a digit: ``spread`` them over all shards (user id
    modulo num_shards, which loses nothing), ``drop`` these users, or raise an ``error``.
    """
    if num_shards > 10:
        raise ConfigError(
            f"zip_first_digit fills at most 10 shards, one per digit. Received: num_shards={num_shards}. "
            "Use --num_shards 10 or less, or --partitioner iid."
        )
    bad = has_bad_zip(users)
    if bad.any():
        first = int(np.argmax(bad))
        example = f"user {first} has {str(_zip_code(users)[first])!r}"
        found = f"{bad.sum()} of {len(users)} users have another ({example})"
        if bad_zip == "error":
            raise DataError(
                f"A zip code must start with a digit. Received: {found}. "
                "Use zip_first_digit:bad_zip=spread or :bad_zip=drop, or another partitioner."
            )
        done = "left out" if bad_zip == "drop" else "spread over all shards by user id"
        log.warning("warning: a zip code should start with a digit; %s; they are %s", found, done)
    digit = np.where(bad, "0", _zip_code(users).astype("U1")).astype(np.int64)
    return np.where(bad, -1 if bad_zip == "drop" else users.user % num_shards, digit * num_shards // 10)


def iid(users: UserTable, num_shards: int, rng: np.random.Generator) -> np.ndarray:
    """Deal the users out at random, as many to each shard as to any other, give or take one."""
    return rng.permutation(np.arange(len(users)) % num_shards)


def dirichlet_activity(
    users: UserTable,
    num_shards: int,
    rng: np.random.Generator,
    *,
    alpha: PositiveFloat = 0.5,
    classes: PositiveInt = 10,
) -> np.ndarray:
    """Spread each of ``classes`` activity quantiles over the shards in Dirichlet(alpha) proportions."""
    rank = np.argsort(np.argsort(users.activity, kind="stable"))
    return _dirichlet(rank * classes // max(len(users), 1), num_shards, rng, alpha)


def dirichlet_genre(
    users: UserTable, num_shards: int, rng: np.random.Generator, *, alpha: PositiveFloat = 0.5
) -> np.ndarray:
    """Spread the users of each dominant genre over the shards in Dirichlet(alpha) proportions."""
    if not (users.tag != "").any():
        raise DataError(
            "dirichlet_genre needs a source with genres. Received: none for any user. "
            "Prepare from MovieLens' own archive or synthetic, or use dirichlet_activity."
        )
    return _dirichlet(np.unique(users.tag, return_inverse=True)[1], num_shards, rng, alpha)


def _dirichlet(label: np.ndarray, num_shards: int, rng: np.random.Generator, alpha: float) -> np.ndarray:
    """Draw each user's shard from its class's proportions (as arXiv:1909.06335 does with samples)."""
    proportions = rng.dirichlet(np.full(num_shards, alpha), size=int(label.max(initial=0)) + 1)
    uniform = rng.random(len(label))
    bounds = np.cumsum(proportions, axis=1)
    bounds[:, -1] = 1.0  # a sum may end a rounding error below, where a draw could fall
    shard: np.ndarray = (bounds[label] < uniform[:, None]).sum(axis=1)
    return shard


PARTITIONERS: Registry[Partitioner] = Registry(
    "a partitioner",
    "--partitioner",
    {function.__name__: function for function in (zip_first_digit, iid, dirichlet_activity, dirichlet_genre)},
)


@dataclass(frozen=True)
class NamedPartitioner:
    """A partitioner with its name and every option's value; calling it checks what it returns."""

    name: str
    options: Mapping[str, Any]
    function: Partitioner

    def __call__(self, users: UserTable, num_shards: int, rng: np.random.Generator) -> np.ndarray:
        """Return int64 [users]. DataError unless the function gives one shard number, or -1, per user."""
        if num_shards < 1:
            raise ConfigError(f"num_shards must be at least 1. Received: {num_shards}. The usual value is 10.")
        shard = np.asarray(self.function(users, num_shards, rng, **self.options))
        if shard.shape != (len(users),):
            self._reject(f"one shard number per user, shape ({len(users)},)", f"shape {shard.shape}")
        if shard.dtype.kind not in "iu":
            self._reject("whole numbers", f"dtype {shard.dtype}")
        outside = np.flatnonzero((shard < -1) | (shard >= num_shards))
        if outside.size:
            received = f"{shard[outside[0]]} for user {outside[0]}"
            self._reject(f"numbers from 0 to {num_shards - 1}, or -1 to leave a user out", received)
        return shard.astype(np.int64)

    def _reject(self, rule: str, received: str) -> None:
        raise DataError(f"Partitioner {self.name} must return {rule}. Received: {received}. Correct its return value.")


def find_partitioner(spec: str) -> NamedPartitioner:
    """Return the partitioner called ``name``, ``module:function`` or ``file.py:function``, each with
    ``:key=value,...``.

    ConfigError if there is no such thing, suggesting the nearest name, or if an option is unknown or
    malformed.
    """
    name, given = split_options(spec)
    function = PARTITIONERS.find(name)
    options = read_options(options_of(function, name), given, f"--partitioner {name}", Path())
    return NamedPartitioner(name, dict(options), function)
