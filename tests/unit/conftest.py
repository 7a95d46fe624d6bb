"""Fixtures that several unit tests share: small jobs on disk, run directories, and processes that always end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec import environment
from fl_rec.config import Config
from fl_rec.data.manifest import MANIFEST_NAME, MANIFEST_VERSION, SLOTS, Manifest
from fl_rec.data.shards import write_shards
from fl_rec.data.text import LAYOUTS
from fl_rec.job import launch
from fl_rec.job.watch import Mark
from fl_rec.runs import roles
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.result import Began, Data, RunResult, Versions

# No wait of a unit test is longer than this many seconds; a machine under load needs them.
DEADLINE = 30.0

# Stands in for fleetrun and all its roles: `says` is a list of (role, state, error), `metrics` one of lines.
FLEETRUN = """\
import json, os, sys, time
run = os.environ["FL_REC_RUN_DIR"]
print("this is fleetrun")
for role, state, error in {says!r}:
    status = dict(role=role, pid=1, started="", state=state, error=error, times={{state: time.time()}})
    with open(run + "/tmp", "w") as file: json.dump(status, file)
    os.replace(run + "/tmp", run + "/roles/" + role + ".json")
    open(run + "/log/" + role.replace(".", "log."), "w").close()
with open(run + "/tables.txt", "a") as file: file.write("epoch 1: AUC 0.7\\n\\n")
with open(run + "/result.json", "w") as file: json.dump(dict(state="done", model="the/model"), file)
with open(run + "/metrics.jsonl", "a") as file: file.writelines(json.dumps(each) + "\\n" for each in {metrics!r})
time.sleep({seconds})
"""

# Of one record of a metrics.jsonl, besides its HR.
FIGURES = {"rows": 10, "seconds": 1.0, "rows_per_second": 10.0, "train_loss": 0.5, "train_auc": 0.6, "test_auc": 0.7}
FIGURES |= {"test_users": 4, "ndcg": 0.2, "top_k": 10}

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

Spawn = Callable[..., subprocess.Popen]
MakeJob = Callable[..., Path]
SetStatus = Callable[..., None]


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """`benchmark_script("tunnel")` is the module benchmarks/tunnel.py; forgotten afterwards, with all beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if BENCHMARKS in Path(getattr(module, "__file__", None) or "").parents:
            del sys.modules[name]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """`spawn(*command, ENV=value)` starts a process, which is killed and reaped after the test."""
    started: list[subprocess.Popen] = []

    def spawn(*command: str, cwd: Path | None = None, **env: str) -> subprocess.Popen:
        process = subprocess.Popen(
            command,
            env={**os.environ, **env},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate(timeout=DEADLINE)


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """`make_job(...)` writes `a job/job.yaml` and its data, and returns the YAML's path. The space is on purpose."""

    def make_job(
        num_shards: int = 2,
        *,
        manifest: bool = True,
        layout: str = "multislot",
        test: bool = True,
        validation: bool = False,
        group_size: int = 1,
        **runner: Any,
    ) -> Path:
        folder = tmp_path / "a job"
        data = folder / "data"
        data.mkdir(parents=True)
        # Shard k has k + 2 training rows: user k, item 0, 1, ..., every other one a positive. Of a group only the first
        # is one.
        train = [np.array([[k, item, item % 2] for item in range(k + 2)]) for k in range(num_shards)]
        if group_size > 1:
            train = [
                np.array([[k, item, int(item == 0)] for _ in range(k + 2) for item in range(group_size)])
                for k in range(num_shards)
            ]
        tests = [np.array([[k, 0, 1], [k, 1, 0]]) for k in range(num_shards)]
        held_out = tests if validation else None
        shards = write_shards(data, train, tests, LAYOUTS[layout], 1, held_out, group_size)
        if manifest:
            content = Manifest(
                version=MANIFEST_VERSION,
                format=layout,
                slots=SLOTS,
                seed=1,
                source={},
                partitioner={},
                num_shards=num_shards,
                num_users=num_shards,
                num_items=num_shards + 1,
                unplaced={},
                dropped_users=0,
                totals={"train_rows": sum(shard.train.rows for shard in shards)},
                shards=shards,
                folder=data,
                group_size=group_size,
            ).to_json()
            (data / MANIFEST_NAME).write_text(json.dumps(content), encoding="utf-8")
        settings = {"train_data_dir": "data/fl_train_data", "run_dir": "../run", **runner}
        if test:
            settings["test_data_dir"] = "data/fl_test_data"
        if validation:
            settings["validation_data_dir"] = "data/fl_valid_data"
        path = folder / "job.yaml"
        path.write_text(json.dumps({"runner": settings}), encoding="utf-8")
        return path

    return make_job


@pytest.fixture
def load_job(make_job: MakeJob) -> Callable[..., Config]:
    """As `make_job`, and returns the configuration."""

    def load_job(*overrides: str, **job: Any) -> Config:
        return Config.load(make_job(**job), overrides)

    return load_job


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A claimed run directory, with a space in its path."""
    return RunDirectory.claim(tmp_path / "a run", "this test")[0]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """`make_run(name, hits, result, owner)`: a run of the project in tmp_path; `hits` are its epochs' HR@10."""

    def make_run(
        name: str, hits: tuple[float, ...] = (), result: dict[str, Any] | None = None, owner: str = "", **more: Any
    ) -> RunDirectory:
        run, _ = RunDirectory.claim(tmp_path / "runs" / name, owner or "1 a-boot 1 1")
        for epoch, hr in enumerate(hits, 1):
            each = {name: values[epoch - 1] for name, values in more.items()}
            run.append_metrics([{"epoch": epoch, "client": who, **FIGURES, "hr": hr, **each} for who in (0, "all")])
        if result is not None:
            run.write_result(RunResult(**result))
        return run

    return make_run


@pytest.fixture
def begin() -> Callable[..., None]:
    """`begin(run, command, **popularity)` writes with what a run was started."""

    def begin(run: RunDirectory, command: str, **popularity: float) -> None:
        named = {name.replace("_", "@"): value for name, value in popularity.items()}
        versions = Versions("0.1.0", "3.0.0", "3.11.0")
        Launch(2, 1, 0, "", Began("", 1.0, command, versions, Data("data"), named or None)).write(run)

    return begin


@pytest.fixture
def set_status(run: RunDirectory) -> SetStatus:
    """`set_status(role, state, process)` writes a status file by hand; `process` is this one by default."""

    def set_status(
        role: str, state: str, process: subprocess.Popen | None = None, *, error: str = "", at: float = 1.0
    ) -> None:
        pid = process.pid if process else os.getpid()
        status = {"role": role, "pid": pid, "started": roles.started(pid)}
        status.update({"state": state, "error": error, "times": {state: at}})
        (run.roles / f"{role}.json").write_text(json.dumps(status), encoding="utf-8")

    return set_status


@pytest.fixture
def bare_python() -> tuple[str, ...]:
    """A command that runs the code after it in a Python without site packages, which starts fast."""
    return (sys.executable, "-I", "-S", "-c")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that looks often, in an environment that is taken to be right."""
    monkeypatch.setattr("fl_rec.job.watch.POLL_SECONDS", 0.01)
    monkeypatch.setattr(environment, "check", lambda: None)


@pytest.fixture
def fleetrun(monkeypatch: pytest.MonkeyPatch, bare_python: tuple[str, ...]) -> Callable[..., None]:
    """`fleetrun(says, seconds, metrics)`: its stand-in says and writes this of the roles, and stays for so long."""

    def fleetrun(says: list[tuple[str, str, str]], seconds: float = 0, metrics: Sequence[dict[str, Any]] = ()) -> None:
        command = [*bare_python, FLEETRUN.format(says=says, seconds=seconds, metrics=metrics)]
        monkeypatch.setattr(launch, "_start_command", lambda *_arguments: command)

    return fleetrun


@pytest.fixture
def mark() -> Mark:
    return Mark("FL_REC_TEST_MARK", uuid.uuid4().hex)


@pytest.fixture
def sleeper(spawn: Spawn) -> Callable[..., subprocess.Popen]:
    """`sleeper(ENV=value)`: a process that does nothing for a minute."""

    def sleeper(**env: str) -> subprocess.Popen:
        process = spawn("sleep", "60", **env)
        while not Path(f"/proc/{process.pid}/environ").read_bytes():  # the kernel has not shown it yet
            time.sleep(0.001)
        return process

    return sleeper
