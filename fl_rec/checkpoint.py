"""Saved models: the servers' tables, and the whole model for inference, which needs no fleet to load.

EPOCH/rec_static.pdmodel, .pdiparams   an inference model, as PaddleRec names it
EPOCH/tables/                          the servers' tables, as Paddle writes them
EPOCH/model.json                       feeds, versions, figures and configuration
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import numpy as np
import paddle

from fl_rec.errors import DataError, RunError

PREFIX = "rec_static"
SIGNATURE = "model.json"


@dataclass(frozen=True)
class InferenceNet:
    """A pruned program that scores, and the parameters it scores with.

    Attributes:
        program: the program, from feeds to scores.
        feeds: names of its inputs, the user's id first.
        target: the scores, float32 [rows, 1].
        scope: its parameters.
        executor: kept, since each new one would leave its temporary tensors in the scope.
    """

    program: paddle.static.Program
    feeds: tuple[str, ...]
    target: Any
    scope: Any
    executor: Any = field(default_factory=lambda: paddle.static.Executor(paddle.CPUPlace()), repr=False)

    def predict(self, inputs: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
        """Scores rows.

        Args:
            inputs: one array [rows, width] per feed, in the feeds' order.
            batch_size: rows per run of the program.

        Returns:
            float32 [rows].
        """
        variables = [self.program.global_block().var(name) for name in self.feeds]
        dtypes = [paddle.base.data_feeder.convert_dtype(variable.dtype) for variable in variables]
        rows = len(inputs[0])
        scores = np.empty(rows, np.float32)
        for start in range(0, rows, batch_size):
            batch = slice(start, min(start + batch_size, rows))
            feed = {
                name: values[batch].astype(dtype, copy=False) for name, values, dtype in zip(self.feeds, inputs, dtypes)
            }
            (score,) = self.executor.run(self.program, feed=feed, fetch_list=[self.target], scope=self.scope)
            scores[batch] = np.asarray(score).reshape(-1)
        return scores


def save(net: InferenceNet, folder: Path, signature: Mapping[str, Any], save_tables: Callable[[Path], None]) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        folder: the epoch's folder; a checkpoint that is there is replaced.
        signature: what goes into model.json besides the feeds.
        save_tables: writes the servers' tables into the folder it is given.

    Raises:
        RunError: if the folder can't be written.
    """
    draft = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_tables(draft / "tables")
        block = net.program.global_block()
        executor = paddle.static.Executor(paddle.CPUPlace())
        with paddle.static.scope_guard(net.scope):
            paddle.static.save_inference_model(
                str(draft / PREFIX),
                [block.var(name) for name in net.feeds],
                [net.target],
                executor,
                program=net.program,
            )
        content = {"feeds": list(net.feeds), "paddle": paddle.__version__, **signature}
        (draft / SIGNATURE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    except OSError as err:
        raise RunError(
            f"The model must be saved, and {folder} can't be written ({err.strerror or err}). Free some space or name "
            "another runner.model_save_path."
        ) from err


def load(folder: Path) -> InferenceNet:
    """Reads a checkpoint's model for inference, in any process.

    Raises:
        DataError: if the folder holds none.
    """
    if not (folder / f"{PREFIX}.pdmodel").is_file():
        raise DataError(f"A saved model has {PREFIX}.pdmodel in its folder. Received: {folder}, which has not.")
    scope = paddle.base.core.Scope()
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(scope):
        program, feeds, (target,) = paddle.static.load_inference_model(str(folder / PREFIX), executor)
    return InferenceNet(program, tuple(feeds), target, scope)


def load_parameters(folder: Path, names: Sequence[str], scope: Any) -> None:
    """Copies a checkpoint's parameters of these names into a scope, as a warm start.

    Raises:
        DataError: if one is missing there, or has another shape.
    """
    saved = load(folder).scope
    for name in names:
        source, target = saved.find_var(name), scope.find_var(name).get_tensor()
        if source is None:
            raise DataError(f"A warm start needs every parameter of the net. Missing in {folder}: {name}.")
        value = np.array(source.get_tensor())
        if list(value.shape) != list(target.shape()):
            raise DataError(
                f"A warm start needs parameters of the net's own shapes. Received: {name} of {list(value.shape)} in "
                f"{folder}, and the net has {list(target.shape())}. Check num_users, num_items, mf_dim and fc_layers."
            )
        target.set(value, paddle.CPUPlace())
