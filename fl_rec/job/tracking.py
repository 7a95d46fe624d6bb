"""Trackers as observers of a job."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial

from fl_rec.config import Config
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import EpochRecord, records_of
from fl_rec.job.observers import Observer, RoleView, Started
from fl_rec.runs import roles as states
from fl_rec.runs.result import RunResult
from fl_rec.trackers import TRACKERS, Figures, Tracker, figures_of

# How long the end of a job waits for what is still to be written or sent.
PATIENCE_SECONDS = 30.0


def trackers_of(config: Config) -> list[Observer]:
    """Those of `runner.log_to`."""
    return [Tracking(name) for name in config.runner.log_to]


class Tracking(Observer):
    """A tracker in a thread of its own: a slow disk or server does not hold up who watches the job."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._error: Exception | None = None

    def starting(self, job: Started) -> None:
        self._job, self._last = job, job.resumed or 0
        self._tracker: Tracker = TRACKERS.find(self._name)(job.run, job.config, job.changed)
        self._begin()
        self._thread.start()

    def poll(self, roles: Mapping[str, RoleView]) -> None:
        self._tell()

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch <= self._last:  # the job has gone back to a checkpoint
            self._last = record.epoch - 1
            self._begin()
        self._last = record.epoch
        self._tasks.put(partial(self._tracker.log, record.epoch, self._figures(record)))

    def ended(self, result: RunResult) -> None:
        done, model = result.state == states.DONE, result.model
        where = self._job.run.path / model if model else None  # an absolute one stays
        self._tasks.put(partial(self._tracker.end, done, where))
        self._tasks.put(None)
        self._thread.join(PATIENCE_SECONDS)
        self._tell()
        if self._thread.is_alive():
            raise TimeoutError(f"it has not taken everything within {PATIENCE_SECONDS:g} s")

    def __str__(self) -> str:
        return f"{self._name} (runner.log_to)"

    def _begin(self) -> None:
        """Has it hold the epochs that the run's own file has, up to the last that was told."""
        records = records_of(self._job.run.read_metrics()) if self._last else []
        epochs = {
            each.epoch: self._figures(each) for each in records if each.client == ALL and each.epoch <= self._last
        }
        self._tasks.put(partial(self._tracker.begin, epochs))

    def _figures(self, record: EpochRecord) -> Figures:
        popularity = {"popularity": self._job.popularity} if self._job.popularity else {}
        return {**popularity, **figures_of(record)}

    def _work(self) -> None:
        try:
            while (task := self._tasks.get()) is not None:
                task()
        except Exception as err:  # whatever a tracker raises, the job goes on
            self._error = err

    def _tell(self) -> None:
        if self._error is not None:
            raise OSError(f"{type(self._error).__name__}: {self._error}") from self._error
