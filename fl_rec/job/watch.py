"""Watching a job, judging it, and ending every process of it. No Paddle is imported here.

fleetrun does not judge: in PS mode it exits with 0 when every worker has crashed, waits for workers only, and leaves
behind what its roles have forked. So a job is judged by what each role wrote of itself (`fl_rec.runs.roles`), and its
processes are found by an environment variable that all of them have inherited, and no other process has.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fl_rec import environment
from fl_rec.job.judge import STARTER, STOPPED, Failure, Judge, Patience
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, LAUNCHER_KEY, RunDirectory

POLL_SECONDS = 0.2


# How long a process may take to end when asked, and then when killed.
GRACE_SECONDS, KILL_SECONDS = 5.0, 10.0


# linux/prctl.h: a signal for when the parent has ended.
_PR_SET_PDEATHSIG = 1


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
        # Again and again, since a process may be starting another one, or be unreadable while it starts a program.
        while True:
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
    on_poll: Callable[[], None] = lambda: None,
) -> Failure | None:
    """Waits until a job is over, or has failed.

    Args:
        run: where the roles write their statuses.
        expected: the names of all roles.
        leader: fleetrun's process.
        patience: for how long a role may take, wait or give no sign of life.
        logs: the log of a role, or of `STARTER`.
        on_poll: called at each look, to show progress.

    Returns:
        who failed first, or None if every worker is done. Processes may still be alive.
    """
    with closing(Judge(run, expected, leader, patience, logs)) as judge:
        while True:
            judge.look()
            on_poll()
            with suppress(OSError):  # a full disk must not end the watch
                for note in judge.notes():
                    run.append_table(note)
            failure = judge.failure()
            if failure is not None or judge.is_over():
                return failure
            time.sleep(POLL_SECONDS)


def write_failure(run: RunDirectory, failure: Failure) -> None:
    with suppress(OSError):  # It has been told; a full disk may be what failed.
        run.write_interrupted(
            {
                "state": roles.FAILED,
                "role": failure.role,
                "kind": failure.kind,
                "error": failure.reason,
                "log": str(failure.log),
            }
        )


def end_with_the_launcher() -> None:
    """Has this process, which the launcher has started, end the job as soon as the launcher is gone, even killed."""
    run = RunDirectory(Path(os.environ[ENVIRONMENT_KEY]))

    def look(*_signal: object) -> None:
        if os.getppid() == int(os.environ[LAUNCHER_KEY]):  # it was a thread that ended
            return
        Mark(ENVIRONMENT_KEY, str(run.path)).end()
        with suppress(OSError):
            run.write_interrupted({"state": roles.FAILED, "error": "the launcher was killed"})
        os._exit(1)

    signal.signal(signal.SIGUSR1, look)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    look()


def start_watch(run: RunDirectory, role: roles.Role, fleetrun: psutil.Process, patience: Patience) -> None:
    """Has a job that was started by a bare fleetrun watched by a process of its own."""
    expected = roles.role_names(role.num_workers, len(role.server_endpoints), role.num_coordinators)
    command = [
        sys.executable,
        "-m",
        "fl_rec.job.watch",
        str(run.path),
        str(fleetrun.pid),
        json.dumps(dataclasses.asdict(patience)),
        *expected,
    ]
    log = open(run.log / "watch", "wb")  # noqa: SIM115 - the child keeps it
    paths = os.pathsep.join(filter(None, [str(environment.PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    log.close()


def watch_by_hand(arguments: Sequence[str]) -> int:
    """The process that `start_watch` starts: on a failure it ends the job, and with it fleetrun."""
    parser = argparse.ArgumentParser(description=watch_by_hand.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("fleetrun", type=int)
    parser.add_argument("patience", type=lambda text: Patience(**json.loads(text)))
    parser.add_argument("expected", nargs="+")
    options = parser.parse_args(arguments)
    run = RunDirectory(options.run)
    fleetrun = psutil.Process(options.fleetrun)
    mark = Mark(FLEETRUN_MARK, os.environ[FLEETRUN_MARK])
    log_of = {name: _stdout_of(fleetrun, name, run) for name in options.expected}
    log_of[STARTER] = run.log / "watch"
    failure = watch(run, options.expected, fleetrun, options.patience, log_of.__getitem__)
    if failure is None:
        with suppress(psutil.TimeoutExpired):
            fleetrun.wait(GRACE_SECONDS)
        mark.end()
        return 0
    print(f"fl_rec: {failure}", flush=True)
    write_failure(run, failure)
    # fleetrun would wait for its workers and exit with 0; ended first, it exits with what the signal says.
    with suppress(psutil.NoSuchProcess):
        fleetrun.terminate()
    mark.end()
    return 1


def _stdout_of(fleetrun: psutil.Process, role: str, run: RunDirectory) -> Path:
    """The log of a role under a bare fleetrun: in its --log_dir, `log` where it was started unless given."""
    arguments = fleetrun.cmdline()
    folder = "log"
    for index, word in enumerate(arguments):
        if word == "--log_dir" and index + 1 < len(arguments):
            folder = arguments[index + 1]
        elif word.startswith("--log_dir="):
            folder = word.split("=", 1)[1]
    return Path(fleetrun.cwd()) / folder / log_path(run, role).name


if __name__ == "__main__":
    sys.exit(watch_by_hand(sys.argv[1:]))
