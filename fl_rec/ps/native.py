"""Calls of Paddle's C++ that its Python has no way to."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import paddle

from fl_rec.errors import RunError

# GlooWrapper::AllGatherVector<int64_t>(input, output, numbers of each), in 2.6.2 and 3.0.0.
_ALL_GATHER = "_ZN6paddle9framework11GlooWrapper15AllGatherVectorIlEEvPT_S4_RSt6vectorImSaImEE"


def address_of(bound: Any) -> ctypes.c_void_p:
    """Where the C++ object of an object of Paddle's Python is: pybind11 says so behind Python's own head."""
    return ctypes.c_void_p.from_address(id(bound) + object.__basicsize__)


class _Sizes(ctypes.Structure):
    """A std::vector<size_t> to be read."""

    _fields_ = (("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("room", ctypes.c_void_p))


class AllGather:
    """Every worker's numbers for every worker, as they are in memory.

    Paddle's own sums pass numbers on one by one, as lists of Python's, and round them to float32 (3.0.0).

    Args:
        gloo: Paddle's, of the workers.
        workers: how many there are.

    Raises:
        RunError: Paddle is another than the two that are supported.
    """

    def __init__(self, gloo: Any, workers: int) -> None:
        try:
            self._call = ctypes.CDLL(paddle.base.libpaddle.__file__)[_ALL_GATHER]
        except AttributeError as err:
            raise RunError(
                "Workers tell each other their figures by a C++ function of Paddle's, as the wheels 2.6.2 and 3.0.0 "
                f"have it. Received: Paddle {paddle.__version__}, built otherwise. Install a wheel."
            ) from err
        self._call.restype = None
        self._gloo, self._workers = gloo, workers

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Float64 [workers, n] of float64 [n], n above 0 and the same in all workers, bit for bit.

        C++'s exceptions end the process: have all workers meet in a barrier just before.
        """
        own = np.array(values, np.float64)
        everyone: np.ndarray = np.empty((self._workers, len(own)))
        sizes: np.ndarray = np.full(self._workers, len(own), np.uint64)
        vector = _Sizes(sizes.ctypes.data, *[sizes.ctypes.data + sizes.nbytes] * 2)
        pointers = (ctypes.c_void_p(each.ctypes.data) for each in (own, everyone))
        self._call(address_of(self._gloo), *pointers, ctypes.byref(vector))
        return everyone


class _Link(ctypes.Structure):
    """What a handle of a loaded library points to: <link.h>'s link_map."""

    _fields_ = (("base", ctypes.c_uint64), ("name", ctypes.c_char_p), ("dynamic", ctypes.c_uint64))


# <elf.h>: the tags of a library's table of symbols, of the slots through which it calls functions, and their bytes; and
# of its flags, with the one that has the loader fill the slots in at once, after which they can't be written.
_DT_PLTRELSZ, _DT_SYMTAB, _DT_JMPREL, _DT_FLAGS, _BIND_NOW = 2, 6, 23, 30, 8
_SYMBOL = np.dtype(
    [("name", "u4"), ("info", "u1"), ("other", "u1"), ("section", "u2"), ("value", "u8"), ("size", "u8")]
)
_SLOT = np.dtype([("offset", "u8"), ("type", "u4"), ("symbol", "u4"), ("addend", "i8")])

_nothing = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(lambda _: 0)


def never_call(function: str) -> bool:
    """Has Paddle's library do nothing, from now on in this process, where it calls one of its own functions.

    A function that others may replace is called through a slot, in which the loader writes where it is.

    Args:
        function: the mangled name of one that returns an int, 0 for success.

    Returns:
        whether it is so; False where a library was built without such slots, or with some that can't be written.
    """
    library = ctypes.CDLL(paddle.base.libpaddle.__file__)
    link = _Link.from_address(library._handle)
    tags, address = {}, link.dynamic
    while (entry := (ctypes.c_uint64 * 2).from_address(address))[0]:
        tags[entry[0]], address = entry[1], address + ctypes.sizeof(entry)
    if tags.get(_DT_FLAGS, 0) & _BIND_NOW:
        return False
    try:
        value = ctypes.cast(library[function], ctypes.c_void_p).value
        slots = _table(tags[_DT_JMPREL], tags[_DT_PLTRELSZ] // _SLOT.itemsize, _SLOT)
        symbols = _table(tags[_DT_SYMTAB], int(slots["symbol"].max()) + 1, _SYMBOL)
    except (AttributeError, KeyError):
        return False
    found = slots["offset"][symbols["value"][slots["symbol"]] == (value or 0) - link.base]
    for offset in found.tolist():
        ctypes.c_void_p.from_address(link.base + offset).value = ctypes.cast(_nothing, ctypes.c_void_p).value
    return bool(len(found))


def _table(address: int, length: int, kind: np.dtype[Any]) -> np.ndarray:
    memory: Any = (ctypes.c_char * (length * kind.itemsize)).from_address(address)
    table: np.ndarray = np.frombuffer(memory, kind)
    return table
