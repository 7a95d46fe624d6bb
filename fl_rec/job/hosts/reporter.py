"""How the roles of this host fare, for the launchers of the others. No Paddle is imported here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from fl_rec.job.hosts.messages import Report, short
from fl_rec.job.judge import Judge, Patience, first_error
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.hosts import split
from fl_rec.runs.roles import RoleStatus

# For so many seconds what has been seen is not looked at again.
_FRESH = 0.2


class Reporter(Judge):
    """Looks at a host's roles, and judges nothing. Several threads may ask.

    Args:
        host: this one's name.
        expected, leader, logs: as of `Judge`, of this host's roles.
    """

    def __init__(
        self,
        host: str,
        run: RunDirectory,
        expected: Sequence[str],
        leader: psutil.Process,
        patience: Patience,
        logs: Callable[[str], Path],
    ) -> None:
        super().__init__(run, expected, leader, patience, logs)
        self._host, self._lock = host, threading.Lock()
        self._looked = -1.0
        self._ports: dict[str, tuple[int, ...]] = {}
        self._errors: dict[str, str] = {}
        self._reports: dict[str, Report] = {}

    @property
    def is_over(self) -> bool:  # type: ignore[override]
        """Whether what has started the roles has ended."""
        return self._over

    def reports(self) -> Mapping[str, Report]:
        """Of each role that is there."""
        with self._lock:
            if time.monotonic() - self._looked > _FRESH:
                self.look()
                self._reports = {name: self._report(name) for name in self._expected if name in self._statuses}
                self._looked = time.monotonic()
            return self._reports

    def _report(self, name: str) -> Report:
        status = self._statuses[name]
        ended = name in self._ended
        seen = replace(
            status,
            host=self._host,
            lives=not ended,
            ports=self._ports_of(status),
            signal=status.killed_by if ended else 0,
            error=short(status.error),
        )
        doing, stopped = activity.read(self._run.roles, name), self._is_stopped(name)
        stuck = ended or stopped or self._silence(name) > self._patience.heartbeat / 2
        if stuck and status.state != roles.DONE and name not in self._errors:
            self._errors[name] = short(first_error(self._logs(name)))
        return Report(seen, doing, self._silence(name), stopped, self._errors.get(name, ""))

    def _ports_of(self, status: RoleStatus) -> tuple[int, ...]:
        """A server's, all that it has been seen with: they are looked for until its own is among them."""
        if not status.role.startswith("server"):
            return ()
        found = self._ports.get(status.role, ())
        if not status.endpoint or split(status.endpoint)[1] not in found:
            found = self._ports[status.role] = tuple(sorted({*found, *roles.ports_of(status)}))
        return found
