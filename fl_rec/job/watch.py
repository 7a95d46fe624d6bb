"""Watching a job, judging it, and ending every process of it. No Paddle is imported here.

fleetrun does not judge: in PS mode it exits with 0 when every worker has crashed, waits for workers only, and leaves
behind what its roles have forked. So a job is judged by what each role wrote of itself (`fl_rec.runs.roles`), and its
processes are found by an environment variable that all of them have inherited, and no other process has.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fl_rec.job.judge import STARTER, STOPPED, Failure, Judge, Patience
from fl_rec.job.observers import RoleView
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, LAUNCHER_KEY, RunDirectory
from fl_rec.runs.result import FAILED, INTERRUPTED

POLL_SECONDS = 0.2

# How long a process may take to end when asked, and then when killed.
GRACE_SECONDS, KILL_SECONDS = 5.0, 10.0


# Seconds between two looks that find nobody.
_AGAIN = 0.02

# linux/prctl.h: a signal for when the parent has ended.
_PR_SET_PDEATHSIG = 1


# How the folder's name begins that a job has for temporary files, and its roles as TMPDIR.
SCRATCH = "fl_rec_"

# fleetrun sets this for every role, to a fresh folder's path.
FLEETRUN_MARK = "PADDLE_GLOO_FS_PATH"


@dataclass(frozen=True)
class Mark:
    """The environment variable by which a job's processes are known."""

    name: str
    value: str

    def processes(self) -> list[psutil.Process]:
        """Every live process of the job but this one."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.pid != os.getpid() and process.environ().get(self.name) == self.value
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def end(self) -> None:
        """Ends every process of the job: politely, and after `GRACE_SECONDS` for good."""
        politely = time.monotonic() + GRACE_SECONDS
        # Again and again, since a process may be starting another one.
        while True:
            alive = self.processes()
            if not alive:  # who has just been forked, or is starting a program, may not be seen at the first look
                time.sleep(_AGAIN)
                alive = self.processes()
            if not alive or time.monotonic() > politely + KILL_SECONDS:
                return
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    # One that is stopped would be polite when somebody has it go on, and not before.
                    polite = time.monotonic() < politely and process.status() not in STOPPED
                    process.terminate() if polite else process.kill()
            # psutil.wait_procs would wait for zombies too, and whoever is to reap them may take its time.
            until = max(politely, time.monotonic() + 0.2)
            while time.monotonic() < until and not all(map(roles.has_ended, alive)):
                time.sleep(0.02)


def log_path(run: RunDirectory, role: str) -> Path:
    """The log that fleetrun keeps of a role, or the launcher of `STARTER`."""
    if role == STARTER:
        return run.log / "start"
    kind, index = role.split(".")
    name = "coordinator." if kind == "coordinator" else f"{kind}log."
    return run.log / f"{name}{index}"


def watch(
    run: RunDirectory,
    expected: Sequence[str],
    leader: psutil.Process,
    patience: Patience,
    logs: Callable[[str], Path],
    on_poll: Callable[[Mapping[str, RoleView]], None] = lambda _views: None,
) -> Failure | None:
    """Waits until a job is over, or has failed.

    Args:
        run: where the roles write their statuses.
        expected: the names of all roles.
        leader: fleetrun's process.
        patience: for how long a role may take, wait or give no sign of life.
        logs: the log of a role, or of `STARTER`.
        on_poll: told at each look how all roles fare.

    Returns:
        who failed first, or None if every worker is done. Processes may still be alive.
    """
    return watch_with(Judge(run, expected, leader, patience, logs), run, on_poll)


def watch_with(judge: Judge, run: RunDirectory, on_poll: Callable[[Mapping[str, RoleView]], None]) -> Failure | None:
    """As `watch`, by a judge of one's own, which is closed."""
    with closing(judge):
        while True:
            judge.look()
            on_poll(judge.views())
            with suppress(OSError):  # a full disk must not end the watch
                for note in judge.notes():
                    run.append_table(note)
            failure = judge.failure()
            if failure is not None or judge.is_over():
                return failure
            time.sleep(POLL_SECONDS)


def write_failure(run: RunDirectory, failure: Failure) -> None:
    with suppress(OSError):  # It has been told; a full disk may be what failed.
        run.end(FAILED, role=failure.role, kind=failure.kind, error=failure.reason, log=failure.log)


def end_with_the_launcher() -> None:
    """Has this process, which the launcher has started, end the job as soon as the launcher is gone, even killed."""
    run = RunDirectory(Path(os.environ[ENVIRONMENT_KEY]))

    def look(*_signal: object) -> None:
        if os.getppid() == int(os.environ[LAUNCHER_KEY]):  # it was a thread that ended
            return
        Mark(ENVIRONMENT_KEY, str(run.path)).end()
        if (scratch := Path(os.environ.get("TMPDIR", ""))).name.startswith(SCRATCH):
            shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):
            run.end(INTERRUPTED, error="the launcher was killed")
        os._exit(1)

    signal.signal(signal.SIGUSR1, look)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    look()
