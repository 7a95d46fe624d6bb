"""What a client and the coordinator tell each other. No Paddle and no gRPC is imported here.

How it travels is in `wire`. Nothing of a user's rows is in a report: counts, metrics, timings and declared fields only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np

from fl_rec.errors import FLRecError
from fl_rec.plugins import did_you_mean

JOIN, WAIT, FINISH = "JOIN", "WAIT", "FINISH"


STATES = (JOIN, WAIT, FINISH)


# Above it, floats are no counts any more.
LARGEST_COUNT = 2**53


# What an array of a message may consist of; it keeps Python objects out.
DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64")


Field: TypeAlias = float | np.ndarray


class MessageError(FLRecError):
    """A message is malformed, of another version, or breaks a rule of its fields."""


@dataclass(frozen=True)
class Device:
    """What a client trains on.

    Attributes:
        type: any word, such as "phone".
        capacity: work per second, relative to the other clients; 1 is this machine's own.
        bandwidth: bytes per second; infinity if nothing limits it.
    """

    type: str = "machine"
    capacity: float = 1.0
    bandwidth: float = math.inf

    def __post_init__(self) -> None:
        _require("device.type", self.type, isinstance(self.type, str), "a text")
        finite = _is_number(self.capacity) and 0 < self.capacity < math.inf
        _require("device.capacity", self.capacity, finite, "a finite number above 0")
        _require(
            "device.bandwidth", self.bandwidth, _is_number(self.bandwidth) and self.bandwidth > 0, "a number above 0"
        )


@dataclass(frozen=True, eq=False)
class ClientReport:
    """What a client tells before a round, of the round that it has just done.

    Round 0 is reported before any training, so that a strategy chooses the first round's clients too. A figure that
    is not known is NaN: all of them in round 0, and those of training after a round of waiting.

    Attributes:
        client: its number, from 0.
        round: the round that the decision is for.
        shard_rows: rows of the client's shard, one local epoch.
        rows: rows that it trained in the round before, 0 if it waited.
        seconds: what that took it.
        train_loss: mean over these rows.
        train_auc, test_auc: areas under the ROC curve; the test's is the common model's on this client's test shard.
        hr, ndcg: HR@K and NDCG@K of the common model, means over its `test_users`.
        test_users: users of its test shard.
        device: what it trains on.
        bytes_sent, bytes_received: to and from the parameter servers since the last report; None if not known.
        extra: fields that the configuration declares in coordinator.report_fields, each a number or an array.
    """

    client: int
    round: int
    shard_rows: int = 0
    rows: int = 0
    seconds: float = 0.0
    train_loss: float = math.nan
    train_auc: float = math.nan
    test_auc: float = math.nan
    hr: float = math.nan
    ndcg: float = math.nan
    test_users: int = 0
    device: Device = field(default_factory=Device)
    bytes_sent: int | None = None
    bytes_received: int | None = None
    extra: Mapping[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("client", "round", "shard_rows", "rows", "test_users", "bytes_sent", "bytes_received"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT
            fits = whole or (value is None and name.startswith("bytes"))
            _require(name, value, fits, "a whole number from 0 to 2^53")
        _require("seconds", self.seconds, _is_number(self.seconds) and 0 <= self.seconds < math.inf, "0 or more")
        _require(
            "train_loss",
            self.train_loss,
            _is_number(self.train_loss, nan=True) and not math.isinf(self.train_loss),
            "a finite number, or NaN",
        )
        for name in ("train_auc", "test_auc", "hr", "ndcg"):
            value = getattr(self, name)
            fits = _is_number(value, nan=True) and not (value < 0 or value > 1)
            _require(name, value, fits, "a number from 0 to 1, or NaN")
        _check_extra(self.extra)

    @property
    def trained(self) -> bool:
        """Whether it trained in the round before."""
        return self.rows > 0

    @property
    def seconds_per_row(self) -> float:
        """NaN if it did not train."""
        return self.seconds / self.rows if self.rows else math.nan


@dataclass(frozen=True, eq=False)
class Decision:
    """What a client does in a round.

    Attributes:
        next_state: JOIN: it trains. WAIT: it keeps in step and evaluates. FINISH: the same until the run ends.
        local_epochs: passes over its shard when it joins; 0.5 is half of it, and the next half is next time's.
        learning_rate_factor: what the configured learning rate is multiplied with in this round.
        reason: for people; it stands in the round's table.
        extra: anything that the strategy tells the client's trainer, each a number or an array.
    """

    next_state: str = JOIN
    local_epochs: float = 1.0
    learning_rate_factor: float = 1.0
    reason: str = ""
    extra: Mapping[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = isinstance(self.next_state, str) and self.next_state in STATES
        _require("next_state", self.next_state, known, "one of " + ", ".join(STATES))
        for name in ("local_epochs", "learning_rate_factor"):
            value = getattr(self, name)
            fits = _is_number(value) and 0 < value < math.inf
            _require(name, value, fits, "a finite number above 0; a client that is not to train has WAIT")
        _require("reason", self.reason, isinstance(self.reason, str), "a text")
        _check_extra(self.extra)


def to_record(message: ClientReport | Decision) -> dict[str, Any]:
    """Nested plain values; arrays stay arrays."""
    record = {item.name: getattr(message, item.name) for item in dataclasses.fields(message)}
    if "device" in record:
        record["device"] = dataclasses.asdict(record["device"])
    record["extra"] = dict(record["extra"])
    return record


def report_from_record(record: Mapping[str, Any]) -> ClientReport:
    """The inverse of `to_record`. Raises `MessageError`."""
    values = dict(record)
    if "device" in values:
        values["device"] = _build(Device, values["device"], "device")
    return _build(ClientReport, values, "report")


def decision_from_record(record: Mapping[str, Any]) -> Decision:
    """The inverse of `to_record`. Raises `MessageError`."""
    return _build(Decision, record, "decision")


def check_fields(report: ClientReport, declared: Mapping[str, tuple[int, ...]]) -> None:
    """Checks a report's own fields against their declared shapes, () for a number.

    Raises:
        MessageError: one is missing, undeclared, or of another shape.
    """
    for name in report.extra:
        if name not in declared:
            hint = did_you_mean(name, declared) or "Declare it in coordinator.report_fields."
            raise MessageError(f"A report's own fields are declared. Received: {name}, which is not. {hint}")
    for name, shape in declared.items():
        # Nothing has been trained yet in round 0, so that there may be nothing to tell.
        if name not in report.extra and report.round > 0:
            raise MessageError(
                f"A report has every declared field. Missing: {name}. Return it from report_fields() of the trainer, "
                "or take it out of coordinator.report_fields."
            )
        if name in report.extra and np.shape(report.extra[name]) != shape:
            raise MessageError(
                f"{name} must have its declared shape {list(shape)}. Received: {list(np.shape(report.extra[name]))}."
            )


Message = TypeVar("Message", "Device", "ClientReport", "Decision")


def _build(cls: type[Message], values: Any, name: str) -> Message:
    known = {item.name for item in dataclasses.fields(cls)}
    if not isinstance(values, Mapping) or not set(values) <= known:
        strange = sorted(map(str, set(values) - known)) if isinstance(values, Mapping) else values
        raise MessageError(f"A {name} has the fields {', '.join(sorted(known))}. Received: {strange!r}.")
    try:
        return cls(**values)
    except TypeError as err:
        raise MessageError(f"A {name} has every field that has no default: {err}.") from err


def _check_extra(extra: Any) -> None:
    _require("extra", extra, isinstance(extra, Mapping), "a mapping of names to numbers or arrays")
    for name, value in extra.items():
        array = isinstance(value, np.ndarray) and value.dtype.name in DTYPES
        fits = isinstance(name, str) and (array or _is_number(value, nan=True))
        _require(f"extra {name}", value, fits, f"a number, or an array of {', '.join(DTYPES)}")


def _is_number(value: Any, nan: bool = False) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and (nan or not math.isnan(value))


def _require(name: str, value: Any, holds: bool, accepts: str) -> None:
    if not holds:
        shown = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else repr(value)[:80]
        raise MessageError(f"{name} must be {accepts}. Received: {shown}.")
