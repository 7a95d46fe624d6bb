"""Whether the workers' figures can be, and whether training still learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fl_rec.errors import Diverged
from fl_rec.evaluation.claims import Divergence, believable
from fl_rec.evaluation.metrics import EpochMetrics
from fl_rec.job.check import Job


class Watch:
    """Looks at what all workers say of each epoch; all of them come to the same."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._divergence = Divergence()

    def go_on(self, totals: Iterable[Mapping[str, Any]]) -> None:
        """See `Divergence.go_on`."""
        self._divergence.go_on(totals)

    def look(
        self, gathered: np.ndarray, own: EpochMetrics, total: Callable[[Sequence[EpochMetrics]], EpochMetrics]
    ) -> tuple[list[EpochMetrics], list[str], Diverged | None]:
        """Every worker's figures.

        Args:
            gathered, own: see `believable`.
            total: makes one of all.

        Returns:
            one entry per worker, in order; notes for people; and what ends the run, None if nothing does.
        """
        everyone, notes = believable(gathered, own, self._job.known)
        signs = self._divergence.signs(total(everyone), everyone)
        notes += [f"training has diverged: {sign}" for sign in signs]
        if not signs or self._job.config.runner.on_divergence == "warn":
            return everyone, notes, None
        error = Diverged(
            f"Training must go on learning, and diverged in epoch {own.epoch}. Received: {'; '.join(signs)}. Lower the "
            "learning rate (hyper_parameters.optimizer.learning_rate), see whether the exchange or a client diverges, "
            "or go on all the same: runner.on_divergence=warn."
        )
        return everyone, notes, error
