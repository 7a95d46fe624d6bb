"""Federated distillation: what a client knows, told as logits on rows that everybody holds. No Paddle is imported here.

The proxy set is the interactions of a few users who agree to be public. Every client and the coordinator hold them, and
each client learns these users' embeddings too. Each round all draw the same rows of it, a positive with its negatives.
The clients report their logits, and the coordinator's decision brings the teacher's, the soft targets (DS-FL,
arXiv:2008.06180). See `fl_rec.coordinator.strategies.distill` for the coordinator's side.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.data.manifest import list_files
from fl_rec.data.rows import Sizes
from fl_rec.data.sampling import AbsentItems, Stream, generator
from fl_rec.data.text import read_rows
from fl_rec.errors import ConfigError, DataError


def check(config: Config, job: Facts) -> Config:
    """ConfigError if a student is none of the clients, or its net can't be configured."""
    students = config.distillation.students
    unknown = [client for client in students if client != "*" and int(client) >= job.workers]
    if unknown:
        raise ConfigError(
            f"distillation.students must name clients 0 to {job.workers - 1}. Received: {', '.join(unknown)}."
        )
    if students:
        for client in range(job.workers):
            config.for_client(client)
    return config


# A report's fields: float16 [rows, group], and a number that is the same for the same proxy set.
LOGITS, FINGERPRINT = "proxy_logits", "proxy_set"


# A decision's field: the teacher's logits, as the report's.
SOFT_TARGETS = "soft_targets"


# Beyond it a probability is 0 or 1 for float32.
LARGEST_LOGIT = 15.0


class Rows(NamedTuple):
    """Training rows: users int64 [n], items int64 [n, group], labels int64 [n, group]."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray


class ProxySet:
    """The public users' interactions, and the rows that all draw from them in a round.

    Args:
        positives: int64 [n, 2] of (user, item).
        num_items: all items, of which negatives are drawn.
        num_neg: negatives of a positive.
        group_size: items of a row, 1 or 1 + num_neg.
        per_round: positives of a round; all of them if there are fewer.
        seed: the same for all who share the set.

    Attributes:
        users: int64, the public users, sorted.
        shape: (rows of a round, group_size).
        fingerprint: a whole number below 2^48 that tells one set from another.
    """

    def __init__(
        self, positives: np.ndarray, num_items: int, num_neg: int, group_size: int, per_round: int, seed: int
    ) -> None:
        self.positives = np.unique(positives, axis=0)
        self.users = np.unique(self.positives[:, 0])
        self._absent = AbsentItems(self.positives, int(self.users[-1]) + 1, num_items)
        full = self.users[self._absent.count[self.users] == 0]
        if len(full):
            raise DataError(
                "A public user must have an item that is not theirs, or no negative can be drawn. Received: user "
                f"{full[0]}, who has all {num_items}. Leave the user out of the proxy set."
            )
        self._num_neg, self._group_size, self._seed = num_neg, group_size, seed
        self._per_round = min(per_round, len(self.positives))
        self.shape = (self._per_round * (1 + num_neg) // group_size, group_size)
        digest = hashlib.sha256(self.positives.tobytes())
        digest.update(repr((num_items, num_neg, group_size, self._per_round, seed)).encode())
        self.fingerprint = int.from_bytes(digest.digest()[:6], "big")

    @classmethod
    def from_config(cls, config: Config) -> ProxySet | None:
        """The configured one, None if there is none.

        Raises:
            DataError: it can't be read, or its ids are not the data's.
        """
        folder, hyper = config.distillation.proxy_data_dir, config.hyper_parameters
        if folder is None or config.runner.resample_negatives is None:
            return None
        files = list_files(
            folder,
            "distillation.proxy_data_dir",
            "public users' rows",
            "Make it with fl-rec prepare --public and fl-rec partition.",
        )
        rows = np.concatenate([read_rows(path, Sizes(hyper.num_users, hyper.num_items)) for path in files])
        positives = rows[rows[:, 2] == 1, :2]
        if not len(positives):
            raise DataError(f"A proxy set must hold rows with label 1. Received: {len(rows)} rows in {folder}, none.")
        return cls(
            positives,
            config["hyper_parameters.num_items"],
            config.runner.resample_negatives,
            hyper.group_size or 1,
            config.distillation.positives,
            config.runner.seed,
        )

    def rows(self, round: int) -> Rows:
        """The rows of a round, the same for all who share the set."""
        rng = generator(self._seed, Stream.PROXY_ROWS, round)
        drawn = np.sort(rng.choice(len(self.positives), self._per_round, replace=False))
        users = self.positives[drawn, 0]
        negatives = self._absent.draw(users, self._num_neg, rng)
        items = np.concatenate([self.positives[drawn, 1:], negatives], axis=1)
        labels = np.zeros_like(items)
        labels[:, 0] = 1
        group = self._group_size
        return Rows(np.repeat(users, items.shape[1] // group), items.reshape(-1, group), labels.reshape(-1, group))

    def require_no_overlap(self, users: np.ndarray, what: str) -> None:
        """DataError if a public user is among these: test figures must not know the proxy set."""
        both = np.intersect1d(self.users, users)
        if len(both):
            raise DataError(
                f"Public users must not be in {what}. Received: {len(both)} that are, the first {both[0]}. Make shards "
                "and proxy set together: fl-rec prepare --public, then fl-rec partition."
            )
