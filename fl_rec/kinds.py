"""Types as YAML writes them, and the words for what they accept.

They are looser than pydantic's where YAML needs it: "1e-3" is a number, "1e2" an int, "True" and 0 are flags, a
relative path starts at the configuration's folder, and nothing where a mapping belongs is an empty one. They are
stricter where YAML misleads: true is no number.
"""

from __future__ import annotations

import copy
import math
import numbers
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import BaseMetadata, Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator, ValidationInfo

from fl_rec.plugins import path_from

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


def split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type, and what it is annotated with."""
    return (
        (get_args(annotation)[0], annotation.__metadata__) if get_origin(annotation) is Annotated else (annotation, ())
    )


def _not_null(annotation: Any) -> Any:
    """The type beside null; None of a type that is no union."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    return next(each for each in get_args(annotation) if each is not types.NoneType)


def bare(annotation: Any) -> Any:
    """A type without what it is annotated with, and without null."""
    kind, _ = split(annotation)
    inner = _not_null(kind)
    return kind if inner is None else bare(inner)


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


def yaml_typed(annotation: Any) -> Any:
    """A type that takes what YAML has for it."""
    kind, given = split(annotation)
    origin = get_origin(kind)
    inner = _not_null(kind)
    if inner is not None:
        kind = yaml_typed(inner) | None
    elif origin is tuple:
        kind = types.GenericAlias(tuple, (yaml_typed(get_args(kind)[0]), ...))
    elif origin is Mapping:
        kind = types.GenericAlias(Mapping, (get_args(kind)[0], yaml_typed(get_args(kind)[1])))
    looser = _LOOSER.get(origin or kind)
    if looser is not None and looser not in given:
        # Limits are the type's own; what a user has validate the value goes first and last.
        limits = [each for each in given if isinstance(each, BaseMetadata)]
        given = (*limits, looser, *(each for each in given if each not in limits))
    return Annotated[(kind, *given)] if given else kind


_PLURALS = {int: "integers", float: "numbers", str: "texts"}

_WORDS = {
    bool: Says("true or false", "Set it to true or false."),
    str: Says("a text that is not empty", "Write some text in quotes."),
    Path: Says("a path", "Write it in quotes; a relative path starts at the YAML's folder."),
    Mapping: Says("a mapping of names to values", "Write its keys indented under it."),
    Any: Says("anything", "Any value will do."),
}


def words_for(annotation: Any, default: Any) -> Says:
    """What a type accepts, in words; KeyError of one that can't be a key's."""
    kind, given = split(annotation)
    for each in given:
        if isinstance(each, Says):
            return each
    origin = get_origin(kind)
    inner = _not_null(kind)
    if inner is not None:
        says = words_for(inner, default)
        return Says(f"{says.accepts}, or null", f"{says.remedy} Or leave the key out.")
    if origin is Literal:
        return Says("one of " + ", ".join(get_args(kind)), "Choose one of them.")
    if origin is tuple:
        return Says(f"a list of {_PLURALS[bare(get_args(kind)[0])]}", "Write it as [first, second].")
    if isinstance(kind, type) and issubclass(kind, BaseModel):
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
