"""The trainer: one process of a fleet job, and the epochs of a worker.

A user changes it by subclassing `FLTrainer` and overriding `run_worker`, or one of the four steps that it calls:
`train_epoch`, `evaluate`, `report` and `apply`. See tools/static_fl_trainer.py.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_rec import environment
from fl_rec.data.reader import Reader
from fl_rec.distillation.student import new_student
from fl_rec.errors import ConfigError, Diverged, RunError
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.evaluator import Evaluator
from fl_rec.evaluation.groups import History
from fl_rec.evaluation.metrics import EpochMetrics, Times
from fl_rec.evaluation.records import records_of
from fl_rec.evaluation.table import epoch_table, note_of_ties
from fl_rec.job.check import Job
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import DONE
from fl_rec.runs.roles import Role
from fl_rec.trainer.watch import Watch

if TYPE_CHECKING:
    import numpy as np


class FLTrainer:
    """One role of a job: a parameter server, or a worker that trains its shard.

    Args:
        job: the checked configuration and shards.
        role: this process's part.
        run: where logs, metrics and models go.

    Attributes, for those who override a step of `run_worker`:
        config: the configuration, with every size filled in.
        runtime: barriers, and sums over workers; see `fl_rec.ps.runtime.PsRuntime`.
        program: the training program and its parameters; see `fl_rec.nets.program.TrainingProgram`.
        private_params: those that stay with this worker; see `fl_rec.trainer.private_params.PrivateParams`.
        exchange: how what the workers learn comes together; see `fl_rec.ps.exchange.Exchange`.
        local: how this worker trains; see `fl_rec.trainer.local_training.LocalTraining`.
        student: what it learns of a teacher; see `fl_rec.distillation.student.Student`.
        evaluator: its test and validation rows; see `fl_rec.evaluation.evaluator.Evaluator`.
        saving: its share of the saved models; see `fl_rec.trainer.saving.Saving`.
        net: the model as the servers held it at the last `evaluate`; see `fl_rec.nets.inference.InferenceNet`.
        checkpoints: what a run is resumed from; see `fl_rec.trainer.checkpoints.NoCheckpoints`.
        history: the figures of all workers together, one record an epoch; of the first worker of each host.
    """

    def __init__(self, job: Job, role: Role, run: RunDirectory) -> None:
        # Paddle takes long to import where ten processes do it at once, so that mistakes are found before.
        with environment.importing():
            from fl_rec.ps.runtime import PsRuntime

        self.job = job
        self.config = job.config.for_client(role.index) if role.kind == "worker" else job.config
        self.role = role
        self.run_directory = run
        self.history: list[dict[str, Any]] = []
        self.learning_rate_factor = 1.0
        self.watch = Watch(job)
        self.student = new_student(job.config)
        self.runtime = PsRuntime(role, job.config, run)

    @classmethod
    def play(cls, job: Job, role: Role, run: RunDirectory) -> None:
        """A process's part from start to end."""
        if role.kind == "coordinator":
            raise ConfigError(
                f"{cls.__name__} has no part for a coordinator. Leave --coordinator_num out, or use "
                "tools/static_fl_trainer_with_coordinator.py."
            )
        cls(job, role, run).run()

    def run(self) -> None:
        """Plays this server's or worker's part."""
        activity.doing("building the network")
        self.build_network()
        if self.role.kind == "server":
            endpoint = self.role.server_endpoints[self.role.index]
            roles.write_status(self.run_directory.roles, self.role.name, roles.RUNNING, endpoint=endpoint)
            activity.doing("serving")
            self.runtime.run_server()
            return
        activity.doing("joining the servers")
        self.start_worker()
        roles.write_status(self.run_directory.roles, self.role.name, roles.RUNNING)
        try:
            self.run_worker()
        except Diverged as err:
            raise Diverged(f"{err} {self.saving.last_good}") from err
        self.finish()

    # -- the epochs of a worker ----------------------------------------------------------------------------------

    def run_worker(self) -> None:
        """Trains, evaluates and reports, epoch by epoch. Override it to change what a client does."""
        for epoch in self.epochs:
            metrics = self.train_epoch(epoch)
            metrics = self.evaluate(metrics)
            everyone = self.report(metrics)
            if not self.apply(everyone):
                break

    def train_epoch(self, epoch: int, local_epochs: float = 1.0) -> EpochMetrics:
        """Passes over this worker's shard.

        Args:
            epoch: from 1.
            local_epochs: how many; 0.5 is half of the shard, and the next half is next time's. 0: nothing is trained.

        Returns:
            rows, seconds, loss and the AUC buckets of this epoch alone.

        Raises:
            RunError: not every row could be trained; or the run is resumed, and was further.
        """
        self.beginning.require(epoch)
        self.program.begin_epoch()
        self.local.begin_epoch(epoch)
        start = time.perf_counter()
        portions = self.local.portions(local_epochs, self.exchange.portions)
        activity.begin_epoch(epoch, sum(portions))
        for part, portion in enumerate(portions):
            self.program.begin_portion(epoch - 1 + (part + 0.5) / len(portions), self.learning_rate_factor)
            activity.doing(f"training epoch {epoch}")
            try:
                if portion != 0:
                    self.exchange.begin()
                self.local.train(portion, f"epoch {epoch}")
            except Diverged as err:
                self.program.uncount_portion()
                self.exchange.spoilt(err)
            activity.doing(f"exchanging in epoch {epoch}")
            self.exchange.merge(portion, f"epoch {epoch}, exchange {part + 1} of {len(portions)}")
        seconds = time.perf_counter() - start
        counted = self.program.counted()
        return EpochMetrics(
            client=self.role.index,
            epoch=epoch,
            rows=counted.rows,
            seconds=seconds,
            loss_sum=counted.loss_sum,
            train=AucBuckets(counted.positives, counted.negatives),
            top_k=self.config.runner.top_k,
        )

    def evaluate(self, metrics: EpochMetrics) -> EpochMetrics:
        """Scores this worker's test shard with the model that the servers hold, and saves that very model.

        Args:
            metrics: what `train_epoch` gave.

        Returns:
            the same, with the test's figures.
        """
        activity.doing(f"ending epoch {metrics.epoch}")
        with self.exchange.settled(f"epoch {metrics.epoch}"):
            activity.doing(f"evaluating epoch {metrics.epoch}")
            self.pull_model()
            test, validation = self.evaluator.evaluate(self.net)
            activity.doing(f"saving epoch {metrics.epoch}")
            self.saving.save_shared(metrics.epoch)
            self.checkpoints.save_shared(metrics.epoch)
        self.saving.save_private(metrics.epoch)
        return dataclasses.replace(metrics, test=test, validation=validation)

    def report(self, metrics: EpochMetrics) -> list[EpochMetrics]:
        """Tells every worker every worker's figures, writes them down, and completes the epoch's checkpoint.

        Returns:
            one entry per worker, in order; see `fl_rec.evaluation.claims.believable`.

        Raises:
            Diverged: training does not learn any more, and runner.on_divergence is stop.
        """
        activity.doing(f"reporting epoch {metrics.epoch}")
        self.checkpoints.save_own(metrics.epoch, self)
        metrics = dataclasses.replace(metrics, times=Times.of(activity.spent()))
        self.run_directory.append_metrics([metrics.to_record()])
        gathered = self.runtime.gather(metrics.to_vector(), f"figures of epoch {metrics.epoch}")
        everyone, notes, error = self.watch.look(gathered, metrics, self.total)
        notes = [*self.exchange.remarks(), *notes]
        if error is None:
            # Every worker has written its parts.
            self.saving.keep_the_best(self.total(everyone), self.evaluator.validates)
        if self.role.is_first_here:
            total = {**self.total(everyone).to_record(), **self.local.figures()}
            self.history.append(total)
            others = [each.to_record() for each in everyone if each.client in self.role.elsewhere]
            self.run_directory.append_metrics([*others, total])
            *_, record = records_of([*(each.to_record() for each in everyone), total])
            title = f"epoch {metrics.epoch} of {self.config.runner.epochs}{self.local}"
            table = epoch_table(record, title, self.job.clients)
            table = "\n".join([table, *(f"note: {note}" for note in [*note_of_ties(record), *notes])])
            print(table, flush=True)
            self.run_directory.append_table(table)
        if error is not None:
            raise error
        self.checkpoints.complete(metrics.epoch)
        return everyone

    def apply(self, everyone: Sequence[EpochMetrics]) -> bool:
        """Decides, from every worker's figures, whether to go on; all workers must decide alike.

        Returns:
            True for another epoch. Without a coordinator there is always another until `runner.epochs`, or until the
            validation shards' figures have not been better for `runner.early_stopping` epochs.
        """
        return not self.saving.patience_is_over(everyone[0].epoch)

    def state(self) -> dict[str, np.ndarray]:
        """What you have a checkpoint keep of this worker, besides what the trainer itself does."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes what `state` gave at the end of the last epoch of a run that is resumed; nothing is trained yet."""
        return

    @staticmethod
    def total(everyone: Sequence[EpochMetrics]) -> EpochMetrics:
        """All workers together: counts and AUC buckets are added, not figures averaged."""
        return EpochMetrics.total(everyone)

    # -- what the steps stand on ---------------------------------------------------------------------------------

    def build_network(self) -> None:
        """Builds the training program, for its server too: from it the tables are derived. A worker reads its shards
        meanwhile, since the tables of its own users are theirs only."""
        import paddle

        from fl_rec.nets.program import TrainingProgram
        from fl_rec.ps.exchange import new_exchange
        from fl_rec.trainer.private_params import PrivateParams

        # Names of parameters are counted from 0 here, and again for the evaluation, so that they agree.
        with paddle.utils.unique_name.guard():
            self.program = TrainingProgram(self.config)
            self.private_params = PrivateParams.of(self.config, self.program)
            shared = set(self.program.names) - set(self.private_params)
            self.runtime.keep_private(self.private_params)
            self.exchange = new_exchange(self.runtime, bool(shared))
            if self.role.kind == "worker":
                self._read_shards()
            self.program.add_penalties(shared)
            self.student.add_to(self.program)
            self.program.minimise(self.runtime.strategy(self.exchange.k_steps), counts=self.role.kind == "worker")

    def _read_shards(self) -> None:
        from fl_rec.nets.inference import scoring_program
        from fl_rec.trainer.local_training import WorkerShards, training_rows

        index, config = self.role.index, self.config
        reader = Reader.from_config(config, self.run_directory.config, self.job.stated)
        shards = WorkerShards(index, self.job.train_shards[index], self.job.train_rows[index], reader)
        rows = shards.read(config, self.program)
        self.evaluator = Evaluator.read(
            config.runner,
            reader,
            self._shards_of(self.job.test_shards),
            self._shards_of(self.job.validation_shards),
            len(self.program.feeds),
            History.of(rows),
        )
        for users, what in self.evaluator.users:
            self.student.require_no_overlap(users, what)
        self._scoring = scoring_program(config, self.program)
        everyone = [rows[0], self.student.users, *(users for users, _ in self.evaluator.users)]
        self._feed = self.private_params.keep_own(everyone, config, self.program, self._scoring)
        self._rows = training_rows(config, self.program, shards, rows, self.student, self.private_params.users)

    def start_worker(self) -> None:
        """Initialises the parameters and joins the servers."""
        from fl_rec.trainer.away import unless_lost
        from fl_rec.trainer.checkpoints import beginning, new_checkpoints
        from fl_rec.trainer.local_training import local_training
        from fl_rec.trainer.saving import new_saving
        from fl_rec.trainer.warm_start import warm_start

        index = self.role.index
        self.program.initialise(self._feed)
        self.private_params.remember(self.program)
        warm_start(self.config, index, self.program, self.private_params)
        self.beginning = beginning(self.run_directory, self.role)
        self.beginning.give_parameters(self.program)
        self.exchange.start(self.program.main, self.program.scope)
        scratch, ledger = (self.run_directory.path / name for name in (f".rows.{index}", f"privacy/{index}.json"))
        local = local_training(
            self.config, self.program, self.private_params, self.exchange, self._rows, self.student, scratch, ledger
        )
        local.check(self.private_params.users, index, self.runtime.gather)
        self.local, self.evaluator = unless_lost(index, local, self.evaluator)
        self.net = self._scoring.net(self.private_params.users, self.local.structure)
        self.saving = new_saving(self)
        self.checkpoints = new_checkpoints(self)
        self.beginning.give_rest(self)
        activity.spent()  # on the start, which is no epoch's

    def pull_model(self) -> None:
        """Copies the servers' model, and this worker's private part, into `net`; call it within `exchange.settled`."""
        self.exchange.pull(self.net.program, self.net.scope)
        self.private_params.put_into(self.net, self.program)

    @property
    def epochs(self) -> range:
        """Those that are to be trained, from 1 but in a run that is resumed."""
        first, patience_is_over = self.beginning.epoch, self.saving.patience_is_over(self.beginning.epoch - 1)
        return range(first, first if patience_is_over else self.config.runner.epochs + 1)

    @property
    def shard_rows(self) -> int:
        """Rows of one pass over this worker's training shard."""
        return self.local.shard_rows

    @property
    def model_folder(self) -> Path:
        """Where the epochs' models are."""
        return self.saving.folder

    def finish(self) -> None:
        """Leaves the servers, and writes the result."""
        activity.doing("finishing")
        self.local.close()
        self.checkpoints.close()
        self.exchange.stop()
        if self.role.is_first_here:
            _end(self)

    def _shards_of(self, shards: Sequence[Sequence[Path]]) -> Sequence[Path]:
        return shards[self.role.index] if shards else ()


def _end(trainer: FLTrainer) -> None:
    """Writes the result of a run that ends well. RunError if no epoch was reported."""
    if not trainer.history:
        raise RunError("A run reports at least one epoch, and this one reported none: run_worker must call report.")
    saving = trainer.saving
    best = saving.best_epoch if trainer.evaluator.validates else None
    trainer.run_directory.end(DONE, best, model=saving.best_model, **trainer.local.result())
