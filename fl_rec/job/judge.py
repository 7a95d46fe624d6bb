"""Who of a job failed first, and why: judged by what each role wrote of itself, whether its process is there, and
whether it gives a sign of life. No Paddle is imported here.
"""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from fl_rec.config import Config
from fl_rec.errors import RunError, failed
from fl_rec.job.alive import Signs
from fl_rec.job.observers import RoleView
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.roles import Role, RoleStatus

# What starts the roles, fleetrun or the fork server, where it is spoken of as a role.
STARTER = "starter"

STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)

# With less than this a log may have been cut off, and a status not been written.
FULL_DISK_BYTES = 32 * 1024

# How long a role may take to tell its error after others have seen that it is gone.
TELLING_SECONDS = 3.0

Kind = Literal["died", "frozen", "failed"]

_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)

# "ValueError: ..." where a line begins, and neither `raise ValueError(...)` nor Paddle's "Error Message Summary:".
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception)\b(:|$)|terminate called|Check failed|\berror:|^Killed|^Aborted")


@dataclass(frozen=True)
class Failure:
    """Who failed first, and why.

    Attributes:
        log: of that role; None if the hosts have not met, so that nothing has begun.
        kind: "died": its process ended without a word, or never began. "frozen": it lives and gives no sign of life, or
            keeps the others waiting. "failed": it told an error itself, or came too late.
    """

    role: str
    reason: str
    log: Path | None
    kind: Kind = "failed"

    def __str__(self) -> str:
        return failed(self.role, self.reason, self.log)


@dataclass(frozen=True)
class Patience:
    """What is taken for a failure, in seconds.

    Attributes:
        start: for every role to be running.
        heartbeat: without a sign of life.
        barrier: for a worker to wait for the others.
        coordinator: whether the job ends with its coordinator.
    """

    start: float
    heartbeat: float
    barrier: float
    coordinator: bool

    @classmethod
    def of(cls, config: Config) -> Patience:
        runner, loss = config.runner, config.coordinator.on_coordinator_loss
        return cls(runner.start_timeout, runner.heartbeat_timeout, runner.barrier_timeout, loss == "stop")


class Judge:
    """Looks at a job again and again. Arguments as of `watch`."""

    def __init__(
        self,
        run: RunDirectory,
        expected: Sequence[str],
        leader: psutil.Process,
        patience: Patience,
        logs: Callable[[str], Path],
    ) -> None:
        self._run, self._expected, self._leader, self._patience, self._logs = run, expected, leader, patience, logs
        self._workers = [name for name in expected if name.startswith("worker")]
        self._starter = RoleStatus(STARTER, leader.pid, roles.started(leader.pid), roles.RUNNING, "", {})
        self._newborn: dict[str, RoleStatus] = {}
        self._lost: set[str] = set()
        self._signs = Signs()

    def look(self) -> None:
        # Who has ended is looked for first: a role writes that it is done, and then ends.
        self._over = roles.has_ended(self._leader)
        self._ended = {name for name, status in self._read().items() if status.has_ended}
        self._statuses = self._read()
        if any(name not in self._statuses for name in self._expected):
            self._statuses |= self._find_newborn()
        here = {name: status for name, status in self._unfinished().items() if not status.host}
        self._signs.look({**here, STARTER: self._starter})

    def views(self) -> Mapping[str, RoleView]:
        """All roles by name, as they were at the last look."""
        folder = self._run.roles
        return {name: RoleView(self._state(name) or "", activity.read(folder, name)) for name in self._expected}

    def failure(self) -> Failure | None:
        """Who has failed, if anybody has."""
        failure = self._lost_role() or self._told()
        if failure is None and not self.is_over():
            failure = self._frozen() or self._kept_waiting() or self._never_came()
        return failure

    def is_over(self) -> bool:
        """Whether every worker is done, and every role was there."""
        return len(self._done()) == len(self._workers) and not self._missing()

    def notes(self) -> Iterator[str]:
        """What has happened since the last call to roles that a job can do without."""
        lost = {
            name: f"is gone. Workers try to reach it for coordinator.coordinator_timeout; until then this starts it "
            f"again: fl-rec coordinator {self._run.path}"
            for name in self._ended
            if not self._done() and not self._is_needed(name)
        }
        for name in self._unfinished():
            if self._silence(name) >= self._patience.heartbeat and not self._is_needed(name):
                lost.setdefault(name, f"is frozen: {self._silence_of(name)}")
        yield from (f"note: {name} {lost[name]}" for name in sorted(lost.keys() - self._lost))
        yield from (f"note: {name} is back." for name in sorted(self._lost - lost.keys()) if not self._done())
        self._lost = set(lost)

    def close(self) -> None:
        self._signs.close()

    def _read(self) -> dict[str, RoleStatus]:
        return {**self._newborn, **roles.read_statuses(self._run.roles)}

    def _find_newborn(self) -> dict[str, RoleStatus]:
        """Roles that fleetrun has started and that have not come to write a status; a fork writes its own at once."""
        with suppress(psutil.Error):
            for child in self._leader.children():
                with suppress(psutil.Error, RunError):
                    name = Role.from_environment(child.environ()).name
                    if name in self._expected and name not in self._statuses:
                        began: dict[roles.State, float] = {roles.STARTING: time.monotonic()}
                        status = RoleStatus(name, child.pid, roles.started(child.pid), roles.STARTING, "", began)
                        self._newborn[name] = status
        return {name: status for name, status in self._newborn.items() if name not in self._statuses}

    def _done(self) -> list[str]:
        return [name for name in self._workers if self._state(name) == roles.DONE]

    def _missing(self) -> list[str]:
        return [name for name in self._expected if name not in self._statuses]

    def _late(self) -> list[str]:
        return [name for name in self._expected if self._state(name) in (None, roles.STARTING)]

    def _state(self, name: str) -> str | None:
        return self._statuses[name].state if name in self._statuses else None

    def _unfinished(self) -> dict[str, RoleStatus]:
        """Those that have not told their end, alive or not."""
        return {name: status for name, status in self._statuses.items() if _goes_on(status)}

    def _is_needed(self, name: str) -> bool:
        # What happens when a running coordinator is lost, the workers decide, as they are configured to.
        return not (name.startswith("coordinator") and self._state(name) == roles.RUNNING)

    def _ends_the_job(self, name: str) -> bool:
        """Whether a job ends when this one freezes."""
        return self._is_needed(name) or self._patience.coordinator

    # -- verdicts ----------------------------------------------------------------------------------------------

    def _lost_role(self) -> Failure | None:
        # fleetrun stops the servers when all workers have ended, well or not, and leaves them no time for a last word.
        # A worker that has not come yet is still to work.
        working = any(
            name not in self._statuses or (name not in self._ended and name in self._unfinished())
            for name in self._workers
        )
        lost = [
            name
            for name in self._ended & self._unfinished().keys()
            if name.startswith("worker") or (working and self._is_needed(name))
        ]
        if not lost:
            return None
        # A role that vanished is the cause and others' complaints the effect; a server's end is felt by all workers, of
        # which one may crash by it while this look goes from role to role.
        servers = [name for name, status in self._unfinished().items() if name.startswith("server")]
        gone = (name for name in servers if working and self._statuses[name].has_ended)
        role = next(gone, min(lost, key=lambda name: (self._crashed_by_another(name), name)))
        return self._failure(role, f"it ended without a word: {_how(self._statuses[role].killed_by)}.", "died")

    def _crashed_by_another(self, name: str) -> bool:
        """Whether gloo has thrown in it, as it does in those that are connected with a worker that is gone."""
        return "gloo::" in self._first_error(name)

    def _told(self) -> Failure | None:
        failed = [each for each in self._statuses.values() if each.state == roles.FAILED]
        if not failed:
            return None
        # Who waited for the other workers and gave up tells of what has happened to one of them.
        first = min(failed, key=lambda each: (self._waits(each.role), each.time))
        # Whoever waits for one that is frozen may give up first.
        silent = max(self._patience.heartbeat / 2, 2 * activity.BEAT)
        for name in filter(self._ends_the_job, self._unfinished()):
            if self._is_stopped(name) or self._silence(name) > silent:
                said = f"{self._silence_of(name)} {first.role} said: {first.error}"
                return self._failure(name, said, "frozen")
        absent = [name for name in self._workers if name in self._unfinished() and not self._waits(name)]
        if not self._waits(first.role) or not absent:
            return self._failure(first.role, first.error, "failed", quote=False)
        if time.monotonic() - first.time < TELLING_SECONDS:
            return None  # who did not come may be about to tell why
        doing = activity.read(self._run.roles, absent[0])
        return self._failure(absent[0], f"{first.role} said: {first.error} It was {doing}.", "frozen")

    def _waits(self, name: str) -> bool:
        doing = activity.read(self._run.roles, name)
        return doing is not None and doing.for_others

    def _frozen(self) -> Failure | None:
        for name in filter(self._ends_the_job, self._unfinished()):
            if self._silence(name) >= self._patience.heartbeat:
                return self._failure(name, self._silence_of(name), "frozen")
        # Later it has nothing to do but to wait, and the job does without it.
        if self._missing() and self._signs.silence(STARTER) >= self._patience.heartbeat:
            return self._failure(STARTER, self._silence_of(STARTER), "frozen")
        return None

    def _kept_waiting(self) -> Failure | None:
        doing = {name: activity.read(self._run.roles, name) for name in self._workers if name in self._unfinished()}
        waiting = {name: each for name, each in doing.items() if each is not None and each.for_others}
        longest = min(waiting, key=lambda name: waiting[name].since, default=None)
        if longest is None or time.monotonic() - waiting[longest].since <= self._patience.barrier:
            return None
        absent = {name: each for name, each in doing.items() if name not in waiting}
        reason = (
            f"{longest} waited for the other workers ({waiting[longest].what}), and one did not come within "
            f"runner.barrier_timeout={self._patience.barrier:g} s"
        )
        if not absent:  # all wait, for each other
            return self._failure(longest, f"{reason}.", "frozen")
        names = ", ".join(f"{name}: {each or 'nothing that it has told'}" for name, each in absent.items())
        return self._failure(next(iter(absent)), f"{reason}: {names}. Raise it if that may take so long.", "frozen")

    def _never_came(self) -> Failure | None:
        if missing := self._missing() if len(self._done()) == len(self._workers) else []:
            return self._failure(missing[0], "it never started.", "died")
        late = self._late()
        orphans = [name for name in self._workers if self._starter_is_over(name) and name not in self._done()]
        if any(name not in self._ended for name in orphans if name in self._unfinished()):
            return self._failure(STARTER, "it ended before the workers that it has started: killed or crashed.", "died")
        if unmade := [*filter(self._starter_is_over, late), *orphans]:
            return self._failure(unmade[0], "it never came to its end: what started it has ended.", "died")
        if late and self._signs.awake > self._patience.start:
            name, *others = sorted(late, key=self._waits)  # whoever waits for the others is not the cause
            doing = activity.read(self._run.roles, name)
            reason = f"not running {self._patience.start:g} s after the start (runner.start_timeout)"
            reason += f", but {doing}" if doing else ""
            reason += f"; neither is {', '.join(others)}" if others else ""
            return self._failure(name, f"{reason}. Raise it if this machine is busy.", "failed")
        return None

    def _silence_of(self, name: str) -> str:
        how = " A signal has stopped it." if self._is_stopped(name) else ""
        doing = activity.read(self._run.roles, name)
        return (
            f"no sign of life for {self._silence(name):.0f} s (runner.heartbeat_timeout="
            f"{self._patience.heartbeat:g}){f' while {doing}' if doing else ''}.{how}"
        )

    def _is_stopped(self, name: str) -> bool:
        process = (self._starter if name == STARTER else self._statuses[name]).process()
        with suppress(psutil.NoSuchProcess):
            return process is not None and process.status() in STOPPED
        return False

    def _silence(self, name: str) -> float:
        return self._signs.silence(name)

    def _starter_is_over(self, _name: str) -> bool:
        return self._over

    def _first_error(self, name: str) -> str:
        return first_error(self._logs(name))

    def _failure(self, role: str, reason: str, kind: Kind, quote: bool = True) -> Failure:
        """`quote`: with the first error of its log."""
        return Failure(role, f"{reason} {self._first_error(role)}" if quote else reason, self._logs(role), kind)


def _goes_on(status: RoleStatus) -> bool:
    return status.state in (roles.STARTING, roles.RUNNING)


def _how(number: int) -> str:
    """How a process has ended that a signal did, or nobody knows what (0)."""
    if not number:
        return "killed, or crashed in native code"
    with suppress(ValueError):
        name = signal.Signals(number).name
        if number in _CRASHES:
            return f"crashed in native code ({name})"
        by = ", as by kill -9, or by Linux if memory has run out" if number == signal.SIGKILL else ""
        return f"killed by {name}{by}"
    return f"killed by signal {number}"


def first_error(path: Path) -> str:
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
