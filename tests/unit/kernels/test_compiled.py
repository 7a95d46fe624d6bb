"""Where machine code is kept, and who makes it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec import environment
from fl_rec.errors import RunError
from fl_rec.kernels import compiled


@pytest.fixture(autouse=True)
def looked_for_anew() -> Iterator[None]:
    for each in (compiled.cache_folder, compiled.load):
        each.cache_clear()
    yield
    for each in (compiled.cache_folder, compiled.load):
        each.cache_clear()


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., Any]], None]:
    """`only(signature, function)` makes it the one kernel, "own.function"."""

    def make(signature: str, function: Callable[..., Any]) -> None:
        module = SimpleNamespace(function=compiled.kernel(signature)(function))
        monkeypatch.setitem(sys.modules, "fl_rec.kernels.own", module)
        monkeypatch.setattr(compiled, "KERNELS", ("own.function",))

    return make


def scaled_sum(values: Any, times: Any) -> Any:
    total = 0.0
    for _ in range(times):
        copy = np.empty(len(values))  # memory of its own, given back each time
        for k in range(len(values)):
            copy[k] = values[k]
        total += copy.sum()
    return total


def test_it_is_kept_where_numba_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    folder = compiled.cache_folder()
    assert folder is not None and folder.parent == tmp_path / "cache"
    only("float64(float64[::1], int64)", scaled_sum)
    values = np.arange(1000.0)
    assert compiled.load("own.function")(values, 3) == 3 * values.sum()
    assert (folder / "own.function").stat().st_size > 500
    assert compiled.cache_environment("spare") == {}
    compiled.load.cache_clear()
    monkeypatch.setattr(compiled, "_compile", lambda name: pytest.fail(f"{name} was kept"))
    compiled.load_all()
    assert compiled.load("own.function")(values, 10_000) == 10_000 * values.sum()


def test_arrays_are_of_the_signatures_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    only("void(float32[:, ::1])", lambda values: None)
    assert compiled.load("own.function")(np.zeros((2, 3), np.float32)) == 0.0
    for wrong in (np.zeros((2, 3)), np.zeros(6, np.float32), np.zeros((3, 2), np.float32).T):
        with pytest.raises(TypeError, match=r"own\.function takes C-ordered float32 \[2\]\. Received: float"):
            compiled.load("own.function")(wrong)
    with pytest.raises(ValueError, match="longer"):
        compiled.load("own.function")()


def test_what_would_be_missing_when_it_runs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    only("float64(float64)", lambda x: math.gamma(x))
    with pytest.raises(RunError, match=r"own\.function must need nothing of numba's .* Received: \w*gamma from numba"):
        compiled.load("own.function")
    folder = compiled.cache_folder()
    assert folder is not None and [each.name for each in folder.iterdir()] == ["lock"]


def test_who_scores_imports_no_numba() -> None:
    script = (
        "import sys\nimport numpy as np\nfrom fl_rec import kernels\nfrom fl_rec.nets.structure import factorisation\n"
        "net = factorisation('user', 'item', None)\nkernels.compile_all()\n[sys.modules.pop(each) for each in "
        "list(sys.modules) if each.startswith('numba')]\nones = np.ones((1, 1), np.float32)\n"
        "print(kernels.score(net, {'user': ones, 'item': 0 * ones}, np.array([0]), np.array([0])))\n"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=environment.CLONE,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.split("\n")[-3:-1], done.stderr) == (["[0.5]", "False"], "")


def test_beside_the_source_or_else_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    source = tmp_path / "package" / "compiled.py"
    monkeypatch.setattr(compiled, "__file__", str(source))
    source.parent.mkdir()
    source.touch()
    folder = compiled.cache_folder()
    assert folder is not None and folder.parent == source.parent / "__pycache__"
    # A file is in the way of a folder, whoever one is.
    compiled.cache_folder.cache_clear()
    folder.rmdir()
    folder.parent.rmdir()
    folder.parent.touch()
    folder = compiled.cache_folder()
    assert folder is not None and folder.parent == tmp_path / "user" / "fl_rec"


def test_other_source_is_compiled_anew(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    first = compiled._fingerprint(tmp_path)
    assert compiled._fingerprint(tmp_path) == first
    (tmp_path / "one.py").write_text("2")
    assert compiled._fingerprint(tmp_path) != first


def test_what_is_all_there_need_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image: its user may read what the build has compiled, and its file system may be read-only."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_compile", lambda name: name.encode())
    compiled.compile_all()
    monkeypatch.setattr("os.access", lambda *_: False)
    compiled.cache_folder.cache_clear()
    assert compiled.is_compiled()
    folder = compiled.cache_folder()
    assert folder is not None
    (folder / "complete").unlink()
    compiled.cache_folder.cache_clear()
    assert compiled.cache_folder() is None


def test_for_another_processor_than_this_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite.binding as llvm

    asked: dict[str, Any] = {}
    monkeypatch.setattr(llvm.Target, "create_target_machine", lambda _, **options: asked.update(options))
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64-v3")
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)  # without, numba goes by this processor's
    own = compiled._fingerprint(tmp_path)
    compiled._machine()
    assert (asked["cpu"], asked["features"]) == (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "")
    compiled._machine()
    assert (asked["cpu"], asked["features"]) == ("x86-64-v3", "")
    assert compiled._fingerprint(tmp_path) != own
    assert compiled._processor() == "x86-64-v3 "  # whatever this one is called


def test_where_nothing_can_be_kept_each_process_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiled.cache_folder() is None
    only("float64(float64[::1], int64)", scaled_sum)
    assert compiled.load("own.function")(np.array([2.0]), 2) == 4.0
    compiled.compile_all(lambda: pytest.fail("there is nowhere to keep it"))
    spare = str(tmp_path / "spare")
    assert compiled.cache_environment(spare) == {"NUMBA_CACHE_DIR": spare}


def test_where_nothing_can_be_kept_the_processes_of_a_job_share_what_its_launcher_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    spare, begun = str(tmp_path / "spare"), list[bool]()
    monkeypatch.setattr(compiled, "_compile", lambda name: name.encode())
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    compiled.compile_all(lambda: begun.append(True), spare)
    monkeypatch.setenv("NUMBA_CACHE_DIR", spare)
    compiled.cache_folder.cache_clear()
    assert begun == [True] and compiled.is_compiled()


def test_all_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    made: list[str] = []
    begun: list[bool] = []
    monkeypatch.setattr(compiled, "_compile", lambda name: made.append(name) or b"")
    for _ in range(2):
        compiled.compile_all(lambda: begun.append(True))
    assert begun == [True]
    assert made == ["factorisation.train", "net.score", "net.train"]
