"""Penalties on parameters that can be added to any net's loss."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping
from typing import Any

from fl_rec.errors import ConfigError

ANCHOR = "@ANCHOR"


_LOOKUPS = ("lookup_table", "lookup_table_v2")


def add_penalties(
    cost: Any, l2: Mapping[str, float], proximal: float, shared: Collection[str]
) -> tuple[Any, dict[str, str]]:
    """Adds to a net's loss what keeps its parameters small, or near to those that a round began with.

    An embedding counts by the rows that a batch looks up, as often as it does so, over the number of rows of the batch:
    so its gradient has no other rows, and stays sparse where it is.

        l2 * sum(e ** 2) / batch
        proximal / 2 * (sum((e - anchor of e) ** 2) / batch + sum((w - anchor of w) ** 2))

    with `e` of all trainable embeddings, in the second line of the `shared` ones, and `w` of all other trainable
    parameters that are shared. The second line is that of FedProx (arXiv:1812.06127).

    Call it when the net is built and its optimizer is not, within the net's `unique_name.guard`.

    Args:
        cost: the net's loss, a scalar variable of its training program.
        l2: weight of each embedding by name, * for any text; the first name that fits counts, and none is 0.
        proximal: weight; 0 adds nothing.
        shared: names of the parameters that are exchanged with others.

    Returns:
        the new loss, and for each parameter the name of its anchor, a variable of the same shape that no optimizer
        changes. It is NaN until whoever trains copies the parameter's value to it.

    Raises:
        ConfigError: a name of `l2` fits no embedding.
    """
    import paddle

    program = cost.block.program
    block = program.global_block()
    trainable = {parameter.name: parameter for parameter in program.all_parameters() if parameter.trainable}
    lookups = [op for op in block.ops if op.type in _LOOKUPS and op.input("W")[0] in trainable]
    tables = {op.input("W")[0] for op in lookups}
    frozen: dict[str, str] = {}

    def anchor(name: str) -> Any:
        if name not in frozen:
            frozen[name] = name + ANCHOR
            shape, dtype = trainable[name].shape, trainable[name].dtype
            # One that was never set shows in the loss; without a value it would be a crash in train_from_dataset.
            variable = paddle.static.create_global_var(shape, math.nan, dtype, persistable=True, name=frozen[name])
            variable.stop_gradient = True
        return block.var(frozen[name])

    def looked_up(op: Any) -> Any:
        return block.var(op.output("Out")[0])

    def looked_up_anchor(op: Any) -> Any:
        table = anchor(op.input("W")[0])
        rows = block.create_var(
            name=paddle.utils.unique_name.generate(table.name), dtype=table.dtype, stop_gradient=True
        )
        block.append_op(
            type=op.type,
            inputs={"W": [table], "Ids": [block.var(op.input("Ids")[0])]},
            outputs={"Out": [rows]},
            # Not is_sparse, by which fleet takes a variable for a table of the servers.
            attrs={"padding_idx": op.attr("padding_idx"), "is_sparse": False},
        )
        return rows

    def per_row(rows: Any) -> Any:
        # One operator in place of square and sum, and one gradient: each goes over all rows of every step.
        squares = block.create_var(name=paddle.utils.unique_name.generate("squares"), dtype=rows.dtype)
        block.append_op(type="squared_l2_norm", inputs={"X": [rows]}, outputs={"Out": [squares]})
        return paddle.divide(paddle.sum(squares), paddle.cast(paddle.shape(rows)[0], rows.dtype))

    with paddle.static.program_guard(program):
        for pattern in l2:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in tables):
                raise ConfigError(
                    f"hyper_parameters.l2 must name embeddings of the net. Received: {pattern!r}. The net has "
                    f"{', '.join(sorted(tables))}."
                )
        for op in lookups:
            fitting = (weight for name, weight in l2.items() if fnmatch.fnmatchcase(op.input("W")[0], name))
            weight = next(fitting, 0.0)
            if weight > 0:
                cost = cost + weight * per_row(looked_up(op))
        if proximal > 0:
            distances = [
                per_row(paddle.subtract(looked_up(op), looked_up_anchor(op)))
                for op in lookups
                if op.input("W")[0] in shared
            ] + [
                paddle.sum(paddle.square(parameter - anchor(name)))
                for name, parameter in trainable.items()
                if name in shared and name not in tables
            ]
            if distances:
                cost = cost + proximal / 2 * paddle.add_n(distances)
    return cost, frozen
