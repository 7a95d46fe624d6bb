"""The contestants of throughput.py: how each is made ready, and run once."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from common import BEST_CONFIG, CONFIG, PROJECT, JobRun, read_rows, run_job, say
from contestants.task import Task
from usage import Known, run_watched

from fl_rec.config import Config
from fl_rec.data.manifest import MANIFEST_NAME, Manifest, Shard, ShardFile
from fl_rec.data.text import LAYOUTS, write_rows
from fl_rec.errors import RunError
from fl_rec.files import write_json
from fl_rec.job.watch import Mark

CONTESTANTS = PROJECT / "benchmarks" / "contestants"
READER = PROJECT / "benchmarks" / "paddle_reader.py"
VENV = PROJECT / ".venv-bench"
TORCH = ("torch==2.13.0+cpu", "numpy")
FLOWER = ("flwr==1.42.0",)
MARK = "FL_REC_CONTESTANT"
# The whole of a task but for what differs between contestants: by the configuration that our own jobs have.
NETS = {"mlp": CONFIG, "mf": BEST_CONFIG}
# Contestants by name, with the nets that each trains.
NAMES: Mapping[str, tuple[str, ...]] = {
    "compiled": ("mlp", "mf"),
    "graph": ("mlp", "mf"),
    "reader": ("mlp",),
    "pytorch": ("mlp", "mf"),
    "by-hand": ("mf",),
    "flower": ("mlp", "mf"),
    "limit": ("mlp", "mf"),
    "one-core": ("mlp", "mf"),
}
SCRIPTS = {
    "pytorch": "torch_fedavg.py",
    "by-hand": "torch_fedavg.py",
    "flower": "flower.py",
    "limit": "limit.py",
    "one-core": "limit.py",
}

# Those that run in an environment of their own.
FOREIGN = frozenset({"pytorch", "by-hand", "flower"})


def new_task(net: str, data: Manifest, epochs: int | None, record: Path) -> Task:
    """What a configuration says, for those who have no fl_rec.

    Args:
        epochs: None for the configuration's.
    """
    config = Config.load(NETS[net])
    runner, hyper = config.runner, config.hyper_parameters
    l2 = {name: float(hyper.l2.get(name, 0.0)) for name in ("mf_user_embedding", "mf_item_embedding")}
    return Task(
        net=net,
        train=tuple(str(data.folder / shard.train.file) for shard in data.shards),
        test=tuple(str(data.folder / shard.test.file) for shard in data.shards),
        train_rows=tuple(shard.train.rows for shard in data.shards),
        num_items=data.num_items,
        record=str(record),
        epochs=epochs or runner.epochs,
        exchanges=runner.exchanges_per_epoch or 1,
        # Without exchanges of its own GEO divides each worker's changes by the number of workers.
        aggregation=runner.aggregation if runner.exchanges_per_epoch else "weighted",
        batch=runner.train_batch_size,
        negatives=runner.resample_negatives,
        adam=hyper.optimizer.class_ == "adam",
        learning_rate=hyper.optimizer.learning_rate,
        falls=hyper.optimizer.schedule == "linear",
        l2=(l2["mf_user_embedding"], l2["mf_item_embedding"]),
        std=float(hyper.extra.get("std", 0.05)),
        fc_layers=tuple(hyper.fc_layers),
        width=hyper.mf_dim,
        seed=runner.seed,
        processes=len(os.sched_getaffinity(0)),
    )


def install(names: set[str], pip: list[str]) -> None:
    """Makes the environment of PyTorch and Flower, or adds to it what is not there.

    Args:
        pip: further options of pip.

    Raises:
        RunError: pip can't.
    """
    packages = [*TORCH, *(FLOWER if "flower" in names else ())]
    if not (VENV / "bin" / "python").exists():
        say(f"install   {VENV}")
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", *pip, *packages]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RunError(
            f"pip must find {', '.join(packages)}. Received: {done.stdout.strip()[-500:]}. Name an index that has "
            "PyTorch's builds for CPUs, --pip='--extra-index-url URL', or leave contestants out with --only."
        )


def to_csv(data: Manifest, out: Path) -> Manifest:
    """Writes MultiSlot shards as CSV: the same rows in the same order, and a manifest that vouches for them."""

    def convert(file: ShardFile) -> ShardFile:
        name = str(PurePosixPath(file.file).with_suffix(LAYOUTS["csv"].suffix))
        size, sha256 = write_rows(out / name, np.hstack(read_rows(data, file)), LAYOUTS["csv"])
        return dataclasses.replace(file, file=name, bytes=size, sha256=sha256)

    shards = tuple(Shard(convert(shard.train), convert(shard.test)) for shard in data.shards)
    converted = dataclasses.replace(data, format="csv", shards=shards, folder=out)
    write_json(out / MANIFEST_NAME, converted.to_json())
    return converted


class Contest:
    """Runs contestants on the same shards.

    Args:
        data: the shards.
        folder: for what the runs write.
        epochs: of each net; None for the configuration's.
        flower_exchanges: in an epoch of Flower's.
        timeout: seconds of a run.
    """

    def __init__(
        self, data: Manifest, folder: Path, epochs: Mapping[str, int | None], flower_exchanges: int, timeout: float
    ) -> None:
        self.data = data
        self._folder, self._epochs, self._timeout = folder, epochs, timeout
        self._flower_exchanges = flower_exchanges
        self._csv: Manifest | None = None

    def run(self, name: str, net: str, path: str) -> JobRun:
        """Runs a contestant once.

        Args:
            name, net: one of `NAMES`.
            path: a new name in the folder.
        """
        if name in SCRIPTS:
            return self._script(name, net, path)
        keys: dict[str, Any] = {} if self._epochs[net] is None else {"runner.epochs": self._epochs[net]}
        data = self.data
        if name == "reader":
            if self._csv is None:
                say("data      the same rows as CSV")
                self._csv = to_csv(self.data, self._folder / "csv")
            data, keys["runner.pipe_command"] = self._csv, shlex.join([sys.executable, str(READER)])
        else:
            keys["runner.local_step"] = name
        return run_job(self._folder / path, data, keys, self._timeout, config=NETS[net])

    def _script(self, name: str, net: str, path: str) -> JobRun:
        folder = self._folder / path
        folder.mkdir()
        task = new_task(net, self.data, self._epochs[net], folder / "record.jsonl")
        changes: dict[str, dict[str, Any]] = {
            "by-hand": {"by_hand": True},
            "flower": {"exchanges": self._flower_exchanges},
            "one-core": {"processes": 1},
        }
        task = dataclasses.replace(task, **changes.get(name, {}))
        task.write(folder / "task.json")
        python = str(VENV / "bin" / "python") if name in FOREIGN else sys.executable
        known = Known()
        started, clock = time.time(), time.monotonic()
        exit_code, said, usage = run_watched(
            [python, str(CONTESTANTS / SCRIPTS[name]), str(folder / "task.json")],
            {"OMP_NUM_THREADS": "1"},
            Mark(MARK, str(folder)),
            self._timeout,
            lambda: known.look(read_record(Path(task.record))),
        )
        known.look(read_record(Path(task.record)))
        failure = None
        if exit_code:
            failure = f"{path}: exit code {exit_code}: {said[-800:]}"
        elif not known.epochs:
            failure = f"{path}: no epoch after {self._timeout:g} s: {said[-800:]}"
        return JobRun(
            exit_code=exit_code,
            seconds=time.monotonic() - clock,
            running_after=None,
            peak_pss=usage.peak_pss,
            cpu_per_million=known.cpu_per_million(usage),
            known_after=tuple(moment - started for moment in known.times),
            leftovers=(),
            epochs=tuple(known.epochs),
            failure=failure,
        )


def read_record(path: Path) -> list[dict[str, Any]]:
    """The lines that a contestant has written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
