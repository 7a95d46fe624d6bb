"""Jobs from Python: in a notebook's process, which has its own use for Paddle, threads and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_rec.job.watch import Mark
from fl_rec.runs.directory import ENVIRONMENT_KEY

from .conftest import PROMPT, TIMEOUT, Job, clean_environment

# A program with its own use for Paddle, which trains in a thread while an event loop runs.
THREAD = """
import zlib  # as a kernel has long before: after Paddle 2.6.2 it crashes at its first use, whoever imports it
import paddle
import asyncio, contextlib, io, json, logging, sys, threading
import fl_rec

pir, handlers = paddle.get_flags("FLAGS_enable_pir_api"), list(logging.getLogger().handlers)
said, told = io.StringIO(), []

async def cell():
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(fl_rec.train(sys.argv[1], {"runner.epochs": 2}, on_epoch=told.append))
    )
    thread.start()
    thread.join()
    return runs[0], runs[0].recommender().recommend(5, top=2)

with contextlib.redirect_stdout(said):
    run, recommended = asyncio.run(cell())
assert "__file__" not in globals()
print(json.dumps({
    "run": str(run.path),
    "state": run.result["state"],
    "told": [[each.epoch, each.client, [one.client for one in each.clients], each.hr] for each in told],
    "hr": [each.hr for each in run.metrics if each.client == "all"],
    "recommended": [each.rank for each in recommended],
    "shown": said.getvalue().count("epoch 2/2"),
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


def test_in_a_thread(job: Job) -> None:
    del job.runner["run_dir"]
    thread = program(THREAD, job.yaml)
    output, errors = thread.communicate(timeout=TIMEOUT)
    assert thread.returncode == 0, errors
    told = json.loads(output)  # and so nothing else was written there
    run = Path(told["run"])
    assert run.parent == job.folder / "runs"
    assert (told["state"], told["shown"]) == ("done", 1)
    assert [each[:3] for each in told["told"]] == [[epoch, "all", [0, 1, 2]] for epoch in (1, 2)]
    assert [each[3] for each in told["told"]] == told["hr"]
    assert told["recommended"] == [1, 2] and (run / "exported" / "model.json").is_file()
    assert told["paddle"] == [True, [2.0, 4.0]]
    assert told["logging"]
    assert Mark(ENVIRONMENT_KEY, str(run)).processes() == []


NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "from_data_to_recommendation.ipynb"


def outputs(notebook: Any) -> list[str]:
    """What each cell of code shows."""
    cells = [each for each in notebook.cells if each.cell_type == "code"]
    return ["".join(each.get("text") or each["data"]["text/plain"] for each in cell.outputs) for cell in cells]


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel, whose main thread has a running event loop."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for module in ("ipykernel", "pandas"):
        pytest.importorskip(module)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = outputs(notebook)
    here = {"resources": {"metadata": {"path": tmp_path}}, "kernel_name": "python3", "timeout": TIMEOUT}
    nbclient.NotebookClient(notebook, **here).execute(
        env={**python_environment(), "IPYTHONDIR": str(tmp_path / "ipython")}
    )
    _, files, configuration, epochs, figures, best, recommended = played = outputs(notebook)
    assert "'job.yaml'" in files and "train_batch_size: 32" in configuration
    rates = [float(line.split()[3]) for line in epochs.splitlines()]
    assert len(rates) == 12 and rates[-1] > 0.5 > 2 * rates[0]
    assert f"{rates[-1]:.3f}" in figures.splitlines()[-1]
    assert float(best.split()[-1]) < max(rates) - 0.1, "by popularity"
    assert [line.count("Synthetic") for line in recommended.splitlines()] == [5, 5]
    # What is shown with it is what it showed once, and of no machine.
    assert [len(each.splitlines()) for each in shown] == [len(each.splitlines()) for each in played]
    assert not any(folder in NOTEBOOK.read_text() for folder in ("/tmp", "/home", "/root", "/work"))
    (run,) = (tmp_path / "films" / "runs").iterdir()
    assert Mark(ENVIRONMENT_KEY, str(run)).processes() == []


def test_ctrl_c(job: Job) -> None:
    process = program(INTERRUPTED, job.yaml, job.run.path)
    try:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=PROMPT)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert output.endswith("stopped by SIGINT 1 True\n")
    assert job.processes() == []
