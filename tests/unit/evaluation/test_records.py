"""Figures as they are read back."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation
from fl_rec.evaluation.records import EpochRecord, records_of


def line(epoch: int, client: int | str, **figures: object) -> dict[str, object]:
    buckets = AucBuckets(np.array([0, 3]), np.array([2, 0]))
    metrics = EpochMetrics(None, epoch, 10, 0.5, 7.0, buckets, Evaluation(8, 4, 2.0, buckets, 1), top_k=5)
    return {**metrics.to_record(), "client": client, **figures}


def test_what_is_written_is_read() -> None:
    (record,) = records_of([line(2, 3)])
    assert (record.epoch, record.client, record.rows, record.seconds, record.rows_per_second) == (2, 3, 10, 0.5, 20.0)
    assert (record.train_loss, record.hr, record.ndcg, record.test_users) == (0.7, 0.5, 0.25, 8)
    assert (record.test_tied, record.top_k, record.test_auc, record.clients) == (1, 5, 1.0, ())
    assert math.isnan(record.validation_hr) and math.isnan(record.epsilon) and record.extra == {}


def test_no_name_of_a_figure_is_unknown() -> None:
    buckets = AucBuckets(np.array([0, 3]), np.array([2, 0]))
    metrics = EpochMetrics(0, 0, 10, 0.5, 7.0, buckets, validation=Evaluation(8, 4, 2.0))
    assert set(metrics.to_record()) <= {each.name for each in dataclasses.fields(EpochRecord)}


def test_all_together_have_the_clients_of_their_epoch() -> None:
    lines = [line(epoch, client) for epoch in (1, 2) for client in (0, 2, 10, "all")]
    records = records_of(lines)
    assert [(each.epoch, each.client) for each in records] == [(each["epoch"], each["client"]) for each in lines]
    total = records[-1]
    assert [(each.epoch, each.client) for each in total.clients] == [(2, 0), (2, 2), (2, 10)]
    assert all(each.clients == () for each in total.clients)


def test_no_figure_and_figures_of_ones_own() -> None:
    (record,) = records_of([line(0, "all", test_auc=None, epsilon=1.5, regret=0.25, best="yes")])
    assert math.isnan(record.test_auc)
    assert record.epsilon == 1.5
    assert record.extra == {"regret": 0.25, "best": "yes"}
    assert (
        record.figures()["regret"] == 0.25 and record.figures()["epsilon"] == 1.5 and "clients" not in record.figures()
    )
