"""Embeddings of 8 or 4 bits, and dense layers with zeros, in an ordinary inference model.

The numbers stay small on disk and in memory: a program looks up rows of bytes, and computes with its own operators
(`cast`, `floor`, `scale`, ...) what they stand for, only of the rows that it has looked up. So whatever loads an
inference model of Paddle, `fl_rec.runs.models.load` for one, needs to know nothing of it.

Neither of Paddle's own ways does this. `paddle.static.quantization.WeightQuantization` takes convolutions and matrix
products only. PaddleSlim's `quant_embedding` (2.6.0, of January 2024, is its last release) has one scale for a whole
table and no less than 8 bits, and its package brings opencv-python==4.6.0.66, pyzmq, swig and others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_rec.errors import DataError
from fl_rec.nets import graph

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet


BITS = (8, 4)


# What is tried of a row's largest value as the end of 4 bits' range.
_CLIPPING = np.linspace(1.0, 0.4, 25)


# About what the operators that restore a matrix take in the file of a program.
_OPERATORS = 1500


@dataclass(frozen=True)
class Quantised:
    """A table in few bits: whole numbers, times one scale for each row.

    8 bits: -127 to 127. 4 bits: -7.5, -6.5, ..., 7.5, with column k in the low half of byte k and column
    k + ceil(width / 2) in the high half, as 16 * high + low with high from -8 to 7 and low from 0 to 15.

    Attributes:
        codes: int8 [rows, width], or [rows, ceil(width / 2)] with 4 bits.
        scales: float32 [rows, 1]; 0 for a row of zeros.
    """

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    width: int

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.codes.nbytes + self.scales.nbytes)

    def restore(self) -> np.ndarray:
        """What it stands for, float32 [rows, width]."""
        levels = self.codes.astype(np.float32)
        if self.bits == 4:
            high = np.floor(levels / 16)
            levels = np.concatenate([levels - 16 * high - 7.5, high + 0.5], axis=1)[:, : self.width]
        restored: np.ndarray = levels * self.scales
        return restored


def quantise(values: np.ndarray, bits: int) -> Quantised:
    """A table in 8 or 4 bits.

    8 bits: the largest value of a row is 127. 4 bits: the end of the range is what has the smallest squared error of
    the row, values beyond it being clipped.

    Args:
        values: float32 [rows, width], finite.
        bits: 8 or 4.
    """
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    # Of rows with a largest value of 1, so that no square of a difference is too large, or too small, for float32.
    rows, width = values / np.where(largest > 0, largest, np.float32(1)), values.shape[1]
    if bits == 8:
        return Quantised(np.rint(rows * 127).astype(np.int8), largest / np.float32(127), bits, width)
    levels = np.zeros(values.shape, np.int8)
    steps = np.zeros(largest.shape, np.float32)
    errors = np.full(largest.shape, np.inf, np.float32)
    for part in _CLIPPING:
        step = np.float32(part / 7.5)
        tried = np.clip(np.floor(rows / step), -8, 7)
        error = np.square((tried + 0.5) * step - rows).sum(axis=1, keepdims=True)
        better = error < errors
        levels = np.where(better, tried.astype(np.int8), levels)
        steps, errors = np.where(better, step, steps), np.where(better, error, errors)
    low, high = levels[:, : (width + 1) // 2], levels[:, (width + 1) // 2 :]
    high = np.pad(high, ((0, 0), (0, low.shape[1] - high.shape[1])))
    return Quantised((16 * high.astype(np.int16) + low + 8).astype(np.int8), largest * steps, bits, width)


def prune(matrix: np.ndarray, share: float) -> np.ndarray:
    """A copy of a matrix with its smallest weights set to 0, that share of them, rounded to whole weights."""
    flat: np.ndarray = matrix.reshape(-1).copy()
    flat[np.argsort(np.abs(flat), kind="stable")[: round(share * len(flat))]] = 0
    return flat.reshape(matrix.shape)


@dataclass(frozen=True)
class Sparse:
    """A matrix by its weights that are not 0.

    Attributes:
        steps: uint8 [n], how far each weight is from the one before, in the order of rows.
        weights: float32 [n], the first of them that of place 0; a 0 where the next is further away than a step can say.
        shape: of the matrix.
    """

    steps: np.ndarray
    weights: np.ndarray
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.steps.nbytes + self.weights.nbytes)

    def restore(self) -> np.ndarray:
        """The matrix, float32."""
        flat: np.ndarray = np.zeros(int(np.prod(self.shape)), np.float32)
        flat[np.cumsum(self.steps, dtype=np.int64)] = self.weights
        return flat.reshape(self.shape)

    @classmethod
    def of(cls, matrix: np.ndarray) -> Sparse:
        """The weights of a float32 matrix of any shape."""
        flat = matrix.reshape(-1)
        places, at = [0], 0  # one place at least: operators take no empty arrays
        for place in (np.flatnonzero(flat[1:]) + 1).tolist():
            places += [*range(at + 255, place, 255), place]
            at = place
        steps = np.diff(np.array(places, np.int64), prepend=0)
        return cls(steps.astype(np.uint8), flat[places], matrix.shape)


def split(net: InferenceNet) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A net's embeddings, of which rows are looked up and nothing else; and its dense layers' matrices.

    Both are float32 with two dimensions; a parameter of another kind is in neither.

    Raises:
        DataError: a parameter is not finite, or the net is compressed already.
    """
    from fl_rec.nets.inference import parameters

    values = parameters(net)
    if any(each.dtype == np.int8 for each in values.values()):
        raise DataError(
            "A model is compressed once, from float32. Received: one with embeddings of 8 or 4 bits. "
            "Compress the model that this one was made of."
        )
    for name, each in values.items():
        if not np.isfinite(each).all():
            raise DataError(
                f"What is compressed must be finite. Received: {name} with {np.count_nonzero(~np.isfinite(each)):,} "
                "weights that are not. Train with a lower learning rate, or take an earlier epoch."
            )
    looked_up, used = graph.looked_up(net.program).keys(), graph.used_otherwise(net.program)
    plain = {name: each for name, each in values.items() if each.dtype == np.float32 and each.ndim == 2}
    tables = {name: each for name, each in plain.items() if name in looked_up - used}
    return tables, {name: each for name, each in plain.items() if name not in looked_up}


def quantise_net(net: InferenceNet, bits: int) -> InferenceNet:
    """A net that scores as `net`, with its embeddings in few bits and its matrices by their weights that are not 0.

    What would not be smaller so stays as it is: an embedding of width 1, a matrix with few zeros.

    Raises:
        DataError: see `split`.
    """
    import paddle

    from fl_rec.nets.inference import InferenceNet

    tables, matrices = split(net)
    program, scope = net.program.clone(), paddle.static.Scope()
    from fl_rec.nets.inference import parameters

    kept = parameters(net)
    new: dict[str, np.ndarray] = {}
    for name, values in tables.items():
        small = quantise(values, bits)
        if small.nbytes < values.nbytes:
            _replace_look_ups(program, name, small)
            new.update({f"{name}.codes": small.codes, f"{name}.scales": small.scales})
            del kept[name]
    for name, values in matrices.items():
        sparse = Sparse.of(values)
        if sparse.nbytes + _OPERATORS < values.nbytes:
            _restore_matrix(program, name, sparse)
            new.update({f"{name}.steps": sparse.steps, f"{name}.weights": sparse.weights})
            del kept[name]
    for name, values in {**kept, **new}.items():
        scope.var(name).get_tensor().set(values, paddle.CPUPlace())
    return InferenceNet(program, net.feeds, program.global_block().var(net.target.name), scope)


def _replace_look_ups(program: Any, name: str, table: Quantised) -> None:
    """Has every look-up in a table look up codes and scales, and compute the rows from them."""
    for writer, look_up, ids, rows in graph.take_out_look_ups(program, name):
        # A row that is only padding has a scale of 0 as well.
        padding: dict[str, Any] = {"padding_idx": look_up.padding}
        codes = writer.persistent(f"{name}.codes", table.codes)
        scales = writer.persistent(f"{name}.scales", table.scales)
        levels = writer.cast(writer.add(look_up.kind, {"W": codes, "Ids": ids}, "int8", **padding), "int8", "float32")
        if table.bits == 4:
            high = writer.add("floor", {"X": writer.add("scale", {"X": levels}, scale=1 / 16)})
            rest = writer.add("scale", {"X": high}, scale=16.0, bias=7.5)
            low = writer.add("elementwise_sub", {"X": levels, "Y": rest}, axis=-1)
            high = writer.add("scale", {"X": high}, scale=1.0, bias=0.5)
            axis = len(rows.shape) - 1
            levels = writer.add("concat", {"X": [low, high]}, axis=axis)
            if table.width % 2:
                levels = writer.add("slice", {"Input": levels}, axes=[axis], starts=[0], ends=[table.width])
        scale = writer.add(look_up.kind, {"W": scales, "Ids": ids}, **padding)
        writer.add("elementwise_mul", {"X": levels, "Y": scale}, into=rows, axis=-1)


def _restore_matrix(program: Any, name: str, matrix: Sparse) -> None:
    """Has a matrix computed from its weights before it is used for the first time."""
    writer, whole = graph.compute_before_use(program, name, matrix.shape)
    steps = writer.persistent(f"{name}.steps", matrix.steps)
    weights = writer.persistent(f"{name}.weights", matrix.weights)
    places = writer.add("cumsum", {"X": writer.cast(steps, "uint8", "int64")}, "int64", axis=0)
    zeros = writer.zeros(int(np.prod(matrix.shape)))
    flat = writer.add("scatter", {"X": zeros, "Ids": places, "Updates": weights}, overwrite=True)
    writer.add("reshape2", {"X": flat}, into=whole, shape=list(matrix.shape))
