"""Errors that fl_rec raises on purpose; a command line turns each into one message and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FLRecError(Exception):
    """Base of every error whose message is written for the user: the rule, the value received, the remedy."""


class ConfigError(FLRecError):
    """A setting is missing, unknown, of the wrong type or out of range."""


class DataError(FLRecError):
    """A data file is missing, malformed or inconsistent with what the caller declared."""


class RunError(FLRecError):
    """A training or evaluation run could not start, stopped early or produced something unusable."""


class Diverged(RunError):
    """Training gave what is no learning: numbers that are not finite or beyond sense, or a model that tells nothing."""


def failed(role: str, reason: str, log: Path | None) -> str:
    """What is said of a role that failed; arguments as of `JobFailed`."""
    further = "nothing has begun: mend it, and give the same command again" if log is None else f"its log: {log}"
    return f"{role} failed: {reason}\n  {further}"


class JobFailed(RunError):
    """A job was started, and one of its roles failed.

    Attributes:
        role: who failed first, such as "worker.3".
        reason: why.
        log: the role's log; None if the hosts of a job have not met, so that nothing has begun.
        run: the run's folder; if nothing has begun, it is as it was before the job.
    """

    def __init__(self, role: str, reason: str, log: Path | None, run: Path) -> None:
        super().__init__(role, reason, log, run)
        self.role, self.reason, self.log, self.run = role, reason, log, run

    def __str__(self) -> str:
        return failed(self.role, self.reason, self.log)


def lacking(err: ModuleNotFoundError) -> str:
    """What to do about a package that is not there."""
    return (
        f"this Python lacks the package {err.name}. Received: {sys.executable}.\n"
        "In a clone: ./fl_run.sh COMMAND ..., which has an environment of its own, or first,\n"
        "when that has made it, source .venv-3.0.0/bin/activate. Elsewhere: pip install FOLDER_OF_THE_CLONE"
    )


@contextmanager
def packages_needed(program: str = Path(sys.argv[0]).name) -> Iterator[None]:
    """What is imported within needs them: SystemExit, having said so, where one is not there."""
    try:
        yield
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] == "fl_rec":
            raise
        print(f"{program}: error: {lacking(err)}", file=sys.stderr)
        sys.exit(2)
