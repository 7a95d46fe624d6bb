"""Saved models: the servers' tables, and the whole model for inference, which needs no fleet to load.

EPOCH/rec_static.pdmodel, .pdiparams   an inference model, as PaddleRec names it
EPOCH/tables/                          what the servers hold, a file for each parameter
EPOCH/private/WORKER.npz               each worker's part of the private parameters, written by that worker
EPOCH/private/WORKER/                  its own inference model, if workers' nets differ (distillation.students)
EPOCH/model.json                       feeds, versions, figures and configuration; what the files are of, and checksums

What is private is zero in the inference model. The folder is there when all workers have written their parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from fl_rec import environment
from fl_rec.errors import DataError
from fl_rec.files import begin_draft, digest, read_json, seal, write_json
from fl_rec.nets import graph
from fl_rec.nets.inference import InferenceNet, in_short, parameters
from fl_rec.nets.operators import read_program
from fl_rec.nets.structure import Structure
from fl_rec.nets.tensors import persistent, read_tensors, write_tensors
from fl_rec.runs import private_parts
from fl_rec.runs.renumber import COUNTED
from fl_rec.runs.saved import PREFIX, SIGNATURE, read_signature


def begin(
    net: InferenceNet, folder: Path, save_tables: Callable[[Path], None], private_names: Collection[str] = ()
) -> None:
    """Writes the shared part of an epoch's model into a draft, to which workers add their private parts.

    Args:
        net: the model; its private parameters are not written.
        folder: the epoch's folder.
        save_tables: writes the servers' tables into the folder it is given.
        private_names: the private parameters.

    Raises:
        OSError: the folder can't be written.
    """
    draft = begin_draft(folder, 0o700)
    save_tables(draft / "tables")
    _write_files(net, draft, private_names)


def write(net: InferenceNet, folder: Path, signature: Mapping[str, Any], private_names: Collection[str] = ()) -> None:
    """Writes a model into a folder that is there, and its signature, which binds together all that is in it by then.

    Args:
        signature: what goes into model.json besides what the net says; its `identity` if it has one; and in `data` the
            folders of what it was trained with, see `SavedModel.data_dirs`, of which is written where they lie from
            here.
        private_names: as of `begin`.

    Raises:
        OSError: it can't be written.
    """
    _write_files(net, folder, private_names)
    sign(net, folder, signature, private_names)


def sign(net: InferenceNet, folder: Path, signature: Mapping[str, Any], private_names: Collection[str] = ()) -> None:
    """Writes the signature of a model whose files are all in the folder; as `write`."""
    shapes = {name: list(each) for name, each in _shapes(net).items()}
    identity = {"run": "", "epoch": None, "data": "", **signature.get("identity", {}), "net": digest(shapes)}
    data = {name: _from(folder, path) for name, path in signature.get("data", {}).items()}
    content = {**_described(net, private_names), **signature, **COUNTED, "identity": identity, "data": data}
    seal(folder, SIGNATURE, content)


def _from(folder: Path, path: Path) -> str | None:
    """A path as it is written in a file of a folder: relative; None if they have nothing in common but the root."""
    folder, path = folder.resolve(), path.resolve()
    return None if os.path.commonpath([folder, path]) == os.sep else os.path.relpath(path, folder)


def _described(net: InferenceNet, private_names: Collection[str]) -> dict[str, Any]:
    content = {"feeds": list(net.feeds), "private": sorted(private_names), "paddle": paddle.__version__}
    return content if net.structure is None else {**content, "structure": net.structure.to_record()}


def _shapes(net: InferenceNet) -> dict[str, tuple[int, ...]]:
    block = net.program.global_block()
    return {name: net.users.whole(name, tuple(block.var(name).shape)) for name in persistent(net.program)}


def _write_files(net: InferenceNet, folder: Path, private_names: Collection[str]) -> None:
    def written(name: str) -> np.ndarray:
        values = net.parameter(name)
        if name not in private_names:
            return values
        return np.broadcast_to(values.dtype.type(0), net.users.whole(name, values.shape))

    (folder / f"{PREFIX}.pdmodel").write_bytes(net.model)
    write_tensors(folder / f"{PREFIX}.pdiparams", map(written, persistent(net.program)))


def write_own(net: InferenceNet, path: Path, private_names: Collection[str]) -> None:
    """Writes the net of a worker whose net is its own, beside its private part at `path`. OSError if not."""
    folder = path.with_suffix("")
    folder.mkdir(0o700, exist_ok=True)
    _write_files(net, folder, private_names)
    write_json(folder / SIGNATURE, _described(net, private_names), sync=False)


def private_path(folder: Path, client: int) -> Path:
    """Where a worker's part of an epoch's private parameters is."""
    return folder / "private" / f"{client}.npz"


def load(folder: Path, client: int | None = None) -> InferenceNet:
    """Reads a saved model for inference, in any process.

    Args:
        folder: an epoch's folder.
        client: the worker whose private part goes into the model; None for those of all workers.

    Raises:
        DataError: if the folder holds no model or one that is cut off, or a private part is missing or does not fit.
            `private_parts.NoCommonModel` if the workers' parts can't be joined.
        RunError: Paddle can't read it, since it was imported before fl_rec.
    """
    environment.require_old_programs()
    own = folder / "private" / str(client)
    program_path = (own if own.is_dir() else folder) / f"{PREFIX}.pdmodel"
    if client is None and next(folder.glob(f"private/*/{PREFIX}.pdmodel"), None):
        raise private_parts.NoCommonModel(
            f"Workers with nets of their own (distillation.students) have no common model. Received: {folder}, to be "
            "loaded for all of them. Load one worker's model at a time."
        )
    if not program_path.is_file():
        raise DataError(f"A saved model has {PREFIX}.pdmodel in its folder. Received: {folder}, which has not.")
    signature = read_signature(folder, client)
    if own.is_dir():
        signature = {**signature, **read_json(own / SIGNATURE)}
    net = _read_files(program_path, signature.get("structure"))
    names, public = list(signature.get("private", ())), list(signature.get("public_users", ()))
    if names:
        wanted = private_parts.clients(folder) if client is None else [client]
        if not wanted:
            raise DataError(f"A model with private parameters needs a worker's part of them. Received: {folder}, none.")
        parts = [private_parts.load(private_path(folder, each)) for each in wanted]
        of_users = [name for name, ids in graph.looked_up(net.program).items() if ids == {net.feeds[0]}]
        everyones = dict.fromkeys(of_users, public)
        for name, values in private_parts.join(parts, {name: net.parameter(name) for name in names}, everyones).items():
            net.set_parameter(name, values)
    return net


def _read_files(program_path: Path, structure: Any) -> InferenceNet:
    """The net of a program's file and of the parameters' beside it. DataError."""
    path = program_path
    try:
        program, feeds, target = read_program(path.read_bytes())
        path = program_path.with_suffix(".pdiparams")
        tensors = read_tensors(path, persistent(program))
        scope = paddle.static.Scope()
        for name, values in tensors.items():
            shape = list(program.global_block().var(name).shape)
            if list(values.shape) != shape:
                raise ValueError(f"{name} is of shape {list(values.shape)}, and {shape} in the program")
            scope.var(name).get_tensor().set(values, paddle.CPUPlace())
        told = None if structure is None else Structure.from_record(structure)
        if told is not None and not told.names <= set(tensors):
            raise ValueError(f"{SIGNATURE} tells of other parameters")
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as err:
        raise DataError(
            f"A saved model must be whole. Received: {path} ({in_short(err)}). Copy it again, or export it again."
        ) from err
    return InferenceNet(program, feeds, target, scope, told, source=program_path)


def load_parameters(folder: Path, client: int) -> dict[str, np.ndarray]:
    """A saved model's parameters as a worker starts from them: what is shared, and its own private part.

    Raises:
        DataError: see `load`.
    """
    return parameters(load(folder, client))
