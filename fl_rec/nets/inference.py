"""A net that scores: a pruned program and its parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle

from fl_rec.config import Config
from fl_rec.errors import ConfigError, DataError
from fl_rec.nets import graph, operators
from fl_rec.nets.contract import attribute, new_model
from fl_rec.nets.own_users import ALL_USERS, AllUsers
from fl_rec.nets.program import TrainingProgram
from fl_rec.nets.structure import Structure
from fl_rec.nets.tensors import persistent


@dataclass(frozen=True)
class InferenceNet:
    """A pruned program that scores, and the parameters it scores with.

    Attributes:
        program: the program, from feeds to scores.
        feeds: names of its inputs, the user's id first.
        target: the scores, float32 [rows, 1].
        scope: its parameters.
        structure: what compiled kernels score it by; None if Paddle does.
        users: who have rows in it.
        source: the file that it was read from, which may be anybody's; None for a net of this process's own.
        executor: kept, since each new one would leave its temporary tensors in the scope.
    """

    program: paddle.static.Program
    feeds: tuple[str, ...]
    target: Any
    scope: Any
    structure: Structure | None = None
    users: AllUsers = ALL_USERS
    source: Path | None = None
    executor: Any = field(default_factory=lambda: paddle.static.Executor(paddle.CPUPlace()), repr=False)

    def predict(self, inputs: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
        """Scores rows.

        Args:
            inputs: one array [rows, width] per feed, in the feeds' order; users by the data's ids.
            batch_size: rows per run of the program.

        Returns:
            float32 [rows].

        Raises:
            DataError: a user has no row in it, or it comes from a file and does not compute.
        """
        inputs = [self.users.places(inputs[0]), *inputs[1:]]
        dtypes = [self.dtype(name) for name in self.feeds]
        rows = len(inputs[0])
        scores = np.empty(rows, np.float32)
        for start in range(0, rows, batch_size):
            batch = slice(start, min(start + batch_size, rows))
            feed: dict[str, np.ndarray] = {
                name: values[batch].astype(dtype, copy=False) for name, values, dtype in zip(self.feeds, inputs, dtypes)
            }
            try:
                (score,) = self.executor.run(self.program, feed=feed, fetch_list=[self.target], scope=self.scope)
                scores[batch] = np.asarray(score).reshape(-1)
            except Exception as err:
                if self.source is None:
                    raise
                raise DataError(
                    f"A saved model must give each row a score. Received: {self.source} ({in_short(err)}). Copy it "
                    "again, or export it again."
                ) from err
        return scores

    @cached_property
    def model(self) -> bytes:
        """The program as a saved model has it."""
        return graph.model_bytes(self.program, self.feeds, self.target, self.users.tables)

    def dtype(self, name: str) -> str:
        """That of an input or the output, as numpy names it."""
        return graph.dtype_of(self.program.global_block().var(name))

    def parameter(self, name: str) -> np.ndarray:
        """A copy of a parameter, float32."""
        return np.array(self.scope.find_var(name).get_tensor())

    def views(self, names: Collection[str]) -> dict[str, np.ndarray]:
        """Parameters in their place, until one is set."""
        return {name: graph.live(self.scope, name) for name in names}

    def set_parameter(self, name: str, values: np.ndarray) -> None:
        """Replaces a parameter by values of its shape."""
        self.scope.find_var(name).get_tensor().set(values.astype(np.float32, copy=False), paddle.CPUPlace())


def in_short(err: Exception) -> str:
    """Of Paddle's errors, which begin with a stack, the last line."""
    return (str(err).strip().splitlines() or [repr(err)])[-1].strip()


def parameters(net: InferenceNet) -> dict[str, np.ndarray]:
    """Copies of a net's parameters, by name."""
    return {name: net.parameter(name) for name in persistent(net.program)}


class ScoringProgram(NamedTuple):
    """The net of a training program as it scores.

    Attributes:
        program: pruned, from feeds to scores.
        startup: gives its parameters values.
        feeds: names of its inputs, the user's id first.
        target: name of the scores.
    """

    program: paddle.static.Program
    startup: paddle.static.Program
    feeds: tuple[str, ...]
    target: str

    def net(self, users: AllUsers = ALL_USERS, structure: Structure | None = None) -> InferenceNet:
        """The net, its parameters as they are initialised; for the arguments see `InferenceNet`."""
        scope = paddle.static.Scope()
        paddle.static.Executor(paddle.CPUPlace()).run(self.startup, scope=scope)
        target = self.program.global_block().var(self.target)
        return InferenceNet(self.program, self.feeds, target, scope, structure, users)


def scoring_program(config: Config, trained: TrainingProgram) -> ScoringProgram:
    """The net of a training program as it scores.

    Args:
        config: with every size filled in.
        trained: built with the same configuration, from names counted from 0.

    Raises:
        ConfigError: its `infer_net` has other parameters than its `net`.
    """
    program, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, startup):
        model = new_model(config)
        feeds = model.create_feeds(is_infer=True)
        model.infer_net(feeds)
        target = attribute(model, "inference_target_var", config.runner.model_path)
    strange = sorted({parameter.name for parameter in program.all_parameters()} - set(trained.names))
    if strange:
        raise ConfigError(
            f"{config.runner.model_path}: infer_net must create its parameters in the order in which net "
            f"does, so that they get the same names. Received: {', '.join(strange)}, which net has not."
        )
    # Some nets of PaddleRec leave the label out here, others have it.
    inputs = [feed for feed in feeds if feed.name != trained.feeds[-1].name]
    pruned = paddle.static.normalize_program(program, inputs, [target])
    if other := operators.others(pruned):
        raise ConfigError(
            f"{config.runner.model_path}: infer_net must compute scores and do nothing else, since whoever gets the "
            f"saved model runs it. Received: the operator {other[0]}, which is none of fl_rec/nets/operators.py. "
            "Write it with others."
        )
    return ScoringProgram(pruned, startup, tuple(feed.name for feed in inputs), target.name)
