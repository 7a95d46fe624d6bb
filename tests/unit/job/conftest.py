"""Processes of a job that are not of one."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable

import pytest

from fl_rec.job.watch import Mark

Spawn = Callable[..., subprocess.Popen]


@pytest.fixture
def mark() -> Mark:
    return Mark("FL_REC_TEST_MARK", uuid.uuid4().hex)


@pytest.fixture
def sleeper(spawn: Spawn) -> Callable[..., subprocess.Popen]:
    """`sleeper(ENV=value)`: a process that does nothing for a minute."""
    return lambda **env: spawn("sleep", "60", **env)
