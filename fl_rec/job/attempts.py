"""What comes before another attempt of a run's job. No Paddle is imported here."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fl_rec.config import Config, RunnerConfig, received
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.job.check import Job
from fl_rec.job.judge import Failure
from fl_rec.job.watch import GRACE_SECONDS, KILL_SECONDS, Mark
from fl_rec.runs import roles, training_state
from fl_rec.runs.directory import ENVIRONMENT_KEY, Launch, RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.renumber import renumber
from fl_rec.runs.result import DONE
from fl_rec.runs.training_state import TrainingState

if TYPE_CHECKING:
    from fl_rec.job.launch import LaunchOptions

# Restarts by runner.on_worker_loss, unless --max_restarts says how many.
_OF_A_WORKER = 3


def filled_in(options: LaunchOptions) -> LaunchOptions:
    """The options with what the run was started with, where they don't say it.

    Raises:
        ConfigError: they say something else that can't be changed.
        DataError: there is no such run.
    """
    run = RunDirectory(options.resume)  # type: ignore[arg-type]
    if not run.metrics.is_file():
        raise DataError(f"RUN must be a run's folder. Received: {run.path}, which has no metrics.jsonl.")
    begun = Launch.read(run)
    if options.worker_num not in (None, begun.workers):
        raise ConfigError(
            f"A run goes on with as many workers as it had, since each has its own users: {begun.workers}. Received: "
            f"--worker_num {options.worker_num}. Leave it out, or start a new run from a model: "
            "-o runner.warmup_model_path=RUN/model/EPOCH"
        )
    if begun.script and (options.script is None or str(options.script.resolve()) != begun.script):
        raise ConfigError(
            f"This run has a training script of your own, which is run only if you name it: --script {begun.script}"
        )
    if begun.hosts is None and options.workers is not None:
        raise ConfigError(
            f"A run of one host goes on on one. Received: --workers {options.workers}. Leave it out, or start "
            "a new run from a model: -o runner.warmup_model_path=RUN/model/EPOCH"
        )
    if begun.hosts is not None:
        options = _with_addresses(options, begun.hosts)
    return dataclasses.replace(
        options,
        worker_num=begun.workers,
        server_num=options.server_num or (0 if begun.hosts else begun.servers),
        coordinator_num=begun.coordinators,
    )


def _with_addresses(options: LaunchOptions, hosts: Hosts) -> LaunchOptions:
    """Those that the run had, where none are given."""
    names = ("servers", "workers", "coordinators")
    had = {name: ",".join(getattr(hosts, name)) or None for name in names}
    given = {name: getattr(options, name) or had[name] for name in names}
    moved = given["workers"] != had["workers"]
    host = options.host or (None if moved else hosts.here)
    return dataclasses.replace(
        options, servers=given["servers"], workers=given["workers"], coordinators=given["coordinators"], host=host
    )


def configuration(options: LaunchOptions) -> Config:
    """The configuration of a job. ConfigError: see `Config.load`, and `received.load` for a run's own."""
    if options.resume is not None and options.config_yaml == RunDirectory(options.resume).config:
        return received.load(options.config_yaml, options.overrides)
    return Config.load(options.config_yaml, options.overrides)


def take_up(run: RunDirectory, job: Job) -> int | None:
    """Has a run's folder be as it was at the last checkpoint, when no process of it is left.

    Returns:
        the checkpoint's epoch; None if there is none, and the run begins anew.

    Raises:
        ConfigError: it has come to its end, or has none and did.
        DataError: the job's data is another than the run's, or a link leads out of the run's folder.
        RunError: its job still goes on, or its folder can't be written.
    """
    run.require_no_way_out()
    _require_end(run)
    with _writable(run):
        renumber(run, job.config.runner.model_save_path or run.model)
    state = training_state.newest(run)
    if state is None:
        if _ended_well(run):
            raise ConfigError(
                f"A run that has come to its end goes on from its last checkpoint. Received: {run.path}, which has none"
                " that is whole. Start a new run from its model: -o runner.warmup_model_path=RUN/model/EPOCH"
            )
    else:
        _require_same_data(state, job)
        epochs = job.config.runner.epochs
        if state.epoch >= epochs and _ended_well(run):
            raise ConfigError(
                f"A run goes on to runner.epochs={epochs}, and this one has been there. Received: {run.path}. Set "
                f"more: -o runner.epochs={2 * epochs}"
            )
    return go_back(run)


def go_back(run: RunDirectory) -> int | None:
    """As `take_up`, of a job whose processes have ended."""
    return _go_back(run, training_state.newest(run))


def go_back_to(run: RunDirectory, epoch: int | None) -> None:
    """As `go_back`, to an older checkpoint, which all hosts have, or to the beginning. DataError: it is not whole."""
    _go_back(run, None if epoch is None else TrainingState.read(run, epoch))


def _go_back(run: RunDirectory, state: TrainingState | None) -> int | None:
    with _writable(run):
        training_state.go_back(run, state)
    return None if state is None else state.epoch


@contextmanager
def _writable(run: RunDirectory) -> Iterator[None]:
    """RunError in place of OSError."""
    try:
        yield
    except OSError as err:
        raise RunError(
            f"A run that goes on must be writable. Received: {run.path} ({err.strerror}). Free some space, or mend its "
            "permissions."
        ) from err


class Restarts:
    """How often a job that lost a process goes on by itself, and how it begins then.

    Args:
        runner: `on_worker_loss` is read.
        most: `--max_restarts`, for whatever is lost; 0 with an `on_worker_loss` that goes on: `_OF_A_WORKER`, for that.
    """

    def __init__(self, runner: RunnerConfig, most: int) -> None:
        self._on_worker_loss, self._most = runner.on_worker_loss, most
        self._done = 0
        # By worker, the epoch with which it comes back.
        self._away: dict[int, float] = {}

    def are_left(self, failure: Failure) -> bool:
        """Whether the job goes on after a failure; what a role has told itself would only come again."""
        by_loss = self._on_worker_loss != "stop" and failure.role.startswith("worker")
        return failure.kind != "failed" and self._done < (self._most or _OF_A_WORKER * by_loss)

    def count(self, failure: Failure, epoch: int | None) -> str:
        """Counts one more; a worker that was lost sits the epoch out, or all that are left if it is the second time.

        Args:
            epoch: of the checkpoint; None: there is none yet.

        Returns:
            what is done, to show.
        """
        self._done += 1
        which = f"{self._done} of {self._most or _OF_A_WORKER}"
        kind, _, number = failure.role.partition(".")
        if self._on_worker_loss != "continue" or kind != "worker":
            return which
        worker, again = int(number), int(number) in self._away
        self._away[worker] = math.inf if again else 2 + (epoch or 0)
        return f"{which}, without {failure.role} {'from now on: it was lost before' if again else 'in this epoch'}"

    @property
    def away(self) -> str:
        """The workers that were lost, and the epoch with which each comes back; see `AWAY_KEY`."""
        return ",".join(f"{worker}:{until}" for worker, until in sorted(self._away.items()))


def said(epochs: int) -> str:
    """Where a run goes on that has so many epochs."""
    return f"after epoch {epochs}" if epochs else "from the beginning: there is no checkpoint yet"


def _ended_well(run: RunDirectory) -> bool:
    return run.result.is_file() and run.read_result().state == DONE


def _require_same_data(state: TrainingState, job: Job) -> None:
    data = state.content["identity"].get("data")
    if data != job.checksum:
        had, has = (f"a manifest.json of checksum {each[:12]}" if each else "none" for each in (data, job.checksum))
        raise DataError(
            f"A run goes on with the data that it had: {had}. Received: {has} for {job.config.runner.train_data_dir}. "
            "Name the same data, or start a new run from a model: -o runner.warmup_model_path=RUN/model/EPOCH"
        )


def _require_end(run: RunDirectory) -> None:
    """Ends what a killed launcher has left; a job under a bare fleetrun has nobody but itself to end it."""
    Mark(ENVIRONMENT_KEY, str(run.path)).end()
    deadline = time.monotonic() + GRACE_SECONDS + KILL_SECONDS
    while alive := [each for each in roles.read_statuses(run.roles).values() if each.process() is not None]:
        if time.monotonic() > deadline:
            raise RunError(
                f"A run goes on when its job has ended. Received: {run.path}, whose {alive[0].role} lives (process "
                f"{alive[0].pid}). Wait for its end, or end it."
            )
        time.sleep(0.2)
