"""What others wrote as JSON, taken in as typed records: no count that is a text, no path that leaves its folder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar, cast

from annotated_types import Ge, Le, Lt
from pydantic import AfterValidator, AllowInfNan, Strict, TypeAdapter, ValidationError

from fl_rec.errors import DataError

T = TypeVar("T")

# A whole number, 0 or more; any finite number; one from 0 to 1. No text is one, nor true or false.
Count = Annotated[int, Strict(), Ge(0), Lt(2**63)]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Share = Annotated[Number, Ge(0), Le(1)]


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"a path must stay in its folder, and {name[:60]!r} does not")
    return name


# A file's path, relative to the folder of what names it.
Inside = Annotated[str, AfterValidator(_inside)]


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def as_typed(cls: type[T], content: Any, rule: str, where: object, remedy: str = "") -> T:
    """A dataclass from what JSON holds.

    Args:
        cls: its fields' types say what they accept; without `extra="forbid"` other keys are left out.
        rule: what an error says first.
        where: the file, and perhaps its line.
        remedy: what it says last.

    Raises:
        DataError: a key is missing, or has another value.
    """
    try:
        found: T = _adapter(cast(Hashable, cls)).validate_python(content)
    except (ValidationError, RecursionError) as err:
        raise DataError(f"{rule} Received: {where} ({_wrong(err)}). {remedy}".rstrip()) from err
    return found


def _wrong(err: ValidationError | RecursionError) -> str:
    if isinstance(err, RecursionError):
        return "it is nested too deeply"
    problems = err.errors(include_url=False, include_input=True)[:3]
    return "; ".join(f"{'.'.join(map(str, each['loc']))[:80]}: {each['msg'][:200]}{_shown(each)}" for each in problems)


def _shown(problem: Mapping[str, Any]) -> str:
    value = problem["input"]
    return "" if isinstance(value, dict | list) or problem["type"] == "missing" else f", and is {value!r:.60}"
