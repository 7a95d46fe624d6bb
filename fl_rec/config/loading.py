"""Configuration: a YAML file, and ``key=value`` overrides, become one frozen, typed, checked `Config`."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fl_rec import environment
from fl_rec.config.relations import ALWAYS, broken
from fl_rec.config.schema import (
    RENAMED,
    CoordinatorConfig,
    DistillationConfig,
    HyperParameters,
    PrivacyConfig,
    RunnerConfig,
    Sections,
    TlsConfig,
)
from fl_rec.config.written import KEYS, Dumper, Written, parse_override, read, require_section, unknown_key
from fl_rec.errors import ConfigError
from fl_rec.files import atomic_write
from fl_rec.typed import error_of, problems_of, to_plain, validate

# Unless another lies beside the configuration.
DEFAULT_NET = "models/ncf/static_model.py"


@dataclass(frozen=True)
class Config(Mapping[str, Any]):
    """The checked configuration of one run.

    Typed access is by attribute, ``config.runner.epochs``. As a mapping it is what a PaddleRec
    ``StaticModel`` expects: dotted keys, plain values (paths are str, tuples are lists), and ``get`` of an
    unknown key returns the default.

    Attributes:
        notes: what the user should know of how the keys are written.
    """

    # Not compared: a dumped copy equals its original, wherever it lies.
    yaml_path: Path = field(compare=False)
    runner: RunnerConfig
    hyper_parameters: HyperParameters
    coordinator: CoordinatorConfig
    tls: TlsConfig
    privacy: PrivacyConfig
    distillation: DistillationConfig
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """Read, override, convert and check a configuration.

        Args:
            path: the YAML file (UTF-8); relative paths in it and in `overrides` start at its folder.
            overrides: ``key=value`` with a dotted key; the value is YAML, and nothing after = is null.

        Raises:
            ConfigError: the file cannot be read, or a key or value is refused; lists every problem found.
        """
        tree, places = read(path)
        return _overridden(tree, places, path, overrides)

    @classmethod
    def from_tree(cls, tree: Mapping[Any, Any], path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """As `load`, of what has been read from the file."""
        return _overridden(tree, {}, path, overrides)

    def replace(self, **changes: Any) -> Config:
        """A new checked configuration: ``config.replace(**{"runner.epochs": 5})``.

        Raises:
            ConfigError: a key is unknown or a value is refused.
        """
        return self._with(changes, "Config.replace")

    def _with(self, changes: Mapping[str, Any], source: str) -> Config:
        written = Written(source, self._plain, self.notes)
        for name, value in changes.items():
            written.set(name, value, source)
        return _resolve(written, self.yaml_path)

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
        if problems:
            raise error_of(problems)
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
        value: Any = self._plain
        for part in RENAMED.get(key, key).split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise KeyError(key)
            value = value[part]
        return copy.deepcopy(value)

    def __iter__(self) -> Iterator[str]:
        return iter(KEYS)

    def __len__(self) -> int:
        return len(KEYS)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        return {name: to_plain(getattr(self, name)) for name in Sections.model_fields}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as YAML and JSON write them; a copy."""
        return copy.deepcopy(self._plain)

    def dump(self, path: str | Path) -> None:
        """Write the resolved configuration as YAML, which `load` reads back to an equal one, whole or not at all.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            with atomic_write(Path(path)) as file:
                yaml.dump(self._plain, file, Dumper, sort_keys=False, allow_unicode=True, encoding="utf-8")
        except OSError as err:
            raise ConfigError(f"{path}: the configuration cannot be saved: {err.strerror}.") from err

    def changed(self) -> dict[str, Any]:
        """The keys that are not as they are by default, by their dotted names, with plain values."""
        usual = {name: None if item.is_required() else to_plain(item.default) for name, item in KEYS.items()}
        usual["runner.model_path"] = to_plain(environment.shipped(DEFAULT_NET))
        return {name: self[name] for name in KEYS if self[name] != usual[name]}


def load_from_args(args: argparse.Namespace) -> Config:
    """The `Config` that the arguments of `add_config_arguments` name.

    Raises:
        ConfigError: see `Config.load`.
    """
    return Config.load(args.config_yaml, args.opt)


def _overridden(
    tree: Mapping[Any, Any], places: Mapping[str, str], path: str | Path, overrides: Sequence[str]
) -> Config:
    written = Written(str(path), {})
    written.add(tree, places)
    for override in overrides:
        try:
            name, value = parse_override(override)
            require_section(name)
        except ConfigError as err:
            written.problems.append(str(err))
            continue
        if name == "coordinator.strategy" and isinstance(written.tree.get("coordinator"), dict):
            written.tree["coordinator"].pop("options", None)  # they were another strategy's
        written.set(name, value, "option -o")
    return _resolve(written, Path(path).absolute())


def _resolve(written: Written, yaml_path: Path) -> Config:
    """Check everything, then build.

    Args:
        yaml_path: absolute; relative paths start at its folder.
    """
    folder, tree = yaml_path.parent, {"runner": {}, **written.tree}
    if isinstance(tree["runner"], Mapping) and tree["runner"].get("model_path") is None:
        beside = folder / "static_model.py"
        net = beside if beside.is_file() else environment.shipped(DEFAULT_NET)
        tree["runner"] = {**tree["runner"], "model_path": net}
    problems, refused = list(written.problems), []
    try:
        sections = validate(Sections, tree, folder)
    except ValidationError as err:
        found = problems_of(err, Sections, tree, unknown_key)
        refused = [name for name, _ in found]
        problems += [f"{written.place(name)}: {text}" for name, text in found]
        # The rules between the other keys are told too.
        sections = validate(Sections, _without(tree, refused), folder)
    config = Config(yaml_path, **dict(sections), notes=tuple(written.notes))
    problems += [
        f"{written.place(*relation.keys)}: {relation.text(config)}"
        for relation in broken(ALWAYS, config)
        if not any(f"{key}.".startswith(f"{name}.") for key in relation.keys for name in refused)
    ]
    if problems:
        raise error_of(problems)
    return config


def _without(tree: Mapping[Any, Any], refused: Sequence[str]) -> dict[Any, Any]:
    """What can be kept, with a folder of data."""

    def kept(tree: Mapping[Any, Any], prefix: str) -> dict[Any, Any]:
        return {
            name: kept(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
            for name, value in tree.items()
            if f"{prefix}{name}" not in refused
        }

    rest = kept(tree, "")
    return {**rest, "runner": {"train_data_dir": ".", **rest.get("runner", {})}}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
