"""The training program: a net with its loss, penalties and optimizer, and what it counts over an epoch.

Paddle is imported when a program is built.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fl_rec.config import Config
from fl_rec.errors import ConfigError, Diverged, RunError
from fl_rec.nets import graph
from fl_rec.nets.contract import attribute, new_model
from fl_rec.nets.penalties import add_penalties
from fl_rec.nets.tensors import persistent

# Variables that add up over an epoch.
LOSS_SUM, ROWS = "fl_rec_loss_sum", "fl_rec_rows"


class Counted(NamedTuple):
    """What was trained since `TrainingProgram.begin_epoch`.

    Attributes:
        rows: rows of batches.
        loss_sum: sum over rows of the net's own loss.
        positives, negatives: int64 [AUC_BUCKETS + 1], items by their score.
    """

    rows: int
    loss_sum: float
    positives: np.ndarray
    negatives: np.ndarray


def scheduled(schedule: str, epochs_done: float, epochs: int) -> float:
    """What the learning rate is multiplied with by `hyper_parameters.optimizer.schedule`.

    Args:
        schedule: "constant", or "linear", which falls from 1 to 0 at the last epoch's end.
        epochs_done: how far training is, in epochs.
        epochs: of the whole training.
    """
    return max(0.0, 1 - epochs_done / epochs) if schedule == "linear" else 1.0


def diverged(received: str) -> Diverged:
    """The error of a training whose scores are no numbers any more."""
    return Diverged(
        f"Training must keep scores finite, and this one diverged. Received: {received}. Lower the learning rate "
        "(hyper_parameters.optimizer.learning_rate), or see whether the exchange diverges."
    )


class TrainingProgram:
    """A net's training program in Paddle's default program; built by server and worker alike, run by workers.

    Make it, and call `add_penalties`, whatever adds to `cost`, and `minimise`, all within one
    `paddle.utils.unique_name.guard()`. A worker then calls `initialise`, and may train.

    Args:
        config: with every size filled in.

    Attributes:
        model: the user's StaticModel.
        feeds: the net's inputs, the user's id first and the label last.
        slots: what a training row's text holds: the feeds, and what else was added.
        fetches: what the net shows of its training, by name.
        cost: the loss to minimise.
        prediction: float32 [batch, group], from 0 to 1.
        group_size: items of a row.
        statistics: names of the variables that count, after `minimise`.
        scope, executor: after `initialise`.

    Raises:
        ConfigError: the net breaks its contract.
    """

    def __init__(self, config: Config) -> None:
        import paddle

        self._config = config
        path = config.runner.model_path
        paddle.seed(config.runner.seed)
        self.model = new_model(config)
        self.feeds = list(self.model.create_feeds())
        self.slots = list(self.feeds)
        self.fetches = dict(self.model.net(self.feeds))
        self.cost = self._loss = attribute(self.model, "_cost", path)
        self.prediction = attribute(self.model, "inference_target_var", path)
        self.group_size = config.hyper_parameters.group_size or 1
        self._require_group_size()
        self._penalised = self.cost
        self._anchors: Mapping[str, str] = {}
        self._masks: Mapping[str, str] = {}
        # What of the scope is an epoch's figures.
        self.statistics: tuple[str, ...] = ()

    def _require_group_size(self) -> None:
        """The net's rows must be the data's."""
        widths = sorted({int(feed.shape[-1]) for feed in self.feeds[1:]})
        if self.group_size > 1 and widths != [self.group_size]:
            raise ConfigError(
                f"hyper_parameters.group_size={self.group_size} has each training row hold {self.group_size} items and "
                f"as many labels, and the net's feeds must do so too. Received: feeds of widths {widths} from "
                f"{self._config.runner.model_path}. Set hyper_parameters.group_size=1, or have create_feeds read it."
            )

    @property
    def main(self) -> Any:
        """Paddle's program; fleet's optimizer puts another in its place."""
        return self._loss.block.program

    @property
    def names(self) -> list[str]:
        """Those of all parameters."""
        return [parameter.name for parameter in self.main.all_parameters()]

    @property
    def extended(self) -> bool:
        """Whether somebody has added to the loss since `add_penalties`."""
        return self.cost is not self._penalised

    # -- building ----------------------------------------------------------------------------------------------

    def add_penalties(self, shared: Collection[str]) -> None:
        """Adds L2, the proximal term and the masks of `runner.keep_zeros`, as they are configured.

        Args:
            shared: names of the parameters that are exchanged with others.
        """
        hyper = self._config.hyper_parameters
        self.cost, self._anchors = add_penalties(self.cost, hyper.l2, hyper.proximal, shared)
        self._penalised = self.cost
        if self._config.runner.keep_zeros:
            self._masks = graph.keep_zeros(self.main)

    def minimise(self, strategy: Any, counts: bool) -> None:
        """Adds the model's optimizer.

        Args:
            strategy: fleet's; None for training outside of fleet.
            counts: whether this process trains, and counts rows, losses and scores.
        """
        import paddle

        if counts:
            graph.count_auc(self.prediction, self.feeds[-1])
        self.model._cost = self.cost
        self.model.create_optimizer(strategy)
        self._startup = paddle.static.default_startup_program()
        if not counts:
            return
        with paddle.static.program_guard(self.main, self._startup):
            rows = paddle.cast(paddle.shape(self.feeds[-1])[:1], "float64")
            # The loss of a batch is a mean, and the last batch is short: its mean counts for fewer rows.
            graph.add_up(LOSS_SUM, rows * paddle.cast(self._loss, "float64"))
            graph.add_up(ROWS, rows)
        self.statistics = (LOSS_SUM, ROWS, *(graph.auc_statistics(self.main) or ()))

    # -- training ----------------------------------------------------------------------------------------------

    def initialise(self, feed: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """Gives the parameters their first values.

        Args:
            feed: see `graph.keep_rows`.
        """
        import paddle

        self.executor = paddle.static.Executor(paddle.CPUPlace())
        self.scope = paddle.static.global_scope()
        self.executor.run(self._startup, feed=dict(feed))
        self._rates = {name: float(self.value(name).reshape(-1)[0]) for name in graph.learning_rates(self.main)}

    def value(self, name: str) -> np.ndarray:
        """A copy of a parameter or another variable that persists."""
        return np.array(self.scope.find_var(name).get_tensor())

    def set_value(self, name: str, values: np.ndarray) -> None:
        """Replaces it by values of its shape and dtype; where `runner.keep_zeros` is set, zeros stay zeros."""
        import paddle

        self.scope.find_var(name).get_tensor().set(values, paddle.CPUPlace())
        if name in self._masks:
            self.set_value(self._masks[name], (values != 0).astype(values.dtype))

    @property
    def kept(self) -> list[str]:
        """What training goes on from: parameters, what their optimizers keep, and what the net itself does."""
        others = {*self.statistics, *self._rates, *self._anchors.values(), *self._masks.values()}
        return [name for name in persistent(self.main) if name not in others and not name.endswith("@GRAD")]

    def restore(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets variables of `kept` to what they were, of their shape and dtype; masks stay as they are."""
        for name, each in values.items():
            graph.live(self.scope, name)[...] = each

    def predict(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """What the net scores, float32 [rows, group]; nothing is trained.

        Args:
            rows: integers, one array [rows, width] for each feed but the last, the labels.
        """
        import paddle

        inputs = self.feeds[:-1]
        with warnings.catch_warnings():
            # That the AUC's counts are not 0, of which the pruned program has none.
            warnings.simplefilter("ignore")
            pruned = paddle.static.normalize_program(self.main, inputs, [self.prediction])
        feed = {each.name: values.astype(graph.dtype_of(each)) for each, values in zip(inputs, rows)}
        target = pruned.global_block().var(self.prediction.name)
        (scores,) = self.executor.run(pruned, feed=feed, fetch_list=[target], scope=self.scope)
        return np.asarray(scores)

    @contextmanager
    def scores_watched(self, title: str) -> Iterator[None]:
        """While the program runs: scores that are no numbers are one error, and not forty lines of Paddle's stack.

        Args:
            title: what is trained.

        Raises:
            Diverged: scores are NaN.
        """
        try:
            yield
        except Exception as err:
            # Of the auc operator: "Expected predict_data <= 1, but received predict_data:-nan > 1:1."
            if re.search(r"predict_data:-?nan", str(err)):
                raise diverged(f"scores that are NaN in {title}") from err
            raise

    def begin_epoch(self) -> None:
        """Starts counting anew."""
        for name in self.statistics:
            self.set_value(name, np.zeros_like(self.value(name)))

    def begin_portion(self, epochs_done: float, factor: float) -> None:
        """Before the rows between two exchanges: the optimizers' step size, and what the proximal term holds on to.

        Args:
            epochs_done: how far training is, in epochs.
            factor: of the learning rate, besides the configured schedule.
        """
        runner, optimizer = self._config.runner, self._config.hyper_parameters.optimizer
        factor *= scheduled(optimizer.schedule, epochs_done, runner.epochs)
        for name, rate in self._rates.items():
            self.set_value(name, np.full_like(self.value(name), rate * factor))
        for name, anchor in self._anchors.items():
            self.set_value(anchor, self.value(name))
        self._before = {name: self.value(name) for name in self.statistics}

    def uncount_portion(self) -> None:
        """Takes out of the statistics what was counted since `begin_portion`."""
        for name, values in self._before.items():
            self.set_value(name, values)

    def counted(self) -> Counted:
        """What was trained since `begin_epoch`.

        Raises:
            RunError: the net writes to the statistics of its AUC.
        """
        loss_sum, rows, positives, negatives = (self.value(name).reshape(-1) for name in self.statistics)
        counted, items = int(positives.sum() + negatives.sum()), int(rows[0]) * self.group_size
        if counted != items:
            raise RunError(
                f"The AUC of an epoch counts each item of its rows once. Received: {counted:,} counts for "
                f"{int(rows[0]):,} rows of {self.group_size}. The net must not write to the statistics of its auc "
                "operator."
            )
        return Counted(int(rows[0]), float(loss_sum[0]), positives, negatives)
