"""What can be known to be wrong before any process starts. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_rec import trackers
from fl_rec.config import Config, notes, relations
from fl_rec.coordinator import check as coordinator
from fl_rec.data import check as data
from fl_rec.data.manifest import MANIFEST_NAME, ShardFile
from fl_rec.distillation import proxy as distillation
from fl_rec.errors import ConfigError
from fl_rec.evaluation.claims import Known
from fl_rec.files import sha256_of
from fl_rec.nets import check as nets
from fl_rec.privacy import mechanism as privacy
from fl_rec.privacy.secure_sum import clients as secure_sum
from fl_rec.ps import registry as ps
from fl_rec.runs.saved import read_signature
from fl_rec.steps import choice as steps

# In the order of what they need of one another.
CHECKS = (
    *(data.check, nets.check, privacy.check, secure_sum.check, distillation.check, steps.check, ps.check),
    *(coordinator.check, trackers.check),
)


@dataclass(frozen=True)
class Job:
    """A checked job.

    Attributes:
        config: with every size filled in.
        train_shards, test_shards, validation_shards: for each worker, its files; none of a kind that is not configured.
        train_rows: for each worker, the lines of its training shards; None if there is no manifest to say.
        stated: what a manifest says of a shard; see `Reader`.
        notes: what the user should know of a setting that has no effect, or another than it seems.
        mappings, clients: see `Manifest`; empty without one.
        checksum: the manifest's SHA-256; empty without one.
        popularity: figures of ranking by training counts, `hr@K` and `ndcg@K`; None if no manifest tells.
        own_popularity: the same for each worker's own test users.
        known: what each worker's figures can't be above.
    """

    config: Config
    train_shards: tuple[tuple[Path, ...], ...]
    test_shards: tuple[tuple[Path, ...], ...]
    validation_shards: tuple[tuple[Path, ...], ...]
    train_rows: tuple[int | None, ...]
    stated: Mapping[Path, ShardFile]
    notes: tuple[str, ...]
    mappings: Mapping[str, str]
    clients: tuple[str, ...]
    checksum: str
    popularity: Mapping[str, float] | None
    own_popularity: tuple[Mapping[str, float] | None, ...]
    known: tuple[Known, ...]


def check_job(
    config: Config, num_workers: int, num_coordinators: int = 0, own_workers: Collection[int] | None = None
) -> Job:
    """Checks a configuration against the data, the machine and the number of workers and coordinators.

    Args:
        own_workers: those on this host, whose data must be here; None for all.

    Raises:
        ConfigError: a setting can't work, or contradicts the data.
        DataError: data is missing or is not what its manifest says.
    """
    relations.check(relations.TRAINING, config)
    if num_coordinators:
        relations.check(relations.COORDINATED, config)
    told = notes.notes_of(config, num_coordinators)
    job = data.Facts.of(config, num_workers, num_coordinators, own_workers)
    for check in CHECKS:
        config = check(config, job)
    checksum = sha256_of(job.manifest.folder / MANIFEST_NAME) if job.manifest else ""
    _require_public(config, checksum)
    train, test, validation = (job.deal(config, kind) for kind in data.KINDS)
    return Job(
        config,
        train,
        test,
        validation,
        job.deal_rows(config),
        job.stated(config),
        (*told, *data.notes_of(config, job), *privacy.notes_of(config, job)),
        job.manifest.mappings if job.manifest else {},
        job.manifest.clients if job.manifest else (),
        checksum,
        job.manifest.popularity_at(config.runner.top_k) if job.manifest else None,
        job.deal_popularity(config),
        _known(config["hyper_parameters.num_users"], job.stated(config), test, validation),
    )


def _require_public(config: Config, checksum: str) -> None:
    """ConfigError if a guarantee of privacy starts from a model that was trained on this very data."""
    if config.privacy.clip is None or not checksum:
        return
    for key in ("runner.warmup_model_path", "hyper_parameters.pretrained_gmf", "hyper_parameters.pretrained_mlp"):
        path = config[key]
        if path is not None and read_signature(path).get("identity", {}).get("data") == checksum:
            raise ConfigError(
                f"privacy.clip with {key} needs a model that has seen none of the users, as privacy.public_start says. "
                f"Received: {path}, which was trained on this very data. Leave {key} out."
            )


def _known(users: int, stated: Mapping[Path, ShardFile], *shards: Sequence[Sequence[Path]]) -> tuple[Known, ...]:
    """For each worker, by its test and validation shards."""

    def of(files: Sequence[Path]) -> tuple[int, int | None]:
        found = [stated[path] for path in files if path in stated]
        if len(found) < len(files):
            return users, None
        return min(users, sum(each.users for each in found)), sum(each.rows for each in found)

    return tuple(Known(*of(test), of(validation)[0]) for test, validation in zip(*shards))
