"""The wheel, used outside of any clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, TIMEOUT

Command = Callable[..., subprocess.CompletedProcess]
NET = """
from static_model import StaticModel as NCF


class StaticModel(NCF):
    def create_feeds(self, is_infer=False):
        print("a net of one's own")
        return super().create_feeds(is_infer)
"""
YAML = """
runner: {train_data_dir: fl_data/fl_train_data, test_data_dir: fl_data/fl_test_data, model_path: fl_net.py, epochs: 1}
"""


@pytest.fixture(scope="module")
def fl_rec(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`fl_rec(*arguments, cwd=...)`: the wheel's command, in an environment that has this one's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    source, env = folder / "source", folder / "env"
    for name in ("configs", "fl_rec", "models", "tools"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("datasets/movielens/*.py"), *ROOT.glob("setup.py"), *ROOT.glob("pyproject.toml")):
        (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, source / path.relative_to(ROOT))
    shutil.copy(ROOT / "README.md", source)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: object, cwd: Path = folder) -> subprocess.CompletedProcess:
        words = list(map(str, command))
        return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT)

    for command in (
        (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source),
        (sys.executable, "-m", "venv", "--without-pip", env),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
    (packages,) = env.glob("lib/python*/site-packages")
    # No .pth of that folder is read, and so no editable install of the clone is seen.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = folder.glob("fl_rec-*.whl")
    pip = (env / "bin" / "python", "-m", "pip", "install", "-q")
    done = run(*pip, "--no-deps", "--no-index", "--ignore-installed", wheel)
    assert done.returncode == 0, done.stderr
    return lambda *arguments, cwd: run(env / "bin" / "fl-rec", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def here(fl_rec: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the built-in job ran."""
    folder = tmp_path_factory.mktemp("here")
    done = fl_rec("run", "-o", "runner.epochs=1", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["config_synthetic.yaml", "fl_rec_data", "runs"]
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("config_synthetic-") and json.loads((run / "result.json").read_text())["state"] == "done"
    assert "146,555 training rows" in done.stdout and f"done      {run / 'result.json'}" in done.stdout
    return folder


def test_from_the_built_in_job_to_a_recommendation(fl_rec: Command, here: Path) -> None:
    (run,) = (here / "runs").iterdir()
    exported = fl_rec("export", cwd=here)
    assert exported.returncode == 0, exported.stderr
    assert (run / "exported" / "model.json").is_file()
    recommended = fl_rec("recommend", "--user", 7, "--top", 3, "--format", "json", cwd=here)
    assert recommended.returncode == 0, recommended.stderr
    record = json.loads(recommended.stdout)
    assert [each["rank"] for each in record["recommendations"]] == [1, 2, 3]
    measured = fl_rec("evaluate", cwd=here)
    assert measured.returncode == 0, measured.stderr
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    (trained,) = (each for each in records if each["client"] == "all")
    assert json.loads(measured.stdout)["hr"] == pytest.approx(trained["hr"])


def test_a_folder_of_ones_own(fl_rec: Command, tmp_path: Path) -> None:
    """Data, a net beside the YAML which builds on the shipped one, and the paths' rules."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "job.yaml").write_text(YAML)
    (mine / "fl_net.py").write_text(NET)
    for command in (("prepare", "--source", "synthetic"), ("partition", "--num_shards", 2)):
        done = fl_rec(*command, cwd=mine)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("written: 2 shards, 146,555 training rows (")
    done = fl_rec("run", "-m", "job.yaml", cwd=mine)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (mine / "runs").iterdir()
    assert "a net of one's own" in (run / "log" / "workerlog.0").read_text()


def test_nothing_is_taken_from_elsewhere(fl_rec: Command, tmp_path: Path) -> None:
    done = fl_rec("export", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "fl-rec: error: Unless a model is named, the newest run is taken that has ended well. Received: none in "
        f"{tmp_path / 'runs'}. Train a model with fl-rec run, go to your project's folder, or name it, or a run's "
        "folder.\n"
    )
