"""What a training script says of an error, beside the error's own text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fl_rec.errors import ConfigError
from fl_rec.job.judge import Patience
from fl_rec.job.watch import FLEETRUN_MARK
from fl_rec.plugins import load_file
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory
from fl_rec.runs.roles import Role
from fl_rec.trainer.main import _in_short, _left_over, main, open_run, tidy


def test_a_long_error_is_its_first_and_its_last_lines() -> None:
    """Of Paddle's, forty lines of a stack stand between."""
    assert _in_short(ValueError("short\n\nand plain")) == "ValueError: short\nand plain"
    stack = "\n".join(f'  File "x.py", line {line}' for line in range(40))
    text = f"In user code:\n{stack}\n\n  PreconditionNotMetError: The data must be so.\n  [Hint: it is not.]\n"
    assert _in_short(SystemError(text)).splitlines() == [
        *("SystemError: In user code:", "  ...", '  File "x.py", line 38', '  File "x.py", line 39'),
        *("  PreconditionNotMetError: The data must be so.", "  [Hint: it is not.]"),
    ]


def test_roles_of_a_bare_fleetrun_agree_on_a_run_though_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psutil's create_time of fleetrun moves with the clock; the folder that it has made stays."""
    (tmp_path / "mark").mkdir()
    os.utime(tmp_path / "mark", (86400.0, 86400.0))
    monkeypatch.delenv(ENVIRONMENT_KEY, raising=False)
    monkeypatch.setenv(FLEETRUN_MARK, str(tmp_path / "mark"))
    monkeypatch.setattr(Patience, "of", lambda _: None)
    monkeypatch.setattr(sys.modules["fl_rec.trainer.main"], "start_watch", lambda *_: None)
    config = SimpleNamespace(runner=SimpleNamespace(run_dir=None, start_timeout=1.0), yaml_path=tmp_path / "job.yaml")
    paths, true_start = set(), psutil.Process.create_time
    for hours in (0, 1, -1):
        moved = partial(lambda hours, *args: true_start(*args) + 3600 * hours, hours)
        monkeypatch.setattr(psutil.Process, "create_time", lambda *args, moved=moved: moved(*args))
        paths.add(open_run(config, Role("worker", 0, 1, (), "")).path)
    assert len(paths) == 1 and "-19700102-" in paths.pop().name


def test_variables_that_a_bare_fleetrun_was_started_with(
    spawn: Callable[..., subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT_KEY, raising=False)
    for env, expected in (
        ({"PADDLE_TRAINER_ENDPOINTS": "a:1", "POD_IP": "10.1.2.3"}, "unset PADDLE_TRAINER_ENDPOINTS."),
        ({"POD_IP": "10.1.2.3"}, ""),
    ):
        fleetrun = spawn("sh", "-c", "echo; exec sleep 60", **env)
        fleetrun.stdout.readline()
        monkeypatch.setattr("os.getppid", lambda number=fleetrun.pid: number)
        said = _left_over()
        assert said.endswith(expected) and bool(said) == bool(expected)
    monkeypatch.setenv(ENVIRONMENT_KEY, "a run")
    assert _left_over() == "", "the launcher has kept them from it"


OWN_TRAINER = """
from fl_rec.trainer import FLTrainer

class Mine(FLTrainer):
    def run_worker(self):
        sum([1, "2"])
"""


def test_a_run_worker_that_raises_is_told_with_its_file_and_line(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_trainer.py").write_text(OWN_TRAINER)
    trainer = load_file(tmp_path / "my_trainer.py").Mine
    monkeypatch.setattr(trainer, "play", lambda *_: trainer.run_worker(None))
    module = sys.modules["fl_rec.trainer.main"]
    monkeypatch.setattr(module, "environment", SimpleNamespace(check=int, require_old_programs=int))
    monkeypatch.setattr(module, "activity", SimpleNamespace(tell=lambda *_: None, beat=int))
    monkeypatch.setattr(Role, "from_environment", lambda: Role("worker", 0, 1, (), ""))
    for name, value in {"load_from_args": None, "open_run": run, "check_job": None}.items():
        monkeypatch.setattr(module, name, lambda *_, value=value: value)
    monkeypatch.setenv(ENVIRONMENT_KEY, str(run.path))
    monkeypatch.chdir(tmp_path)
    assert main(trainer, ["-m", "job.yaml"]) == 1
    told = "TypeError: unsupported operand type(s) for +: 'int' and 'str' (my_trainer.py, line 6)"
    assert roles.read_statuses(run.roles)["worker.0"].error == told
    assert capsys.readouterr().err.endswith(f"worker.0: error: {told}\n")


def test_a_role_that_failed_stays_until_a_bare_fleetrun_is_ended(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise ConfigError("not so")

    module, parents = sys.modules["fl_rec.trainer.main"], [1, 1, 1, 1, 7, 7, 7]
    monkeypatch.delenv(ENVIRONMENT_KEY, raising=False)
    monkeypatch.setattr(module, "environment", SimpleNamespace(check=int, require_old_programs=int))
    monkeypatch.setattr(module, "activity", SimpleNamespace(tell=lambda *_: None, beat=int))
    monkeypatch.setattr(Role, "from_environment", lambda: Role("worker", 0, 1, (), ""))
    for name, value in {"load_from_args": None, "open_run": run, "_left_over": ""}.items():
        monkeypatch.setattr(module, name, lambda *_, value=value: value)
    monkeypatch.setattr(module, "check_job", refuse)
    monkeypatch.setattr("os.getppid", lambda: parents.pop())
    monkeypatch.chdir(tmp_path)
    assert main(arguments=["-m", "job.yaml"]) == 1
    assert roles.read_statuses(run.roles)["worker.0"].error == "not so" and parents == [1, 1, 1]


def test_what_paddle_leaves_goes_when_all_went_well(tmp_path: Path) -> None:
    for name in ("http.log", "140123_train_desc.prototxt", "workerlog.0", "serverlog.0", "before-1"):
        (tmp_path / name).touch()
    tidy(tmp_path)
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before-1", "serverlog.0", "workerlog.0"]
