"""Finding saved models, and what their model.json says. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rec import environment
from fl_rec.config import Config
from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.files import read_json
from fl_rec.runs import private_parts, roles
from fl_rec.runs.directory import RunDirectory

PREFIX = "rec_static"


SIGNATURE = "model.json"


EXPORTED = "exported"


@dataclass(frozen=True)
class SavedModel:
    """A folder with a model: of an epoch, or exported.

    Attributes:
        folder: the model's.
        signature: what its model.json says; empty without one.
        run: the run that it lies in; None if it lies elsewhere.
    """

    folder: Path
    signature: Mapping[str, Any]
    run: RunDirectory | None

    @classmethod
    def open(cls, path: Path) -> SavedModel:
        """The model in a folder, or the best epoch's of a run's folder.

        Raises:
            DataError: there is none, the run has not ended well, or what should tell of it can't be read.
        """
        inside = [each for each in (path, *list(path.resolve().parents)[:2]) if RunDirectory(each).metrics.is_file()]
        run = RunDirectory(inside[0]) if inside else None
        folder = _model_of(run) if run and run.path == path else path
        if not (folder / f"{PREFIX}.pdmodel").is_file():
            raise DataError(
                "A saved model is a run's folder that has a result.json, a folder RUN/model/EPOCH, or an exported "
                f"folder. Received: {path}, which {'has no model' if path.is_dir() else 'is no folder'}."
            )
        return cls(folder, read_json(folder / SIGNATURE) if (folder / SIGNATURE).is_file() else {}, run)

    @property
    def exported(self) -> bool:
        """Whether `fl-rec export` has written it: it then has names of users and items, and nothing private apart."""
        return "ids" in self.signature

    @property
    def epoch(self) -> int | None:
        return self.signature.get("epoch")

    @property
    def client(self) -> int | None:
        """The only client that it serves; None for all."""
        client = self.signature.get("client")
        return client if isinstance(client, int) else None

    def config(self, overrides: Sequence[str] = ()) -> Config:
        """The configuration that it was trained with.

        Raises:
            DataError: its model.json has none.
            ConfigError: see `Config.load`.
        """
        if "config" not in self.signature:
            raise DataError(
                f"A saved model tells its configuration in {SIGNATURE}. Received: {self.folder}, without one. Name it: "
                "-m FILE"
            )
        return Config.from_tree(self.signature["config"], self.folder / SIGNATURE, overrides)

    @property
    def clients(self) -> list[int]:
        """Whose private parts are apart from it."""
        return private_parts.clients(self.folder)

    def metrics(self, client: int | None = None) -> Mapping[str, Any]:
        """The figures of its epoch, of one client or of all together; none if it lies outside of its run."""
        if self.run is None:
            return {}
        whose = (ALL if client is None else client, self.epoch)
        return next((each for each in self.run.read_metrics() if (each["client"], each["epoch"]) == whose), {})


def newest_run() -> Path:
    """The newest run that has ended well, in `runs` here or of the clone around. DataError if there is none."""
    results = sorted(_in_runs("*/result.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in results:
        if read_json(path).get("state") == roles.DONE:
            return path.parent
    raise DataError(
        f"Without a name the newest run is taken that has ended well. Received: none in {_runs()}. Train a model with "
        "fl-rec run, or name a run's folder."
    )


def newest_export() -> Path:
    """The newest exported model of the runs that `newest_run` looks through. DataError if there is none."""
    found = _in_runs(f"*/{EXPORTED}/{SIGNATURE}")
    if not found:
        raise DataError(
            f"Without --model the newest exported model is taken. Received: none in {_runs()}. Make one with "
            "fl-rec export, or name its folder: --model FOLDER"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _in_runs(pattern: str) -> list[Path]:
    return [path for folder in _run_folders() for path in folder.glob(pattern)]


def _run_folders() -> list[Path]:
    # Relative where that will do: these paths are shown.
    here, clone = Path("runs"), environment.CLONE
    return [here, clone / "runs"] if clone and clone in Path.cwd().parents else [here]


def _runs() -> str:
    return " and ".join(str(folder.resolve()) for folder in _run_folders())


def _model_of(run: RunDirectory) -> Path:
    result = read_json(run.result) if run.result.is_file() else {"state": "not ended"}
    if result.get("state") != roles.DONE or "model" not in result:
        raise DataError(
            f"A run's model is there when the run has ended well. Received: {run.path}, of state "
            f"{result.get('state')}. Name one of the epochs that it saved: {run.model}/EPOCH"
        )
    model = Path(result["model"])
    moved = run.model / model.name  # with its run
    return moved if moved.is_dir() else model
