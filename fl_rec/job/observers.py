"""Who looks at a job, and what they are told: by the launcher or, under a bare fleetrun, by the process that watches.

The terminal, the live page, the trackers and `fl_rec.train(on_epoch=...)` are observers. No role knows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_rec.config import Config
from fl_rec.evaluation.records import EpochRecord
from fl_rec.job.check import Job
from fl_rec.runs.activity import Activity, Progress
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.listing import typed
from fl_rec.runs.result import RunResult


@dataclass(frozen=True)
class Started:
    """A job whose processes are about to be started.

    Attributes:
        name: of the configuration's file, as the user knows it: a run has a copy of its own.
        config: with every size filled in.
        changed: the keys that the user has set to something else than their defaults, by dotted name; plain values.
        run: its folder, which has the whole configuration.
        workers, servers, coordinators: how many of each.
        clients: what the workers' clients are called, in order; empty if the data does not say.
        rows: for each worker, the rows of its training shards; None if the data does not say.
        notes: what the user should know of the configuration, the data or the machine.
        resumed: how many epochs the run has already; None for a new one.
        popularity: of ranking by the training counts of all shards, by a figure's name: `hr@10`, `ndcg@10`; None if
            the data does not say.
        own_popularity: the same for each worker's own test users; empty or None if the data does not say.
        hosts: where the roles are; None if all are on this one.
    """

    name: str
    config: Config
    changed: Mapping[str, Any]
    run: RunDirectory
    workers: int
    servers: int
    coordinators: int
    clients: Sequence[str]
    rows: Sequence[int | None]
    notes: Sequence[str]
    resumed: int | None = None
    popularity: Mapping[str, float] | None = None
    own_popularity: Sequence[Mapping[str, float] | None] = ()
    hosts: Hosts | None = None

    @classmethod
    def of(
        cls,
        job: Job,
        launch: Launch,
        run: RunDirectory,
        changed: Mapping[str, Any],
        notes: Sequence[str] = (),
        resumed: int | None = None,
    ) -> Started:
        """Of a checked job, with further notes."""
        began = launch.began
        return cls(
            typed(began.command if began else "")[0] or job.config.yaml_path.name,
            job.config,
            changed,
            run,
            launch.workers,
            launch.servers,
            launch.coordinators,
            job.clients,
            job.train_rows,
            (*job.notes, *notes),
            resumed,
            job.popularity,
            job.own_popularity,
            launch.hosts,
        )


@dataclass(frozen=True)
class RoleView:
    """A role as it is seen from outside.

    Attributes:
        state: see `fl_rec.runs.roles`; "" until its process is there.
        activity: what it does and since when; None until it has said so.
    """

    state: str
    activity: Activity | None

    @property
    def progress(self) -> Progress | None:
        """How far a worker is in its epoch; None before the first."""
        return None if self.activity is None else self.activity.progress


class Observer:
    """Is told of a job, in the thread that looks at it, which it must not hold up; every method may be left out.

    An OSError, such as a terminal's or a disk's that is gone, has it be told no more, and the job goes on.

    Attributes:
        essential: whether an OSError of it ends the job, as any other error does.
    """

    essential = False

    def __str__(self) -> str:
        return type(self).__name__

    def starting(self, job: Started) -> None:
        """Before any process is started. A ConfigError ends it all here."""

    def poll(self, roles: Mapping[str, RoleView]) -> None:
        """At every look, five times a second.

        Args:
            roles: all of them by name, servers first.
        """

    def epoch(self, record: EpochRecord) -> None:
        """After each epoch, in their order.

        Args:
            record: of all clients together, with each client's in its `clients`.
        """

    def table(self, text: str) -> None:
        """A table of a trainer of one's own in tables.txt, without its notes; an epoch's is what `epoch` is told."""

    def round(self, text: str) -> None:
        """A round of the coordinator, as tables.txt has it: a line, and the clients that were told something else."""

    def note(self, text: str) -> None:
        """What happened in between: a client that is left out, a start after a loss, a signal."""

    def ended(self, result: RunResult) -> None:
        """When no process of the job is left: done, failed or interrupted."""


class OnEpoch(Observer):
    """A function of the user's, which may end the job by what it raises."""

    essential = True

    def __init__(self, function: Callable[[EpochRecord], object]) -> None:
        self._function = function

    def epoch(self, record: EpochRecord) -> None:
        self._function(record)


class Observers(Observer):
    """Several as one, each told in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def starting(self, job: Started) -> None:
        self._tell(lambda each: each.starting(job))

    def poll(self, roles: Mapping[str, RoleView]) -> None:
        self._tell(lambda each: each.poll(roles))

    def epoch(self, record: EpochRecord) -> None:
        self._tell(lambda each: each.epoch(record))

    def table(self, text: str) -> None:
        self._tell(lambda each: each.table(text))

    def round(self, text: str) -> None:
        self._tell(lambda each: each.round(text))

    def note(self, text: str) -> None:
        self._tell(lambda each: each.note(text))

    def ended(self, result: RunResult) -> None:
        self._tell(lambda each: each.ended(result))

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for each in tuple(self._observers):
            try:
                tell(each)
            except OSError as err:
                if each.essential:
                    raise
                self._observers.remove(each)
                self.note(f"{each} is told no more: {err}")
