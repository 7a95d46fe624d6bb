"""Adding to what the servers hold, in this thread, and done when it returns.

In Paddle's Python, only GEO's communicator adds to a table. Its thread sleeps for 100 ms when it starts and for 50 ms
where a queue is empty, sends differences of its own, and pulls each time what all have changed. The calls below are
those by which it sends.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from paddle.base import core

from fl_rec.errors import RunError
from fl_rec.ps.model import GRADIENT, Tables, slices
from fl_rec.ps.native import address_of

# Of paddle::distributed::Communicator, in 2.6.2 and 3.0.0: its one instance, RpcSendSparse and RpcSendDense.
_CLASS = "_ZN6paddle11distributed12Communicator"
_INSTANCE = f"{_CLASS}13communicator_E"
_SEND_SPARSE = f"{_CLASS}13RpcSendSparseERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEiRKNS_9framework5ScopeE"
_SEND_DENSE = f"{_CLASS}12RpcSendDenseERKNS0_11CommContextERKNS_9framework5ScopeE"


class _String(ctypes.Structure):
    """A std::string to be read."""

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t), ("within", ctypes.c_char * 16))


class Push:
    """Adds to the servers' tables of GEO.

    Args:
        communicator: Paddle's C++ communicator; it need not run.
        sends: what it sends, by name.
        tables: what the servers hold.

    Raises:
        RunError: Paddle is another than the two that are supported.
    """

    def __init__(self, communicator: Any, sends: Mapping[str, Any], tables: Tables) -> None:
        library = ctypes.CDLL(paddle.base.libpaddle.__file__)
        self._communicator = address_of(communicator)
        if ctypes.c_void_p.in_dll(library, _INSTANCE).value != self._communicator.value:
            raise RunError(
                "A synchronous exchange calls Paddle's C++ functions, as the wheels 2.6.2 and 3.0.0 have them. "
                f"Received: Paddle {paddle.__version__}, built otherwise. Install a wheel, or set "
                "runner.exchanges_per_epoch=0."
            )
        self._send_sparse, self._send_dense = library[_SEND_SPARSE], library[_SEND_DENSE]
        self._tables, self._scope = tables, core.Scope()
        self._dense = [send for send in sends.values() if send.table_id() in tables.dense]

    def __call__(self, changes: Mapping[str, np.ndarray], every_row: bool = False) -> None:
        """Adds to all parameters.

        Args:
            changes: float32, in the parameter's shape, of every one that the servers hold.
            every_row: whether rows of embeddings are sent that are all zeros, too.
        """
        for name, change in changes.items():
            gradient = self._scope.var(name + GRADIENT)
            if name in self._tables.sparse:
                self._push_rows(name, gradient.get_selected_rows(), change, every_row)
            else:
                gradient.get_tensor().set(change, paddle.CPUPlace())
        for send in self._dense:
            self._send_dense(self._communicator, address_of(send), address_of(self._scope))

    def _push_rows(self, name: str, gradient: Any, change: np.ndarray, every_row: bool) -> None:
        rows: np.ndarray = np.arange(len(change)) if every_row else np.flatnonzero(change.any(axis=1))
        for part in slices(len(rows), change.shape[1]):
            gradient.set_rows(rows[part].tolist())
            gradient.get_tensor().set(change[part] if every_row else change[rows[part]], paddle.CPUPlace())
            text = (name + GRADIENT).encode()
            variable = _String(text, len(text))
            self._send_sparse(
                self._communicator, ctypes.byref(variable), self._tables.sparse[name], address_of(self._scope)
            )
