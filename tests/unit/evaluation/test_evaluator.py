"""Test rows in memory, and what is measured of them under a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.data.reader import Reader
from fl_rec.errors import DataError
from fl_rec.evaluation.evaluator import EvaluationRows, Evaluator
from fl_rec.evaluation.metrics import Evaluation

READER = Reader("cat", "cat")


class Net:
    """Scores an item by its id, and remembers in which batches it was asked."""

    structure = None

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, inputs: Any, batch_size: int) -> np.ndarray:
        self.batches.append(batch_size)
        _, items = inputs
        return items[:, 0] / 100


def shard(path: Path, rows: list[tuple[int, int, int]]) -> Path:
    path.write_text("".join(f"1 {user} 1 {item} 1 {label}\n" for user, item, label in rows))
    return path


def runner(**settings: Any) -> Any:
    return SimpleNamespace(**{"start_timeout": 10.0, "infer_batch_size": 7, "top_k": 1, **settings})


# User 5 has the positive first of three, user 6 last of two.
FIRST = [(5, 90, 1), (5, 80, 0), (5, 10, 0)]
SECOND = [(6, 20, 1), (6, 70, 0)]


def test_rows_of_several_shards_are_one_set(tmp_path: Path) -> None:
    shards = [shard(tmp_path / "a", FIRST), shard(tmp_path / "b", SECOND)]
    rows = EvaluationRows.read(shards, READER, 3, 10.0)
    users, items = rows.inputs
    assert users.tolist() == [[5], [5], [5], [6], [6]] and items.tolist() == [[90], [80], [10], [20], [70]]
    assert rows.labels.tolist() == [1, 0, 0, 1, 0]
    assert len(EvaluationRows.read([shard(tmp_path / "c", [])], READER, 3, 10.0).labels) == 0, "nobody is tested"
    with pytest.raises(DataError, match="a line must hold 4 slots"):
        EvaluationRows.read(shards, READER, 4, 10.0)


@pytest.mark.parametrize(
    ("top_k", "hits", "ndcg_sum"), [(1, 1, 1.0), (2, 2, 1 + 1 / np.log2(3)), (9, 2, 1 + 1 / np.log2(3))]
)
def test_users_are_ranked_and_scores_are_counted(tmp_path: Path, top_k: int, hits: int, ndcg_sum: float) -> None:
    rows = EvaluationRows.read([shard(tmp_path / "a", FIRST + SECOND)], READER, 3, 10.0)
    found = rows.measure(Net(), 7, top_k)  # type: ignore[arg-type]
    assert (found.users, found.hits) == (2, hits) and found.ndcg_sum == pytest.approx(ndcg_sum)
    # Of six pairs of a positive and a negative, 20 is above 10 only, and 90 above all.
    assert found.auc == pytest.approx(4 / 6)


def test_test_and_validation_rows_are_measured_apart(tmp_path: Path) -> None:
    test, validation = [shard(tmp_path / "a", FIRST)], [shard(tmp_path / "b", SECOND)]
    evaluator = Evaluator.read(runner(), READER, test, validation, 3)
    net = Net()
    of_test, of_validation = evaluator.evaluate(net)  # type: ignore[arg-type]
    assert (of_test.users, of_test.hits, of_validation.users, of_validation.hits) == (1, 1, 1, 0)
    assert net.batches == [7, 7] and evaluator.validates
    assert [(users[0, 0], what) for users, what in evaluator.users] == [
        (5, "the test shards"),
        (6, "the validation shards"),
    ]


def test_what_there_is_not_is_no_evaluation(tmp_path: Path) -> None:
    evaluator = Evaluator.read(runner(), READER, [], [], 3)
    assert evaluator.evaluate(Net()) == (Evaluation(), Evaluation())  # type: ignore[arg-type]
    assert not evaluator.validates and list(evaluator.users) == []
    only = Evaluator.read(runner(top_k=2), READER, [shard(tmp_path / "a", SECOND)], [], 3)
    of_test, of_validation = only.evaluate(Net())  # type: ignore[arg-type]
    assert of_test.hits == 1 and of_validation == Evaluation() and not only.validates
