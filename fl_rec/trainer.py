"""The trainer: one process of a fleet job, and the epochs of a worker.

A user changes it by subclassing `FLTrainer` and overriding `run_worker`, or one of the four steps that it calls:
`train_epoch`, `evaluate`, `report` and `apply`. See tools/static_fl_trainer.py.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import math
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import psutil

from fl_rec import __version__, environment, roles
from fl_rec.config import Config, add_config_arguments, load_from_args
from fl_rec.errors import ConfigError, FLRecError, RunError
from fl_rec.evaluation import TestRows
from fl_rec.history import ENVIRONMENT_KEY, RunDirectory, default_path
from fl_rec.launch import FLEETRUN_MARK, start_watch
from fl_rec.metrics import AucBuckets, EpochMetrics, format_table
from fl_rec.preflight import Job, check_job
from fl_rec.reader import Reader
from fl_rec.roles import Role

log = logging.getLogger(__name__)

AUC_BUCKETS = 4096
# Variables of the training program that add up over an epoch.
LOSS_SUM, ROWS = "fl_rec_loss_sum", "fl_rec_rows"


class FLTrainer:
    """One role of a job: a parameter server, or a worker that trains its shard.

    Args:
        job: the checked configuration and shards.
        role: this process's part.
        run: where logs, metrics and models go.

    Attributes, for those who override a step of `run_worker`:
        config: the configuration, with every size filled in.
        runtime: barriers, sums over workers and the servers' model; see `fl_rec.runtime.PsRuntime`.
        program, scope: the training program and its parameters.
        net: the model as the servers held it at the last `evaluate`; see `fl_rec.checkpoint.InferenceNet`.
    """

    def __init__(self, job: Job, role: Role, run: RunDirectory) -> None:
        # Paddle takes two seconds to import and ten processes do it at once, so that mistakes are found before.
        from fl_rec.runtime import PsRuntime

        self.job = job
        self.config = job.config
        self.role = role
        self.run_directory = run
        self.history: list[dict[str, Any]] = []
        self._shard_rows = job.train_rows[role.index] if role.kind == "worker" else None
        self._next_row = 0
        self.runtime = PsRuntime(role, job.config)

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
        self.build_network()
        if self.role.kind == "server":
            roles.write_status(self.run_directory.roles, self.role.name, roles.RUNNING)
            self.runtime.run_server()
            return
        self.start_worker()
        roles.write_status(self.run_directory.roles, self.role.name, roles.RUNNING)
        self.run_worker()
        self.finish()

    # -- the epochs of a worker ----------------------------------------------------------------------------------

    def run_worker(self) -> None:
        """Trains, evaluates and reports, epoch by epoch. Override it to change what a client does."""
        for epoch in range(self.config.runner.epochs):
            metrics = self.train_epoch(epoch)
            metrics = self.evaluate(metrics)
            everyone = self.report(metrics)
            if not self.apply(everyone):
                break

    def train_epoch(self, epoch: int, local_epochs: float = 1.0) -> EpochMetrics:
        """Passes over this worker's shard.

        Args:
            epoch: from 0.
            local_epochs: how many; 0.5 is half of the shard, and the next half is next time's. 0: nothing is trained.

        Returns:
            rows, seconds, loss and the AUC buckets of this epoch alone.

        Raises:
            DataError: the reader failed, or rows are missing.
        """
        import paddle

        runner = self.config.runner
        for name in self._statistics:
            tensor = self.scope.find_var(name).get_tensor()
            tensor.set(np.zeros_like(np.array(tensor)), paddle.CPUPlace())
        if runner.need_dump and runner.dump_fields_path is not None:
            self.program._fleet_opt["dump_fields_path"] = str(runner.dump_fields_path / f"epoch_{epoch}")
            self.program._fleet_opt["dump_fields"] = list(runner.dump_fields)
            self.program._fleet_opt["dump_param"] = list(runner.dump_param)
        if epoch > 0:  # the reader of data in memory has run before the first epoch
            self.reader.begin_epoch()
        start = time.perf_counter()
        parts = self._parts(local_epochs)
        if parts:
            self.runtime.begin_exchange()
        for part in parts:
            self.dataset._set_pipe_command(self.reader.pipe(part))
            self.executor.train_from_dataset(
                program=self.program,
                dataset=self.dataset,
                fetch_list=list(self.fetches.values()),
                fetch_info=[f"epoch {epoch} {name}" for name in self.fetches],
                print_period=runner.print_interval,
                debug=runner.dataset_debug or runner.need_dump,
            )
        seconds = time.perf_counter() - start
        rows = int(self._statistic(ROWS)[0])
        if parts:
            wanted = self.job.train_rows[self.role.index]
            if parts != [None]:
                wanted = sum(part.stop - part.start for part in parts)
            self.reader.check(self.job.train_shards[self.role.index][0], rows, wanted)
        positives, negatives = (self._statistic(name) for name in self._auc_statistics)
        counted = int(positives.sum() + negatives.sum())
        if counted != rows:
            raise RunError(
                f"The AUC of an epoch counts each of its rows once. Received: {counted:,} counts for {rows:,} rows. "
                "The net must not write to the statistics of its auc operator."
            )
        return EpochMetrics(
            client=self.role.index,
            epoch=epoch,
            rows=rows,
            seconds=seconds,
            loss_sum=float(self._statistic(LOSS_SUM)[0]),
            train=AucBuckets(positives, negatives),
            top_k=runner.top_k,
        )

    def evaluate(self, metrics: EpochMetrics) -> EpochMetrics:
        """Scores this worker's test shard with the model that the servers hold, and saves that very model.

        Args:
            metrics: what `train_epoch` gave.

        Returns:
            the same, with the test's figures.
        """
        with self.runtime.settled(f"epoch {metrics.epoch}"):
            self.pull_model()
            if self.test_rows is not None:
                runner = self.config.runner
                buckets, ranked = self.test_rows.measure(self.net, runner.infer_batch_size, runner.top_k)
                metrics = dataclasses.replace(
                    metrics, test=buckets, test_users=ranked.users, hits=ranked.hits, ndcg_sum=ranked.ndcg_sum
                )
            if self.role.is_first_worker:
                self.save_model(metrics.epoch)
        return metrics

    def report(self, metrics: EpochMetrics) -> list[EpochMetrics]:
        """Tells every worker every worker's figures, and writes them down.

        Returns:
            one entry per worker, in order.
        """
        gathered = self.runtime.gather(metrics.to_vector(), f"figures of epoch {metrics.epoch}")
        everyone = [EpochMetrics.from_vector(row) for row in gathered]
        self.run_directory.append_metrics([metrics.to_record()])
        if self.role.is_first_worker:
            total = self.total(everyone).to_record()
            self.history.append(total)
            self.run_directory.append_metrics([total])
            table = format_table(everyone, f"epoch {metrics.epoch + 1} of {self.config.runner.epochs}")
            print(table, flush=True)
            self.run_directory.append_table(table)
        return everyone

    def apply(self, everyone: Sequence[EpochMetrics]) -> bool:
        """Decides, from every worker's figures, whether to go on; all workers must decide alike.

        Returns:
            True for another epoch. Without a coordinator there is always another, until `runner.epochs`.
        """
        return True

    @staticmethod
    def total(everyone: Sequence[EpochMetrics]) -> EpochMetrics:
        """All workers together: counts and AUC buckets are added, not figures averaged."""
        return EpochMetrics.total(everyone)

    # -- what the steps stand on ---------------------------------------------------------------------------------

    def build_network(self) -> None:
        """Builds the training program, for its server too: from it the tables are derived."""
        import paddle

        from fl_rec.models import attribute, new_model

        paddle.seed(self.config.runner.seed)
        path = self.config.runner.model_path
        # Names of parameters are counted from 0 here, and again for the evaluation, so that they agree.
        with paddle.utils.unique_name.guard():
            self.model = new_model(self.config)
            self.feeds = self.model.create_feeds()
            self.fetches = dict(self.model.net(self.feeds))
            cost = attribute(self.model, "_cost", path)
            prediction = attribute(self.model, "inference_target_var", path)
            if self.role.kind == "worker":
                self._add_auc(prediction)
            self.model.create_optimizer(self.runtime.strategy())
            self.program = cost.block.program
            self.startup = paddle.static.default_startup_program()
            if self.role.kind == "worker":
                self._add_counters(cost)

    def start_worker(self) -> None:
        """Initialises the parameters, joins the servers and opens the shards."""
        import paddle

        runner = self.config.runner
        self.executor = paddle.static.Executor(paddle.CPUPlace())
        self.scope = paddle.static.global_scope()
        self.executor.run(self.startup)
        if runner.warmup_model_path is not None and self.role.is_first_worker:
            from fl_rec.checkpoint import load_parameters

            names = [parameter.name for parameter in self.program.all_parameters()]
            load_parameters(runner.warmup_model_path, names, self.scope)
        self.reader = Reader.from_config(
            self.config, self.run_directory.config, self.run_directory.log / f"reader.{self.role.index}"
        )
        self.runtime.start_worker(self.program, self.scope)
        self._build_evaluation()
        self.dataset = self._open_dataset()
        shards = self.job.test_shards[self.role.index]
        self.test_rows = TestRows.read(shards, self.reader, len(self.feeds), runner.start_timeout) if shards else None

    def pull_model(self) -> None:
        """Copies the servers' model into `net`; call it within `runtime.settled`."""
        self.runtime.pull(self.executor, self._infer_program, self.net.scope)

    def save_model(self, epoch: int) -> None:
        """Writes the model that `net` holds as the checkpoint of an epoch."""
        from fl_rec import checkpoint

        folder = self.model_folder / str(epoch)
        signature = {"fl_rec": __version__, "epoch": epoch, "config": self.config.to_dict()}
        checkpoint.save(self.net, folder, signature, self.runtime.save_tables)

    @property
    def shard_rows(self) -> int:
        """Rows of this worker's training shard: the manifest's, or else counted once."""
        if self._shard_rows is None:
            runner, shards = self.config.runner, self.job.train_shards[self.role.index]
            self._shard_rows = sum(self.reader.read(path, runner.start_timeout).count(b"\n") for path in shards)
        return self._shard_rows

    @property
    def model_folder(self) -> Path:
        return self.config.runner.model_save_path or self.run_directory.model

    def finish(self) -> None:
        """Leaves the servers, and writes the result."""
        if self.config.runner.reader_type == "InmemoryDataset":
            self.dataset.release_memory()
        self.runtime.stop_worker()
        if self.role.is_first_worker:
            if not self.history:
                raise RunError(
                    "A run reports at least one epoch, and this one reported none: run_worker must call report."
                )
            last = self.history[-1]
            self.run_directory.write_result(
                {
                    "state": roles.DONE,
                    "workers": self.role.num_workers,
                    "servers": len(self.role.server_endpoints),
                    "model": str(self.model_folder / str(last["epoch"])),
                    "last": last,
                    "epochs": self.history,
                }
            )

    def _add_auc(self, prediction: Any) -> None:
        """Makes sure that the program counts scores and labels in `AUC_BUCKETS` buckets."""
        import paddle

        program = paddle.static.default_main_program()
        if _find_auc(program) is None:
            scores = paddle.concat([1 - prediction, prediction], axis=1)
            paddle.static.auc(input=scores, label=self.feeds[-1], num_thresholds=AUC_BUCKETS, slide_steps=0)
            # auc() also makes a first operator, for each batch alone, of which nobody asks.
            block = program.global_block()
            block._remove_op(next(index for index, op in enumerate(block.ops) if op.type == "auc"))

    def _add_counters(self, cost: Any) -> None:
        """Adds up rows and loss over an epoch: what the executor returns of an epoch is nothing."""
        import paddle

        auc = _find_auc(self.program)
        self._auc_statistics = (auc.output("StatPosOut")[0], auc.output("StatNegOut")[0])
        with paddle.static.program_guard(self.program, self.startup):
            rows = paddle.cast(paddle.shape(self.feeds[-1])[:1], "float64")
            # The loss of a batch is a mean, and the last batch is short: its mean counts for fewer rows.
            loss = rows * paddle.cast(cost, "float64")
            for name, value in ((LOSS_SUM, loss), (ROWS, rows)):
                total = paddle.static.create_global_var([1], 0.0, "float64", persistable=True, name=name)
                self.program.global_block().append_op(
                    type="elementwise_add", inputs={"X": [total], "Y": [value]}, outputs={"Out": [total]}
                )
        self._statistics = (LOSS_SUM, ROWS, *self._auc_statistics)

    def _parts(self, local_epochs: float) -> list[Any]:
        """The slices of the shard's rows that come next, one per reading of it; [None] is all of them."""
        if local_epochs == 1.0 and self._next_row == 0:
            return [None]
        parts, wanted = [], math.ceil(local_epochs * self.shard_rows)
        while wanted > 0:
            stop = min(self._next_row + wanted, self.shard_rows)
            parts.append(slice(self._next_row, stop))
            wanted -= stop - self._next_row
            self._next_row = stop % self.shard_rows
        return parts

    def _statistic(self, name: str) -> np.ndarray:
        return np.array(self.scope.find_var(name).get_tensor()).reshape(-1)

    def _build_evaluation(self) -> None:
        import paddle

        from fl_rec.checkpoint import InferenceNet
        from fl_rec.models import attribute, new_model

        self._infer_program, startup = paddle.static.Program(), paddle.static.Program()
        with paddle.utils.unique_name.guard(), paddle.static.program_guard(self._infer_program, startup):
            model = new_model(self.config)
            feeds = model.create_feeds(is_infer=True)
            model.infer_net(feeds)
            target = attribute(model, "inference_target_var", self.config.runner.model_path)
        trained = {parameter.name for parameter in self.program.all_parameters()}
        strange = sorted({parameter.name for parameter in self._infer_program.all_parameters()} - trained)
        if strange:
            raise ConfigError(
                f"{self.config.runner.model_path}: infer_net must create its parameters in the order in which net "
                f"does, so that they get the same names. Received: {', '.join(strange)}, which net has not."
            )
        # Some nets of PaddleRec leave the label out here, others have it.
        inputs = [feed for feed in feeds if feed.name != self.feeds[-1].name]
        pruned = paddle.static.normalize_program(self._infer_program, inputs, [target])
        scope = paddle.base.core.Scope()
        self.executor.run(startup, scope=scope)
        names = tuple(feed.name for feed in inputs)
        self.net = InferenceNet(pruned, names, pruned.global_block().var(target.name), scope)

    def _open_dataset(self) -> Any:
        import paddle

        runner = self.config.runner
        in_memory = runner.reader_type == "InmemoryDataset"
        kind = paddle.distributed.InMemoryDataset if in_memory else paddle.distributed.QueueDataset
        dataset = kind()
        dataset.init(
            use_var=self.feeds,
            pipe_command=self.reader.pipe(),
            batch_size=runner.train_batch_size,
            thread_num=runner.thread_num,
        )
        dataset.set_filelist([str(path) for path in self.job.train_shards[self.role.index]])
        if in_memory:
            dataset.load_into_memory()
        return dataset


def _find_auc(program: Any) -> Any:
    """The last of a program's operators that count in `AUC_BUCKETS` buckets, or None."""
    operators = reversed(program.global_block().ops)
    return next((op for op in operators if op.type == "auc" and op.attr("num_thresholds") == AUC_BUCKETS), None)


def main(trainer: type[FLTrainer] = FLTrainer, arguments: Sequence[str] | None = None) -> int:
    """The entry of a training script: reads the command line, plays the role, leaves its status.

    Returns:
        the exit code: 0, or 1 after a failure that the role's status tells of.
    """
    parser = argparse.ArgumentParser(description=trainer.__doc__)
    add_config_arguments(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    role = run = None
    try:
        role = Role.from_environment()
        environment.check()
        config = load_from_args(options)
        run = open_run(config, role)
        roles.write_status(run.roles, role.name, roles.STARTING)
        # Paddle leaves files where it runs: gloo's http.log, and a description of every trainer.
        os.chdir(run.log)
        job = check_job(config, role.num_workers, role.num_coordinators)
        if role.is_first_worker and ENVIRONMENT_KEY not in os.environ:
            job.config.dump(run.config)
        trainer.play(job, role, run)
        roles.write_status(run.roles, role.name, roles.DONE)
        return 0
    except BaseException as err:
        text = str(err) if isinstance(err, FLRecError) else f"{type(err).__name__}: {err}"
        if not isinstance(err, FLRecError):
            traceback.print_exc()
        print(f"{role.name if role else 'fl_rec'}: error: {text}", file=sys.stderr, flush=True)
        if role is not None and run is None and ENVIRONMENT_KEY not in os.environ:
            # Nobody watches yet, and fleetrun would exit with 0.
            os.kill(os.getppid(), signal.SIGTERM)
        if role is not None and run is not None:
            with contextlib.suppress(OSError):  # on a full disk the launcher goes by this process's end
                roles.write_status(run.roles, role.name, roles.FAILED, text)
        return 1


def open_run(config: Config, role: Role) -> RunDirectory:
    """The run directory of this job: the launcher's, or one named after the fleetrun that started this process.

    Under a fleetrun that was started by hand nobody watches the roles, so the first of them to come here has the job
    watched: a worker that waits for a dead one holds Python's global lock in gloo and can't watch for itself.
    """
    if ENVIRONMENT_KEY in os.environ:
        return RunDirectory(Path(os.environ[ENVIRONMENT_KEY]))
    fleetrun = psutil.Process(os.getppid())
    path = config.runner.run_dir or default_path(config.yaml_path, fleetrun)
    run, made = RunDirectory.claim(path, os.environ[FLEETRUN_MARK])
    if made:
        start_watch(run, role, fleetrun, config.runner.start_timeout)
    return run
