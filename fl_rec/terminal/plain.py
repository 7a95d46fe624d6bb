"""What is shown where nobody looks at a terminal: plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from fl_rec.job import attempts
from fl_rec.job.observers import Observer, Started
from fl_rec.runs import roles


class Plain(Observer):
    """Lines to a file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def starting(self, job: Started) -> None:
        self._run = job.run
        rows = [count for count in job.rows if count is not None]
        for name, value in job.changed.items():
            self._say(f"  {name}  {value}")
        for note in job.notes:
            self.note(note)
        self._say(f"data      {job.workers} shards" + (f", {sum(rows):,} training rows" if rows else ""))
        self._say(f"roles     {job.servers} server(s), {job.workers} worker(s), {job.coordinators} coordinator(s)")
        self._say(f"run       {job.run.path}")
        if job.resumed is not None:
            self._say(f"resumed   {attempts.said(job.resumed)}")

    def table(self, text: str) -> None:
        self._say(text + "\n")

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def ended(self, result: Mapping[str, Any]) -> None:
        if result["state"] == roles.DONE:
            self._say(f"done      {self._run.result}\nmodel     {result['model']}")

    def _say(self, text: str) -> None:
        print(text, file=self._file, flush=True)
