"""Figures of one epoch, kept as sums until they are shown.

Rows, losses, hits and AUC buckets of several workers are added first and divided last: a mean of AUCs, or of
hit rates of shards of unlike sizes, is not the AUC or the hit rate of them all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fl_rec.errors import DataError
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.groups import BOUNDS, Sums, added

ALL = "all"  # in the place of a client's number: all of them together


@dataclass(frozen=True)
class Evaluation:
    """Sums over the users of some test rows; `Evaluation()` is no evaluation, or one of no rows.

    Attributes:
        users: users with at least one positive.
        hits: those of them with a positive among the first K.
        ndcg_sum: sum of their NDCG@K.
        buckets: of the predictions; None where only ranks were measured.
        tied: users who have no hit only because a positive ranks below the negatives that score as high.
        groups: users, hits and NDCG by how much history users have; empty where nobody knows.
    """

    users: int = 0
    hits: int = 0
    ndcg_sum: float = 0.0
    buckets: AucBuckets | None = None
    tied: int = 0
    groups: Sums = ()

    def __post_init__(self) -> None:
        # Counts come from numpy and from a float64 vector, and go to JSON.
        _convert(self, users=int, hits=int, ndcg_sum=float, tied=int)

    @property
    def hit_rate(self) -> float:
        """HR@K, the share of users with a hit (arXiv:1708.05031); NaN without users."""
        return _ratio(self.hits, self.users)

    @property
    def ndcg(self) -> float:
        """NDCG@K, mean over users (arXiv:1708.05031); NaN without users."""
        return _ratio(self.ndcg_sum, self.users)

    @property
    def auc(self) -> float:
        """See `AucBuckets.auc`; NaN without buckets."""
        return math.nan if self.buckets is None else self.buckets.auc()

    @classmethod
    def total(cls, parts: Iterable[Evaluation]) -> Evaluation:
        """All of them together: sums and buckets added."""
        parts = list(parts)
        return cls(
            sum(each.users for each in parts),
            sum(each.hits for each in parts),
            math.fsum(each.ndcg_sum for each in parts),
            _sum([each.buckets for each in parts if each.buckets is not None]),
            sum(each.tied for each in parts),
            added(each.groups for each in parts if each.users),
        )

    def to_record(self) -> dict[str, Any]:
        """Figures to write as JSON; None where there is no figure."""
        return {
            "test_auc": _finite(self.auc),
            "test_users": self.users,
            "test_tied": self.tied,
            "hr": _finite(self.hit_rate),
            "ndcg": _finite(self.ndcg),
            **({"groups": dict(zip(GROUP_SUMS, zip(*self.groups)))} if self.groups else {}),
        }


@dataclass(frozen=True)
class Times:
    """What an epoch's time went to since the figures of the one before, in seconds; of several, the mean."""

    train: float = 0.0
    exchange: float = 0.0
    wait: float = 0.0
    evaluation: float = 0.0
    save: float = 0.0

    @classmethod
    def of(cls, spent: Mapping[str, float]) -> Times:
        """Of what `fl_rec.runs.activity.spent` tells."""
        phases: dict[str, float] = dict.fromkeys(vars(cls()), 0.0)
        for word, seconds in spent.items():
            phases[_PHASES.get(word, "train")] += seconds
        return cls(**phases)

    def to_record(self) -> dict[str, float]:
        return {f"{name}_seconds": round(seconds, 4) for name, seconds in vars(self).items()}


# Of what a worker says that it does, the first word.
_PHASES = {
    "exchanging": "exchange",
    "ending": "exchange",
    "waiting": "wait",
    "evaluating": "evaluation",
    "saving": "save",
    "reporting": "save",
}


@dataclass(frozen=True, eq=False)
class EpochMetrics:
    """Sums of one epoch, of one worker or of all of them together.

    Attributes:
        client: the worker's number; None for all together.
        epoch: from 1.
        rows: rows trained on.
        seconds: wall time of the training, without evaluation; of all together, that of the slowest.
        loss_sum: sum over rows of the training loss.
        train: buckets of the training predictions.
        test: of the test shards.
        validation: of the validation shards; its buckets and ties do not travel.
        top_k: K of HR@K and NDCG@K.
        times: what the epoch's time went to.
    """

    client: int | None
    epoch: int
    rows: int
    seconds: float
    loss_sum: float
    train: AucBuckets
    test: Evaluation = field(default_factory=Evaluation)
    validation: Evaluation = field(default_factory=Evaluation)
    top_k: int = 10
    times: Times = field(default_factory=Times)

    def __post_init__(self) -> None:
        _convert(self, epoch=int, rows=int, seconds=float, loss_sum=float, top_k=int)

    @property
    def rows_per_second(self) -> float:
        """NaN if no time passed."""
        return _ratio(self.rows, self.seconds)

    @property
    def train_loss(self) -> float:
        """Mean over rows; NaN without rows."""
        return _ratio(self.loss_sum, self.rows)

    @property
    def train_auc(self) -> float:
        """See `AucBuckets.auc`."""
        return self.train.auc()

    @property
    def test_auc(self) -> float:
        """As `test.auc`."""
        return self.test.auc

    @property
    def test_users(self) -> int:
        """As `test.users`."""
        return self.test.users

    @property
    def hit_rate(self) -> float:
        """As `test.hit_rate`."""
        return self.test.hit_rate

    @property
    def ndcg(self) -> float:
        """As `test.ndcg`."""
        return self.test.ndcg

    @property
    def validation_ndcg(self) -> float:
        """As `validation.ndcg`."""
        return self.validation.ndcg

    @classmethod
    def total(cls, metrics: Sequence[EpochMetrics]) -> EpochMetrics:
        """All workers together: counts and buckets added, and the longest time, since they run side by side.

        Raises:
            DataError: nothing to add, or the epochs or top_k differ.
        """
        kinds = sorted({(each.epoch, each.top_k) for each in metrics})
        if len(kinds) != 1:
            raise DataError(f"Metrics of one epoch and one top_k can be added. Received (epoch, top_k): {kinds}.")
        epoch, top_k = kinds[0]
        return cls(
            client=None,
            epoch=epoch,
            rows=sum(each.rows for each in metrics),
            seconds=max(each.seconds for each in metrics),
            loss_sum=math.fsum(each.loss_sum for each in metrics),
            train=sum((each.train for each in metrics[1:]), start=metrics[0].train),
            test=Evaluation.total(each.test for each in metrics),
            validation=Evaluation.total(each.validation for each in metrics),
            top_k=top_k,
            times=Times(*(statistics.fmean(each) for each in zip(*(vars(one.times).values() for one in metrics)))),
        )

    def to_vector(self) -> np.ndarray:
        """Everything as float64[n], n depending on the number of buckets only; counts stay exact up to 2^53.

        Workers gather these; `from_vector` of each and `total` follow. Adding the vectors themselves would add the
        seconds and lose each worker's figures.
        """
        test, validation = self.test, self.validation
        buckets = AucBuckets.empty(len(self.train.positives) - 1) if test.buckets is None else test.buckets
        head: list[float] = [-1 if self.client is None else self.client, test.buckets is not None]
        head += [self.epoch, self.rows, self.seconds, self.loss_sum]
        head += [test.users, test.hits, test.ndcg_sum, test.tied]
        head += [validation.users, validation.hits, validation.ndcg_sum, self.top_k]
        head += [*vars(self.times).values(), bool(test.groups)]
        head += [number for group in test.groups or _NO_GROUPS for number in group]
        counts = [self.train.positives, self.train.negatives, buckets.positives, buckets.negatives]
        return np.concatenate([np.array(head, np.float64), *counts])

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> EpochMetrics:
        """The inverse of `to_vector`.

        Raises:
            DataError: the length is not one that `to_vector` gives.
        """
        values = np.ravel(vector)
        if len(values) < _HEAD + 4 or (len(values) - _HEAD) % 4:
            raise DataError(f"A vector of EpochMetrics has {_HEAD} numbers and 4 parts. Received: {len(values)}.")
        client, tested, epoch, rows, seconds, loss_sum = values[:6]
        (users, hits, ndcg_sum, tied), validation, top_k = values[6:10], values[10:13], values[13]
        times, grouped, sums = values[14:19], values[19], values[20:_HEAD].reshape(-1, 3).tolist()
        tested_on = AucBuckets(*values[_HEAD:].reshape(4, -1)[2:]) if tested else None
        by_history = tuple((int(users), int(hits), gain) for users, hits, gain in sums) if grouped else ()
        train_pos, train_neg = values[_HEAD:].reshape(4, -1)[:2]
        return cls(
            client=None if client < 0 else int(client),
            epoch=epoch,
            rows=rows,
            seconds=seconds,
            loss_sum=loss_sum,
            train=AucBuckets(train_pos, train_neg),
            test=Evaluation(users, hits, ndcg_sum, tested_on, tied, by_history),
            validation=Evaluation(*validation),
            top_k=top_k,
            times=Times(*times.tolist()),
        )

    def to_record(self) -> dict[str, Any]:
        """Figures to write as JSON, without the buckets; None where there is no figure."""
        record = {
            "epoch": self.epoch,
            "client": ALL if self.client is None else self.client,
            "rows": self.rows,
            "seconds": _finite(self.seconds),
            "rows_per_second": _finite(self.rows_per_second),
            "train_loss": _finite(self.train_loss),
            "train_auc": _finite(self.train_auc),
            **self.test.to_record(),
            "top_k": self.top_k,
            **self.times.to_record(),
        }
        if self.validation.users:
            of_validation = self.validation.to_record()
            record.update(validation_hr=of_validation["hr"], validation_ndcg=of_validation["ndcg"])
        return record


GROUP_SUMS = ("users", "hits", "ndcg_sum")
_NO_GROUPS = [(0, 0, 0.0)] * len(BOUNDS)
# Numbers before the buckets in a vector of EpochMetrics.
_HEAD = 20 + len(GROUP_SUMS) * len(BOUNDS)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sum(buckets: Sequence[AucBuckets]) -> AucBuckets | None:
    return sum(buckets[1:], start=buckets[0]) if buckets else None


def _convert(figures: Evaluation | EpochMetrics, **kinds: type) -> None:
    for name, kind in kinds.items():
        object.__setattr__(figures, name, kind(getattr(figures, name)))
