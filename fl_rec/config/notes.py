"""Settings that have no effect, or another than it seems."""

from __future__ import annotations

from fl_rec.config.loading import Config
from fl_rec.config.schema import CoordinatorConfig, PrivacyConfig, RunnerConfig


def notes_of(config: Config, num_coordinators: int) -> list[str]:
    """What the user of a job should know of its keys."""
    runner, default = config.runner, {name: item.default for name, item in RunnerConfig.model_fields.items()}
    notes = list(config.notes)
    notes += [
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
    if runner.sync_mode == "async" and runner.save_interval:
        notes.append(
            "With runner.sync_mode=async there are no checkpoints, since the servers' optimizers keep to themselves "
            "what they have gathered: a run that breaks off can only begin anew. With sync_mode=geo it goes on as it "
            "was."
        )
    if not runner.exchanges_per_epoch:
        notes += [
            f"runner.{name}={getattr(runner, name)} has no effect without synchronised exchanges: set "
            "runner.exchanges_per_epoch."
            for name in ("aggregation", "server_learning_rate", "clip_update", "reproducible")
            if getattr(runner, name) != default[name]
        ]
    if runner.secure_aggregation and runner.reproducible:
        notes.append("runner.reproducible has no effect with runner.secure_aggregation, whose sums hang on no order.")
    if runner.trim != default["trim"] and runner.aggregation != "trimmed_mean":
        notes.append(f"runner.trim={runner.trim:g} has no effect: set runner.aggregation=trimmed_mean.")
    if config.privacy.clip is None and config.privacy != PrivacyConfig():
        notes.append("privacy.* has no effect without privacy.clip: set it, such as to 1.")
    if config.privacy.clip is not None:
        # One step from the exchanged model, at which the distance to that model has no gradient.
        unused = {
            "runner.train_batch_size": runner.train_batch_size != default["train_batch_size"],
            "runner.need_dump": runner.need_dump,
            "hyper_parameters.proximal": config.hyper_parameters.proximal > 0,
        }
        notes += [
            f"{name}={config[name]} has no effect with privacy.clip: between two exchanges each user drawn makes one "
            "step, with all of the user's rows, from the model exchanged last."
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
    return notes
