"""Federated distillation: what a client knows, told as logits on rows that everybody holds. No Paddle is imported here.

The proxy set is the interactions of a few users who agree to be public. Every client and the coordinator hold them, and
each client learns these users' embeddings too. Each round all draw the same rows of it, a positive with its negatives.
The clients report their logits, and the coordinator's decision brings the teacher's, the soft targets (DS-FL,
arXiv:2008.06180). See `fl_rec.coordinator.strategies.distill` for the coordinator's side.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fl_rec.config import Config
from fl_rec.data import MANIFEST_NAME, generator, parse_csv_rows, parse_multislot, read_bytes
from fl_rec.errors import DataError
from fl_rec.sampling import AbsentItems, FreshNegatives, id_text

# A report's fields: float16 [rows, group], and a number that is the same for the same proxy set.
LOGITS, FINGERPRINT = "proxy_logits", "proxy_set"
# A decision's field: the teacher's logits, as the report's.
SOFT_TARGETS = "soft_targets"
# Beyond it a probability is 0 or 1 for float32.
LARGEST_LOGIT = 15.0
# The data feed reads whole numbers: targets travel to the program in thousandths, and this stands for none.
TARGET_UNIT, NO_TARGET = 0.001, 999_999

# Those below are fl_rec.sampling's, prepare.py's and gen_heter_data.py's.
_PROXY_STREAM, _ORDER_STREAM = 8, 9


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
        rows = np.concatenate([_read(path) for path in _files(folder)])
        positives = rows[rows[:, 2] == 1, :2]
        if not len(positives):
            raise DataError(f"A proxy set must hold rows with label 1. Received: {len(rows)} rows in {folder}, none.")
        for column, name in ((0, "num_users"), (1, "num_items")):
            limit, highest = getattr(hyper, name), int(positives[:, column].max())
            if limit is not None and highest >= limit:
                raise DataError(
                    f"Ids of a proxy set must be below hyper_parameters.{name}={limit}. Received: {highest} in "
                    f"{folder}. Take the set that belongs to the shards: prepare.py --public makes both."
                )
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
        rng = generator(self._seed, _PROXY_STREAM, round)
        drawn = np.sort(rng.choice(len(self.positives), self._per_round, replace=False))
        users = self.positives[drawn, 0]
        negatives = self._absent.draw(np.repeat(users[:, None], self._num_neg, axis=1), rng)
        items = np.concatenate([self.positives[drawn, 1:], negatives], axis=1)
        labels = np.zeros_like(items)
        labels[:, 0] = 1
        group = self._group_size
        return Rows(np.repeat(users, items.shape[1] // group), items.reshape(-1, group), labels.reshape(-1, group))

    def require_strangers(self, users: np.ndarray, what: str) -> None:
        """DataError if a public user is among these: test figures must not know the proxy set."""
        both = np.intersect1d(self.users, users)
        if len(both):
            raise DataError(
                f"Public users must not be in {what}. Received: {len(both)} that are, the first {both[0]}. Make shards "
                "and proxy set together: prepare.py --public, then gen_heter_data.py."
            )


class DistilledRows:
    """A worker's own rows and those of the proxy set, each with its soft targets, as a source of `FreshRows`.

    The text has one slot more than a net has feeds, float32 [group]: the targets, in units of `TARGET_UNIT`, or
    `NO_TARGET`.

    Args:
        own: draws the worker's own rows; its num_users must be given, so that all lines are of one width.
        proxy: the proxy set.
        num_users, num_items: as `own` has them.
        seed: of the order of the rows.
    """

    def __init__(self, own: FreshNegatives, proxy: ProxySet, num_users: int, num_items: int, seed: int) -> None:
        self._own, self._proxy, self._seed = own, proxy, seed
        self._highest = (num_users - 1, num_items - 1)
        self._round = 0
        self._targets: np.ndarray | None = None
        self.lines = own.lines + proxy.shape[0]

    def begin(self, round: int, targets: np.ndarray | None) -> None:
        """Sets which rows of the proxy set the next reading has.

        Args:
            round: from 0.
            targets: logits of the teacher, float [rows, group]; None if there are none: labels teach alone.
        """
        self._round, self._targets = round, targets

    def epoch(self, number: int) -> np.ndarray:
        """As `FreshNegatives.epoch`."""
        own = self._own.epoch(number)
        group = self._proxy.shape[1]
        rows = self._proxy.rows(self._round)
        targets: Any = np.full((1, group), NO_TARGET)
        own = _lines(own[:, :-1], f" {group} ", _numbers(targets, len(own)))
        if self._targets is not None:
            targets = np.rint(np.clip(self._targets, -LARGEST_LOGIT, LARGEST_LOGIT) / TARGET_UNIT).astype(np.int64)
        proxy = _lines(
            "1 ",
            id_text(rows.users, self._highest[0]),
            f"{group} ",
            id_text(rows.items, self._highest[1]).reshape(len(rows.items), -1),
            f"{group} ",
            # A last blank would make these lines longer than the others.
            id_text(rows.labels, 1).reshape(len(rows.labels), -1)[:, :-1],
            f" {group} ",
            _numbers(targets, len(rows.items)),
        )
        order = generator(self._seed, _ORDER_STREAM, number).permutation(self.lines)
        return np.take(np.concatenate([own, proxy]), order, axis=0)


def _numbers(values: np.ndarray, rows: int) -> np.ndarray:
    """Whole numbers below 10^6 as text of one width, uint8 [rows, ...]."""
    text = id_text(np.abs(values), NO_TARGET)
    sign = np.full((*values.shape, 1), ord("0"), np.uint8)
    sign[values < 0] = ord("-")
    text = np.concatenate([sign, text], axis=-1).reshape(len(values), -1)[:, :-1]
    return np.broadcast_to(text, (rows, text.shape[1]))


def _lines(*columns: Any) -> np.ndarray:
    """Columns side by side, each text of one width: str, or uint8 [n, width]; with a line's end."""
    arrays = [np.frombuffer(each.encode(), np.uint8) if isinstance(each, str) else each for each in (*columns, "\n")]
    rows = max(len(each) for each in arrays if each.ndim == 2)
    return np.concatenate([np.broadcast_to(each, (rows, each.shape[-1])) for each in arrays], axis=1)


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities, float16 of the same shape, at most `LARGEST_LOGIT` in size; NaN stays NaN."""
    p: np.ndarray = probabilities.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(p) - np.log1p(-p), -LARGEST_LOGIT, LARGEST_LOGIT).astype(np.float16)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"distillation.proxy_data_dir must be a folder of public users' rows. Received: {folder}, which {why}. "
            "Make it with prepare.py --public and gen_heter_data.py."
        )
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [path for path in files if path.name != MANIFEST_NAME]
    if not files:
        raise DataError(f"distillation.proxy_data_dir must hold files. Received: {folder}, which is empty.")
    return files


def _read(path: Path) -> np.ndarray:
    """Rows of (user, item, label), int64 [n, 3], of CSV or MultiSlot text."""
    text = read_bytes(path)
    if path.suffix == ".csv":
        return parse_csv_rows(text, str(path))
    users, items, labels = parse_multislot(text, 3, str(path))
    return np.stack([np.broadcast_to(users, items.shape), items, labels], axis=-1).reshape(-1, 3)
