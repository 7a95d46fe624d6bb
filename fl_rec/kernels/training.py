"""The training of a net of a known `Structure` by compiled kernels, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fl_rec.kernels.arrays import LOSSES, arrays_of, ids
from fl_rec.kernels.compiled import load
from fl_rec.kernels.tiny import tiny_is_zero
from fl_rec.nets.structure import Structure


class Adam(NamedTuple):
    """Adam's constants, as Paddle has them: of float32."""

    beta1: float
    beta2: float
    epsilon: float


class Trained(NamedTuple):
    """A parameter with what its optimizer keeps of it; everything but `rate` is changed in place.

    Attributes:
        values: float32.
        rate: the step size.
        moments: Adam's two, float32 of the shape of `values`; none for SGD.
        powers: of Adam's betas, float32 [1] each.
    """

    values: np.ndarray
    rate: float
    moments: tuple[np.ndarray, ...] = ()
    powers: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Training:
    """How a net is trained.

    Args:
        loss: one of LOSSES.
        options: every option of the loss by name.
        l2: weight of the squares of what a row looks up, by the embedding's name.
        batch: rows of a step.
        adam: None for SGD.
    """

    structure: Structure
    loss: str
    options: Mapping[str, float]
    l2: Mapping[str, float]
    batch: int
    adam: Adam | None
    _kept: list[np.ndarray] = field(default_factory=list, init=False, repr=False, compare=False)

    @tiny_is_zero()
    def train(
        self,
        parameters: Mapping[str, Trained],
        rows: Sequence[np.ndarray],
        positives: np.ndarray,
        negatives: np.ndarray,
    ) -> float:
        """Trains rows in their order, in batches of which the last may be short.

        Args:
            parameters: all that the structure names.
            rows: users [rows, 1], items and labels [rows, group]; integers.
            positives, negatives: int64 [AUC_BUCKETS + 1], in which scores are counted.

        Returns:
            the sum over rows of their batch's mean loss, without that of `l2`; NaN if a score was not finite.

        Raises:
            DataError: an id is no row of an embedding; nothing is trained then.
        """
        users, items, labels = rows
        arrays = arrays_of(self.structure, {name: each.values for name, each in parameters.items()})
        user, item, mlp_user, mlp_item, bias = arrays.tables
        taken = (
            ids(users, (user, mlp_user), "users"),
            ids(items, (item, mlp_item, bias), "items"),
            np.ascontiguousarray(labels, np.uint8).reshape(-1),
            items.shape[1],
            min(self.batch, max(1, len(users))),
        )
        each = [None if name is None else parameters[name] for name in self._names()]
        rates = np.array([one.rate if one else 0 for one in each], np.float32)
        l2 = np.array([self.l2.get(name or "", 0.0) for name in self._names()[:5]], np.float32)
        sizes = (max(len(user), len(mlp_user)), max(len(item), len(mlp_item), len(bias)))
        if self.adam is None and self.structure.mlp is None and self.structure.prediction is None:
            some, room = [0, 1, 4], self._room(*sizes, 0)
            tables = (user, item, bias, rates[some], l2[some])
            return load("factorisation.train")(*taken, *tables, *self._loss(), *room, positives, negatives)
        held = [(one.values, *one.moments) if one else () for one in each]
        addresses = np.zeros((len(held), 3), np.int64)
        for row, parts in zip(addresses, held):
            row[: len(parts)] = [part.ctypes.data for part in parts]
        shapes = [table.shape for table in arrays.tables] + [(parts[0].size, 1) for parts in held[5:]]
        powers = np.array(
            [[power[0] for power in one.powers] if one and self.adam else [0, 0] for one in each], np.float32
        )
        total = load("net.train")(
            *taken,
            addresses,
            np.array(shapes, np.int64),
            rates,
            self.adam is not None,
            np.array(self.adam or (0, 0, 0), np.float32),
            powers,
            l2,
            arrays.dense,
            arrays.widths,
            *self._loss(),
            *self._room(*sizes, -1),
            positives,
            negatives,
        )
        for one, now in zip(each, powers):
            for power, value in zip(one.powers if one else (), now):
                power[0] = value
        return total

    def _names(self) -> list[str | None]:
        """All parameters in the order of the kernels."""
        return [*self.structure.tables.values(), *self.structure.dense]

    def _loss(self) -> tuple[int, np.ndarray]:
        options = [float(self.options[name]) for name in LOSSES[self.loss]]
        if self.loss == "sampled_softmax":
            options = [1 / options[0]]
        return list(LOSSES).index(self.loss), np.array([*options, 0, 0][:2], np.float32)

    def _room(self, users: int, items: int, value: int) -> list[np.ndarray]:
        """Two arrays, one number for each user and item, as a kernel has left them for the next call."""
        if [len(each) for each in self._kept] != [users, items]:
            self._kept[:] = [np.full(rows, value, np.int32) for rows in (users, items)]
        return self._kept
