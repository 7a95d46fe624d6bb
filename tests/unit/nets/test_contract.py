"""Loading a user's net: what a file must hold, and what one that does not is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fl_rec.errors import ConfigError
from fl_rec.nets.contract import attribute, check_net, load_model_class

NET = """\
class StaticModel:
    def __init__(self, config): self.config = config
    def create_feeds(self, is_infer=False): return []
    def net(self, feeds, is_infer=False): return {}
    def infer_net(self, feeds): return {}
    def create_optimizer(self, strategy): pass
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def write(content: str, name: str = "fl_mine.py", folder: str = "my nets") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


def refusal(path: Path, load: Callable[[Path], object] = load_model_class) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


def test_class_of_a_file(write: Write) -> None:
    model = load_model_class(write(NET))
    assert model.__name__ == "StaticModel"
    assert model("a config").config == "a config"


def test_class_of_another_name(write: Write) -> None:
    """Several nets may share a file; all else stays as of a StaticModel."""
    path = write(NET + NET.replace("StaticModel", "Wide") + "class Bare: pass\n")
    assert [load_model_class(Path(f"{path}{name}")).__name__ for name in ("", ":StaticModel", ":Wide")] == [
        "StaticModel",
        "StaticModel",
        "Wide",
    ]
    assert refusal(Path(f"{path}:Deep")) == f"{path} must define a class Deep. Received a file without one."
    assert refusal(Path(f"{path}:Bare")).startswith(f"{path}: Bare must have the methods create_feeds, ")
    assert refusal(Path("fl_none.py:Wide")) == (
        "runner.model_path must name a Python file with a class Wide. Received: fl_none.py, which is not a file."
    )


def test_file_imports_its_neighbour(write: Write) -> None:
    write("WIDTH = 7\n", "neighbour_of_fl_mine.py")
    model = load_model_class(write("from neighbour_of_fl_mine import WIDTH\n" + NET + "    width = WIDTH\n"))
    assert model.width == 7


def test_neighbours_of_the_same_name(write: Write) -> None:
    """Two nets of PaddleRec in one process, each with a net.py beside its static_model.py."""
    for width, folder in enumerate(("a", "b")):
        write(f"WIDTH = {width}\n", "net.py", folder)
        write("from net import WIDTH\n" + NET + "    width = WIDTH\n", "static_model.py", folder)
    base = write("", folder="").parent
    a, b = base / "a" / "static_model.py", base / "b" / "static_model.py"
    assert [load_model_class(path).width for path in (a, b, a)] == [0, 1, 0]


@pytest.mark.parametrize(
    "content",
    [
        "from neighbour_of_mine import WIDTH\nimport os.path, static_model, fl_rec.nets.ncf, beside_the_script\n",
        "try:\n    import no_such_module_of_mine\nexcept ImportError:\n    pass\n",
        "def late():\n    import no_such_module_of_mine\n",
        "import sys\nsys.path.append('elsewhere')\nimport no_such_module_of_mine\n",
    ],
)
def test_a_net_that_may_be_importable(write: Write, content: str) -> None:
    write("import fl_mine\n", "neighbour_of_mine.py")
    script = write("", "beside_the_script.py", "scripts")
    before = set(sys.modules)
    check_net(write(content), script.parent)
    assert not {"static_model", "fl_rec.nets.ncf", "beside_the_script", "neighbour_of_mine"} & (
        set(sys.modules) - before
    )


def test_a_net_that_is_not_importable_is_told_without_importing_it(write: Write) -> None:
    path = write("raise ValueError\n\nfrom neighbour_of_mine import WIDTH\n")
    missing = "there is no module 'neighbour_of_mine'. Put it beside the file, install it, or name its folder in "
    assert refusal(path, check_net) == f"The net must be importable. Received: {path}, line 3: {missing}PYTHONPATH."
    beside = write("import nowhere_at_all.inside\n", "neighbour_of_mine.py")
    assert f"Received: {beside}, line 1: there is no module 'nowhere_at_all'." in refusal(path, check_net)
    beside.write_text("\nclass Deep(:\n")
    assert refusal(path, check_net) == f"The net must be Python. Received: {beside}, line 2: invalid syntax."


def test_file_that_looks_itself_up(write: Write) -> None:
    # dataclasses resolves postponed annotations through sys.modules[cls.__module__].
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    model = load_model_class(write(f"{head}@dataclass\nclass Widths:\n    user: int = 8\n{NET}    widths = Widths()\n"))
    assert model.widths.user == 8


def test_folder_is_put_on_the_path_once(write: Write) -> None:
    path = write(NET)
    load_model_class(path)
    load_model_class(path)
    assert sys.path.count(str(path.parent.resolve())) == 1


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "fl_none.py"
    assert refusal(path) == (
        f"runner.model_path must name a Python file with a class StaticModel. Received: {path}, which is not a file."
    )


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith(f"Received: {tmp_path}, which is not a file.")


def test_name_without_py(write: Write) -> None:
    path = write(NET, "fl_mine.txt")
    assert (
        refusal(path) == f"runner.model_path must name a Python file. Received: {path}, whose name does not end in .py"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import no_such_module_of_mine\n", "ModuleNotFoundError: No module named 'no_such_module_of_mine'"),
        ("class StaticModel(:\n", "SyntaxError: "),
        ("raise ValueError('three layers are needed')\n", "ValueError: three layers are needed"),
    ],
)
def test_file_that_cannot_be_imported(write: Write, content: str, reason: str) -> None:
    path = write(content)
    assert refusal(path).startswith(f"The net {path} can't be imported: {reason}")


@pytest.mark.parametrize("content", ["", "StaticModel = 3\n", "class Model: pass\n"])
def test_file_without_the_class(write: Write, content: str) -> None:
    path = write(content)
    assert refusal(path) == f"{path} must define a class StaticModel. Received a file without one."


def test_missing_methods_are_all_named(write: Write) -> None:
    path = write(
        "class StaticModel:\n    net = None\n    def create_feeds(self): pass\n    def infer_net(self): pass\n"
    )
    assert refusal(path) == (
        f"{path}: StaticModel must have the methods create_feeds, net, infer_net, create_optimizer. "
        "Missing: net, create_optimizer."
    )


def test_attribute_that_net_must_set() -> None:
    path = Path("fl_mine.py")
    assert attribute(SimpleNamespace(_cost=3.0), "_cost", path) == 3.0
    with pytest.raises(
        ConfigError, match=r"fl_mine.py: StaticModel.net must set self._cost; see fl_rec/nets/contract.py"
    ):
        attribute(SimpleNamespace(), "_cost", path)
