"""Watching a job, judging it, and ending every process of it. No Paddle is imported here.

fleetrun does not judge: in PS mode it exits with 0 when every worker has crashed, waits for workers only, and leaves
behind what its roles have forked. So a job is judged by what each role wrote of itself (`fl_rec.runs.roles`), and its
processes are found by an environment variable that all of them have inherited, and no other process has.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fl_rec import environment
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, LAUNCHER_KEY, RunDirectory
from fl_rec.runs.roles import RoleStatus

POLL_SECONDS = 0.2


# How long a process may take to end when asked, and then when killed.
GRACE_SECONDS, KILL_SECONDS = 5.0, 10.0


# linux/prctl.h: a signal for when the parent has ended.
_PR_SET_PDEATHSIG = 1


# With less than this a log may have been cut off, and a status not been written.
FULL_DISK_BYTES = 32 * 1024


# fleetrun sets this for every role, to a fresh folder's path.
FLEETRUN_MARK = "PADDLE_GLOO_FS_PATH"


# "ValueError: ..." where a line begins, and neither `raise ValueError(...)` nor Paddle's "Error Message Summary:".
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception)\b(:|$)|terminate called|Check failed|\berror:|^Killed|^Aborted")


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
                    process.terminate() if time.monotonic() < politely else process.kill()
            psutil.wait_procs(alive, timeout=max(0.2, politely - time.monotonic()))


@dataclass(frozen=True)
class Failure:
    """Who failed first, and why."""

    role: str
    reason: str
    log: Path

    def __str__(self) -> str:
        return f"{self.role} failed: {self.reason}\n  its log: {self.log}"


def log_path(run: RunDirectory, role: str) -> Path:
    """The log that fleetrun keeps of a role."""
    kind, index = role.split(".")
    name = "coordinator." if kind == "coordinator" else f"{kind}log."
    return run.log / f"{name}{index}"


def watch(
    run: RunDirectory,
    expected: Sequence[str],
    leader: psutil.Process,
    start_timeout: float,
    logs: Callable[[str], Path],
    on_poll: Callable[[], None] = lambda: None,
) -> Failure | None:
    """Waits until a job is over, or has failed.

    Args:
        run: where the roles write their statuses.
        expected: the names of all roles.
        leader: fleetrun's process.
        start_timeout: seconds by which every role must be running.
        logs: the log of a role.
        on_poll: called at each look, to show progress.

    Returns:
        who failed first, or None if every worker is done. Processes may still be alive.
    """
    start_deadline = time.monotonic() + start_timeout
    workers = [name for name in expected if name.startswith("worker")]
    lost: set[str] = set()
    while True:
        # Who has ended is looked for first: a role writes that it is done, and then ends.
        over = roles.has_ended(leader)
        ended = {name for name, status in roles.read_statuses(run.roles).items() if status.process() is None}
        statuses = roles.read_statuses(run.roles)
        on_poll()
        failure = _first_failure(statuses, ended, logs)
        if failure is not None:
            return failure
        done = [name for name in workers if name in statuses and statuses[name].state == roles.DONE]
        missing = [name for name in expected if name not in statuses]
        gone = {name for name in ended if not done and not _is_needed(statuses[name])}
        notes = [
            f"note: {name} is gone. Workers try to reach it for coordinator.coordinator_timeout; until then this "
            f"starts it again: fl-rec coordinator {run.path}"
            for name in gone - lost
        ]
        notes += [f"note: {name} is back." for name in lost - gone if not done]
        lost = gone
        with suppress(OSError):  # a full disk must not end the watch
            for note in notes:
                run.append_table(note)
        if len(done) == len(workers):
            if not missing:
                return None
            return Failure(missing[0], f"it never started. {_first_error(logs(missing[0]))}", logs(missing[0]))
        late = [name for name in expected if name not in statuses or statuses[name].state == roles.STARTING]
        if over:
            name = (late or [name for name in workers if name not in done])[0]
            return Failure(name, f"it never came to its end. {_first_error(logs(name))}", logs(name))
        if late and time.monotonic() > start_deadline:
            reason = f"not running {start_timeout:g} s after the start (runner.start_timeout), as {', '.join(late)}."
            reason += " Raise it if this machine is busy."
            return Failure(late[0], f"{reason} {_first_error(logs(late[0]))}", logs(late[0]))
        time.sleep(POLL_SECONDS)


def _first_failure(statuses: Mapping[str, RoleStatus], ended: set[str], logs: Callable[[str], Path]) -> Failure | None:
    # fleetrun stops the servers when all workers have ended, well or not, and leaves them no time for a last word.
    working = any(
        name.startswith("worker") and name not in ended and each.state in (roles.STARTING, roles.RUNNING)
        for name, each in statuses.items()
    )
    lost = [
        name
        for name in ended
        if statuses[name].state in (roles.STARTING, roles.RUNNING)
        and (name.startswith("worker") or (working and _is_needed(statuses[name])))
    ]
    if lost:
        # A role that vanished is the cause and others' complaints the effect; a server's end is felt by all workers.
        role = min(lost, key=lambda name: (not name.startswith("server"), name))
        reason = f"it ended without a word: killed, or crashed in native code. {_first_error(logs(role))}"
        return Failure(role, reason, logs(role))
    failed = [each for each in statuses.values() if each.state == roles.FAILED]
    if failed:
        first = min(failed, key=lambda each: each.time)
        return Failure(first.role, first.error, logs(first.role))
    return None


def _is_needed(status: RoleStatus) -> bool:
    # What happens when a running coordinator is lost, the workers decide, as they are configured to.
    return not (status.role.startswith("coordinator") and status.state == roles.RUNNING)


def _first_error(path: Path) -> str:
    """The first line of a log that looks like an error, or else its last one."""
    try:
        lines = [
            line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError:
        return "It left no log."
    if shutil.disk_usage(path.parent).free < FULL_DISK_BYTES:
        return f"No space left on device, which holds {path.parent}: free some, or name another runner.run_dir."
    if not lines:
        return "Its log is empty."
    # A reader's broken pipe is what a worker's end does to it, never the cause.
    found = next((line for line in lines if _ERROR_LINE.search(line) and "Broken pipe" not in line), None)
    return f"First error in its log: {found}" if found else f"Last line of its log: {lines[-1]}"


def write_failure(run: RunDirectory, failure: Failure) -> None:
    with suppress(OSError):  # It has been told; a full disk may be what failed.
        run.write_result(
            {"state": roles.FAILED, "role": failure.role, "error": failure.reason, "log": str(failure.log)}
        )


def end_with_the_launcher() -> None:
    """Has this process, which the launcher has started, end the job as soon as the launcher is gone, even killed."""
    run = RunDirectory(Path(os.environ[ENVIRONMENT_KEY]))

    def look(*_signal: object) -> None:
        if os.getppid() == int(os.environ[LAUNCHER_KEY]):  # it was a thread that ended
            return
        Mark(ENVIRONMENT_KEY, str(run.path)).end()
        with suppress(OSError):
            run.write_result({"state": roles.FAILED, "error": "the launcher was killed"})
        os._exit(1)

    signal.signal(signal.SIGUSR1, look)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    look()


def start_watch(run: RunDirectory, role: roles.Role, fleetrun: psutil.Process, start_timeout: float) -> None:
    """Has a job that was started by a bare fleetrun watched by a process of its own."""
    expected = roles.role_names(role.num_workers, len(role.server_endpoints), role.num_coordinators)
    command = [
        sys.executable,
        "-m",
        "fl_rec.job.watch",
        str(run.path),
        str(fleetrun.pid),
        str(start_timeout),
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
    parser.add_argument("start_timeout", type=float)
    parser.add_argument("expected", nargs="+")
    options = parser.parse_args(arguments)
    run = RunDirectory(options.run)
    fleetrun = psutil.Process(options.fleetrun)
    mark = Mark(FLEETRUN_MARK, os.environ[FLEETRUN_MARK])
    log_of = {name: _stdout_of(fleetrun, name, run) for name in options.expected}
    failure = watch(run, options.expected, fleetrun, options.start_timeout, log_of.__getitem__)
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
