"""`fl-rec export`: a saved model as a folder that needs nothing else.

FOLDER/rec_static.pdmodel, .pdiparams       as of an epoch's model, private parameters included
FOLDER/model.json                           inputs and output, ids, versions, where it is from, figures, configuration
FOLDER/items.csv, users.csv, history.npz    see `fl_rec.data.catalogue`
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_rec import __version__, environment
from fl_rec.config.received import portable
from fl_rec.data.catalogue import Catalogue
from fl_rec.data.manifest import MANIFEST_NAME, Manifest, load_manifest
from fl_rec.errors import DataError, RunError
from fl_rec.evaluation.metrics import ALL
from fl_rec.nets import graph
from fl_rec.runs import private_parts
from fl_rec.runs.saved import EXPORTED, SavedModel, newest_run

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec export`."""
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        metavar="RUN|EPOCH_FOLDER|PROJECT",
        help="a run's folder, of which the best epoch is taken, RUN/model/EPOCH, or a project's folder, of which the "
        "newest run is taken; default: the current folder's, in ./runs",
    )
    parser.add_argument("--client", type=int, metavar="K", help="for the users of one worker; default: for all users")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write; default: RUN/exported")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="what fl-rec partition wrote; default: where the model was trained"
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec export`."""
    saved = SavedModel.open(options.model or newest_run())
    out = export(saved, options.out, options.client, options.data)
    signature = SavedModel.open(out).signature
    figures = signature["metrics"]
    quality = f", HR@{figures['top_k']} {figures['hr']:.4f}" if figures.get("hr") is not None else ""
    whose = f"client {options.client}"
    if options.client is None:
        whose = f"all clients but {_listed(saved.elsewhere)} of other hosts" if saved.elsewhere else "all clients"
    print(f"model     {saved.folder}: epoch {signature['epoch']}, {whose}{quality}")
    print(f"ids       {signature['ids']['users']:,} users, {signature['ids']['items']:,} items")
    print(f"exported  {out}")
    return 0


def export(saved: SavedModel, out: Path | None = None, client: int | None = None, data: Path | None = None) -> Path:
    """Writes an epoch's model as a folder that needs nothing else, whole or not at all.

    Args:
        saved: an epoch's model.
        out: the folder; an exported model that is there is replaced. None for `exported` in the run's folder.
        client: whose users it is for; None for all of this host, if their private parts can be joined.
        data: the folder of the shards, or the one with their manifest; None for that of the configuration.

    Returns:
        the folder.

    Raises:
        DataError: the model, its data or the client will not do.
        RunError: the folder can't be written, or holds something else.
    """
    out = _destination(saved, out)
    manifest = _manifest(saved, data or saved.data_dirs.get("train_data_dir"))
    clients = sorted(set(range(manifest.num_shards)) - set(saved.elsewhere)) if client is None else [client]
    _require_here(saved, client)
    _require_parts(saved, manifest, client, clients)
    catalogue = Catalogue.of_shards(manifest, saved.signature.get("mappings", {}), clients)
    # Two seconds to import: by now the usual mistakes have been told.
    with environment.static_paddle():
        _write(saved, catalogue, client, out)
    return out


def _write(saved: SavedModel, catalogue: Catalogue, client: int | None, out: Path) -> None:
    from fl_rec import files
    from fl_rec.runs import models

    try:
        net = models.load(saved.folder, client)
    except private_parts.NoCommonModel as err:
        raise DataError(f"{err} One client's: --client K") from err
    if client is not None:
        _require_users(saved, client, net, catalogue)
    try:
        with files.drafted(out) as draft:
            checksums = catalogue.write(draft)
            signature = {
                "fl_rec": __version__,
                "run": saved.run.path.resolve().name if saved.run else None,
                "epoch": saved.epoch,
                "client": ALL if client is None else client,
                "inputs": [_described(net, name) for name in net.feeds],
                "output": _described(net, net.target.name),
                "ids": {"users": len(catalogue.users), "items": len(catalogue.items.title), "sha256": checksums},
                "mappings": saved.signature.get("mappings", {}),
                "metrics": saved.metrics(client),
                "config": portable(saved.signature.get("config", {})),
                "identity": saved.signature.get("identity", {}),
                "data": saved.data_dirs,
                **({"elsewhere": saved.elsewhere} if saved.elsewhere else {}),
            }
            models.write(net, draft, signature)
    except OSError as err:
        raise RunError(
            f"The exported model must be written, and {out} can't be ({err.strerror or err}). Free some space or name "
            "another --out."
        ) from err


def _destination(saved: SavedModel, out: Path | None) -> Path:
    """The folder to write, which must not be somebody's own."""
    if saved.exported:
        raise DataError(
            f"What is exported is an epoch's model. Received: {saved.folder}, which is an exported model. Name a run's "
            "folder or RUN/model/EPOCH."
        )
    if out is None and saved.run is None:
        raise DataError(
            f"Without --out a model is exported into its run's folder. Received: {saved.folder}, which lies in no run. "
            "Name a folder: --out DIR"
        )
    out = out or saved.run.path / EXPORTED  # type: ignore[union-attr]
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_exported(out))):
        raise RunError(
            f"An exported model takes the place of an older one, and of nothing else. Received: --out {out}, which "
            "holds something else. Name another folder."
        )
    return out


def _is_exported(folder: Path) -> bool:
    try:
        return SavedModel.open(folder).exported
    except DataError:
        return False


def _manifest(saved: SavedModel, data: Path | None) -> Manifest:
    manifest = load_manifest(data) if data else None
    if manifest is None:
        raise DataError(
            "An exported model has the names of its users and items, and their history, from the shards that it was "
            f"trained with. Received: no {MANIFEST_NAME} in {data} or beside it. Let fl-rec shards "
            "FOLDER write it, or name the folder that fl-rec partition wrote: --data FOLDER"
            if data
            else f"trained with. Received: {saved.folder}, which lies in no run that tells where they are. Name the "
            "folder that fl-rec partition wrote: --data FOLDER"
        )
    return manifest


def _require_here(saved: SavedModel, client: int | None) -> None:
    """DataError if a client is one of another host."""
    if client in saved.elsewhere:
        raise DataError(
            f"A client's model is exported where its data is. Received: --client {client}, which trained on another "
            f"host, as {_listed(saved.elsewhere)} did. Export it there."
        )


def _listed(clients: Sequence[int]) -> str:
    return ", ".join(map(str, clients))


def _require_parts(saved: SavedModel, manifest: Manifest, client: int | None, wanted: Sequence[int]) -> None:
    """The model must have the private parts of those who are wanted."""
    if not saved.signature.get("private"):
        if client is not None:
            raise DataError(
                f"A client's model is what all share and its own private part. Received: --client {client}, and "
                f"{saved.folder}, in which nothing is private. Leave --client out."
            )
        return
    missing = sorted(set(wanted) - set(saved.clients))
    if missing:
        raise DataError(
            f"A model for {'all users' if client is None else f'client {client}'} needs the private part of client "
            f"{missing[0]}. Received: those of {_listed(saved.clients) or 'nobody'} in {saved.folder}, and "
            f"{manifest.num_shards} shards in {manifest.folder}. Name a client with --client, or the data that the "
            "model was trained with: --data FOLDER"
        )


def _require_users(saved: SavedModel, client: int, net: InferenceNet, catalogue: Catalogue) -> None:
    """The users that a client has trained must be those of its shard, or public."""
    from fl_rec.runs import models

    known = np.union1d(catalogue.users, np.array(saved.signature.get("public_users", ()), np.int64))
    part = private_parts.load(models.private_path(saved.folder, client))
    for name, ids in graph.looked_up(net.program).items():
        rows = part[name].rows if name in part and net.feeds[0] in ids else None
        if rows is not None and not np.isin(rows, known).all():
            raise DataError(
                f"Client {client} has trained the users of shard {client}. Received: user "
                f"{np.setdiff1d(rows, known)[0]}, which is not in it: the users were dealt out anew since. "
                "Name the data that the model was trained with: --data FOLDER"
            )


def _described(net: InferenceNet, name: str) -> dict[str, Any]:
    variable = net.program.global_block().var(name)
    return {"name": name, "dtype": net.dtype(name), "shape": list(variable.shape)}
