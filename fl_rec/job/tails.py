"""What a run's files have been given since the last look, told to an observer."""

from __future__ import annotations

import re
from typing import Any

from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import parse_line, records_of
from fl_rec.job.observers import Observer
from fl_rec.runs.directory import RunDirectory, in_order

_NOTE, _ROUND = "note: ", "round "
_EPOCH = re.compile(r"epoch \d+ of \d+")


class Tails:
    """Both files of a run.

    Args:
        workers: how many write their figures of each epoch.
        observer: is told of what comes from now on.
        from_start: or of what is there already, too.
    """

    def __init__(self, run: RunDirectory, workers: int, observer: Observer, from_start: bool = False) -> None:
        self._epochs = EpochTail(run, workers, observer, from_start)
        self._tables = TableTail(run, observer, from_start)

    def look(self, over: bool = False) -> None:
        """`over`: no worker writes any more."""
        self._epochs.look(over)
        self._tables.look()


class TableTail:
    """Tells of tables and notes."""

    def __init__(self, run: RunDirectory, observer: Observer, from_start: bool = False) -> None:
        self._path, self._observer = run.tables, observer
        self._offset = 0 if from_start else run.tables.stat().st_size

    def look(self) -> None:
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n\n") + 2] if b"\n\n" in text else b""
        self._offset += len(whole)
        for block in whole.decode("utf-8", "replace").split("\n\n"):
            lines = block.splitlines()
            table = "\n".join(line for line in lines if not line.startswith(_NOTE))
            if table and not _EPOCH.match(table):
                tell = self._observer.round if table.startswith(_ROUND) else self._observer.table
                tell(table)
            for line in lines:
                if line.startswith(_NOTE):
                    self._observer.note(line.removeprefix(_NOTE))


class EpochTail:
    """Tells of each epoch of which every worker has written its own figures."""

    def __init__(self, run: RunDirectory, workers: int, observer: Observer, from_start: bool = False) -> None:
        self._path, self._workers, self._observer = run.metrics, workers, observer
        self._offset = 0 if from_start else self._path.stat().st_size
        self._lines: dict[int, list[dict[str, Any]]] = {}

    def look(self, over: bool = False) -> None:
        """`over`: no worker writes any more."""
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for written in whole.decode("utf-8", "replace").splitlines():
            line = parse_line(written, str(self._path))
            if line is not None:
                self._lines.setdefault(line["epoch"], []).append(line)
        for epoch in sorted(self._lines):
            lines = in_order(self._lines[epoch])
            if lines[-1]["client"] != ALL or (len(lines) <= self._workers and not over):
                return
            del self._lines[epoch]
            self._observer.epoch(records_of(lines)[-1])
