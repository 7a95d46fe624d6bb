"""What the launchers of a job's hosts tell each other. No Paddle is imported here.

msgpack, read within limits into these types; nothing in a message is ever executed, and no text steers a terminal. No
model, row or shard is in one.
Times are in seconds since the boot of whoever tells (`time.monotonic`): who is told makes them its own clock's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import msgpack
from annotated_types import Ge, Lt, MaxLen
from pydantic import StringConstraints

from fl_rec.coordinator.wire import unpacked
from fl_rec.errors import DataError, FLRecError
from fl_rec.job.judge import Kind
from fl_rec.outside import Count, Number, as_typed
from fl_rec.runs.activity import Activity
from fl_rec.runs.directory import AWAY_KEY, RESUME_KEY
from fl_rec.runs.roles import RoleStatus
from fl_rec.tables import printable

T = TypeVar("T")

SERVICE, CALL = "fl_rec.Hosts", "Join"
METHOD = f"/{SERVICE}/{CALL}"
# Seconds between two words of a host, and how many must be missing before it is doubted that its launcher lives.
BEAT, DOUBT = 0.5, 4
# Bytes of a message, and of one of a host's logs at the end.
LARGEST, LONGEST_LOG = 1 << 22, 1 << 18
# Values of a message: of a job of 40,000 workers, its tokens'.
_MOST = 1 << 17
# What one side may show of the other's text.
LONGEST_TEXT = 2000

Text = Annotated[str, MaxLen(4 * LONGEST_TEXT)]
# In seconds since a boot; of larger ones another clock's could be infinite.
Moment = Annotated[Number, Ge(0), Lt(2**53)]
# What is written into files, a run's identity or a token; and into the roles' environment, as `AWAY_KEY` has it.
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]*$", max_length=128)]
Away = Annotated[Text, StringConstraints(pattern="^([0-9]+:([0-9]+|inf),?)*$")]


@dataclass(frozen=True)
class Hello:
    """Who a host is, and what all hosts must have alike.

    Attributes:
        version: of fl_rec.
        host: its name.
        addresses: of servers, workers and coordinators.
        settings: each key of the configuration that is not a host's own, as JSON.
        data: the manifest's checksum.
        identity: of the run that is resumed; "" of a new one.
        checkpoints: the epochs of its whole ones.
    """

    version: Text
    host: Text
    addresses: tuple[tuple[Text, ...], tuple[Text, ...], tuple[Text, ...]]
    settings: Mapping[Text, Text]
    data: Text
    identity: Hex
    checkpoints: tuple[Count, ...]


@dataclass(frozen=True)
class Report:
    """A role, as its host's launcher sees it.

    Attributes:
        status: its own, with `host`, `lives` and `ports`.
        activity: what it does.
        silence: seconds without a sign of life.
        stopped: whether a signal has stopped it.
        error: the first one of its log, of a role that has ended or is stuck.
    """

    status: RoleStatus
    activity: Activity | None
    silence: Number
    stopped: bool
    error: Text


@dataclass(frozen=True)
class Word:
    """What a host tells, again and again.

    Attributes:
        now: when.
        hello: in its first word.
        reports: of its roles.
        over: whether what starts its roles has ended.
        tokens: by which the coordinator knows each worker, by its number, if the coordinator is there.
        leaving: why it ends by itself, if it does.
        logs: the end of each of its roles' logs, by the role, after the verdict; one in a word.
    """

    now: Moment
    hello: Hello | None = None
    reports: tuple[Report, ...] = ()
    over: bool = False
    tokens: tuple[tuple[Count, Hex], ...] = ()
    leaving: Text = ""
    logs: Mapping[Text, bytes] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Begin:
    """All hosts have come: the roles are to be started.

    Attributes:
        identity: the run's.
        epoch: the newest checkpoint that every host has; None if the first epoch is to be trained.
        away: the workers that were lost, and the epoch with which each comes back; see `AWAY_KEY`.
    """

    identity: Hex
    epoch: Count | None
    away: Away = ""

    @property
    def variables(self) -> dict[str, str]:
        """Of the roles' environment."""
        found = {RESUME_KEY: "" if self.epoch is None else str(self.epoch), AWAY_KEY: self.away}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Verdict:
    """How the job has ended, for all.

    Attributes:
        role, error, kind: who failed, why and how.
        again: whether it is begun again by itself.
    """

    state: Literal["done", "failed", "interrupted"]
    role: Text = ""
    error: Text = ""
    kind: Kind = "failed"
    again: bool = False


@dataclass(frozen=True)
class Answer:
    """What a host is told on each of its words.

    Attributes:
        now: when.
        begin: once all hosts have come.
        statuses: of other hosts' roles that are not as they were when this host was told of them last.
        tokens: of its own workers.
        verdict: once there is one.
    """

    now: Moment
    begin: Begin | None = None
    statuses: tuple[RoleStatus, ...] = ()
    tokens: tuple[tuple[Count, Hex], ...] = ()
    verdict: Verdict | None = None


def broken_by(err: Exception) -> str:
    """What has ended a link that was not to end, in words: else it would pass for the other launcher's death."""
    return short(str(err) if isinstance(err, FLRecError) else f"{type(err).__name__}: {err}")


def short(text: str) -> str:
    """As much of a text as fits a message."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."


def encode(message: Word | Answer) -> bytes:
    packed: bytes = msgpack.packb(dataclasses.asdict(message))
    return packed


def decode(cls: type[T], data: bytes, peer: str) -> T:
    """The inverse of `encode`. DataError if it is no such message."""
    rule = "What the launchers of a job's hosts tell each other is of one version of fl_rec."
    try:
        content = _shown(unpacked(data, _MOST))
    except Exception as err:  # msgpack's errors have no common base, and some of them no text
        why = str(err) or type(err).__name__
        raise DataError(f"{rule} Received: {len(data)} bytes of {peer} that are none ({why}).") from err
    return as_typed(cls, content, rule, f"a {cls.__name__} of {peer}")


def _shown(content: Any) -> Any:
    """With texts that may be shown on a terminal."""
    if isinstance(content, str):
        return printable(content, but="\n\t")
    if isinstance(content, list):
        return [*map(_shown, content)]
    return {_shown(name): _shown(each) for name, each in content.items()} if isinstance(content, dict) else content


def taken_in(report: Report, host: str, told_at: float) -> Report:
    """A report with the times of this clock; see `status_taken_in`."""
    activity = report.activity
    if activity is not None:
        activity = replace(activity, since=activity.since + time.monotonic() - told_at)
    return replace(report, status=status_taken_in(report.status, host, told_at), activity=activity)


def status_taken_in(status: RoleStatus, host: str, told_at: float) -> RoleStatus:
    """A status of a role elsewhere with the times of this clock. DataError if it has not the time of its state.

    Args:
        host: where the role is.
        told_at: when it was told, by the clock of who told it.
    """
    if status.state not in status.times:
        raise DataError(f"A role's status has the time of its state. Received: none of {status.role[:80]!r} on {host}.")
    shift = time.monotonic() - told_at
    return replace(status, host=host, times={state: each + shift for state, each in status.times.items()})
