"""What is known of a job when it begins, for its records. No Paddle is imported here."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata

from fl_rec import __version__, environment
from fl_rec.job.check import Job
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import Began, Data, Versions

# Seconds.
_GIT_TIMEOUT = 5.0


def began(job: Job, run: RunDirectory, started: float, command: Sequence[str]) -> Began:
    """What a checked job's records say of its beginning.

    Args:
        started: when, in seconds since 1970.
        command: its command line.
    """
    return Began(
        datetime.fromtimestamp(started).astimezone().isoformat(timespec="seconds"),
        round(time.monotonic() - (time.time() - started), 3),
        shlex.join(command),
        Versions(__version__, _paddle(), platform.python_version(), _commit()),
        Data(os.path.relpath(job.config.runner.train_data_dir, run.path), job.checksum or None),
        job.popularity,
    )


def _paddle() -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version("paddlepaddle")
    return None


def _commit() -> str | None:
    """Of the clone that this package lies in; None if it lies in none, or git can't say."""
    if environment.CLONE is None or not (environment.CLONE / ".git").exists():
        return None
    command = ["git", "-C", str(environment.CLONE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT, check=True)
        return done.stdout.strip() or None
    return None
