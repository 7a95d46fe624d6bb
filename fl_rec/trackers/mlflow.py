"""MLflow: the server or store that $MLFLOW_TRACKING_URI names, or else a database beside the run's folder.

    mlflow ui --backend-store-uri sqlite:///runs/mlflow.db

The experiment is $MLFLOW_EXPERIMENT_NAME, or else called as the run's folder without its time. What only a worker may
see, the users' parts of a model, is not sent.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fl_rec.evaluation.metrics import ALL
from fl_rec.trackers import Figures, Tracker

# What tells a run's folder from others of the same configuration.
_TIME = re.compile(r"-\d{8}-\d{6}-\d+(-\d+)?$")
# Of MLflow's run: the identity of the run whose it is.
_TAG = "fl_rec.run"
# Limits of one request, and of a parameter's text.
_METRICS, _PARAMETERS, _LETTERS = 1000, 100, 500


class MLflow(Tracker):
    """One run of MLflow for a run, whose id is in RUN/mlflow."""

    modules, extra = ("mlflow",), "mlflow"
    _id = ""

    @classmethod
    def needed(cls) -> Sequence[str]:
        return (*cls.modules, "sqlalchemy", "alembic") if "MLFLOW_TRACKING_URI" not in os.environ else cls.modules

    def begin(self, epochs: Mapping[int, Figures]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # or it complains where there is no git
        from mlflow import MlflowClient

        for name in ("mlflow.store.db.utils", "alembic"):  # how a database is made is no news on the job's terminal
            logging.getLogger(name).setLevel(logging.WARNING)
        folder = self.run.path.parent
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}"))
        logged = self._logged()
        if logged is None or logged > max(epochs, default=0):
            self._start(folder)
            logged = 0
        self._client.update_run(self._id, "RUNNING")
        for epoch, figures in epochs.items():
            if epoch > logged:
                self.log(epoch, figures)

    def log(self, epoch: int, figures: Figures) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            # It takes no @ in a name.
            Metric(("" if whose == ALL else f"{whose}/") + name.replace("@", "_at_"), value, now, epoch)
            for whose, values in figures.items()
            for name, value in values.items()
        ]
        for first in range(0, len(metrics), _METRICS):
            self._client.log_batch(self._id, metrics[first : first + _METRICS])

    def end(self, done: bool, model: Path | None) -> None:
        for path in sorted(model.rglob("*") if model else ()):
            inside = path.relative_to(model or path)
            if path.is_file() and inside.parts[0] != "private":
                self._client.log_artifact(self._id, str(path), str("model" / inside.parent))
        self._client.set_terminated(self._id, "FINISHED" if done else "FAILED")

    @property
    def _file(self) -> Path:
        return self.run.path / "mlflow"

    def _logged(self) -> int | None:
        """The last epoch that MLflow has of this run; 0 before the first, None if it does not know the run."""
        from mlflow.exceptions import MlflowException

        with suppress(OSError, MlflowException):
            found = self._client.get_run(self._file.read_text(encoding="utf-8").strip())
            if found.data.tags.get(_TAG) != self.run.identity:  # a run's folder may be somebody else's
                return None
            self._id = found.info.run_id
            return max((each.step for each in self._client.get_metric_history(self._id, "rows")), default=0)
        return None

    def _start(self, folder: Path) -> None:
        """A new run of MLflow, in place of the one that has epochs which the run has not; points can't be removed."""
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            self._client.delete_run(self._id)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _TIME.sub("", self.run.path.name))
        experiment: Any = self._client.get_experiment_by_name(name)
        number = (
            experiment.experiment_id if experiment else self._client.create_experiment(name, self._artifacts(folder))
        )
        self._id = self._client.create_run(number, None, {_TAG: self.run.identity}, self.run.path.name).info.run_id
        self._file.write_text(self._id, encoding="utf-8")
        parameters = [Param(key, str(value)[:_LETTERS]) for key, value in self.config.items()]
        for first in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._id, params=parameters[first : first + _PARAMETERS])
        self._client.log_artifact(self._id, str(self.run.config))

    def _artifacts(self, folder: Path) -> str | None:
        """Where a store of ours keeps files; a server knows itself."""
        return None if "MLFLOW_TRACKING_URI" in os.environ else (folder / "mlflow_artifacts").as_uri()
