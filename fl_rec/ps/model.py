"""The model as the parameter servers hold it: which tables there are, and how they are read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.base import core

from fl_rec.errors import RunError

_GRADIENT = "@GRAD"


@dataclass(frozen=True)
class Tables:
    """What the servers hold.

    Attributes:
        sparse: the tables of embeddings, by the embedding's name.
        dense: the names of the dense parameters, by their table.
    """

    sparse: Mapping[str, int]
    dense: Mapping[int, tuple[str, ...]]

    @classmethod
    def of(cls, context: Any, sends: Mapping[str, Any]) -> Tables:
        """Those of Paddle's context of a training program, and of its communicator's sends."""
        from paddle.distributed.ps import the_one_ps

        sparse = {name[: -len(_GRADIENT)]: send.table_id() for name, send in sends.items() if send.is_sparse()}
        dense = the_one_ps.get_the_one_recv_context(context, split_dense_table=False)
        return cls(sparse, {table: tuple(names) for table, names in dense.items()})

    @property
    def names(self) -> list[str]:
        """All parameters that the servers hold."""
        return [*self.sparse, *(name for names in self.dense.values() for name in names)]


class ServerModel:
    """Reads what the servers hold; nothing that is private is there.

    Args:
        worker: Paddle's end of the servers.
        tables: what they hold.
        program: the training program.
    """

    def __init__(self, worker: Any, tables: Tables, program: paddle.static.Program) -> None:
        self.tables = tables
        self._worker = worker
        # Each new one would leave its temporary tensors in the scope.
        self._executor = paddle.static.Executor(paddle.CPUPlace())
        self._shapes = {parameter.name: parameter.shape for parameter in program.all_parameters()}

    def pull(self, program: paddle.static.Program, scope: Any) -> None:
        """Copies the model.

        Args:
            program: a program whose parameters carry the training program's names.
            scope: where they go; the startup program of `program` has been run in it.
        """
        names = {parameter.name for parameter in program.all_parameters()}
        self._pull_dense(scope, names)
        with tempfile.TemporaryDirectory() as folder, paddle.static.scope_guard(scope):
            for table in self.tables.sparse.values():
                # The only call of Paddle's Python that reads a sparse table: it writes a file.
                self._worker.recv_and_save_model(table, folder)
            wanted = [program.global_block().var(name) for name in self.tables.sparse if name in names]
            paddle.static.load_vars(self._executor, folder, program, vars=wanted)

    def pull_dense(self) -> dict[str, np.ndarray]:
        """The dense parameters: name -> float32 array."""
        scope = core.Scope()
        return {name: np.array(scope.find_var(name).get_tensor()) for name in self._pull_dense(scope, set())}

    def _pull_dense(self, scope: Any, there: set[str]) -> list[str]:
        """The dense parameters into a scope, which has those that are `there`; returns all their names."""
        for table, names in self.tables.dense.items():
            for name in set(names) - there:  # what only training needs still has a place in the table
                scope.var(name).get_tensor().set(np.zeros(self._shapes[name], np.float32), paddle.CPUPlace())
            self._worker.pull_dense_params(scope, table, list(names))
        return sorted(name for names in self.tables.dense.values() for name in names)

    def save(self, folder: Path) -> None:
        """Writes the tables: dense ones as the servers dump them, sparse ones as one tensor file each.

        `save_all_model` alone would not do: a GEO server's sparse tables write nothing.
        """
        # Paddle makes the folder through a shell, unquoted: a space in the path would lose the table without an error.
        with tempfile.TemporaryDirectory(prefix="fl_rec_tables_") as plain:
            for table in self.tables.dense:
                self._worker.save_one_model(table, plain, 0)
                if not any(Path(plain, f"{table:03d}").glob("part-*")):
                    raise RunError(
                        f"The servers must write their dense table {table}. Received: nothing in {plain}. Its path "
                        "must be free of spaces and other characters that a shell would read: set TMPDIR."
                    )
            for table in self.tables.sparse.values():
                self._worker.recv_and_save_model(table, plain)
            shutil.copytree(plain, folder)
