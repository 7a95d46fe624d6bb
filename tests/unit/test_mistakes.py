"""Typical mistakes: each is told in words, with the remedy, on one screen, before anything is started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_rec import cli, environment
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult

COLUMNS, LINES = 80, 24
MakeJob = Callable[..., Path]


@dataclass
class Mistake:
    """What somebody types, and what must be in the answer.

    Attributes:
        typed: the command line; {job}, {folder} and {run} stand for a sound configuration, its folder, an ended run.
        told: texts that the answer has, the remedy among them.
        files: what lies beside the configuration, by name.
    """

    typed: str
    told: tuple[str, ...]
    files: dict[str, str]


def mistake(typed: str, *told: str, **files: str) -> Any:
    return pytest.param(Mistake(typed, told, files), id=typed)


PARTITIONER = """
import numpy as np

def by_mood(users, num_shards, rng):
    return np.array([mood for mood in users.mood])
"""
SOURCE = """
def mine(seed):
    return [][0]
"""

MISTAKES = [
    # An option that is a key, or none.
    mistake("run -m {job} --epochs 3", "-o runner.epochs=3"),
    mistake("run -m {job} --lr=0.1", "-o hyper_parameters.optimizer.learning_rate=0.1"),
    mistake("run -m {job} --worker-num 2", "Did you mean --worker_num?"),
    mistake("run {job}", "A configuration is named by -m: -m "),
    mistake("run -m {job} -o {job}", "A configuration is named by -m: -m "),
    mistake("run runner.epochs=3", "A key is set by -o: -o runner.epochs=3"),
    mistake("{job}", "fl-rec run -m "),
    mistake("-m {job}", "a command comes first, as in fl-rec run -m "),
    mistake("train -m {job}", "there is no command 'train'. Did you mean run?"),
    mistake("evalute", "Did you mean evaluate?"),
    # Keys and their values.
    mistake("run -m {job} -o optimizer.lr=0.1", "Did you mean hyper_parameters.optimizer.learning_rate?"),
    mistake("run -m {job} -o runner.epoch=3", "Did you mean runner.epochs?"),
    mistake("run -m {job} -o epochs=3", "Did you mean runner.epochs?"),
    mistake("run -m {job} -o runner.epochs", "must be key=value", "Did you mean runner.epochs=VALUE?"),
    mistake("run -m {job} -o runner.epochs=three", "must be an integer of at least 1", "Set it to 1 or more."),
    mistake("run -m {job} -o runner.sync_mode=gpubox", "Set it to geo."),
    mistake("run -m {job} -o runner.reader_type=DataLoader", "a reader of your own becomes the pipe_command"),
    mistake(
        "run -m {job} -o runner.with_coordinator=1", "Remove it: fleetrun --coordinator_num=1 starts a coordinator."
    ),
    mistake("run -m {job} -o runner.early_stopping=2", "Set it to the folder that fl-rec prepare --validation"),
    mistake("run -m {job} -o privacy.clip=1", "Set it to 1 or more, or leave privacy.clip out."),
    mistake("run -m {job} -o hyper_parameters.num_users=1", "must be at least 2", "leave the key out"),
    mistake("run -m {job} -o hyper_parameters.loss=focl", "Did you mean focal?"),
    mistake("config runner.geo_steps", "Did you mean runner.geo_step?"),
    # Files.
    mistake("run -m nowhere.yaml", "nowhere.yaml: cannot be read as a configuration: No such file", "Give a YAML file"),
    mistake(
        "run -m {folder}/torn.yaml", "torn.yaml: not valid YAML at line 2", **{"torn.yaml": "runner:\n\tepochs: 3\n"}
    ),
    mistake("run -m {folder}/flat.yaml", "Did you mean runner.epochs?", **{"flat.yaml": "epochs: 3\n"}),
    mistake("run -m {job} -o runner.train_data_dir=gone", "/a job/gone", "fl-rec partition"),
    mistake("run -m {job} -o runner.model_path=gone.py", "gone.py", "StaticModel"),
    mistake("run -m {job} -o runner.model_path=net.py", "net.py, line 1: ", **{"net.py": "class StaticModel\n"}),
    mistake(
        "run -m {job} -o runner.model_path=net.py",
        "net.py, line 1: there is no module 'tensorflow_recommenders'. Put it beside the file, install it",
        **{"net.py": "import tensorflow_recommenders\n"},
    ),
    mistake("run -m {job} --script gone.py", "--script must name a training script. Received: gone.py"),
    mistake("run -m {job} -o runner.run_dir={run}", "A run directory holds one run", "leave the key out"),
    # The job.
    mistake("run -m {job} --worker_num 7", "7", "shards"),
    mistake("run -m {job} --coordinator_num 3", "invalid choice: 3 (choose from 0, 1)"),
    mistake("run -m {job} --servers 127.0.0.1:99999", "with ports from 1 to 65535", "Leave it out"),
    mistake("run -m {job} --servers localhost", "must name one host:port per server", "Leave it out"),
    mistake("run -m {job} --coordinator_num 1 -o coordinator.strategy=join_al", "Did you mean join_all?"),
    # What comes before and after training.
    mistake("prepare --source nowhere.csv --out x", "nowhere.csv"),
    mistake("prepare --source mine.py:mine --out x", "IndexError", "mine.py, line 3", **{"mine.py": SOURCE}),
    mistake("partition --data nowhere", "nowhere", "fl-rec prepare"),
    mistake("export", "Train a model with fl-rec run"),
    mistake("evaluate", "Train a model with fl-rec run"),
    mistake("recommend --user 7", "Train a model with fl-rec run"),
    mistake("export {run}/model/7", "which is no folder"),
    mistake("resume nowhere", "RUN must be a run's folder"),
    mistake("compare {run}", "Two to 26 different runs are compared. Received: 1"),
    mistake("compare 1234 {run}", "by the end of its name in runs/", "fl-rec runs lists them"),
    mistake("runs remove 1234", "fl-rec runs lists them"),
]


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("no process may be started")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(environment, "check", lambda: None)


@pytest.fixture
def ended(tmp_path: Path) -> RunDirectory:
    run, _ = RunDirectory.claim(tmp_path / "ended", "another job")
    run.write_result(RunResult(state="done", model="model/1"))
    return run


def screens(text: str) -> float:
    return sum(-(-len(line) // COLUMNS) or 1 for line in text.splitlines()) / LINES


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("each", MISTAKES)
def test_it_is_told_with_the_remedy_on_one_screen(
    each: Mistake,
    make_job: MakeJob,
    ended: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = make_job()
    for name, text in each.files.items():
        (job.parent / name).write_text(text)
    monkeypatch.chdir(job.parent)
    words = {"job": job, "folder": job.parent, "run": ended.path}
    try:
        code: Any = cli.main([word.format(**words) for word in each.typed.split()])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    for text in each.told:
        assert text in err
    assert "Traceback" not in err and screens(err) <= 1
    assert not (tmp_path / "run").exists()


TOOLS = sorted((environment.CLONE / "tools").glob("*.py"))


def test_there_are_thirty() -> None:
    assert len({each.values[0].typed for each in MISTAKES}) >= 30


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("fl_rec/cli.py", ["run"]),
        ("datasets/movielens/prepare.py", ["--help"]),
        *((f"tools/{path.name}", ["--help"]) for path in TOOLS if "__main__" in path.read_text()),
    ],
)
def test_no_environment_is_active(script: str, arguments: list[str]) -> None:
    """A Python without the packages that fl_rec needs."""
    code = "import sys, runpy; sys.path.insert(0, sys.argv[1]); sys.argv[1:] = sys.argv[3:]; "
    code += f"runpy.run_path({str(environment.CLONE / script)!r}, run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code, str(environment.CLONE), "-", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert "this Python lacks the package " in done.stderr and sys.executable in done.stderr
    assert "In a clone: ./fl_run.sh COMMAND" in done.stderr and "source .venv-3.0.0/bin/activate" in done.stderr
    assert "Traceback" not in done.stderr and screens(done.stderr) <= 1


def test_a_partitioner_of_ones_own_that_raises(
    once_prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (once_prepared / "mine.py").write_text(PARTITIONER)
    monkeypatch.chdir(once_prepared)
    code = cli.main(["partition", "--data", ".", "--out", "shards", "--partitioner", "mine.py:by_mood"])
    err = capsys.readouterr().err
    assert code == 2
    assert "Partitioner mine.py:by_mood failed: AttributeError: " in err and "(mine.py, line 5)" in err
    assert "Traceback" not in err and screens(err) <= 1


@pytest.fixture
def once_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A few interactions, prepared."""
    lines = [f"{user},{item},{user + item}" for user in range(6) for item in range(user % 3, 9)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,time", *lines]) + "\n")
    source = ["--source", str(tmp_path / "clicks.csv"), "--columns", "user=user,item=item,time=time"]
    assert cli.main(["prepare", *source, "--out", str(tmp_path / "data"), "--min_interactions", "1"]) == 0
    capsys.readouterr()
    return tmp_path / "data"
