"""Which Pythons and Paddles are let in, and what the others are told."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from fl_rec import environment
from fl_rec.errors import RunError
from fl_rec.runs.directory import ENVIRONMENT_KEY

Pretend = Callable[..., list]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """`pretend(version, has_ps_core, said)`: the installed Paddle; returns the list of commands that probe it."""

    def pretend(version: str | None, has_ps_core: bool = False, said: str = "") -> list[list[str]]:
        probes: list[list[str]] = []

        def find(_name: str) -> str:
            if version is None:
                raise metadata.PackageNotFoundError("paddlepaddle")
            return version

        def probe(command: list[str], **options: Any) -> subprocess.CompletedProcess:
            assert options == {"capture_output": True, "text": True, "timeout": environment.PROBE_SECONDS}
            probes.append(command)
            return subprocess.CompletedProcess(command, 0 if has_ps_core else 1, "", said)

        monkeypatch.setattr(metadata, "version", find)
        monkeypatch.setattr(subprocess, "run", probe)
        return probes

    return pretend


@pytest.mark.parametrize("python", [(3, 9), (3, 14), (2, 7), (4, 0)])
def test_other_python_is_refused_before_paddle_is_looked_for(pretend: Pretend, python: tuple[int, int]) -> None:
    probes = pretend(None)
    with pytest.raises(RunError) as caught:
        environment.check(python)
    expected = f"Python must be 3.10 to 3.13, for which Paddle has wheels. Received: {python[0]}.{python[1]}."
    assert str(caught.value) == expected
    assert probes == []


@pytest.mark.parametrize("python", [(3, 10), (3, 11), (3, 13)])
@pytest.mark.parametrize("version", ["2.6.2", "3.0.0"])
def test_known_wheel_is_let_in_without_a_probe(pretend: Pretend, python: tuple[int, int], version: str) -> None:
    probes = pretend(version)
    environment.check(python)
    assert probes == []


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        (
            "Traceback ...\n  in <module>\nAttributeError: no DistFleetWrapper\n\n",
            "AttributeError: no DistFleetWrapper",
        ),
        ("", "nothing"),
    ],
)
@pytest.mark.parametrize("version", ["3.1.1", "3.3.1", "2.5.0"])
def test_wheel_without_ps_core_is_refused(pretend: Pretend, version: str, said: str, quoted: str) -> None:
    probes = pretend(version, said=said)
    with pytest.raises(RunError) as caught:
        environment.check((3, 11))
    text = str(caught.value)
    assert f"Received: paddlepaddle {version}, which said: {quoted}. Install one of them" in text
    assert "2.6.2 and 3.0.0" in text
    assert "pip install paddlepaddle==3.0.0" in text
    assert "-DWITH_PSCORE=ON" in text
    assert len(probes) == 1 and "DistFleetWrapper" in probes[0][-1]


def test_missing_paddle_is_named(pretend: Pretend) -> None:
    said = "ModuleNotFoundError: No module named 'paddle'"
    pretend(None, said=f"Traceback ...\n{said}\n")
    with pytest.raises(RunError) as caught:
        environment.check((3, 11))
    assert f"Received: paddlepaddle not installed, which said: {said}. Install one of them" in str(caught.value)


@pytest.mark.parametrize("version", ["0.0.0", None])
def test_own_build_with_ps_core_is_let_in(pretend: Pretend, version: str | None) -> None:
    probes = pretend(version, has_ps_core=True)
    environment.check((3, 11))
    assert len(probes) == 1


def test_long_imports_leave_python_as_it_was() -> None:
    flags = sys.getdlopenflags()
    with pytest.raises(ImportError, match="broken"), environment.importing():
        assert not gc.isenabled() and sys.getdlopenflags() == os.RTLD_LAZY
        raise ImportError("broken")
    gc.unfreeze()
    assert gc.isenabled() and sys.getdlopenflags() == flags != os.RTLD_LAZY


def test_importing_paddle_makes_no_folder_at_home(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "paddle" / "dataset"
    with environment.importing():
        with pytest.raises(FileExistsError):  # which Paddle passes over
            os.makedirs(folder)
        os.makedirs(tmp_path / "another")
    assert os.listdir(tmp_path) == ["another"]
    os.makedirs(folder)
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("imported", "variables", "threads"),
    [
        ("fl_rec", {}, [None, None]),
        ("fl_rec.api", {}, [None, None]),
        ("fl_rec", {"TRAINING_ROLE": "TRAINER"}, ["1", "1"]),
        ("fl_rec", {ENVIRONMENT_KEY: "a run", "OMP_NUM_THREADS": "4"}, ["4", "1"]),
        ("fl_rec.cli", {}, ["1", "1"]),
    ],
)
def test_threads_are_few_in_processes_of_ours(
    imported: str, variables: dict[str, str], threads: list[str | None]
) -> None:
    """Jobs and commands; a program that imports the package keeps its own."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    others = ("MKL_NUM_THREADS", "TRAINING_ROLE", ENVIRONMENT_KEY)
    plain = {name: value for name, value in os.environ.items() if name not in (*names, *others)}
    program = f"import os, {imported}; print(list(map(os.environ.get, {names})))"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**plain, **variables}, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"{threads}\n", "")
