"""The keys of a configuration. A key is declared in one place, a field of one of these models: its type, default,
limits and one line of explanation. Checks, error messages, the listing under ``--help``, unknown keys, the saved copy
and the JSON Schema all derive from that field, so adding a key is adding a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import AfterValidator, BeforeValidator, StringConstraints, WithJsonSchema

from fl_rec.typed import (
    AtLeast,
    AtMost,
    Fraction,
    Keys,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Refused,
    Says,
    Values,
    key,
)


def _even_first(layers: tuple[int, ...]) -> tuple[int, ...]:
    if layers[0] % 2:
        raise ValueError(
            "The first is the width of a user's and an item's embedding side by side, each half of it: "
            f"set it to {layers[0] + 1}."
        )
    return layers


def _for_all(value: Any) -> Any:
    return value if value is None or isinstance(value, Mapping) else {"*": value}


Layers = Annotated[
    tuple[PositiveInt, ...],
    MinLen(2),
    AfterValidator(_even_first),
    Says("a list of at least 2 integers of at least 1, the first one even", "Write it as [64, 32, 16, 8]."),
]
# Names of arrays with their shapes; [] is a number.
Shapes = Annotated[
    Mapping[str, tuple[PositiveInt, ...]],
    Says("a mapping of names to shapes", "Write [] for a number and [16] for an array of 16 numbers."),
]
# By name, with * for any text; a number is that of all names.
Weights = Annotated[
    Mapping[str, NonNegativeFloat],
    BeforeValidator(_for_all),
    Says(
        "a number of at least 0, or a mapping of names to such numbers",
        'Write it as 0.001 or {"*user*": 0.002, "*item*": 0.001}.',
    ),
    WithJsonSchema({"type": ["number", "object"], "minimum": 0, "additionalProperties": {"type": "number"}}),
]
# A client's number; "*" is all others.
Client = Annotated[str, BeforeValidator(str), StringConstraints(pattern=r"^(0|[1-9]\d*|\*)$")]

_NO_HETER = "It needs GPU workers, and the workers here are CPU processes. Set it to geo."
_NO_PYTHON_LOADER = (
    "It feeds batches from Python, and rows are read once here and trained as arrays or by Paddle's C++ data feed, "
    "where the speed is. Set it to QueueDataset; a reader of your own becomes the pipe_command."
)
SyncMode = Annotated[Literal["geo", "async", "sync"], Refused(dict.fromkeys(("heter", "gpubox"), _NO_HETER))]
ReaderType = Annotated[
    Literal["QueueDataset", "InmemoryDataset"],
    Refused(dict.fromkeys(("DataLoader", "CustomizeDataLoader", "RecDataset"), _NO_PYTHON_LOADER)),
]

# It is always filled in, so that it is never null in the code.
_OR_NULL = Says(
    "a path, or null", "Write it in quotes; a relative path starts at the YAML's folder. Or leave the key out."
)
_DEVICES = Says(
    "a mapping of client numbers to type, slow_down, bandwidth", "Write it as 3: {slow_down: 5}; * is all others."
)
_STUDENTS = Says("a mapping of client numbers to mappings", "Write it as 3: {mf_dim: 8}; * is all others.")


class RunnerConfig(Keys):
    """How a run goes: data in, training, evaluation, files out."""

    train_data_dir: Path = key(..., "folder of training shards, shard k for worker k")
    test_data_dir: Path | None = key(None, "folder of test shards; null: no evaluation")
    validation_data_dir: Path | None = key(
        None, "folder of validation shards, to choose the epoch that is kept; null: the last one"
    )

    sync_mode: SyncMode = key("geo", "how workers and servers exchange parameters")
    exchange: str | None = key(
        None, "an exchange of your own as module:Class or file.py:Class; null: as sync_mode says"
    )
    geo_step: PositiveInt = key(100, "geo: at most this many batches between two exchanges", "batches")
    exchanges_per_epoch: NonNegativeInt = key(
        0, "geo: synchronised exchanges of all workers in an epoch; 0: each when it comes to it", "exchanges"
    )
    aggregation: Literal["mean", "weighted", "sum", "trimmed_mean", "median"] = key(
        "mean",
        "what a synchronised exchange makes of the workers' changes; weighted: by rows; trimmed_mean, median: number "
        "by number, so that few can't move it far",
    )
    trim: Annotated[float, AtLeast(0), AtMost(0.49)] = key(
        0.1, "trimmed_mean: share of the clients, rounded up, whose numbers are left out at either end"
    )
    clip_update: PositiveFloat | None = key(
        None, "L2 norm to which a client's changes in a synchronised exchange are scaled down; null: none"
    )
    on_divergence: Literal["stop", "warn"] = key(
        "stop", "when training diverges, or a client's changes or figures can't be: end, or go on without them"
    )
    reproducible: bool = key(
        False, "have workers send one after another in a synchronised exchange: the same seed, the same run bit for bit"
    )
    secure_aggregation: bool = key(
        False, "add up clients' changes in a synchronised exchange so that nobody, no server either, sees any one's"
    )
    server_learning_rate: PositiveFloat = key(1.0, "factor of what a synchronised exchange changes")
    private_params: tuple[str, ...] | None = key(
        None, "geo: parameters that never leave their worker, by name, * for any text; null: the users' embeddings"
    )
    epochs: PositiveInt = key(1, "passes over the training data", "epochs")
    early_stopping: NonNegativeInt = key(
        0, "epochs without a better NDCG on the validation shards until training stops; 0: never", "epochs"
    )
    resample_negatives: PositiveInt | None = key(
        None, "negatives drawn anew per positive, every epoch; null: those of the shards", "rows"
    )
    train_batch_size: PositiveInt = key(512, "rows per training step", "rows")
    infer_batch_size: PositiveInt = key(8192, "rows per evaluation step", "rows")
    compress_report: Literal["none", "float16", "int8"] = key(
        "none", "how float arrays of reports and decisions travel; they arrive as float32"
    )
    thread_num: PositiveInt = key(1, "training threads in each worker", "threads")
    local_step: Literal["auto", "graph", "compiled"] = key(
        "auto", "what trains a batch: Paddle's graph, or code compiled for the net; auto: compiled where it can"
    )
    use_gpu: bool = key(False, "train on a GPU")
    seed: NonNegativeInt = key(2022, "seed of everything random")
    top_k: PositiveInt = key(10, "K of HR@K and NDCG@K", "items")
    log_to: tuple[str, ...] = key(
        (), "where figures go too: tensorboard, visualdl, mlflow, or a tracker of your own as file.py:Class"
    )
    print_interval: PositiveInt = key(500, "batches between two lines of progress", "batches")

    reader_type: ReaderType = key(
        "QueueDataset", "graph: have Paddle's data feed stream the rows from a file, or load them first"
    )
    pipe_command: str = key("cat", "turns a shard into MultiSlot text; cat: shards as they are")
    train_reader_path: str | None = key(None, "the reader's file named in pipe_command")
    infer_reader_path: str | None = key(None, "the same for the test shards")
    split_file_list: bool = key(True, "deal the shards out; false: each worker reads all of them")
    dataset_debug: bool = key(False, "profile the reader")

    model_path: Annotated[Path, _OR_NULL] = key(
        None, "Python file with a class StaticModel; null: static_model.py beside the YAML, else models/ncf's"
    )
    run_dir: Path | None = key(None, "folder of logs and results; null: a new one")
    model_save_path: Path | None = key(None, "folder of saved models; null: in run_dir")
    warmup_model_path: Path | None = key(None, "folder of one saved epoch to start from")
    keep_zeros: bool = key(False, "weights of dense layers that are 0 in the model to start from stay 0")
    infer_load_path: Path | None = key(None, "saved models; null: model_save_path")
    infer_start_epoch: NonNegativeInt = key(1, "first epoch whose saved model is evaluated; a run's first is 1")
    infer_end_epoch: NonNegativeInt | None = key(None, "epoch to stop before; null: evaluate one epoch")

    save_interval: NonNegativeInt = key(
        1, "epochs between two checkpoints, from which fl-rec resume goes on; 0: none", "epochs"
    )
    keep_checkpoints: PositiveInt = key(2, "checkpoints that stay, the newest ones", "checkpoints")
    on_worker_loss: Literal["stop", "restart", "continue"] = key(
        "stop",
        "when a worker's process is lost: the job ends, or goes on from its last checkpoint, with all workers or, in "
        "that epoch, without the lost one",
    )

    start_timeout: PositiveFloat = key(120.0, "seconds for servers and peers to come up", "seconds")
    barrier_timeout: PositiveFloat = key(3600.0, "seconds a worker waits for the slowest other", "seconds")
    heartbeat_timeout: Annotated[float, AtLeast(2)] = key(
        30.0, "seconds without a sign of life, however busy, until a role is taken for frozen", "seconds"
    )

    need_dump: bool = key(False, "dump variables of every batch")
    dump_fields_path: Path | None = key(None, "folder of the dump")
    dump_fields: tuple[str, ...] = key((), "variables to dump")
    dump_param: tuple[str, ...] = key((), "parameters to dump")
    local_sparse: tuple[str, ...] = key((), "no effect here; see docs/paddlerec.md")
    remote_sparse: tuple[str, ...] = key((), "no effect here; see docs/paddlerec.md")

    @property
    def infer_epochs(self) -> range:
        """Epochs whose saved models are evaluated."""
        end = self.infer_end_epoch
        return range(self.infer_start_epoch, self.infer_start_epoch + 1 if end is None else end)


class OptimizerConfig(Keys):
    """The optimizer of every worker."""

    class_: Literal["adam", "sgd"] = key("adam", "optimizer")
    learning_rate: PositiveFloat = key(0.001, "step size")
    schedule: Literal["constant", "linear"] = key("constant", "linear: it falls to 0 at the last epoch's end")


class HyperParameters(Keys):
    """The network; sizes left out are derived from the data."""

    optimizer: OptimizerConfig = key(OptimizerConfig(), "the optimizer of every worker")
    num_users: PositiveInt | None = key(None, "users; null: the data's", "users")
    num_items: PositiveInt | None = key(None, "items; null: the data's", "items")
    mode: Literal["NCF_MLP", "NCF_GMF", "NCF_NeuMF"] = key("NCF_MLP", "which network of arXiv:1708.05031")
    mf_dim: PositiveInt = key(8, "width of an embedding of NCF_GMF and NCF_NeuMF", "numbers")
    fc_layers: Layers = key((64, 32, 16, 8), "widths of the fully connected layers", "numbers")
    group_size: PositiveInt | None = key(
        None,
        "items of a training row, a positive first; null: 1 + runner.resample_negatives, or what the shards hold",
        "items",
    )
    loss: str = key("log_loss", "a loss's name, or your own as module:function or file.py:function")
    loss_options: Values = key({}, "what the loss lets you set")
    l2: Weights = key(
        {}, "weight of the squares of the embeddings that a row looks up, or one for each by name; the first that fits"
    )
    proximal: NonNegativeFloat = key(0.0, "FedProx's mu: weight of the distance to the model trained from")
    pretrained_gmf: Path | None = key(None, "saved epoch of NCF_GMF for NCF_NeuMF to start from")
    pretrained_mlp: Path | None = key(None, "the same of NCF_MLP")
    pretrain_alpha: Fraction = key(0.5, "weight of GMF in the predicting layer that they start with")
    extra: Values = key({}, "keys of your own net, with any content")


class ClientConfig(Keys):
    """The device that a client is taken to be."""

    type: str = key("machine", "any word, such as phone")
    slow_down: Annotated[float, AtLeast(1)] = key(
        1.0, "its processor takes this many times longer than this machine's", "times"
    )
    bandwidth: PositiveFloat | None = key(None, "bytes per second to the servers; null: no limit", "bytes per second")


class CoordinatorConfig(Keys):
    """The coordinator, if there is one: fleetrun --coordinator_num=1."""

    strategy: str = key("join_all", "a strategy's name, or your own as module:Class or file.py:Class")
    options: Values = key({}, "what the strategy lets you set")
    round_timeout: PositiveFloat = key(60.0, "seconds from a round's first report until it is decided", "seconds")
    coordinator_timeout: PositiveFloat = key(60.0, "seconds that a worker tries to reach the coordinator", "seconds")
    on_coordinator_loss: Literal["stop", "continue"] = key("stop", "what a worker does then")
    report_fields: Shapes = key({}, "your own fields of a report, with their shapes")
    max_message_bytes: Annotated[int, AtLeast(1024)] = key(1 << 20, "longest message that either side takes", "bytes")
    clients: Annotated[Mapping[Client, ClientConfig], _DEVICES] = key({}, "devices to emulate")

    def client(self, number: int) -> ClientConfig:
        """What is configured for a client."""
        return self.clients.get(str(number)) or self.clients.get("*") or ClientConfig()


class TlsConfig(Keys):
    """Mutual TLS of the coordinator, and of the link between hosts; `fl-rec certs` makes the files."""

    cert: Path | None = key(
        None,
        "certificate, PEM; {name} in paths stands for its owner: coordinator, client-K or a host's name; null: no TLS",
    )
    key_: Path | None = key(None, "its private key, PEM, not encrypted")
    ca: Path | None = key(None, "certificates of those who sign the others', PEM")
    crl: Path | None = key(None, "list of revoked certificates, PEM, for who is connected to; null: none")


class PrivacyConfig(Keys):
    """Differential privacy of what a worker shares, for each of its users; fl_rec/privacy says what it covers."""

    clip: PositiveFloat | None = key(
        None, "L2 norm to which a user's change of all shared parameters is clipped; null: no differential privacy"
    )
    noise_multiplier: NonNegativeFloat = key(
        1.0, "standard deviation of the noise on every coordinate, over clip; 0: only clipped"
    )
    delta: Probability = key(1e-5, "delta for which epsilon is told; keep it well below 1 / users")
    public_start: bool = key(
        False, "the model that training starts from was trained on none of the users, and costs none of them privacy"
    )
    users_per_exchange: Probability | None = key(
        None, "chance of each user to be drawn for an exchange; null: 1 / runner.exchanges_per_epoch"
    )


class DistillationConfig(Keys):
    """What a client learns from the coordinator's teacher; see fl_rec/distillation/proxy.py."""

    proxy_data_dir: Path | None = key(
        None, "folder of the public users' rows, which all clients hold; null: no distillation"
    )
    positives: PositiveInt = key(
        28_000, "public interactions whose rows, with their negatives, a round is about", "interactions"
    )
    students: Annotated[Mapping[Client, Values], _STUDENTS] = key(
        {}, "hyper_parameters in which clients' nets differ; runner.private_params must be [*]"
    )
    temperature: PositiveFloat = key(2.0, "by which both logits are divided in the distillation loss")
    weight: NonNegativeFloat = key(10.0, "weight of the distillation loss beside the rows' own")


class Sections(Keys):
    """The whole configuration."""

    runner: RunnerConfig = key(..., "section of the run")
    hyper_parameters: HyperParameters = key(HyperParameters(), "the network; sizes left out are derived from the data")
    coordinator: CoordinatorConfig = key(CoordinatorConfig(), "the coordinator, if there is one")
    tls: TlsConfig = key(TlsConfig(), "mutual TLS of the coordinator, and of the link between hosts")
    privacy: PrivacyConfig = key(PrivacyConfig(), "differential privacy of what a worker shares")
    distillation: DistillationConfig = key(DistillationConfig(), "what a client learns from the coordinator's teacher")


# Old names of keys, which still work.
RENAMED = {
    "runner.rounds_per_epoch": "runner.exchanges_per_epoch",
    "privacy.users_per_round": "privacy.users_per_exchange",
}

# Sections that may stand elsewhere too.
ALSO_AT = {"coordinator.tls": "tls"}

# What users of other libraries may call a key, to be told its name.
OTHERS_NAMES = {
    "lr": "hyper_parameters.optimizer.learning_rate",
    "batch_size": "runner.train_batch_size",
    "num_epochs": "runner.epochs",
    "embedding_size": "hyper_parameters.mf_dim",
    "data_path": "runner.train_data_dir",
    "output_dir": "runner.run_dir",
}

# Keys that PaddleRec's configurations may hold and this project leaves out on purpose.
ABSENT = {
    "runner.with_coordinator": "Remove it: fleetrun --coordinator_num=1 starts a coordinator.",
    "runner.with_coodinator": "Remove it: fleetrun --coordinator_num=1 starts a coordinator.",
    "runner.use_auc": "Remove it: AUC is always measured.",
    "runner.auc_num": "Remove it: AUC is always measured.",
    "runner.use_visual": "Write runner.log_to: [visualdl]. Every figure is in metrics.jsonl in the run's folder too.",
    "runner.use_fleet": "Remove it: training always runs under fleet.",
    "runner.use_inference": "Remove it: the model for inference is always saved.",
    "runner.example_count_method": "Remove it: rows are counted and compared with the data's manifest.",
    "runner.use_xpu": "Remove it: the parameter server of Paddle's wheels runs on CPU.",
    "runner.use_npu": "Remove it: the parameter server of Paddle's wheels runs on CPU.",
    "runner.init_model_path": "Rename it to runner.warmup_model_path.",
    "runner.model_init_path": "Rename it to runner.warmup_model_path.",
}
