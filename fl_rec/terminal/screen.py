"""What is shown of a job, wherever that is."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType

from fl_rec.evaluation.records import EpochRecord
from fl_rec.evaluation.table import WIDTH, epoch_table
from fl_rec.job.observers import Observer, RoleView, Started
from fl_rec.runs.result import RunResult
from fl_rec.terminal.passing import start_up
from fl_rec.terminal.story import Story, Told
from fl_rec.terminal.words import place

# How much is shown: the result alone, a line an epoch, or its table too.
QUIET, NORMAL, VERBOSE = range(3)


class Screen(Observer):
    """Shows a job; a context, which leaves the terminal as it was.

    Args:
        level: QUIET, NORMAL or VERBOSE.
    """

    def __init__(self, level: int = NORMAL) -> None:
        self._level = level
        self._began = time.monotonic()
        # When the epoch began that goes on; None while roles start.
        self._epoch_began: float | None = None
        self._story: Story | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        return

    # -- as an observer ------------------------------------------------------------------------------------------

    def starting(self, job: Started) -> None:
        self._story = Story(job)
        if self._level >= NORMAL:
            self.lines(self._story.opening())
            self.say_notes(job.notes, place(job.run.tables))

    def poll(self, roles: Mapping[str, RoleView]) -> None:
        if self._story is None:
            return
        late = start_up(roles)
        if not late and self._epoch_began is None:
            self._epoch_began = time.monotonic()
        if self._level >= NORMAL:
            self.progress(self._story, roles, late if self._epoch_began is None else "")

    def epoch(self, record: EpochRecord) -> None:
        if self._story is None:
            return
        before, self._epoch_began = self._epoch_began or self._began, time.monotonic()
        told = self._story.tell(record, self._epoch_began - before)
        if self._level >= NORMAL:
            self.say_epoch(self._story, told)
        if self._level >= VERBOSE:
            title = f"epoch {record.epoch} of {self._story.epochs}"
            self.say(epoch_table(record, title, self._story.job.clients, self.width))

    def table(self, text: str) -> None:
        if self._level >= VERBOSE:
            self.say(text)

    def round(self, text: str) -> None:
        # Of one in which all are told the same there is a line, and nothing to see.
        if self._level >= VERBOSE or (self._level == NORMAL and "\n" in text):
            self.say(text)

    def note(self, text: str) -> None:
        if self._level >= NORMAL:
            self.say_note(text)

    def ended(self, result: RunResult) -> None:
        if self._story is not None:
            self.lines(self._story.verdict(result, time.monotonic() - self._began))

    @property
    def width(self) -> int:
        """Columns that a table may take."""
        return WIDTH

    # -- how it is shown -----------------------------------------------------------------------------------------

    @abstractmethod
    def say(self, text: str) -> None:
        """Lines as they are."""

    @abstractmethod
    def say_note(self, text: str) -> None:
        """What one should know."""

    def say_notes(self, notes: Sequence[str], where: str) -> None:
        """Several of them, before the job begins; `where` has them in full."""
        for note in notes:
            self.say_note(note)

    @abstractmethod
    def lines(self, lines: Sequence[tuple[str, str]]) -> None:
        """Labels and texts."""

    @abstractmethod
    def progress(self, story: Story, roles: Mapping[str, RoleView], late: str) -> None:
        """What goes on. `late`: how far the roles are, while they start."""

    @abstractmethod
    def say_epoch(self, story: Story, told: Told) -> None:
        """An epoch that is over."""
