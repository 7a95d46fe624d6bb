"""Where machine code is kept, and who makes it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_rec.kernels import compiled


@pytest.fixture(autouse=True)
def looked_for_anew() -> Iterator[None]:
    compiled.cache_folder.cache_clear()
    yield
    compiled.cache_folder.cache_clear()


def make(signature: str = "float64(float64)") -> Any:
    return compiled.kernel(signature)(lambda x: 2 * x)


def test_it_is_kept_where_numba_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import config

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    folder = compiled.cache_folder()
    assert folder is not None and folder.parent == tmp_path / "cache"
    before = config.CACHE_DIR
    assert make()(2.0) == 4.0
    assert list(folder.rglob("*.nbi")) and before == config.CACHE_DIR
    assert compiled.cache_environment("spare") == {}


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


def test_where_nothing_can_be_kept_each_process_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiled.cache_folder() is None
    assert make()(2.0) == 4.0
    compiled.compile_all(lambda: pytest.fail("there is nowhere to keep it"))
    assert compiled.cache_environment("spare") == {"NUMBA_CACHE_DIR": "spare"}


def test_all_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    imported, begun = [], []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    for _ in range(2):
        compiled.compile_all(lambda: begun.append(True))
    assert begun == [True]
    assert imported == ["fl_rec.kernels.factorisation", "fl_rec.kernels.net"]
