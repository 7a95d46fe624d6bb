"""The rounds of a run on disk: every report and every decision, one JSON line a round.

From it a coordinator that is started again takes up the round where it was, and a strategy is tried on a recorded run.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

import numpy as np

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
from fl_rec.history import RunDirectory


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        round: from 0; its decisions are for the epoch of the same number.
        strategy: who decided.
        reports: those that came in time, by client.
        decisions: one for every client.
        missing: who was expected and did not report in time.
        seconds: from the first report to the decision.
    """

    round: int
    strategy: str
    reports: Mapping[int, ClientReport]
    decisions: Mapping[int, Decision]
    missing: tuple[int, ...] = ()
    seconds: float = 0.0

    def clients(self, state: str) -> list[int]:
        """Who was told so."""
        return sorted(client for client, decision in self.decisions.items() if decision.next_state == state)

    def to_json(self) -> str:
        """One line; what is not finite is left out, as the default of its field is the same."""
        content = {
            "round": self.round,
            "strategy": self.strategy,
            "missing": list(self.missing),
            "seconds": self.seconds,
            "reports": {str(client): _plain(to_record(each)) for client, each in self.reports.items()},
            "decisions": {str(client): _plain(to_record(each)) for client, each in self.decisions.items()},
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, line: str) -> Round:
        """The inverse of `to_json`. Raises `DataError`."""
        try:
            content = json.loads(line)
            reports = {int(client): report_from_record(_rich(each)) for client, each in content["reports"].items()}
            decisions = {
                int(client): decision_from_record(_rich(each)) for client, each in content["decisions"].items()
            }
            missing = tuple(content["missing"])
            return cls(content["round"], content["strategy"], reports, decisions, missing, content["seconds"])
        except (ValueError, KeyError, TypeError, AttributeError, MessageError) as err:
            raise DataError(f"A line of rounds.jsonl is a round. Received: {line[:80]!r} ({err!r}).") from err

    def table(self, epochs: int) -> str:
        """For people: who joins, who waits, and why."""
        counts = ", ".join(f"{len(self.clients(state))} {state}" for state in (JOIN, WAIT, FINISH))
        when = f"for epoch {self.round + 1} of {epochs}" if self.round < epochs else f"after {epochs} epochs"
        title = f"round {self.round}, {when}, {self.strategy}: {counts}"
        if self.round < epochs and not self.clients(JOIN):
            title += "; nobody trains"
        if self.missing:
            title += f"; no report in time from {', '.join(map(str, self.missing))}"
        lines = [["client", "next", "epochs", "rate x", "why"]]
        for client, decision in sorted(self.decisions.items()):
            joins = decision.next_state == JOIN
            numbers = [f"{decision.local_epochs:.2f}", f"{decision.learning_rate_factor:g}"] if joins else ["-", "-"]
            lines.append([str(client), decision.next_state, *numbers, decision.reason])
        widths = [max(map(len, column)) for column in zip(*lines)]
        shown = ["  ".join([*(c.rjust(w) for c, w in zip(line[:-1], widths)), line[-1]]).rstrip() for line in lines]
        return "\n".join([title, shown[0], "-" * max(map(len, shown)), *shown[1:]])


class RoundLog:
    """The file rounds.jsonl of a run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, round: Round) -> None:
        # Buffered: an unbuffered write may take a part of the line and say nothing.
        with open(self._path, "ab") as file:
            file.write((round.to_json() + "\n").encode("utf-8"))

    def __iter__(self) -> Iterator[Round]:
        """The rounds in order; a last line that was cut off, by a killed coordinator or a full disk, is left out."""
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").split("\n")
        for line in lines[:-1]:
            yield Round.from_json(line)

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
    records = [record for record in run.read_metrics() if record["client"] != "all"]
    if not records:
        raise DataError(f"A recorded run has figures of at least one epoch. Received: {run.metrics}, with none.")
    shard_rows: dict[int, int] = {}
    for record in records:
        shard_rows[record["client"]] = max(shard_rows.get(record["client"], 0), record["rows"])
    first = {client: ClientReport(client=client, round=0, shard_rows=rows) for client, rows in shard_rows.items()}
    reports = [first, *({} for _ in range(1 + max(record["epoch"] for record in records)))]
    for record in records:
        names = ("train_loss", "train_auc", "test_auc", "hr", "ndcg")
        figures: dict[str, Any] = {name: math.nan if record[name] is None else record[name] for name in names}
        reports[record["epoch"] + 1][record["client"]] = ClientReport(
            client=record["client"],
            round=record["epoch"] + 1,
            shard_rows=shard_rows[record["client"]],
            rows=record["rows"],
            seconds=record["seconds"],
            test_users=record["test_users"],
            **figures,
        )
    return reports


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in record.items():
        if name == "extra":
            value = {field: _pack(each) for field, each in value.items()}
        elif isinstance(value, dict):
            value = _plain(value)
        elif isinstance(value, np.generic):
            value = value.item()
        if not (isinstance(value, float) and not math.isfinite(value)):
            plain[name] = value
    return plain


def _rich(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "extra": {field: _unpack(each) for field, each in record.get("extra", {}).items()}}


def _pack(value: Any) -> Any:
    # Base64 keeps every bit; an array of logits as decimal digits would be five times as long.
    if isinstance(value, (int, float)) and math.isfinite(value):
        return value
    array = np.asarray(value)
    content = array.astype(array.dtype.name, copy=False).tobytes()
    return {"dtype": array.dtype.name, "shape": array.shape, "base64": base64.b64encode(content).decode()}


def _unpack(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    array = np.frombuffer(base64.b64decode(value["base64"]), value["dtype"]).reshape(value["shape"])
    return array if array.ndim else float(array)
