"""The run directory: who may have it, and that what is written by many at once stays whole."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_rec.errors import RunError
from fl_rec.runs.directory import JOB_KEY, RunDirectory, default_path, runs_folder
from fl_rec.runs.result import RunResult

DEADLINE = 30.0


def refusal(path: Path, owner: str = "me") -> str:
    with pytest.raises(RunError) as caught:
        RunDirectory.claim(path, owner)
    return str(caught.value)


def in_processes(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(0)`, ..., `work(count - 1)` return, each in a process of its own."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [
        context.Process(target=lambda index: results.put(work(index)), args=(index,), daemon=True)
        for index in range(count)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(DEADLINE)
        if child.exitcode is None:
            child.kill()
    assert [child.exitcode for child in children] == [0] * count
    return [results.get() for _ in children]


def test_new_directory_has_all_that_roles_write_to(tmp_path: Path) -> None:
    run, made = RunDirectory.claim(tmp_path / "runs" / "first", "me")
    assert made
    assert run.path == tmp_path / "runs" / "first"
    assert run.log.is_dir() and run.roles.is_dir()
    assert run.metrics.read_text() == run.tables.read_text() == ""
    assert not run.result.exists()
    assert sorted(path.name for path in run.path.iterdir()) == ["job", "log", "metrics.jsonl", "roles", "tables.txt"]


def test_role_of_the_same_job_joins(tmp_path: Path) -> None:
    run, _ = RunDirectory.claim(tmp_path, "me")
    run.append_table("epoch 1")
    joined, made = RunDirectory.claim(tmp_path, "me")
    assert (joined, made) == (run, False)
    assert run.tables.read_text() == "epoch 1\n\n"


def test_directory_of_another_run_is_left_alone(tmp_path: Path) -> None:
    run, _ = RunDirectory.claim(tmp_path, "an earlier job")
    run.write_result(RunResult(state="done"))
    assert refusal(tmp_path) == (
        f"A run directory holds one run, and this one has had its own. Received: runner.run_dir={tmp_path}. "
        "Name another, leave the key out, or move the old run away."
    )
    assert run.read_result() == RunResult(state="done")


def test_one_of_many_roles_makes_it(tmp_path: Path) -> None:
    made = in_processes(6, lambda _index: RunDirectory.claim(tmp_path / "run", "one job")[1])
    assert sorted(made) == [False] * 5 + [True]


def test_what_came_to_nothing_is_given_back(tmp_path: Path) -> None:
    run, _ = RunDirectory.claim(tmp_path / "run", "me")
    run.config.write_text("x")
    run.write_result(RunResult(state="failed"))
    (run.roles / "worker.0.json").write_text("{}")
    run.adopt("ab" * 16)
    assert run.identity == "ab" * 16 and run.give_back()
    assert not run.path.exists()
    run, made = RunDirectory.claim(tmp_path / "run", "another")
    run.audit.write_text("south was refused")
    assert made and run.give_back()
    assert [path.name for path in run.path.iterdir()] == ["audit.jsonl"]
    assert RunDirectory.claim(tmp_path / "run", "a third one")[1]


def test_what_was_there_before_is_not_given_back(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for name in ("log/mine", "notes.txt", "tables.txt"):
        (tmp_path / name).write_text("mine")
    run, _ = RunDirectory.claim(tmp_path, "me")
    (tmp_path / "came-meanwhile").touch()
    assert run.give_back()
    assert sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")) == [
        *("came-meanwhile", "log", "log/mine", "notes.txt", "tables.txt"),
    ]
    assert (tmp_path / "tables.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    run, _ = RunDirectory.claim(tmp_path / "empty", "me")
    assert run.give_back() and run.path.is_dir()


@pytest.mark.parametrize("begun", ["metrics.jsonl", "checkpoint", "privacy"])
def test_a_run_with_an_epoch_is_not_given_back(tmp_path: Path, begun: str) -> None:
    run, _ = RunDirectory.claim(tmp_path / "run", "me")
    run.metrics.write_text("{}\n") if begun == "metrics.jsonl" else (run.path / begun).mkdir()
    assert not run.give_back() and (run.path / "job").is_file()


def test_path_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run"
    assert refusal(path) == (
        f"The run directory must be writable. Received: {path} (Not a directory). "
        "Free some space, mend its permissions, or name another: -o runner.run_dir=PATH"
    )


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert f"Received: {tmp_path} (No space left on device)." in refusal(tmp_path)


def test_files_of_the_user_are_not_overwritten(tmp_path: Path) -> None:
    # runner.run_dir: "." in a config.yaml, over which the resolved configuration would be written.
    (tmp_path / "config.yaml").write_text("# my notes\n")
    assert "config.yaml" in refusal(tmp_path)


def test_metrics_of_many_processes_stay_whole_lines(run: RunDirectory) -> None:
    def work(index: int) -> None:
        for epoch in range(1, 41):
            run.append_metrics([{"client": index, "epoch": epoch, "filler": "x" * 500}])

    in_processes(4, work)
    found = sorted((record["client"], record["epoch"]) for record in run.read_metrics())
    assert found == [(client, epoch) for client in range(4) for epoch in range(1, 41)]


def test_metrics_are_read_by_epoch_and_client(run: RunDirectory) -> None:
    """Each worker adds its own, in any order."""
    run.append_metrics([{"epoch": 1, "client": 10, "note": "é"}, {"epoch": 1, "client": "all"}])
    run.append_metrics([{"epoch": 2, "client": 2}])
    run.append_metrics([{"epoch": 1, "client": 2}, {"epoch": 2, "client": "all"}, {"epoch": 2, "client": 0}])
    found = [(each["epoch"], each["client"]) for each in run.read_metrics()]
    assert found == [(1, 2), (1, 10), (1, "all"), (2, 0), (2, 2), (2, "all")]
    assert run.read_metrics()[1]["note"] == "é"


def test_a_torn_line_is_told_and_the_rest_is_read(run: RunDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """As a full disk leaves it, also in the middle of a letter."""
    run.append_metrics([{"epoch": 1, "client": 0}])
    with open(run.metrics, "ab") as file:
        file.write('{"epoch": 1, "note": "é'.encode()[:-1])
    run.append_metrics([{"epoch": 1, "client": 1}])
    with caplog.at_level(logging.WARNING):
        assert [each["client"] for each in run.read_metrics()] == [0, 1]
    (told,) = caplog.messages
    assert told.startswith(f"note: {run.metrics}, line 2 is torn, and left out (")


def test_a_line_that_the_disk_has_no_room_for_is_an_error(run: RunDirectory) -> None:
    run.append_metrics([{"epoch": 1, "client": 0}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (run.metrics.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            run.append_metrics([{"epoch": 1, "client": 1}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run.append_metrics([{"epoch": 1, "client": 2}])
    assert [each["client"] for each in run.read_metrics()] == [0, 2]


def test_a_run_is_its_users_own_and_has_a_name_of_its_own(run: RunDirectory, tmp_path: Path) -> None:
    assert {each.stat().st_mode & 0o777 for each in (run.path, run.log, run.roles)} == {0o700}
    other, _ = RunDirectory.claim(tmp_path / "other", "me")
    assert re.fullmatch("[0-9a-f]{32}", run.identity) and run.identity != other.identity
    (other.path / "job").write_text("me")
    assert other.identity == "", "of an earlier version"


def test_by_what_the_roles_of_a_job_know_each_other(run: RunDirectory, tmp_path: Path) -> None:
    """By what they were told, or by their run or, on several hosts, which have a run each, by their addresses."""
    other, _ = RunDirectory.claim(tmp_path / "other", "another")
    here = {"PADDLE_PSERVERS_IP_PORT_LIST": "10.0.0.1:1,10.0.0.1:2", "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:3"}
    wide = {**here, "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:3,10.0.0.2:3"}
    told = {JOB_KEY: "told"}
    assert run.job({**here, **told}) == other.job({**wide, **told}) == other.job(told)
    assert run.job(here) == run.job({**here, "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:4"}) != other.job(here)
    assert run.job(wide) == other.job(wide) != run.job({**wide, "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:3,10.0.0.2:4"})
    known = {run.job(told), run.job(here), other.job(here), run.job(wide)}
    assert len(known) == 4 and all(re.fullmatch("[0-9a-f]{32}", each) for each in known)
    assert run.identity not in known, "which stands in the run's files"


def test_tables_are_set_apart_by_an_empty_line(run: RunDirectory) -> None:
    run.append_table("epoch 1\nworker 0")
    run.append_table("epoch 2")
    assert run.tables.read_text() == "epoch 1\nworker 0\n\nepoch 2\n\n"


def test_result_is_replaced_whole(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write_result(RunResult(state="done", workers=2))
    assert run.read_result() == RunResult(state="done", workers=2)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        run.write_result(RunResult(state="failed"))
    assert json.loads(run.result.read_text())["state"] == "done"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("started", [1704164644.6, 1704164645.0, 1704164645.4])
def test_default_path_is_beside_the_configuration(tmp_path: Path, utc: None, started: float) -> None:
    path = default_path(tmp_path / "my project" / "job.yaml", started, 77)
    assert path == tmp_path.resolve() / "my project" / "runs" / "job-20240102-030405-77"


def test_where_runs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the configuration as it was named; a clone's are those of the clone, a run's are beside the run."""
    clone, project = tmp_path / "clone", tmp_path / "project"
    for folder in (clone / "configs" / "mine", project / "configs"):
        folder.mkdir(parents=True)
    (clone / "fl_run.sh").touch()
    assert runs_folder(clone / "configs" / "a.yaml") == clone / "runs"
    assert runs_folder(clone / "configs" / "mine" / "a.yaml") == clone / "configs" / "mine" / "runs"
    assert runs_folder(project / "configs" / "a.yaml") == project / "configs" / "runs"
    monkeypatch.chdir(clone / "configs" / "mine")
    assert runs_folder(Path("../a.yaml")) == clone / "runs"
    (project / "job.yaml").symlink_to(clone / "configs" / "a.yaml")
    assert runs_folder(project / "job.yaml") == project / "runs"
    run, _ = RunDirectory.claim(project / "runs" / "first", "me")
    assert runs_folder(run.config) == project / "runs"
