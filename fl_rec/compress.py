"""Smaller models: embeddings of 8 or 4 bits, and dense layers with zeros, in an ordinary inference model.

The numbers stay small on disk and in memory: a program looks up rows of bytes, and computes with its own operators
(`cast`, `floor`, `scale`, ...) what they stand for, only of the rows that it has looked up. So whatever loads an
inference model of Paddle, `fl_rec.checkpoint.load` for one, needs to know nothing of it.

Neither of Paddle's own ways does this. `paddle.static.quantization.WeightQuantization` takes convolutions and matrix
products only. PaddleSlim's `quant_embedding` (2.6.0, of January 2024, is its last release) has one scale for a whole
table and no less than 8 bits, and its package brings opencv-python==4.6.0.66, pyzmq, swig and others.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping

import numpy as np
import psutil

from fl_rec import environment
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.evaluate import evaluate
from fl_rec.private import LOOK_UPS
from fl_rec.saved import PREFIX, SIGNATURE, SavedModel

if TYPE_CHECKING:
    from fl_rec.checkpoint import InferenceNet

BITS = (8, 4)
MASK = "@MASK"
# What is tried of a row's largest value as the end of 4 bits' range.
_CLIPPING = np.linspace(1.0, 0.4, 25)
# About what the operators that restore a matrix take in the file of a program.
_OPERATORS = 1500
# Times that all items are scored for one user, after as many as it takes to be as fast as it gets.
_REPEATS, _FIRST = 30, 5


# --- Numbers of a few bits -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantised:
    """A table in few bits: whole numbers, times one scale for each row.

    8 bits: -127 to 127. 4 bits: -7.5, -6.5, ..., 7.5, with column k in the low half of byte k and column
    k + ceil(width / 2) in the high half, as 16 * high + low with high from -8 to 7 and low from 0 to 15.

    Attributes:
        codes: int8 [rows, width], or [rows, ceil(width / 2)] with 4 bits.
        scales: float32 [rows, 1]; 0 for a row of zeros.
    """

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    width: int

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.codes.nbytes + self.scales.nbytes)

    def restore(self) -> np.ndarray:
        """What it stands for, float32 [rows, width]."""
        levels = self.codes.astype(np.float32)
        if self.bits == 4:
            high = np.floor(levels / 16)
            levels = np.concatenate([levels - 16 * high - 7.5, high + 0.5], axis=1)[:, : self.width]
        return levels * self.scales


def quantise(values: np.ndarray, bits: int) -> Quantised:
    """A table in 8 or 4 bits.

    8 bits: the largest value of a row is 127. 4 bits: the end of the range is what has the smallest squared error of
    the row, values beyond it being clipped.

    Args:
        values: float32 [rows, width], finite.
        bits: 8 or 4.
    """
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    # Of rows with a largest value of 1, so that no square of a difference is too large, or too small, for float32.
    rows, width = values / np.where(largest > 0, largest, np.float32(1)), values.shape[1]
    if bits == 8:
        return Quantised(np.rint(rows * 127).astype(np.int8), largest / np.float32(127), bits, width)
    levels = np.zeros(values.shape, np.int8)
    steps = np.zeros(largest.shape, np.float32)
    errors = np.full(largest.shape, np.inf, np.float32)
    for part in _CLIPPING:
        step = np.float32(part / 7.5)
        tried = np.clip(np.floor(rows / step), -8, 7)
        error = np.square((tried + 0.5) * step - rows).sum(axis=1, keepdims=True)
        better = error < errors
        levels = np.where(better, tried.astype(np.int8), levels)
        steps, errors = np.where(better, step, steps), np.where(better, error, errors)
    low, high = levels[:, : (width + 1) // 2], levels[:, (width + 1) // 2 :]
    high = np.pad(high, ((0, 0), (0, low.shape[1] - high.shape[1])))
    return Quantised((16 * high.astype(np.int16) + low + 8).astype(np.int8), largest * steps, bits, width)


# --- Zeros ---------------------------------------------------------------------------------------------


def prune(matrix: np.ndarray, share: float) -> np.ndarray:
    """A copy of a matrix with its smallest weights set to 0, that share of them, rounded to whole weights."""
    flat = matrix.reshape(-1).copy()
    flat[np.argsort(np.abs(flat), kind="stable")[: round(share * len(flat))]] = 0
    return flat.reshape(matrix.shape)


@dataclass(frozen=True)
class Sparse:
    """A matrix by its weights that are not 0.

    Attributes:
        steps: uint8 [n], how far each weight is from the one before, in the order of rows.
        weights: float32 [n], the first of them that of place 0; a 0 where the next is further away than a step can say.
        shape: of the matrix.
    """

    steps: np.ndarray
    weights: np.ndarray
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.steps.nbytes + self.weights.nbytes)

    def restore(self) -> np.ndarray:
        """The matrix, float32."""
        flat: np.ndarray = np.zeros(int(np.prod(self.shape)), np.float32)
        flat[np.cumsum(self.steps, dtype=np.int64)] = self.weights
        return flat.reshape(self.shape)

    @classmethod
    def of(cls, matrix: np.ndarray) -> Sparse:
        """The weights of a float32 matrix of any shape."""
        flat = matrix.reshape(-1)
        places, at = [0], 0  # one place at least: operators take no empty arrays
        for place in np.flatnonzero(flat[1:]) + 1:
            places += [*range(at + 255, place, 255), int(place)]
            at = place
        steps = np.diff(np.array(places, np.int64), prepend=0)
        return cls(steps.astype(np.uint8), flat[places], matrix.shape)


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


# --- Programs ------------------------------------------------------------------------------------------


def parameters(net: InferenceNet) -> dict[str, np.ndarray]:
    """Copies of a net's parameters, by name."""
    # A loaded program has no Parameters, only variables that persist: these, and its feeds and fetches.
    names = sorted(variable.name for variable in net.program.list_vars() if variable.persistable)
    return {name: net.parameter(name) for name in names if name not in ("feed", "fetch")}


def split(net: InferenceNet) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A net's embeddings, of which rows are looked up and nothing else; and its dense layers' matrices.

    Both are float32 with two dimensions; a parameter of another kind is in neither.

    Raises:
        DataError: a parameter is not finite, or the net is compressed already.
    """
    values = parameters(net)
    if any(each.dtype == np.int8 for each in values.values()):
        raise DataError(
            "A model is compressed once, from float32. Received: one with embeddings of 8 or 4 bits. "
            "Compress the model that this one was made of."
        )
    for name, each in values.items():
        if not np.isfinite(each).all():
            raise DataError(
                f"What is compressed must be finite. Received: {name} with {np.count_nonzero(~np.isfinite(each)):,} "
                "weights that are not. Train with a lower learning rate, or take an earlier epoch."
            )
    looked_up: set[str] = set()
    used: set[str] = set()
    for op in net.program.global_block().ops:
        table = op.input("W") if op.type in LOOK_UPS else []
        looked_up.update(table)
        used.update(name for name in op.input_arg_names if name not in table)
    plain = {name: each for name, each in values.items() if each.dtype == np.float32 and each.ndim == 2}
    tables = {name: each for name, each in plain.items() if name in looked_up - used}
    return tables, {name: each for name, each in plain.items() if name not in looked_up}


def quantise_net(net: InferenceNet, bits: int) -> InferenceNet:
    """A net that scores as `net`, with its embeddings in few bits and its matrices by their weights that are not 0.

    What would not be smaller so stays as it is: an embedding of width 1, a matrix with few zeros.

    Raises:
        DataError: see `split`.
    """
    import paddle

    from fl_rec.checkpoint import InferenceNet

    tables, matrices = split(net)
    program, scope = net.program.clone(), paddle.base.core.Scope()
    block = program.global_block()
    kept = parameters(net)
    new: dict[str, np.ndarray] = {}
    for name, values in tables.items():
        small = quantise(values, bits)
        if small.nbytes < values.nbytes:
            _replace_look_ups(block, name, small)
            new.update({f"{name}.codes": small.codes, f"{name}.scales": small.scales})
            del kept[name]
            block._remove_var(name)
    for name, values in matrices.items():
        sparse = Sparse.of(values)
        if sparse.nbytes + _OPERATORS < values.nbytes:
            _restore_matrix(block, name, sparse)
            new.update({f"{name}.steps": sparse.steps, f"{name}.weights": sparse.weights})
            del kept[name]
    for name, values in {**kept, **new}.items():
        scope.var(name).get_tensor().set(values, paddle.CPUPlace())
    return InferenceNet(program, net.feeds, block.var(net.target.name), scope)


class _Writer:
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


def _replace_look_ups(block: Any, name: str, table: Quantised) -> None:
    """Has every look-up in a table look up codes and scales, and compute the rows from them."""
    indices = [index for index, op in enumerate(block.ops) if op.type in LOOK_UPS and op.input("W")[0] == name]
    for index in reversed(indices):
        op = block.ops[index]
        kind, ids, rows = op.type, block.var(op.input("Ids")[0]), block.var(op.output("Out")[0])
        # A row that is only padding has a scale of 0 as well.
        padding = {"padding_idx": op.attr("padding_idx")}
        block._remove_op(index)
        writer = _Writer(block, index)
        codes = writer.persistent(f"{name}.codes", table.codes)
        scales = writer.persistent(f"{name}.scales", table.scales)
        levels = writer.cast(writer.add(kind, {"W": codes, "Ids": ids}, "int8", **padding), "int8", "float32")
        if table.bits == 4:
            high = writer.add("floor", {"X": writer.add("scale", {"X": levels}, scale=1 / 16)})
            rest = writer.add("scale", {"X": high}, scale=16.0, bias=7.5)
            low = writer.add("elementwise_sub", {"X": levels, "Y": rest}, axis=-1)
            high = writer.add("scale", {"X": high}, scale=1.0, bias=0.5)
            axis = len(rows.shape) - 1
            levels = writer.add("concat", {"X": [low, high]}, axis=axis)
            if table.width % 2:
                levels = writer.add("slice", {"Input": levels}, axes=[axis], starts=[0], ends=[table.width])
        scale = writer.add(kind, {"W": scales, "Ids": ids}, **padding)
        writer.add("elementwise_mul", {"X": levels, "Y": scale}, into=rows, axis=-1)


def _restore_matrix(block: Any, name: str, matrix: Sparse) -> None:
    """Has a matrix computed from its weights before it is used for the first time."""
    from paddle.base import core

    index = next(index for index, op in enumerate(block.ops) if name in op.input_arg_names)
    block._remove_var(name)
    whole = block.create_var(name=name, shape=list(matrix.shape), dtype="float32")
    writer = _Writer(block, index)
    steps = writer.persistent(f"{name}.steps", matrix.steps)
    weights = writer.persistent(f"{name}.weights", matrix.weights)
    places = writer.add("cumsum", {"X": writer.cast(steps, "uint8", "int64")}, "int64", axis=0)
    zeros = writer.add(
        "fill_constant", {}, shape=[int(np.prod(matrix.shape))], value=0.0, dtype=int(core.VarDesc.VarType.FP32)
    )
    flat = writer.add("scatter", {"X": zeros, "Ids": places, "Updates": weights}, overwrite=True)
    writer.add("reshape2", {"X": flat}, into=whole, shape=list(matrix.shape))


# --- Models on disk ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What a model costs, and what it is worth.

    Attributes:
        bytes: of its rec_static files; private parts beside them not counted, whose rows are in there as zeros.
        memory: bytes of its parameters when it is loaded.
        milliseconds: to score all items for one user on one core, in processor time, which is the latency if nothing
            else runs there; the median of several times. None of a net with other inputs than a user and an item.
        hr, ndcg, auc: on the test shards, HR@K and NDCG@K of the model's configuration; None without any.
    """

    bytes: int
    memory: int
    milliseconds: float | None
    hr: float | None = None
    ndcg: float | None = None
    auc: float | None = None


def compress(
    source: Path, out: Path, bits: int | None = None, share: float | None = None, data: Path | None = None
) -> dict[str, Any]:
    """Makes a model smaller, into a folder of its own, whole or not at all.

    With `bits` the new model is for scoring. With `share` alone it has all weights in float32, and is for a job to
    start from that trains what is left (`runner.warmup_model_path`, `runner.keep_zeros`): so it is no smaller yet, and
    has the private parts of the old one's workers.

    Args:
        source: a folder with a model; see `SavedModel.open`.
        out: a folder that is not there; beside the model it gets what else is in `source`, but the servers' tables.
        bits: 8 or 4 for each number of an embedding; None: as they are.
        share: of each dense layer's weights that are set to 0, the smallest ones (arXiv:1710.01878); None: none. One
            threshold for all layers would cut whole layers off: of an NCF-MLP, trained weights of the first layer are
            the largest. Left alone are private layers, and those with one output, of which each weight is a whole unit.
        data: the folder with the test shards; None for that of the model's configuration.

    Returns:
        what the new model.json has under `compression`: what was done, the `Figures` before and after, and why there
        are none of the test shards, or null.

    Raises:
        ConfigError: `bits` or `share` is refused, or the net has no dense layers to prune.
        DataError: there is no model, or it can't be compressed, see `split`; or `data` will not do.
        RunError: `out` is there already, or can't be written.
    """
    if bits is None and share is None:
        raise ConfigError("A model is compressed to so many bits, or pruned. Received: neither. Add --bits 8.")
    if bits not in (None, *BITS):
        raise ConfigError(f"--bits must be one of {', '.join(map(str, BITS))}. Received: {bits}. Take 8 if unsure.")
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"--prune must be a share above 0, below 1. Received: {share:g}. For a half write 0.5.")
    if os.path.lexists(out):
        raise RunError(f"--out must be a folder that is not there yet. Received: {out}. Name another, or remove it.")
    model = SavedModel.open(source)
    environment.quiet_paddle()
    from fl_rec import checkpoint

    private_names = list(model.signature.get("private", ())) if bits is None else []
    clients = checkpoint.clients(model.folder)
    client = clients[0] if private_names and clients else None
    net = checkpoint.load(model.folder, client)
    record: dict[str, Any] = {"bits": bits, "prune": share}
    _, matrices = split(net)
    tested, record["not_tested"] = _tested(model, data)
    before = _measured(model.folder, net, tested)
    if share is not None:
        pruned = {
            name: prune(values, share)
            for name, values in matrices.items()
            if name not in private_names and min(values.shape) > 1
        }
        if not pruned:
            raise ConfigError(
                f"--prune sets weights of hidden layers to 0. Received: {share:g}, and a net that shares none. Leave "
                "it out."
            )
        for name, values in pruned.items():
            net.set_parameter(name, values)
        record["zeros"] = {name: int((values == 0).sum()) for name, values in pruned.items()}
    if bits is not None:
        net = quantise_net(net, bits)
    # Of the new model `write` tells the first three, and `compression` the figures.
    outdated = ("feeds", "private", "paddle", "metrics")
    signature = {name: each for name, each in model.signature.items() if name not in outdated}
    try:
        with checkpoint.drafted(out) as draft:
            _copy_others(model.folder, draft, bool(private_names))
            checkpoint.write(net, draft, signature, private_names)
            # Of what is on the disk: Paddle does not say so if that was full.
            new = checkpoint.load(draft, client)
            after = _measured(draft, new, evaluate(SavedModel.open(draft), None, data) if tested else {})
            record.update(before=dataclasses.asdict(before), after=dataclasses.asdict(after))
            content = {**SavedModel.open(draft).signature, "compression": record}
            (draft / SIGNATURE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as err:
        raise RunError(
            f"The compressed model must be saved, and {out} can't be written ({err.strerror or err}). Free some space "
            "or name another --out."
        ) from err
    return record


def _tested(model: SavedModel, data: Path | None) -> tuple[Mapping[str, Any], str | None]:
    """A model's figures on test shards; or none, and why."""
    if data is not None:
        return evaluate(model, None, data), None
    try:
        return evaluate(model), None
    except (ConfigError, DataError) as err:
        return {}, str(err)


def _measured(folder: Path, net: InferenceNet, tested: Mapping[str, Any]) -> Figures:
    files = sum(path.stat().st_size for path in folder.glob(f"{PREFIX}.*"))
    memory = sum(values.nbytes for values in parameters(net).values())
    figures = (tested.get(name) for name in ("hr", "ndcg", "test_auc"))
    return Figures(files, memory, _milliseconds(net), *figures)


def _copy_others(source: Path, target: Path, with_private: bool) -> None:
    """Copies what is beside a model: names of items, for instance, and the private parts if they are wanted."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.stem != PREFIX and path.name != SIGNATURE:
            shutil.copyfile(path, target / path.name)
    if with_private:
        shutil.copytree(source / "private", target / "private")


def _milliseconds(net: InferenceNet) -> float | None:
    look_ups = (op for op in net.program.global_block().ops if op.type in LOOK_UPS)
    table = next((op.input("W")[0] for op in look_ups if op.input("Ids") == [net.feeds[-1]]), None)
    if len(net.feeds) != 2 or table is None:
        return None
    items = np.arange(len(net.parameter(table)))[:, None]
    times = []
    with _one_core():
        for _ in range(_FIRST + _REPEATS):
            start = time.process_time()
            net.predict([np.zeros_like(items), items], len(items))
            times.append(time.process_time() - start)
    return 1000 * statistics.median(times[_FIRST:])


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """All threads of this process, Paddle's too, on one core."""
    allowed = os.sched_getaffinity(0)
    _allow({min(allowed)})
    try:
        yield
    finally:
        _allow(allowed)


def _allow(cores: set[int]) -> None:
    for thread in psutil.Process().threads():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(thread.id, cores)


# --- The command ---------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec compress`."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="an exported model's folder, RUN/model/EPOCH, or a run's folder"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--bits", type=int, metavar="8|4", help="bits of each number of an embedding")
    parser.add_argument(
        "--prune",
        type=float,
        metavar="SHARE",
        help="share of each hidden layer's weights that is set to 0, such as 0.5",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="what gen_heter_data.py wrote; default: where the model was trained"
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec compress`."""
    record = compress(options.model, options.out, options.bits, options.prune, options.data)
    print(f"compressed  {options.out}")
    print(format_figures(Figures(**record["before"]), Figures(**record["after"])))
    if record["not_tested"]:
        print(f"not evaluated: {record['not_tested']}")
    return 0


def format_figures(before: Figures, after: Figures) -> str:
    """A table for a terminal; `-` is no figure."""
    lines = [["", "before", "after", ""]]
    for name, title in (("bytes", "bytes on disk"), ("memory", "bytes in memory"), ("milliseconds", "ms for a user")):
        old, new = getattr(before, name), getattr(after, name)
        form = ",.1f" if name == "milliseconds" else ",d"
        lines.append(
            [title, _figure(old, form), _figure(new, form), _figure(new / old if old and new else None, ".1%")]
        )
    for name, title in (("hr", "HR"), ("ndcg", "NDCG"), ("auc", "AUC")):
        old, new = getattr(before, name), getattr(after, name)
        change = None if old is None or new is None else new - old
        lines.append([title, _figure(old, ".4f"), _figure(new, ".4f"), _figure(change, "+.4f")])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
