"""What is shown where nobody looks at a terminal: lines with times, each of which says it all."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from fl_rec.job.observers import RoleView
from fl_rec.tables import printable
from fl_rec.terminal.passing import passing
from fl_rec.terminal.screen import NORMAL, Screen
from fl_rec.terminal.story import Story, Told
from fl_rec.terminal.words import duration

# Seconds between two lines of a start, and of an epoch.
_OF_START, _OF_EPOCH = 5.0, 30.0


class Plain(Screen):
    """Lines to a file."""

    def __init__(self, file: TextIO, level: int = NORMAL) -> None:
        super().__init__(level)
        self._file = file
        self._said, self._said_at = "", -math.inf

    def say(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), printable(text, but="\n\t"), file=self._file, flush=True)

    def say_note(self, text: str) -> None:
        self.say(f"note: {text}")

    def lines(self, lines: Sequence[tuple[str, str]]) -> None:
        for label, text in lines:
            self.say(f"{label:<9} {text}")

    def progress(self, story: Story, roles: Mapping[str, RoleView], late: str) -> None:
        now, goes_on = time.monotonic(), passing(roles, story.title)
        if late:
            if late != self._said and now >= self._said_at + _OF_START:
                self.say(f"starting  {late}")
                self._said, self._said_at = late, now
        elif self._said:
            self.say("started")
            self._said, self._said_at = "", now
        elif goes_on is not None and goes_on.rate and now >= self._said_at + _OF_EPOCH:
            self.say(
                f"epoch {goes_on.epoch}/{story.epochs}  {goes_on.share:.0%} of {goes_on.of_rows:,} {story.unit}, "
                f"{goes_on.rate:,.0f} {story.unit}/s, {duration(goes_on.left)} left"
            )
            self._said_at = now

    def say_epoch(self, story: Story, told: Told) -> None:
        self._said_at = time.monotonic()
        at = f"@{story.top_k}"
        text = f"epoch {told.number}  loss {told.loss}"
        if story.tests:
            beside = ", ".join(
                filter(None, (told.change, f"popularity {story.popularity:.3f}" if told.against else ""))
            )
            text += f"  AUC {told.auc}  HR{at} {told.hr}{f' ({beside})' if beside else ''}  NDCG{at} {told.ndcg}"
        text += "".join(f"  {name} {value}" for name, value in told.further.items())
        text += f"  worst: {' '.join(told.worst)}" if told.worst[0] else ""
        self.say(f"{text}  {duration(told.seconds)}")
