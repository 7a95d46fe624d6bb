"""Typed keys: frozen pydantic models whose errors say the rule, the value received and the remedy, all at once.

The keys of the configuration and the options of whatever a user can name are declared alike, a line each:

    class Options(Keys):
        k: PositiveInt = key(3, "clients that train in a round")
        deadline: PositiveFloat | None = key(None, "seconds that a client may train; null: no limit")

What a field accepts, and what its errors say, comes from its type. Types are looser than pydantic's where YAML needs
it: "1e-3" is a number, "1e2" an int, "True" and 0 are flags, a relative path starts at the configuration's folder, and
nothing where a mapping belongs is an empty one. They are stricter where YAML misleads: true is no number.
"""

from __future__ import annotations

import copy
import inspect
import math
import numbers
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import BaseMetadata, Ge, Gt, Le
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic.fields import FieldInfo

from fl_rec.errors import ConfigError
from fl_rec.plugins import did_you_mean, path_from

__all__ = [
    "Above",
    "AtLeast",
    "AtMost",
    "Fraction",
    "Keys",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Probability",
    "Refused",
    "Says",
    "Values",
    "key",
    "options_of",
    "read_options",
    "to_plain",
]

# Of a number; `Annotated[int, AtLeast(2)]`.
AtLeast, Above, AtMost = Ge, Gt, Le

Fraction = Annotated[float, AtLeast(0), AtMost(1)]
Probability = Annotated[float, Above(0), AtMost(1)]

# A mapping with any content.
Values = Mapping[Any, Any]


@dataclass(frozen=True)
class Says:
    """What an annotated type's errors say, where its own words would not do.

    Attributes:
        accepts: completes "must be ...".
        remedy: a sentence that tells the user what to write instead.
    """

    accepts: str
    remedy: str


@dataclass(frozen=True)
class Refused:
    """Values that users of something else know, each with the reason and the remedy."""

    remedies: Mapping[str, str]


class Keys(BaseModel):
    """A mapping of keys, each a field. A trailing underscore is no part of a key's name."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), alias_generator=lambda name: name.rstrip("_")
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        for item in cls.model_fields.values():
            item.annotation, given = _split(_yaml_typed(_annotation(item)))
            item.metadata = list(given)
        return handler(source)


K = TypeVar("K", bound=Keys)


def key(default: Any, doc: str, unit: str = "") -> Any:
    """Declares one key; its type is the field's annotation.

    Args:
        default: its value where it is left out; ... if it is required.
        doc: one line of explanation, for `fl-rec config` and errors.
        unit: of its number, where it has one.
    """
    return Field(default, description=doc, json_schema_extra={"unit": unit} if unit else None)


def read_options(cls: type[K], values: Any, name: str, folder: Path) -> K:
    """Checks a mapping against typed keys, such as the options of a strategy.

    Args:
        cls: the keys.
        values: as YAML read it.
        name: the setting under which it stands, for errors.
        folder: where relative paths start.

    Raises:
        ConfigError: lists every problem found.
    """
    known = list(keys_of(cls))
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} must be a mapping of keys. Received: {values!r}. Its keys: {', '.join(known)}.")

    def unknown(given: str, beside: Sequence[str]) -> str:
        hint = did_you_mean(given.rpartition(".")[2], beside) or f"Its keys: {', '.join(beside) or 'none'}."
        return f"{given}: unknown key. {hint}"

    try:
        return validate(cls, values, folder)
    except ValidationError as err:
        raise error_of([f"{name}: {text}" for _, text in problems_of(err, cls, values, unknown)]) from err


def options_of(function: Callable[..., Any], name: str | None = None) -> type[Keys]:
    """The keyword-only parameters of a function as typed keys; ``dict`` of an object of them are the arguments.

    A parameter is of its annotation's type if that is one of a key's, and else of its default's.

    Args:
        name: what the user calls the function; None for its own name.
    """
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = ... if parameter.default is parameter.empty else parameter.default
            doc = f"{parameter.name} that {name or function.__name__} takes"
            fields[parameter.name] = (_type_of(parameter, function), key(default, doc))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Field name .* shadows", UserWarning)
        return create_model("Options", __base__=Keys, **fields)


def to_plain(value: Any) -> Any:
    """Keys, tuples and paths as YAML and JSON write them; a copy."""
    if isinstance(value, Keys):
        return {name: to_plain(getattr(value, item)) for item, name in _names(type(value))}
    if isinstance(value, Mapping):
        return {name: to_plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


# -- what fl_rec.config builds on ---------------------------------------------------------------------------


def validate(cls: type[K], values: Mapping[Any, Any], folder: Path) -> K:
    """Typed keys from what YAML read; pydantic's ValidationError is for `problems_of`."""
    return cls.model_validate(dict(values), context={"folder": folder})


def keys_of(cls: type[Keys]) -> dict[str, FieldInfo]:
    """The fields by their keys' names."""
    return {name: cls.model_fields[item] for item, name in _names(cls)}


def inner_keys(item: FieldInfo) -> dict[str, FieldInfo]:
    """The keys of each value of a mapping of names to mappings of keys; none of anything else."""
    kind = _bare(item.annotation)
    value = _bare(get_args(kind)[1]) if get_origin(kind) is Mapping else None
    return keys_of(value) if isinstance(value, type) and issubclass(value, Keys) else {}


def rule_of(item: FieldInfo) -> Says:
    """What a key accepts."""
    return _says(_annotation(item), item.default)


def problems_of(
    err: ValidationError, cls: type[Keys], values: Any, unknown: Callable[[str, Sequence[str]], str]
) -> list[tuple[str, str]]:
    """What is wrong, unknown keys first, and one problem a key.

    Args:
        cls, values: what was validated.
        unknown: (dotted name, the keys that there are beside it) -> what to say of a key that there is not.

    Returns:
        dotted names and texts.
    """
    found: dict[str, str] = {}
    for each in sorted(err.errors(include_url=False), key=lambda each: each["type"] not in _UNKNOWN):
        parts, item = _locate(FieldInfo(annotation=cls), each["loc"])
        name, value = ".".join(map(str, parts)), _value_at(values, parts, each["input"])
        if each["type"] in _UNKNOWN:
            text = unknown(name, list(keys_of(_bare(item.annotation))))
        elif each["type"] == "missing":
            text = f"{name} is missing. Set it to the {item.description}."
        elif not parts:  # a rule between keys, by a validator of a whole model
            text = str(each.get("ctx", {}).get("error") or each["msg"])
        else:
            says = rule_of(item)
            received = f"{parts[-1]}={value!r:.1000} ({type(value).__name__})"
            remedy = _remedy(each, item, value) or says.remedy
            text = f"{name} must be {says.accepts}. Received: {received}. {remedy}"
        found.setdefault(name, text)
    return list(found.items())


def error_of(problems: Sequence[str]) -> ConfigError:
    """The error that tells all of them."""
    head = f"{len(problems)} problems in the configuration:\n" if len(problems) > 1 else ""
    return ConfigError(head + "\n".join(problems[:_MOST_TOLD]) + "\n..." * (len(problems) > _MOST_TOLD))


# What fits one screen.
_MOST_TOLD = 20
_UNKNOWN = ("extra_forbidden", "invalid_key")


def _names(cls: type[Keys]) -> Iterator[tuple[str, str]]:
    """Names of fields, and of their keys."""
    return ((name, name.rstrip("_")) for name in cls.model_fields)


def _annotation(item: FieldInfo) -> Any:
    return Annotated[(item.annotation, *item.metadata)] if item.metadata else item.annotation


def _split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type, and what it is annotated with."""
    return (
        (get_args(annotation)[0], annotation.__metadata__) if get_origin(annotation) is Annotated else (annotation, ())
    )


def _not_null(annotation: Any) -> Any:
    """The type beside null; None of a type that is no union."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    return next(each for each in get_args(annotation) if each is not types.NoneType)


def _bare(annotation: Any) -> Any:
    """A type without what it is annotated with, and without null."""
    kind, _ = _split(annotation)
    inner = _not_null(kind)
    return kind if inner is None else _bare(inner)


def _locate(item: FieldInfo, place: Sequence[int | str]) -> tuple[tuple[int | str, ...], FieldInfo]:
    """As much of a place as names keys, and what stands there; of an unknown key what it stands in."""
    kind = _bare(item.annotation)
    if place and isinstance(kind, type) and issubclass(kind, Keys):
        inner = keys_of(kind).get(str(place[0]))
    elif place and get_origin(kind) is Mapping and "[key]" not in place:
        value = _bare(get_args(kind)[1])
        inner = FieldInfo(annotation=value) if isinstance(value, type) and issubclass(value, Keys) else None
        if inner is None:
            return (), item
    else:
        return (), item
    parts, found = _locate(inner, place[1:]) if inner else ((), item)
    return (place[0], *parts), found


def _value_at(values: Any, parts: Sequence[int | str], default: Any) -> Any:
    for part in parts:
        if not isinstance(values, Mapping) or part not in values:
            return default
        values = values[part]
    return values


def _remedy(error: Any, item: FieldInfo, value: Any) -> str:
    """One that fits the value better than the rule's own."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "literal_error":
        remedies = next((each.remedies for each in item.metadata if isinstance(each, Refused)), {})
        return remedies.get(str(value)) or did_you_mean(str(value), get_args(_bare(item.annotation)))
    return ""


# -- types as YAML writes them, and their words -------------------------------------------------------------


def _number(value: Any) -> Any:
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
        raise ValueError from err
    if isinstance(value, bool) or not finite:
        raise ValueError
    return value


def _whole(value: Any) -> int:
    value = _number(value)
    if value != int(value):
        raise ValueError
    return int(value)


def _flag(value: Any) -> bool:
    if str(value).lower() not in ("true", "1", "false", "0"):
        raise ValueError
    return str(value).lower() in ("true", "1")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _path(value: Any, info: ValidationInfo) -> Path:
    # An empty text would quietly name the folder itself.
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise ValueError
    folder: Path = (info.context or {}).get("folder", Path())
    return path_from(folder, str(value)).resolve()


def _mapping(value: Any) -> dict[Any, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError
    return copy.deepcopy(dict(value or {}))


_LOOSER: Mapping[Any, BeforeValidator] = {
    int: BeforeValidator(_whole),
    float: BeforeValidator(lambda value: float(_number(value))),
    bool: BeforeValidator(_flag),
    str: BeforeValidator(_text),
    Path: BeforeValidator(_path),
    Mapping: BeforeValidator(_mapping),
}


def _yaml_typed(annotation: Any) -> Any:
    """A type that takes what YAML has for it."""
    kind, given = _split(annotation)
    origin = get_origin(kind)
    inner = _not_null(kind)
    if inner is not None:
        kind = _yaml_typed(inner) | None
    elif origin is tuple:
        kind = types.GenericAlias(tuple, (_yaml_typed(get_args(kind)[0]), ...))
    elif origin is Mapping:
        kind = types.GenericAlias(Mapping, (get_args(kind)[0], _yaml_typed(get_args(kind)[1])))
    looser = _LOOSER.get(origin or kind)
    if looser is not None and looser not in given:
        # Limits are the type's own; what a user has validate the value goes first and last.
        limits = [each for each in given if isinstance(each, BaseMetadata)]
        given = (*limits, looser, *(each for each in given if each not in limits))
    return Annotated[(kind, *given)] if given else kind


def _type_of(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    annotation = parameter.annotation
    try:
        if isinstance(annotation, str):
            annotation = eval(annotation, getattr(function, "__globals__", {}))
        _says(annotation, parameter.default)
        return annotation
    except Exception:  # a user's annotation may be anything
        return type(parameter.default) if type(parameter.default) in (bool, int, float, str) else Any


_PLURALS = {int: "integers", float: "numbers", str: "texts"}

_WORDS = {
    bool: Says("true or false", "Set it to true or false."),
    str: Says("a text that is not empty", "Write some text in quotes."),
    Path: Says("a path", "Write it in quotes; a relative path starts at the YAML's folder."),
    Mapping: Says("a mapping of names to values", "Write its keys indented under it."),
    Any: Says("anything", "Any value will do."),
}


def _says(annotation: Any, default: Any) -> Says:
    """What a type accepts, in words; KeyError of one that can't be a key's."""
    kind, given = _split(annotation)
    for each in given:
        if isinstance(each, Says):
            return each
    origin = get_origin(kind)
    inner = _not_null(kind)
    if inner is not None:
        says = _says(inner, default)
        return Says(f"{says.accepts}, or null", f"{says.remedy} Or leave the key out.")
    if origin is Literal:
        return Says("one of " + ", ".join(get_args(kind)), "Choose one of them.")
    if origin is tuple:
        return Says(f"a list of {_PLURALS[_bare(get_args(kind)[0])]}", "Write it as [first, second].")
    if isinstance(kind, type) and issubclass(kind, Keys):
        return Says("a mapping of keys", "Write its keys indented under it.")
    if kind in (int, float):
        return _says_number(kind, given, default)
    return _WORDS[origin or kind]


def _says_number(kind: type, limits: Sequence[Any], default: Any) -> Says:
    bounds = {type(each): getattr(each, type(each).__name__.lower()) for each in limits if type(each) in (Ge, Gt, Le)}
    show: Callable[[Any], str] = str
    if kind is int:
        noun, finite = "an integer", ""
        if Gt in bounds:
            bounds[Ge] = bounds.pop(Gt) + 1
    else:
        noun, finite, show = "a number", "a finite number ", "{:g}".format
    least, above, most = (show(bounds[each]) if each in bounds else None for each in (Ge, Gt, Le))
    if least and most:
        return Says(f"{noun} from {least} to {most}", f"Set it to {least}, {most} or something between.")
    if above and most:
        return Says(f"{noun} above {above}, up to {most}", f"Set it to {most} or something between.")
    if least and kind is int:
        return Says(f"{noun} of at least {least}", f"Set it to {least} or more.")
    for limit, words in ((least, "of at least"), (above, "above"), (most, "of at most")):
        if limit:
            return Says(f"{noun} {words} {limit}", f"Set it to {finite}{words} {limit}.")
    return Says(noun, f"Write it as {default if isinstance(default, (int, float)) else kind(1)}.")
