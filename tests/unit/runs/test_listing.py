"""A project's runs: their states, figures, sizes and short names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_rec.errors import DataError
from fl_rec.runs import listing, roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.listing import find_run, list_runs, named, shortened

MakeRun = Callable[..., RunDirectory]


def test_every_state(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a-20260101-000000-1", (0.1, 0.3, 0.2), {"state": "done"})
    make_run("a-20260101-000000-2", (0.1,), {"state": "failed", "error": "worker.3 was lost"})
    make_run("a-20260101-000000-3", owner=f"{os.getpid()} {roles.started()} 1")
    make_run("a-20260101-000000-4", (0.2,))
    make_run("given").result.write_text("{")
    for number, path in enumerate(sorted((tmp_path / "runs").iterdir())):
        os.utime(path / "job", (1000 + number, 1000 + number))
    found = list_runs(tmp_path)
    assert [(each.short, each.configuration, each.state, len(each.epochs)) for each in found] == [
        ("1", "a", "done", 3),
        ("2", "a", "failed", 1),
        ("3", "a", "training", 0),
        ("4", "a", "killed", 1),
        ("given", "given", "unreadable", 0),
    ]
    assert found[1].error == "worker.3 was lost"
    assert [each.started for each in found] == [1000.0, 1001.0, 1002.0, 1003.0, 1004.0], "the newest is the last"
    assert all(each.size >= 4096 for each in found)
    assert found[0].kept is not None and (found[0].kept.epoch, found[0].kept.hr) == (3, 0.2), "the last one"
    assert found[2].kept is None
    assert [each.run.path for each in list_runs(tmp_path / "runs")] == [each.run.path for each in found]


@pytest.mark.parametrize(
    ("command", "configuration", "overrides"),
    [
        ("python -m fl_rec.cli run -m configs/main.yaml --worker_num 3", "main", ()),
        (
            "fl-rec run -o runner.epochs=3 'runner.extra={a: 1}' -m main.yaml",
            "main",
            ("runner.epochs=3", "runner.extra={a: 1}"),
        ),
        ("fl-rec run --opt runner.seed=1 -o runner.epochs=2 --quiet", "folder", ("runner.seed=1", "runner.epochs=2")),
        ("python -m fl_rec.cli run -o a.b=1", "folder", ("a.b=1",)),
        ("jupyter-lab", "folder", ()),
    ],
)
def test_what_was_typed(
    make_run: MakeRun,
    begin: Callable[..., None],
    tmp_path: Path,
    command: str,
    configuration: str,
    overrides: tuple[str, ...],
) -> None:
    begin(make_run("folder"), command, hr_10=0.4)
    (found,) = list_runs(tmp_path)
    assert (found.configuration, found.overrides) == (configuration, overrides)
    assert found.popularity == {"hr@10": 0.4}


def test_a_role_that_lives_has_its_run_go_on(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("bare")
    assert list_runs(tmp_path)[0].state == listing.KILLED
    roles.write_status(run.roles, "worker.0", roles.RUNNING)
    assert list_runs(tmp_path)[0].state == listing.TRAINING


def test_the_epoch_that_validation_chose(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", (0.1, 0.3, 0.2), {"state": "done"}, validation_ndcg=[0.1, 0.4, 0.3], validation_hr=[0.1, 0.2, 0.3])
    kept = list_runs(tmp_path)[0].kept
    assert kept is not None and kept.epoch == 2


def test_a_torn_line_is_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a", (0.1, 0.3))
    with open(run.metrics, "a") as file:
        file.write('{"epoch": 3, "client": "all", "ro')
    assert [each.epoch for each in list_runs(tmp_path)[0].epochs] == [1, 2]


def test_a_folder_without_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("names", "short"),
    [
        ([], []),
        (["main-20260101-120000-17", "main-20260101-120000-18"], ["17", "18"]),
        (["main-20260101-120000-17", "main-20260102-120001-17"], ["120000-17", "120001-17"]),
        (["a-20260101-120000-17", "b-20260101-120000-17"], ["a-20260101-120000-17", "b-20260101-120000-17"]),
        (["main-20260101-120000-17-2", "main-20260101-120000-17"], ["2", "17"]),
        (["my-run", "other-run"], ["my-run", "other-run"]),
    ],
)
def test_short_names(names: list[str], short: list[str]) -> None:
    assert shortened(names) == short


def test_a_run_is_found_by_path_name_or_its_end(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run("a-20260101-000000-17"), make_run("a-20260101-000001-17")
    assert find_run(first.path) == first.path
    assert find_run("a-20260101-000000-17", tmp_path) == first.path
    assert find_run("000001-17", tmp_path) == second.path
    with pytest.raises(DataError, match="Received: 17, which is a-20260101-000000-17, a-20260101-000001-17. fl-rec ru"):
        find_run("17", tmp_path)
    with pytest.raises(DataError, match=r"Received: 7, which is none of the 2 in .*/runs\. fl-rec runs lists them\."):
        find_run("7", tmp_path)


def test_what_names_a_run_or_none(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("a-20260101-000000-17")
    monkeypatch.chdir(tmp_path)
    assert named(Path("17")).resolve() == run.path
    (tmp_path / "17").mkdir()
    assert named(Path("17")) == Path("17"), "what is there is meant"
    assert named(Path("nowhere")) == Path("nowhere")


def test_what_is_not_read_does_not_matter(make_run: MakeRun, tmp_path: Path) -> None:
    """Clients' own lines, of which there are many."""
    run = make_run("a", (0.1,), {"state": "done"})
    with open(run.metrics, "a") as file:
        file.write(json.dumps({"epoch": 1, "client": 1, "hr": "no figure"}) + "\n")
    assert list_runs(tmp_path)[0].state == "done"
