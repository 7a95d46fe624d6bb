"""What can be known to be wrong before any process starts. No Paddle is imported here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_rec import plugins
from fl_rec.config import Config, CoordinatorConfig, PrivacyConfig, RunnerConfig, to_plain
from fl_rec.config.relations import NO_SYNC, NO_THREADS, check_training
from fl_rec.coordinator.strategies import Fleet, new_strategy
from fl_rec.data.manifest import Manifest, check_shards, list_shards, load_manifest
from fl_rec.data.reader import AS_IS, Reader
from fl_rec.distillation.proxy import check_distillation, check_students
from fl_rec.errors import ConfigError
from fl_rec.nets.contract import locate_net
from fl_rec.nets.losses import find_loss
from fl_rec.privacy.mechanism import check_privacy
from fl_rec.ps import registry as exchanges


@dataclass(frozen=True)
class Job:
    """A checked job.

    Attributes:
        config: with every size filled in.
        train_shards, test_shards, validation_shards: for each worker, its files; none of a kind that is not configured.
        train_rows: for each worker, the rows that it trains in an epoch; None if there is no manifest to say.
        notes: what the user should know of a setting that has no effect, or another than it seems.
        mappings: see `Manifest`; empty without one.
    """

    config: Config
    train_shards: tuple[tuple[Path, ...], ...]
    test_shards: tuple[tuple[Path, ...], ...]
    validation_shards: tuple[tuple[Path, ...], ...]
    train_rows: tuple[int | None, ...]
    notes: tuple[str, ...]
    mappings: Mapping[str, str]


def check_job(config: Config, num_workers: int, num_coordinators: int = 0) -> Job:
    """Checks a configuration against the data, the machine and the number of workers and coordinators.

    Raises:
        ConfigError: a setting can't work, or contradicts the data.
        DataError: data is missing or is not what its manifest says.
    """
    runner = config.runner
    if runner.sync_mode == "sync":
        raise ConfigError(NO_SYNC)
    if runner.thread_num != 1:
        raise ConfigError(NO_THREADS.format(runner.thread_num))
    if runner.use_gpu:
        raise ConfigError(
            "runner.use_gpu must be false: the GEO communicator and its tables work on CPU tensors only. "
            "Received: true."
        )
    check_training(runner)
    check_privacy(config, num_coordinators)
    check_distillation(config)
    train = list_shards(runner.train_data_dir, "train_data_dir")
    test, validation = (
        list_shards(folder, key) if folder else []
        for folder, key in (
            (runner.test_data_dir, "test_data_dir"),
            (runner.validation_data_dir, "validation_data_dir"),
        )
    )
    manifest = load_manifest(runner.train_data_dir)
    if manifest is not None:
        others = (
            folder if folder and _belongs(folder, manifest) else None
            for folder in (runner.test_data_dir, runner.validation_data_dir)
        )
        check_shards(manifest, runner.train_data_dir, *others)
        if manifest.format != "multislot" and runner.pipe_command.strip() == AS_IS:
            raise ConfigError(
                f"The shards in {runner.train_data_dir} are {manifest.format}, and Paddle reads MultiSlot text. "
                'Received: runner.pipe_command=cat. Set it to a reader, such as "python queuedataset_reader.py", '
                "or write MultiSlot shards."
            )
        config = config.with_sizes(manifest.num_users, manifest.num_items)
    for name in ("num_users", "num_items"):
        if getattr(config.hyper_parameters, name) is None:
            raise ConfigError(
                f"hyper_parameters.{name} can be left out only if the data has a manifest.json. Received: no manifest "
                f"in {runner.train_data_dir} or beside it. Set the key, or make the shards with gen_heter_data.py."
            )
    config = _with_group_size(config, manifest)
    find_loss(config)
    exchanges.check(config)
    # The job's own copy of the configuration lies elsewhere.
    config = config.replace(
        **{
            "hyper_parameters.loss": plugins.absolute(config.hyper_parameters.loss, config.yaml_path.parent),
            "runner.exchange": runner.exchange and plugins.absolute(runner.exchange, config.yaml_path.parent),
        }
    )
    _require_one_per_worker(train, num_workers, config, "train_data_dir")
    if test:
        _require_one_per_worker(test, num_workers, config, "test_data_dir")
    if validation:
        _require_one_per_worker(validation, num_workers, config, "validation_data_dir")
    locate_net(runner.model_path)
    Reader.from_config(config, Path(os.devnull), Path(os.devnull))
    check_students(config, num_workers)
    if num_coordinators:
        config = _check_coordinator(config, num_workers, num_coordinators)
    return Job(
        config,
        _deal(train, num_workers, config),
        _deal(test, num_workers, config),
        _deal(validation, num_workers, config),
        _deal_rows(manifest, num_workers, config),
        _notes(config, manifest, num_coordinators),
        manifest.mappings if manifest else {},
    )


def _belongs(folder: Path, manifest: Manifest) -> bool:
    found = load_manifest(folder)
    return found is not None and found.folder == manifest.folder


def _with_group_size(config: Config, manifest: Manifest | None) -> Config:
    """The configuration with the number of items that a training row holds."""
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
        remedy = "Leave it out, make other shards with gen_heter_data.py --group, or set runner.resample_negatives."
    if given is not None and given not in sizes:
        raise ConfigError(f"hyper_parameters.group_size must be {rule}. Received: {given}. {remedy}")
    return config.replace(**{"hyper_parameters.group_size": sizes[0] if given is None else given})


def _check_coordinator(config: Config, num_workers: int, num_coordinators: int) -> Config:
    """The configuration with the strategy's options and paths filled in, so that it can be read elsewhere."""
    runner, settings = config.runner, config.coordinator
    if num_coordinators > 1:
        raise ConfigError(f"A job has one coordinator at most. Received: --coordinator_num={num_coordinators}.")
    for name, value, needed in (
        ("reader_type", runner.reader_type, "QueueDataset"),
        ("split_file_list", runner.split_file_list, True),
    ):
        if value != needed:
            raise ConfigError(
                f"runner.{name} must be {str(needed).lower() if needed is True else needed} with a coordinator, which "
                f"may have a client train a part of its own shard, read as a stream. Received: {value}."
            )
    if runner.early_stopping:
        raise ConfigError(
            "runner.early_stopping must be 0 with a coordinator, whose strategy decides when clients have finished. "
            f"Received: {runner.early_stopping}. Leave the key out."
        )
    strangers = [client for client in settings.clients if client != "*" and int(client) >= num_workers]
    if strangers:
        raise ConfigError(
            f"coordinator.clients must name clients 0 to {num_workers - 1}. Received: {', '.join(strangers)}."
        )
    folder = config.yaml_path.parent
    fleet = Fleet(num_workers, runner.epochs, runner.seed, config=config)
    strategy = new_strategy(settings.strategy, settings.options, fleet, folder)
    return config.replace(
        **{
            "coordinator.strategy": plugins.absolute(settings.strategy, folder),
            "coordinator.options": to_plain(strategy.options),
            "coordinator.report_fields": {**settings.report_fields, **strategy.report_fields},
        }
    )


def _notes(config: Config, manifest: Manifest | None, num_coordinators: int) -> tuple[str, ...]:
    runner = config.runner
    notes = [
        f"runner.{name}={getattr(runner, name)} is not read: training and test shards both go through "
        f"runner.pipe_command={runner.pipe_command!r}, whose script is found beside the YAML or beside the net."
        for name in ("train_reader_path", "infer_reader_path")
        if getattr(runner, name)
    ]
    if runner.local_sparse or runner.remote_sparse:
        # Seen with 3.0.0: test AUC 0.50 after two epochs, 0.69 without.
        notes.append(
            "runner.local_sparse and runner.remote_sparse have no effect: embeddings are exchanged as sync_mode says. "
            "With them Paddle would build another program, NuPS, whose loss falls while its servers give back other "
            "values of a remote table than were trained, so that what is evaluated and saved would not be the model."
        )
    num_items = config.hyper_parameters.num_items
    if runner.resample_negatives and manifest and num_items and num_items > manifest.num_items:
        notes.append(
            f"runner.resample_negatives draws from hyper_parameters.num_items={num_items} items, of which the data has "
            f"{manifest.num_items}: negatives that nobody could like teach less. Leave num_items out."
        )
    if not runner.exchanges_per_epoch:
        notes += [
            f"runner.{name}={getattr(runner, name)} has no effect without rounds: set runner.exchanges_per_epoch."
            for name in ("aggregation", "server_learning_rate")
            if getattr(runner, name) != getattr(RunnerConfig, name)
        ]
    if config.privacy.clip is None and config.privacy != PrivacyConfig():
        notes.append("privacy.* has no effect without privacy.clip: set it, such as to 1.")
    if config.privacy.clip is not None:
        # One step from the round's model, at which the distance to that model has no gradient.
        unused = {
            "runner.train_batch_size": runner.train_batch_size != RunnerConfig.train_batch_size,
            "runner.need_dump": runner.need_dump,
            "hyper_parameters.proximal": config.hyper_parameters.proximal > 0,
        }
        notes += [
            f"{name}={config[name]} has no effect with privacy.clip: a round is one step of each user drawn, with all "
            "of the user's rows, from the round's model."
            for name, given in unused.items()
            if given
        ]
    if config.distillation.proxy_data_dir is not None and not (
        num_coordinators and config.coordinator.strategy == "distill"
    ):
        notes.append(
            "distillation.proxy_data_dir: the public users' rows are trained with their labels alone. For soft targets "
            "start the job with --coordinator_num 1 and coordinator.strategy=distill."
        )
    if not num_coordinators and config.coordinator != CoordinatorConfig():
        notes.append("coordinator.* has no effect without a coordinator: start the job with --coordinator_num 1.")
    return tuple(notes)


def _require_one_per_worker(files: list[Path], num_workers: int, config: Config, key: str) -> None:
    if config.runner.split_file_list and len(files) != num_workers:
        raise ConfigError(
            f"Shard k belongs to worker k, so there must be as many shards as workers. Received: {len(files)} files in "
            f"{files[0].parent} (runner.{key}) and {num_workers} workers. Start {len(files)} workers, or write "
            f"{num_workers} shards: gen_heter_data.py --num_shards {num_workers}"
        )


def _deal_rows(manifest: Manifest | None, num_workers: int, config: Config) -> tuple[int | None, ...]:
    if manifest is None:
        return (None,) * num_workers
    negatives, group_size = config.runner.resample_negatives, config.hyper_parameters.group_size
    if negatives is not None and group_size is not None:
        return tuple(shard.train.positives * (1 + negatives) // group_size for shard in manifest.shards)
    if config.runner.split_file_list:
        return tuple(shard.train.rows for shard in manifest.shards)
    return (manifest.totals["train_rows"],) * num_workers


def _deal(files: list[Path], num_workers: int, config: Config) -> tuple[tuple[Path, ...], ...]:
    if not files:
        return ((),) * num_workers
    if config.runner.split_file_list:
        return tuple((path,) for path in files)
    return (tuple(files),) * num_workers
