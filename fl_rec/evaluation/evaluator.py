"""Test rows in memory, and their figures under a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fl_rec.data.reader import Reader
from fl_rec.data.text import parse_multislot
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.metrics import Evaluation
from fl_rec.evaluation.ranking import rank_metrics

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet


@dataclass(frozen=True)
class TestRows:
    """Rows to score.

    Attributes:
        inputs: one array [rows, width] per feed but the label, the user's id first.
        labels: 0 or 1, [rows].
    """

    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray

    @classmethod
    def read(cls, shards: Sequence[Path], reader: Reader, num_slots: int, timeout: float) -> TestRows:
        """Reads shards through the reader, the last slot being the label.

        Args:
            timeout: seconds for the reader of one shard.

        Raises:
            DataError: a shard can't be read, or is not MultiSlot text of so many slots.
        """
        parsed = [parse_multislot(reader.read(path, timeout), num_slots, str(path)) for path in shards]
        slots = [np.concatenate(parts) for parts in zip(*parsed)]
        return cls(tuple(slots[:-1]), slots[-1][:, 0])

    def measure(self, net: InferenceNet, batch_size: int, top_k: int) -> Evaluation:
        """Scores all rows."""
        scores = net.predict(self.inputs, batch_size)
        ranked = rank_metrics(self.inputs[0][:, 0], self.labels, scores, top_k)
        return replace(ranked, buckets=AucBuckets.from_scores(scores, self.labels))
