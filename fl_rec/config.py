"""Configuration: a YAML file, and ``key=value`` overrides, become one frozen, typed, checked `Config`.

A key is declared in one place, a field of one of the dataclasses below: its type, default, limits and
one line of explanation. Checks, error messages, the listing under ``--help``, unknown keys and the saved
copy all derive from that field, so adding a key is adding a line.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import difflib
import json
import math
import numbers
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import yaml

from fl_rec.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[1]


# --- Rules: what a key accepts -------------------------------------------------------------------------


class _RuleError(Exception):
    """A value breaks its rule."""

    def __init__(self, remedy: str | None = None) -> None:
        """`remedy`: one that fits the value better than the rule's own."""
        super().__init__(remedy)
        self.remedy = remedy


@dataclass(frozen=True)
class Rule:
    """What a key accepts.

    Attributes:
        accepts: completes "must be ...".
        remedy: a sentence that tells the user what to write instead.
        convert: (value as YAML read it, folder of the YAML) -> value of the final type; raises `_RuleError`.
    """

    accepts: str
    remedy: str
    convert: Callable[[Any, Path], Any]


def _as_number(value: Any) -> Any:
    if isinstance(value, str):
        for convert in (int, float):
            try:
                value = convert(value)
                break
            except ValueError:
                continue
    # bool is a subclass of int, yet `epochs: true` is a mistake.
    try:
        finite = isinstance(value, numbers.Real) and math.isfinite(value)
    except OverflowError as err:  # a whole number that no float can hold
        raise _RuleError from err
    if isinstance(value, bool) or not finite:
        raise _RuleError
    return value


def integer(at_least: int) -> Rule:
    """An int; 100, "100" and "1e2" are accepted, 2.5 and true are not."""

    def convert(value: Any, _folder: Path) -> int:
        value = _as_number(value)
        if value != int(value) or value < at_least:
            raise _RuleError
        return int(value)

    return Rule(f"an integer of at least {at_least}", f"Set it to {at_least} or more.", convert)


def number(above: float = -math.inf, at_least: float | None = None) -> Rule:
    """A finite float; text such as "1e-3" is accepted."""

    def convert(value: Any, _folder: Path) -> float:
        converted = float(_as_number(value))
        if converted <= above or (at_least is not None and converted < at_least):
            raise _RuleError
        return converted

    limit = f"above {above:g}" if at_least is None else f"of at least {at_least:g}"
    return Rule(f"a number {limit}", f"Set it to a finite number {limit}.", convert)


def fraction() -> Rule:
    """A float from 0 to 1."""

    def convert(value: Any, _folder: Path) -> float:
        converted = float(_as_number(value))
        if not 0 <= converted <= 1:
            raise _RuleError
        return converted

    return Rule("a number from 0 to 1", "Set it to 0, 1 or something between.", convert)


def probability() -> Rule:
    """A float above 0, up to 1."""

    def convert(value: Any, _folder: Path) -> float:
        converted = float(_as_number(value))
        if not 0 < converted <= 1:
            raise _RuleError
        return converted

    return Rule("a number above 0, up to 1", "Set it to 1 or something between.", convert)


def flag() -> Rule:
    """A bool; true, "True", "false", 0 and 1 are accepted."""
    meanings = {"true": True, "1": True, "false": False, "0": False}

    def convert(value: Any, _folder: Path) -> bool:
        try:
            return meanings[str(value).lower()]
        except KeyError:
            raise _RuleError from None

    return Rule("true or false", "Set it to true or false.", convert)


def text() -> Rule:
    """A non-empty str."""

    def convert(value: Any, _folder: Path) -> str:
        if not isinstance(value, str) or not value.strip():
            raise _RuleError
        return value

    return Rule("a text that is not empty", "Write some text in quotes.", convert)


def location() -> Rule:
    """A file or folder, there or not, as an absolute Path; a relative one starts at the YAML's folder."""

    def convert(value: Any, folder: Path) -> Path:
        # An empty text would quietly name the YAML's own folder.
        if not isinstance(value, (str, Path)) or not str(value).strip():
            raise _RuleError
        return (folder / Path(value).expanduser()).resolve()

    return Rule("a path", "Write it in quotes; a relative path starts at the YAML's folder.", convert)


def choice(*names: str, refused: Mapping[str, str] | None = None) -> Rule:
    """One of `names`; `refused` maps a value that PaddleRec knew to the reason and the remedy."""

    def convert(value: Any, _folder: Path) -> str:
        if value in names:
            return str(value)
        near = difflib.get_close_matches(str(value), names, n=1)
        raise _RuleError((refused or {}).get(str(value)) or (f"Did you mean {near[0]}?" if near else None))

    return Rule("one of " + ", ".join(names), "Choose one of them.", convert)


def list_of(item: Rule, each: str) -> Rule:
    """A list, kept as a tuple; `each` names its elements in the plural."""

    def convert(value: Any, folder: Path) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _RuleError
        return tuple(item.convert(element, folder) for element in value)

    return Rule(f"a list of {each}", "Write it as [first, second].", convert)


def layer_widths() -> Rule:
    """Widths of the fully connected layers, a tuple of int."""
    widths = list_of(integer(at_least=1), "integers")

    def convert(value: Any, folder: Path) -> tuple[int, ...]:
        layers: tuple[int, ...] = widths.convert(value, folder)
        if len(layers) < 2:
            raise _RuleError
        if layers[0] % 2:
            raise _RuleError(
                "The first is the width of a user's and an item's embedding side by side, each half of it: "
                f"set it to {layers[0] + 1}."
            )
        return layers

    accepts = "a list of at least 2 integers of at least 1, the first one even"
    return Rule(accepts, "Write it as [64, 32, 16, 8].", convert)


def mapping() -> Rule:
    """Any content, as a dict of its own."""

    def convert(value: Any, _folder: Path) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise _RuleError
        return copy.deepcopy(dict(value))

    return Rule("a mapping of names to values", "Write its keys indented under it.", convert)


def shapes() -> Rule:
    """Names of arrays with their shapes, tuples of int; [] is a number."""
    shape = list_of(integer(at_least=1), "integers")

    def convert(value: Any, folder: Path) -> dict[str, tuple[int, ...]]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _RuleError
        return {name: shape.convert(each, folder) for name, each in value.items()}

    return Rule("a mapping of names to shapes", "Write [] for a number and [16] for an array of 16 numbers.", convert)


def weights() -> Rule:
    """Names, with * for any text, and their weights, of at least 0; a number is that of all names."""
    weight = number(at_least=0)

    def convert(value: Any, folder: Path) -> dict[str, float]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            value = {"*": value}
        if not all(isinstance(name, str) for name in value):
            raise _RuleError
        return {name: weight.convert(each, folder) for name, each in value.items()}

    accepts = "a number of at least 0, or a mapping of names to such numbers"
    return Rule(accepts, 'Write it as 0.001 or {"*user*": 0.002, "*item*": 0.001}.', convert)


_CLIENT = r"0|[1-9]\d*|\*"


def by_client(cls: type) -> Rule:
    """Settings of single clients: client number -> a dataclass of `key` fields, as plain values; "*" is all others."""

    def convert(value: Any, folder: Path) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(re.fullmatch(_CLIENT, str(client)) for client in value):
            raise _RuleError
        try:
            return {
                str(client): to_plain(read_options(cls, each, str(client), folder)) for client, each in value.items()
            }
        except ConfigError as err:
            raise _RuleError(str(err)) from err

    keys = ", ".join(item.name for item in dataclasses.fields(cls))
    return Rule(f"a mapping of client numbers to {keys}", "Write it as 3: {slow_down: 5}; * is all others.", convert)


def mappings_by_client() -> Rule:
    """Client number -> mapping of names to values, which are checked where they are used; "*" is all others."""

    def convert(value: Any, _folder: Path) -> dict[str, Any]:
        value = {} if value is None else value
        if not isinstance(value, Mapping) or not all(isinstance(each, Mapping) for each in value.values()):
            raise _RuleError
        if not all(re.fullmatch(_CLIENT, str(client)) for client in value):
            raise _RuleError
        return {str(client): dict(each) for client, each in value.items()}

    return Rule("a mapping of client numbers to mappings", "Write it as 3: {mf_dim: 8}; * is all others.", convert)


def optional(rule: Rule) -> Rule:
    """`rule`, or null."""

    def convert(value: Any, folder: Path) -> Any:
        return None if value is None else rule.convert(value, folder)

    return Rule(f"{rule.accepts}, or null", f"{rule.remedy} Or leave the key out.", convert)


# --- Keys ----------------------------------------------------------------------------------------------


def key(rule: Rule, doc: str, default: Any = dataclasses.MISSING, factory: Any = dataclasses.MISSING) -> Any:
    """Declare one key of the configuration; without a default it is required."""
    metadata = {"rule": rule, "doc": doc}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def section(cls: type) -> Any:
    """Declare a mapping of keys, each a field of `cls`; a trailing underscore is no part of a key's name."""
    return field(metadata={"section": cls})


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
    geo_step: int = key(integer(at_least=1), "geo: at most this many batches between two exchanges", 100)
    rounds_per_epoch: int = key(
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
    """Differential privacy of what a worker shares, for each of its users; fl_rec/privacy.py says what it covers."""

    clip: float | None = key(
        optional(number(above=0)),
        "L2 norm to which a user's change of all shared parameters is clipped; null: no differential privacy",
        None,
    )
    noise_multiplier: float = key(
        number(at_least=0), "standard deviation of the noise on every coordinate, over clip; 0: only clipped", 1.0
    )
    delta: float = key(probability(), "delta for which epsilon is told; keep it well below 1 / users", 1e-5)
    users_per_round: float | None = key(
        optional(probability()), "chance of each user to be drawn for a round; null: 1 / runner.rounds_per_epoch", None
    )


@dataclass(frozen=True)
class DistillationConfig:
    """What a client learns from the coordinator's teacher; see fl_rec/distillation.py."""

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


# Keys that PaddleRec's configurations may hold and this project leaves out on purpose.
_ABSENT = {
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


# --- The configuration ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(Mapping[str, Any]):
    """The checked configuration of one run.

    Typed access is by attribute, ``config.runner.epochs``. As a mapping it is what a PaddleRec
    ``StaticModel`` expects: dotted keys, plain values (paths are str, tuples are lists), and ``get`` of an
    unknown key returns the default.
    """

    # Not compared: a dumped copy equals its original, wherever it lies.
    yaml_path: Path = field(compare=False)
    runner: RunnerConfig = section(RunnerConfig)
    hyper_parameters: HyperParameters = section(HyperParameters)
    coordinator: CoordinatorConfig = section(CoordinatorConfig)
    privacy: PrivacyConfig = section(PrivacyConfig)
    distillation: DistillationConfig = section(DistillationConfig)

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """Read, override, convert and check a configuration.

        Args:
            path: the YAML file (UTF-8); relative paths in it and in `overrides` start at its folder.
            overrides: ``key=value`` with a dotted key; the value is YAML, and nothing after = is null.

        Raises:
            ConfigError: the file cannot be read, or a key or value is refused; lists every problem found.
        """
        return cls.from_tree(_read(path), path, overrides)

    @classmethod
    def from_tree(cls, tree: Mapping[Any, Any], path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """As `load`, of what has been read from the file."""
        given = {name: (value, str(path)) for name, value in _flatten(tree)}
        problems: list[str] = []
        changes = []
        for override in overrides:
            try:
                changes.append(_parse_override(override))
            except ConfigError as err:
                problems.append(str(err))
        if any(name == "coordinator.strategy" for name, _ in changes):
            given.pop("coordinator.options", None)  # they were another strategy's
        for name, value in changes:
            _apply(given, name, value, "option -o")
        return _resolve(given, Path(path).absolute(), str(path), problems)

    def replace(self, **changes: Any) -> Config:
        """A new checked configuration: ``config.replace(**{"runner.epochs": 5})``.

        Raises:
            ConfigError: a key is unknown or a value is refused.
        """
        return self._with(changes, "Config.replace")

    def _with(self, changes: Mapping[str, Any], source: str) -> Config:
        given = {name: (value, source) for name, value in _flatten(self.to_dict())}
        for name, value in changes.items():
            _apply(given, name, value, source)
        return _resolve(given, self.yaml_path, source, [])

    def for_client(self, number: int) -> Config:
        """The configuration of one client, whose net may be another than the others'; see distillation.students.

        Raises:
            ConfigError: a value is refused.
        """
        students = self.distillation.students
        changes = students.get(str(number), students.get("*", {}))
        return self.with_hyper_parameters(changes, f"distillation.students of client {number}")

    def with_hyper_parameters(self, changes: Mapping[str, Any], source: str) -> Config:
        """The configuration of another net of the same job.

        Args:
            changes: hyper_parameters, with their new values.
            source: where they were written.

        Raises:
            ConfigError: one is unknown or its value is refused.
        """
        return self._with({f"hyper_parameters.{name}": value for name, value in changes.items()}, source)

    def with_sizes(self, num_users: int, num_items: int) -> Config:
        """Fill in sizes that were left out; check those that were not.

        Args:
            num_users: rows that the data needs in the user embedding, its largest user id + 1.
            num_items: the same for items.

        Raises:
            ConfigError: a configured size is smaller, so an id would fall outside its embedding.
        """
        changes, problems = {}, []
        for name, needed in (("num_users", num_users), ("num_items", num_items)):
            configured = getattr(self.hyper_parameters, name)
            if configured is None:
                changes[f"hyper_parameters.{name}"] = needed
            elif configured < needed:
                problems.append(
                    f"{self.yaml_path}: hyper_parameters.{name} must be at least {needed}, "
                    f"or an id of the data falls outside the embedding. Received: {name}={configured}. "
                    f"Set it to {needed}, or leave the key out to take it from the data."
                )
        _raise_if_any(problems)
        return self.replace(**changes)

    def get(self, key: str, default: Any = None) -> Any:
        """Value of a dotted key, `default` where it is unknown or unset (null).

        Besides the keys: ``yaml_path`` and ``config_abs_dir`` (str), as in PaddleRec, and whatever is under
        ``hyper_parameters.extra``.
        """
        try:
            value = self[key]
        except KeyError:
            return default
        return default if value is None else value

    def __getitem__(self, key: str) -> Any:
        if key == "yaml_path":
            return str(self.yaml_path)
        if key == "config_abs_dir":
            return str(self.yaml_path.parent)
        value: Any = self.to_dict()
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise KeyError(key)
            value = value[part]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as YAML and JSON write them; a copy."""
        sections = ("runner", "hyper_parameters", "coordinator", "privacy", "distillation")
        return {name: to_plain(getattr(self, name)) for name in sections}

    def dump(self, path: str | Path) -> None:
        """Write the resolved configuration as YAML, which `load` reads back to an equal one.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            with open(path, "w", encoding="utf-8") as file:
                yaml.dump(self.to_dict(), file, _Dumper, sort_keys=False, allow_unicode=True)
        except OSError as err:
            raise ConfigError(f"{path}: the configuration cannot be saved: {err.strerror}.") from err

    def describe(self) -> str:
        """The file's path and one line per key, to print."""
        width = max(map(len, _KEYS))
        lines = [f"  {name:<{width}}  {_shown(self[name])}" for name in _KEYS]
        return "\n".join([str(self.yaml_path), *lines])


def list_keys() -> str:
    """Every key with its default, its meaning and what it accepts."""
    lines = ["keys of a configuration (YAML):"]
    for name, item in _KEYS.items():
        default = _default(item)
        shown = "required" if default is dataclasses.MISSING else f"default {_shown(to_plain(default))}"
        lines += [f"  {name}: {item.metadata['rule'].accepts} ({shown})", f"      {item.metadata['doc']}"]
    return "\n".join(lines)


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add ``-m FILE`` and ``-o key=value ...``, which all tools share, and the keys under ``--help``."""
    parser.add_argument("-m", "--config_yaml", metavar="FILE", required=required, help="configuration (YAML)")
    parser.add_argument(
        "-o",
        "--opt",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="override keys: -o runner.epochs=5; relative paths start at the folder of FILE",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = list_keys()


def load_from_args(args: argparse.Namespace) -> Config:
    """The `Config` that the arguments of `add_config_arguments` name.

    Raises:
        ConfigError: see `Config.load`.
    """
    return Config.load(args.config_yaml, args.opt)


# --- From YAML to a Config -----------------------------------------------------------------------------


def _name_of(item: dataclasses.Field[Any]) -> str:
    return item.name.rstrip("_")


def _declared(cls: type, kind: str, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Dotted names of all fields whose metadata holds `kind` ("rule" or "section")."""
    for item in dataclasses.fields(cls):
        if kind in item.metadata:
            yield prefix + _name_of(item), item
        if "section" in item.metadata:
            yield from _declared(item.metadata["section"], kind, f"{prefix}{_name_of(item)}.")


_KEYS = dict(_declared(Config, "rule"))
_SECTIONS = dict(_declared(Config, "section"))


@dataclass(frozen=True)
class _Relation:
    """A rule about several keys."""

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    says: str


_RELATIONS = (
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


class _Dumper(yaml.SafeDumper):
    """SafeDumper with the numbers of `_Loader`: it quotes the text "1e-3"."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML would quietly keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            name = str(key_node.value)
            if name in seen:
                problem = f"the key {name} is there twice, remove one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


for _yaml in (_Loader, _Dumper):
    # YAML 1.1 takes 1e-3, which has no dot, for text; in `extra` no rule would convert it.
    _exponent = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", _exponent, list("-+0123456789"))


def _parse_yaml(content: str, source: str) -> Any:
    try:
        return yaml.load(content, _Loader)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(err, "problem", None) or err
        raise ConfigError(f"{source}: not valid YAML{where}: {problem}.") from err


def _read(path: str | Path) -> Mapping[Any, Any]:
    remedy = "Give a YAML file that holds runner and, if need be, hyper_parameters."
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read as a configuration: {reason}. {remedy}") from err
    tree = _parse_yaml(content, str(path))
    if not isinstance(tree, Mapping):
        found = "an empty file" if tree is None else f"a {type(tree).__name__}"
        raise ConfigError(f"{path}: must hold a mapping of keys. Received: {found}. {remedy}")
    return tree


def _parse_override(override: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in override.partition("="))
    if not equals:
        near = _nearest(name)
        hint = f" Did you mean {near}=VALUE?" if near else ""
        raise ConfigError(f"option -o: must be key=value. Received: {override!r}.{hint}")
    return name, _parse_yaml(value, f"option -o {override}")


def _apply(given: dict[str, tuple[Any, str]], name: str, value: Any, source: str) -> None:
    """Change `given` by one dotted name: a key, a whole section, or a name inside `extra`."""
    for part in reversed(name.split(".")):
        value = {part: value}
    for dotted, new in _flatten(value):
        old, _ = given.get(dotted, (None, ""))
        given[dotted] = (_merge(old, new), source)


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; what is no section stays whole, so that it is reported once."""
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if dotted in _SECTIONS and (value is None or isinstance(value, Mapping)):
            yield from _flatten(value or {}, dotted + ".")
        else:
            yield dotted, value


def _merge(old: Any, new: Any) -> Any:
    """`new`, added to `old` where both are mappings: one key of `extra` leaves the others alone."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: _merge(old.get(name), value) for name, value in new.items()}}
    return new


def _resolve(given: Mapping[str, tuple[Any, str]], yaml_path: Path, source: str, problems: Sequence[str]) -> Config:
    """Check everything, then build.

    Args:
        given: dotted name -> (value, where it was written).
        yaml_path: absolute; relative paths start at its folder.
        source: where a key that is not in `given` should have been written.
        problems: those found before.
    """
    unknown = [(name, value, at) for name, (value, at) in given.items() if name not in _KEYS]
    problems = [*problems, *(f"{at}: {_unknown(name, value)}" for name, value, at in unknown)]
    values = {"yaml_path": yaml_path, **_convert(_KEYS, given, yaml_path.parent, source, problems)}
    for relation in _RELATIONS:
        if all(name in values for name in relation.keys):
            related = [values[name] for name in relation.keys]
            if not relation.holds(*related):
                problems.append(f"{source}: {relation.says.format(*related)}")
    _raise_if_any(problems)
    if values["runner.model_path"] is None:
        beside = yaml_path.parent / "static_model.py"
        values["runner.model_path"] = beside if beside.is_file() else PROJECT / "models/ncf/static_model.py"
    config: Config = _build(Config, values)
    return config


def read_options(cls: type, values: Any, name: str, folder: Path) -> Any:
    """Checks a mapping against the `key` fields of a dataclass, such as the options of a strategy.

    Args:
        cls: the dataclass.
        values: as YAML read it.
        name: the key under which it stands, for errors.
        folder: where relative paths start.

    Raises:
        ConfigError: lists every problem found.
    """
    keys = dict(_declared(cls, "rule"))
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} must be a mapping of keys. Received: {values!r}. Its keys: {', '.join(keys)}.")
    problems = []
    for given in values:
        if given not in keys:
            near = difflib.get_close_matches(str(given), keys, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Its keys: {', '.join(keys) or 'none'}."
            problems.append(f"{name}: {given}: unknown key. {hint}")
    known = {given: (value, name) for given, value in values.items() if given in keys}
    converted = _convert(keys, known, folder, name, problems)
    _raise_if_any(problems)
    return _build(cls, converted)


def _convert(
    keys: Mapping[str, dataclasses.Field[Any]],
    given: Mapping[str, tuple[Any, str]],
    folder: Path,
    source: str,
    problems: list[str],
) -> dict[str, Any]:
    """The values of `keys`, of their final types or their defaults; what is wrong is added to `problems`."""
    values: dict[str, Any] = {}
    for name, item in keys.items():
        if name in given:
            value, at = given[name]
            rule: Rule = item.metadata["rule"]
            try:
                values[name] = rule.convert(value, folder)
            except _RuleError as err:
                received = f"{_last(name)}={value!r} ({type(value).__name__})"
                remedy = err.remedy or rule.remedy
                problems.append(f"{at}: {name} must be {rule.accepts}. Received: {received}. {remedy}")
        elif _default(item) is dataclasses.MISSING:
            problems.append(f"{source}: {name} is missing. Set it to the {item.metadata['doc']}.")
        else:
            values[name] = _default(item)
    return values


def _unknown(name: str, value: Any) -> str:
    if name in _SECTIONS:
        received = f"{_last(name)}={value!r} ({type(value).__name__})"
        return f"{name} must be a mapping of keys. Received: {received}. Write its keys indented under it."
    if name in _ABSENT:
        return f"{name} is no key here. {_ABSENT[name]}"
    near = _nearest(name)
    if near:
        return f"{name}: unknown key. Did you mean {near}?"
    if name.startswith("hyper_parameters."):
        return f"{name}: unknown key. A key of your own net goes under hyper_parameters.extra."
    return f"{name}: unknown key. Remove it; --help lists all keys."


def _nearest(name: str) -> str | None:
    # Last parts only: a long section name in common would make unlike keys look alike.
    full = {_last(known): known for known in (*_SECTIONS, *_KEYS)}
    near = difflib.get_close_matches(_last(name), full, n=1)
    return full[near[0]] if near else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _raise_if_any(problems: Sequence[str]) -> None:
    if problems:
        head = f"{len(problems)} problems in the configuration:\n" if len(problems) > 1 else ""
        raise ConfigError(head + "\n".join(problems))


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _build(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    arguments = {}
    for item in dataclasses.fields(cls):
        name = prefix + _name_of(item)
        inner = item.metadata.get("section")
        arguments[item.name] = _build(inner, values, name + ".") if inner else values[name]
    return cls(**arguments)


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as YAML and JSON write them."""
    if dataclasses.is_dataclass(value):
        return {_name_of(item): to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
