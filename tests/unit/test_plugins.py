"""What users name: by name, by module and by file, and the options written after it on a command line."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_rec.errors import ConfigError
from fl_rec.plugins import Registry, absolute, did_you_mean, load, load_file, nearest, split_options, where_raised

PROJECT = Path(__file__).parents[2]
DEADLINE = 30.0


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...

    @abstractmethod
    def edges(self) -> int: ...


class Square(Shape):
    def area(self) -> float:
        return 1.0

    def edges(self) -> int:
        return 4


class Half(Shape):
    def edges(self) -> int:
        return 3


FUNCTIONS: Registry[Callable[..., Any]] = Registry("a function", "math.function", {"root": "math:sqrt", "size": len})
SHAPES: Registry[type[Shape]] = Registry("a shape", "draw.shape", {"square": Square}, base=f"{__name__}:Shape")


def refusal(call: Callable[..., Any], *arguments: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **more)
    return str(caught.value)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "mine.py").write_text("def twice(x):\n    return 2 * x\nTHREE = 3\n")
    return folder


def test_ground_needs_nothing_above_it() -> None:
    code = "import sys, fl_rec.plugins\nprint(sorted(name for name in sys.modules if name.startswith('fl_rec.')))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, timeout=DEADLINE, capture_output=True, text=True)
    assert run.stdout == "['fl_rec.errors', 'fl_rec.plugins']\n", run.stderr


def test_nearest() -> None:
    assert nearest("gama", ["alpha", "gamma"]) == "gamma"
    assert nearest("xyz", ["alpha", "gamma"]) == ""
    assert nearest("xyz", []) == ""
    assert did_you_mean("gama", {"gamma": 1}) == "Did you mean gamma?"
    assert did_you_mean("xyz", {"gamma": 1}) == ""


def test_built_in_thing_is_itself_or_imported() -> None:
    assert list(FUNCTIONS) == ["root", "size"]
    assert FUNCTIONS.find("root")(9) == 3
    assert FUNCTIONS.find("size") is len
    assert SHAPES.find("square") is Square


def test_own_thing_of_a_module_and_of_a_file(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FUNCTIONS.find("math:floor")(2.5) == 2
    assert FUNCTIONS.find("mine.py:twice", mine)(4) == 8
    monkeypatch.chdir(mine)
    assert FUNCTIONS.find("mine.py:twice")(4) == 8, "without a folder a path starts where one is"
    monkeypatch.setenv("HOME", str(mine))
    assert FUNCTIONS.find("~/mine.py:twice", Path("/"))(4) == 8


def test_unknown_name() -> None:
    head = "math.function must be one of root, size, or module:function. Received: "
    assert refusal(FUNCTIONS.find, "roots") == head + "'roots'. Did you mean root?"
    assert refusal(FUNCTIONS.find, "xyz") == head + "'xyz'. Your own is named module:function or file.py:function."
    assert refusal(SHAPES.find, "xyz") == (
        "draw.shape must be one of square, or module:Class. Received: 'xyz'. Your own is named module:Class or "
        "file.py:Class."
    )
    assert refusal(SHAPES.find, "squares", key="draw.other").startswith("draw.other must be one of square, or ")


def test_what_is_no_function(mine: Path) -> None:
    assert refusal(FUNCTIONS.find, "mine.py:THREE", mine) == (
        "A function must be a function. Received: 'mine.py:THREE', int."
    )


def test_what_is_no_subclass() -> None:
    head = f"draw.shape must be a subclass of {__name__}.Shape. Received: "
    assert refusal(SHAPES.find, "pathlib:Path") == head + "'pathlib:Path', <class 'pathlib.Path'>."
    assert refusal(SHAPES.find, "math:pi").startswith(head + "'math:pi', 3.14")


def test_what_lacks_an_abstract_method() -> None:
    assert refusal(SHAPES.find, f"{__name__}:Half") == (
        f"A shape has the method area. Received: '{__name__}:Half', which has not."
    )
    assert refusal(SHAPES.find, f"{__name__}:Shape").startswith("A shape has the method area, edges. Received: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("def f(:\n", "; {path}, line 1: "),
        ("1 / 0\n", " (ZeroDivisionError('division by zero')). Give module:name, importable (PYTHONPATH), or "),
        ("open('no such file')\n", " (FileNotFoundError(2, 'No such file or directory')). Give module:name, "),
        ("", """ (AttributeError("module 'fl_rec_user_broken' has no attribute 'f'")). Give module:name, """),
    ],
)
def test_file_that_fails(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content)
    text = refusal(load, "broken.py:f", "a loss", tmp_path)
    assert text.startswith(f"A loss must be importable. Received: 'broken.py:f'{reason.format(path=path)}")


def test_file_that_fails_leaves_no_module(tmp_path: Path) -> None:
    (tmp_path / "half_done.py").write_text("1 / 0\n")
    refusal(load, "half_done.py:f", "a loss", tmp_path)
    assert "fl_rec_user_half_done" not in sys.modules


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(load, "none.py:f", "a loss", tmp_path) == (
        f"A loss must be importable. Received: 'none.py:f'; there is no file {tmp_path}/none.py. A relative path "
        "starts at the configuration's folder, or on a command line where you are."
    )


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert absolute("../mine.py:f", tmp_path / "a") == f"{tmp_path}/mine.py:f"
    assert absolute("~/mine.py:f", tmp_path) == "/somewhere/mine.py:f"
    assert absolute("module:f", tmp_path) == "module:f"
    assert absolute("bpr", tmp_path) == "bpr"


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("iid", "iid", {}),
        ("mine.py:f", "mine.py:f", {}),
        ("iid:a=1", "iid", {"a": "1"}),
        ("mine.py:f:a=1, b_2 = x=y", "mine.py:f", {"a": "1", "b_2": "x=y"}),
        ("ml:path=/a:b/c=d.zip", "ml", {"path": "/a:b/c=d.zip"}),
        ("/a=b:c.py:f", "/a=b:c.py:f", {}),
        ("iid:a=", "iid", {"a": ""}),
    ],
)
def test_options_on_a_command_line(text: str, name: str, options: dict[str, str]) -> None:
    assert split_options(text) == (name, options)


def test_options_that_are_none() -> None:
    assert refusal(split_options, "iid:a=1,b") == (
        "Options are written as name:key=value,key=value. Received: 'b' in 'iid:a=1,b'."
    )


def test_an_error_is_where_the_users_code_was_not_the_library_that_it_called(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json\n\ndef read():\n    return json.loads('{')\n")
    with pytest.raises(ValueError) as caught:
        load_file(tmp_path / "mine.py").read()
    # As raised in the package: without the frames of this test, which is a user's too.
    raised = caught.value.with_traceback(caught.tb.tb_next)
    assert where_raised(raised) == " (mine.py, line 4)"
    of_a_library = caught.value.with_traceback(caught.tb.tb_next.tb_next)
    assert where_raised(of_a_library) == ""
