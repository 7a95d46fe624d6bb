"""What is read from, and written into, a Paddle program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

MASK = "@MASK"


def keep_zeros(program: Any) -> dict[str, str]:
    """Puts a mask on each weight matrix of a net's training program: where it is 0, the weight gets no gradient.

    SGD and Adam leave a weight alone whose gradient has always been 0. Masking the gradient, and not the weight after
    each step, has no moment in which GEO could send another value.

    Call it when the net and its penalties are built and the optimizer is not.

    Args:
        program: the training program. Its matrices are the trainable parameters of two dimensions or more in which no
            operator looks up rows.

    Returns:
        for each matrix the name of its mask, a variable of the same shape, of ones until it is set.
    """
    import paddle

    block = program.global_block()
    tables = {op.input("W")[0] for op in block.ops if op.type in LOOK_UPS}
    masks: dict[str, str] = {}
    for weight in program.all_parameters():
        if not weight.trainable or weight.name in tables or len(weight.shape) < 2:
            continue
        masks[weight.name] = weight.name + MASK
        with paddle.static.program_guard(program):
            mask = paddle.static.create_global_var(
                weight.shape, 1.0, weight.dtype, persistable=True, name=masks[weight.name]
            )
        mask.stop_gradient = True
        masked = block.create_var(name=paddle.utils.unique_name.generate(mask.name), dtype=weight.dtype)
        for op in block.ops:
            op._rename_input(weight.name, masked.name)
        block._prepend_op(
            type="elementwise_mul", inputs={"X": [weight], "Y": [mask]}, outputs={"Out": [masked]}, attrs={"axis": -1}
        )
    return masks


class Writer:
    """Inserts operators with one output each into a block, one after another."""

    def __init__(self, block: Any, index: int) -> None:
        self._block, self._index = block, index

    def persistent(self, name: str, values: np.ndarray) -> Any:
        """The variable of a parameter."""
        if self._block.has_var(name):
            return self._block.var(name)
        return self._block.create_var(
            name=name, shape=list(values.shape), dtype=str(values.dtype), persistable=True, stop_gradient=True
        )

    def add(self, kind: str, inputs: Mapping[str, Any], gives: str = "float32", into: Any = None, **attrs: Any) -> Any:
        """Its output, a new variable of the dtype `gives` or `into`, one that is there."""
        import paddle

        def new() -> Any:
            return self._block.create_var(name=paddle.utils.unique_name.generate("compressed"), dtype=gives)

        out = new() if into is None else into
        outputs = {"Out": [out]}
        if kind == "reshape2":
            outputs["XShape"] = [new()]
        inputs = {slot: each if isinstance(each, list) else [each] for slot, each in inputs.items()}
        op = self._block._insert_op(self._index, type=kind, inputs=inputs, outputs=outputs, attrs=attrs)
        op._remove_attr("op_callstack")  # two kilobytes of this machine's paths
        self._index += 1
        return out

    def cast(self, variable: Any, old: str, new: str) -> Any:
        from paddle.base import core

        kinds = {"int8": "INT8", "uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
        old_kind, new_kind = (int(getattr(core.VarDesc.VarType, kinds[each])) for each in (old, new))
        return self.add("cast", {"X": variable}, new, in_dtype=old_kind, out_dtype=new_kind)


LOOK_UPS = ("lookup_table_v2", "lookup_table")


def looked_up(program: Any) -> dict[str, set[str]]:
    """The embeddings of a program, each with the variables whose ids it is looked up by."""
    ids: dict[str, set[str]] = {}
    for op in program.global_block().ops:
        if op.type in LOOK_UPS:
            ids.setdefault(op.input("W")[0], set()).update(op.input("Ids"))
    return ids
