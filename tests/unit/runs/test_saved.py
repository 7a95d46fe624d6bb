"""Which model a path names, and what is there without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fl_rec import cli
from fl_rec.errors import DataError
from fl_rec.runs import saved
from fl_rec.runs.renumber import COUNTED
from fl_rec.runs.saved import SavedModel


def make_model(folder: Path, **signature: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "rec_static.pdmodel").write_bytes(b"a program")
    (folder / "model.json").write_text(json.dumps({**COUNTED, **signature}))
    return folder


def make_run(path: Path, state: str = "done", epochs: int = 2, best: int = 2) -> Path:
    for epoch in range(1, epochs + 1):
        make_model(path / "model" / str(epoch), epoch=epoch)
    records = [
        {"client": client, "epoch": epoch, "hr": epoch / 10} for epoch in range(1, epochs + 1) for client in (0, "all")
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "result.json").write_text(json.dumps({"state": state, "model": str(path / "model" / str(best))}))
    return path


def test_a_run_is_its_best_epoch_also_after_it_was_moved(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a run", best=1)
    moved = run.rename(tmp_path / "moved")
    model = SavedModel.open(moved)
    assert (model.folder, model.epoch) == (moved / "model" / "1", 1)
    assert model.metrics() == {"client": "all", "epoch": 1, "hr": 0.1}


@pytest.mark.parametrize("inside", ["model/1", "exported"])
def test_a_folder_in_a_run_knows_its_run(tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    make_model(run / "exported", epoch=1, ids={}, client=0)
    monkeypatch.chdir(run)
    model = SavedModel.open(Path(inside))
    assert model.run is not None and model.run.path.resolve() == run
    assert model.exported == (inside == "exported")
    assert model.client == (0 if inside == "exported" else None)
    assert model.metrics(client=0) == {"client": 0, "epoch": 1, "hr": 0.1}


def test_a_model_outside_of_any_run(tmp_path: Path) -> None:
    model = SavedModel.open(make_model(tmp_path / "model", epoch=3))
    assert (model.run, model.metrics()) == (None, {})
    with pytest.raises(DataError, match="A saved model tells its configuration in model.json"):
        model.config()


@pytest.mark.parametrize(
    ("path", "received"),
    [("run/model", "which has no model."), ("run/nothing", "which is no folder."), ("run/result.json", "no folder.")],
)
def test_a_folder_without_a_model(tmp_path: Path, path: str, received: str) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(DataError, match="A saved model is a run's folder that has a result.json") as error:
        SavedModel.open(tmp_path / path)
    assert str(error.value).endswith(received)


@pytest.mark.parametrize("name", ["9" * 300, "a\0b"])
def test_a_result_that_names_a_model_as_none_can_be(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "model": name}))
    with pytest.raises(DataError, match="A saved model is a run's folder .* has no model"):
        SavedModel.open(run)


def test_a_run_that_has_failed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", state="failed")
    with pytest.raises(DataError, match="of state failed. Name one of the epochs that it saved: .*model/EPOCH"):
        SavedModel.open(run)
    assert SavedModel.open(run / "model" / "1").epoch == 1


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "result.json").unlink()
    with pytest.raises(DataError, match="is there when the run has ended well. Received: .*, of state not ended"):
        SavedModel.open(run)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_signature_that_is_cut_off(tmp_path: Path, text: str) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "model.json").write_text(text)
    with pytest.raises(DataError, match="A model.json must be readable JSON. Received: "):
        SavedModel.open(folder)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty `runs` of a project, which is the current folder."""
    runs = tmp_path / "project" / "runs"
    runs.mkdir(parents=True)
    monkeypatch.chdir(runs.parent)
    return runs


def set_age(path: Path, seconds: int) -> None:
    os.utime(path, (1_000_000_000 - seconds, 1_000_000_000 - seconds))


def test_the_newest_run_that_has_ended_well(runs: Path, tmp_path: Path) -> None:
    for age, (name, state) in enumerate({"z": "failed", "m": "done", "a": "done"}.items()):
        set_age(make_run(runs / name, state) / "result.json", age)
    assert saved.newest_run().resolve() == runs / "m"
    assert saved.newest_run() == Path("runs/m"), "as it is shown"


def test_runs_are_found_in_the_current_folder_and_in_no_other_place(runs: Path, tmp_path: Path) -> None:
    """Above all not in the clone's, in which this test's package lies."""
    make_run(tmp_path / "runs" / "b")
    make_run(runs / "a" / "runs" / "c")
    with pytest.raises(DataError) as error:
        saved.newest_run()
    assert str(error.value) == (
        "Unless a model is named, the newest run is taken that has ended well. Received: none in "
        f"{runs}. Train a model with fl-rec run, go to your project's folder, or name it, or a run's folder."
    )


def test_the_newest_export(runs: Path) -> None:
    for age, name in enumerate(("b", "a")):
        set_age(make_model(runs / name / "exported", ids={}) / "model.json", age)
    assert saved.newest_export() == Path("runs/b/exported")
    set_age(make_run(runs / "failed", "failed") / "result.json", -5)
    set_age(make_run(runs / "a") / "result.json", 3)
    assert saved.newest_export() == Path("runs/b/exported")


def test_an_export_that_is_older_than_a_run_is_no_longer_the_newest(runs: Path) -> None:
    assert saved.newest_export() is None
    set_age(make_model(runs / "b" / "exported", ids={}) / "model.json", 3)
    set_age(make_run(runs / "a") / "result.json", 2)
    assert saved.newest_export() is None


def test_a_project_is_its_newest_run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"Received: none in {runs}"):
        SavedModel.open(runs.parent)
    set_age(make_run(runs / "old", best=1) / "result.json", 5)
    new = make_run(runs / "new", best=2)
    make_model(new / "exported", ids={})
    monkeypatch.chdir(tmp_path)
    assert SavedModel.open(Path("project")).folder == Path("project/runs/new/model/2")
    assert saved.newest_export(Path("project")) == Path("project/runs/new/exported")
    (new / "runs").mkdir()
    assert SavedModel.open(new).epoch == 2, "a run is no project"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "Unless a model is named, the newest run is taken that has ended well. Received: none in "),
        (["evaluate"], "Unless a model is named, the newest run is taken that has ended well. Received: none in "),
        (
            ["recommend", "--user", "1"],
            "Unless a model is named, the newest run is taken that has ended well. Received: none in ",
        ),
        (["recommend", "--user", "1", "--model", "nowhere"], "A saved model is a run's folder that has a result.json"),
    ],
)
def test_no_model_at_all(runs: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"fl-rec: error: {message}")


def test_an_epochs_model_has_no_names(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(runs / "a")
    assert cli.main(["recommend", "--user", "1", "--model", str(run)]) == 2
    assert f"which is a run's own. Export it: fl-rec export {run}" in capsys.readouterr().err


def test_where_its_data_is(tmp_path: Path) -> None:
    """As its run tells, or as it lies from the model, or as an earlier version wrote it."""
    lies = {"train_data_dir": "../data/train", "test_data_dir": None}
    model = SavedModel.open(make_model(tmp_path / "model", data=lies, config={"runner": {"seed": 3}}))
    assert model.data_dirs == {"train_data_dir": tmp_path / "data" / "train"}
    assert model.config().runner.train_data_dir == tmp_path / "data" / "train"
    old = {"runner": {"train_data_dir": "/old/train", "test_data_dir": "/old/test"}}
    model = SavedModel.open(make_model(tmp_path / "old", config=old))
    assert model.data_dirs == {"train_data_dir": Path("/old/train"), "test_data_dir": Path("/old/test")}
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text("runner: {train_data_dir: /its/train}\n")
    assert SavedModel.open(run).data_dirs == {"train_data_dir": Path("/its/train")}
    model = SavedModel.open(make_model(tmp_path / "moved", config={"runner": {}}))
    assert model.data_dirs == {} and model.config().runner.test_data_dir is None
