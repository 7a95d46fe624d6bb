"""The step by compiled kernels, in the memory in which Paddle's scope has parameters, moments and statistics.

What it does is what the graph does, but for the rounding of float32, so that either can go on where the other ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fl_rec import kernels
from fl_rec.config import Config
from fl_rec.data.rows import Rows
from fl_rec.kernels.training import Adam, Trained, Training
from fl_rec.nets import graph
from fl_rec.nets.losses import find_loss
from fl_rec.nets.penalties import weight_of
from fl_rec.nets.program import TrainingProgram, diverged
from fl_rec.nets.structure import Structure
from fl_rec.runs import activity
from fl_rec.steps.base import LocalStep

# Batches after which it is told how far training is.
_TOLD_EVERY = 100


class Receiver(Protocol):
    """Of an exchange, what a step outside of Paddle's program has to know; see `fl_rec.ps.exchange.Exchange`."""

    send_every: int

    def changed(self, rows: Mapping[str, np.ndarray]) -> None: ...


def obstacles_of(program: TrainingProgram, structure: Structure, exchange: Receiver) -> list[str]:
    """What of a program stands in the compiled step's way, in words.

    Args:
        program: initialised.
        structure: what its net says of itself.
    """
    found = []
    if len(program.slots) != 3:
        found.append(f"the net has {len(program.slots)} feeds, not a user, items and labels")
    if program.extended:
        found.append("more was added to the loss than hyper_parameters.l2")
    if "send" in graph.operators(program.main) and not exchange.send_every:
        found.append("the exchange sends gradients, batch by batch")
    optimizers, tables = graph.optimizers(program.main), set(filter(None, structure.tables.values()))
    for name, one in optimizers.items():
        if one.kind not in ("sgd", "adam"):
            found.append(f"{name} is trained by {one.kind}")
        elif not one.plain:
            found.append(f"the gradient of {name} is clipped or regularised")
        elif one.kind == "adam" and name in tables and not (one.sparse and one.attributes["lazy_mode"]):
            found.append(f"Adam changes all rows of {name} in each step")
    if len({(one.kind, _adam(one)) for one in optimizers.values()}) != 1:
        found.append("the net's parameters have different optimizers")
    if strange := sorted({*program.names, *optimizers} ^ structure.names):
        found.append(f"structure() names other parameters than the net trains: {', '.join(strange)}")
    return found or _misdescribed(program, structure)


def _misdescribed(program: TrainingProgram, structure: Structure) -> list[str]:
    """Compares a few scores: a net that is not what it says would be trained to something else without a word."""
    values = {name: graph.live(program.scope, name) for name in structure.names}
    rng = np.random.default_rng(0)
    users, items = (
        min(len(values[name]) for part, name in structure.tables.items() if name and kind in part)
        for kind in ("user", "item")
    )
    rows = rng.integers(users, size=(16, 1)), rng.integers(items, size=(16, program.group_size))
    with np.errstate(all="ignore"):
        gap = np.abs(kernels.score(structure, values, *rows) - program.predict(rows)).max()
    # NaN is none of the structure's faults.
    return [f"the net scores otherwise than its structure() says, by {gap:.2g}"] if gap > 1e-5 else []


def _adam(one: graph.Optimizer) -> Adam | None:
    return Adam(*(one.attributes[name] for name in Adam._fields)) if one.kind == "adam" else None


class CompiledStep(LocalStep):
    """Trains in place, by `fl_rec.kernels`.

    Args:
        config: with every size filled in.
        program: initialised, and without obstacles.
        structure: its net's.
        exchange: is told what was trained, every so many batches.
    """

    name = "compiled"

    def __init__(self, config: Config, program: TrainingProgram, structure: Structure, exchange: Receiver) -> None:
        runner, loss = config.runner, find_loss(config)
        self.structure = structure
        self._program, self._exchange, self._tables = program, exchange, structure.tables
        self._optimizers = graph.optimizers(program.main)
        l2 = {name: weight_of(name, config.hyper_parameters.l2) for name in filter(None, structure.tables.values())}
        adam = _adam(next(iter(self._optimizers.values())))
        self._training = Training(structure, loss.name, loss.options, l2, runner.train_batch_size, adam)
        self._every = exchange.send_every or min(_TOLD_EVERY, runner.print_interval)
        self._print_interval = runner.print_interval
        self._batches = 0

    def train(self, rows: Rows, title: str) -> None:
        size = self._training.batch
        for start in range(0, len(rows[0]), self._every * size):
            part = tuple(each[start : start + self._every * size] for each in rows)
            loss_sum, count, positives, negatives = self._live(self._program.statistics)
            loss = self._training.train(self._parameters(), part, positives, negatives)
            if not np.isfinite(loss):
                raise diverged(f"a loss of {loss} within {len(part[0]):,} rows of {title}")
            loss_sum += loss
            count += len(part[0])
            activity.trained(len(part[0]))
            if self._exchange.send_every:
                self._exchange.changed(self._changed(part))
            before, self._batches = self._batches, self._batches + -(-len(part[0]) // size)
            if self._batches // self._print_interval > before // self._print_interval:
                print(f"{title} batch {self._batches} loss {loss / len(part[0]):.6f}", flush=True)

    def _live(self, names: tuple[str, ...]) -> list[np.ndarray]:
        return [graph.live(self._program.scope, name).reshape(-1) for name in names]

    def _parameters(self) -> dict[str, Trained]:
        """Where a net's parameters and its optimizers' variables are now."""
        scope, found = self._program.scope, {}
        for name, one in self._optimizers.items():
            (rate,) = self._live((one.rate,))
            moments = [graph.live(scope, one.state[each]) for each in ("Moment1", "Moment2") if each in one.state]
            powers = self._live(tuple(one.state[each] for each in ("Beta1Pow", "Beta2Pow") if each in one.state))
            found[name] = Trained(graph.live(scope, name), float(rate[0]), tuple(moments), tuple(powers))
        return found

    def _changed(self, rows: Rows) -> dict[str, np.ndarray]:
        """Of each embedding the numbers of the rows that were looked up."""
        users, items = (np.flatnonzero(np.bincount(each.reshape(-1))) for each in rows[:2])
        return {name: users if "user" in part else items for part, name in self._tables.items() if name is not None}
