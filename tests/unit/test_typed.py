"""Typed keys: what YAML may write for each type, and what every refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError, field_validator, model_validator

from fl_rec.errors import ConfigError
from fl_rec.typed import (
    AtLeast,
    AtMost,
    Fraction,
    Keys,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Refused,
    Values,
    key,
    options_of,
    read_options,
    to_plain,
)

FOLDER = Path("/a/folder")


class Inner(Keys):
    width: PositiveInt = key(1, "a width")


class Options(Keys):
    k: PositiveInt = key(3, "clients")
    level: Annotated[int, AtLeast(0), AtMost(9)] = key(0, "a level")
    deadline: PositiveFloat | None = key(None, "seconds")
    names: tuple[str, ...] = key((), "names")
    mode: Annotated[Literal["geo", "async"], Refused({"heter": "There is no GPU."})] = key("geo", "a mode")
    values: Values = key({}, "anything")
    file: Path | None = key(None, "a file")
    on: bool = key(False, "a flag")
    share: Fraction = key(0.5, "a share")
    chance: Probability = key(0.5, "a chance")
    rate: float = key(2.5, "a rate")
    class_: str = key("adam", "a class")
    inner: Inner = key(Inner(), "more keys")


def refusal(cls: type[Keys], values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_options(cls, values, "here", FOLDER)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("k", "1e2", 100),
        ("k", np.int64(4), 4),
        ("k", 5.0, 5),
        ("deadline", "1e-3", 1e-3),
        ("deadline", None, None),
        ("names", ["a", "b"], ("a", "b")),
        ("values", None, {}),
        ("values", {1: [2]}, {1: [2]}),
        ("file", "x/y", FOLDER / "x/y"),
        ("file", "/x", Path("/x")),
        ("file", "~/x", Path.home() / "x"),
        ("file", "~nobody-of-this-name/x", FOLDER / "~nobody-of-this-name" / "x"),
        ("on", "True", True),
        ("on", 0, False),
        ("share", 1, 1.0),
        ("inner", {"width": "7"}, Inner(width=7)),
        ("class", "sgd", "sgd"),
    ],
)
def test_what_yaml_writes(name: str, written: object, value: object) -> None:
    read = getattr(read_options(Options, {name: written}, "here", FOLDER), "class_" if name == "class" else name)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "written", "text"),
    [
        ("k", 0, "an integer of at least 1. Received: k=0 (int). Set it to 1 or more."),
        ("k", True, "an integer of at least 1. Received: k=True (bool). Set it to 1 or more."),
        ("k", "0e0", "an integer of at least 1. Received: k='0e0' (str). Set it to 1 or more."),
        ("k", None, "an integer of at least 1. Received: k=None (NoneType). Set it to 1 or more."),
        ("k", 10**400, f"an integer of at least 1. Received: k={10**400} (int). Set it to 1 or more."),
        ("level", 10, "an integer from 0 to 9. Received: level=10 (int). Set it to 0, 9 or something between."),
        (
            "deadline",
            float("inf"),
            "a number above 0, or null. Received: deadline=inf (float). Set it to a finite number above 0. Or leave "
            "the key out.",
        ),
        ("names", "a", "a list of texts. Received: names='a' (str). Write it as [first, second]."),
        ("names", [1, 2], "a list of texts. Received: names=[1, 2] (list). Write it as [first, second]."),
        ("mode", "heter", "one of geo, async. Received: mode='heter' (str). There is no GPU."),
        ("mode", "asinc", "one of geo, async. Received: mode='asinc' (str). Did you mean async?"),
        ("mode", 3, "one of geo, async. Received: mode=3 (int). Choose one of them."),
        ("values", 3, "a mapping of names to values. Received: values=3 (int). Write its keys indented under it."),
        (
            "file",
            "",
            "a path, or null. Received: file='' (str). Write it in quotes; a relative path starts at the YAML's "
            "folder. Or leave the key out.",
        ),
        ("on", 2, "true or false. Received: on=2 (int). Set it to true or false."),
        ("share", 2, "a number from 0 to 1. Received: share=2 (int). Set it to 0, 1 or something between."),
        ("chance", 0, "a number above 0, up to 1. Received: chance=0 (int). Set it to 1 or something between."),
        ("rate", "x", "a number. Received: rate='x' (str). Write it as 2.5."),
        ("class", " ", "a text that is not empty. Received: class=' ' (str). Write some text in quotes."),
        ("inner", 3, "a mapping of keys. Received: inner=3 (int). Write its keys indented under it."),
    ],
)
def test_what_is_refused(name: str, written: object, text: str) -> None:
    assert refusal(Options, {name: written}) == f"here: {name} must be {text}"


def test_every_problem_at_once_with_the_nearest_key() -> None:
    values = {"k": "x", "sharre": 1, "class_": "sgd", 5: 6, "inner": {"width": 0, "widht": 1}}
    known = "k, level, deadline, names, mode, values, file, on, share, chance, rate, class, inner"
    assert refusal(Options, values).splitlines() == [
        "6 problems in the configuration:",
        "here: inner.widht: unknown key. Did you mean width?",
        "here: sharre: unknown key. Did you mean share?",
        "here: class_: unknown key. Did you mean class?",
        f"here: 5: unknown key. Its keys: {known}.",
        "here: k must be an integer of at least 1. Received: k='x' (str). Set it to 1 or more.",
        "here: inner.width must be an integer of at least 1. Received: width=0 (int). Set it to 1 or more.",
    ]
    assert refusal(Options, ["k"]) == f"here must be a mapping of keys. Received: ['k']. Its keys: {known}."


def test_a_required_key() -> None:
    class Needs(Keys):
        data: Path = key(..., "folder of the data")

    assert refusal(Needs, {}) == "here: data is missing. Set it to the folder of the data."


def test_a_users_own_rules() -> None:
    class Own(Keys):
        low: NonNegativeFloat = key(0.1, "least")
        high: NonNegativeFloat = key(2.0, "most")

        @field_validator("low")
        @classmethod
        def _not_half(cls, value: float) -> float:
            if value == 0.5:
                raise ValueError("Anything but 0.5 will do.")
            return value

        @model_validator(mode="after")
        def _in_order(self) -> Own:
            if self.low > self.high:
                raise ValueError(f"low must not be above high. Received: {self.low:g} and {self.high:g}.")
            return self

    assert refusal(Own, {"low": 3}) == "here: low must not be above high. Received: 3 and 2."
    assert refusal(Own, {"low": 0.5}).endswith("Received: low=0.5 (float). Anything but 0.5 will do.")


def test_keys_are_frozen_and_values_the_users_own() -> None:
    given = {"values": {"a": [1]}}
    options = read_options(Options, given, "here", FOLDER)
    given["values"]["a"].append(2)
    assert options.values == {"a": [1]}
    with pytest.raises(ValidationError, match="frozen"):
        options.k = 4  # type: ignore[misc]


def test_plain() -> None:
    class Few(Keys):
        file: Path = key(..., "a file")
        names: tuple[str, ...] = key(("a",), "names")
        class_: str = key("x", "a class")
        inner: Inner = key(Inner(), "more keys")

    plain = to_plain(Few(file="/x"))
    assert plain == {"file": "/x", "names": ["a"], "class": "x", "inner": {"width": 1}}
    assert to_plain({"a": (Path("/x"), None)}) == {"a": ["/x", None]}


def function(
    first: Any,
    *,
    gamma: Annotated[float, AtLeast(0)] = 2.0,
    alpha: float = 1,
    power=2,  # type: ignore[no-untyped-def]
    cuts=(0.5,),
    from_=None,
    copy: "Unknown" = "x",  # type: ignore[name-defined]  # noqa: F821, UP037
    array: np.ndarray = None,  # type: ignore[assignment]
    classes,
) -> None: ...


def test_options_of_a_function() -> None:
    cls = options_of(function, "mine")
    given = {"classes": [1], "from": 3, "cuts": [1], "gamma": "1", "copy": "y", "array": [1], "alpha": 3}
    assert dict(read_options(cls, given, "here", FOLDER)) == {
        "gamma": 1.0,
        "alpha": 3.0,
        "power": 2,
        "cuts": [1],
        "from_": 3,
        "copy": "y",
        "array": [1],
        "classes": [1],
    }
    assert refusal(cls, {"gamma": -1, "power": 2.5, "alpha": "x", "copy": 3, "aray": 1}).splitlines() == [
        "6 problems in the configuration:",
        "here: aray: unknown key. Did you mean array?",
        "here: gamma must be a number of at least 0. Received: gamma=-1 (int). Set it to a finite number of at least "
        "0.",
        "here: alpha must be a number. Received: alpha='x' (str). Write it as 1.",
        "here: power must be an integer. Received: power=2.5 (float). Write it as 2.",
        "here: copy must be a text that is not empty. Received: copy=3 (int). Write some text in quotes.",
        "here: classes is missing. Set it to the classes that mine takes.",
    ]
