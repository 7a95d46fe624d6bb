"""The hosts that have come to the hub, and how each fares. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fl_rec.errors import DataError
from fl_rec.job.alive import Awake
from fl_rec.job.hosts.messages import BEAT, DOUBT, Hello, Report, Word
from fl_rec.job.judge import Kind, Patience
from fl_rec.runs.hosts import Hosts, said
from fl_rec.runs.roles import RoleStatus, host_of


@dataclass
class Member:
    """A host that has come.

    Attributes:
        hello: what it said of itself.
        heard: when it was heard last, by `Members.clock`.
        word: what it told then.
        reports: of its roles, in this clock's times.
        end: ends its stream.
        told: the statuses that it was told, by role.
        gone: for how long it had been silent when its stream ended; None before.
        broken: why this launcher has ended the stream; "" if it has not.
        parted: whether it has told all that it had to.
    """

    hello: Hello
    heard: float
    word: Word
    end: Callable[[], object]
    reports: dict[str, Report] = field(default_factory=dict)
    told: dict[str, RoleStatus] = field(default_factory=dict)
    gone: float | None = None
    broken: str = ""
    parted: bool = False


class Members(dict[str, Member]):
    """By their names.

    Args:
        hosts: all that there are.
        patience: of the job.
        limit: seconds of silence after which one is lost.

    Attributes:
        clock: what this launcher stands still for is nobody's silence.
    """

    def __init__(self, hosts: Hosts, patience: Patience, limit: float) -> None:
        super().__init__()
        self._hosts, self._patience, self._limit = hosts, patience, limit
        self.clock = Awake()

    def silence(self, member: Member) -> float:
        """Seconds since it was heard."""
        return self.clock() - member.heard

    def is_lost(self, member: Member) -> bool:
        return member.gone is not None or self.silence(member) > self._limit

    def lost(self) -> list[str]:
        """Those who are, or have left, in their order."""
        return [name for name, member in self.items() if self.is_lost(member) or member.word.leaving]

    def all_heard_since(self, moment: float) -> bool:
        """Whether each host has been heard since then."""
        return all(member.heard > moment for member in self.values())

    def named(self, host: str) -> str:
        """With its roles."""
        return f"{host} ({said(self._hosts.roles_of(host))})"

    def why(self, host: str) -> tuple[str, Kind]:
        """Why a host is lost."""
        member, its = self[host], f"its host {self.named(host)}"
        if member.word.leaving:
            return f"{its} has ended its part: {member.word.leaving}.", "failed"
        if member.broken:
            return f"the link to {its} was ended on {self._hosts.here}: {member.broken}", "failed"
        if member.gone is not None and member.gone < DOUBT * BEAT:
            return f"{its} has ended the link without a word: its launcher was killed, or it was switched off.", "died"
        given = f"(runner.heartbeat_timeout={self._patience.heartbeat:g})"
        if len(self) > 1 and (silence := min(map(self.silence, self.values()))) > DOUBT * BEAT:
            return (
                f"none of the other hosts, {', '.join(self)}, has been heard for {silence:.0f} s {given}: this one, "
                f"{self._hosts.here}, is cut off, or all of them are.",
                "died",
            )
        silence = self.silence(member)
        return f"{its} has not been heard for {silence:.0f} s {given}: it is cut off, frozen or switched off.", "died"

    def require_place(self, host: str, begun: bool) -> None:
        """DataError if one can't come, since it has come before.

        Args:
            begun: whether the job has.
        """
        before = self.get(host)
        if before is None:
            return
        silence = self.silence(before)
        if before.gone is None and silence < DOUBT * BEAT:
            raise DataError(
                f"A host has one launcher at a time. Received: a second one of {host}, whose first was heard "
                f"{silence:.1f} s ago. End that one; if it was killed just now, start this one again."
            )
        if begun:
            raise DataError(
                f"A host joins before the job begins. Received: {host}, which was lost since. The job ends within "
                f"runner.heartbeat_timeout={self._patience.heartbeat:g} s: resume it then, on every host."
            )

    def report(self, role: str) -> Report | None:
        """Of a role of another host; None if it has told of none."""
        member = self.get(host_of(self._hosts.roles[role]))
        return None if member is None else member.reports.get(role)

    def starter_is_over(self, host: str) -> bool:
        return host in self and self[host].word.over
