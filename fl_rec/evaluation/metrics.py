"""Figures of one epoch, kept as sums until they are shown.

Rows, losses, hits and AUC buckets of several workers are added first and divided last: a mean of AUCs, or of
hit rates of shards of unlike sizes, is not the AUC or the hit rate of them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fl_rec.errors import DataError
from fl_rec.evaluation.auc import AucBuckets


@dataclass(frozen=True, eq=False)
class EpochMetrics:
    """Sums of one epoch, of one worker or of all of them together.

    Attributes:
        client: the worker's number; None for all together.
        epoch: from 0.
        rows: rows trained on.
        seconds: wall time of the training, without evaluation; of all together, that of the slowest.
        loss_sum: sum over rows of the training loss.
        train: buckets of the training predictions.
        test: buckets of the test predictions; None without an evaluation.
        test_users: users ranked.
        hits: users with a positive among the first `top_k`.
        ndcg_sum: sum over users of NDCG at `top_k`.
        validation_users, validation_hits, validation_ndcg_sum: the same of the validation shards.
        top_k: K of HR@K and NDCG@K.
    """

    client: int | None
    epoch: int
    rows: int
    seconds: float
    loss_sum: float
    train: AucBuckets
    test: AucBuckets | None = None
    test_users: int = 0
    hits: int = 0
    ndcg_sum: float = 0.0
    validation_users: int = 0
    validation_hits: int = 0
    validation_ndcg_sum: float = 0.0
    top_k: int = 10

    def __post_init__(self) -> None:
        # Counts come from numpy and from a float64 vector, and go to JSON.
        for name, kind in _NUMBERS.items():
            object.__setattr__(self, name, kind(getattr(self, name)))

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
        """See `AucBuckets.auc`; NaN without an evaluation."""
        return math.nan if self.test is None else self.test.auc()

    @property
    def hit_rate(self) -> float:
        """HR@K, the share of users with a hit (arXiv:1708.05031); NaN without users."""
        return _ratio(self.hits, self.test_users)

    @property
    def ndcg(self) -> float:
        """NDCG@K, mean over users (arXiv:1708.05031); NaN without users."""
        return _ratio(self.ndcg_sum, self.test_users)

    @property
    def validation_hit_rate(self) -> float:
        """HR@K on the validation shards; NaN without them."""
        return _ratio(self.validation_hits, self.validation_users)

    @property
    def validation_ndcg(self) -> float:
        """NDCG@K on the validation shards; NaN without them."""
        return _ratio(self.validation_ndcg_sum, self.validation_users)

    @classmethod
    def total(cls, metrics: Sequence[EpochMetrics]) -> EpochMetrics:
        """All workers together: counts and buckets added, and the longest time, since they run side by side.

        Raises:
            DataError: nothing to add, or the epochs or top_k differ.
        """
        kinds = sorted({(each.epoch, each.top_k) for each in metrics})
        if len(kinds) != 1:
            raise DataError(f"Metrics of one epoch and one top_k can be added. Received (epoch, top_k): {kinds}.")
        (epoch, top_k), tests = kinds[0], [each.test for each in metrics if each.test is not None]
        return cls(
            client=None,
            epoch=epoch,
            rows=sum(each.rows for each in metrics),
            seconds=max(each.seconds for each in metrics),
            loss_sum=math.fsum(each.loss_sum for each in metrics),
            train=_sum([each.train for each in metrics]),
            test=_sum(tests) if tests else None,
            test_users=sum(each.test_users for each in metrics),
            hits=sum(each.hits for each in metrics),
            ndcg_sum=math.fsum(each.ndcg_sum for each in metrics),
            validation_users=sum(each.validation_users for each in metrics),
            validation_hits=sum(each.validation_hits for each in metrics),
            validation_ndcg_sum=math.fsum(each.validation_ndcg_sum for each in metrics),
            top_k=top_k,
        )

    def to_vector(self) -> np.ndarray:
        """Everything as float64[n], n depending on the number of buckets only; counts stay exact up to 2^53.

        Workers gather these: each puts its own into its row of zeros[workers, n], an all-reduce adds the
        matrices, and `from_vector` of each row and `total` follow. Adding the vectors themselves would add
        the seconds and lose each worker's figures.
        """
        test = AucBuckets.empty(len(self.train.positives) - 1) if self.test is None else self.test
        head = [getattr(self, name) for name in _NUMBERS]
        flags = [-1 if self.client is None else self.client, self.test is not None]
        buckets = [self.train.positives, self.train.negatives, test.positives, test.negatives]
        return np.concatenate([np.array(flags + head, np.float64), *buckets])

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> EpochMetrics:
        """The inverse of `to_vector`.

        Raises:
            DataError: the length is not one that `to_vector` gives.
        """
        values = np.ravel(vector)
        start = 2 + len(_NUMBERS)
        if len(values) < start + 4 or (len(values) - start) % 4:
            raise DataError(f"A vector of EpochMetrics has {start} numbers and 4 parts. Received: {len(values)}.")
        client, has_test = int(values[0]), bool(values[1])
        numbers: dict[str, Any] = dict(zip(_NUMBERS, values[2:start]))
        train_pos, train_neg, test_pos, test_neg = values[start:].reshape(4, -1)
        return cls(
            client=None if client < 0 else client,
            train=AucBuckets(train_pos, train_neg),
            test=AucBuckets(test_pos, test_neg) if has_test else None,
            **numbers,
        )

    def to_record(self) -> dict[str, Any]:
        """Figures to write as JSON, without the buckets; what is NaN becomes None."""
        record = {
            "epoch": self.epoch,
            "client": "all" if self.client is None else self.client,
            "rows": self.rows,
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second,
            "train_loss": self.train_loss,
            "train_auc": self.train_auc,
            "test_auc": self.test_auc,
            "test_users": self.test_users,
            "hr": self.hit_rate,
            "ndcg": self.ndcg,
            "top_k": self.top_k,
        }
        if self.validation_users:
            record.update(validation_hr=self.validation_hit_rate, validation_ndcg=self.validation_ndcg)
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }


_KINDS = {"int": int, "float": float}


# Scalar fields in the order of the vector; annotations are text here (PEP 563).
_NUMBERS = {item.name: _KINDS[str(item.type)] for item in fields(EpochMetrics) if str(item.type) in _KINDS}


def format_table(metrics: Sequence[EpochMetrics], title: str) -> str:
    """A table for a terminal: `title`, one line per client in order, one for all together; `-` is no figure.

    Raises:
        DataError: see `EpochMetrics.total`.
    """
    clients = sorted((each for each in metrics if each.client is not None), key=lambda each: each.client or 0)
    total = EpochMetrics.total(clients)
    at = f"@{total.top_k}"
    header = ["client", "rows", "seconds", "rows/s", "train loss", "train AUC", "test AUC", "users"]
    validated = [f"valid. HR{at}", f"valid. NDCG{at}"] if total.validation_users else []
    lines = [[*header, f"HR{at}", f"NDCG{at}", *validated]]
    for each in [*clients, total]:
        lines.append(
            [
                "all" if each.client is None else str(each.client),
                f"{each.rows:,}",
                _figure(each.seconds, ",.1f"),
                _figure(each.rows_per_second, ",.0f"),
                _figure(each.train_loss, ".4f"),
                _figure(each.train_auc, ".4f"),
                _figure(each.test_auc, ".4f"),
                f"{each.test_users:,}" if each.test_users else "-",
                _figure(each.hit_rate, ".4f"),
                _figure(each.ndcg, ".4f"),
                *(
                    [_figure(each.validation_hit_rate, ".4f"), _figure(each.validation_ndcg, ".4f")]
                    if validated
                    else []
                ),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
    rule = "-" * len(shown[0])
    return "\n".join([title, shown[0], rule, *shown[1:-1], rule, shown[-1]])


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _figure(value: float, spec: str) -> str:
    return format(value, spec) if math.isfinite(value) else "-"


def _sum(buckets: Sequence[AucBuckets]) -> AucBuckets:
    return sum(buckets[1:], start=buckets[0])
