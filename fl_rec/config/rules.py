"""What a key accepts: rules with the text, the remedy and the conversion of a value."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import numbers
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_rec.errors import ConfigError


class RuleError(Exception):
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
        convert: (value as YAML read it, folder of the YAML) -> value of the final type; raises `RuleError`.
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
        raise RuleError from err
    if isinstance(value, bool) or not finite:
        raise RuleError
    return value


def integer(at_least: int) -> Rule:
    """An int; 100, "100" and "1e2" are accepted, 2.5 and true are not."""

    def convert(value: Any, _folder: Path) -> int:
        value = _as_number(value)
        if value != int(value) or value < at_least:
            raise RuleError
        return int(value)

    return Rule(f"an integer of at least {at_least}", f"Set it to {at_least} or more.", convert)


def number(above: float = -math.inf, at_least: float | None = None) -> Rule:
    """A finite float; text such as "1e-3" is accepted."""

    def convert(value: Any, _folder: Path) -> float:
        converted = float(_as_number(value))
        if converted <= above or (at_least is not None and converted < at_least):
            raise RuleError
        return converted

    limit = f"above {above:g}" if at_least is None else f"of at least {at_least:g}"
    return Rule(f"a number {limit}", f"Set it to a finite number {limit}.", convert)


def fraction() -> Rule:
    """A float from 0 to 1."""

    def convert(value: Any, _folder: Path) -> float:
        converted = float(_as_number(value))
        if not 0 <= converted <= 1:
            raise RuleError
        return converted

    return Rule("a number from 0 to 1", "Set it to 0, 1 or something between.", convert)


def probability() -> Rule:
    """A float above 0, up to 1."""

    def convert(value: Any, _folder: Path) -> float:
        converted = float(_as_number(value))
        if not 0 < converted <= 1:
            raise RuleError
        return converted

    return Rule("a number above 0, up to 1", "Set it to 1 or something between.", convert)


def flag() -> Rule:
    """A bool; true, "True", "false", 0 and 1 are accepted."""
    meanings = {"true": True, "1": True, "false": False, "0": False}

    def convert(value: Any, _folder: Path) -> bool:
        try:
            return meanings[str(value).lower()]
        except KeyError:
            raise RuleError from None

    return Rule("true or false", "Set it to true or false.", convert)


def text() -> Rule:
    """A non-empty str."""

    def convert(value: Any, _folder: Path) -> str:
        if not isinstance(value, str) or not value.strip():
            raise RuleError
        return value

    return Rule("a text that is not empty", "Write some text in quotes.", convert)


def location() -> Rule:
    """A file or folder, there or not, as an absolute Path; a relative one starts at the YAML's folder."""

    def convert(value: Any, folder: Path) -> Path:
        # An empty text would quietly name the YAML's own folder.
        if not isinstance(value, (str, Path)) or not str(value).strip():
            raise RuleError
        return (folder / Path(value).expanduser()).resolve()

    return Rule("a path", "Write it in quotes; a relative path starts at the YAML's folder.", convert)


def choice(*names: str, refused: Mapping[str, str] | None = None) -> Rule:
    """One of `names`; `refused` maps a value that PaddleRec knew to the reason and the remedy."""

    def convert(value: Any, _folder: Path) -> str:
        if value in names:
            return str(value)
        near = difflib.get_close_matches(str(value), names, n=1)
        raise RuleError((refused or {}).get(str(value)) or (f"Did you mean {near[0]}?" if near else None))

    return Rule("one of " + ", ".join(names), "Choose one of them.", convert)


def list_of(item: Rule, each: str) -> Rule:
    """A list, kept as a tuple; `each` names its elements in the plural."""

    def convert(value: Any, folder: Path) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise RuleError
        return tuple(item.convert(element, folder) for element in value)

    return Rule(f"a list of {each}", "Write it as [first, second].", convert)


def layer_widths() -> Rule:
    """Widths of the fully connected layers, a tuple of int."""
    widths = list_of(integer(at_least=1), "integers")

    def convert(value: Any, folder: Path) -> tuple[int, ...]:
        layers: tuple[int, ...] = widths.convert(value, folder)
        if len(layers) < 2:
            raise RuleError
        if layers[0] % 2:
            raise RuleError(
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
            raise RuleError
        return copy.deepcopy(dict(value))

    return Rule("a mapping of names to values", "Write its keys indented under it.", convert)


def shapes() -> Rule:
    """Names of arrays with their shapes, tuples of int; [] is a number."""
    shape = list_of(integer(at_least=1), "integers")

    def convert(value: Any, folder: Path) -> dict[str, tuple[int, ...]]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise RuleError
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
            raise RuleError
        return {name: weight.convert(each, folder) for name, each in value.items()}

    accepts = "a number of at least 0, or a mapping of names to such numbers"
    return Rule(accepts, 'Write it as 0.001 or {"*user*": 0.002, "*item*": 0.001}.', convert)


CLIENT = r"0|[1-9]\d*|\*"


def mappings_by_client() -> Rule:
    """Client number -> mapping of names to values, which are checked where they are used; "*" is all others."""

    def convert(value: Any, _folder: Path) -> dict[str, Any]:
        value = {} if value is None else value
        if not isinstance(value, Mapping) or not all(isinstance(each, Mapping) for each in value.values()):
            raise RuleError
        if not all(re.fullmatch(CLIENT, str(client)) for client in value):
            raise RuleError
        return {str(client): dict(each) for client, each in value.items()}

    return Rule("a mapping of client numbers to mappings", "Write it as 3: {mf_dim: 8}; * is all others.", convert)


def optional(rule: Rule) -> Rule:
    """`rule`, or null."""

    def convert(value: Any, folder: Path) -> Any:
        return None if value is None else rule.convert(value, folder)

    return Rule(f"{rule.accepts}, or null", f"{rule.remedy} Or leave the key out.", convert)


def key(rule: Rule, doc: str, default: Any = dataclasses.MISSING, factory: Any = dataclasses.MISSING) -> Any:
    """Declare one key of the configuration; without a default it is required."""
    metadata = {"rule": rule, "doc": doc}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def section(cls: type) -> Any:
    """Declare a mapping of keys, each a field of `cls`; a trailing underscore is no part of a key's name."""
    return field(metadata={"section": cls})


def _name_of(item: dataclasses.Field[Any]) -> str:
    return item.name.rstrip("_")


def _declared(cls: type, kind: str, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Dotted names of all fields whose metadata holds `kind` ("rule" or "section")."""
    for item in dataclasses.fields(cls):
        if kind in item.metadata:
            yield prefix + _name_of(item), item
        if "section" in item.metadata:
            yield from _declared(item.metadata["section"], kind, f"{prefix}{_name_of(item)}.")


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
            except RuleError as err:
                received = f"{_last(name)}={value!r} ({type(value).__name__})"
                remedy = err.remedy or rule.remedy
                problems.append(f"{at}: {name} must be {rule.accepts}. Received: {received}. {remedy}")
        elif _default(item) is dataclasses.MISSING:
            problems.append(f"{source}: {name} is missing. Set it to the {item.metadata['doc']}.")
        else:
            values[name] = _default(item)
    return values


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
