"""Configuration: a YAML file, and ``key=value`` overrides, become one frozen, typed, checked `Config`.

A key is declared in one place, a field of one of the dataclasses below: its type, default, limits and
one line of explanation. Checks, error messages, the listing under ``--help``, unknown keys and the saved
copy all derive from that field, so adding a key is adding a line.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fl_rec import environment
from fl_rec.config.relations import RELATIONS
from fl_rec.config.rules import (
    _build,
    _convert,
    _declared,
    _default,
    _last,
    _raise_if_any,
    section,
    to_plain,
)
from fl_rec.config.schema import (
    ABSENT,
    RENAMED,
    CoordinatorConfig,
    DistillationConfig,
    HyperParameters,
    PrivacyConfig,
    RunnerConfig,
)
from fl_rec.errors import ConfigError


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return int(text)


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
        for part in RENAMED.get(key, key).split("."):
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


_KEYS = dict(_declared(Config, "rule"))


_SECTIONS = dict(_declared(Config, "section"))


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
        dotted = RENAMED.get(f"{prefix}{name}", f"{prefix}{name}")
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
    for relation in RELATIONS:
        if all(name in values for name in relation.keys):
            related = [values[name] for name in relation.keys]
            if not relation.holds(*related):
                problems.append(f"{source}: {relation.says.format(*related)}")
    _raise_if_any(problems)
    if values["runner.model_path"] is None:
        beside = yaml_path.parent / "static_model.py"
        values["runner.model_path"] = beside if beside.is_file() else environment.shipped("models/ncf/static_model.py")
    config: Config = _build(Config, values)
    return config


def _unknown(name: str, value: Any) -> str:
    if name in _SECTIONS:
        received = f"{_last(name)}={value!r} ({type(value).__name__})"
        return f"{name} must be a mapping of keys. Received: {received}. Write its keys indented under it."
    if name in ABSENT:
        return f"{name} is no key here. {ABSENT[name]}"
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


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
