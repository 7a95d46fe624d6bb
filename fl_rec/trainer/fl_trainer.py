"""The trainer: one process of a fleet job, and the epochs of a worker.

A user changes it by subclassing `FLTrainer` and overriding `run_worker`, or one of the four steps that it calls:
`train_epoch`, `evaluate`, `report` and `apply`. See tools/static_fl_trainer.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec import __version__
from fl_rec.data.reader import Reader
from fl_rec.data.rows import FreshRows, ShardRows, TrainingRows
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import parse_multislot
from fl_rec.distillation.proxy import SOFT_TARGETS, ProxySet
from fl_rec.distillation.student import DistilledRows, add_distillation
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.evaluator import TestRows
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation, format_table
from fl_rec.job.check import Job
from fl_rec.nets.graph import keep_zeros
from fl_rec.nets.penalties import add_penalties
from fl_rec.nets.program import AUC_BUCKETS, LOSS_SUM, ROWS, find_auc
from fl_rec.privacy.dp_rounds import PrivateRounds
from fl_rec.runs import private_parts, roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.private_parts import Part
from fl_rec.runs.roles import Role
from fl_rec.trainer.private_params import private_parameters

log = logging.getLogger(__name__)


class FLTrainer:
    """One role of a job: a parameter server, or a worker that trains its shard.

    Args:
        job: the checked configuration and shards.
        role: this process's part.
        run: where logs, metrics and models go.

    Attributes, for those who override a step of `run_worker`:
        config: the configuration, with every size filled in.
        runtime: barriers, sums over workers and the servers' model; see `fl_rec.ps.runtime.PsRuntime`.
        program, scope: the training program and its parameters.
        private_rounds: what trains with differential privacy; None without.
        net: the model as the servers held it at the last `evaluate`; see `fl_rec.nets.inference.InferenceNet`.
        proxy: the public users' rows; None without distillation.
        soft_targets: the teacher's logits on the rows that `proxy` has for the next epoch, float [rows, group]; None if
            there are none.
    """

    def __init__(self, job: Job, role: Role, run: RunDirectory) -> None:
        # Paddle takes two seconds to import and ten processes do it at once, so that mistakes are found before.
        from fl_rec.ps.runtime import PsRuntime

        self.job = job
        self.config = job.config.for_client(role.index) if role.kind == "worker" else job.config
        self.role = role
        self.run_directory = run
        self.history: list[dict[str, Any]] = []
        # The epoch whose model is kept, and the validation shards' NDCG that it is kept for.
        self.best_epoch, self.best_figure = -1, math.nan
        self.learning_rate_factor = 1.0
        self.private_rounds: PrivateRounds | None = None
        self.proxy = ProxySet.from_config(job.config)
        self.soft_targets: np.ndarray | None = None
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
        if self._distilled is not None:
            self._distilled.begin(epoch, self.soft_targets)
        if epoch > 0:  # the reader of data in memory has run before the first epoch
            self.reader.begin_epoch()
        start = time.perf_counter()
        portions = self._portions(local_epochs)
        for part, wanted in enumerate(portions):
            self._set_learning_rate(epoch + (part + 0.5) / len(portions))
            self._train(wanted, f"epoch {epoch}")
            if self.runtime.synchronised:
                # In private rounds all take the same part: how many rows a worker has drawn is nobody's business.
                taken = 1 if self.private_rounds else wanted or 0
                self._exchange(taken, f"epoch {epoch}, round {part + 1} of {len(portions)}")
        seconds = time.perf_counter() - start
        rows = int(self._statistic(ROWS)[0])
        if not self.private_rounds and any(portion != 0 for portion in portions):
            expected = self.job.train_rows[self.role.index] if portions == [None] else sum(filter(None, portions))
            if expected is not None and portions == [None] and self.proxy is not None:
                expected += self.proxy.shape[0]
            self.reader.check(self.job.train_shards[self.role.index][0], rows, expected)
        positives, negatives = (self._statistic(name) for name in self._auc_statistics)
        counted = int(positives.sum() + negatives.sum())
        if counted != rows * self.group_size:
            raise RunError(
                f"The AUC of an epoch counts each item of its rows once. Received: {counted:,} counts for {rows:,} "
                f"rows of {self.group_size}. The net must not write to the statistics of its auc operator."
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
            test, validation = self._measured(self.test_rows), self._measured(self.validation_rows)
            metrics = dataclasses.replace(metrics, test=test, validation=validation)
            if self.role.is_first_worker:
                self.save_model(metrics.epoch)
        self.save_private_part(metrics.epoch)
        return metrics

    def report(self, metrics: EpochMetrics) -> list[EpochMetrics]:
        """Tells every worker every worker's figures, and writes them down.

        Returns:
            one entry per worker, in order.
        """
        gathered = self.runtime.gather(metrics.to_vector(), f"figures of epoch {metrics.epoch}")
        everyone = [EpochMetrics.from_vector(row) for row in gathered]
        self._keep_the_best(self.total(everyone))
        self.run_directory.append_metrics([metrics.to_record()])
        if self.role.is_first_worker:
            total = self.total(everyone).to_record()
            title = f"epoch {metrics.epoch + 1} of {self.config.runner.epochs}"
            if self.private_rounds:
                spent = self.private_rounds.spent()
                total["epsilon"] = spent.epsilon
                title += f": {spent}"
            self.history.append(total)
            self.run_directory.append_metrics([total])
            table = format_table(everyone, title)
            print(table, flush=True)
            self.run_directory.append_table(table)
        return everyone

    def apply(self, everyone: Sequence[EpochMetrics]) -> bool:
        """Decides, from every worker's figures, whether to go on; all workers must decide alike.

        Returns:
            True for another epoch. Without a coordinator there is always another until `runner.epochs`, or until the
            validation shards' figures have not been better for `runner.early_stopping` epochs.
        """
        patience = self.config.runner.early_stopping
        return not patience or everyone[0].epoch - self.best_epoch < patience

    @staticmethod
    def total(everyone: Sequence[EpochMetrics]) -> EpochMetrics:
        """All workers together: counts and AUC buckets are added, not figures averaged."""
        return EpochMetrics.total(everyone)

    # -- what the steps stand on ---------------------------------------------------------------------------------

    def build_network(self) -> None:
        """Builds the training program, for its server too: from it the tables are derived."""
        import paddle

        from fl_rec.nets.contract import attribute, new_model

        paddle.seed(self.config.runner.seed)
        path = self.config.runner.model_path
        # Names of parameters are counted from 0 here, and again for the evaluation, so that they agree.
        with paddle.utils.unique_name.guard():
            self.model = new_model(self.config)
            self.feeds = self.model.create_feeds()
            self.fetches = dict(self.model.net(self.feeds))
            cost = attribute(self.model, "_cost", path)
            prediction = attribute(self.model, "inference_target_var", path)
            self._require_group_size()
            self.private = private_parameters(self.config, cost.block.program, self.feeds[0].name)
            hyper = self.config.hyper_parameters
            shared = {parameter.name for parameter in cost.block.program.all_parameters()} - set(self.private)
            self.runtime.keep_private(self.private, shares=bool(shared))
            self.model._cost, self._anchors = add_penalties(cost, hyper.l2, hyper.proximal, shared)
            self._slots = list(self.feeds)
            if self.proxy is not None:
                targets = paddle.static.data(SOFT_TARGETS, [-1, self.group_size], "float32")
                self._slots.append(targets)
                distillation = self.config.distillation
                self.model._cost = add_distillation(
                    self.model._cost, prediction, targets, distillation.temperature, distillation.weight
                )
            self._masks = keep_zeros(cost.block.program) if self.config.runner.keep_zeros else {}
            if self.role.kind == "worker":
                self._add_auc(prediction)
            self.model.create_optimizer(self.runtime.strategy())
            self.program = cost.block.program  # fleet has put another in its place
            self.startup = paddle.static.default_startup_program()
            if self.role.kind == "worker":
                self._add_counters(cost)

    def start_worker(self) -> None:
        """Initialises the parameters, joins the servers and opens the shards."""
        import paddle

        self.executor = paddle.static.Executor(paddle.CPUPlace())
        self.scope = paddle.static.global_scope()
        self.executor.run(self.startup)
        optimizers = [op for op in self.program.global_block().ops if "LearningRate" in op.input_names]
        rates = {name for op in optimizers for name in op.input("LearningRate")}
        self._learning_rates = {name: float(self._statistic(name)[0]) for name in rates}
        self._untrained = {name: self._parameter(name) for name in self.private}
        self._warm_up()
        self.reader = Reader.from_config(
            self.config, self.run_directory.config, self.run_directory.log / f"reader.{self.role.index}"
        )
        self.runtime.start_worker(self.program, self.scope)
        self._build_evaluation()
        self.dataset = self._open_dataset()
        self._distilled: DistilledRows | None = None
        self.rows = self._open_rows()
        if self.config.privacy.clip is not None:
            self.private_rounds = PrivateRounds(
                self.config,
                self.program,
                self.scope,
                self.executor,
                self.feeds,
                self.private,
                self._statistics,
                self.rows,
            )
        self.test_rows: TestRows | None = self._read_test_rows(self.job.test_shards)
        self.validation_rows: TestRows | None = self._read_test_rows(self.job.validation_shards)
        if self.proxy is not None:
            for rows, what in ((self.test_rows, "the test shards"), (self.validation_rows, "the validation shards")):
                if rows is not None:
                    self.proxy.require_strangers(rows.inputs[0], what)

    def pull_model(self) -> None:
        """Copies the servers' model, and this worker's private part, into `net`; call it within `runtime.settled`."""
        self.runtime.pull(self.executor, self._infer_program, self.net.scope)
        for name, part in self.private_parts().items():
            self.net.set_parameter(name, part.into(np.zeros_like(self._untrained[name])))

    def private_parts(self) -> dict[str, Part]:
        """What this worker has of each private parameter."""
        return {
            name: Part.trained(self._parameter(name), untrained, self.private[name])
            for name, untrained in self._untrained.items()
        }

    def save_model(self, epoch: int) -> None:
        """Writes the model that `net` holds as the checkpoint of an epoch."""
        from fl_rec.runs import checkpoint

        folder = self.model_folder / str(epoch)
        mappings = dict(self.job.mappings)
        signature = {"fl_rec": __version__, "epoch": epoch, "mappings": mappings, "config": self.config.to_dict()}
        if self.proxy is not None:
            signature["public_users"] = self.proxy.users.tolist()
        checkpoint.save(self.net, folder, signature, self.runtime.save_tables, self.private)

    def save_private_part(self, epoch: int) -> None:
        """Writes this worker's private part into the checkpoint of an epoch, which `save_model` has written.

        Raises:
            RunError: it can't be written.
        """
        from fl_rec.runs import checkpoint

        if self.private:
            path = checkpoint.private_path(self.model_folder / str(epoch), self.role.index)
            try:
                private_parts.save(path, self.private_parts())
                if self.config.distillation.students:
                    checkpoint.write_own(self.net, path, self.private)
            except OSError as err:
                raise RunError(
                    f"The private part must be saved, and {path} can't be written ({err.strerror or err}). Free some "
                    "space or name another runner.model_save_path."
                ) from err

    @property
    def shard_rows(self) -> int:
        """Rows of one pass over this worker's training shard: the manifest's, or else counted once."""
        return self.rows.count

    @property
    def model_folder(self) -> Path:
        return self.config.runner.model_save_path or self.run_directory.model

    def finish(self) -> None:
        """Leaves the servers, and writes the result."""
        if self.config.runner.reader_type == "InmemoryDataset":
            self.dataset.release_memory()
        self.rows.close()
        self.runtime.stop_worker()
        if self.role.is_first_worker:
            if not self.history:
                raise RunError(
                    "A run reports at least one epoch, and this one reported none: run_worker must call report."
                )
            last = self.history[-1]
            spent = {"privacy": self.private_rounds.spent().to_record()} if self.private_rounds else {}
            self.run_directory.write_result(
                {
                    "state": roles.DONE,
                    "workers": self.role.num_workers,
                    "servers": len(self.role.server_endpoints),
                    "model": str(self.model_folder / str(self.best_epoch)),
                    "last": last,
                    "best": next(each for each in self.history if each["epoch"] == self.best_epoch),
                    "epochs": self.history,
                    **spent,
                }
            )

    def _add_auc(self, prediction: Any) -> None:
        """Makes sure that the program counts scores and labels in `AUC_BUCKETS` buckets."""
        import paddle

        program = paddle.static.default_main_program()
        if find_auc(program) is None:
            flat, label = paddle.reshape(prediction, [-1, 1]), paddle.reshape(self.feeds[-1], [-1, 1])
            scores = paddle.concat([1 - flat, flat], axis=1)
            paddle.static.auc(input=scores, label=label, num_thresholds=AUC_BUCKETS, slide_steps=0)
            # auc() also makes a first operator, for each batch alone, of which nobody asks.
            block = program.global_block()
            block._remove_op(next(index for index, op in enumerate(block.ops) if op.type == "auc"))

    def _add_counters(self, cost: Any) -> None:
        """Adds up rows and loss over an epoch: what the executor returns of an epoch is nothing."""
        import paddle

        auc = find_auc(self.program)
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

    def _portions(self, local_epochs: float) -> list[int | None]:
        """Rows to train between two exchanges of an epoch, as many entries in every worker; None is a whole reading."""
        rounds = self.config.runner.exchanges_per_epoch
        if self.private_rounds and local_epochs != 1.0:
            raise ConfigError(
                "With privacy.clip every worker takes part in every round, in which it draws users and not rows. "
                f"Received: local_epochs={local_epochs:g}. Have run_worker call train_epoch(epoch)."
            )
        if local_epochs == 1.0 and not rounds and self.rows.at_start:
            return [None]
        wanted = math.ceil(local_epochs * self.rows.count)
        edges = [wanted * part // max(rounds, 1) for part in range(max(rounds, 1) + 1)]
        return [stop - start for start, stop in itertools.pairwise(edges)]

    def _train(self, wanted: int | None, title: str) -> None:
        """Trains the next rows; see `TrainingRows.take`."""
        import paddle

        if wanted != 0:
            self.runtime.begin_exchange()
        for name, anchor in self._anchors.items():
            value = np.array(self.scope.find_var(name).get_tensor())
            self.scope.find_var(anchor).get_tensor().set(value, paddle.CPUPlace())
        if self.private_rounds:
            self.private_rounds.train()
            return
        runner = self.config.runner
        for files, command in self.rows.take(wanted):
            self.dataset._set_pipe_command(command)
            self.dataset.set_filelist([str(path) for path in files])
            self.executor.train_from_dataset(
                program=self.program,
                dataset=self.dataset,
                fetch_list=list(self.fetches.values()),
                fetch_info=[f"{title} {name}" for name in self.fetches],
                print_period=runner.print_interval,
                debug=runner.dataset_debug or runner.need_dump,
            )

    def _exchange(self, rows: int, what: str) -> None:
        """Ends a round: the servers' model takes in what every worker has learned, as runner.aggregation says."""
        runner = self.config.runner
        everyone = self.runtime.gather(np.array([rows], np.float64), f"{what}: everyone's rows")
        joined, total = max(int(np.count_nonzero(everyone)), 1), max(float(everyone.sum()), 1.0)
        shares = {"sum": 1.0, "mean": 1 / joined, "weighted": rows / total}
        self.runtime.exchange(runner.server_learning_rate * shares[runner.aggregation] if rows else 0.0, what)

    def _set_learning_rate(self, epochs_done: float) -> None:
        """Sets the rate of the optimizers' next steps, by the configured schedule and `learning_rate_factor`."""
        import paddle

        factor = self.learning_rate_factor
        if self.config.hyper_parameters.optimizer.schedule == "linear":
            factor *= max(0.0, 1 - epochs_done / self.config.runner.epochs)
        for name, rate in self._learning_rates.items():
            tensor = self.scope.find_var(name).get_tensor()
            tensor.set(np.full(tensor.shape(), rate * factor, np.float32), paddle.CPUPlace())

    def _parameter(self, name: str) -> np.ndarray:
        return np.array(self.scope.find_var(name).get_tensor())

    def _statistic(self, name: str) -> np.ndarray:
        return self._parameter(name).reshape(-1)

    def _require_group_size(self) -> None:
        """The net's rows must be the data's."""
        wanted = self.config.hyper_parameters.group_size or 1
        widths = sorted({int(feed.shape[-1]) for feed in self.feeds[1:]})
        if wanted > 1 and widths != [wanted]:
            raise ConfigError(
                f"hyper_parameters.group_size={wanted} has each training row hold {wanted} items and as many labels, "
                f"and the net's feeds must do so too. Received: feeds of widths {widths} from "
                f"{self.config.runner.model_path}. Set hyper_parameters.group_size=1, or have create_feeds read it."
            )
        self.group_size = wanted

    def _warm_up(self) -> None:
        """Starts from saved models, if the configuration names any."""
        from fl_rec.nets.neumf import neumf_parameters
        from fl_rec.runs import checkpoint

        runner, hyper = self.config.runner, self.config.hyper_parameters
        if runner.warmup_model_path is not None:
            saved, source = checkpoint.load_parameters(runner.warmup_model_path, self.role.index), "the warm start"
        elif hyper.pretrained_gmf is not None and hyper.pretrained_mlp is not None:
            gmf = checkpoint.load_parameters(hyper.pretrained_gmf, self.role.index)
            mlp = checkpoint.load_parameters(hyper.pretrained_mlp, self.role.index)
            saved, source = neumf_parameters(gmf, mlp, hyper.pretrain_alpha), "the pretrained nets"
        else:
            return
        import paddle

        for parameter in self.program.all_parameters():
            name, shape = parameter.name, list(parameter.shape)
            if name not in saved or list(saved[name].shape) != shape:
                found = f"of shape {list(saved[name].shape)}" if name in saved else "missing"
                raise DataError(
                    f"A warm start needs every parameter of the net, in its shape. Received from {source}: {name} "
                    f"{found}, and the net's is of shape {shape}. Check mode, num_users, num_items, mf_dim and "
                    "fc_layers against those of the saved model."
                )
            values = saved[name]
            if self.private.get(name):  # by row
                held = values.any(axis=1, keepdims=True)
                if held.all():  # of a table that all had, nothing is this worker's until it is trained here
                    self._untrained[name] = values
                # Rows of other workers' users stay untrained here: else they would be saved as this worker's.
                values = np.where(held, values, self._parameter(name))
            self.scope.find_var(name).get_tensor().set(values, paddle.CPUPlace())
            if name in self._masks:
                mask = (values != 0).astype(values.dtype)
                self.scope.find_var(self._masks[name]).get_tensor().set(mask, paddle.CPUPlace())

    def _keep_the_best(self, total: EpochMetrics) -> None:
        """With validation shards, an epoch's model stays only until a better one is there; without, the last counts."""
        figure = total.validation_ndcg
        if self.validation_rows is None:
            self.best_epoch = total.epoch
            return
        if self.best_epoch >= 0 and not figure > self.best_figure:
            worse = total.epoch
        else:
            worse, self.best_epoch, self.best_figure = self.best_epoch, total.epoch, figure
        # Every worker has written its private part: this comes after they have gathered their figures.
        if self.role.is_first_worker and worse >= 0:
            shutil.rmtree(self.model_folder / str(worse), ignore_errors=True)

    def _measured(self, rows: TestRows | None) -> Evaluation:
        runner = self.config.runner
        return rows.measure(self.net, runner.infer_batch_size, runner.top_k) if rows else Evaluation()

    def _read_test_rows(self, shards: Sequence[Sequence[Path]]) -> TestRows | None:
        mine = shards[self.role.index] if shards else ()
        return TestRows.read(mine, self.reader, len(self.feeds), self.config.runner.start_timeout) if mine else None

    def _build_evaluation(self) -> None:
        import paddle

        from fl_rec.nets.contract import attribute, new_model
        from fl_rec.nets.inference import InferenceNet

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

    def _open_rows(self) -> TrainingRows:
        runner, index = self.config.runner, self.role.index
        shards, timeout = self.job.train_shards[index], runner.start_timeout
        if runner.resample_negatives is None:
            return ShardRows(shards, self.reader, self.job.train_rows[index], timeout)
        if len(self.feeds) != 3:
            raise ConfigError(
                "runner.resample_negatives draws items for rows of a user, items and labels. Received: a net with "
                f"{len(self.feeds)} feeds. Leave the key out."
            )
        # Rows may be groups already, of which the first item is the positive.
        users, items, labels = parse_multislot(self.reader.read(shards[0], timeout), 3, str(shards[0]))
        if users.shape[1] != 1 or items.shape != labels.shape:
            raise DataError(
                "A training row has one user, and as many labels as items. Received: "
                f"{[slot.shape[1] for slot in (users, items, labels)]} values in the slots of {shards[0]}."
            )
        rows = np.stack([np.broadcast_to(users, items.shape), items, labels], axis=-1).reshape(-1, 3)
        num_items = self.config["hyper_parameters.num_items"]
        # With a seed that can be guessed, one user's negatives would tell of the users before.
        seed = runner.seed + index if self.config.privacy.clip is None else secrets.randbits(128)
        num_users = self.config["hyper_parameters.num_users"]
        fresh = FreshNegatives(rows, num_items, runner.resample_negatives, self.group_size, seed, num_users)
        file = self.run_directory.path / "rows" / f"{index}.txt"
        if self.proxy is None:
            return FreshRows(fresh, file)
        self.proxy.require_strangers(rows[:, 0], "the training shards")
        self._distilled = DistilledRows(fresh, self.proxy, num_users, num_items, seed)
        return FreshRows(self._distilled, file)

    def _open_dataset(self) -> Any:
        import paddle

        runner = self.config.runner
        in_memory = runner.reader_type == "InmemoryDataset"
        kind = paddle.distributed.InMemoryDataset if in_memory else paddle.distributed.QueueDataset
        dataset = kind()
        dataset.init(
            use_var=self._slots,
            pipe_command=self.reader.pipe(),
            batch_size=runner.train_batch_size,
            thread_num=runner.thread_num,
        )
        dataset.set_filelist([str(path) for path in self.job.train_shards[self.role.index]])
        if in_memory:
            dataset.load_into_memory()
        return dataset
