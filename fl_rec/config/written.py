"""What users write: YAML and ``key=value``, each key with the place where it was written."""

from __future__ import annotations

import errno
import math
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from fl_rec.config.schema import ABSENT, ALSO_AT, OTHERS_NAMES, RENAMED, Sections
from fl_rec.errors import ConfigError
from fl_rec.packed import open_regular
from fl_rec.plugins import nearest
from fl_rec.typed import Keys, keys_of, to_plain


def _declared(cls: type[Keys], prefix: str = "") -> Iterator[tuple[str, FieldInfo, bool]]:
    """Dotted names of all keys and sections, and whether it is a section."""
    for name, item in keys_of(cls).items():
        kind = item.annotation
        if isinstance(kind, type) and issubclass(kind, Keys):
            yield prefix + name, item, True
            yield from _declared(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, item, False


KEYS = {name: item for name, item, is_section in _declared(Sections) if not is_section}


SECTIONS = [name for name, _, is_section in _declared(Sections) if is_section]


class Written:
    """Keys as they were written.

    Attributes:
        source: where a key that is not in it should have been written.
        tree: the keys, nested, each by its present name.
        places: where they were written, by dotted name.
        problems, notes: what is wrong with how they are written, and what is worth knowing.
    """

    def __init__(self, source: str, tree: Mapping[Any, Any], notes: Sequence[str] = ()) -> None:
        self.source, self.tree, self.notes = source, dict(tree), list(notes)
        self.places: dict[str, str] = {}
        self.problems: list[str] = []

    def set(self, name: str, value: Any, place: str) -> None:
        """Changes one dotted name: a key, a whole section, or a name inside a key such as `extra`."""
        places = dict(_places(value, name, place))
        for part in reversed(name.split(".")):
            value = {part: value}
        self.add(value, places)

    def add(self, tree: Mapping[Any, Any], places: Mapping[str, str]) -> None:
        """Keys that come on top of those there are."""
        self.places.update(places)
        self.places.update((RENAMED[name], place) for name, place in places.items() if name in RENAMED)
        for known, section in ALSO_AT.items():
            self.places.update(
                (section + name.removeprefix(known), place) for name, place in places.items() if name.startswith(known)
            )
        self.tree = _merge(self.tree, self._tidy(_moved(tree)))

    def place(self, *names: str) -> str:
        """Where the first of these keys that was written was written; if none was, what the first stands in."""
        while names:
            for name in names:
                if name in self.places:
                    return self.places[name]
            above = names[0].rpartition(".")[0]
            names = (above,) if above else ()
        return self.source

    def _tidy(self, tree: Mapping[Any, Any], prefix: str = "") -> dict[Any, Any]:
        """Keys by their present names; a section that holds nothing is an empty one."""
        tidy = {}
        for name, value in tree.items():
            written = f"{prefix}{name}"
            if written in RENAMED:
                name = _last(RENAMED[written])
                if name in tree:
                    self.problems.append(
                        f"{self.place(written)}: {written} is the old name of {RENAMED[written]}. Received: both. "
                        "Remove the old one."
                    )
                note = f"{written} is now {RENAMED[written]}; the old name still works."
                self.notes += [note] * (note not in self.notes)
            elif written in SECTIONS and (value is None or isinstance(value, Mapping)):
                value = self._tidy(value or {}, f"{written}.")
            tidy[name] = value
        return tidy


def _moved(tree: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The keys, with sections of `ALSO_AT` at their own places."""
    for known, section in ALSO_AT.items():
        outer, _, inner = known.partition(".")
        around = tree.get(outer)
        if isinstance(around, Mapping) and inner in around:
            rest = {name: value for name, value in around.items() if name != inner}
            tree = {**tree, outer: rest, section: _merge(tree.get(section), around[inner])}
    return tree


# Aliases of aliases make a few lines into billions of values.
_MOST_VALUES, _LARGEST_FILE, _DEEPEST = 100_000, 1 << 22, 64


class Dumper(yaml.SafeDumper):
    """SafeDumper with the numbers of `_Loader`: it quotes the text "1e-3"."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML would quietly keep the last, and what is nested more
    deeply than anybody writes."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            problem = f"it is nested more than {_DEEPEST} levels deep"
            raise yaml.composer.ComposerError(None, None, problem, self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            name = str(key_node.value)
            if name in seen:
                problem = f"the key {name} is there twice, remove one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


for _yaml in (_Loader, Dumper):
    # YAML 1.1 takes 1e-3, which has no dot, for text; in `extra` no rule would convert it.
    _exponent = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", _exponent, list("-+0123456789"))


def _parse_yaml(content: str, source: str) -> tuple[Any, dict[str, str]]:
    """What a YAML text holds, and where its keys stand."""
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is not None:
            _expanded(node, {})
        places = dict(_lines(node, source))
        return (None if node is None else loader.construct_document(node)), places
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(err, "problem", None) or err
        raise ConfigError(f"{source}: not valid YAML{where}: {str(problem)[:200]}.") from err
    except (ValueError, OverflowError, TypeError) as err:  # of a date that there is not, or a number of 5,000 digits
        raise ConfigError(f"{source}: not valid YAML: a value can't be read ({str(err)[:200]}).") from err


def _expanded(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """How many values a text has, those behind an alias counted wherever it stands. ConstructorError if too many."""
    if node in known:
        size = known[node]
    else:
        known[node] = None  # until it is known
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = (each for pair in inner for each in (pair if isinstance(pair, tuple) else (pair,)))
        size = known[node] = 1 + sum(_expanded(each, known) for each in nodes)
    if size is None or size > _MOST_VALUES:
        problem = f"it has more than {_MOST_VALUES:,} values, or aliases without end"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return size


def _lines(node: yaml.Node | None, source: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            yield f"{prefix}{key_node.value}", f"{source}:{key_node.start_mark.line + 1}"
            yield from _lines(value_node, source, f"{prefix}{key_node.value}.")


def _places(value: Any, name: str, place: str) -> Iterator[tuple[str, str]]:
    yield name, place
    if isinstance(value, Mapping):
        for inner, each in value.items():
            yield from _places(each, f"{name}.{inner}", place)


def read(path: str | Path) -> tuple[Mapping[Any, Any], dict[str, str]]:
    remedy = "Give a YAML file that holds runner and, if need be, hyper_parameters."
    try:
        with open_regular(Path(path)) as file:
            content = file.read(_LARGEST_FILE + 1).decode("utf-8-sig")
        if len(content) > _LARGEST_FILE:
            raise OSError(errno.EFBIG, f"it has more than {_LARGEST_FILE:,} bytes")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read as a configuration: {reason}. {remedy}") from err
    tree, places = _parse_yaml(content, str(path))
    if not isinstance(tree, Mapping):
        found = "an empty file" if tree is None else f"a {type(tree).__name__}"
        raise ConfigError(f"{path}: must hold a mapping of keys. Received: {found}. {remedy}")
    return tree, places


def parse_override(override: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in override.partition("="))
    if not equals:
        near = _nearest(name)
        hint = f" Did you mean {near}=VALUE?" if near else ""
        if name.endswith((".yaml", ".yml")):
            hint = f" A configuration is named by -m: -m {name}"
        raise ConfigError(f"option -o: must be key=value. Received: {override!r:.300}.{hint}")
    return name, _parse_yaml(value, f"option -o {override:.300}")[0]


def require_section(name: str) -> None:
    """ConfigError if a key of an override stands in no section of a configuration."""
    if name.partition(".")[0] not in SECTIONS:
        raise ConfigError(f"option -o: {unknown_key(name, SECTIONS)}")


def to_override(name: str, value: Any) -> str:
    """The ``key=value`` that `parse_override` reads back to these. ConfigError if YAML has no such value."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):  # as numpy's
        value = int(value) if isinstance(value, numbers.Integral) else float(value)
    try:
        text = yaml.dump(to_plain(value), None, Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    except yaml.representer.RepresenterError as err:
        raise ConfigError(
            f"{name}: an override must be a number, a text, a path, or lists and mappings of them. Received: {value!r}."
        ) from err
    return f"{name}={text.removesuffix('...' + chr(10)).strip()}"


def _merge(old: Any, new: Any) -> Any:
    """`new`, added to `old` where both are mappings: one key of `extra` leaves the others alone."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: _merge(old.get(name), value) for name, value in new.items()}}
    return new


def unknown_key(name: str, beside: Sequence[str]) -> str:
    """What to say of a key that there is not, beside those that there are."""
    if name in ABSENT:
        return f"{name} is no key here. {ABSENT[name]}"
    section = name.rpartition(".")[0]
    inside = section and section not in SECTIONS and section.partition(".")[0] in SECTIONS
    near = nearest(_last(name), beside) if inside else _nearest(name)
    if near:
        return f"{name}: unknown key. Did you mean {near}?"
    if name.startswith("hyper_parameters."):
        return f"{name}: unknown key. A key of your own net goes under hyper_parameters.extra."
    return f"{name}: unknown key. Remove it; fl-rec config lists all keys."


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def by_last_part() -> dict[str, str]:
    """Sections and keys by the last parts of their names, and keys by what others call them."""
    return {**OTHERS_NAMES, **{_last(known): known for known in (*SECTIONS, *KEYS)}}


def _nearest(name: str) -> str:
    # Last parts only: a long section name in common would make unlike keys look alike.
    full = by_last_part()
    return full.get(nearest(_last(name), full), "")
