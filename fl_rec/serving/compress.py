"""`fl-rec compress`: a saved model made smaller, and what that costs; see `fl_rec.serving.quantise` for how."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from fl_rec import environment
from fl_rec.arguments import add_config_arguments
from fl_rec.config import Config
from fl_rec.config.received import without_folders
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.nets import graph
from fl_rec.runs.saved import PREFIX, SIGNATURE, SavedModel, read_signature
from fl_rec.serving.evaluate import evaluate
from fl_rec.serving.quantise import BITS, prune, quantise_net, split
from fl_rec.tables import figure, format_table

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet


# Times that all items are scored for one user, after as many as it takes to be as fast as it gets.
_REPEATS, _FIRST = 30, 5


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
    source: Path,
    out: Path,
    bits: int | None = None,
    share: float | None = None,
    data: Path | None = None,
    config: Config | None = None,
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
        config: by which they are read; None for the model's, which runs no reader of its own.

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
    from fl_rec import files
    from fl_rec.runs import models

    private_names = list(model.signature.get("private", ())) if bits is None else []
    client = model.clients[0] if private_names and model.clients else None
    read_signature(model.folder)  # of all workers' parts, which are copied
    net = models.load(model.folder, client)
    record: dict[str, Any] = {"bits": bits, "prune": share}
    _, matrices = split(net)
    tested, why = _tested(model, data, config)
    record["not_tested"] = why
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
    # Of the new model `write` tells the first four, and `compression` the figures.
    outdated = ("feeds", "private", "paddle", "structure", "metrics", "files")
    signature = {name: each for name, each in model.signature.items() if name not in outdated}
    signature["data"] = model.data_dirs
    try:
        with files.drafted(out) as draft:
            _copy_others(model, draft, bool(private_names))
            models.write(net, draft, signature, private_names)
            # Of what is on the disk: Paddle does not say so if that was full.
            new = models.load(draft, client)
            after = _measured(draft, new, evaluate(SavedModel.open(draft), config, data) if tested else {})
            record.update(before=dataclasses.asdict(before), after=dataclasses.asdict(after))
            told = {**record, "not_tested": why and without_folders(why)}
            content = {**SavedModel.open(draft).signature, "compression": told}
            files.write_json(draft / SIGNATURE, content)
    except OSError as err:
        raise RunError(
            f"The compressed model must be saved, and {out} can't be written ({err.strerror or err}). Free some space "
            "or name another --out."
        ) from err
    return record


def _tested(model: SavedModel, data: Path | None, config: Config | None) -> tuple[Mapping[str, Any], str | None]:
    """A model's figures on test shards; or none, and why, unless it was said by what to test it."""
    if data is not None or config is not None:
        return evaluate(model, config, data), None
    try:
        return evaluate(model), None
    except (ConfigError, DataError) as err:
        return {}, str(err)


def _measured(folder: Path, net: InferenceNet, tested: Mapping[str, Any]) -> Figures:
    files = sum(path.stat().st_size for path in folder.glob(f"{PREFIX}.*"))
    from fl_rec.nets.inference import parameters

    memory = sum(values.nbytes for values in parameters(net).values())
    figures = (tested.get(name) for name in ("hr", "ndcg", "test_auc"))
    return Figures(files, memory, _milliseconds(net), *figures)


def _copy_others(model: SavedModel, target: Path, with_private: bool) -> None:
    """Copies what is beside a model: names of items, for instance, and the private parts if they are wanted.

    A link that model.json does not list, with its checksum, may lead to what is the user's own, and is left out.
    """
    source, listed = model.folder, model.signature.get("files", ())

    def left_out(folder: str, names: list[str]) -> list[str]:
        paths = (Path(folder, name) for name in names)
        return [path.name for path in paths if path.is_symlink() and str(path.relative_to(source)) not in listed]

    names = [path.name for path in sorted(source.iterdir()) if path.is_file()]
    for name in sorted({*names} - {*left_out(str(source), names), SIGNATURE}):
        if Path(name).stem != PREFIX:
            shutil.copyfile(source / name, target / name)
    if with_private:
        shutil.copytree(source / "private", target / "private", ignore=left_out)


def _milliseconds(net: InferenceNet) -> float | None:
    table = next((each.table for each in graph.look_ups(net.program) if each.ids == net.feeds[-1]), None)
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
        "--data", type=Path, metavar="FOLDER", help="what fl-rec partition wrote; default: where the model was trained"
    )
    add_config_arguments(parser, required=False)


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec compress`."""
    config = Config.load(options.config_yaml, options.opt) if options.config_yaml else None
    if config is None and options.opt:
        config = SavedModel.open(options.model).config(options.opt)
    record = compress(options.model, options.out, options.bits, options.prune, options.data, config)
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
        share = new / old if old and new else None
        lines.append([title, figure(old, form), figure(new, form), figure(share, ".1%")])
    for name, title in (("hr", "HR"), ("ndcg", "NDCG"), ("auc", "AUC")):
        old, new = getattr(before, name), getattr(after, name)
        change = None if old is None or new is None else new - old
        lines.append([title, figure(old, ".4f"), figure(new, ".4f"), figure(change, "+.4f")])
    return format_table(lines)
