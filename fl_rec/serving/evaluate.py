"""`fl-rec evaluate`: the figures of saved models on test shards, as the training log has them."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_rec import environment
from fl_rec.arguments import add_config_arguments
from fl_rec.config import Config
from fl_rec.data.manifest import TEST_FOLDER, list_own_shards, list_shards, load_manifest
from fl_rec.data.reader import Reader
from fl_rec.errors import ConfigError, DataError
from fl_rec.evaluation.evaluator import EvaluationRows
from fl_rec.evaluation.metrics import ALL, Evaluation
from fl_rec.runs.private_parts import NoCommonModel
from fl_rec.runs.saved import SavedModel, newest_run
from fl_rec.tables import RULE, figure, format_table

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet


Figures = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec evaluate`."""
    parser.add_argument(
        "models",
        nargs="*",
        type=Path,
        metavar="MODEL",
        help="a run's folder, of which the best epoch is taken, RUN/model/EPOCH, an exported folder, or a project's "
        "folder, of which the newest run is taken; default: the current folder's, in ./runs, or, with -m, the epochs "
        "that runner.infer_load_path, infer_start_epoch and infer_end_epoch name",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="test shards, or what fl-rec partition wrote; default: the model's"
    )
    parser.add_argument(
        "--format",
        choices=("json", "table"),
        help="default: a line of JSON for each model, and on a terminal a table after them",
    )
    add_config_arguments(parser, required=False)


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec evaluate`."""
    found = []
    for saved, config in _models(options):
        figures = evaluate(saved, config, options.data)
        found.append(figures)
        if options.format != "table":
            print(json.dumps(figures), flush=True)
    if options.format == "table" or (options.format is None and sys.stdout.isatty()):
        print(to_table(found))
    return 0


def evaluate(saved: SavedModel, config: Config | None = None, data: Path | None = None) -> Figures:
    """A model's figures on test shards.

    A model for one client is evaluated on that client's shard, others on all shards, those of other hosts' workers
    excepted; where workers' private parts have no common model, on each shard with its own worker's.

    Args:
        saved: an epoch's or an exported model.
        config: None for the one that it was trained with.
        data: a folder of shards, or the one with their manifest; None for runner.test_data_dir.

    Returns:
        model, epoch, client ("all" or a number), test_auc, test_users, hr, ndcg and top_k; elsewhere, the clients whose
        shards are on other hosts, if there are any.

    Raises:
        DataError, ConfigError: the model, its configuration or the data will not do.
    """
    config = config or saved.config()
    folder = _test_folder(saved, config, data)
    manifest = load_manifest(folder)
    stated = manifest.stated("test", folder) if manifest else {}
    shards = _shards(saved, folder, list(stated))
    environment.quiet_paddle()
    measured = []
    with tempfile.TemporaryDirectory(prefix="fl_rec_") as scratch:
        resolved = Path(scratch) / "config.yaml"
        config.dump(resolved)  # for a reader that asks for it
        reader = Reader.from_config(config, resolved, stated)
        for net, shard in _with_shards(saved, shards, folder):
            rows = EvaluationRows.read([shard], reader, len(net.feeds) + 1, config.runner.start_timeout)
            measured.append(rows.measure(net, config.runner.infer_batch_size, config.runner.top_k))
    return {
        "model": str(saved.folder),
        "epoch": saved.epoch,
        "client": ALL if saved.client is None else saved.client,
        **Evaluation.total(measured).to_record(),
        "top_k": config.runner.top_k,
        **({"elsewhere": saved.elsewhere} if saved.elsewhere else {}),
    }


def to_table(found: Sequence[Figures]) -> str:
    """Models' figures for people, one line each."""
    header = ["model", "epoch", "client", "users", "K", "test AUC", "HR@K", "NDCG@K"]
    lines = [
        [
            each["model"],
            figure(each["epoch"], "d"),
            _whose(each),
            f"{each['test_users']:,}",
            str(each["top_k"]),
            *(figure(each[name], ".4f") for name in ("test_auc", "hr", "ndcg")),
        ]
        for each in found
    ]
    return format_table([header, RULE, *lines], left=[0])


def _whose(each: Figures) -> str:
    away = ", ".join(map(str, each.get("elsewhere", ())))
    return f"{each['client']} but {away}" if away else str(each["client"])


def _models(options: argparse.Namespace) -> Iterator[tuple[SavedModel, Config]]:
    config = Config.load(options.config_yaml, options.opt) if options.config_yaml else None
    paths = options.models
    if not paths and config:
        folder = config.runner.infer_load_path or config.runner.model_save_path
        if folder is None:
            raise ConfigError(
                "An evaluation needs a saved model. Received: no MODEL, and neither runner.infer_load_path nor "
                f"runner.model_save_path in {config.yaml_path}. Name one."
            )
        paths = [folder / str(epoch) for epoch in config.runner.infer_epochs]
    for path in paths or [newest_run()]:
        saved = SavedModel.open(path)
        yield saved, config or saved.config(options.opt)


def _test_folder(saved: SavedModel, config: Config, data: Path | None) -> Path:
    folder = data or config.runner.test_data_dir
    if folder is None:
        raise ConfigError(
            "An evaluation needs test shards. Received: runner.test_data_dir=None. Name their folder: --data FOLDER"
        )
    manifest = load_manifest(folder)
    if manifest and manifest.folder == folder:
        folder = manifest.folder_of("test") or folder
    elif (folder / TEST_FOLDER).is_dir():
        folder = folder / TEST_FOLDER
    if not folder.is_dir():
        raise DataError(
            f"An evaluation needs test shards. Received: {folder}, which is no folder. Name the shards' folder: "
            "--data FOLDER"
        )
    manifest, mappings = load_manifest(folder), saved.signature.get("mappings")
    if manifest and manifest.mappings and mappings and manifest.mappings != mappings:
        raise DataError(
            "A model's ids mean the users and items that it was trained with. Received: shards in "
            f"{manifest.folder} whose items.csv and users.csv are not those that {saved.folder} was trained with: the "
            "data was made again since. Train again, or name the data that the model was trained with: --data FOLDER"
        )
    return folder


def _shards(saved: SavedModel, folder: Path, stated: Sequence[Path]) -> dict[int, Path]:
    """The test shards by client, of this host's."""
    if not (stated and saved.elsewhere):
        return dict(enumerate(list_shards(folder, "test_data_dir")))
    own = sorted(set(range(len(stated))) - set(saved.elsewhere))
    files = list_own_shards(folder, "test_data_dir", stated, own)
    return {client: files[client] for client in own}


def _with_shards(saved: SavedModel, shards: Mapping[int, Path], folder: Path) -> Iterator[tuple[InferenceNet, Path]]:
    """Each shard that the model is for, with what scores it."""
    from fl_rec.runs import models

    client = saved.client
    if client is not None and client not in shards:
        raise DataError(
            f"The model of client {client} is evaluated on shard {client}. Received: {len(shards)} shards in {folder}. "
            "Name the shards that it was trained with: --data FOLDER"
        )
    try:
        net = models.load(saved.folder)
    except NoCommonModel as err:
        if saved.clients != list(shards):
            raise DataError(
                f"{err} So each shard is scored with its own worker's, and there must be as many. Received: "
                f"{len(saved.clients)} workers' parts and {len(shards)} shards in {folder}. Name the shards that the "
                "model was trained with: --data FOLDER"
            ) from err
        for client, shard in shards.items():
            yield models.load(saved.folder, client), shard
    else:
        for shard in shards.values() if client is None else [shards[client]]:
            yield net, shard
