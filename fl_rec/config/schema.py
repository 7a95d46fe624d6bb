"""The keys of a configuration. A key is declared in one place, a field of one of these dataclasses: its type, default,
limits and one line of explanation. Checks, error messages, the listing under ``--help``, unknown keys and the saved
copy all derive from that field, so adding a key is adding a line.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rec.config.rules import (
    CLIENT,
    Rule,
    RuleError,
    choice,
    flag,
    fraction,
    integer,
    key,
    layer_widths,
    list_of,
    location,
    mapping,
    mappings_by_client,
    number,
    optional,
    probability,
    read_options,
    section,
    shapes,
    text,
    to_plain,
    weights,
)
from fl_rec.errors import ConfigError


def by_client(cls: type) -> Rule:
    """Settings of single clients: client number -> a dataclass of `key` fields, as plain values; "*" is all others."""

    def convert(value: Any, folder: Path) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(re.fullmatch(CLIENT, str(client)) for client in value):
            raise RuleError
        try:
            return {
                str(client): to_plain(read_options(cls, each, str(client), folder)) for client, each in value.items()
            }
        except ConfigError as err:
            raise RuleError(str(err)) from err

    keys = ", ".join(item.name for item in dataclasses.fields(cls))
    return Rule(f"a mapping of client numbers to {keys}", "Write it as 3: {slow_down: 5}; * is all others.", convert)


_NO_PYTHON_LOADER = (
    "It feeds batches from Python, and this trainer reads through Paddle's C++ data feed, where a "
    "parameter server's workers get their speed. Set it to QueueDataset; a reader of your own becomes the "
    "pipe_command."
)


_NO_HETER = "It needs GPU workers, and the workers here are CPU processes. Set it to geo."


@dataclass(frozen=True)
class RunnerConfig:
    """How a run goes: data in, training, evaluation, files out."""

    train_data_dir: Path = key(location(), "folder of training shards, shard k for worker k")
    test_data_dir: Path | None = key(optional(location()), "folder of test shards; null: no evaluation", None)
    validation_data_dir: Path | None = key(
        optional(location()), "folder of validation shards, to choose the epoch that is kept; null: the last one", None
    )

    sync_mode: str = key(
        choice("geo", "async", "sync", refused={"heter": _NO_HETER, "gpubox": _NO_HETER}),
        "how workers and servers exchange parameters",
        "geo",
    )
    exchange: str | None = key(
        optional(text()), "an exchange of your own as module:Class or file.py:Class; null: as sync_mode says", None
    )
    geo_step: int = key(integer(at_least=1), "geo: at most this many batches between two exchanges", 100)
    exchanges_per_epoch: int = key(
        integer(at_least=0), "geo: synchronised exchanges of all workers in an epoch; 0: each when it comes to it", 0
    )
    aggregation: str = key(
        choice("mean", "weighted", "sum"),
        "what a synchronised exchange makes of the workers' changes; weighted: by rows",
        "mean",
    )
    server_learning_rate: float = key(number(above=0), "factor of what a synchronised exchange changes", 1.0)
    private_params: tuple[str, ...] | None = key(
        optional(list_of(text(), "texts")),
        "geo: parameters that never leave their worker, by name, * for any text; null: the users' embeddings",
        None,
    )
    epochs: int = key(integer(at_least=1), "passes over the training data", 1)
    early_stopping: int = key(
        integer(at_least=0), "epochs without a better NDCG on the validation shards until training stops; 0: never", 0
    )
    resample_negatives: int | None = key(
        optional(integer(at_least=1)), "negatives drawn anew per positive, every epoch; null: those of the shards", None
    )
    train_batch_size: int = key(integer(at_least=1), "rows per training step", 512)
    infer_batch_size: int = key(integer(at_least=1), "rows per evaluation step", 8192)
    compress_report: str = key(
        choice("none", "float16", "int8"),
        "how float arrays of reports and decisions travel; they arrive as float32",
        "none",
    )
    thread_num: int = key(integer(at_least=1), "training threads in each worker", 1)
    use_gpu: bool = key(flag(), "train on a GPU", False)
    seed: int = key(integer(at_least=0), "seed of everything random", 2022)
    top_k: int = key(integer(at_least=1), "K of HR@K and NDCG@K", 10)
    print_interval: int = key(integer(at_least=1), "batches between two lines of progress", 500)

    reader_type: str = key(
        choice(
            "QueueDataset",
            "InmemoryDataset",
            refused=dict.fromkeys(("DataLoader", "CustomizeDataLoader", "RecDataset"), _NO_PYTHON_LOADER),
        ),
        "stream the shards from disk every epoch, or load them into memory once",
        "QueueDataset",
    )
    pipe_command: str = key(text(), "turns a shard into MultiSlot text; cat: shards as they are", "cat")
    train_reader_path: str | None = key(optional(text()), "the reader's file named in pipe_command", None)
    infer_reader_path: str | None = key(optional(text()), "the same for the test shards", None)
    split_file_list: bool = key(flag(), "deal the shards out; false: each worker reads all of them", True)
    dataset_debug: bool = key(flag(), "profile the reader", False)

    model_path: Path = key(
        optional(location()),
        "Python file with a class StaticModel; null: static_model.py beside the YAML, else models/ncf's",
        None,
    )
    run_dir: Path | None = key(optional(location()), "folder of logs and results; null: a new one", None)
    model_save_path: Path | None = key(optional(location()), "folder of saved models; null: in run_dir", None)
    warmup_model_path: Path | None = key(optional(location()), "folder of one saved epoch to start from", None)
    keep_zeros: bool = key(flag(), "weights of dense layers that are 0 in the model to start from stay 0", False)
    infer_load_path: Path | None = key(optional(location()), "saved models; null: model_save_path", None)
    infer_start_epoch: int = key(integer(at_least=0), "first epoch whose saved model is evaluated", 0)
    infer_end_epoch: int | None = key(
        optional(integer(at_least=0)), "epoch to stop before; null: evaluate one epoch", None
    )

    start_timeout: float = key(number(above=0), "seconds for servers and peers to come up", 120.0)
    barrier_timeout: float = key(number(above=0), "seconds a worker waits for the slowest other", 3600.0)

    need_dump: bool = key(flag(), "dump variables of every batch", False)
    dump_fields_path: Path | None = key(optional(location()), "folder of the dump", None)
    dump_fields: tuple[str, ...] = key(list_of(text(), "texts"), "variables to dump", ())
    dump_param: tuple[str, ...] = key(list_of(text(), "texts"), "parameters to dump", ())
    local_sparse: tuple[str, ...] = key(list_of(text(), "texts"), "no effect here; see the README", ())
    remote_sparse: tuple[str, ...] = key(list_of(text(), "texts"), "no effect here; see the README", ())

    @property
    def infer_epochs(self) -> range:
        """Epochs whose saved models are evaluated."""
        end = self.infer_end_epoch
        return range(self.infer_start_epoch, self.infer_start_epoch + 1 if end is None else end)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer of every worker."""

    class_: str = key(choice("adam", "sgd"), "optimizer", "adam")
    learning_rate: float = key(number(above=0), "step size", 0.001)
    schedule: str = key(choice("constant", "linear"), "linear: it falls to 0 at the last epoch's end", "constant")


@dataclass(frozen=True)
class HyperParameters:
    """The network; sizes left out are derived from the data."""

    optimizer: OptimizerConfig = section(OptimizerConfig)
    num_users: int | None = key(optional(integer(at_least=1)), "users; null: the data's", None)
    num_items: int | None = key(optional(integer(at_least=1)), "items; null: the data's", None)
    mode: str = key(choice("NCF_MLP", "NCF_GMF", "NCF_NeuMF"), "which network of arXiv:1708.05031", "NCF_MLP")
    mf_dim: int = key(integer(at_least=1), "width of an embedding of NCF_GMF and NCF_NeuMF", 8)
    fc_layers: tuple[int, ...] = key(layer_widths(), "widths of the fully connected layers", (64, 32, 16, 8))
    group_size: int | None = key(
        optional(integer(at_least=1)),
        "items of a training row, a positive first; null: 1 + runner.resample_negatives, or what the shards hold",
        None,
    )
    loss: str = key(text(), "a loss's name, or your own as module:function or file.py:function", "log_loss")
    loss_options: Mapping[str, Any] = key(mapping(), "what the loss lets you set", factory=dict)
    l2: Mapping[str, float] = key(
        weights(),
        "weight of the squares of the embeddings that a row looks up, or one for each by name; the first that fits",
        factory=dict,
    )
    proximal: float = key(number(at_least=0), "FedProx's mu: weight of the distance to the model trained from", 0.0)
    pretrained_gmf: Path | None = key(optional(location()), "saved epoch of NCF_GMF for NCF_NeuMF to start from", None)
    pretrained_mlp: Path | None = key(optional(location()), "the same of NCF_MLP", None)
    pretrain_alpha: float = key(fraction(), "weight of GMF in the predicting layer that they start with", 0.5)
    extra: Mapping[str, Any] = key(mapping(), "keys of your own net, with any content", factory=dict)


@dataclass(frozen=True)
class ClientConfig:
    """The device that a client is taken to be."""

    type: str = key(text(), "any word, such as phone", "machine")
    slow_down: float = key(number(at_least=1), "its processor takes this many times longer than this machine's", 1.0)
    bandwidth: float | None = key(optional(number(above=0)), "bytes per second to the servers; null: no limit", None)


@dataclass(frozen=True)
class CoordinatorConfig:
    """The coordinator, if there is one: fleetrun --coordinator_num=1."""

    strategy: str = key(text(), "a strategy's name, or your own as module:Class or file.py:Class", "join_all")
    options: Mapping[str, Any] = key(mapping(), "what the strategy lets you set", factory=dict)
    round_timeout: float = key(number(above=0), "seconds from a round's first report until it is decided", 60.0)
    coordinator_timeout: float = key(number(above=0), "seconds that a worker tries to reach the coordinator", 60.0)
    on_coordinator_loss: str = key(choice("stop", "continue"), "what a worker does then", "stop")
    report_fields: Mapping[str, Any] = key(shapes(), "your own fields of a report, with their shapes", factory=dict)
    max_message_bytes: int = key(integer(at_least=1024), "longest message that either side takes", 1 << 20)
    clients: Mapping[str, Any] = key(by_client(ClientConfig), "devices to emulate", factory=dict)

    def client(self, number: int) -> ClientConfig:
        """What is configured for a client."""
        return ClientConfig(**(self.clients.get(str(number)) or self.clients.get("*") or {}))


@dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of what a worker shares, for each of its users; fl_rec/privacy says what it covers."""

    clip: float | None = key(
        optional(number(above=0)),
        "L2 norm to which a user's change of all shared parameters is clipped; null: no differential privacy",
        None,
    )
    noise_multiplier: float = key(
        number(at_least=0), "standard deviation of the noise on every coordinate, over clip; 0: only clipped", 1.0
    )
    delta: float = key(probability(), "delta for which epsilon is told; keep it well below 1 / users", 1e-5)
    users_per_exchange: float | None = key(
        optional(probability()),
        "chance of each user to be drawn for an exchange; null: 1 / runner.exchanges_per_epoch",
        None,
    )


@dataclass(frozen=True)
class DistillationConfig:
    """What a client learns from the coordinator's teacher; see fl_rec/distillation/proxy.py."""

    proxy_data_dir: Path | None = key(
        optional(location()), "folder of the public users' rows, which all clients hold; null: no distillation", None
    )
    positives: int = key(
        integer(at_least=1), "public interactions whose rows, with their negatives, a round is about", 28_000
    )
    students: Mapping[str, Any] = key(
        mappings_by_client(),
        "hyper_parameters in which clients' nets differ; runner.private_params must be [*]",
        factory=dict,
    )
    temperature: float = key(number(above=0), "by which both logits are divided in the distillation loss", 2.0)
    weight: float = key(number(at_least=0), "weight of the distillation loss beside the rows' own", 10.0)


# Old names of keys, which still work.
RENAMED = {
    "runner.rounds_per_epoch": "runner.exchanges_per_epoch",
    "privacy.users_per_round": "privacy.users_per_exchange",
}

# Keys that PaddleRec's configurations may hold and this project leaves out on purpose.
ABSENT = {
    "runner.with_coordinator": "Remove it: fleetrun --coordinator_num=1 starts a coordinator.",
    "runner.with_coodinator": "Remove it: fleetrun --coordinator_num=1 starts a coordinator.",
    "runner.use_auc": "Remove it: AUC is always measured.",
    "runner.auc_num": "Remove it: AUC is always measured.",
    "runner.use_visual": "Remove it: every figure is written to metrics.jsonl in the run's folder.",
    "runner.use_fleet": "Remove it: training always runs under fleet.",
    "runner.use_inference": "Remove it: the model for inference is always saved.",
    "runner.example_count_method": "Remove it: rows are counted and compared with the data's manifest.",
    "runner.use_xpu": "Remove it: the parameter server of Paddle's wheels runs on CPU.",
    "runner.use_npu": "Remove it: the parameter server of Paddle's wheels runs on CPU.",
    "runner.init_model_path": "Rename it to runner.warmup_model_path.",
    "runner.model_init_path": "Rename it to runner.warmup_model_path.",
}
