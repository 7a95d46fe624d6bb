"""Jobs as a user starts them: real processes, real files, real ports."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fl_rec.coordinator.rounds import RoundLog
from fl_rec.job.watch import Mark
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory
from fl_rec.trainer.fork_server import IMPORTED_WITH_A_COORDINATOR
from tests.forks import Forks

ROOT = Path(__file__).resolve().parent.parent.parent
WORKERS = 3
# Far above what a start takes; a job that hangs is a failure with a name, not a stuck test run.
TIMEOUT = 180
# A failure is told within this; it is the promise that the tests hold, not a measurement.
PROMPT = 60


def run_script(script: str, *arguments: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)


Make = Callable[[Path], Any]
Once = Callable[[str, Make], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)` has `make(folder)` fill a folder that tests only read, and returns it.

    It is made by whoever needs it first, once for all processes that pytest-xdist runs tests in.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, make: Make) -> Path:
        folder, made = base / name, base / f"{name}.made"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return once


class Commands:
    """Commands of fl-rec and programs that use it, each in a fork of a process that has imported Paddle."""

    CLI = "import sys; from fl_rec.cli import main; sys.exit(main())"

    def __init__(self) -> None:
        serving = (f"fl_rec.serving.{name}" for name in ("compress", "evaluate", "export", "recommend"))
        self._forks = Forks("fl_rec.page.report", *serving, "paddle", GLOG_minloglevel="1")  # as fl_rec.environment

    def program(self, program: str, *arguments: Any) -> str:
        """What a program prints that ends well."""
        done = self._forks.play(program, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def play(self, *arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
        """A command in a folder, however it ends; of a Python file, if the first argument is one."""
        if str(arguments[0]).endswith(".py"):
            return self._forks.play(*map(str, arguments), cwd=cwd)
        return self._forks.play(self.CLI, *arguments, cwd=cwd, spare=arguments[0] in ("run", "resume"))

    def succeed(self, *arguments: Any) -> str:
        """What a command prints that ends well."""
        done = self._forks.play(self.CLI, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def refusal(self, *arguments: Any) -> str:
        """The error of a command that is refused."""
        done = self._forks.play(self.CLI, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("fl-rec: error: ") and "Traceback" not in done.stderr
        return done.stderr

    def close(self) -> None:
        self._forks.close()


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    made = Commands()
    yield made
    made.close()


@pytest.fixture(scope="session")
def prepared(once: Once) -> Path:
    """Built-in data before it is split."""
    return once(
        "prepared",
        lambda folder: run_script("datasets/movielens/prepare.py", "--source", "synthetic", "--out", folder),
    )


@pytest.fixture(scope="session")
def shards(prepared: Path, once: Once) -> Path:
    """Three shards of it, as MultiSlot text."""
    split = ("datasets/movielens/gen_heter_data.py", "--data", prepared, "--num_shards", WORKERS)
    return once("shards", lambda folder: run_script(*split, "--out", folder))


@pytest.fixture(scope="session")
def public_shards(once: Once) -> Path:
    """Three shards, and a tenth of the users in the proxy set."""

    def make(folder: Path) -> None:
        own = ("--source", "synthetic", "--public", 0.1, "--out", folder / "prepared")
        run_script("datasets/movielens/prepare.py", *own)
        split = ("--data", folder / "prepared", "--num_shards", WORKERS, "--out", folder / "shards")
        run_script("datasets/movielens/gen_heter_data.py", *split)

    return once("public", make) / "shards"


@functools.cache
def forks() -> Forks:
    """Of which jobs are forks: it has imported what the launcher imports, and what starts the roles."""
    return Forks("fl_rec.terminal.run", "fl_rec.job.launch", "fl_rec.trainer.fork_server", *IMPORTED_WITH_A_COORDINATOR)


@dataclass
class Finished:
    """A job that is over."""

    code: int
    output: str
    errors: str
    run: RunDirectory

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.run.result.read_text())

    @property
    def model(self) -> Path:
        """The folder of the model that is kept."""
        return self.run.path / self.result["model"]

    def records(self, client: int | str) -> list[dict[str, Any]]:
        """The metrics of one client, or of "all", by epoch."""
        return [each for each in self.run.read_metrics() if each["client"] == client]


class Job:
    """A configuration in a folder of its own, and the means to run it.

    Attributes:
        anew: whether all that it starts are new processes, as a user's are, and not forks of one.
    """

    anew = False

    def __init__(self, folder: Path, shards: Path) -> None:
        self.folder = folder
        self.run = RunDirectory(folder / "run")
        self.runner: dict[str, Any] = {
            "train_data_dir": str(shards / "fl_train_data"),
            "test_data_dir": str(shards / "fl_test_data"),
            "train_batch_size": 256,
            "epochs": 1,
            "geo_step": 20,
            "run_dir": str(self.run.path),
            "start_timeout": 90,
        }
        self.hyper_parameters: dict[str, Any] = {"optimizer": {"class": "adam", "learning_rate": 0.002}}
        self.coordinator: dict[str, Any] = {}
        self.arguments: list[Any] = []
        self.environment: dict[str, str] = {}

    @property
    def yaml(self) -> Path:
        path = self.folder / "job.yaml"
        content = {"runner": self.runner, "hyper_parameters": self.hyper_parameters}
        if self.coordinator:
            content["coordinator"] = self.coordinator
        path.write_text(yaml.safe_dump(content))
        return path

    def command(self, *options: Any) -> list[str]:
        return [sys.executable, "-m", "fl_rec.cli", "run", "-m", str(self.yaml), *map(str, [*self.arguments, *options])]

    def start(self, *options: Any) -> subprocess.Popen:
        return self.play(self.command(*options))

    def resume(self, *options: Any) -> subprocess.Popen:
        return self.play([sys.executable, "-m", "fl_rec.cli", "resume", str(self.run.path), *map(str, options)])

    def play(self, command: Sequence[str]) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = {**clean_environment(), **self.environment}
        if self.anew:
            return subprocess.Popen(command, text=True, cwd=ROOT, env=env, **pipes)
        return forks().start(command[1:], spare=True, cwd=ROOT, env=env, **pipes)

    def wait(self, process: subprocess.Popen, timeout: float = TIMEOUT) -> Finished:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()
            output, errors = process.communicate(timeout=30)
            pytest.fail(f"the job did not end within {timeout:g} s\n{output}\n{errors}")
        assert self.processes() == [], "the job left processes behind"
        return Finished(process.returncode, output, errors, self.run)

    def finish(self, *options: Any) -> Finished:
        return self.wait(self.start(*options))

    def succeed(self, *options: Any) -> Finished:
        finished = self.finish(*options)
        assert finished.code == 0, f"{finished.output}\n{finished.errors}"
        return finished

    def processes(self) -> list[Any]:
        return self.mark.processes()

    @property
    def mark(self) -> Mark:
        return Mark(ENVIRONMENT_KEY, str(self.run.path))


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != ENVIRONMENT_KEY}


def role_process(job: Job, role: str, state: str = roles.RUNNING) -> psutil.Process:
    """The process of a role, as soon as the role has come to a state."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        status = roles.read_statuses(job.run.roles).get(role)
        if status is not None and status.state == state:
            process = status.process()
            assert process is not None
            return process
        time.sleep(0.1)
    raise AssertionError(f"{role} did not come to {state}")


def wait_for_round(job: Job, started: subprocess.Popen, number: int) -> None:
    """Waits until a running job has decided a round."""
    deadline = time.monotonic() + TIMEOUT
    while not (job.run.rounds.exists() and len(list(RoundLog(job.run.rounds))) > number):
        if started.poll() is not None or time.monotonic() > deadline:
            finished = job.wait(started)
            pytest.fail(f"round {number} was not decided\n{finished.output}\n{finished.errors}")
        time.sleep(0.05)


def start_coordinator_again(job: Job, started: subprocess.Popen) -> Finished:
    """Plays `fl-rec coordinator` beside a job whose coordinator was killed, when that is noticed; both end well."""
    deadline = time.monotonic() + PROMPT
    while "note: coordinator.0 is gone" not in job.run.tables.read_text():
        assert started.poll() is None and time.monotonic() < deadline, "it was not noticed"
        time.sleep(0.05)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    words = ("-m", "fl_rec.cli", "coordinator", str(job.run.path))
    again = forks().start(words, cwd=ROOT, env=clean_environment(), **pipes)
    try:
        finished = job.wait(started)
        said, _ = again.communicate(timeout=PROMPT)
    finally:
        again.kill()
    assert finished.code == 0, finished.errors
    assert again.returncode == 0, said
    return finished


@pytest.fixture
def job(tmp_path: Path, shards: Path):
    made = Job(tmp_path, shards)
    yield made
    made.mark.end()


SharedJob = Callable[..., Finished]


@pytest.fixture(scope="session")
def shared_job(once: Once, shards: Path) -> SharedJob:
    """`shared_job(name, change)` is a job, `change(job)` of the usual one, that has ended well and is only read."""

    def shared_job(name: str, change: Callable[[Job], Any]) -> Finished:
        def make(folder: Path) -> None:
            job = Job(folder, shards)
            change(job)
            try:
                finished = job.succeed()
            finally:
                job.mark.end()
            (folder / "said.json").write_text(json.dumps([finished.output, finished.errors]))

        folder = once(name, make)
        return Finished(0, *json.loads((folder / "said.json").read_text()), RunDirectory(folder / "run"))

    return shared_job


@pytest.fixture(scope="session")
def trained(shared_job: SharedJob) -> Finished:
    """The usual job, of three epochs."""

    def change(job: Job) -> None:
        job.anew = True
        job.runner["epochs"] = 3

    return shared_job("trained", change)


@pytest.fixture(scope="session")
def private_layer(shared_job: SharedJob) -> Finished:
    """A job of two epochs, in which each worker has a predicting layer of its own."""
    return shared_job("private layer", lambda job: job.runner.update(epochs=2, private_params=["prediction.*"]))
