"""What workers say of themselves, and whether training still learns."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.claims import Divergence, Known, believable
from fl_rec.evaluation.groups import Sums
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation, Times

KNOWN = Known(test_users=20, test_rows=40, validation_users=20)


def buckets(positives: int, negatives: int) -> AucBuckets:
    counts = np.zeros((2, 5), np.int64)
    counts[:, 2] = positives, negatives
    return AucBuckets(*counts)


def metrics(client: int | None = 0, loss: float = 0.5, hits: int = 10, users: int = 20, **fields: Any) -> EpochMetrics:
    test = Evaluation(users, hits, hits / 2, buckets(20, 20))
    known = {"test": test, "validation": Evaluation(users, hits, hits / 2), **fields}
    return EpochMetrics(client, 3, 10, 1.5, 10 * loss, buckets(2, 8), **known)


def gathered(*others: EpochMetrics) -> np.ndarray:
    return np.array([each.to_vector() for each in (metrics(), *others)])


def test_figures_that_can_be_are_believed() -> None:
    everyone, wrong = believable(gathered(metrics(1, hits=20)), metrics(), [KNOWN] * 2)
    assert wrong == [] and [each.client for each in everyone] == [0, 1]
    assert everyone[1].to_vector().tolist() == metrics(1, hits=20).to_vector().tolist()


TEST = metrics().test


def grouped(users: int, hits: int, gain: float, other: tuple[int, int, float] = (0, 0, 0.0)) -> Sums:
    return ((users, hits, gain), other, *[(0, 0, 0.0)] * 3)


def test_figures_by_history_that_can_be_are_believed() -> None:
    test = Evaluation(20, 10, 5, TEST.buckets, 0, grouped(12, 9, 4.5, (8, 1, 0.5)))
    assert believable(gathered(metrics(1, test=test)), metrics(), [KNOWN] * 2)[1] == []


@pytest.mark.parametrize(
    ("fields", "received"),
    [
        ({"test": Evaluation(10**9, 10**9, 10**9, TEST.buckets)}, "1,000,000,000 of 20 test users"),
        ({"test": Evaluation(20, 10**9, 10, TEST.buckets)}, "1,000,000,000 hits of 20 test users"),
        ({"test": Evaluation(20, 10, 10.1, TEST.buckets)}, "an NDCG of 10.1 in all from 10 hits of 20 test users"),
        ({"test": Evaluation(20, 10, -1, TEST.buckets)}, "an NDCG of -1 in all from 10 hits of 20 test users"),
        ({"test": Evaluation(20, 10, 5, TEST.buckets, 11)}, "11 ties and 10 hits of 20 test users"),
        ({"test": Evaluation(20, 10, 5, buckets(20, 21))}, "scores of 41 test rows, of which there are 40"),
        ({"test": Evaluation(20, 10, 5, buckets(-1, 21))}, "a count or a time below 0"),
        ({"validation": Evaluation(21, 10, 5)}, "21 of 20 validation users"),
        ({"rows": -1}, "a count or a time below 0"),
        ({"rows": 0}, "a loss or scores of no rows"),
        ({"seconds": -0.1}, "a count or a time below 0"),
        ({"times": Times(wait=-0.1)}, "a count or a time below 0"),
        *(
            (
                {"test": Evaluation(20, 10, 5, TEST.buckets, 0, groups)},
                "others by history than 10 hits of 20 test users",
            )
            for groups in (
                grouped(21, 10, 5),
                grouped(20, 11, 5),
                grouped(20, 10, 5.1),
                grouped(9, 10, 5, (11, 0, 0)),
                grouped(20, 10, 11, (0, 0, -6)),
                grouped(21, 10, 5, (-1, 0, 0)),
            )
        ),
        ({"client": 0}, "those of client 0, epoch 3, top_k 10"),
        ({"epoch": 4}, "those of client 1, epoch 4, top_k 10"),
        ({"top_k": 11}, "those of client 1, epoch 3, top_k 11"),
        ({"loss_sum": math.nan}, "a number that is not finite"),
        ({"seconds": math.inf}, "a number that is not finite"),
        ({"rows": 2**60}, "a count above 2^53"),
    ],
)
def test_others_count_for_nothing(fields: dict[str, Any], received: str) -> None:
    lie = dataclasses.replace(metrics(1), **fields)
    everyone, wrong = believable(gathered(lie), metrics(), [KNOWN] * 2)
    assert wrong == [f"worker.1's figures of epoch 3 can't be, and count for nothing. Received: {received}."]
    total = EpochMetrics.total(everyone)
    assert (total.rows, total.hit_rate, total.test_users, total.train_loss) == (10, 0.5, 20, 0.5)
    assert everyone[1].client == 1 and total.validation_ndcg == 0.25


def test_without_a_manifest_there_are_the_nets_users() -> None:
    _, wrong = believable(gathered(metrics(1, users=21)), metrics(), [Known(21, None, 21)] * 2)
    assert wrong == []


def signs(*epochs: EpochMetrics) -> list[list[str]]:
    watch = Divergence()
    return [watch.signs(each, [each]) for each in epochs]


def test_learning() -> None:
    figures = ((0.7, 10), (6.9, 50), (0.3, 10))
    assert signs(*(metrics(loss=loss, hits=hits, users=100) for loss, hits in figures)) == [[]] * 3
    assert signs(metrics(hits=0, users=49), metrics(hits=0, users=100)) == [[]] * 2, "nothing better was seen"
    nothing = dataclasses.replace(metrics(hits=0, users=0), rows=0, loss_sum=0.0)
    assert signs(nothing, metrics()) == [[], []]


@pytest.mark.parametrize(
    ("last", "sign"),
    [
        ({"loss": 7.1}, "a training loss of 7.1, after 0.7 in the first epoch, of worker 0"),
        ({"loss": 4e33}, "a training loss of 4e+33, after 0.7 in the first epoch, of worker 0"),
        ({"hits": 0}, "HR@10 0.0000, after 0.5000 at best"),
        ({"hits": 9}, "HR@10 0.0900, after 0.5000 at best"),
    ],
)
def test_divergence(last: dict[str, Any], sign: str) -> None:
    good = metrics(loss=0.7, hits=50, users=100)
    assert signs(good, metrics(**{"loss": 0.7, "hits": 50, "users": 100, **last})) == [[], [sign]]


def test_divergence_in_the_first_epoch() -> None:
    assert signs(metrics(loss=4e33)) == [["a training loss of 4e+33, of worker 0"]]
    tied = dataclasses.replace(metrics(users=100, hits=0), test=Evaluation(100, 0, 0, tied=100))
    assert signs(tied) == [["equal scores of all items for all 100 test users"]]
    assert signs(dataclasses.replace(tied, test=Evaluation(100, 0, 0, tied=99))) == [[]]
