"""Rules between keys, each once. What needs the data or the number of workers is in each package's `check`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fl_rec.typed import error_of


@dataclass(frozen=True)
class Relation:
    """A rule about several keys.

    Attributes:
        keys: dotted names; a problem is told where the first of them was written.
        holds: what must be true of their plain values.
        says: the rule, what was received and the remedy; {0} is the first key's value, and so on.
    """

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    says: str

    def text(self, config: Mapping[str, Any]) -> str:
        return self.says.format(*(_shown(config[name]) for name in self.keys))


def broken(relations: Iterable[Relation], config: Mapping[str, Any]) -> list[Relation]:
    """Those that a configuration does not keep."""
    return [each for each in relations if not each.holds(*(config[name] for name in each.keys))]


def check(relations: Iterable[Relation], config: Mapping[str, Any]) -> None:
    """ConfigError that tells all rules that a configuration does not keep."""
    problems = [each.text(config) for each in broken(relations, config)]
    if problems:
        raise error_of(problems)


def _needs(key: str, other: str, needed: Any, why: str, unless: Callable[[Any], bool] | None = None) -> Relation:
    """A key that is set needs another to have a value, or one that `unless` takes."""
    return Relation(
        (key, other),
        lambda own, value: not own or (unless(value) if unless else value == needed),
        f"{key} needs {other}={_shown(needed)}, because {why}. Received: {{1}}. Set {other}={_shown(needed)}, or leave "
        f"{key} out.",
    )


def _shown(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


_SYNC, _SPLIT = "runner.sync_mode", "runner.split_file_list"

# Whatever the configuration is for.
ALWAYS = (
    Relation(
        ("runner.need_dump", "runner.dump_fields_path"),
        lambda need_dump, folder: not need_dump or folder is not None,
        "runner.need_dump=true needs a folder to dump into. Set runner.dump_fields_path, or runner.need_dump to false.",
    ),
    Relation(
        ("runner.infer_end_epoch", "runner.infer_start_epoch"),
        lambda end, start: end is None or end > start,
        "runner.infer_end_epoch must be above runner.infer_start_epoch. "
        "Received: infer_start_epoch={1}, infer_end_epoch={0}. The end is not evaluated itself: add 1 to it.",
    ),
    Relation(
        ("hyper_parameters.pretrained_gmf", "hyper_parameters.pretrained_mlp"),
        lambda gmf, mlp: (gmf is None) == (mlp is None),
        "hyper_parameters.pretrained_gmf and pretrained_mlp go together: NCF_NeuMF starts from both nets. "
        "Received: pretrained_gmf={}, pretrained_mlp={}. Set the other one too, or leave both out.",
    ),
    Relation(
        ("hyper_parameters.pretrained_gmf", "hyper_parameters.mode"),
        lambda gmf, mode: gmf is None or mode == "NCF_NeuMF",
        "hyper_parameters.pretrained_gmf={} is for NCF_NeuMF to start from. Received: mode={}. "
        "Set hyper_parameters.mode to NCF_NeuMF, or leave pretrained_gmf and pretrained_mlp out.",
    ),
    Relation(
        ("hyper_parameters.proximal", _SYNC),
        lambda proximal, mode: proximal == 0 or mode == "geo",
        "hyper_parameters.proximal={} needs a worker's own copy of the embeddings, which only geo keeps. "
        "Received: sync_mode={}. Set runner.sync_mode to geo, or proximal to 0.",
    ),
    Relation(
        ("runner.keep_zeros", "runner.warmup_model_path", "privacy.clip"),
        lambda keep, model, clip: not keep or (model is not None and clip is None),
        "runner.keep_zeros={} keeps the zeros of a model to start from, and noise for privacy would fall on them. "
        "Received: warmup_model_path={}, privacy.clip={}. Name a model that `fl-rec compress --prune` wrote in "
        "runner.warmup_model_path and leave privacy.clip out, or leave keep_zeros out.",
    ),
    Relation(
        ("tls.cert", "tls.key", "tls.ca"),
        lambda *files: len({path is None for path in files}) == 1,
        "tls.cert, tls.key and tls.ca go together. Received: cert={}, key={}, ca={}. Set the others too, or leave all "
        "of them out.",
    ),
    Relation(
        ("tls.crl", "tls.cert"),
        lambda crl, cert: crl is None or cert is not None,
        "tls.crl has certificates that are not taken any more. Received: crl={}, cert={}. Set tls.cert, tls.key and "
        "tls.ca too, or leave it out.",
    ),
)

# What a job that trains needs.
TRAINING = (
    Relation(
        ("privacy.delta",),
        lambda delta: delta < 1,
        "privacy.delta must be above 0 and below 1: with 1, nothing at all is guaranteed. Received: {}. Set it well "
        "below 1 / users, such as to 1e-5.",
    ),
    Relation(
        (_SYNC,),
        lambda mode: mode != "sync",
        "runner.sync_mode=sync does not work: its program has a send_barrier operator, which dies of SIGSEGV because "
        "Paddle's runtime creates the communicator that it asks for in GEO mode only (seen with 3.0.0). "
        "Set it to geo or async.",
    ),
    Relation(
        ("runner.thread_num",),
        lambda threads: threads == 1,
        "runner.thread_num must be 1: a worker reads one shard file, and the counters of rows, loss and AUC are not "
        "exact under several threads (3.0.0 counted 200,000 rows of 100,000 with two). Received: {}. For more speed, "
        "use more workers.",
    ),
    Relation(
        ("runner.use_gpu",),
        lambda use_gpu: not use_gpu,
        "runner.use_gpu must be false: the GEO communicator and its tables work on CPU tensors only. Received: {}.",
    ),
    _needs("runner.resample_negatives", _SPLIT, True, "a worker draws for the positives of its shard"),
    _needs("runner.exchanges_per_epoch", _SYNC, "geo", "only GEO's workers have a model that they exchange"),
    Relation(
        ("runner.secure_aggregation", "runner.exchanges_per_epoch"),
        lambda secure, exchanges: not secure or exchanges > 0,
        "runner.secure_aggregation needs synchronised exchanges, in which all clients' changes are added up at once: "
        "without them each sends its own when it comes to it. Received: runner.exchanges_per_epoch={1}. Set it to 1 or "
        "more, or leave runner.secure_aggregation out.",
    ),
    Relation(
        ("runner.secure_aggregation", "runner.aggregation"),
        lambda secure, aggregation: not secure or aggregation in ("mean", "weighted", "sum"),
        "runner.secure_aggregation gives sums alone, and runner.aggregation={1} has to see each client's changes. "
        "Received: both. Set aggregation to mean, weighted or sum, with runner.clip_update for a bound on what one "
        "client can do, or leave runner.secure_aggregation out.",
    ),
    Relation(
        ("runner.secure_aggregation", "privacy.clip", "runner.clip_update"),
        lambda secure, clip, longest: not secure or clip is None or longest is None,
        "runner.secure_aggregation with privacy.clip has all clients' noise hide each one's changes, and "
        "runner.clip_update would scale a client's down. Received: runner.clip_update={2}. Leave it out: privacy.clip "
        "bounds each user's change.",
    ),
    Relation(
        ("runner.secure_aggregation", "runner.on_worker_loss", "privacy.clip", "privacy.noise_multiplier"),
        lambda secure, loss, clip, noise: not secure or loss != "continue" or (clip is not None and noise > 0),
        "runner.secure_aggregation has the exchanges since the last checkpoint done again by all clients: without one "
        "that was lost, the difference of both sums would be what that one has changed. Received: "
        "runner.on_worker_loss={1}. Set it to restart, or add noise to each sum (privacy.clip, with a "
        "privacy.noise_multiplier above 0).",
    ),
    Relation(
        ("runner.secure_aggregation", "runner.exchange"),
        lambda secure, exchange: secure == (exchange == "secure_geo") or exchange is None,
        "runner.secure_aggregation is what the exchange secure_geo does, and no other. Received: {0}, with "
        "runner.exchange={1}. Leave runner.exchange out, and secure_aggregation too if it is not wanted.",
    ),
    Relation(
        ("runner.on_worker_loss", "runner.exchanges_per_epoch"),
        lambda loss, exchanges: loss != "continue" or exchanges > 0,
        "runner.on_worker_loss={} needs synchronised exchanges, in which a worker can be missing: without them each "
        "sends its changes divided by the number of all workers. Received: runner.exchanges_per_epoch={}. Set it to 1 "
        "or more, or runner.on_worker_loss to restart.",
    ),
    Relation(
        ("runner.on_worker_loss", "runner.save_interval"),
        lambda loss, interval: loss == "stop" or interval > 0,
        "runner.on_worker_loss={} goes on from a checkpoint. Received: runner.save_interval={}, by which there is "
        "none. Set it to 1 or more, or runner.on_worker_loss to stop.",
    ),
    Relation(
        ("runner.on_worker_loss", _SYNC),
        lambda loss, mode: loss == "stop" or mode == "geo",
        "runner.on_worker_loss={} goes on from a checkpoint. Received: runner.sync_mode={}, in which the servers' "
        "optimizers keep to themselves what they have gathered. Set sync_mode to geo, or on_worker_loss to stop.",
    ),
    *(
        _needs(start, _SYNC, "geo", "with async servers draw embeddings themselves, and take no others")
        for start in ("runner.warmup_model_path", "hyper_parameters.pretrained_gmf")
    ),
    _needs("runner.private_params", _SYNC, "geo", "with async every parameter is the servers'"),
    _needs("runner.private_params", _SPLIT, True, "a worker's own parameters know its own shard only"),
    Relation(
        ("runner.early_stopping", "runner.validation_data_dir"),
        lambda epochs, folder: not epochs or folder is not None,
        "runner.early_stopping needs validation shards, by which the epochs are compared. Received: early_stopping={} "
        "without runner.validation_data_dir. Set it to the folder that fl-rec prepare --validation and partition "
        "make, or leave runner.early_stopping out.",
    ),
    Relation(
        ("privacy.clip", "runner.exchanges_per_epoch"),
        lambda clip, exchanges: clip is None or exchanges > 0,
        "privacy.clip needs runner.exchanges_per_epoch: without it Paddle's communicator sends while a worker trains, "
        "and leaves no place for clipping and noise. Received: {1}. Set it to 1 or more, or leave privacy.clip out.",
    ),
    *(
        Relation(
            ("privacy.clip", "privacy.public_start", key),
            lambda clip, public, model: clip is None or public or model is None,
            f"privacy.clip can't say what {key} has cost the users whom that model was trained on. Received: {{2}}. "
            f"Leave {key} out; or, if none of this data's users is among them, set privacy.public_start=true.",
        )
        for key in ("runner.warmup_model_path", "hyper_parameters.pretrained_gmf")
    ),
    _needs("privacy.clip", "hyper_parameters.optimizer.class", "sgd", "others carry one user's rows to the next"),
    _needs(
        "privacy.clip",
        "runner.aggregation",
        "mean",
        "weights tell how many rows a worker has",
        unless=lambda aggregation: aggregation != "weighted",
    ),
    _needs("privacy.clip", "runner.private_params", None, "only users' embeddings may be private"),
    *(
        Relation(
            ("distillation.proxy_data_dir", other),
            holds,
            "distillation.proxy_data_dir has all clients draw the same rows of the public users, a positive with "
            f"runner.resample_negatives, and train them beside their own. Received: {received}. {remedy}, or leave "
            "distillation.proxy_data_dir out.",
        )
        for other, holds, received, remedy in (
            (
                "runner.resample_negatives",
                lambda folder, negatives: folder is None or negatives is not None,
                "runner.resample_negatives=null",
                "Set it, such as to 8",
            ),
            (
                "privacy.clip",
                lambda folder, clip: folder is None or clip is None,
                "privacy.clip",
                "Leave it out, for it covers nothing that is public",
            ),
        )
    ),
    Relation(
        ("distillation.students", "runner.private_params"),
        lambda students, names: not students or names == ["*"],
        "distillation.students has clients train different nets, which can't share parameters. Received: "
        "runner.private_params={1}. Set it to ['*'], or leave students out.",
    ),
)

# What one with a coordinator needs beside that.
COORDINATED = (
    Relation(
        (_SPLIT,),
        lambda split: split,
        "runner.split_file_list must be true with a coordinator, which may have a client train a part of its own "
        "shard. Received: {}.",
    ),
    Relation(
        ("runner.early_stopping",),
        lambda epochs: not epochs,
        "runner.early_stopping must be 0 with a coordinator, whose strategy decides when clients have finished. "
        "Received: {}. Leave the key out.",
    ),
    Relation(
        ("privacy.clip",),
        lambda clip: clip is None,
        "privacy.clip works without a coordinator: which clients wait, and for how long, is decided by figures "
        "that no noise protects. Received: --coordinator_num=1. Leave one of them out.",
    ),
)
