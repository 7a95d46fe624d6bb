"""Sums over workers, the vector they travel in, and what a person sees."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation, Times


def buckets(seed: int, rows: int = 200) -> AucBuckets:
    random = np.random.default_rng(seed)
    return AucBuckets.from_scores(random.random(rows), random.integers(0, 2, rows))


GROUPS = ((1, 1, 0.5), (0, 0, 0.0), (3, 0, 0.0), (0, 0, 0.0), (0, 0, 0.0))
NO_TIMES = dict.fromkeys((f"{name}_seconds" for name in ("train", "exchange", "wait", "evaluation", "save")), 0.0)


def worker(client: int, **changes: object) -> EpochMetrics:
    given = {
        "client": client,
        "epoch": 3,
        "rows": 100 * (client + 1),
        "seconds": 2.0 + client,
        "loss_sum": 30.0,
        "train": buckets(client),
        "test": Evaluation(4, client, client / 2, buckets(client + 50), client, GROUPS),
        "times": Times(1.0, 0.5 * client, 0.25, 0.125, 4.0),
    }
    return EpochMetrics(**{**given, **changes})  # type: ignore[arg-type]


class TestEpochMetrics:
    def test_divides_sums(self) -> None:
        one = worker(1)
        assert (one.rows_per_second, one.train_loss) == (200 / 3, 0.15)
        assert (one.hit_rate, one.ndcg) == (0.25, 0.125)

    def test_nothing_to_divide_is_nan(self) -> None:
        none = EpochMetrics(0, 0, rows=0, seconds=0, loss_sum=0, train=AucBuckets.empty())
        figures = [
            none.rows_per_second,
            none.train_loss,
            none.train_auc,
            none.test_auc,
            none.hit_rate,
            none.ndcg,
        ]
        assert all(map(math.isnan, figures))

    def test_total_adds_sums_and_buckets_and_takes_the_longest_time(self) -> None:
        parts = [worker(0), worker(1, loss_sum=60.0)]
        total = EpochMetrics.total(parts)
        assert (total.client, total.epoch, total.rows, total.seconds) == (None, 3, 300, 3.0)
        assert (total.rows_per_second, total.train_loss) == (100.0, 0.3)
        assert (total.test_users, total.test.hits, total.hit_rate, total.ndcg) == (8, 1, 0.125, 0.0625)
        assert total.test.tied == 1
        assert total.test.groups[:3] == ((2, 2, 1.0), (0, 0, 0.0), (6, 0, 0.0))
        assert total.times == Times(1.0, 0.25, 0.25, 0.125, 4.0), "the mean, so that an epoch's parts add up"
        assert total.train_auc == (parts[0].train + parts[1].train).auc()
        assert total.train_auc != (parts[0].train_auc + parts[1].train_auc) / 2

    def test_total_counts_a_worker_without_a_test_shard(self) -> None:
        with_test = worker(1)
        total = EpochMetrics.total([worker(0, test=Evaluation()), with_test])
        assert total.test_auc == with_test.test_auc
        assert total.test.groups == GROUPS, "who tests nobody is no stranger"
        assert EpochMetrics.total([worker(0), worker(1, test=Evaluation(4))]).test.groups == (), "one is"
        assert EpochMetrics.total([worker(0, test=Evaluation(4))]).test.buckets is None

    @pytest.mark.parametrize(
        ("parts", "received"), [([], r"\[\]"), ([worker(0), worker(1, epoch=4)], r"\[\(3, 10\), \(4, 10\)\]")]
    )
    def test_total_of_unlike_epochs_or_of_nothing_is_refused(self, parts: list[EpochMetrics], received: str) -> None:
        with pytest.raises(DataError, match=f"one epoch and one top_k .* {received}"):
            EpochMetrics.total(parts)

    @pytest.mark.parametrize(
        "metrics",
        [
            worker(2),
            worker(0, test=Evaluation(4, 1, 0.5)),
            worker(1, loss_sum=math.nan),
            EpochMetrics.total([worker(0)]),
        ],
    )
    def test_comes_back_from_its_vector(self, metrics: EpochMetrics) -> None:
        vector = metrics.to_vector()
        assert vector.dtype == np.float64
        assert vector.shape == (35 + 4 * 4097,)
        back = EpochMetrics.from_vector(vector)
        assert json.dumps(back.to_record()) == json.dumps(metrics.to_record()), "as another host writes it"
        assert back.to_record() == metrics.to_record()
        assert (back.times, back.test.groups) == (metrics.times, metrics.test.groups)
        assert (back.test.buckets is None) == (metrics.test.buckets is None)
        assert np.array_equal(back.train.positives, metrics.train.positives)

    def test_workers_gather_by_one_all_reduce(self) -> None:
        workers = [worker(rank) for rank in range(3)]
        mine = np.zeros((3, 3, len(workers[0].to_vector())))
        for rank, metrics in enumerate(workers):
            mine[rank, rank] = metrics.to_vector()
        gathered = [EpochMetrics.from_vector(row) for row in mine.sum(axis=0)]
        assert EpochMetrics.total(gathered).to_record() == EpochMetrics.total(workers).to_record()

    def test_a_vector_of_another_length_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"has 35 numbers and 4 parts\. Received: 38"):
            EpochMetrics.from_vector(np.zeros(38))

    def test_record_is_json_with_none_for_nan(self) -> None:
        metrics = worker(1, test=Evaluation(np.int64(0)), rows=np.int64(300), seconds=np.float32(1.5), times=Times())
        assert json.loads(json.dumps(metrics.to_record(), allow_nan=False)) == {
            "epoch": 3,
            "client": 1,
            "rows": 300,
            "seconds": 1.5,
            "rows_per_second": 200.0,
            "train_loss": 0.1,
            "train_auc": metrics.train_auc,
            "test_auc": None,
            "test_users": 0,
            "test_tied": 0,
            "hr": None,
            "ndcg": None,
            "top_k": 10,
            **NO_TIMES,
        }
        grouped = worker(1, times=Times(1.23456)).to_record()
        assert grouped["train_seconds"] == 1.2346
        assert grouped["groups"] == {
            "users": (1, 0, 3, 0, 0), "hits": (1, 0, 0, 0, 0), "ndcg_sum": (0.5, 0.0, 0.0, 0.0, 0.0),
        }  # fmt: skip
        assert EpochMetrics.total([metrics]).to_record()["client"] == "all"
