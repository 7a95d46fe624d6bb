"""The judge of a job on several hosts, on the first worker's. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fl_rec.job.hosts.company import first_of
from fl_rec.job.hosts.members import Members
from fl_rec.job.judge import STARTER, Failure, Judge, Kind
from fl_rec.job.watch import log_path
from fl_rec.runs import roles
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.roles import host_of


class HubJudge(Judge):
    """Judges all hosts' roles: those of others as their launchers tell of them.

    Args:
        members: what they told.
        hosts: all of them.
        told: yields what is to be told of hosts since its last call.
    """

    def __init__(self, members: Members, hosts: Hosts, told: Callable[[], Iterator[str]], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._members, self._hosts, self._news = members, hosts, told
        self._unheard: set[str] = set()
        # Since when somebody is to blame.
        self._failed: float | None = None

    def failure(self) -> Failure | None:
        for host in self._members.lost():
            if self._is_done_but_for(host):
                continue
            reason, kind = self._members.why(host)
            role = first_of(self._hosts.roles_of(host))
            return Failure(role, reason, self._logs(role), kind)
        failure = super().failure()
        # A host that is cut off makes others complain: nobody is blamed before all have been heard once more.
        self._failed = None if failure is None else self._failed or self._members.clock()
        return failure if self._failed is not None and self._members.all_heard_since(self._failed) else None

    def is_over(self) -> bool:
        return super().is_over() or bool(self._unheard)

    def notes(self) -> Iterator[str]:
        yield from super().notes()
        yield from (f"note: {each}" for each in self._news())

    def _is_done_but_for(self, host: str) -> bool:
        """A worker that is done knows that all others have done everything: the last word is not needed."""
        own = [name for name in self._workers if host_of(self._hosts.roles[name]) != host]
        if all(self._state(name) == roles.DONE for name in own):
            self._unheard.add(host)
        return host in self._unheard

    def _host(self, name: str) -> str:
        return self._hosts.here if name == STARTER else host_of(self._hosts.roles[name])

    def _is_needed(self, name: str) -> bool:
        # fleetrun ends the other roles of its host with the workers of its host, which others' may still be ahead of.
        own = [each for each in self._workers if self._host(each) == self._host(name)]
        over = bool(own) and not name.startswith("worker") and all(self._state(each) == roles.DONE for each in own)
        return not over and super()._is_needed(name)

    def _is_here(self, name: str) -> bool:
        return self._host(name) == self._hosts.here

    def _silence(self, name: str) -> float:
        if self._is_here(name):
            return super()._silence(name)
        report = self._members.report(name)
        return 0.0 if report is None else report.silence

    def _is_stopped(self, name: str) -> bool:
        report = None if self._is_here(name) else self._members.report(name)
        return super()._is_stopped(name) if report is None else report.stopped

    def _starter_is_over(self, name: str) -> bool:
        return (
            super()._starter_is_over(name) if self._is_here(name) else self._members.starter_is_over(self._host(name))
        )

    def _first_error(self, name: str) -> str:
        report = None if self._is_here(name) else self._members.report(name)
        return super()._first_error(name) if report is None else report.error

    def _failure(self, role: str, reason: str, kind: Kind, quote: bool = True) -> Failure:
        failure = super()._failure(role, reason, kind, quote)
        if self._is_here(role):
            return failure
        return Failure(role, f"on {self._host(role)}: {failure.reason.strip()}", log_path(self._run, role), kind)
