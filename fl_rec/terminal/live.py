"""What is shown on a terminal: what goes on in place, below the lines that stay."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live as Place
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fl_rec.job.observers import RoleView, Started
from fl_rec.tables import cut, printable, text_width
from fl_rec.terminal.passing import Client, Pass, passing
from fl_rec.terminal.screen import NORMAL, VERBOSE, Screen
from fl_rec.terminal.story import Story, Told
from fl_rec.terminal.words import duration

_REFRESH = 5  # times a second
_LABEL = 10  # columns of the labels
_OPENING_LINES = 5  # that say what is about to happen, if the paths are short
_NAME = 16  # columns of a client's name, at most
_OTHER_LINES = 4  # of the terminal's, that are not for clients
_HEADER_EVERY = 20  # epochs
_GAP = "  "


class _Console(Console):
    """One thread prints at a time. rich's own, which draws anew what goes on, and another that prints a line above it
    would each go up by as many lines as the other has drawn, and erase a line that is to stay."""

    lock: AbstractContextManager[Any] = nullcontext()

    def print(self, *objects: Any, **how: Any) -> None:
        with self.lock:
            super().print(*objects, **how)


class Live(Screen):
    """A terminal.

    Args:
        file: the terminal.
        width, height: None for the terminal's.
    """

    def __init__(self, file: TextIO, level: int = NORMAL, width: int | None = None, height: int | None = None) -> None:
        super().__init__(level)
        self._console = _Console(file=file, highlight=False, markup=False, emoji=False, width=width, height=height)
        self._doing = "checking the configuration and the data"
        self._pass: Pass | None = None
        self._epochs_shown = 0
        self._noted: set[str] = set()
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots")
        self._place = Place(
            get_renderable=self.render, console=self._console, refresh_per_second=_REFRESH, transient=True
        )
        self._console.lock = self._place._lock

    def __enter__(self) -> Live:
        if self._level >= NORMAL:
            self._place.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._place.stop()

    def starting(self, job: Started) -> None:
        super().starting(job)
        self._doing = "starting"

    @property
    def width(self) -> int:
        return self._console.width

    # -- lines that stay -----------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        # A table that is too wide is the terminal's to break: rich would do it at spaces.
        self._console.print(Text(printable(text, but="\n\t")), soft_wrap=True)

    def say_note(self, text: str) -> None:
        kind = re.sub(r"\d", "", text)
        # What has been said before, but for its numbers, is in tables.txt, and takes a line here.
        self._labelled("note", cut(text, self._room) if kind in self._noted else text, "yellow")
        self._noted.add(kind)

    def say_notes(self, notes: Sequence[str], where: str) -> None:
        shown = [note if self._level >= VERBOSE else cut(note, self._room) for note in notes]
        for text in shown:
            self._labelled("note", text, "yellow")
        if shown != list(notes):
            self._labelled("", f"in full: {where}", "")

    def lines(self, lines: Sequence[tuple[str, str]]) -> None:
        others = sum(-(-text_width(text) // self._room) for label, text in lines if label != "settings")
        # All settings are in the run's folder; what is shown of them is broken at spaces.
        count = max(1, _OPENING_LINES - others)
        most = count * self._room - 16 * (count - 1)
        for label, text in lines:
            self._labelled(label, cut(text, most) if label == "settings" else text, "bold")

    @property
    def _room(self) -> int:
        return self.width - _LABEL

    def _labelled(self, label: str, text: str, style: str) -> None:
        grid = Table.grid()
        grid.add_column(width=_LABEL, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(label, style), Text(printable(text, but="\n\t")))
        self._console.print(grid)

    def say_epoch(self, story: Story, told: Told) -> None:
        cells = cells_of(story, told, self.width)
        if self._epochs_shown % _HEADER_EVERY == 0:
            self._console.print(Text(_GAP.join(each.placed(each.title) for each in cells), "dim"))
        text = Text()
        for number, each in enumerate(cells):
            text.append(_GAP if number else "").append(each.placed(each.value), each.style)
        self._console.print(text)
        self._epochs_shown += 1

    # -- what goes on --------------------------------------------------------------------------------------------

    def progress(self, story: Story, roles: Mapping[str, RoleView], late: str) -> None:
        self._doing = f"starting: {late}" if late else "all roles run"
        self._pass = None if late else passing(roles, story.title)

    def render(self) -> RenderableType:
        """What is shown now; called by rich's thread."""
        goes_on, story = self._pass, self._story
        if goes_on is None or story is None:
            waited = f"{duration(time.monotonic() - self._began)}  {self._doing}"
            return self._beside_the_spinner([Text(cut(waited, self.width - 2))])
        room = max(1, self._console.height - _OTHER_LINES)
        return Group(self._of_all(goes_on, story), clients(goes_on.clients, room, self.width))

    def _of_all(self, goes_on: Pass, story: Story) -> RenderableType:
        told = [f"{goes_on.share:4.0%}"]
        if goes_on.rate:
            told.append(f"{goes_on.rate:,.0f} {story.unit}/s")
        elif goes_on.share == 1.0:
            told.append(goes_on.doing)
        left = {"left": goes_on.left, "in all": story.left(goes_on) if goes_on.epoch < story.epochs else 0.0}
        told += [f"{duration(seconds)} {word}" for word, seconds in left.items() if seconds > 0]
        bar = ProgressBar(total=1.0, completed=goes_on.share)
        title = Text(f"epoch {goes_on.epoch}/{story.epochs}", "bold")
        return self._beside_the_spinner([title, bar, Text("  ".join(told))])

    def _beside_the_spinner(self, parts: Sequence[RenderableType]) -> RenderableType:
        grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
        for part in [self._spinner, *parts]:
            grid.add_column(no_wrap=True, ratio=1 if isinstance(part, ProgressBar) else None)
        grid.add_row(self._spinner, *parts)
        return grid


@dataclass(frozen=True)
class Cell:
    """One figure of an epoch.

    Attributes:
        title, value: of the column, and in it.
        width: columns of the terminal.
        style: rich's.
        left: aligned left, and cut where it is too long.
    """

    title: str
    value: str
    width: int
    style: str = ""
    left: bool = False

    def placed(self, text: str) -> str:
        """A text in the column's width."""
        text = cut(text, self.width)
        space = " " * (self.width - text_width(text))
        return text + space if self.left else space + text


def cells_of(story: Story, told: Told, width: int) -> list[Cell]:
    """An epoch's line, for a terminal of so many columns; what has no room is in tables.txt."""
    at = f"@{story.top_k}"
    count = len(f"{story.epochs}")
    cells = [Cell("epoch", told.number, max(5, 2 * count + 1)), Cell("loss", told.loss, 6)]
    if story.tests:
        cells += [
            Cell("AUC", told.auc, 5),
            Cell(f"HR{at}", told.hr, max(5, 2 + len(at)), "bold"),
            Cell("change", told.change, 6, _colour(told.change)),
        ]
        if story.knows_popularity:
            cells.append(Cell("vs pop.", told.against, 7, _colour(told.against)))
        cells.append(Cell(f"NDCG{at}", told.ndcg, 4 + len(at)))
    cells += [Cell(name, value, max(7, len(name))) for name, value in told.further.items()]
    seconds = Cell("time", f"{told.seconds:,.{told.seconds < 100:d}f} s", 7)
    rest = width - sum(each.width + len(_GAP) for each in cells) - seconds.width
    name, figure = told.worst
    if story.tests and story.job.workers > 1 and rest >= 10:
        cells.append(Cell("worst", figure, 5))
        needed = max(text_width(story.title(number)) for number in range(story.job.workers))
        if (rest := rest - 9) >= len("client 0"):
            cells.append(Cell("client", name, min(rest, needed, _NAME), left=True))
            rest -= cells[-1].width
    if rest >= 12:
        cells.append(Cell("rows/s", told.rate, 10))
    return [*cells, seconds]


def clients(clients: Sequence[Client], room: int, width: int) -> RenderableType:
    """A line a client, as many as there is room for: those who are furthest behind."""
    shown, hidden = list(clients), 0
    if len(shown) > room:
        behind = sorted(range(len(shown)), key=lambda number: (shown[number].share, number))[: room - 1]
        hidden = len(shown) - len(behind)
        shown = [shown[number] for number in sorted(behind)]
    grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
    names = max((text_width(each.name) for each in shown), default=0)
    grid.add_column(width=2)
    grid.add_column(width=min(names, max(_NAME, width // 4)), no_wrap=True)
    grid.add_column(ratio=1)
    for columns in (4, 10, 11, 10):
        grid.add_column(width=columns, justify="right", no_wrap=True)
    for each in shown:
        bar: RenderableType = ProgressBar(total=1.0, completed=each.share) if each.of_rows else Text("sits out", "dim")
        rate = f"{each.rate:,.0f}/s" if each.rate else ""
        grid.add_row(
            "",
            Text(cut(each.name, max(_NAME, width // 4))),
            bar,
            f"{each.share:.0%}" if each.of_rows else "",
            f"{each.rows:,}",
            rate,
            Text(each.doing, "dim"),
        )
    if hidden:
        return Group(grid, Text(f"   ... and {hidden} who are further", "dim"))
    return grid


def _colour(difference: str) -> str:
    return {"+": "green", "-": "red"}.get(difference[:1], "") if difference.strip("+-0.") else ""
