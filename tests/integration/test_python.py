"""Jobs from Python: in a notebook's process, which has its own use for Paddle, threads and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from fl_rec.job.watch import Mark
from fl_rec.runs.directory import ENVIRONMENT_KEY

from .conftest import PROMPT, TIMEOUT, Job, clean_environment

# As a notebook's kernel: no file, a running event loop, Paddle imported before and in use; one cell trains twice.
NOTEBOOK = """
import zlib  # as a kernel has long before: after Paddle 2.6.2 it crashes at its first use, whoever imports it
import paddle
import asyncio, contextlib, io, json, logging, sys, threading
import fl_rec

pir, handlers = paddle.get_flags("FLAGS_enable_pir_api"), list(logging.getLogger().handlers)
said, told = io.StringIO(), []

def train(name):
    run = fl_rec.train(sys.argv[1], {"runner.epochs": 2}, on_epoch=told.append)
    runs[name] = run

async def cell():
    train("first")
    thread = threading.Thread(target=train, args=["second"])
    thread.start()
    thread.join()
    return runs["second"].recommender().recommend(5, top=2)

runs = {}
with contextlib.redirect_stdout(said):
    recommended = asyncio.run(cell())
assert "__file__" not in globals()
print(json.dumps({
    "runs": [str(runs[name].path) for name in ("first", "second")],
    "states": [run.result["state"] for run in runs.values()],
    "told": [[each.epoch, each.client, [one.client for one in each.clients], each.hr] for each in told],
    "hr": [each.hr for run in runs.values() for each in run.metrics if each.client == "all"],
    "recommended": [each.rank for each in recommended],
    "tables": said.getvalue().count("epoch 2 of 2"),
    "paddle": [pir == paddle.get_flags("FLAGS_enable_pir_api"), (paddle.to_tensor([1.0, 2.0]) * 2).tolist()],
    "logging": logging.getLogger().handlers == handlers,
}))
"""

# Ctrl-C while it trains; what has been trained until then is there.
INTERRUPTED = """
import signal, sys
import fl_rec

try:
    told = lambda epoch: print(epoch.epoch, flush=True)
    fl_rec.train(sys.argv[1], {"runner.epochs": 500}, on_epoch=told, verbose=False)
except KeyboardInterrupt:
    run = fl_rec.Run(sys.argv[2])
    print(run.result["error"], run.model(1).name, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def program(text: str, *arguments: Path) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(command, text=True, cwd=arguments[0].parent, env=python_environment(), **pipes)


def python_environment() -> dict[str, str]:
    flags = ("FLAGS_enable_pir_api",)  # set where fl_rec has been imported
    root = str(Path(__file__).resolve().parents[2])
    return {**{key: value for key, value in clean_environment().items() if key not in flags}, "PYTHONPATH": root}


def test_a_notebook_trains_twice(job: Job) -> None:
    del job.runner["run_dir"]
    notebook = program(NOTEBOOK, job.yaml)
    output, errors = notebook.communicate(timeout=TIMEOUT)
    assert notebook.returncode == 0, errors
    told = json.loads(output)  # and so nothing else was written there
    first, second = map(Path, told["runs"])
    assert first != second and first.parent == second.parent == job.folder / "runs"
    assert told["states"] == ["done", "done"] and told["tables"] == 2
    assert [each[:3] for each in told["told"]] == [[epoch, "all", [0, 1, 2]] for epoch in (1, 2, 1, 2)]
    assert [each[3] for each in told["told"]] == told["hr"]
    assert told["recommended"] == [1, 2] and (second / "exported" / "model.json").is_file()
    assert told["paddle"] == [True, [2.0, 4.0]]
    assert told["logging"]
    for path in (first, second):
        assert Mark(ENVIRONMENT_KEY, str(path)).processes() == []


def test_ctrl_c(job: Job) -> None:
    process = program(INTERRUPTED, job.yaml, job.run.path)
    try:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=PROMPT)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert output.endswith("stopped by SIGINT 1 True\n")
    assert job.processes() == []
