"""What a local step is to who uses one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from fl_rec.data.rows import Rows
from fl_rec.nets.structure import Structure


class LocalStep(ABC):
    """Trains a worker's program with given rows.

    Attributes:
        name: as in `runner.local_step`.
        why_not_compiled: what has `new_step` not take the compiled step; set by it.
        structure: what compiled kernels train the net by, and so may score it by; None if they don't.
    """

    name: str
    why_not_compiled: Sequence[str] = ()
    structure: Structure | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Before the rows of an epoch.

        Args:
            epoch: from 1.
        """
        return

    @abstractmethod
    def train(self, rows: Rows, title: str) -> None:
        """Trains rows in their order, in batches of `runner.train_batch_size`, of which the last may be short.

        The learning rate is what `TrainingProgram.begin_portion` has set; loss, rows and AUC are added to the program's
        statistics.

        Args:
            rows: at least one; see `fl_rec.data.rows.Rows`. The same object as in the last call has the same content.
            title: for the lines of progress.

        Raises:
            RunError: not all of them could be trained.
            Diverged: what came of it is not finite.
        """

    def close(self) -> None:
        """Removes what it wrote."""
        return

    def record(self) -> dict[str, Any]:
        """For the run's result."""
        return {"name": self.name, "why_not_compiled": list(self.why_not_compiled)}

    def __str__(self) -> str:
        why = "; ".join(self.why_not_compiled)
        return f"{self.name} (not compiled: {why})" if why else self.name
