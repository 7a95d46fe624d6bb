"""Jobs as a user starts them: real processes, real files, real ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fl_rec.job.watch import Mark
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory

ROOT = Path(__file__).resolve().parent.parent.parent
WORKERS = 3
# Far above what a start takes; a job that hangs is a failure with a name, not a stuck test run.
TIMEOUT = 180
# A failure is told within this; it is the promise that the tests hold, not a measurement.
PROMPT = 60


def run_script(script: str, *arguments: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built-in data before it is split."""
    folder = tmp_path_factory.mktemp("prepared")
    run_script("datasets/movielens/prepare.py", "--source", "synthetic", "--out", folder)
    return folder


@pytest.fixture(scope="session")
def shards(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of it, as MultiSlot text."""
    folder = tmp_path_factory.mktemp("shards")
    run_script("datasets/movielens/gen_heter_data.py", "--data", prepared, "--out", folder, "--num_shards", WORKERS)
    return folder


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

    def records(self, client: int | str) -> list[dict[str, Any]]:
        """The metrics of one client, or of "all", by epoch."""
        return [each for each in self.run.read_metrics() if each["client"] == client]


class Job:
    """A configuration in a folder of its own, and the means to run it."""

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

    @property
    def yaml(self) -> Path:
        path = self.folder / "job.yaml"
        content = {"runner": self.runner, "hyper_parameters": self.hyper_parameters}
        if self.coordinator:
            content["coordinator"] = self.coordinator
        path.write_text(yaml.safe_dump(content))
        return path

    def command(self, *options: Any) -> list[str]:
        return [sys.executable, "-m", "fl_rec.cli", "run", "-m", str(self.yaml), *map(str, options)]

    def start(self, *options: Any) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(*options), text=True, cwd=ROOT, env=clean_environment(), **pipes)

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
        return Mark(ENVIRONMENT_KEY, str(self.run.path)).processes()


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


def start_coordinator_again(job: Job, started: subprocess.Popen) -> Finished:
    """Plays `fl-rec coordinator` beside a job whose coordinator was killed; both must end well."""
    again = subprocess.Popen(
        [sys.executable, "-m", "fl_rec.cli", "coordinator", str(job.run.path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=clean_environment(),
    )  # fmt: skip
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
    Mark(ENVIRONMENT_KEY, str(made.run.path)).end()
