"""The job without a configuration: where its data and its configuration are made."""

from __future__ import annotations

import argparse
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fl_rec import cli, environment
from fl_rec.config import Config
from fl_rec.data.manifest import load_manifest
from fl_rec.job import built_in as built_in_module
from fl_rec.job.built_in import built_in
from fl_rec.runs.directory import runs_folder

CONFIG = environment.shipped("configs/config_synthetic.yaml")


def copy_config(root: Path) -> None:
    (root / "configs").mkdir(parents=True)
    shutil.copy(CONFIG, root / "configs")


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("installed", ["from a wheel", "in a clone"])
def test_outside_of_a_clone_both_are_made_here_once(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    copy_config(tmp_path / "fl_rec" / "shipped")
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "fl_rec")
    monkeypatch.setattr(environment, "CLONE", None)
    if installed == "in a clone":
        copy_config(tmp_path / "clone")
        monkeypatch.setattr(environment, "CLONE", tmp_path / "clone")
    path = built_in()
    assert path == Path("config_synthetic.yaml")
    assert runs_folder(path) == here / "runs", "where fl-rec export looks"
    data = here / "fl_rec_data" / "synthetic" / "fl_data"
    runner = Config.load(path).runner
    assert (runner.train_data_dir, runner.test_data_dir) == (data / "fl_train_data", data / "fl_test_data")
    manifest = load_manifest(data)
    assert manifest is not None and (manifest.num_shards, manifest.totals["train_rows"]) == (10, 146_555)
    path.write_text(path.read_text().replace("epochs: 12", "epochs: 3"))
    before = tree(here)
    assert Config.load(built_in()).runner.epochs == 3, "what the user has changed stays"
    assert tree(here) == before


def test_of_a_clone_both_are_the_clones(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_config(tmp_path / "clone")
    monkeypatch.setattr(environment, "CLONE", tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone" / "configs")
    path = built_in()
    assert path == tmp_path / "clone" / "configs" / "config_synthetic.yaml"
    assert load_manifest(Config.load(path).runner.train_data_dir) is not None
    assert tree(here) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--source", "synthetic", "--seed", "-1"], "--seed must be 0 or more. Received: -1"),
        (["partition", "--seed", "-1"], "--seed must be 0 or more. Received: -1"),
        (["partition"], "--data must be a folder that fl-rec prepare wrote. Received: ., without meta.json."),
    ],
)
def test_data_commands_work_in_the_current_folder(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.endswith(f"fl-rec: error: {message}\n")
    assert tree(here) == {}


def test_two_first_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_config(tmp_path / "clone")
    monkeypatch.setattr(environment, "CLONE", tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    made: list[str] = []
    prepare = built_in_module.prepare.command

    def slowly(options: argparse.Namespace) -> int:
        made.append("once")
        both.wait(0.5)  # the other one is there, or waits for this one
        return prepare(options)

    both = threading.Event()
    monkeypatch.setattr(built_in_module.prepare, "command", slowly)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: built_in(), range(2)))
    assert paths == [tmp_path / "clone" / "configs" / "config_synthetic.yaml"] * 2
    assert made == ["once"]
    assert load_manifest(tmp_path / "clone" / "datasets" / "movielens" / "synthetic" / "fl_data") is not None
