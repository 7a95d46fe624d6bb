"""The shell scripts, by whatever shell and name they are called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fl_rec import environment

DEADLINE = 30.0
assert environment.CLONE is not None
SCRIPTS = ("fl_run.sh", "datasets/movielens/run.sh")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts in a clone whose environment is made: its Python says what it is called with."""
    folder = tmp_path / "a clone"
    for name in (*SCRIPTS, "setup.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((environment.CLONE / name).read_bytes())
        (folder / name).chmod(0o755)
    python = folder / ".venv-3.0.0" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$0" "$@"\n')
    python.chmod(0o755)
    (folder / ".venv-3.0.0" / "fl_rec.stamp").write_text(
        subprocess.run('echo "$(cksum <setup.py) "', shell=True, cwd=folder, capture_output=True, text=True).stdout
    )
    return folder


def said_by(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("shell", [["sh"], ["bash"], []])
def test_any_shell_and_a_link(clone: Path, tmp_path: Path, shell: list[str]) -> None:
    expected = f"{clone}/.venv-3.0.0/bin/python -m fl_rec.cli run --worker_num 3\n"
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to("../a clone/fl_run.sh")
    for script in (Path("fl_run.sh"), clone / "fl_run.sh") if shell else (clone / "fl_run.sh",):
        assert said_by(*shell, script, "--worker_num", "3", cwd=clone) == expected
    assert said_by(*shell, link, "--worker_num", "3", cwd=link.parent) == expected
    usage = said_by(*shell, clone / SCRIPTS[1], "--help", cwd=tmp_path)
    assert usage.startswith("Usage: run.sh [--out DIR]")
    assert "--out DIR      folder to write" in usage


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        ("", "run"),
        ("-m configs/x.yaml -o runner.epochs=3", "run -m configs/x.yaml -o runner.epochs=3"),
        ("--help", "--help"),
        ("configs/x.yaml", "run configs/x.yaml"),
        ("runner.epochs=3", "run runner.epochs=3"),
        ("recommend --user 7", "recommend --user 7"),
        ("runs", "runs"),
        ("run -m a.yaml", "run -m a.yaml"),
        ("--version", "--version"),
        ("help", "--help"),
    ],
)
def test_commands_go_to_the_environment(clone: Path, typed: str, passed: str) -> None:
    said = said_by("./fl_run.sh", *typed.split(), cwd=clone)
    assert said.split("-m fl_rec.cli", 1)[1].strip() == passed


def test_commands_are_called_as_they_were_typed(clone: Path) -> None:
    """So that an error's remedy can be typed too."""
    (clone / ".venv-3.0.0" / "bin" / "python").write_text('#!/bin/sh\necho "$FL_REC_PROGRAM"\n')
    assert said_by("./fl_run.sh", "recommend", cwd=clone) == "./fl_run.sh\n"
