"""Parameters in the file of a saved model, as Paddle reads them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.nets import graph


def persistent(program: Any) -> list[str]:
    """The names of a scoring program's parameters, sorted; a loaded one has no Parameters, only variables that stay."""
    names = sorted(variable.name for variable in program.list_vars() if variable.persistable)
    return [name for name in names if name not in ("feed", "fetch")]


def write_tensors(path: Path, tensors: Iterable[np.ndarray]) -> None:
    """Writes tensors one after another, as Paddle's `save_combine` does. OSError if that can't be done.

    An array of one value for all places, as `numpy.broadcast_to` makes it, must be one of zeros: it becomes a hole.
    """
    with open(path, "wb") as file:
        for values in tensors:
            # TensorDesc of framework.proto: the dtype is field 1, each dimension another field 2.
            fields = [(8, graph.kind_of(str(values.dtype))), *((16, size) for size in values.shape)]
            desc = b"".join(bytes([key]) + _varint(value) for key, value in fields)
            # Versions of 0 of the LoD tensor and of the tensor, and between them no levels of detail.
            file.write(struct.pack("<IQIi", 0, 0, 0, len(desc)) + desc)
            if values.size > 1 and not any(values.strides):
                file.seek(values.nbytes, os.SEEK_CUR)
            else:
                file.write(np.ascontiguousarray(values).data)
        file.truncate()


def _varint(value: int) -> bytes:
    """A number as protobuf writes it, seven bits a byte."""
    last, more = value & 127, value >> 7
    return bytes([last | 128]) + _varint(more) if more else bytes([last])
