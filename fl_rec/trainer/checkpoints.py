"""Writing what a run is resumed from, epoch by epoch, and going on from it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_rec.config import Config
from fl_rec.errors import DataError, RunError
from fl_rec.files import digest
from fl_rec.nets.program import TrainingProgram
from fl_rec.ps.exchange import Exchange
from fl_rec.runs import training_state
from fl_rec.runs.directory import RESUME_KEY, RunDirectory
from fl_rec.runs.roles import Role
from fl_rec.runs.training_state import TrainingState
from fl_rec.trainer.saving import Saving

if TYPE_CHECKING:
    from fl_rec.trainer.fl_trainer import FLTrainer

# Parts of a worker's own file.
PROGRAM, LOCAL, TRAINER = "program", "local", "trainer"


class Beginning:
    """Where a worker's training begins: here with the first epoch.

    Attributes:
        epoch: the first one to be trained.
    """

    epoch = 1
    _rule = "A run begins with epoch"

    def require(self, epoch: int) -> None:
        """RunError if an epoch is to be trained that was trained before, or that there is not."""
        if epoch < self.epoch:
            raise RunError(
                f"{self._rule} {self.epoch}. Received: train_epoch({epoch}). Have run_worker train self.epochs."
            )

    def give_parameters(self, program: TrainingProgram) -> None:
        """Sets all that the program goes on with, before the exchange starts. DataError if it is another net's."""
        return

    def give_rest(self, trainer: FLTrainer) -> None:
        """Sets everything else, before the first epoch. DataError if the worker had other rows."""
        return


class Resumption(Beginning):
    """The epoch after a checkpoint's.

    Args:
        state: the checkpoint.
        worker: whose part is taken.
    """

    _rule = "A run that is resumed goes on with epoch"

    def __init__(self, state: TrainingState, worker: int) -> None:
        self.epoch = state.epoch + 1
        self._state, self._own = state, state.own(worker)

    def give_parameters(self, program: TrainingProgram) -> None:
        values = {**self._state.shared(), **self._own.get(PROGRAM, {})}
        wanted = {name: program.value(name).shape for name in program.kept}
        for name in sorted({*wanted, *values}):
            shapes = [list(each) if each is not None else None for each in (_shape(values, name), wanted.get(name))]
            if shapes[0] != shapes[1]:
                had, has = ("no such variable" if each is None else f"one of shape {each}" for each in shapes)
                raise DataError(
                    f"A run goes on with the net and the optimizer that it had. Received: {name}, of which the "
                    f"checkpoint has {had}, and the net {has}. Leave hyper_parameters, runner.model_path and "
                    "runner.private_params as they were; another net may start from what they share by "
                    "runner.warmup_model_path."
                )
        program.restore(values)

    def give_rest(self, trainer: FLTrainer) -> None:
        trainer.local.restore(self._own.get(LOCAL, {}))
        trainer.saving.go_on(self._state.best)
        totals = trainer.run_directory.read_totals()
        trainer.watch.go_on(totals)
        if trainer.role.is_first_here:
            trainer.history.extend(totals)
        trainer.restore(self._own.get(TRAINER, {}))


def _shape(values: Mapping[str, np.ndarray], name: str) -> tuple[int, ...] | None:
    return values[name].shape if name in values else None


def beginning(run: RunDirectory, role: Role) -> Beginning:
    """Where a worker's training begins."""
    epoch = os.environ.get(RESUME_KEY)
    return Resumption(TrainingState.read(run, int(epoch), role.index), role.index) if epoch else Beginning()


class NoCheckpoints:
    """What a worker does about checkpoints: here nothing.

    Args:
        saving: of the models.
    """

    def __init__(self, saving: Saving) -> None:
        self._saving = saving

    def save_shared(self, epoch: int) -> None:
        """Begins an epoch's checkpoint; within `Exchange.settled`.

        Raises:
            RunError: it can't be written, as of the others.
        """
        return

    def save_own(self, epoch: int, trainer: FLTrainer) -> None:
        """Adds this worker's part, and is followed by what all workers do together."""
        return

    def complete(self, epoch: int) -> None:
        """Ends it, when all workers have added their part. Models that are needed no longer are removed."""
        self._saving.remove(self._saving.worse())

    def close(self) -> None:
        """Returns when the run can be resumed from what was completed."""
        return


class Checkpoints(NoCheckpoints):
    """One at the end of every `runner.save_interval` epochs, and of the last.

    Args:
        config: this worker's.
        role: this worker; the first one of its host writes what is shared.
        run: where.
        identity: of the run, its net and its data.
        saving: of the models; the best one of a checkpoint stays until the next is complete.
        exchange: has the servers' model.
    """

    def __init__(
        self,
        config: Config,
        role: Role,
        run: RunDirectory,
        identity: Mapping[str, Any],
        saving: Saving,
        exchange: Exchange,
    ) -> None:
        super().__init__(saving)
        self._runner, self._role, self._run = config.runner, role, run
        self._identity, self._exchange = identity, exchange
        # The others' newest may be the one before: all go on from one that every host has.
        self._kept = config.runner.keep_checkpoints + bool(role.elsewhere)
        # The disk takes a while, in which the next epoch begins.
        self._thread, self._ending = ThreadPoolExecutor(1), Future[None]()
        self._ending.set_result(None)

    def save_shared(self, epoch: int) -> None:
        if self._is_due(epoch) and self._role.is_first_here:
            self.close()
            with self._told():
                training_state.write_shared(self._run, epoch, self._exchange.shared())

    def save_own(self, epoch: int, trainer: FLTrainer) -> None:
        if self._is_due(epoch):
            shared = set(self._exchange.servers.tables.names)
            program = {name: trainer.program.value(name) for name in trainer.program.kept if name not in shared}
            parts = {PROGRAM: program, LOCAL: trainer.local.state(), TRAINER: trainer.state()}
            with self._told():
                training_state.write_own(self._run, epoch, self._role.index, parts)

    def complete(self, epoch: int) -> None:
        if not self._is_due(epoch):
            return
        worse = self._saving.worse()
        if self._role.is_first_here:
            content = training_state.content(self._run, epoch, self._saving.best, self._identity)
            self._ending = self._thread.submit(self._complete, epoch, content, worse)

    def _complete(self, epoch: int, content: Mapping[str, Any], worse: Sequence[int]) -> None:
        training_state.complete(self._run, epoch, content, self._kept)
        self._saving.remove(worse)

    def close(self) -> None:
        with self._told():
            self._ending.result()

    def _is_due(self, epoch: int) -> bool:
        return training_state.is_due(epoch, self._runner.save_interval, self._runner.epochs)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise RunError(
                f"A checkpoint must be saved every runner.save_interval={self._runner.save_interval} epochs, and "
                f"{self._run.checkpoint} can't be written ({err.strerror or err}). Free some space, or set "
                "runner.save_interval=0 to do without."
            ) from err


def new_checkpoints(trainer: FLTrainer) -> NoCheckpoints:
    """What a worker does about checkpoints by its configuration, when its net and its exchange are there."""
    if not (trainer.config.runner.save_interval and trainer.exchange.goes_on):
        return NoCheckpoints(trainer.saving)
    identity = _identity(trainer)
    config, role, run = trainer.config, trainer.role, trainer.run_directory
    return Checkpoints(config, role, run, identity, trainer.saving, trainer.exchange)


def _identity(trainer: FLTrainer) -> dict[str, str]:
    users, program = trainer.private_params.users, trainer.program
    shapes = {name: users.whole(name, program.value(name).shape) for name in program.names}
    return {"run": trainer.run_directory.identity, "net": digest(shapes), "data": trainer.job.checksum}
