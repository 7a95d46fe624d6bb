"""What each worker of a job reads, and whether the configuration fits the data. No Paddle is imported here."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fl_rec.config import Config
from fl_rec.data.manifest import Manifest, ShardFile, check_shards, list_own_shards, list_shards, load_manifest
from fl_rec.data.reader import AS_IS, Reader
from fl_rec.errors import ConfigError, DataError

KINDS = ("train_data_dir", "test_data_dir", "validation_data_dir")
# As a manifest calls them.
NAMES = ("train", "test", "validation")


@dataclass(frozen=True)
class Facts:
    """What the checks of a job go by beside its configuration.

    Attributes:
        workers, coordinators: how many there are.
        shards: the files of each of `KINDS`; none of one that is not configured.
        manifest: that of the training shards; None if they have none.
        own: the workers whose shards must be here; None for all.
    """

    workers: int
    coordinators: int = 0
    shards: dict[str, list[Path]] = field(default_factory=dict)
    manifest: Manifest | None = None
    own: frozenset[int] | None = None

    @classmethod
    def of(cls, config: Config, workers: int, coordinators: int, own: Collection[int] | None = None) -> Facts:
        """Raises DataError: a folder is missing or holds no shards, or the manifest can't be read."""
        folders = {kind: getattr(config.runner, kind) for kind in KINDS}
        manifest = load_manifest(config.runner.train_data_dir)
        if own is None or len(own) == workers or not config.runner.split_file_list:
            shards = {kind: list_shards(folder, kind) if folder else [] for kind, folder in folders.items()}
            return cls(workers, coordinators, shards, manifest)
        if manifest is None:
            raise DataError(
                "Where workers are on several hosts, a manifest.json tells whose shard is whose. Received: none in "
                f"{config.runner.train_data_dir} or beside it. Copy it from where the data was partitioned, or let "
                "fl-rec shards FOLDER write it where all shards are."
            )
        shards = {
            kind: list_own_shards(folder, kind, list((load_manifest(folder) or manifest).stated(name, folder)), own)
            if folder
            else []
            for (kind, folder), name in zip(folders.items(), NAMES)
        }
        return cls(workers, coordinators, shards, manifest, frozenset(own))

    def deal(self, config: Config, kind: str) -> tuple[tuple[Path, ...], ...]:
        """For each worker, its files of a kind."""
        files = self.shards[kind]
        if files and config.runner.split_file_list:
            return tuple((path,) for path in files)
        return (tuple(files),) * self.workers

    def stated(self, config: Config) -> dict[Path, ShardFile]:
        """What the manifest says of each shard."""
        found: dict[Path, ShardFile] = {}
        for kind, name in zip(KINDS, NAMES):
            folder = getattr(config.runner, kind)
            if self.manifest is not None and folder is not None and _belongs(folder, self.manifest):
                found.update(self.manifest.stated(name, folder))
        return found

    def deal_rows(self, config: Config) -> tuple[int | None, ...]:
        """For each worker, the lines of its training shards; None if there is no manifest to say."""
        if self.manifest is None:
            return (None,) * self.workers
        if config.runner.split_file_list:
            return tuple(shard.train.rows for shard in self.manifest.shards)
        return (sum(shard.train.rows for shard in self.manifest.shards),) * self.workers

    def deal_popularity(self, config: Config) -> tuple[Mapping[str, float] | None, ...]:
        """For each worker, see `Manifest.popularity_at`, of its test users; None if nothing tells."""
        if self.manifest is None:
            return (None,) * self.workers
        shards = range(self.workers) if config.runner.split_file_list else [None] * self.workers
        return tuple(self.manifest.popularity_at(config.runner.top_k, shard) for shard in shards)


def check(config: Config, job: Facts) -> Config:
    """The configuration with the data's sizes filled in.

    Raises:
        ConfigError: a setting contradicts the data.
        DataError: the shards are not what their manifest says.
    """
    if job.manifest is not None:
        _check_shards(config, job.manifest, job.own)
        _require_negatives(config, job.manifest)
        config = config.with_sizes(job.manifest.num_users, job.manifest.num_items)
    for name in ("num_users", "num_items"):
        if getattr(config.hyper_parameters, name) is None:
            raise ConfigError(
                f"hyper_parameters.{name} can be left out only if the data has a manifest.json. Received: no manifest "
                f"in {config.runner.train_data_dir} or beside it. Set the key, or let fl-rec shards FOLDER count the "
                "shards and write it."
            )
    for kind, files in job.shards.items():
        if files and config.runner.split_file_list:
            _require_one_per_worker(files, kind, job.workers)
    reader = Reader.from_config(config, Path(os.devnull))
    if job.manifest is None:  # nobody has checked the rows; a worker checks all of them
        for path in (path for files in job.shards.values() for path in files):
            reader.peek(path)
    return config.replace(**{"hyper_parameters.group_size": _group_size(config, job.manifest)})


def notes_of(config: Config, job: Facts) -> list[str]:
    """What the user should know of settings that the data makes less of than it seems."""
    num_items, manifest = config.hyper_parameters.num_items, job.manifest
    if not (config.runner.resample_negatives and manifest and num_items and num_items > manifest.num_items):
        return []
    return [
        f"runner.resample_negatives draws from hyper_parameters.num_items={num_items} items, of which the data has "
        f"{manifest.num_items}: negatives that nobody could like teach less. Leave num_items out."
    ]


def _check_shards(config: Config, manifest: Manifest, own: Collection[int] | None) -> None:
    runner = config.runner
    others = (
        folder if folder and _belongs(folder, manifest) else None
        for folder in (runner.test_data_dir, runner.validation_data_dir)
    )
    check_shards(manifest, runner.train_data_dir, *others, own=own)
    if manifest.format != "multislot" and runner.pipe_command.strip() == AS_IS:
        raise ConfigError(
            f"The shards in {runner.train_data_dir} are {manifest.format}, and Paddle reads MultiSlot text. "
            'Received: runner.pipe_command=cat. Set it to a reader, such as "python queuedataset_reader.py", '
            "or write MultiSlot shards."
        )


def _require_negatives(config: Config, manifest: Manifest) -> None:
    files = [shard.train for shard in manifest.shards]
    one_sided = all(file.positives == file.rows * manifest.group_size for file in files)
    if one_sided and config.runner.resample_negatives is None:
        raise ConfigError(
            "Training needs rows of label 0 beside those of label 1. Received: none in the shards in "
            f"{config.runner.train_data_dir}, as fl-rec prepare --num_neg 0 leaves them. Draw them: set "
            "runner.resample_negatives=4"
        )


def _belongs(folder: Path, manifest: Manifest) -> bool:
    found = load_manifest(folder)
    return found is not None and found.folder == manifest.folder


def _require_one_per_worker(files: Sequence[Path], kind: str, workers: int) -> None:
    if len(files) != workers:
        raise ConfigError(
            f"Shard k belongs to worker k, so there must be as many shards as workers. Received: {len(files)} files in "
            f"{files[0].parent} (runner.{kind}) and {workers} workers. Start {len(files)} workers, or write "
            f"{workers} shards: fl-rec partition --num_shards {workers}"
        )


def _group_size(config: Config, manifest: Manifest | None) -> int:
    """Items of a training row."""
    given, negatives = config.hyper_parameters.group_size, config.runner.resample_negatives
    sizes: tuple[int, ...] = (given or 1,)
    rule = remedy = ""
    if negatives is not None:
        sizes = (1 + negatives, 1)
        rule = f"{1 + negatives}, a positive with its runner.resample_negatives={negatives}, or 1"
        remedy = f"Leave it out for {1 + negatives}, or set it to 1 for a row per item."
    elif manifest is not None:
        sizes = (manifest.group_size,)
        rule = f"{manifest.group_size}, which is what a row in {manifest.folder} holds"
        remedy = "Leave it out, make other shards with fl-rec partition --group, or set runner.resample_negatives."
    if given is not None and given not in sizes:
        raise ConfigError(f"hyper_parameters.group_size must be {rule}. Received: {given}. {remedy}")
    return sizes[0] if given is None else given
