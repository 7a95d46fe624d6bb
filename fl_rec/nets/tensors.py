"""Parameters in the file of a saved model, as Paddle has them; no operator of Paddle's reads or writes it."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.nets import graph
from fl_rec.packed import open_regular


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


# Of framework.proto.
_DTYPES = {0: "?", 1: "i2", 2: "i4", 3: "i8", 4: "f2", 5: "f4", 6: "f8", 20: "u1", 21: "i1"}


def read_tensors(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What `write_tensors`, or Paddle's `save_combine`, wrote: one for each name, in order.

    Raises:
        OSError: it can't be read.
        ValueError: it holds something else, or a number that is none.
    """
    tensors = {}
    with open_regular(path) as file:
        left = os.fstat(file.fileno()).st_size

        def take(size: int) -> bytes:
            nonlocal left
            left -= size
            if size < 0 or left < 0:
                raise ValueError("it is cut off")
            return file.read(size)

        def number(form: str) -> int:
            (value,) = struct.unpack(form, take(struct.calcsize(form)))
            return int(value)

        for name in names:
            number("<I")
            for _ in range(number("<Q")):
                take(number("<Q"))
            number("<I")
            dtype, shape = _described(take(number("<i")))
            size = math.prod(shape) * dtype.itemsize
            values = np.frombuffer(take(size), dtype).reshape(shape)
            strange = values.size - np.count_nonzero(np.isfinite(values))
            if dtype.kind == "f" and strange:
                raise ValueError(
                    f"{name} has {strange:,} numbers that are not finite; a training that diverges ends so"
                )
            tensors[name] = values
        if left:
            raise ValueError(f"{left:,} bytes belong to no parameter")
    return tensors


def _described(desc: bytes) -> tuple[np.dtype[Any], list[int]]:
    """The dtype and the shape in a TensorDesc. Raises `ValueError`."""
    kind, shape, rest = -1, [], iter(desc)
    for key in rest:
        if key not in (8, 16):
            raise ValueError("a tensor is described otherwise than by dtype and shape")
        value = shift = 0
        for byte in rest:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if key == 8:
            kind = value
        else:
            shape.append(value)
    if kind not in _DTYPES:
        raise ValueError(f"a tensor has the dtype {kind}")
    return np.dtype(_DTYPES[kind]), shape


def _varint(value: int) -> bytes:
    """A number as protobuf writes it, seven bits a byte."""
    last, more = value & 127, value >> 7
    return bytes([last | 128]) + _varint(more) if more else bytes([last])
