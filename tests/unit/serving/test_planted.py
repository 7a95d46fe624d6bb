"""A command that is planted in a file which a person may receive is not run, and a path chooses none of the user's own
files: a test per kind of file.

Operators of a saved model are in tests/paddle/test_models.py.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from fl_rec import cli
from fl_rec.config import Config
from fl_rec.errors import ConfigError, DataError
from fl_rec.files import read_arrays
from fl_rec.job import attempts
from fl_rec.runs import private_parts
from fl_rec.runs.directory import Launch, RunDirectory

MakeJob = Callable[..., Path]
PLANTED = "has code or a command run, and a run or a model may be somebody else's"
CODE = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What would be there if a planted command were run; the current folder is an empty one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "planted"
    yield path
    assert not path.exists()


def model_with(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "rec_static.pdmodel").write_bytes(b"a program")
    (folder / "model.json").write_text(
        json.dumps({"first_epoch": 1, "epoch": 1, "identity": {}, "files": {}, "config": config})
    )
    return folder


@pytest.mark.parametrize("command", ["evaluate", "evaluate an export", "evaluate a run"])
def test_a_pipe_command_of_a_model(
    command: str, planted: Path, tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_job().parent / "data" / "fl_test_data"
    config = {"runner": {"train_data_dir": str(data), "pipe_command": f"touch {planted}; cat"}}
    run = tmp_path / "run"
    folder = {"evaluate a run": run, "evaluate an export": run / "exported"}.get(command, tmp_path / "model")
    made = model_with(run / "model" / "1" if folder == run else folder, config)
    if folder == run:
        (run / "metrics.jsonl").touch()
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "result.json").write_text(json.dumps({"state": "done", "model": str(made)}))
    assert cli.main(["evaluate", str(folder), "--data", str(data)]) == 2
    said = capsys.readouterr().err
    assert f"{made}/model.json: runner.pipe_command {PLANTED}" in said
    assert "-o runner.pipe_command=..., or -m FILE with your configuration." in said


def test_a_script_beside_a_model(
    planted: Path, tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is named in -o is looked for where the user is."""
    data = make_job().parent / "data" / "fl_test_data"
    model = model_with(tmp_path / "model", {"runner": {"train_data_dir": str(data)}})
    (model / "reader.py").write_text(CODE.format(str(planted)))
    arguments = ["evaluate", str(model), "--data", str(data), "-o", "runner.pipe_command=python reader.py"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert "must name a script that exists. Received: 'reader.py', looked for in" in said and str(model) not in said


def run_with(make_job: MakeJob, folder: Path, *overrides: str, **sections: Any) -> RunDirectory:
    """A recorded run whose configuration has these sections too."""
    run, _ = RunDirectory.claim(folder, "somebody else")
    tree = Config.load(make_job(), overrides).to_dict()
    for name, values in sections.items():
        tree[name].update(values)
    run.config.write_text(yaml.safe_dump(tree))
    figures: dict[str, Any] = dict.fromkeys(("train_loss", "train_auc", "test_auc", "hr", "ndcg"), 0.5)
    records = [
        {"client": client, "epoch": 1, "rows": 6, "seconds": 1.0, "test_users": 2, **figures} for client in (0, 1)
    ]
    run.append_metrics(records)
    return run


@pytest.mark.parametrize("again", [["--dry"], []], ids=["dry", "again"])
@pytest.mark.parametrize(
    ("key", "coordinator"),
    [
        ("coordinator.strategy", {"strategy": "{}/fl_planted.py:Planted"}),
        ("coordinator.strategy", {"strategy": "fl_planted.py:Planted"}),
        ("coordinator.options", {"strategy": "distill", "options": {"selection": "{}/fl_planted.py:Planted"}}),
    ],
)
def test_a_strategy_of_a_run(
    key: str,
    coordinator: dict[str, Any],
    again: list[str],
    planted: Path,
    tmp_path: Path,
    make_job: MakeJob,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    named = json.loads(json.dumps(coordinator).replace("{}/", f"{folder}/"))
    run = run_with(make_job, folder, coordinator=named)
    for place in (folder, tmp_path / "here"):
        (place / "fl_planted.py").write_text(CODE.format(str(planted)))
    assert cli.main(["coordinator", str(run.path), *again]) == 2
    assert f"{run.config}: {key} {PLANTED}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "key",
    ["runner.pipe_command", "runner.model_path", "runner.exchange", "hyper_parameters.loss", "coordinator.strategy"],
)
def test_a_run_that_is_to_go_on(
    key: str, planted: Path, tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    section, name = key.split(".")
    file = folder / "fl_planted.py"
    values = {"pipe_command": f"touch {planted}; cat", "model_path": str(file)}
    run = run_with(make_job, folder, **{section: {name: values.get(name, f"{file}:Planted")}})
    Launch(2, 1, 0).write(run)
    file.write_text(CODE.format(str(planted)))
    assert cli.main(["resume", str(run.path)]) == 2
    assert f"{run.config}: {key} {PLANTED}" in capsys.readouterr().err


def test_a_folder_that_a_run_would_replace(
    tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with(make_job, tmp_path / "run", runner={"model_save_path": str(tmp_path / "theirs")})
    Launch(2, 1, 0).write(run)
    assert cli.main(["resume", str(run.path)]) == 2
    says = f"{run.config}: runner.model_save_path has folders there replaced and removed, and a run or a model may be "
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", ["coordinator", "log", "model", "audit.jsonl", "log/server.0", "checkpoint/1"])
def test_a_link_out_of_a_run(name: str, tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    """A strategy's files are removed when a run goes on, logs moved, models replaced."""
    run = run_with(make_job, tmp_path / "run")
    theirs = tmp_path / "theirs"
    (theirs / "1").mkdir(parents=True)
    for path in (theirs / "notes.txt", theirs / "1" / "notes.txt"):
        path.write_text("of the user's own")
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    link = run.path / name
    if link.is_dir():
        link.rmdir()
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("../theirs" if "/" not in name else theirs / "notes.txt")
    says = re.escape(f"Received: {link}, a link to '") + ".*notes.txt'" * ("/" in name)
    with pytest.raises(DataError, match=says):
        attempts.take_up(run, as_checked(run))
    assert cli.main(["coordinator", str(run.path)]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert {path: path.stat().st_mtime_ns for path in theirs.rglob("*")} == before


def test_a_link_within_a_run(tmp_path: Path, make_job: MakeJob) -> None:
    """Also where the run's folder is reached through one."""
    run = run_with(make_job, tmp_path / "run")
    (run.log / "newest").symlink_to("../metrics.jsonl")
    (run.path / "model").symlink_to(run.path.resolve() / "log")
    (tmp_path / "link").symlink_to("run")
    again = RunDirectory(tmp_path / "link")
    assert attempts.take_up(again, as_checked(again)) is None


def as_checked(run: RunDirectory) -> Any:
    return SimpleNamespace(config=Config.load(run.config))


def test_a_training_script_of_a_run(
    planted: Path, tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with(make_job, tmp_path / "run")
    script = run.path / "trainer.py"
    script.write_text(CODE.format(str(planted)))
    Launch(2, 1, 0, str(script)).write(run)
    assert cli.main(["resume", str(run.path)]) == 2
    assert f"which is run only if you name it: --script {script}" in capsys.readouterr().err


def test_a_net_of_a_run_is_none_of_its_coordinators(
    planted: Path, tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has a net of one's own may start a coordinator again without naming it; a teacher would be one."""
    folder = tmp_path / "run"
    run = run_with(make_job, folder, runner={"model_path": str(folder / "net.py"), "pipe_command": f"touch {planted}"})
    (folder / "net.py").write_text(CODE.format(str(planted)))
    assert cli.main(["coordinator", str(run.path), "--dry"]) == 0
    assert "2 JOIN, 0 WAIT, 0 FINISH" in capsys.readouterr().out
    assert cli.main(["coordinator", str(run.path), "--dry", "-o", "coordinator.strategy=distill"]) == 2
    assert PLANTED in capsys.readouterr().err


def test_the_users_own_strategy_is_imported(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same file, once the user has named it."""
    run = run_with(make_job, tmp_path / "run", coordinator={"strategy": "fl_own.py:Own"})
    monkeypatch.chdir(tmp_path)
    text = "from fl_rec.coordinator.strategies.join_all import JoinAll\nclass Own(JoinAll): pass\n"
    (tmp_path / "fl_own.py").write_text(text)
    assert cli.main(["coordinator", str(run.path), "--dry", "-o", "coordinator.strategy=fl_own.py:Own"]) == 0
    assert "fl_own.py:Own: 2 JOIN" in capsys.readouterr().out


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_objects_in_arrays(planted: Path, tmp_path: Path) -> None:
    """Of a private part, a checkpoint, a history, a teacher, a policy."""
    path = private_parts_path = tmp_path / "0.npz"
    values = np.empty(1, object)
    values[0] = Touches(planted)
    np.savez(path, **{"users/values": values})
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        read_arrays(path, "The rule.")
    with pytest.raises(DataError, match="A worker's private part must be readable"):
        private_parts.load(private_parts_path)
    path.write_bytes(pickle.dumps(Touches(planted)))
    with pytest.raises(DataError, match="The rule"):
        read_arrays(path, "The rule.")


def test_objects_in_a_configuration(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"runner: !!python/object/apply:os.system ['touch {planted}']\n")
    with pytest.raises(ConfigError, match="could not determine a constructor for the tag"):
        Config.load(path)


def test_names_in_a_manifest(planted: Path, tmp_path: Path, make_job: MakeJob) -> None:
    """Where data is from, and how it was cut, is only told."""
    job = make_job()
    manifest = job.parent / "data" / "manifest.json"
    content = json.loads(manifest.read_text())
    (job.parent / "fl_planted.py").write_text(CODE.format(str(planted)))
    content["source"] = content["partitioner"] = {"name": f"{job.parent}/fl_planted.py:Planted"}
    manifest.write_text(json.dumps(content))
    from fl_rec.job.check import check_job

    check_job(Config.load(job), 2)
