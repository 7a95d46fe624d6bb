"""What is read from, and written into, a Paddle program. Outside of `fl_rec.ps`, only here is its inside known.

Paddle is imported when a function is called.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LOOK_UPS = ("lookup_table_v2", "lookup_table")
MASK, ANCHOR = "@MASK", "@ANCHOR"
AUC_BUCKETS = 4096


# --- What is read --------------------------------------------------------------------------------------


def dtype_of(variable: Any) -> str:
    """A variable's dtype, as numpy names it."""
    import paddle

    return str(paddle.base.data_feeder.convert_dtype(variable.dtype))


class LookUp(NamedTuple):
    """An operator that looks up rows of an embedding: its kind and the names of its variables."""

    kind: str
    table: str
    ids: str
    rows: str
    padding: int


def look_ups(program: Any) -> list[LookUp]:
    """All of a program, in order."""
    return [_look_up(op) for op in program.global_block().ops if op.type in LOOK_UPS]


def _look_up(op: Any) -> LookUp:
    return LookUp(op.type, op.input("W")[0], op.input("Ids")[0], op.output("Out")[0], op.attr("padding_idx"))


def looked_up(program: Any) -> dict[str, set[str]]:
    """The embeddings of a program, each with the variables whose ids it is looked up by."""
    ids: dict[str, set[str]] = {}
    for each in look_ups(program):
        ids.setdefault(each.table, set()).add(each.ids)
    return ids


def used_otherwise(program: Any) -> set[str]:
    """What the operators of a program read, other than tables by looking up rows."""
    return {
        name
        for op in program.global_block().ops
        for name in op.input_arg_names
        if op.type not in LOOK_UPS or name not in op.input("W")
    }


def tables_of_alone(program: Any, feed: str) -> set[str]:
    """The tables that are looked up by an input and used for nothing else, if nothing else is done with the input."""
    if len(program.blocks) > 1:
        return set()
    found, ids = [each for each in look_ups(program) if each.ids == feed], looked_up(program)
    readers = [op for op in program.global_block().ops if feed in op.input_arg_names and op.type != "fetch"]
    tables = {each.table for each in found}
    alone = all(ids[table] == {feed} for table in tables) and not tables & used_otherwise(program)
    # A row for padding is one by its id.
    return tables if alone and len(readers) == len(found) and all(each.padding == -1 for each in found) else set()


def learning_rates(program: Any) -> set[str]:
    """The variables that the optimizers of a program take their step sizes from."""
    ops = (op for op in program.global_block().ops if "LearningRate" in op.input_names)
    return {name for op in ops for name in op.input("LearningRate")}


class Optimizer(NamedTuple):
    """The operator that trains a parameter.

    Attributes:
        kind: "sgd", "adam" and the like.
        rate: the variable of its step size.
        state: the variables that it carries to the next step, by the names of its inputs, such as Moment1.
        attributes: its constants, such as beta1.
        plain: whether its gradient is what the loss gives, neither clipped nor regularised.
        sparse: whether the gradient holds the rows of a table that were looked up, and not all of it.
    """

    kind: str
    rate: str
    state: dict[str, str]
    attributes: dict[str, Any]
    plain: bool
    sparse: bool


def optimizers(program: Any) -> dict[str, Optimizer]:
    """Those of a program by the names of the parameters."""
    from paddle.base import core

    block, found = program.global_block(), {}
    for op in block.ops:
        if "Param" in op.input_names:
            (name,), (gradient,), (rate,) = (op.input(each) for each in ("Param", "Grad", "LearningRate"))
            others = set(op.input_names) - {"Param", "Grad", "LearningRate"}
            found[name] = Optimizer(
                op.type,
                rate,
                {each: op.input(each)[0] for each in sorted(others) if op.input(each)},
                {each: op.attr(each) for each in op.attr_names if not each.startswith(("op_", "with_"))},
                gradient == f"{name}@GRAD" and all(_differentiates(each, gradient) for each in block.ops),
                block.var(gradient).type == core.VarDesc.VarType.SELECTED_ROWS,
            )
    return found


def _differentiates(op: Any, gradient: str) -> bool:
    """Whether an operator that writes a gradient is one of the backward pass, or adds up what they give."""
    if gradient not in op.output_arg_names:
        return True
    adds_up = op.type == "sum" and all(name.startswith(gradient) for name in op.input_arg_names)
    return adds_up or bool(op.type.endswith("_grad"))


def operators(program: Any) -> set[str]:
    """The types of all of its operators; of "send" a parameter server's communicator gets gradients, or rows."""
    return {op.type for block in program.blocks for op in block.ops}


def auc_statistics(program: Any) -> tuple[str, str] | None:
    """The variables in which a program counts positives and negatives in `AUC_BUCKETS` buckets, or None."""
    ops = reversed(program.global_block().ops)
    found = next((op for op in ops if op.type == "auc" and op.attr("num_thresholds") == AUC_BUCKETS), None)
    return found and (found.output("StatPosOut")[0], found.output("StatNegOut")[0])


def carried_over(program: Any, counters: Collection[str]) -> list[str]:
    """What a program carries from one batch to the next, but for parameters by SGD and the given counters."""
    block = program.global_block()
    optimizers = {op.type for op in block.ops if "Param" in op.input_names}
    kept = {
        name
        for op in block.ops
        if op.type not in ("auc", *optimizers)
        for name in op.output_arg_names
        if block.has_var(name) and block.var(name).persistable
    }
    carried = [f"the optimizer {kind}" for kind in sorted(optimizers - {"sgd"})]
    return carried + [f"the variable {name}" for name in sorted(kept - set(counters))]


def live(scope: Any, name: str) -> np.ndarray:
    """A variable's own memory, and no copy: float32, float64 or int64, of its shape.

    Take it anew for each use: whoever sets the variable or runs a program may move it.
    """
    import paddle

    tensor = scope.find_var(name).get_tensor()
    dtype, shape = np.dtype(paddle.base.data_feeder.convert_dtype(tensor._dtype())), tuple(tensor.shape())
    memory = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(tensor._ptr())
    return np.frombuffer(memory, dtype).reshape(shape)


# --- What is written -----------------------------------------------------------------------------------


def static_mode() -> None:
    """Static programs from now on, in this thread and in those that start later.

    `enable_static` does nothing in a thread if another has imported Paddle (3.0.0).
    """
    import paddle

    paddle.enable_static()
    paddle.base.framework.global_var._dygraph_tracer_ = None


def count_auc(prediction: Any, label: Any) -> None:
    """Has the default program count scores and labels in `AUC_BUCKETS` buckets, unless it does."""
    import paddle

    program = paddle.static.default_main_program()
    if auc_statistics(program) is not None:
        return
    flat, label = paddle.reshape(prediction, [-1, 1]), paddle.reshape(label, [-1, 1])
    scores = paddle.concat([1 - flat, flat], axis=1)
    paddle.static.auc(input=scores, label=label, num_thresholds=AUC_BUCKETS, slide_steps=0)
    # auc() also makes a first operator, for each batch alone, of which nobody asks.
    block = program.global_block()
    block._remove_op(next(index for index, op in enumerate(block.ops) if op.type == "auc"))


def add_up(name: str, value: Any) -> None:
    """Has the default program add a value, float64 [1], to a new variable: what the executor returns of an epoch is
    nothing."""
    import paddle

    total = paddle.static.create_global_var([1], 0.0, "float64", persistable=True, name=name)
    paddle.static.default_main_program().global_block().append_op(
        type="elementwise_add", inputs={"X": [total], "Y": [value]}, outputs={"Out": [total]}
    )


def look_up(like: LookUp, table: Any) -> Any:
    """The rows of another table of the default program by the ids of a look-up that is there; nothing learns by it."""
    import paddle

    block = paddle.static.default_main_program().global_block()
    rows = block.create_var(name=paddle.utils.unique_name.generate(table.name), dtype=table.dtype, stop_gradient=True)
    block.append_op(
        type=like.kind,
        inputs={"W": [table], "Ids": [block.var(like.ids)]},
        outputs={"Out": [rows]},
        # Not is_sparse, by which fleet takes a variable for a table of the servers.
        attrs={"padding_idx": like.padding, "is_sparse": False},
    )
    return rows


def sum_of_squares(values: Any) -> Any:
    """In the default program, by one operator in place of square and sum: each goes over all rows of every step."""
    import paddle

    block = paddle.static.default_main_program().global_block()
    squares = block.create_var(name=paddle.utils.unique_name.generate("squares"), dtype=values.dtype)
    block.append_op(type="squared_l2_norm", inputs={"X": [values]}, outputs={"Out": [squares]})
    return squares


# What gives each number of a parameter its first value one after another.
_INITIALISERS = ("fill_constant", "gaussian_random", "truncated_gaussian_random", "uniform_random")
_DRAWN = 1 << 16  # rows at a time; even, since normal numbers are drawn in pairs


def _initialiser(startup: Any, table: str) -> Any:
    """The operator that gives a table its first values, or None if it is not one that can give a part of them."""
    found = [op for op in startup.global_block().ops if table in op.output_arg_names]
    return found[0] if len(found) == 1 and found[0].type in _INITIALISERS else None


def can_keep_rows(startup: Any, table: str) -> bool:
    """Whether `keep_rows` can be done with a table."""
    op = _initialiser(startup, table)
    # With a seed of its own each operator would draw the same.
    return op is not None and not (op.has_attr("seed") and op.attr("seed"))


def resize(program: Any, startup: Any, table: str, rows: int) -> None:
    """Gives a table another number of rows, in a program without an optimizer and in the one that initialises."""
    for each in (program, startup):
        variable = each.global_block().var(table)
        variable.desc.set_shape([rows, *variable.shape[1:]])
    _initialiser(startup, table)._set_attr("shape", list(startup.global_block().var(table).shape))


def keep_rows(program: Any, startup: Any, table: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Leaves a table some of its rows, as `resize` does, with the first values that they have among all.

    All rows are drawn, and all but these forgotten at once: other parameters' values don't depend on them either.

    Args:
        rows: int64, ascending.

    Returns:
        what the program that initialises is to be fed.
    """
    op, block = _initialiser(startup, table), startup.global_block()
    shape, kind = op.attr("shape"), op.type
    attrs = {name: op.attr(name) for name in op.attr_names if name not in ("op_callstack", "shape")}
    resize(program, startup, table, len(rows))
    index = block.ops.index(op)
    block._remove_op(index)
    writer, kept, feed = Writer(block, index), [], {}
    for start in range(0, shape[0], _DRAWN):
        size = min(_DRAWN, shape[0] - start)
        drawn = writer.add(kind, {}, shape=[size, *shape[1:]], **attrs)
        mine = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + size)] - start
        if mine.size:
            ids = block.create_var(name=f"{table}@ROWS{start}", shape=[len(mine)], dtype="int64", is_data=True)
            feed[ids.name] = mine
            kept.append(writer.add("gather", {"X": drawn, "Index": ids}))
    writer.add("concat", {"X": kept}, into=block.var(table), axis=0)
    return feed


def model_bytes(program: Any, feeds: Sequence[str], target: Any, rows: Mapping[str, int]) -> bytes:
    """A program as `paddle.static.save_inference_model` writes it, without some kilobytes of this machine's paths, and
    with other `rows` of some tables."""
    import paddle

    inputs = [program.global_block().var(name) for name in feeds]
    program = paddle.static.normalize_program(program, inputs, [target])._remove_training_info(clip_extra=True)
    for op in program.global_block().ops:
        op._remove_attr("op_callstack")
    for table, count in rows.items():
        variable = program.global_block().var(table)
        variable.desc.set_shape([count, *variable.shape[1:]])
    return bytes(program.desc.serialize_to_string())


class Step(NamedTuple):
    """The step of SGD for one parameter: names of its gradient and learning rate.

    Attributes:
        sparse: whether the gradient holds the rows of a table that were looked up, and not all of it.
    """

    gradient: str
    rate: str
    sparse: bool


def take_out_sgd(program: Any, kept: Collection[str]) -> dict[str, Step]:
    """Leaves all parameters but those `kept` alone, and their gradients in the scope; returns the steps."""
    from paddle.base import core

    block, steps = program.global_block(), {}
    for index in reversed(range(len(block.ops))):
        op = block.ops[index]
        if op.type == "sgd" and op.input("Param")[0] not in kept:
            (name,), (gradient,), (rate,) = (op.input(each) for each in ("Param", "Grad", "LearningRate"))
            variable = block.var(gradient)
            variable.persistable = True
            steps[name] = Step(gradient, rate, variable.type == core.VarDesc.VarType.SELECTED_ROWS)
            block._remove_op(index)
    return dict(sorted(steps.items()))


def dump(program: Any, folder: Path, fields: Sequence[str], parameters: Sequence[str]) -> None:
    """Has `train_from_dataset` write variables and parameters of every batch."""
    program._fleet_opt.update(dump_fields_path=str(folder), dump_fields=list(fields), dump_param=list(parameters))


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
    tables = {each.table for each in look_ups(program)}
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


def take_out_look_ups(program: Any, table: str) -> Iterator[tuple[Writer, LookUp, Any, Any]]:
    """Takes a table and each look-up in it out of a program.

    Yields:
        a writer where a look-up was, the look-up, and the variables of its ids and of the rows to compute instead.
    """
    block = program.global_block()
    for index in reversed(range(len(block.ops))):
        op = block.ops[index]
        if op.type in LOOK_UPS and op.input("W")[0] == table:
            found = _look_up(op)
            block._remove_op(index)
            yield Writer(block, index), found, block.var(found.ids), block.var(found.rows)
    block._remove_var(table)


def compute_before_use(program: Any, name: str, shape: Sequence[int]) -> tuple[Writer, Any]:
    """Takes a float32 parameter out of a program; gives a writer before its first use, and the variable to compute."""
    block = program.global_block()
    index = next(index for index, op in enumerate(block.ops) if name in op.input_arg_names)
    block._remove_var(name)
    return Writer(block, index), block.create_var(name=name, shape=list(shape), dtype="float32")


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
        self._block._insert_op(self._index, type=kind, inputs=inputs, outputs=outputs, attrs=attrs)
        self._index += 1
        return out

    def cast(self, variable: Any, old: str, new: str) -> Any:
        return self.add("cast", {"X": variable}, new, in_dtype=kind_of(old), out_dtype=kind_of(new))

    def zeros(self, count: int) -> Any:
        return self.add("fill_constant", {}, shape=[count], value=0.0, dtype=kind_of("float32"))


def kind_of(dtype: str) -> int:
    """What a program's operators call a dtype."""
    from paddle.base import core

    names = {"int8": "INT8", "uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
    return int(getattr(core.VarDesc.VarType, names[dtype]))
