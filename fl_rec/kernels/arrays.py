"""From a net's parameters by name to what its kernels are given."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fl_rec.errors import DataError
from fl_rec.nets.structure import Structure

# As kernels are told a loss: by its place here, with its options in their order.
LOSSES: Mapping[str, Sequence[str]] = {
    "log_loss": (),
    "label_smoothing": ("smoothing",),
    "focal": ("gamma", "alpha"),
    "bpr": (),
    "sampled_softmax": ("temperature",),
}


class Arrays(NamedTuple):
    """A net's parameters in the order of the kernels.

    Attributes:
        tables: user, item, mlp_user, mlp_item, bias, float32 [rows, width]; of width 0 where the net has none.
        widths: those of the fully connected layers, int64, the two embeddings of `mlp` first; [0] without any.
        dense: float32, the layers' weights and biases one behind another, the predicting layer's last. A net without
            one has one here that adds up.
    """

    tables: tuple[np.ndarray, ...]
    widths: np.ndarray
    dense: np.ndarray


def arrays_of(structure: Structure, parameters: Mapping[str, np.ndarray]) -> Arrays:
    """The parameters of a net; the tables are not copied.

    Raises:
        DataError: their shapes are not those of such a net.
    """
    nothing = np.zeros((1, 0), np.float32)
    tables = {part: nothing if name is None else parameters[name] for part, name in structure.tables.items()}
    dense = [parameters[name] for name in structure.dense]
    width, half = tables["user"].shape[1], tables["mlp_user"].shape[1]
    widths = [2 * half, *(weight.shape[1] for weight in dense[0 : 2 * len(structure.layers) : 2])]
    shapes = list(itertools.pairwise(widths))
    if structure.prediction is None:
        dense = [np.append(np.ones(width, np.float32), np.float32(0))]
    else:
        shapes.append((width + widths[-1], 1))
    wanted: dict[str, tuple[int, ...]] = {
        "item": (tables["item"].shape[0], width),
        "mlp_item": (tables["mlp_item"].shape[0], half),
        "bias": (tables["bias"].shape[0], int(structure.bias is not None)),
    }
    wanted = {structure.tables[part] or part: shape for part, shape in wanted.items()}
    found = {structure.tables[part] or part: tables[part].shape for part in ("item", "mlp_item", "bias")}
    for (weight, bias), (fan_in, fan_out) in zip(zip(structure.dense[::2], structure.dense[1::2]), shapes):
        wanted.update({weight: (fan_in, fan_out), bias: (fan_out,)})
        found.update({weight: parameters[weight].shape, bias: parameters[bias].shape})
    for name, shape in wanted.items():
        if found[name] != shape:
            raise DataError(
                f"A net's structure() must describe it: {name} must be {list(shape)} to fit the other parameters. "
                f"Received: {list(found[name])}. Mend structure(), or leave it out."
            )
    flat = np.concatenate([each.reshape(-1) for each in dense]).astype(np.float32, copy=False)
    return Arrays(tuple(tables.values()), np.array(widths, np.int64), flat)


def ids(values: np.ndarray, tables: Sequence[np.ndarray], what: str) -> np.ndarray:
    """Ids as the kernels take them, int32 and flat.

    Raises:
        DataError: one is not a row of every table; a kernel would read and write what lies beside it.
    """
    rows = min((len(table) for table in tables if table.shape[1]), default=0)
    if values.size and (values.min() < 0 or values.max() >= rows):
        raise DataError(
            f"Ids of {what} must be from 0 to {rows - 1:,}, the rows of the net's embeddings. Received: from "
            f"{values.min():,} to {values.max():,}. Set hyper_parameters.num_{what} to what the data has."
        )
    return np.ascontiguousarray(values, np.int32).reshape(-1)
