"""TensorBoard: RUN/tensorboard, to be looked at with `tensorboard --logdir runs`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fl_rec.evaluation.metrics import ALL
from fl_rec.trackers import Figures, Tracker


class TensorBoard(Tracker):
    """A folder for each client and one for all, so that their curves of a figure lie in one chart."""

    modules, extra = ("tensorboard",), "tensorboard"

    def begin(self, epochs: Mapping[int, Figures]) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        shutil.rmtree(self._folder, ignore_errors=True)
        # A file of another name than the one before: TensorBoard goes on reading that after it has been removed.
        self._name = f"events.out.tfevents.{time.time_ns() // 1000}.fl_rec"
        self._begun: set[str] = set()
        text = self.run.config.read_text(encoding="utf-8")
        parameters = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self.changed.items()
        }
        self._write(ALL, 0, [_text("configuration", f"```yaml\n{text}```"), hparams_pb(parameters, self.run.path.name)])
        for epoch, figures in epochs.items():
            self.log(epoch, figures)

    def log(self, epoch: int, figures: Figures) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for whose, values in figures.items():
            self._write(whose, epoch, [scalar_pb(name, value) for name, value in values.items()])

    def end(self, done: bool, model: Path | None) -> None:
        if model is not None:
            self._write(ALL, 0, [_text("model", f"`{model}`")])

    @property
    def _folder(self) -> Path:
        return self.run.path / "tensorboard"

    def _write(self, whose: str, step: int, summaries: Iterable[Any]) -> None:
        # Not through EventFileWriter, which has a thread and an open file for each client, and imports TensorFlow.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        path, now = self._folder / whose / self._name, time.time()
        path.parent.mkdir(parents=True, exist_ok=True)
        events = [Event(wall_time=now, step=step, summary=each) for each in summaries]
        if whose not in self._begun:
            self._begun.add(whose)
            events.insert(0, Event(wall_time=now, file_version="brain.Event:2"))
        with open(path, "ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())


def _text(tag: str, markdown: str) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, markdown)
