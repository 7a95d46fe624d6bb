"""Typed keys: frozen pydantic models whose errors say the rule, the value received and the remedy, all at once.

The keys of the configuration and the options of whatever a user can name are declared alike, a line each:

    class Options(Keys):
        k: PositiveInt = key(3, "clients that train in a round")
        deadline: PositiveFloat | None = key(None, "seconds that a client may train; null: no limit")

What a field accepts, and what its errors say, comes from its type (`fl_rec.kinds`).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo

from fl_rec.errors import ConfigError
from fl_rec.kinds import (
    Above,
    AtLeast,
    AtMost,
    Fraction,
    Probability,
    Says,
    Values,
    bare,
    split,
    words_for,
    yaml_typed,
)
from fl_rec.plugins import did_you_mean

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
            item.annotation, given = split(yaml_typed(_annotation(item)))
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
    kind = bare(item.annotation)
    value = bare(get_args(kind)[1]) if get_origin(kind) is Mapping else None
    return keys_of(value) if isinstance(value, type) and issubclass(value, Keys) else {}


def rule_of(item: FieldInfo) -> Says:
    """What a key accepts."""
    return words_for(_annotation(item), item.default)


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
            text = unknown(name, list(keys_of(bare(item.annotation))))
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


def _locate(item: FieldInfo, place: Sequence[int | str]) -> tuple[tuple[int | str, ...], FieldInfo]:
    """As much of a place as names keys, and what stands there; of an unknown key what it stands in."""
    kind = bare(item.annotation)
    if place and isinstance(kind, type) and issubclass(kind, Keys):
        inner = keys_of(kind).get(str(place[0]))
    elif place and get_origin(kind) is Mapping and "[key]" not in place:
        value = bare(get_args(kind)[1])
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
        return remedies.get(str(value)) or did_you_mean(str(value), get_args(bare(item.annotation)))
    return ""


def _type_of(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    annotation = parameter.annotation
    try:
        if isinstance(annotation, str):
            annotation = eval(annotation, getattr(function, "__globals__", {}))
        words_for(annotation, parameter.default)
        return annotation
    except Exception:  # a user's annotation may be anything
        return type(parameter.default) if type(parameter.default) in (bool, int, float, str) else Any
