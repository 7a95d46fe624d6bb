"""VisualDL, PaddlePaddle's own: RUN/visualdl, to be looked at with `visualdl --logdir runs`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_rec.evaluation.metrics import ALL
from fl_rec.trackers import Figures, Tracker


class VisualDL(Tracker):
    """A folder for each client and one for all, so that their curves of a figure lie in one chart."""

    modules, extra = ("visualdl",), "visualdl"

    def begin(self, epochs: Mapping[int, Figures]) -> None:
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writers: dict[str, Any] = {}
        writer = self._writer(ALL)
        parameters = {
            name: value if isinstance(value, int | float | str) and not isinstance(value, bool) else str(value)
            for name, value in self.changed.items()
        }
        top_k = self.config.runner.top_k
        writer.add_hparams(parameters, ["train_loss", "test_auc", f"hr@{top_k}", f"ndcg@{top_k}"])
        writer.add_text("configuration", self.run.config.read_text(encoding="utf-8"), 0)
        for epoch, figures in epochs.items():
            self.log(epoch, figures)

    def log(self, epoch: int, figures: Figures) -> None:
        for whose, values in figures.items():
            writer = self._writer(whose)
            for name, value in values.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

    def end(self, done: bool, model: Path | None) -> None:
        if model is not None:
            self._writer(ALL).add_text("model", str(model), 0)
        self._close()

    @property
    def _folder(self) -> Path:
        return self.run.path / "visualdl"

    def _writer(self, whose: str) -> Any:
        from visualdl import LogWriter

        if whose not in self._writers:
            self._writers[whose] = LogWriter(str(self._folder / whose))
        return self._writers[whose]

    def _close(self) -> None:
        for writer in getattr(self, "_writers", {}).values():
            writer.close()
