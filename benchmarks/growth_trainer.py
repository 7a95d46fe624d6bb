"""The training script of growth.py: a plain trainer that meters itself.

Each worker writes growth.N.json into the run's folder: the bytes that it has exchanged at each mark, and how long a
gather takes. The first one adds what all roles have used of processor and memory, which the system knows of them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a clone without installing

from fl_rec.evaluation.metrics import EpochMetrics
from fl_rec.files import write_json
from fl_rec.runs import roles
from fl_rec.trainer import FLTrainer, main

GATHERS = 5


class MeteredTrainer(FLTrainer):
    """Marks the begin and the end of each epoch's training and exchanges, where all workers meet."""

    def run_worker(self) -> None:
        self.marks: list[dict[str, Any]] = []
        super().run_worker()
        gather = self._seconds_of_a_gather()
        used = {"memory": self._peak_memory()} if self.role.is_first_worker else {}
        record = {"marks": self.marks, "gather": gather, **used}
        write_json(self.run_directory.path / f"growth.{self.role.index}.json", record)

    def train_epoch(self, epoch: int, local_epochs: float = 1.0) -> EpochMetrics:
        self._mark()
        metrics = super().train_epoch(epoch, local_epochs)
        self._vector = metrics.to_vector()
        return metrics

    def pull_model(self) -> None:
        self._mark()  # of plain GEO some of it has only now been sent
        super().pull_model()

    def _mark(self) -> None:
        self.runtime.barrier("a mark of growth.py")
        mark = {"time": time.monotonic(), "bytes": self.runtime.bytes_exchanged()}
        if self.role.is_first_worker:
            mark["cpu"] = {name: sum(process.cpu_times()[:2]) for name, process in self._processes()}
        self.marks.append(mark)
        self.runtime.barrier("a mark's end of growth.py")

    def _seconds_of_a_gather(self) -> float:
        self.runtime.barrier("the gathers of growth.py")
        start = time.monotonic()
        for _ in range(GATHERS):
            self.runtime.gather(self._vector, "a gather of growth.py")
        return (time.monotonic() - start) / GATHERS

    def _peak_memory(self) -> dict[str, int]:
        return {name: peak_memory(process.pid) for name, process in self._processes()}

    def _processes(self) -> list[tuple[str, Any]]:
        statuses = roles.read_statuses(self.run_directory.roles)
        return [(name, process) for name, status in statuses.items() if (process := status.process())]


def peak_memory(pid: int) -> int:
    """Bytes that a process has had resident at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    sys.exit(main(MeteredTrainer))
