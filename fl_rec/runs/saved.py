"""Finding saved models, and what their model.json says. No Paddle is imported here."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fl_rec.config import Config, received
from fl_rec.config.written import read
from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.files import read_json, recover, verify
from fl_rec.outside import Count, Inside, as_typed
from fl_rec.runs import private_parts
from fl_rec.runs.directory import RUNS, RunDirectory
from fl_rec.runs.listing import named
from fl_rec.runs.renumber import from_one
from fl_rec.runs.result import DONE

log = logging.getLogger(__name__)

PREFIX = "rec_static"


SIGNATURE = "model.json"


EXPORTED = "exported"


DATA_DIRS = ("train_data_dir", "test_data_dir")


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
        """The model in a folder, or the best epoch's of a run's folder or of a project's newest run.

        Raises:
            DataError: there is none, the run has not ended well, or what should tell of it can't be read.
        """
        path = newest_run(path) if is_project(path) else named(path)
        inside = [each for each in (path, *list(path.resolve().parents)[:2]) if RunDirectory(each).metrics.is_file()]
        run = RunDirectory(inside[0]) if inside else None
        folder = _model_of(run) if run and run.path == path else path
        there = False
        with suppress(OSError, ValueError):  # a name that no file system takes
            recover(folder)
            there = (folder / f"{PREFIX}.pdmodel").is_file()
        if not there:
            raise DataError(
                "A saved model is a run's folder that has a result.json, a folder RUN/model/EPOCH, or an exported "
                f"folder; a project's is its newest run's. Received: {path}, which "
                f"{'has no model' if path.is_dir() else 'is no folder'}."
                f"{' The first epoch has number 1.' if path.name == '0' else ''}"
            )
        return cls(folder, _signature(folder), run)

    @classmethod
    def of_epoch(cls, folder: Path, epoch: int) -> SavedModel:
        """The model of an epoch, from 1, in a run's folder of models; of an earlier version's the first is named 0.

        Raises:
            DataError: see `open`.
        """
        for path in (folder / str(epoch), folder / str(epoch - 1)):
            if (path / SIGNATURE).is_file() and _signature(path).get("epoch") == epoch:
                return cls.open(path)
        return cls.open(folder / str(epoch))

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

        Folders are those of its run, if it lies in one. Code and commands are the user's own only; see
        `fl_rec.config.received`.

        Raises:
            DataError: its model.json has none.
            ConfigError: it has a pipe_command, and `overrides` have none; or see `Config.load`.
        """
        if not isinstance(self.signature.get("config"), dict):
            raise DataError(
                f"A saved model tells its configuration in {SIGNATURE}. Received: {self.folder}, without one. Name it: "
                "-m FILE"
            )
        folders = {name: str(path) for name, path in self.data_dirs.items()}
        runner = {"train_data_dir": ".", **_section(self.signature["config"], "runner"), **folders}
        tree = {**self.signature["config"], "runner": runner}
        # The net is in the model itself.
        return received.from_tree(tree, self.folder / SIGNATURE, overrides, ["runner.pipe_command"])

    @property
    def data_dirs(self) -> dict[str, Path]:
        """The folders of the data that it was trained with, `train_data_dir` and `test_data_dir`; without those that
        nothing tells: its run, if it lies in one, and how they lie from it."""
        ran = read(self.run.config)[0] if self.run is not None and self.run.config.is_file() else {}
        told = {
            name: self.folder / path for name, path in _section(self.signature, "data").items() if isinstance(path, str)
        }
        # Of earlier versions.
        old = _section(self.signature.get("config"), "runner")
        found: dict[str, Path] = {}
        for name in DATA_DIRS:
            for path in (_section(ran, "runner").get(name), told.get(name), old.get(name)):
                if isinstance(path, str | Path) and "\0" not in str(path):
                    found.setdefault(name, Path(path).resolve())
        return found

    @property
    def clients(self) -> list[int]:
        """Whose private parts are apart from it."""
        return private_parts.clients(self.folder)

    @property
    def elsewhere(self) -> list[int]:
        """The clients of other hosts, whose private parts and shards are there."""
        return list(self.signature.get("elsewhere", ()))

    def metrics(self, client: int | None = None) -> Mapping[str, Any]:
        """The figures of its epoch, of one client or of all together; none if it lies outside of its run."""
        if self.run is None:
            return {}
        whose = (ALL if client is None else client, self.epoch)
        return next((each for each in self.run.read_metrics() if (each["client"], each["epoch"]) == whose), {})


@dataclass(frozen=True)
class _Exported:
    """What an exported model serves; see `fl_rec.serving.export`."""

    users: Count = 0
    items: Count = 0
    sha256: Mapping[Inside, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Signature:
    """What may stand in a model.json, and is read from it."""

    epoch: Count | None = None
    client: Count | Literal["all"] | None = None
    feeds: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    public_users: tuple[Count, ...] = ()
    mappings: Mapping[Inside, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    ids: _Exported | None = None
    elsewhere: tuple[Count, ...] = ()


def _signature(folder: Path) -> dict[str, Any]:
    """A model's model.json; empty without one. DataError if it is another's."""
    path = folder / SIGNATURE
    content = from_one(read_json(path)) if path.is_file() else {}
    as_typed(_Signature, content, f"A {SIGNATURE} tells of a saved model.", path, _REMEDY)
    return content


def read_signature(folder: Path, client: int | None = None) -> dict[str, Any]:
    """What a model's model.json says, when its files were found to be those that were written with it.

    A model that an earlier version or something else wrote has no checksums; it is read, with a note.

    Args:
        client: the worker whose private part is looked at; None for those of all.

    Raises:
        DataError: a file is missing or was changed, or a private part is none of the model's.
    """
    parts = private_parts.clients(folder) if client is None else [client]
    content = _signature(folder)
    if "identity" not in content:
        if not content and (folder / "private").is_dir():
            raise DataError(
                f"A model with private parts has a {SIGNATURE}, which tells what is private. Received: {folder}, which "
                f"has none. {_REMEDY}"
            )
        log.warning("note: %s has no checksums, so nobody can say whether it is as it was written", folder)
        return content

    own = (str(client), f"{client}.npz")

    def wanted(name: str) -> bool:
        where, *below = Path(name).parts
        return where != "tables" and (where != "private" or client is None or below[0] in own)

    rule = "A saved model is used as it was written, all of its files from one epoch."
    content = from_one(verify(folder, SIGNATURE, rule, _REMEDY, wanted))
    for part in parts if content.get("private") else ():
        if (path := f"private/{part}.npz") not in content["files"]:
            raise DataError(f"{rule} Received: {folder / path}, which is none of them by {SIGNATURE}. {_REMEDY}")
    return content


_REMEDY = "Copy the whole folder again from where it was trained, or train it again."


def is_project(path: Path) -> bool:
    """Whether a folder has runs, and is none."""
    return (path / RUNS).is_dir() and not RunDirectory(path).metrics.is_file()


def newest_run(project: Path = Path()) -> Path:
    """The newest run of a project that has ended well.

    Args:
        project: the folder in which `runs` lies; the current one unless named.

    Raises:
        DataError: there is none.
    """
    for path in _ended_well(project):
        return path.parent
    raise DataError(
        "Unless a model is named, the newest run is taken that has ended well. Received: none in "
        f"{(project / RUNS).resolve()}. Train a model with fl-rec run, go to your project's folder, or name it, or a "
        "run's folder."
    )


def newest_export(project: Path = Path()) -> Path | None:
    """The newest exported model of a project's runs; None if there is none, or a run has ended well since."""
    exported = next(iter(_newest_first(project, f"*/{EXPORTED}/{SIGNATURE}")), None)
    ended = next(_ended_well(project), None)
    if exported is None or (ended and ended.stat().st_mtime > exported.stat().st_mtime):
        return None
    return exported.parent


def _section(tree: Any, name: str) -> Mapping[str, Any]:
    found = tree.get(name) if isinstance(tree, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _ended_well(project: Path) -> Iterator[Path]:
    """The results of runs that ended well, the newest first."""
    return (path for path in _newest_first(project, "*/result.json") if _state(path) == DONE)


def _state(path: Path) -> Any:
    """A result's; None, which is told, if it can't be read: another run may do."""
    try:
        return RunDirectory(path.parent).read_result().state
    except DataError as err:
        log.warning("note: %s", err)
        return None


def _newest_first(project: Path, pattern: str) -> list[Path]:
    return sorted((project / RUNS).glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)


def _model_of(run: RunDirectory) -> Path:
    result = run.read_result() if run.result.is_file() else None
    if result is None or result.state != DONE or result.model is None:
        raise DataError(
            f"A run's model is there when the run has ended well. Received: {run.path}, of state "
            f"{result.state if result else 'not ended'}. Name one of the epochs that it saved: {run.model}/EPOCH"
        )
    return run.path / result.model
