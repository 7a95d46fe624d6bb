"""fl_rec from Python: a stand-in for fleetrun, no Paddle."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fl_rec
from fl_rec import api
from fl_rec.config.written import parse_override, to_override
from fl_rec.job.watch import Mark
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.renumber import COUNTED
from fl_rec.runs.result import RunResult

pytestmark = pytest.mark.usefixtures("fast")
ALL_DONE = [(role, "done", "") for role in ("server.0", "worker.0", "worker.1")]
FIGURES = ("rows", "seconds", "rows_per_second", "train_loss", "train_auc", "test_auc", "hr", "ndcg", "test_users")

MakeJob = Callable[..., Path]
Fleetrun = Callable[..., None]


def lines(epochs: int, **figures: Any) -> list[dict[str, Any]]:
    """What two workers write, the second one last."""
    common = {**dict.fromkeys(FIGURES, 1.0), "rows": 1, "test_users": 1, "top_k": 10, **figures}
    return [{"epoch": epoch, "client": client, **common} for epoch in range(1, epochs + 1) for client in (0, "all", 1)]


# -- names ---------------------------------------------------------------------------------------------------


def test_the_package_itself_is_cheap() -> None:
    program = (
        "import sys, fl_rec; assert set(fl_rec.__all__) < set(dir(fl_rec)); "
        "print(sorted({'paddle', 'pydantic', 'numpy', 'yaml', 'fl_rec.api'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_name_is_there() -> None:
    assert {getattr(fl_rec, name).__name__ for name in fl_rec.__all__} == set(fl_rec.__all__)
    assert fl_rec.train is api.train
    with pytest.raises(AttributeError, match="module 'fl_rec' has no attribute 'trian'"):
        fl_rec.trian  # noqa: B018


# -- train ---------------------------------------------------------------------------------------------------


def test_train(
    make_job: MakeJob, fleetrun: Fleetrun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleetrun(ALL_DONE, metrics=lines(2))
    path = make_job()
    monkeypatch.chdir(path.parent)
    told: list[Any] = []
    run = fl_rec.train(path.name, {"runner.epochs": 2, "runner.seed": np.int64(7)}, on_epoch=told.append)
    assert [(each.epoch, each.client, [one.client for one in each.clients]) for each in told] == [
        (1, "all", [0, 1]),
        (2, "all", [0, 1]),
    ]
    assert told == [each for each in run.metrics if each.client == "all"]
    assert run.path == path.parent.parent / "run" and repr(run) == f"fl_rec.Run({str(run.path)!r})"
    assert (run.config.runner.epochs, run.config.runner.seed, run.config.hyper_parameters.num_users) == (2, 7, 2)
    assert (run.result.state, run.result["model"], run.result.get("nothing")) == ("done", "the/model", None)
    out, err = capsys.readouterr()
    assert f" run       {run.path}\n" in out and f" model     {run.path}/the/model\n" in out and err == ""
    assert re.findall(r"epoch (\d)/2  loss", out) == ["1", "2"]


def test_one_process_trains_many_times(
    make_job: MakeJob, fleetrun: Fleetrun, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the same time, too, in threads of it."""
    fleetrun(ALL_DONE, metrics=lines(1))
    path, runs = make_job(run_dir=None), []
    threads = [
        threading.Thread(target=lambda: runs.append(fl_rec.train(path, verbose=False)), daemon=True) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    runs.append(fl_rec.train(path, verbose=False))
    assert len({run.path for run in runs}) == 4 == len(list((path.parent / "runs").iterdir()))
    assert all(len(run.metrics) == 3 and run.path.name.startswith("job-") for run in runs)
    assert capsys.readouterr() == ("", "")


def test_a_job_that_fails(make_job: MakeJob, fleetrun: Fleetrun, capsys: pytest.CaptureFixture[str]) -> None:
    fleetrun([*ALL_DONE[:2], ("worker.1", "failed", "the reader exited with 1")], seconds=60)
    with pytest.raises(fl_rec.RunError) as caught:
        fl_rec.train(make_job(), verbose=False)
    err = caught.value
    assert isinstance(err, fl_rec.JobFailed) and (err.role, err.reason) == ("worker.1", "the reader exited with 1")
    assert err.log == err.run / "log" / "workerlog.1" and err.log.is_file()
    assert str(err) == f"worker.1 failed: the reader exited with 1\n  its log: {err.log}"
    assert str(pickle.loads(pickle.dumps(err))) == str(err)
    assert fl_rec.Run(err.run).result["error"] == "the reader exited with 1"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"overrides": {"runner.epoch": 3}}, "option -o: runner.epoch: unknown key. Did you mean runner.epochs?"),
        ({"workers": 3}, "Shard k belongs to worker k, so there must be as many shards as workers. "),
        ({"overrides": {"runner.epochs": fl_rec}}, "runner.epochs: an override must be a number, a text, a path, or "),
    ],
)
def test_a_mistake(make_job: MakeJob, arguments: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(fl_rec.ConfigError) as caught:
        fl_rec.train(make_job(), **arguments)
    assert str(caught.value).startswith(text)
    assert not (tmp_path / "run").exists()


def test_what_on_epoch_raises_ends_the_job(make_job: MakeJob, fleetrun: Fleetrun, tmp_path: Path) -> None:
    fleetrun(ALL_DONE[:1], seconds=60, metrics=lines(2))
    told: list[Any] = []

    def enough(record: Any) -> None:
        told.append(record)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        fl_rec.train(make_job(), on_epoch=enough, verbose=False)
    assert len(told) == 1
    result = fl_rec.Run(tmp_path / "run").result
    assert result["state"] == "interrupted" and result["error"] == "stopped by ValueError('enough')"
    assert [each["epoch"] for each in result["epochs"]] == [1, 2], "the figures that it had"
    assert Mark("FL_REC_RUN_DIR", str(tmp_path / "run")).processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(make_job: MakeJob, fleetrun: Fleetrun, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C is KeyboardInterrupt, also in an on_epoch that catches errors; others are the caller's after the job."""
    fleetrun(ALL_DONE[:1], seconds=60, metrics=lines(2))
    mark = Mark("FL_REC_RUN_DIR", str(tmp_path / "run"))
    seen: list[tuple[int, int]] = []

    def handler(got: int, _frame: object) -> None:
        seen.append((got, len(mark.processes())))

    def stop(_record: Any) -> None:
        try:
            os.kill(os.getpid(), number)
        except Exception:
            pytest.fail("it must not be an error")

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(KeyboardInterrupt, match=f"stopped by {number.name}"):
            fl_rec.train(make_job(), on_epoch=stop, verbose=False)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ([(signal.SIGTERM, 0)] if number == signal.SIGTERM else [])
    assert mark.processes() == []
    assert fl_rec.Run(tmp_path / "run").result["error"] == f"stopped by {number.name}"


def test_in_a_thread_signals_are_left_alone(make_job: MakeJob, fleetrun: Fleetrun) -> None:
    fleetrun(ALL_DONE, metrics=lines(1))
    path, before, seen = make_job(), signal.getsignal(signal.SIGINT), []

    def play() -> None:
        fl_rec.train(path, on_epoch=lambda _record: seen.append(signal.getsignal(signal.SIGINT)), verbose=False)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    thread.join(60)
    assert seen == [before]


@pytest.mark.parametrize(
    "value",
    [
        *(3, 1e-5, True, None, "1e-3", "", "a: b", "#", "- a", "two\nlines", "é" * 200),
        *(["a", 2.5e-7], {"k": [1, {"b": None}]}),
    ],
)
def test_an_override_is_read_as_it_was_given(value: Any) -> None:
    assert parse_override(to_override("a.b", value)) == ("a.b", value)


@pytest.mark.parametrize(
    ("value", "read"),
    [(np.float64(0.5), 0.5), (np.int32(3), 3), (Path("a b/c"), "a b/c"), ((1, 2), [1, 2])],
)
def test_an_override_of_another_type(value: Any, read: Any) -> None:
    found = parse_override(to_override("a.b", value))[1]
    assert found == read and type(found) is type(read)


# -- Run -----------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(fl_rec.DataError, match="which has none. Name one of the folders in runs/"):
        fl_rec.Run(tmp_path)
    with pytest.raises(fl_rec.DataError, match="which is no folder"):
        fl_rec.Run(str(tmp_path / "nothing"))


def test_a_run_that_still_trains(run: RunDirectory) -> None:
    opened = fl_rec.Run(run.path)
    assert opened.metrics == []
    with pytest.raises(fl_rec.RunError, match="A run has a result when it has ended. Received: .*, which has none yet"):
        opened.result  # noqa: B018


def test_frame(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.append_metrics(lines(2, validation_ndcg=None, regret=0.5))
    frame = SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", frame)
    rows, columns = fl_rec.Run(run.path).frame()
    assert [(each["epoch"], each["client"]) for each in rows] == [
        (epoch, client) for epoch in (1, 2) for client in (0, 1, "all")
    ]
    assert columns == ["epoch", "client", *FIGURES, "top_k", "test_tied", "regret"]
    assert all(list(each) == columns and not any(value != value for value in each.values()) for each in rows)
    assert math.isnan(fl_rec.Run(run.path).metrics[0].validation_ndcg)


def test_frame_without_pandas(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(fl_rec.RunError, match="Run.frame needs pandas. Received: .* .pip install pandas."):
        fl_rec.Run(run.path).frame()


@pytest.fixture
def ended(run: RunDirectory, make_job: MakeJob) -> fl_rec.Run:
    """A run with two saved models, of which the first is the best."""
    for epoch in (1, 2):
        model(run.model / str(epoch), epoch=epoch)
    run.write_result(RunResult(state="done", model="model/1"))
    return fl_rec.Run(run.path)


def model(folder: Path, **signature: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rec_static.pdmodel").write_bytes(b"a program")
    (folder / "model.json").write_text(json.dumps({**COUNTED, **signature}))


def test_models(ended: fl_rec.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fl_rec.Run, "config", SimpleNamespace(runner=SimpleNamespace(model_save_path=None)))
    assert ended.model() == ended.path / "model" / "1"
    assert ended.model(2) == ended.path / "model" / "2"
    with pytest.raises(fl_rec.DataError, match="A saved model is .* Received: .*model/7, which is no folder"):
        ended.model(7)
    elsewhere = ended.path / "elsewhere"
    model(elsewhere / "3", epoch=3)
    monkeypatch.setattr(fl_rec.Run, "config", SimpleNamespace(runner=SimpleNamespace(model_save_path=elsewhere)))
    assert ended.model(3) == elsewhere / "3"


def test_a_model_is_exported_once(ended: fl_rec.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[Any] = []

    def export(saved: Any, out: Path, client: int | None, data: Path | None) -> Path:
        exported.append((saved.folder, client, data))
        model(out, epoch=saved.epoch, ids={}, client="all" if client is None else client)
        return out

    monkeypatch.setattr(api, "export", export)
    monkeypatch.setattr(api, "Recommender", lambda folder: folder)
    best = ended.path / "model" / "1"
    assert ended.recommender() == ended.path / "exported" == ended.recommender()
    assert exported == [(best, None, None)]
    ended.export(client=1, data="shards")
    assert ended.recommender() == ended.path / "exported", "that was client 1's"
    assert exported[1:] == [(best, 1, Path("shards")), (best, None, None)]
    monkeypatch.setattr(fl_rec.Run, "config", SimpleNamespace(runner=SimpleNamespace(model_save_path=None)))
    assert ended.export(ended.path / "other", epoch=2) == ended.path / "other"
    assert exported[3:] == [(ended.path / "model" / "2", None, None)]


# -- prepare -------------------------------------------------------------------------------------------------


def test_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = list(logging.getLogger().handlers)
    source = "synthetic:num_users=20,num_items=30,positives=200"
    out = fl_rec.prepare(source, tmp_path / "data", num_neg=1, validation=True, test_negative=None)
    meta = json.loads((out / "meta.json").read_text())
    assert (meta["num_users"], meta["num_neg"], meta["validation_users"]) == (20, 1, 20)
    assert logging.getLogger().handlers == handlers
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_negs": 4}, "fl_rec.prepare: unrecognized arguments: --num_negs=4. It takes source, "),
        ({"num_ne": 4}, "fl_rec.prepare: unrecognized arguments: --num_ne=4. "),
        ({"num_neg": "many"}, "fl_rec.prepare: argument --num_neg: invalid int value: 'many'. "),
        ({"public": 2}, "--public must be 0 or more, and below 1. Received: 2.0"),
    ],
)
def test_an_option_that_is_refused(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(fl_rec.ConfigError) as caught:
        fl_rec.prepare("synthetic", tmp_path, **options)
    assert str(caught.value).startswith(text)
