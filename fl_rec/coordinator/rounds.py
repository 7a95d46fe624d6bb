"""The rounds of a run on disk: every report and every decision, one JSON line a round.

From it a coordinator that is started again takes up the round where it was, and a strategy is tried on a recorded run.
Arrays above LARGEST_INLINE bytes are in the run's folder coordinator/arrays, each once, however many clients were told
it. All of them stay, since both want every report: logits of 500 KB from ten clients, and one answer to all, are 5.5 MB
a round.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Lt
from pydantic import StringConstraints

from fl_rec.coordinator.messages import (
    FINISH,
    JOIN,
    WAIT,
    ClientReport,
    Decision,
    MessageError,
    decision_from_record,
    report_from_record,
    to_record,
)
from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.files import append_line, atomic_write, parse_json, whole_line
from fl_rec.outside import Count, Number, as_typed
from fl_rec.packed import open_regular, parse_array
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import RULE, format_table

# Bytes of an array that stands in the line itself.
LARGEST_INLINE = 4096
# Bytes of a message; a round's title tells sizes if one is above.
LARGEST_UNTOLD = 4096


class Arrays:
    """Arrays in files that are named after their content, its SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, array: np.ndarray) -> str:
        """Writes it unless it is there, and gives its name."""
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        content = file.getvalue()
        name = hashlib.sha256(content).hexdigest()
        path = self._path(name)
        if not path.exists():
            with atomic_write(path, sync=False) as draft:
                draft.write(content)
        return name

    def get(self, name: str) -> np.ndarray:
        """The inverse of `put`. Raises `DataError`."""
        path = self._path(name)
        try:
            with open_regular(path) as file:
                content = file.read()
        except OSError as err:
            raise DataError(
                f"Large arrays of rounds.jsonl are in files of their own. Received: {path}, which can't be read "
                f"({err.strerror}). Copy a run with all of its folders."
            ) from err
        if hashlib.sha256(content).hexdigest() != name:
            raise DataError(f"An array's file is named after its content. Received: {path}, which has another.")
        array: np.ndarray = parse_array(content)
        return array

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"


_Client = Annotated[str, StringConstraints(pattern="^[0-9]{1,9}$")]


@dataclass(frozen=True)
class _Line:
    """A round as a line has it; those of earlier versions have no sizes."""

    round: Annotated[Count, Lt(1_000_000)]
    strategy: str
    missing: tuple[Count, ...]
    seconds: Annotated[Number, Ge(0)]
    reports: Mapping[_Client, Mapping[str, Any]]
    decisions: Mapping[_Client, Mapping[str, Any]]
    report_bytes: Mapping[_Client, Count] = field(default_factory=dict)
    decision_bytes: Mapping[_Client, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        round: from 0; its decisions are for the epoch after it, whose number is one more.
        strategy: who decided.
        reports: those that came in time, by client.
        decisions: one for every client.
        missing: who was expected and did not report in time.
        seconds: from the first report to the decision.
        report_bytes, decision_bytes: of each report and decision as it travelled, by client; empty if not known.
    """

    round: int
    strategy: str
    reports: Mapping[int, ClientReport]
    decisions: Mapping[int, Decision]
    missing: tuple[int, ...] = ()
    seconds: float = 0.0
    report_bytes: Mapping[int, int] = field(default_factory=dict)
    decision_bytes: Mapping[int, int] = field(default_factory=dict)

    def clients(self, state: str) -> list[int]:
        """Who was told so."""
        return sorted(client for client, decision in self.decisions.items() if decision.next_state == state)

    def to_json(self, arrays: Arrays | None = None) -> str:
        """One line; what is not finite is left out, as the default of its field is the same.

        Args:
            arrays: where large arrays go; None: they are in the line too.
        """
        content = {
            "round": self.round,
            "strategy": self.strategy,
            "missing": list(self.missing),
            "seconds": self.seconds,
            "report_bytes": {str(client): size for client, size in self.report_bytes.items()},
            "decision_bytes": {str(client): size for client, size in self.decision_bytes.items()},
            "reports": {str(client): _plain(to_record(each), arrays) for client, each in self.reports.items()},
            "decisions": {str(client): _plain(to_record(each), arrays) for client, each in self.decisions.items()},
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, line: str, arrays: Arrays | None = None) -> Round:
        """The inverse of `to_json`. Raises `DataError`."""
        try:
            found = as_typed(_Line, parse_json(line), "A line of rounds.jsonl is a round.", repr(line[:80]))
            reports = {int(client): report_from_record(_rich(each, arrays)) for client, each in found.reports.items()}
            decisions = {
                int(client): decision_from_record(_rich(each, arrays)) for client, each in found.decisions.items()
            }
            sizes = [
                {int(client): size for client, size in each.items()}
                for each in (found.report_bytes, found.decision_bytes)
            ]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MessageError) as err:
            reason = repr(err)[:300]
            raise DataError(f"A line of rounds.jsonl is a round. Received: {line[:80]!r} ({reason}).") from err
        return cls(found.round, found.strategy, reports, decisions, found.missing, found.seconds, *sizes)

    def table(self, epochs: int) -> str:
        """For people: who joins, who waits, and why; a line for all who are told the same, none if all are. The title
        tells how long the longest messages are, in KiB, if one is of note."""
        over = self.round >= epochs  # then all finish
        states = (FINISH,) if over else (JOIN, WAIT, FINISH)
        counts = ", ".join(f"{len(self.clients(state))} {state}" for state in states)
        when = f"after {epochs} epochs" if over else f"for epoch {self.round + 1} of {epochs}"
        title = f"round {self.round}, {when}, {self.strategy}: {counts}"
        if not over and not self.clients(JOIN):
            title += "; nobody trains"
        if self.missing:
            title += f"; no report in time from {', '.join(map(str, self.missing))}"
        up, down = (max(each.values(), default=0) for each in (self.report_bytes, self.decision_bytes))
        if max(up, down) > LARGEST_UNTOLD:  # small messages would only take up space
            title += f"; up to {up / 1024:.1f} KiB up and {down / 1024:.1f} KiB down"
        alike: dict[tuple[str, str, str, str], list[int]] = {}
        for client, decision in sorted(self.decisions.items()):
            joins = decision.next_state == JOIN
            epoch, rate = (
                (f"{decision.local_epochs:.2f}", f"{decision.learning_rate_factor:g}") if joins else ("-", "-")
            )
            alike.setdefault((decision.next_state, epoch, rate, decision.reason), []).append(client)
        if len(alike) == 1:
            ((_, epoch, rate, why),) = alike
            usual = (epoch, rate) in (("1.00", "1"), ("-", "-"))
            return "; ".join(filter(None, (title, "" if usual else f"{epoch} epochs, rate x {rate}", why)))
        header = ["clients", "next", "epochs", "rate x", "why"]
        lines = [[_ranges(clients), *cells] for cells, clients in alike.items()]
        return format_table([header, RULE, *lines], title=title, left=[len(header) - 1])


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, short: "0-3, 5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


class _Unread(Arrays):
    """Empty ones in their place, for who only wants to know what was decided."""

    def get(self, name: str) -> np.ndarray:
        return np.empty(0)


class RoundLog:
    """The file rounds.jsonl of a run, and the arrays that belong to it.

    Args:
        path: the file.
        with_arrays: whether large arrays are read too; false: those of rounds that are read are empty.
    """

    def __init__(self, path: Path, with_arrays: bool = True) -> None:
        kind = Arrays if with_arrays else _Unread
        self._path, self._arrays = path, kind(RunDirectory(path.parent).coordinator / "arrays")

    def append(self, round: Round) -> None:
        # The arrays first: a line that is there has them.
        line = round.to_json(self._arrays)
        append_line(self._path, line)

    def __iter__(self) -> Iterator[Round]:
        """The rounds in order; a line that was torn, by a killed coordinator or a full disk, is left out."""
        if not self._path.exists():
            return
        try:
            with open_regular(self._path) as file:
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError as err:
            raise DataError(f"A rounds.jsonl must be readable. Received: {self._path} ({err}).") from err
        for number, line in enumerate(lines[:-1], 1):
            if whole_line(line, f"{self._path}, line {number}") is not None:
                yield Round.from_json(line, self._arrays)

    def mend(self) -> None:
        """Removes a last line that was cut off, so that another can follow."""
        if self._path.exists():
            content = self._path.read_bytes()
            end = content.rfind(b"\n") + 1
            if end < len(content):
                with open(self._path, "r+b") as file:
                    file.truncate(end)


def recorded_reports(run: RunDirectory) -> list[dict[int, ClientReport]]:
    """What the clients of a recorded run reported, round by round.

    Of a run without a coordinator, it is what they would have: metrics.jsonl has the figures of each epoch.

    Raises:
        DataError: there is no such run, or it has no figures.
    """
    rounds = {each.round: dict(each.reports) for each in RoundLog(run.rounds)}
    if rounds:
        # Rounds that the clients went through without a coordinator are not there.
        return [rounds.get(number, {}) for number in range(1 + max(rounds))]
    if not run.metrics.is_file():
        raise DataError(f"A recorded run has rounds.jsonl or metrics.jsonl. Received: {run.path}, which has neither.")
    records = [each for each in run.read_metrics() if each["client"] != ALL]
    if not records:
        raise DataError(f"A recorded run has figures of at least one epoch. Received: {run.metrics}, with none.")
    names = ("train_loss", "train_auc", "test_auc", "hr", "ndcg")
    for each in records:
        missing = [name for name in ("rows", "seconds", "test_users") if each.get(name) is None]
        missing += [name for name in names if name not in each]
        if missing:
            raise DataError(
                f"A recorded run has the figures of each client. Received: {run.metrics}, of epoch {each['epoch']} and "
                f"client {each['client']} without {', '.join(missing)}."
            )
    shard_rows: dict[int, int] = {}
    for each in records:
        shard_rows[each["client"]] = max(shard_rows.get(each["client"], 0), each["rows"])
    first = {client: ClientReport(client=client, round=0, shard_rows=rows) for client, rows in shard_rows.items()}
    reports = [first, *({} for _ in range(max(each["epoch"] for each in records)))]
    for each in records:
        figures: dict[str, Any] = {name: math.nan if each[name] is None else each[name] for name in names}
        reports[each["epoch"]][each["client"]] = ClientReport(
            client=each["client"],
            round=each["epoch"],
            shard_rows=shard_rows[each["client"]],
            rows=each["rows"],
            seconds=each["seconds"],
            test_users=each["test_users"],
            **figures,
        )
    return reports


def _plain(record: Mapping[str, Any], arrays: Arrays | None) -> dict[str, Any]:
    plain = {}
    for name, value in record.items():
        if name == "extra":
            value = {field: _pack(each, arrays) for field, each in value.items()}
        elif isinstance(value, dict):
            value = _plain(value, arrays)
        elif isinstance(value, np.generic):
            value = value.item()
        if not (isinstance(value, float) and not math.isfinite(value)):
            plain[name] = value
    return plain


def _rich(record: Mapping[str, Any], arrays: Arrays | None) -> dict[str, Any]:
    return {**record, "extra": {field: _unpack(each, arrays) for field, each in record.get("extra", {}).items()}}


def _pack(value: Any, arrays: Arrays | None) -> Any:
    if not isinstance(value, np.ndarray):
        value = value.item() if isinstance(value, np.generic) else value
        # JSON knows no NaN and no infinity.
        return value if math.isfinite(value) else {"number": repr(value)}
    array = np.ascontiguousarray(value, value.dtype.name).reshape(value.shape)
    packed = {"dtype": array.dtype.name, "shape": array.shape}
    if arrays is not None and array.nbytes > LARGEST_INLINE:
        return {**packed, "sha256": arrays.put(array)}
    # Base64 keeps every bit; an array of logits as decimal digits would be five times as long.
    return {**packed, "base64": base64.b64encode(array.tobytes()).decode()}


def _unpack(value: Any, arrays: Arrays | None) -> Any:
    if not isinstance(value, dict):
        return value
    if "number" in value:
        return float(value["number"])
    if "sha256" in value:
        if arrays is None:
            raise ValueError("an array that is in a file")
        return arrays.get(value["sha256"])
    return np.frombuffer(base64.b64decode(value["base64"]), value["dtype"]).reshape(value["shape"])
