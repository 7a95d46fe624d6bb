"""Test rows in memory, and their figures under a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fl_rec import kernels
from fl_rec.config import RunnerConfig
from fl_rec.data.reader import Reader
from fl_rec.errors import DataError
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.groups import History
from fl_rec.evaluation.metrics import Evaluation
from fl_rec.evaluation.ranking import Ranking

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet


@dataclass(frozen=True)
class EvaluationRows:
    """Rows to score.

    Attributes:
        inputs: one array [rows, width] per feed but the label, the user's id first.
        labels: bool [rows].
        history: how much users have; None if nobody asks for figures by it.
    """

    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray
    history: History | None = None

    @classmethod
    def read(cls, shards: Sequence[Path], reader: Reader, num_slots: int, timeout: float) -> EvaluationRows:
        """Reads shards through the reader, the last slot being the label.

        Args:
            timeout: seconds for the reader of one shard.

        Raises:
            DataError: see `Reader.rows`; or a row has several labels.
        """
        *inputs, labels = reader.rows(shards, num_slots, timeout, least=0)
        if labels.shape[1] != 1:
            raise DataError(
                f"A row to score must have one item and its label. Received: {labels.shape[1]} labels in {shards[0]}. "
                "Write a row per item; only training rows may be groups."
            )
        return cls(tuple(inputs), labels[:, 0] == 1)

    def measure(self, net: InferenceNet, batch_size: int, top_k: int) -> Evaluation:
        """Scores all rows."""
        scores = self._scores(net, batch_size)
        ranked = self._ranking.measure(scores, top_k)
        return replace(ranked, buckets=AucBuckets.from_scores(scores, self.labels))

    def _scores(self, net: InferenceNet, batch_size: int) -> np.ndarray:
        if net.structure is None:
            return net.predict(self.inputs, batch_size)
        users, items = self.inputs
        return kernels.score(net.structure, net.views(net.structure.names), net.users.places(users), items)

    @cached_property
    def _ranking(self) -> Ranking:
        users, *items = self.inputs
        return Ranking(users, self.labels, np.column_stack(items) if items else None, self.history)


@dataclass(frozen=True)
class Evaluator:
    """A worker's test and validation rows.

    Attributes:
        test, validation: None if there are none.
        batch_size: rows of a run of the net.
        top_k: K of HR@K and NDCG@K.
    """

    test: EvaluationRows | None
    validation: EvaluationRows | None
    batch_size: int
    top_k: int

    @classmethod
    def read(
        cls,
        runner: RunnerConfig,
        reader: Reader,
        test: Sequence[Path],
        validation: Sequence[Path],
        num_slots: int,
        history: History | None = None,
    ) -> Evaluator:
        """Reads a worker's shards; see `EvaluationRows.read`.

        Args:
            history: of the users, by which the test's figures are told too.
        """

        def rows(shards: Sequence[Path]) -> EvaluationRows | None:
            return EvaluationRows.read(shards, reader, num_slots, runner.start_timeout) if shards else None

        tested = rows(test)
        tested = tested and replace(tested, history=history)
        return cls(tested, rows(validation), runner.infer_batch_size, runner.top_k)

    @property
    def validates(self) -> bool:
        """Whether there are validation rows."""
        return self.validation is not None

    @property
    def users(self) -> Iterator[tuple[np.ndarray, str]]:
        """The users that the figures are of, int64, and where they are."""
        for rows, what in ((self.test, "the test shards"), (self.validation, "the validation shards")):
            if rows is not None:
                yield rows.inputs[0], what

    def evaluate(self, net: InferenceNet) -> tuple[Evaluation, Evaluation]:
        """The figures of the test and of the validation rows under a model."""
        return self._measure(self.test, net), self._measure(self.validation, net)

    def _measure(self, rows: EvaluationRows | None, net: InferenceNet) -> Evaluation:
        return rows.measure(net, self.batch_size, self.top_k) if rows else Evaluation()
