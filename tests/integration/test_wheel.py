"""The wheel, used outside of any clone."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from fl_rec.config import Config
from fl_rec.runs.directory import RunDirectory

from .conftest import ROOT, TIMEOUT

# Says of each process of an environment, and of its forks, what Python opens, lists, makes and removes there.
WATCH = """
import os, sys

EVENTS = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.rmdir"}


def told(event, arguments):
    if event in EVENTS:
        for path in arguments[:2]:
            if isinstance(path, (str, bytes)) and path not in ("r", "w", "a", "rb", "wb", "ab"):
                os.write(file, os.fsencode(os.path.abspath(path)) + b"\\n")


if "OPENED" in os.environ:
    file = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sys.addaudithook(told)
"""


class Wheel:
    """The wheel's command, in an environment that has this one's other packages."""

    def __init__(self, folder: Path) -> None:
        self.env = folder / "env"
        source = folder / "source"
        for name in ("configs", "examples", "fl_rec", "models", "tools"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (*ROOT.glob("datasets/movielens/*.py"), *ROOT.glob("setup.py"), *ROOT.glob("pyproject.toml")):
            (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / path.relative_to(ROOT))
        shutil.copy(ROOT / "README.md", source)
        pip, quiet = ("-m", "pip"), ("-q", "--no-deps")
        self._make(sys.executable, *pip, "wheel", *quiet, "--no-build-isolation", "-w", folder, source)
        self._make(sys.executable, "-m", "venv", "--without-pip", self.env)
        (packages,) = self.env.glob("lib/python*/site-packages")
        # No .pth of that folder is read, and so no editable install of the clone is seen.
        (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport watch_what_is_opened\n")
        (packages / "watch_what_is_opened.py").write_text(WATCH)
        (wheel,) = folder.glob("fl_rec-*.whl")
        self._make(self.env / "bin" / "python", *pip, "install", *quiet, "--no-index", "--ignore-installed", wheel)
        # Half a minute saved: the same source, Python and processor.
        for compiled in ROOT.glob("fl_rec/kernels/__pycache__/kernels-*"):
            shutil.copytree(compiled, packages / compiled.relative_to(ROOT), dirs_exist_ok=True)

    def _make(self, *command: object) -> None:
        done = self.run(command, self.env.parent, {})
        assert done.returncode == 0, done.stderr

    def run(self, command: Iterable[object], cwd: Path, variables: dict[str, Path]) -> subprocess.CompletedProcess:
        hidden = ("PYTHONPATH", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
        env = {key: value for key, value in os.environ.items() if key not in hidden} | variables
        words = list(map(str, command))
        return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT)

    def __call__(self, *arguments: object, cwd: Path, **variables: Path) -> subprocess.CompletedProcess:
        return self.run((self.env / "bin" / "fl-rec", *arguments), cwd, variables)


@pytest.fixture(scope="module")
def fl_rec(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return Wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def here(fl_rec: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the built-in job ran."""
    folder = tmp_path_factory.mktemp("here")
    done = fl_rec("run", "-o", "runner.epochs=1", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["config_synthetic.yaml", "fl_rec_data", "runs"]
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("config_synthetic-") and json.loads((run / "result.json").read_text())["state"] == "done"
    assert " data      146,555 rows, " in done.stdout and f" model     {run.relative_to(folder)}/model/1" in done.stdout
    return folder


def test_from_the_built_in_job_to_a_recommendation(fl_rec: Wheel, here: Path) -> None:
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
    told = fl_rec("report", cwd=here)
    assert told.returncode == 0, told.stderr
    assert "uPlot" in (run / "report.html").read_text(encoding="utf-8"), "what the page is drawn with"


def test_a_project_of_ones_own(fl_rec: Wheel, tmp_path: Path) -> None:
    """`fl-rec new`: data, a net, a loss, a trainer and more in a folder, and nothing else is looked at."""
    mine, home, opened = (tmp_path / name for name in ("mein Projekt ü 数据", "home", "opened"))
    home.mkdir()
    temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # in pytest's folder the sockets would have too long a path
    package, variables = written(fl_rec.env), {"HOME": home, "TMPDIR": temporary, "OPENED": opened}

    def succeed(*words: object, cwd: Path = mine) -> str:
        done = fl_rec(*words, cwd=cwd, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = succeed("new", mine.name, cwd=tmp_path).replace("\\\n", "").splitlines()
    _, _, prepare, partition, train, recommend = (shlex.split(line) for line in said)
    succeed(*prepare[1:])
    assert "written: 3 shards, 6,335 training rows (2665, 2200, 1470)\n" in succeed(*partition[1:])
    succeed(*train[1:], "-o", "runner.epochs=2")
    (run,) = (mine / "runs").iterdir()
    records = RunDirectory(run).read_metrics()
    first, last = (each["train_loss"] for each in records if each["client"] == "all")
    assert last < first and first > 0.75, "of the loss in the folder; the log loss begins with 0.69"
    assert [(each["epoch"], each["client"]) for each in records if not each["rows"]] == [(1, 0), (2, 1)], "who waits"
    assert (run / "model" / "2" / "tables" / "liking").exists(), "of the net in the folder"
    loss = Config.load(run / "config.yaml").hyper_parameters.loss
    assert loss == f"{mine}/fl_loss.py:weighted", "found from the run's folder too"
    trained = next(each for each in reversed(records) if each["client"] == "all")

    here = Path("runs") / run.name
    assert succeed("export").startswith(f"model     {here / 'model' / '2'}: epoch 2, all clients, HR@10 ")
    assert "user c07, 16 items in the history: garden 88 %" in succeed(*recommend[1:])
    for folder, named in ((mine, ()), (home, ("--model", mine))):
        record = json.loads(succeed("recommend", *named, "--user", "c07", "--format", "json", cwd=folder))
        assert [each["rank"] for each in record["recommendations"]] == list(range(1, 11))
    found = [json.loads(line) for line in succeed("evaluate", here / "model" / "2", here / "exported").splitlines()]
    assert [each["model"] for each in found] == [str(here / "model" / "2"), str(here / "exported")]
    assert [each["hr"] for each in found] == pytest.approx([trained["hr"]] * 2)

    tested = fl_rec.run((fl_rec.env / "bin" / "python", "-m", "unittest"), mine, variables)
    assert tested.returncode == 0 and "Ran 1 test" in tested.stderr, tested.stdout + tested.stderr

    assert sorted(tmp_path.iterdir()) == sorted([mine, home, opened])
    assert (list(home.rglob("*")), list(temporary.rglob("*"))) == ([], [])
    temporary.rmdir()
    assert written(fl_rec.env) == package
    system = (sys.prefix, sys.base_prefix, "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/usr")
    allowed = tuple(f"{folder}/" for folder in (mine, temporary, fl_rec.env, *system))
    lines = set(opened.read_text().splitlines())
    assert {str(run / "config.yaml"), str(mine / "fl_net.py")} <= lines, "the watch works"
    assert [line for line in lines if not f"{line}/".startswith(allowed)] == []


def written(env: Path) -> dict[Path, int]:
    """When each file of an environment was written, but for what Python and numba have compiled."""
    return {
        path: path.stat().st_mtime_ns
        for path in env.rglob("*")
        if "__pycache__" not in path.parts and not path.is_dir()
    }


def test_nothing_is_taken_from_elsewhere(fl_rec: Wheel, tmp_path: Path) -> None:
    done = fl_rec("export", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "fl-rec: error: Unless a model is named, the newest run is taken that has ended well. Received: none in "
        f"{tmp_path / 'runs'}. Train a model with fl-rec run, go to your project's folder, or name it, or a run's "
        "folder.\n"
    )
