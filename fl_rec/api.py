"""fl_rec from a program or a notebook: `train`, `prepare` and `Run`. No Paddle is imported here.

A job is processes of its own, as under `fl-rec run`: what the caller does with Paddle, threads or an event loop is its
own affair.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fl_rec.config import Config
from fl_rec.config.written import to_override
from fl_rec.data import prepare as prepare_command
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.evaluation.records import EpochRecord, records_of
from fl_rec.job.launch import LaunchOptions, launch
from fl_rec.job.observers import Observer, OnEpoch
from fl_rec.job.signals import Stopped
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult
from fl_rec.runs.saved import EXPORTED, SIGNATURE, SavedModel
from fl_rec.serving.export import export
from fl_rec.serving.recommend import Recommender
from fl_rec.terminal.plain import Plain

if TYPE_CHECKING:
    import pandas


def train(
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    workers: int | None = None,
    servers: int | None = None,
    coordinator: bool = False,
    script: str | Path | None = None,
    resume: str | Path | Run | None = None,
    max_restarts: int = 0,
    on_epoch: Callable[[EpochRecord], object] | None = None,
    verbose: bool = True,
) -> Run:
    """Runs a job from start to end, as `fl-rec run` does.

    Args:
        config: the YAML file; None with `resume`, for the configuration of the run.
        overrides: values by their dotted keys, such as {"runner.epochs": 3}; relative paths start at the YAML's folder.
        workers: how many; None for as many as there are shards.
        servers: how many parameter servers; None for 1, or with `resume` for as many as there were.
        coordinator: whether there is one; a run that is resumed has one if it had one.
        script: the training script; None for the one that fits.
        resume: a run, or its folder, to go on with after its last checkpoint; None for a new one.
        max_restarts: how often the job goes on by itself, after the last checkpoint, when a process of it was lost.
        on_epoch: called in this thread after each epoch with the record of all clients together, which has each
            client's in its `clients`. An exception that it raises ends the job, and is raised here.
        verbose: whether to print what is trained on what, a line after each epoch, and how good it is in the end.

    Returns:
        the run, which has ended well.

    Raises:
        ConfigError, DataError, RunError: something is wrong that shows before any process is started.
        JobFailed: the job failed; it has the role, its log, and the run's folder, for `Run`.
        KeyboardInterrupt: by Ctrl-C or another signal, after all processes of the job have ended. Python tells only
            the main thread of it: in another one the job goes on.
    """
    run = None if resume is None else Path(resume.path if isinstance(resume, Run) else resume).absolute()
    if config is None:
        if run is None:
            raise ConfigError("fl_rec.train needs a configuration, or a run to go on with. Received: neither.")
        config = RunDirectory(run).config
    options = LaunchOptions(
        config_yaml=Path(config),
        overrides=tuple(to_override(name, value) for name, value in (overrides or {}).items()),
        worker_num=workers,
        server_num=servers or (1 if run is None else 0),
        coordinator_num=int(coordinator),
        script=None if script is None else Path(script),
        resume=run,
        max_restarts=max_restarts,
    )
    observers: list[Observer] = [Plain(sys.stdout)] if verbose else []
    observers += [OnEpoch(on_epoch)] if on_epoch else []
    try:
        return Run(launch(options, observers).path)
    except Stopped as err:
        if err.number != signal.SIGINT:
            signal.raise_signal(err.number)  # now it means what the caller has it mean
        raise


def prepare(source: str | Path, out: str | Path, **options: Any) -> Path:
    """Makes training and test rows from a data set, as `fl-rec prepare` does, whose options these are.

    Progress is logged, at level INFO, and shown if the caller has logging configured so.

    Args:
        source: a file, a folder, or what else `--source` takes.
        out: the folder to write.
        options: the command's other options by their names: `fl-rec prepare --help` lists them. A mapping is for
            NAME=VALUE,...; None and False are for what isn't given.

    Returns:
        the folder.

    Raises:
        ConfigError: there is no such option, or its value is refused.
        DataError: the data will not do.
    """
    parser = _Parser(prog="fl_rec.prepare")
    prepare_command.add_arguments(parser)
    arguments = []
    for name, value in {"source": source, "out": out, **options}.items():
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={each}" for key, each in value.items())
        if value is not None and value is not False:
            arguments.append(f"--{name}" if value is True else f"--{name}={value}")
    prepare_command.play(parser.parse_args(arguments))
    return Path(out)


class _Parser(argparse.ArgumentParser):
    """Options that are not to be shortened, and whose mistakes are errors of the program that gave them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog, allow_abbrev=False, add_help=False)

    def error(self, message: str) -> NoReturn:
        names = ", ".join(each.dest for each in self._actions)
        raise ConfigError(f"{self.prog}: {message}. It takes {names}.")


class Run:
    """A run's folder: what has been trained, and how well.

    Args:
        path: the folder, which may be of a job that still trains, or that failed.

    Raises:
        DataError: it is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._directory = RunDirectory(self.path)
        if not self._directory.metrics.is_file():
            raise DataError(
                f"A run's folder has a {self._directory.metrics.name}. Received: {self.path}, which "
                f"{'has none' if self.path.is_dir() else 'is no folder'}. Name one of the folders in runs/."
            )

    def __repr__(self) -> str:
        return f"fl_rec.Run({str(self.path)!r})"

    @property
    def result(self) -> RunResult:
        """The end of the job, as result.json has it: its figures, or who failed and why. RunError before the end."""
        if not self._directory.result.is_file():
            raise RunError(f"A run has a result when it has ended. Received: {self.path}, which has none yet.")
        return self._directory.read_result()

    @property
    def metrics(self) -> list[EpochRecord]:
        """The figures of each epoch so far, each client's and, after them, those of all together."""
        return records_of(self._directory.read_metrics())

    def frame(self) -> pandas.DataFrame:
        """`metrics` as a table, without columns that have no figure. RunError without pandas."""
        try:
            import pandas
        except ImportError as err:
            raise RunError(
                f"Run.frame needs pandas. Received: {err}. Install it (pip install pandas), or use Run.metrics."
            ) from err
        rows = [each.figures() for each in self.metrics]
        names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(map(_has(name), rows))]
        return pandas.DataFrame([{name: row.get(name) for name in names} for row in rows], columns=names)

    @cached_property
    def config(self) -> Config:
        """The configuration that it was trained with, every size filled in."""
        return Config.load(self._directory.config)

    def model(self, epoch: int | None = None) -> Path:
        """The folder of a saved model.

        Args:
            epoch: from 1; None for the best one.

        Raises:
            DataError: there is none. Only the best one stays if there is validation data.
        """
        if epoch is None:
            return SavedModel.open(self.path).folder
        return SavedModel.of_epoch(self.config.runner.model_save_path or self._directory.model, epoch).folder

    def export(
        self,
        out: str | Path | None = None,
        *,
        epoch: int | None = None,
        client: int | None = None,
        data: str | Path | None = None,
    ) -> Path:
        """Writes a model as a folder that needs nothing else, as `fl-rec export` does.

        Args:
            out: the folder; None for `exported` in the run's.
            epoch: as for `model`.
            client: whose users it is for; None for all.
            data: the folder of the shards; None for that of the configuration.

        Returns:
            the folder.

        Raises:
            DataError: the model, its data or the client will not do.
            RunError: the folder can't be written, or holds something else.
        """
        saved = SavedModel.open(self.path if epoch is None else self.model(epoch))
        out = self.path / EXPORTED if out is None else Path(out)
        return export(saved, out, client, None if data is None else Path(data))

    def recommender(self) -> Recommender:
        """The best model for all users, opened. It is exported before, unless it has been. Errors as of `export`."""
        best, exported = SavedModel.open(self.path), self.path / EXPORTED
        if (exported / SIGNATURE).is_file():
            there = SavedModel.open(exported)
            if there.exported and (there.epoch, there.client) == (best.epoch, None):
                return Recommender(exported)
        return Recommender(self.export())


def _has(name: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a row has a figure of that name."""

    def has(row: Mapping[str, Any]) -> bool:
        value = row.get(name)
        return value is not None and not (isinstance(value, float) and math.isnan(value))

    return has
