"""How a worker trains its shard: by passes over the rows, or with differential privacy."""

from __future__ import annotations

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_rec.config import Config
from fl_rec.data.reader import Reader
from fl_rec.data.rows import Rows, SameRows, TrainingRows
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import ungrouped
from fl_rec.distillation.student import Student
from fl_rec.errors import ConfigError, DataError
from fl_rec.nets.own_users import AllUsers
from fl_rec.nets.program import TrainingProgram
from fl_rec.nets.structure import Structure
from fl_rec.privacy.accountant import Ledger
from fl_rec.privacy.dp_training import DpTraining
from fl_rec.privacy.one_worker_each import Gather, require_one_worker_each
from fl_rec.runs import activity
from fl_rec.steps.base import LocalStep
from fl_rec.steps.choice import new_step

if TYPE_CHECKING:
    from fl_rec.ps.base import Exchange


@dataclass(frozen=True)
class WorkerShards:
    """What a worker trains on.

    Attributes:
        client: the worker's number.
        files: its shards.
        rows: lines of all of them; None if nobody knows.
        reader: reads them.
    """

    client: int
    files: Sequence[Path]
    rows: int | None
    reader: Reader

    def read(self, config: Config, program: TrainingProgram) -> Rows:
        """All their rows. DataError if they can't be read, or the net takes others."""
        rows = self.reader.rows(self.files, len(program.feeds), config.runner.start_timeout, self.rows)
        wanted, widths = [int(feed.shape[-1]) for feed in program.feeds], [slot.shape[1] for slot in rows]
        if config.runner.resample_negatives is None and any(w not in (-1, n) for w, n in zip(wanted, widths)):
            raise DataError(
                f"A row's slots must hold as many values as the net's feeds take, {wanted}. Received: {widths} in "
                f"{self.files[0]}. Set hyper_parameters.group_size to the items of a row, or write the shards again."
            )
        return rows


class LocalTraining(ABC):
    """How a worker trains. An epoch is `begin_epoch`, and `train` of each of its `portions`."""

    def __init__(self, rows: TrainingRows) -> None:
        self.rows = rows

    @property
    def shard_rows(self) -> int:
        """Rows of one pass over this worker's training shard."""
        return self.rows.count

    @property
    def structure(self) -> Structure | None:
        """See `LocalStep`."""
        return None

    def check(self, users: AllUsers, worker: int, gather: Gather) -> None:
        """What all workers' rows together must be; all call it before they train.

        Args:
            users: who have rows in the program's tables.
            worker: this worker's number.
            gather: see `PsRuntime.gather`.

        Raises:
            DataError: they are not.
        """
        return

    def begin_epoch(self, epoch: int) -> None:
        """Makes the rows of an epoch ready."""
        return

    @abstractmethod
    def portions(self, local_epochs: float, exchanges: int) -> Sequence[int]:
        """What to train before each exchange of an epoch, in rows, by which the worker weighs in it.

        Args:
            local_epochs: passes over the data.
            exchanges: see `Exchange.portions`.
        """

    @abstractmethod
    def train(self, portion: int, title: str) -> None:
        """Trains a portion.

        Args:
            title: for the lines of progress.
        """

    def sit_out(self) -> None:
        """This worker is away, and the others train a portion."""
        return

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of it: `rows`, int64 [rows of a pass, the pass, the row in it that comes next]."""
        return {"rows": np.array([self.rows.count, *self.rows.position])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on where it was. DataError if it had other rows."""
        kept = state.get("rows", np.empty(0))
        if kept.shape != (3,) or kept.dtype.kind != "i" or kept.min() < 0:
            raise DataError(
                f"A worker's checkpoint has its place in its rows. Received: {kept.dtype} {list(kept.shape)}. Remove "
                "the checkpoint, and fl-rec resume takes the one before, or begins anew."
            )
        count, number, row = kept.tolist()
        if count != self.rows.count:
            raise DataError(
                f"A run goes on with the rows that it had. Received: {self.rows.count:,} of a pass over a worker's "
                f"training shard, and they were {count:,}. Name the data that it began with, or start a new run."
            )
        self.rows.go_to(number, row)

    def figures(self) -> Mapping[str, Any]:
        """What this way of training adds to the figures of an epoch."""
        return {}

    def result(self) -> Mapping[str, Any]:
        """What it adds to the run's result."""
        return {}

    def __str__(self) -> str:
        """What it adds to the title of an epoch's table."""
        return ""

    def close(self) -> None:
        """Removes what it wrote."""
        return


class Passes(LocalTraining):
    """Passes over the rows.

    Args:
        rows: this worker's rows, with those of the proxy set.
        step: trains them.
        student: has its rows in `rows`.
    """

    def __init__(self, rows: TrainingRows, step: LocalStep, student: Student) -> None:
        super().__init__(rows)
        self._step, self._student = step, student

    @property
    def structure(self) -> Structure | None:
        return self._step.structure

    def begin_epoch(self, epoch: int) -> None:
        self._step.begin_epoch(epoch)
        self._student.begin_epoch(epoch)

    def portions(self, local_epochs: float, exchanges: int) -> Sequence[int]:
        wanted, parts = math.ceil(local_epochs * self.rows.count), max(exchanges, 1)
        edges = [wanted * part // parts for part in range(parts + 1)]
        return [stop - start for start, stop in pairwise(edges)]

    def train(self, portion: int, title: str) -> None:
        for rows in self.rows.take(portion):
            self._step.train(rows, title)

    def state(self) -> dict[str, np.ndarray]:
        return {**super().state(), **self._student.state()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._student.restore(state)
        super().restore(state)

    def result(self) -> Mapping[str, Any]:
        return {"local_step": self._step.record()}

    def close(self) -> None:
        self._step.close()


class DpPasses(LocalTraining):
    """User by user, with differential privacy; see `fl_rec.privacy.mechanism`.

    Args:
        training: what trains.
        rows: this worker's rows.
        num_users: one above the largest id of a user.
    """

    def __init__(self, training: DpTraining, rows: TrainingRows, num_users: int) -> None:
        super().__init__(rows)
        self.training, self._num_users = training, num_users

    def check(self, users: AllUsers, worker: int, gather: Gather) -> None:
        own = users.ids(np.unique(self.rows.of_pass(0)[0]))
        require_one_worker_each(own, self._num_users, worker, gather)
        self.training.take_up(gather)

    def begin_epoch(self, epoch: int) -> None:
        self.training.begin_epoch(epoch)

    def portions(self, local_epochs: float, exchanges: int) -> Sequence[int]:
        if local_epochs != 1.0:
            raise ConfigError(
                "With privacy.clip every worker takes part in every exchange, for which it draws users and not rows. "
                f"Received: local_epochs={local_epochs:g}. Have run_worker call train_epoch(epoch)."
            )
        # All weigh the same: how many rows a worker draws is nobody's business.
        return [1] * exchanges

    def train(self, portion: int, title: str) -> None:
        self.training.train()
        activity.trained(1)

    def sit_out(self) -> None:
        self.training.pay()

    def figures(self) -> Mapping[str, Any]:
        return {"epsilon": self.training.spent().epsilon}

    def result(self) -> Mapping[str, Any]:
        return {"privacy": self.training.spent().to_record()}

    def __str__(self) -> str:
        return f": {self.training.spent()}"


def local_training(
    config: Config,
    program: TrainingProgram,
    private: Collection[str],
    exchange: Exchange,
    rows: TrainingRows,
    student: Student,
    scratch: Path,
    ledger: Path,
) -> LocalTraining:
    """How a worker trains by its configuration.

    Args:
        program: initialised, and known to the servers.
        private: names of the private parameters.
        exchange: the worker's, which has started.
        rows: see `training_rows`.
        scratch: a file for the local step's own use.
        ledger: where differential privacy writes what it has spent.

    Raises:
        ConfigError: the net is one that can't be trained so.
    """
    if config.privacy.clip is not None:
        training = DpTraining(config, program, private, rows, Ledger(ledger, config), exchange.noise)
        return DpPasses(training, rows, config["hyper_parameters.num_users"])
    step = new_step(config, program, exchange, scratch)
    print(f"local step: {step}", flush=True)
    return Passes(rows, step, student)


def training_rows(
    config: Config, program: TrainingProgram, shards: WorkerShards, rows: Rows, student: Student, users: AllUsers
) -> TrainingRows:
    """The rows of the shards as they are, or with negatives that are drawn anew.

    Args:
        rows: of the shards, as they are read.
        users: who have rows in the program's tables, by which users go in what is returned.

    Raises:
        ConfigError, DataError: these rows, or this net's, can't be drawn anew.
    """
    runner = config.runner
    own = (users.places(rows[0]), *rows[1:])
    if runner.resample_negatives is None:
        return TrainingRows(SameRows(own))
    if len(program.feeds) != 3:
        raise ConfigError(
            "runner.resample_negatives draws items for rows of a user, items and labels. Received: a net with "
            f"{len(program.feeds)} feeds. Leave the key out."
        )
    student.require_no_overlap(rows[0], "the training shards")
    # Rows may be groups already, of which the first item is the positive.
    pairs = ungrouped(own)
    # With a seed that can be guessed, one user's negatives would tell of the users before.
    seed = runner.seed + shards.client if config.privacy.clip is None else secrets.randbits(128)
    num_items = config["hyper_parameters.num_items"]
    fresh = FreshNegatives(pairs, num_items, runner.resample_negatives, program.group_size, seed, users.ids)
    return TrainingRows(student.rows(fresh, seed, users))
