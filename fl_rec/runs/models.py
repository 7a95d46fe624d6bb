"""Saved models: the servers' tables, and the whole model for inference, which needs no fleet to load.

EPOCH/rec_static.pdmodel, .pdiparams   an inference model, as PaddleRec names it
EPOCH/tables/                          the servers' tables, as Paddle writes them
EPOCH/private/WORKER.npz               each worker's part of the private parameters, written by that worker
EPOCH/private/WORKER/                  its own inference model, if workers' nets differ (distillation.students)
EPOCH/model.json                       feeds, versions, figures and configuration

What is private is zero in the inference model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from fl_rec import environment
from fl_rec.errors import DataError, RunError
from fl_rec.files import drafted, read_json, write_json
from fl_rec.nets import graph
from fl_rec.nets.inference import InferenceNet, parameters
from fl_rec.nets.structure import Structure
from fl_rec.nets.tensors import persistent, write_tensors
from fl_rec.runs import private_parts
from fl_rec.runs.saved import PREFIX, SIGNATURE


def save(
    net: InferenceNet,
    folder: Path,
    signature: Mapping[str, Any],
    save_tables: Callable[[Path], None],
    private_names: Collection[str] = (),
) -> None:
    """Writes an epoch's model, its shared part, whole or not at all.

    Args:
        net: the model; its private parameters are not written.
        folder: the epoch's folder; a model that is there is replaced.
        signature: what goes into model.json besides the feeds.
        save_tables: writes the servers' tables into the folder it is given.
        private_names: the private parameters.

    Raises:
        RunError: if the folder can't be written.
    """
    try:
        with drafted(folder) as draft:
            save_tables(draft / "tables")
            write(net, draft, signature, private_names)
    except OSError as err:
        raise RunError(
            f"The model must be saved, and {folder} can't be written ({err.strerror or err}). Free some space or name "
            "another runner.model_save_path."
        ) from err


def write(net: InferenceNet, folder: Path, signature: Mapping[str, Any], private_names: Collection[str] = ()) -> None:
    """Writes a model and its signature into a folder that is there; for the arguments see `save`. OSError if not."""

    def written(name: str) -> np.ndarray:
        values = net.parameter(name)
        if name not in private_names:
            return values
        return np.broadcast_to(values.dtype.type(0), net.users.whole(name, values.shape))

    (folder / f"{PREFIX}.pdmodel").write_bytes(net.model)
    write_tensors(folder / f"{PREFIX}.pdiparams", map(written, persistent(net.program)))
    content = {"feeds": list(net.feeds), "private": sorted(private_names), "paddle": paddle.__version__, **signature}
    if net.structure is not None:
        content["structure"] = net.structure.to_record()
    write_json(folder / SIGNATURE, content)


def write_own(net: InferenceNet, path: Path, private_names: Collection[str]) -> None:
    """Writes the net of a worker whose net is its own, beside its private part at `path`. OSError if not."""
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    write(net, folder, {}, private_names)


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
    scope = paddle.static.Scope()
    executor = paddle.static.Executor(paddle.CPUPlace())
    try:
        if not program_path.stat().st_size:  # of which Paddle 2.6.2 dies
            raise ValueError(f"{program_path.name} is empty")
        with paddle.static.scope_guard(scope):
            program, feeds, (target,) = paddle.static.load_inference_model(str(program_path.with_suffix("")), executor)
    except (OSError, RuntimeError, ValueError, LookupError) as err:
        raise DataError(
            f"A saved model must be whole. Received: {folder}, whose {PREFIX} files Paddle can't read. Copy it "
            "again, or export it again."
        ) from err
    path = program_path.with_name(SIGNATURE)
    signature = read_json(path) if path.is_file() else {}
    structure = Structure.from_record(signature["structure"]) if "structure" in signature else None
    net = InferenceNet(program, tuple(feeds), target, scope, structure)
    names, public = list(signature.get("private", ())), list(signature.get("public_users", ()))
    if names:
        wanted = private_parts.clients(folder) if client is None else [client]
        if not wanted:
            raise DataError(f"A model with private parameters needs a worker's part of them. Received: {folder}, none.")
        parts = [private_parts.load(private_path(folder, each)) for each in wanted]
        of_users = [name for name, ids in graph.looked_up(program).items() if ids == {feeds[0]}]
        everyones = dict.fromkeys(of_users, public)
        for name, values in private_parts.join(parts, {name: net.parameter(name) for name in names}, everyones).items():
            net.set_parameter(name, values)
    return net


def load_parameters(folder: Path, client: int) -> dict[str, np.ndarray]:
    """A saved model's parameters as a worker starts from them: what is shared, and its own private part.

    Raises:
        DataError: see `load`.
    """
    return parameters(load(folder, client))
