"""How a worker trains its shard: by passes over the rows, or with differential privacy."""

from __future__ import annotations

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fl_rec.config import Config
from fl_rec.data.reader import Reader
from fl_rec.data.rows import FreshRows, ShardRows, TrainingRows
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import parse_multislot, ungrouped
from fl_rec.distillation.student import Student
from fl_rec.errors import ConfigError
from fl_rec.nets import graph
from fl_rec.nets.program import TrainingProgram
from fl_rec.privacy.dp_training import DpTraining


@dataclass(frozen=True)
class WorkerShards:
    """What a worker trains on.

    Attributes:
        client: the worker's number.
        files: its shards.
        rows: of one pass over them; None if nobody knows.
        reader: reads them.
        scratch: the file for rows that are drawn anew.
    """

    client: int
    files: Sequence[Path]
    rows: int | None
    reader: Reader
    scratch: Path


class LocalTraining(ABC):
    """How a worker trains. An epoch is `begin_epoch`, `train` of each of its `portions`, and `check`."""

    def __init__(self, rows: TrainingRows) -> None:
        self.rows = rows

    @property
    def shard_rows(self) -> int:
        """Rows of one pass over this worker's training shard."""
        return self.rows.count

    def begin_epoch(self, epoch: int) -> None:
        """Makes the rows of an epoch ready."""
        return

    @abstractmethod
    def portions(self, local_epochs: float, exchanges: int) -> Sequence[int | None]:
        """Rows to train before each exchange of an epoch; None is a whole pass over the data.

        Args:
            local_epochs: passes over the data.
            exchanges: see `Exchange.portions`.
        """

    @abstractmethod
    def train(self, portion: int | None, title: str) -> int:
        """Trains a portion; returns what the worker weighs in the exchange, 0 if it has trained nothing.

        Args:
            title: for the lines of progress.
        """

    def check(self, portions: Sequence[int | None], rows: int) -> None:
        """Compares the rows that an epoch has trained with its portions.

        Raises:
            DataError: the reader failed, or rows are missing.
        """
        return

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
        self.rows.close()


class Passes(LocalTraining):
    """Passes over the rows, through Paddle's data feed.

    Args:
        config: `runner` is read.
        program: the training program.
        rows: this worker's rows, with those of the proxy set.
        shards: what they are of.
        student: has its rows in `rows`.
    """

    def __init__(
        self,
        config: Config,
        program: TrainingProgram,
        rows: TrainingRows,
        shards: WorkerShards,
        student: Student,
    ) -> None:
        import paddle

        super().__init__(rows)
        self._runner = config.runner
        self._program, self._shards, self._student = program, shards, student
        self._in_memory = config.runner.reader_type == "InmemoryDataset"
        kind = paddle.distributed.InMemoryDataset if self._in_memory else paddle.distributed.QueueDataset
        self._dataset = kind()
        self._dataset.init(
            use_var=program.slots,
            pipe_command=shards.reader.pipe(),
            batch_size=config.runner.train_batch_size,
            thread_num=config.runner.thread_num,
        )
        self._dataset.set_filelist([str(path) for path in shards.files])
        if self._in_memory:
            self._dataset.load_into_memory()

    def begin_epoch(self, epoch: int) -> None:
        if self._runner.need_dump and self._runner.dump_fields_path is not None:
            folder = self._runner.dump_fields_path / f"epoch_{epoch}"
            graph.dump(self._program.main, folder, self._runner.dump_fields, self._runner.dump_param)
        self._student.begin_epoch(epoch)
        if epoch > 0:  # the reader of data in memory has run before the first epoch
            self._shards.reader.begin_epoch()

    def portions(self, local_epochs: float, exchanges: int) -> Sequence[int | None]:
        if local_epochs == 1.0 and not exchanges and self.rows.at_start:
            return [None]
        wanted, parts = math.ceil(local_epochs * self.rows.count), max(exchanges, 1)
        edges = [wanted * part // parts for part in range(parts + 1)]
        return [stop - start for start, stop in pairwise(edges)]

    def train(self, portion: int | None, title: str) -> int:
        for files, command in self.rows.take(portion):
            graph.read_from(self._dataset, files, command)
            self._program.executor.train_from_dataset(
                program=self._program.main,
                dataset=self._dataset,
                fetch_list=list(self._program.fetches.values()),
                fetch_info=[f"{title} {name}" for name in self._program.fetches],
                print_period=self._runner.print_interval,
                debug=self._runner.dataset_debug or self._runner.need_dump,
            )
        return (self._shards.rows or self.rows.count) if portion is None else portion

    def check(self, portions: Sequence[int | None], rows: int) -> None:
        if all(portion == 0 for portion in portions):
            return
        if portions == [None]:
            own = self._shards.rows
            expected = None if own is None else own + self._student.extra_rows
        else:
            expected = sum(filter(None, portions))
        self._shards.reader.check(self._shards.files[0], rows, expected)

    def close(self) -> None:
        if self._in_memory:
            self._dataset.release_memory()
        super().close()


class DpPasses(LocalTraining):
    """User by user, with differential privacy; see `fl_rec.privacy.mechanism`.

    Args:
        training: what trains.
        rows: this worker's rows.
    """

    def __init__(self, training: DpTraining, rows: TrainingRows) -> None:
        super().__init__(rows)
        self.training = training

    def portions(self, local_epochs: float, exchanges: int) -> Sequence[int | None]:
        if local_epochs != 1.0:
            raise ConfigError(
                "With privacy.clip every worker takes part in every exchange, for which it draws users and not rows. "
                f"Received: local_epochs={local_epochs:g}. Have run_worker call train_epoch(epoch)."
            )
        return [None] * exchanges

    def train(self, portion: int | None, title: str) -> int:
        self.training.train()
        # All weigh the same: how many rows a worker has drawn is nobody's business.
        return 1

    def figures(self) -> Mapping[str, Any]:
        return {"epsilon": self.training.spent().epsilon}

    def result(self) -> Mapping[str, Any]:
        return {"privacy": self.training.spent().to_record()}

    def __str__(self) -> str:
        return f": {self.training.spent()}"


def local_training(
    config: Config, program: TrainingProgram, private: Collection[str], shards: WorkerShards, student: Student
) -> LocalTraining:
    """How a worker trains by its configuration.

    Args:
        program: initialised, and known to the servers.
        private: names of the private parameters.

    Raises:
        ConfigError: the net is one that can't be trained so.
        DataError: the shards can't be read.
    """
    rows = training_rows(config, program, shards, student)
    if config.privacy.clip is not None:
        return DpPasses(DpTraining(config, program, private, rows), rows)
    return Passes(config, program, rows, shards, student)


def training_rows(config: Config, program: TrainingProgram, shards: WorkerShards, student: Student) -> TrainingRows:
    """The rows of the shards as they are, or with negatives that are drawn anew; see `local_training`."""
    runner, timeout = config.runner, config.runner.start_timeout
    if runner.resample_negatives is None:
        return ShardRows(shards.files, shards.reader, shards.rows, timeout)
    if len(program.feeds) != 3:
        raise ConfigError(
            "runner.resample_negatives draws items for rows of a user, items and labels. Received: a net with "
            f"{len(program.feeds)} feeds. Leave the key out."
        )
    # Rows may be groups already, of which the first item is the positive.
    file = shards.files[0]
    rows = ungrouped(parse_multislot(shards.reader.read(file, timeout), 3, str(file)), str(file))
    student.require_no_overlap(rows[:, 0], "the training shards")
    # With a seed that can be guessed, one user's negatives would tell of the users before.
    seed = runner.seed + shards.client if config.privacy.clip is None else secrets.randbits(128)
    sizes = (config["hyper_parameters.num_items"], config["hyper_parameters.num_users"])
    own = FreshNegatives(rows, sizes[0], runner.resample_negatives, program.group_size, seed, sizes[1])
    return FreshRows(student.rows(own, seed), shards.scratch)
