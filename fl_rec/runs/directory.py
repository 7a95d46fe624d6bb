"""The run directory: where a job writes its configuration, logs, metrics, result and model. A project is a folder with
a configuration; its runs are in `runs` beside it.

runs/NAME/job              whose it is, and what tells the run from all others
runs/NAME/config.yaml      the resolved configuration
runs/NAME/log/             each role's log
runs/NAME/roles/           each role's status, from which the launcher judges the job
runs/NAME/metrics.jsonl    one line per worker and epoch, and one for all together
runs/NAME/rounds.jsonl     with a coordinator: one line per round, every report and every decision
runs/NAME/coordinator/     its address; tokens/K, by which client K shows who it is; arrays/, the large arrays of
                           rounds.jsonl; what a strategy keeps
runs/NAME/audit.jsonl      who joined, was refused, was excluded or has finished, and why
runs/NAME/privacy/K.json   with differential privacy: what worker K has spent of it, before it is spent
runs/NAME/tables.txt       the same for people, one table per epoch
runs/NAME/model/EPOCH/     the model as it was evaluated
runs/NAME/checkpoint/      what a run is resumed from, an epoch each
runs/NAME/launch.json      with what the job was started, besides its configuration
runs/NAME/result.json      the end of the job: its figures, or who failed and why
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fl_rec.errors import DataError, RunError
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import read_lines
from fl_rec.files import append_line, read_json, write_json
from fl_rec.outside import Count, as_typed
from fl_rec.packed import open_regular
from fl_rec.runs import roles
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.result import NAME, Began, RunResult, State, result_of

RUNS = "runs"
# What every process of a job finds in its environment: the run, and the launcher's process number.
ENVIRONMENT_KEY, LAUNCHER_KEY = "FL_REC_RUN_DIR", "FL_REC_LAUNCHER"
# How much its roles log: debug, info, warning or error.
LOG_LEVEL_KEY = "FL_REC_LOG_LEVEL"
# And the epoch from whose checkpoint it goes on, if it is resumed.
RESUME_KEY = "FL_REC_RESUME"
# Workers that were lost, and the epoch with which each comes back: "3:7,5:4".
AWAY_KEY = "FL_REC_AWAY"
# By what the processes of a job know each other: the same for all of them, on whatever host, and nobody else's.
JOB_KEY = "FL_REC_JOB"
# What is in a run's folder, and is the folder itself, before anything of a job has begun, in the order in which it is
# taken away again. The audit stays: who was refused must be found.
_BEFORE = (
    *("config.yaml", "launch.json", NAME, "rounds.jsonl", "tables.txt", "metrics.jsonl"),
    *("coordinator", "roles", "log", "job", "."),
)


@dataclass(frozen=True)
class Launch:
    """With what a job was started, besides its configuration.

    Attributes:
        workers, servers, coordinators: how many of each.
        script: the training script; "" for the one that fits `coordinators`.
        began: what else is known at the beginning; None of an earlier version's.
        hosts: where the roles are; None if all are on one host.
    """

    workers: Count
    servers: Count
    coordinators: Count
    script: str = ""
    began: Began | None = None
    hosts: Hosts | None = None

    def write(self, run: RunDirectory) -> None:
        write_json(run.launch, asdict(self))

    @classmethod
    def read(cls, run: RunDirectory) -> Launch:
        """DataError if there is none that can be read."""
        rule = "A run that is resumed tells with what it was started."
        return as_typed(cls, read_json(run.launch, rule, "Start a new run."), rule, run.launch, "Start a new run.")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run, and the few ways in which they are written."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def roles(self) -> Path:
        return self.path / "roles"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    @property
    def coordinator(self) -> Path:
        """What a client needs to reach the coordinator, and what a strategy keeps."""
        return self.path / "coordinator"

    @property
    def audit(self) -> Path:
        return self.path / "audit.jsonl"

    @property
    def tables(self) -> Path:
        return self.path / "tables.txt"

    @property
    def result(self) -> Path:
        return self.path / NAME

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def identity(self) -> str:
        """What tells this run from all others, also in a copy: 128 bits in hex; "" of an earlier version's."""
        lines = (self.path / "job").read_text(encoding="utf-8").splitlines()
        return lines[1] if len(lines) > 1 else ""

    def job(self, env: Mapping[str, str] = os.environ) -> str:
        """By what a role of this run and the job's other roles know each other: 128 bits in hex.

        Of `JOB_KEY` or, under a bare fleetrun, of this folder, which all of one host share, or of the addresses that
        all of several hosts were given. Who knows those can pass for one of them.
        """
        addresses = [env.get(name, "") for name in ("PADDLE_PSERVERS_IP_PORT_LIST", "PADDLE_TRAINER_ENDPOINTS")]
        hosts = {each.rpartition(":")[0] for each in ",".join(addresses).split(",")}
        known = env.get(JOB_KEY) or (self.identity if len(hosts) == 1 else " ".join(addresses))
        return hashlib.sha256(known.encode()).hexdigest()[:32]

    @property
    def checkpoint(self) -> Path:
        """What the run is resumed from; see `fl_rec.runs.training_state`."""
        return self.path / "checkpoint"

    @property
    def launch(self) -> Path:
        return self.path / "launch.json"

    @property
    def records(self) -> tuple[Path, ...]:
        """What only ever grows while a job goes on."""
        return self.metrics, self.rounds, self.tables

    @classmethod
    def claim(cls, path: Path, owner: str) -> tuple[RunDirectory, bool]:
        """Makes a run directory, or joins the one that another role of the same job has just made.

        Args:
            owner: the job, the same text in each of its roles.

        Returns:
            the directory, and whether this call made it.

        Raises:
            RunError: if it holds another run (nothing is ever overwritten), or can't be written.
        """
        run = cls(path)
        marker = path / "job"
        there = " ".join(name for name in _BEFORE if (path / name).exists())
        if run.config.exists() and not marker.exists():
            raise RunError(
                f"A run directory is new, and this one holds files of another kind. Received: {path}, with a "
                "config.yaml. Name another: -o runner.run_dir=PATH"
            )
        try:
            for folder in (run.path, run.log, run.roles):
                folder.mkdir(0o700, parents=True, exist_ok=True)
            # A name that is linked into place can't be seen half written by the other roles.
            draft = path / f"job.{os.getpid()}"
            draft.write_text(f"{owner}\n{secrets.token_hex(16)}\n{there}\n", encoding="utf-8")
            made = False
            try:
                os.link(draft, marker)
                made = True
                run.metrics.touch()
                run.tables.touch()
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            holder = marker.read_text(encoding="utf-8").partition("\n")[0]
        except OSError as err:
            raise RunError(
                f"The run directory must be writable. Received: {path} ({err.strerror}). "
                "Free some space, mend its permissions, or name another: -o runner.run_dir=PATH"
            ) from err
        if holder != owner:
            raise RunError(
                f"A run directory holds one run, and this one has had its own. Received: runner.run_dir={path}. "
                "Name another, leave the key out, or move the old run away."
            )
        return run, made

    def adopt(self, identity: str) -> None:
        """Has this be a part of another host's run. OSError."""
        lines = (self.path / "job").read_text(encoding="utf-8").splitlines()
        with open(self.path / "job", "r+", encoding="utf-8") as file:  # in its place, since it may be `held`
            file.write("\n".join([lines[0], identity, *lines[2:], ""]))
            file.truncate()

    def give_back(self) -> bool:
        """Undoes `claim` for a job that came to nothing, so that the next one can have the folder: takes away what was
        written since, and nothing that was there before, or has come from elsewhere.

        Returns:
            whether it did: not where an epoch has begun.
        """
        if self.metrics.stat().st_size or self.checkpoint.exists() or (self.path / "privacy").exists():
            return False
        there = (self.path / "job").read_text(encoding="utf-8").splitlines()[2].split()
        for name in _BEFORE:
            path = self.path / name
            with suppress(OSError):  # the folder may have something else in it
                if name in there:
                    continue
                if path == self.path:
                    path.rmdir()
                elif path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return True

    def require_no_way_out(self) -> None:
        """DataError if a link leads out of it: the run may be somebody else's, and what is written, moved and removed
        in it would be the user's own."""
        home = os.path.realpath(self.path)
        for folder, folders, names in os.walk(home):
            for path in (os.path.join(folder, name) for name in (*folders, *names)):
                if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(home):
                    raise DataError(
                        "A run that goes on has all of its files in its folder: it writes, moves and removes them. "
                        f"Received: {path}, a link to {os.readlink(path)!r}. If you trust the run, put what is meant "
                        "in the link's place; else remove the link."
                    )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other launchers from the run. RunError if one has it; OSError if it can't be read."""
        with open_regular(self.path / "job") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise RunError(
                    f"A run has one job at a time. Received: {self.path}, whose job goes on. Wait for its end, or "
                    "start a run of its own."
                ) from err
            yield

    def set_aside(self) -> None:
        """Has the next attempt find no logs, statuses and result of the last one, which go to log/before-N. OSError."""
        number = 1
        while (kept := self.log / f"before-{number}").exists():
            number += 1
        kept.mkdir(parents=True)
        for path in (*self.log.iterdir(), self.result, self.roles):
            if path.exists() and not path.name.startswith("before-"):
                path.rename(kept / path.name)
        self.roles.mkdir()

    def append_metrics(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds one line per record. Many processes may do so at once: each line is one appending write. OSError."""
        for record in records:
            append_line(self.metrics, json.dumps(record))

    def append_table(self, table: str) -> None:
        with open(self.tables, "a", encoding="utf-8") as file:
            file.write(table + "\n\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All records, `in_order`. DataError, with the line, if one is none."""
        return in_order(read_lines(self.metrics))

    def read_totals(self) -> list[dict[str, Any]]:
        """The records of all clients together, by epoch."""
        return [record for record in self.read_metrics() if record["client"] == ALL]

    def read_result(self) -> RunResult:
        """How the job ended. DataError if it can't be read, or does not tell."""
        return RunResult.read(self.path)

    def write_result(self, result: RunResult) -> None:
        write_json(self.result, result.to_json())

    def end(self, state: State, best: int | None = None, **more: Any) -> None:
        """Writes the result of a job that ends now, with the figures of the epochs that it had. OSError.

        Args:
            best: the epoch that the validation shards chose.
            more: further fields of `RunResult`.
        """
        launch, began, totals = None, None, []
        # What can't be read must not hide why the job ended.
        with suppress(DataError):
            launch = Launch.read(self)
        with suppress(DataError):
            totals = self.read_totals()
        if launch is not None:
            began = launch.began
            begun = {name: getattr(launch, name) for name in ("workers", "servers", "coordinators")}
            more = {**begun, "start_seconds": self._start_seconds(launch), **more}
        self.write_result(result_of(state, self.path, began, totals, best, **more))

    def _start_seconds(self, launch: Launch) -> float | None:
        """From the command until the last worker could train; None if one never could."""
        with suppress(DataError, KeyError):
            statuses = roles.read_statuses(self.roles)
            times = [statuses[name].times[roles.RUNNING] for name in roles.role_names(launch.workers, 0)]
            return round(max(times) - launch.began.clock, 3) if launch.began else None
        return None


def in_order(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records by epoch and client, all clients together last: workers write theirs in any order."""
    return sorted(records, key=lambda each: (each["epoch"], each["client"] == ALL, each["client"]))


def default_path(config_path: Path, started: float, pid: int) -> Path:
    """`NAME-TIME-PID` in the `runs_folder` of the configuration, the same in every role of one fleetrun.

    Args:
        config_path: the YAML file; its stem is NAME.
        started: when the job was, in seconds since 1970.
        pid: the process that started its roles.
    """
    moment = time.strftime("%Y%m%d-%H%M%S", time.localtime(round(started)))
    return runs_folder(config_path) / f"{config_path.stem}-{moment}-{pid}"


def runs_folder(config_path: Path) -> Path:
    """Where a configuration's runs go: `runs` beside it; those of a clone if it lies in the clone's `configs`."""
    folder = config_path.parent.resolve()
    if RunDirectory(folder).metrics.is_file():  # a run's own configuration
        return folder.parent
    in_clone = folder.name == "configs" and (folder.parent / "fl_run.sh").is_file()
    return (folder.parent if in_clone else folder) / RUNS
