"""Trackers, as observers of a job whose processes are a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fl_rec.config import Config
from fl_rec.evaluation.records import records_of
from fl_rec.job import tracking
from fl_rec.job.launch import LaunchOptions, launch
from fl_rec.job.observers import Observer
from fl_rec.job.tracking import Tracking, trackers_of
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult

pytestmark = pytest.mark.usefixtures("fast")
ROLES_DONE = [(role, "done", "") for role in ("server.0", "worker.0", "worker.1")]
FIGURES = ("seconds", "rows_per_second", "train_loss", "train_auc", "test_auc", "hr", "ndcg")
# Writes down what it is told; `fails` is the method that does.
OWN = """
import json
from fl_rec.trackers import Tracker

class Mine(Tracker):
    def _told(self, *what):
        with open({told!r}, "a") as file:
            file.write(json.dumps(what) + "\\n")
        if what[0] == {fails!r}:
            raise ValueError("it is full")

    def begin(self, epochs):
        self._told("begin", list(epochs), self.changed.get("runner.epochs"))

    def log(self, epoch, figures):
        self._told("log", epoch, {{whose: values["hr@10"] for whose, values in figures.items()}})

    def end(self, done, model):
        self._told("end", done, model and str(model))
"""


def lines(*epochs: int) -> list[dict[str, Any]]:
    rest = {**dict.fromkeys(FIGURES, 0.5), "rows": 5, "test_users": 2, "top_k": 10}
    return [{"epoch": epoch, "client": client, **rest} for epoch in epochs for client in (0, 1, "all")]


class Notes(Observer):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Callable[[], list[Any]]]:
    """`own(fails)` writes a tracker of one's own; what it returns tells what that was told."""

    def own(fails: str = "") -> Callable[[], list[Any]]:
        told = tmp_path / "told"
        (tmp_path / "mine.py").write_text(OWN.format(told=str(told), fails=fails))
        return lambda: [json.loads(line) for line in told.read_text().splitlines()]

    return own


def all_at(hr: float) -> dict[str, float]:
    return dict.fromkeys(("client_0", "client_1", "all"), hr)


def test_a_job_and_its_resume(
    make_job: Callable[..., Path], fleetrun: Callable[..., None], own: Callable[..., Any], tmp_path: Path
) -> None:
    told, run = own(), RunDirectory(tmp_path / "run")
    fleetrun(ROLES_DONE, metrics=lines(1, 2))
    launch(LaunchOptions(make_job(epochs=4), ("runner.log_to=[../mine.py:Mine]",)))
    story = [
        ["begin", [], 4],
        ["log", 1, all_at(0.5)],
        ["log", 2, all_at(0.5)],
        ["end", True, str(run.path / "the/model")],
    ]
    assert told() == story
    run.result.unlink()  # as of a job whose launcher was killed: there is no checkpoint, and so it begins anew
    fleetrun(ROLES_DONE)
    own_file = f"runner.log_to=[{tmp_path}/mine.py:Mine]"
    launch(LaunchOptions(run.config, (own_file,), resume=run.path))
    assert told() == [*story, ["begin", [], 4], ["end", True, str(run.path / "the/model")]]


@pytest.mark.parametrize(("fails", "calls"), [("begin", 1), ("log", 2), ("end", 4)])
def test_one_that_fails(
    fails: str, calls: int, make_job: Callable[..., Path], fleetrun: Callable[..., None], own: Callable[..., Any]
) -> None:
    """The job goes on, and it is told once."""
    told, notes = own(fails), Notes()
    fleetrun(ROLES_DONE, metrics=lines(1, 2))
    run = launch(LaunchOptions(make_job(), ("runner.log_to=[../mine.py:Mine]",)), [notes])
    assert run.read_result()["state"] == "done"
    (note,) = notes.told
    assert note.endswith("mine.py:Mine (runner.log_to) is told no more: ValueError: it is full")
    assert [each[0] for each in told()] == ["begin", "log", "log", "end"][:calls]


class Recorder:
    """Stands in for the tracker of a `Tracking`."""

    def __init__(self, *_arguments: Any) -> None:
        self.told: list[Any] = []
        self.hold = False

    def begin(self, epochs: Any) -> None:
        self.told.append(["begin", *epochs])

    def log(self, epoch: int, figures: Any) -> None:
        self.told.append(epoch)

    def end(self, done: bool, model: Path | None) -> None:
        self.told.append([done, model])
        while self.hold:
            pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(tracking, "TRACKERS", SimpleNamespace(find=lambda _name: lambda *_arguments: recorder))
    return recorder


def begun(run: RunDirectory, resumed: int | None) -> Tracking:
    found = Tracking("x")
    job: Any = SimpleNamespace(run=run, config=None, changed={}, resumed=resumed, popularity={"hr@10": 0.25})
    found.starting(job)
    return found


def test_epochs_that_come_again(run: RunDirectory, recorder: Recorder) -> None:
    """The job went back to the checkpoint of epoch 1: what was told since is gone from the run's own file too."""
    found = begun(run, None)
    run.append_metrics(lines(1, 2, 3))
    for record in records_of(run.read_metrics()):
        if record.client == "all":
            found.epoch(record)
    run.metrics.write_text("")
    run.append_metrics(lines(1, 2))
    found.epoch(records_of(run.read_metrics())[-1])
    found.ended(RunResult(state="failed", error="why"))
    assert recorder.told == [["begin"], 1, 2, 3, ["begin", 1], 2, [False, None]]


def test_a_resumed_run_has_its_epochs(run: RunDirectory, recorder: Recorder) -> None:
    run.append_metrics(lines(1, 2))
    found = begun(run, 2)
    found.ended(RunResult(state="done", model="model/2"))
    assert recorder.told == [["begin", 1, 2], [True, run.path / "model/2"]]


def test_one_that_takes_too_long(run: RunDirectory, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.05)
    recorder.hold, found = True, begun(run, None)
    with pytest.raises(OSError, match=r"it has not taken everything within 0\.05 s"):
        found.ended(RunResult(state="done"))
    recorder.hold = False


def test_none(load_job: Callable[..., Config]) -> None:
    assert trackers_of(load_job()) == []
