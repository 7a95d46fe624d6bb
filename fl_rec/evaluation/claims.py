"""What workers say of themselves, beside what is known of them: nobody's figures count that can't be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_rec.errors import FLRecError
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation

# Of a sum of shares that were rounded.
_ROUNDING = 1e-6
# Where `EpochMetrics.to_vector` has the loss, which may well be large.
_LOSS = 5


@dataclass(frozen=True)
class Known:
    """What a worker's figures can't be above.

    Attributes:
        test_users: of its test shards, by the manifest; the net's users where there is none.
        test_rows: the same of rows; None if nobody knows.
        validation_users: as `test_users`.
    """

    test_users: int
    test_rows: int | None
    validation_users: int


def believable(gathered: np.ndarray, own: EpochMetrics, known: Sequence[Known]) -> tuple[list[EpochMetrics], list[str]]:
    """Every worker's figures, and what is wrong with those that can't be.

    Args:
        gathered: float64 [workers, n], each worker's `EpochMetrics.to_vector`.
        own: this worker's; the others' must be of the same epoch.
        known: of each worker.

    Returns:
        one entry per worker, in order, without any figure where they can't be; and a text for each of these.
    """
    everyone, wrong = [], []
    for client, (vector, limits) in enumerate(zip(gathered, known)):
        metrics, received = _read(vector, own.epoch)
        received = received or _strange(metrics, client, own, limits)
        if received:
            wrong.append(
                f"worker.{client}'s figures of epoch {own.epoch} can't be, and count for nothing. Received: {received}."
            )
            nothing = AucBuckets.empty(len(own.train.positives) - 1)
            metrics = EpochMetrics(client, own.epoch, 0, 0.0, 0.0, nothing, top_k=own.top_k)
        everyone.append(metrics)
    return everyone, wrong


def _read(vector: np.ndarray, epoch: int) -> tuple[EpochMetrics, str]:
    try:
        if not np.isfinite(vector).all():
            raise ValueError("a number that is not finite")
        if (np.abs(np.delete(vector, _LOSS)) > 2**53).any():
            raise ValueError("a count above 2^53")
        return EpochMetrics.from_vector(vector), ""
    except (FLRecError, ValueError) as err:
        return EpochMetrics(None, epoch, 0, 0.0, 0.0, AucBuckets.empty()), str(err)


def _strange(metrics: EpochMetrics, client: int, own: EpochMetrics, known: Known) -> str:
    """What can't be, in words; "" if all can."""
    if (metrics.client, metrics.epoch, metrics.top_k) != (client, own.epoch, own.top_k):
        return f"those of client {metrics.client}, epoch {metrics.epoch}, top_k {metrics.top_k}"
    counts = [metrics.train.positives, metrics.train.negatives]
    if metrics.test.buckets is not None:
        counts += [metrics.test.buckets.positives, metrics.test.buckets.negatives]
    numbers = (metrics.rows, metrics.seconds, *vars(metrics.times).values())
    if any((each < 0).any() for each in counts) or min(numbers) < 0:
        return "a count or a time below 0"
    if not metrics.rows and (metrics.loss_sum or counts[0].any() or counts[1].any()):
        return "a loss or scores of no rows"
    rows = sum(int(each.sum()) for each in counts[2:])
    if known.test_rows is not None and rows > known.test_rows:
        return f"scores of {rows:,} test rows, of which there are {known.test_rows:,}"
    for figures, users, what in (
        (metrics.test, known.test_users, "test"),
        (metrics.validation, known.validation_users, "validation"),
    ):
        if problem := _strange_ranks(figures, users):
            return f"{problem} {what} users"
    return ""


def _strange_ranks(figures: Evaluation, users: int) -> str:
    if not 0 <= figures.users <= users:
        return f"{figures.users:,} of {users:,}"
    if not 0 <= figures.hits <= figures.users:
        return f"{figures.hits:,} hits of {figures.users:,}"
    if not 0 <= figures.ndcg_sum <= figures.hits * (1 + _ROUNDING):
        return f"an NDCG of {figures.ndcg_sum:g} in all from {figures.hits:,} hits of {figures.users:,}"
    if not 0 <= figures.tied <= figures.users - figures.hits:
        return f"{figures.tied:,} ties and {figures.hits:,} hits of {figures.users:,}"
    if figures.groups:
        users_of, hits_of, gains_of = zip(*figures.groups)
        each_sound = all(
            0 <= gain <= hits * (1 + _ROUNDING) and 0 <= hits <= users for users, hits, gain in figures.groups
        )
        gain = abs(sum(gains_of) - figures.ndcg_sum) <= _ROUNDING * (1 + figures.ndcg_sum)
        if not (each_sound and (sum(users_of), sum(hits_of)) == (figures.users, figures.hits) and gain):
            return f"others by history than {figures.hits:,} hits of {figures.users:,}"
    return ""


class Divergence:
    """Whether training still learns, by the figures of all workers together, epoch by epoch."""

    # Of a mean over rows: none above it is a loss of scores from 0 to 1, and none far above the first epoch's.
    LARGEST_LOSS, FAR_ABOVE = 1e6, 10.0
    # HR so many times below the best, with so many users that chance does not do it; all scores equal, with as many.
    FAR_BELOW, LEAST_USERS = 5.0, 50

    def __init__(self) -> None:
        self._first_loss = math.nan
        self._best = 0.0

    def go_on(self, totals: Iterable[Mapping[str, Any]]) -> None:
        """Knows the epochs of a run that is resumed, by their records."""
        for each in totals:
            loss, hit_rate = (each.get(name) for name in ("train_loss", "hr"))
            if loss is not None and not math.isfinite(self._first_loss):
                self._first_loss = loss
            self._best = max(self._best, hit_rate or 0.0)

    def signs(self, total: EpochMetrics, everyone: Sequence[EpochMetrics]) -> list[str]:
        """What says that it does not, in words.

        Args:
            total: an epoch's figures of all together.
            everyone: the same of each worker.
        """
        found, loss, test = [], total.train_loss, total.test
        first = self._first_loss if math.isfinite(self._first_loss) else loss
        limit = min(self.LARGEST_LOSS, self.FAR_ABOVE * abs(first) if first else math.inf)
        if loss > limit:
            high = [str(each.client) for each in everyone if each.train_loss > limit]
            before = f", after {first:.4g} in the first epoch" if first < loss else ""
            found.append(f"a training loss of {loss:.4g}{before}, of worker {', '.join(high)}")
        if test.users >= self.LEAST_USERS:
            if test.tied == test.users:
                found.append(f"equal scores of all items for all {test.users:,} test users")
            elif test.hit_rate * self.FAR_BELOW < self._best:
                found.append(f"HR@{total.top_k} {test.hit_rate:.4f}, after {self._best:.4f} at best")
        if not found:
            self._first_loss, self._best = first, max(self._best, test.hit_rate if test.users else 0.0)
        return found
