"""Penalties on parameters that can be added to any net's loss."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping
from typing import Any

from fl_rec.errors import ConfigError
from fl_rec.nets import graph


def add_penalties(
    cost: Any, l2: Mapping[str, float], proximal: float, shared: Collection[str]
) -> tuple[Any, dict[str, str]]:
    """Adds to a net's loss what keeps its parameters small, or near to those of the last exchange.

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
    trainable = {parameter.name: parameter for parameter in program.all_parameters() if parameter.trainable}
    look_ups = [each for each in graph.look_ups(program) if each.table in trainable]
    tables = {each.table for each in look_ups}
    anchors: dict[str, Any] = {}

    def anchor(name: str) -> Any:
        if name not in anchors:
            shape, dtype = trainable[name].shape, trainable[name].dtype
            # One that was never set shows in the loss; without a value it would be a crash in train_from_dataset.
            anchors[name] = paddle.static.create_global_var(
                shape, math.nan, dtype, persistable=True, name=name + graph.ANCHOR
            )
            anchors[name].stop_gradient = True
        return anchors[name]

    def rows_of(look_up: graph.LookUp) -> Any:
        return program.global_block().var(look_up.rows)

    def per_row(rows: Any) -> Any:
        return paddle.divide(paddle.sum(graph.sum_of_squares(rows)), paddle.cast(paddle.shape(rows)[0], rows.dtype))

    with paddle.static.program_guard(program):
        for pattern in l2:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in tables):
                raise ConfigError(
                    f"hyper_parameters.l2 must name embeddings of the net. Received: {pattern!r}. The net has "
                    f"{', '.join(sorted(tables))}."
                )
        for each in look_ups:
            if (weight := weight_of(each.table, l2)) > 0:
                cost = cost + weight * per_row(rows_of(each))
        if proximal > 0:
            distances = [
                per_row(paddle.subtract(rows_of(each), graph.look_up(each, anchor(each.table))))
                for each in look_ups
                if each.table in shared
            ] + [
                paddle.sum(paddle.square(parameter - anchor(name)))
                for name, parameter in trainable.items()
                if name in shared and name not in tables
            ]
            if distances:
                cost = cost + proximal / 2 * paddle.add_n(distances)
    return cost, {name: variable.name for name, variable in anchors.items()}


def weight_of(table: str, l2: Mapping[str, float]) -> float:
    """That of an embedding: the first whose name fits, or else 0."""
    return next((weight for name, weight in l2.items() if fnmatch.fnmatchcase(table, name)), 0.0)
