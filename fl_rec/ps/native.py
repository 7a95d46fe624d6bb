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
