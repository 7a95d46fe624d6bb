"""What a training script says of an error, beside the error's own text."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from fl_rec.runs.directory import ENVIRONMENT_KEY
from fl_rec.trainer.main import _in_short, _left_over


def test_a_long_error_is_its_first_and_its_last_lines() -> None:
    """Of Paddle's, forty lines of a stack stand between."""
    assert _in_short(ValueError("short\n\nand plain")) == "ValueError: short\nand plain"
    stack = "\n".join(f'  File "x.py", line {line}' for line in range(40))
    text = f"In user code:\n{stack}\n\n  PreconditionNotMetError: The data must be so.\n  [Hint: it is not.]\n"
    assert _in_short(SystemError(text)).splitlines() == [
        *("SystemError: In user code:", "  ...", '  File "x.py", line 38', '  File "x.py", line 39'),
        *("  PreconditionNotMetError: The data must be so.", "  [Hint: it is not.]"),
    ]


def test_variables_that_a_bare_fleetrun_was_started_with(
    spawn: Callable[..., subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT_KEY, raising=False)
    for env, expected in (
        ({"PADDLE_TRAINER_ENDPOINTS": "a:1", "POD_IP": "10.1.2.3"}, "unset PADDLE_TRAINER_ENDPOINTS, POD_IP."),
        ({}, ""),
    ):
        fleetrun = spawn("sh", "-c", "echo; exec sleep 60", **env)
        fleetrun.stdout.readline()
        monkeypatch.setattr("os.getppid", lambda number=fleetrun.pid: number)
        said = _left_over()
        assert said.endswith(expected) and bool(said) == bool(expected)
    monkeypatch.setenv(ENVIRONMENT_KEY, "a run")
    assert _left_over() == "", "the launcher has kept them from it"
