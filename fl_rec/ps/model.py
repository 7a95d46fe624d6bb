"""The model as the parameter servers hold it: which tables there are, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.base import core

from fl_rec.nets import graph
from fl_rec.nets.tensors import write_tensors

GRADIENT = "@GRAD"
_IDS, _ROWS = "ids", "rows"
_MESSAGE = 1 << 20  # bytes


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

        sparse = {name[: -len(GRADIENT)]: send.table_id() for name, send in sends.items() if send.is_sparse()}
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
        self._executor, self._scope = paddle.static.Executor(paddle.CPUPlace()), core.Scope()
        self._shapes = {parameter.name: tuple(parameter.shape) for parameter in program.all_parameters()}
        self._look_ups = {name: self._look_up(name, table) for name, table in tables.sparse.items()}

    def pull(self, program: paddle.static.Program, scope: Any) -> None:
        """Copies the model.

        Args:
            program: a program whose parameters carry the training program's names.
            scope: where they go; the startup program of `program` has been run in it.
        """
        names = {parameter.name for parameter in program.all_parameters()}
        self._pull_dense(scope, names)
        for name in names & set(self.tables.sparse):
            self._pull_sparse(name, graph.live(scope, name))

    def values(self) -> Iterator[tuple[str, np.ndarray]]:
        """Everything that the servers hold, float32, one parameter at a time, with its name."""
        yield from self.pull_dense().items()
        for name in self.tables.sparse:
            values: np.ndarray = np.empty(self._shapes[name], np.float32)
            self._pull_sparse(name, values)
            yield name, values

    def read_into(self, values: Mapping[str, np.ndarray]) -> None:
        """Everything that the servers hold into float32 arrays, by parameter."""
        for name, dense in self.pull_dense().items():
            values[name][...] = dense
        for name in self.tables.sparse:
            self._pull_sparse(name, values[name])

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

    def _look_up(self, name: str, table: int) -> paddle.static.Program:
        """A program that asks the servers for rows of an embedding: of Paddle's operators the only one that does."""
        rows, width = self._shapes[name]
        program = paddle.static.Program()
        block = program.global_block()
        ids = block.create_var(name=_IDS, shape=[-1, 1], dtype="int64")
        embedding = block.create_var(name=name, shape=[rows, width], dtype="float32", persistable=True)
        # Of which only the width is looked at.
        self._scope.var(name).get_tensor().set(np.zeros((1, width), np.float32), paddle.CPUPlace())
        block.append_op(
            type="distributed_lookup_table",
            inputs={"Ids": [ids], "W": [embedding]},
            outputs={"Outputs": [block.create_var(name=_ROWS, shape=[-1, width], dtype="float32")]},
            attrs={"table_id": table, "padding_idx": -1, "lookup_table_version": "lookup_table"},
        )
        return program

    def _pull_sparse(self, name: str, values: np.ndarray) -> None:
        """The rows of an embedding into `values`, float32 [rows, width]."""
        for rows in slices(*values.shape):
            ids = np.arange(rows.start, rows.stop)[:, None]
            (values[rows],) = self._executor.run(
                self._look_ups[name], feed={_IDS: ids}, fetch_list=[_ROWS], scope=self._scope
            )

    def save(self, folder: Path) -> None:
        """Writes what the servers hold, a tensor file for each parameter. OSError if that can't be done."""
        folder.mkdir()
        for name, values in self.values():
            write_tensors(folder / name, [values])


def slices(rows: int, width: int) -> Iterator[slice]:
    """Of rows of float32 those that go in one message: a server keeps the memory that the largest have needed."""
    step = max(1, _MESSAGE // (4 * width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
