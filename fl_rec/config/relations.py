"""Rules between keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fl_rec.config.schema import RunnerConfig
from fl_rec.errors import ConfigError


@dataclass(frozen=True)
class _Relation:
    """A rule about several keys."""

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    says: str


RELATIONS = (
    _Relation(
        ("runner.need_dump", "runner.dump_fields_path"),
        lambda need_dump, folder: not need_dump or folder is not None,
        "runner.need_dump=true needs a folder to dump into. Set runner.dump_fields_path, or runner.need_dump to false.",
    ),
    _Relation(
        ("runner.infer_start_epoch", "runner.infer_end_epoch"),
        lambda start, end: end is None or end > start,
        "runner.infer_end_epoch must be above runner.infer_start_epoch. "
        "Received: infer_start_epoch={}, infer_end_epoch={}. The end is not evaluated itself: add 1 to it.",
    ),
    _Relation(
        ("hyper_parameters.pretrained_gmf", "hyper_parameters.pretrained_mlp"),
        lambda gmf, mlp: (gmf is None) == (mlp is None),
        "hyper_parameters.pretrained_gmf and pretrained_mlp go together: NCF_NeuMF starts from both nets. "
        "Received: pretrained_gmf={}, pretrained_mlp={}. Set the other one too, or leave both out.",
    ),
    _Relation(
        ("hyper_parameters.pretrained_gmf", "hyper_parameters.mode"),
        lambda gmf, mode: gmf is None or mode == "NCF_NeuMF",
        "hyper_parameters.pretrained_gmf={} is for NCF_NeuMF to start from. Received: mode={}. "
        "Set hyper_parameters.mode to NCF_NeuMF, or leave pretrained_gmf and pretrained_mlp out.",
    ),
    _Relation(
        ("hyper_parameters.proximal", "runner.sync_mode"),
        lambda proximal, mode: proximal == 0 or mode == "geo",
        "hyper_parameters.proximal={} needs a worker's own copy of the embeddings, which only geo keeps. "
        "Received: sync_mode={}. Set runner.sync_mode to geo, or proximal to 0.",
    ),
    _Relation(
        ("runner.keep_zeros", "runner.warmup_model_path", "privacy.clip"),
        lambda keep, model, clip: not keep or (model is not None and clip is None),
        "runner.keep_zeros={} keeps the zeros of a model to start from, and noise for privacy would fall on them. "
        "Received: warmup_model_path={}, privacy.clip={}. Name a model that `fl-rec compress --prune` wrote in "
        "runner.warmup_model_path and leave privacy.clip out, or leave keep_zeros out.",
    ),
)


NO_SYNC = (
    "runner.sync_mode=sync does not work: its program has a send_barrier operator, which dies of SIGSEGV because "
    "Paddle's runtime creates the communicator that it asks for in GEO mode only (seen with 3.0.0). "
    "Set it to geo or async."
)


NO_THREADS = (
    "runner.thread_num must be 1: a worker reads one shard file, and the counters of rows, loss and AUC are not exact "
    "under several threads (3.0.0 counted 200,000 rows of 100,000 with two). Received: {}. For more speed, use more "
    "workers."
)


def check_training(runner: RunnerConfig) -> None:
    """Refuses settings whose needs are not met by others."""
    geo, stream, shard = ("sync_mode", "geo"), ("reader_type", "QueueDataset"), ("split_file_list", True)
    for name, is_set, (other, needed), why in (
        ("resample_negatives", runner.resample_negatives, stream, "an InmemoryDataset keeps the rows it read first"),
        ("resample_negatives", runner.resample_negatives, shard, "a worker draws for the positives of its shard"),
        ("exchanges_per_epoch", runner.exchanges_per_epoch, geo, "only GEO's workers have a model that they exchange"),
        (
            "exchanges_per_epoch",
            runner.exchanges_per_epoch,
            stream,
            "a round trains a part of a shard, read as a stream",
        ),
        ("exchanges_per_epoch", runner.exchanges_per_epoch, shard, "a round trains a part of a worker's own shard"),
        ("private_params", runner.private_params, geo, "with async every parameter is the servers'"),
        ("private_params", runner.private_params, shard, "a worker's own parameters know its own shard only"),
    ):
        value = getattr(runner, other)
        if is_set and value != needed:
            needed, value = (str(v).lower() if isinstance(v, bool) else v for v in (needed, value))
            raise ConfigError(
                f"runner.{name} needs runner.{other}={needed}, because {why}. Received: {value}. "
                f"Set runner.{other}={needed}, or leave runner.{name} out."
            )
    if runner.early_stopping and runner.validation_data_dir is None:
        raise ConfigError(
            "runner.early_stopping needs validation shards, by which the epochs are compared. Received: "
            f"early_stopping={runner.early_stopping} without runner.validation_data_dir. Set it to the folder that "
            "prepare.py --validation and gen_heter_data.py make, or leave runner.early_stopping out."
        )
