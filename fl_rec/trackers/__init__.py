"""Where a job's figures go beside its own files, by `runner.log_to`. No Paddle is imported here.

A tracker of one's own is a subclass of `Tracker`, named `module:Class` or `path/to/file.py:Class`.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import EpochRecord
from fl_rec.plugins import Registry, absolute
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import figures

# Figures by name of one client, "client_3", of all together, "all", or of ranking by popularity, "popularity".
Figures = Mapping[str, Mapping[str, float]]


class Tracker(ABC):
    """Passes a job's figures on. It works in a thread of its own, one call after another, and has a run's whole story.

    Args:
        run: the run's folder.
        config: with every size filled in.
        changed: the keys that are set to something else than their defaults, by dotted name.

    Attributes:
        modules: what must be importable.
        extra: of the package `fl_rec`, which installs them; "" of a tracker of one's own.
    """

    modules: ClassVar[Sequence[str]] = ()
    extra: ClassVar[str] = ""

    def __init__(self, run: RunDirectory, config: Config, changed: Mapping[str, Any]) -> None:
        self.run, self.config, self.changed = run, config, changed

    @classmethod
    def needed(cls) -> Sequence[str]:
        """The modules that it needs here."""
        return cls.modules

    @abstractmethod
    def begin(self, epochs: Mapping[int, Figures]) -> None:
        """Opens it, and has it hold these epochs of the run and no others: a run that is resumed, or that goes back to
        a checkpoint, has had some before, and may have had more.

        Args:
            epochs: in order; empty of a new run.
        """

    @abstractmethod
    def log(self, epoch: int, figures: Figures) -> None:
        """Adds an epoch."""

    @abstractmethod
    def end(self, done: bool, model: Path | None) -> None:
        """Closes it.

        Args:
            done: whether the job has ended well.
            model: the folder of the model that it has left; None if it has none.
        """


TRACKERS: Registry[type[Tracker]] = Registry(
    "a tracker",
    "runner.log_to",
    {
        "tensorboard": "fl_rec.trackers.tensorboard:TensorBoard",
        "visualdl": "fl_rec.trackers.visualdl:VisualDL",
        "mlflow": "fl_rec.trackers.mlflow:MLflow",
    },
    base="fl_rec.trackers:Tracker",
)


def check(config: Config, _job: Facts) -> Config:
    """The configuration with the files of trackers of one's own found from anywhere.

    Raises:
        ConfigError: there is no such tracker, or a module that it needs is not installed.
    """
    folder, names = config.yaml_path.parent, config.runner.log_to
    if not names:
        return config
    for name in names:
        tracker = TRACKERS.find(name, folder)
        missing = [each for each in tracker.needed() if importlib.util.find_spec(each) is None]
        if missing:
            install = f'pip install "fl_rec[{tracker.extra}]"' if tracker.extra else f"pip install {' '.join(missing)}"
            raise ConfigError(
                f"runner.log_to names trackers whose packages are installed. Received: {name}, and there is no module "
                f"{', '.join(missing)}. Install it ({install}), or leave {name} out."
            )
    return config.replace(**{"runner.log_to": [absolute(name, folder) for name in names]})


def figures_of(record: EpochRecord) -> dict[str, dict[str, float]]:
    """The figures of an epoch: of all clients together, last, and of each. What is no finite number is left out."""

    def of(record: EpochRecord) -> dict[str, float]:
        named = figures(record.figures())
        return {name: float(value) for name, value in named.items() if name != "epoch" and _is_number(value)}

    each = {f"client_{client.client}": of(client) for client in record.clients}
    return {**each, ALL: of(record)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
