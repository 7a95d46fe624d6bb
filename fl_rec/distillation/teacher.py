"""The teacher of a federated distillation: a net of its own, trained in the coordinator's process by Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from fl_rec.config import Config
from fl_rec.distillation.proxy import LARGEST_LOGIT, Rows
from fl_rec.errors import DataError
from fl_rec.files import read_arrays, write_arrays
from fl_rec.nets import graph
from fl_rec.nets.contract import attribute, new_model
from fl_rec.nets.graph import dtype_of
from fl_rec.nets.losses import cross_entropy, logits_of


class Teacher:
    """A net that learns what the clients think of the proxy set.

    Args:
        config: the job's, with the teacher's own hyper-parameters.
        learning_rate: of Adam.
        label_weight: weight of the net's own loss, on the labels, beside the distance to the clients' probabilities.
        batch_size: rows of a step.
    """

    def __init__(self, config: Config, learning_rate: float, label_weight: float, batch_size: int) -> None:
        self._batch_size, self._learning_rate = batch_size, learning_rate
        self._seed = config.runner.seed
        graph.static_mode()
        self._program, startup = paddle.static.Program(), paddle.static.Program()
        self._program.random_seed = startup.random_seed = config.runner.seed
        with paddle.utils.unique_name.guard(), paddle.static.program_guard(self._program, startup):
            model = new_model(config)
            self._feeds = model.create_feeds()
            model.net(self._feeds)
            prediction = attribute(model, "inference_target_var", config.runner.model_path)
            cost = attribute(model, "_cost", config.runner.model_path)
            group = config.hyper_parameters.group_size or 1
            wanted = paddle.static.data("clients_probability", [-1, group], "float32")
            self._logits = logits_of(prediction)
            distance = cross_entropy(self._logits, wanted)
            self._infer = self._program.clone(for_test=True)
            optimizer = paddle.optimizer.Adam(learning_rate=learning_rate, lazy_mode=True)
            operators, _ = optimizer.minimize(distance + label_weight * cost)
            (self._rate,) = {op.input("LearningRate")[0] for op in operators if "LearningRate" in op.input_names}
        self._executor, self._scope = paddle.static.Executor(paddle.CPUPlace()), paddle.static.Scope()
        self._executor.run(startup, scope=self._scope)

    @property
    def parameters(self) -> int:
        """How many numbers it learns."""
        return sum(int(np.prod(each.shape)) for each in self._program.all_parameters())

    def train(
        self, rows: Rows, probabilities: np.ndarray, epochs: int, rate_factor: float = 1.0, round: int = 0
    ) -> None:
        """Passes over a round's rows.

        Args:
            rows: of the proxy set.
            probabilities: float [n, group], what the clients together think.
            epochs: how many.
            rate_factor: of the learning rate.
            round: by which the order is drawn, so that a teacher that goes on draws as one that never stopped.
        """
        rate = np.array([self._learning_rate * rate_factor], np.float32)
        self._tensor(self._rate).set(rate, paddle.CPUPlace())
        wanted, random = probabilities.astype(np.float32), np.random.default_rng([self._seed, round])
        for _ in range(epochs):
            order = random.permutation(len(rows.items))
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                feed = {**self._feed(rows, batch), "clients_probability": wanted[batch]}
                self._executor.run(self._program, feed=feed, scope=self._scope)

    def logits(self, rows: Rows) -> np.ndarray:
        """What it thinks of rows, float32 [n, group], at most `LARGEST_LOGIT` in size."""
        parts = []
        for start in range(0, len(rows.items), 4 * self._batch_size):
            batch = np.arange(start, min(start + 4 * self._batch_size, len(rows.items)))
            wanted = np.zeros(rows.items[batch].shape, np.float32)
            feed = {**self._feed(rows, batch), "clients_probability": wanted}
            (part,) = self._executor.run(self._infer, feed=feed, fetch_list=[self._logits.name], scope=self._scope)
            parts.append(np.asarray(part).reshape(wanted.shape))
        logits: np.ndarray = np.clip(np.concatenate(parts), -LARGEST_LOGIT, LARGEST_LOGIT)
        return logits

    def save(self, path: Path, round: int) -> None:
        """Writes what it has learned by a round, whole or not at all. OSError if that can't be done."""
        write_arrays(path, {"round": round, **{name: np.array(self._tensor(name)) for name in self._state()}})

    def load(self, path: Path) -> int:
        """Reads it back; returns the round.

        Raises:
            DataError: it can't be read, or is another net's.
        """
        rule = "A teacher that goes on must be readable."
        saved = read_arrays(path, rule)
        round = saved.pop("round", np.array([])).tolist()
        finite = all(each.dtype == np.float32 and np.isfinite(each).all() for each in saved.values())
        if not (isinstance(round, int) and round >= 0 and finite):
            raise DataError(f"{rule} Received: {path}, without its round or with values that are no finite float32.")
        for name in self._state():
            shape = self._tensor(name).shape()
            if name not in saved or list(saved[name].shape) != shape:
                found = f"of shape {list(saved[name].shape)}" if name in saved else "missing"
                raise DataError(
                    f"A teacher goes on as the net that it was. Received: {path}, in which {name} is {found}, and the "
                    f"teacher's is of shape {shape}. Leave coordinator.options.teacher as it was, or remove the file."
                )
            self._tensor(name).set(saved[name], paddle.CPUPlace())
        return round

    def _state(self) -> Sequence[str]:
        return sorted(each.name for each in self._program.list_vars() if each.persistable and each.name != self._rate)

    def _tensor(self, name: str) -> Any:
        return self._scope.find_var(name).get_tensor()

    def _feed(self, rows: Rows, batch: np.ndarray) -> dict[str, np.ndarray]:
        values = (rows.users[batch][:, None], rows.items[batch], rows.labels[batch])
        dtypes = [dtype_of(feed) for feed in self._feeds]
        return {feed.name: value.astype(dtype) for feed, value, dtype in zip(self._feeds, values, dtypes)}
