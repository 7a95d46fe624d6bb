"""`fl-rec compare`: what differs between runs, on a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_rec import cli
from fl_rec.commands.chart import chart
from fl_rec.config import Config
from fl_rec.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def two(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDirectory]:
    """Two runs of the current folder's project, of other settings and figures."""
    made = [
        make_run("main-20260101-120000-17", (0.1, 0.2), {"state": "done"}),
        make_run("main-20260101-120000-18", (0.1, 0.3, 0.4), {"state": "failed", "error": "why"}),
    ]
    (tmp_path / "job.yaml").write_text("runner: {train_data_dir: data}\n")
    other = ["runner.epochs=9", "hyper_parameters.fc_layers=[8, 4]"]
    for run, overrides in zip(made, ([], other)):
        Config.load(tmp_path / "job.yaml", [*overrides, f"runner.run_dir={run.path}"]).dump(run.config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return made


@pytest.mark.usefixtures("two")
def test_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "17", "18"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "A  main-20260101-120000-17  done    2 epochs\nB  main-20260101-120000-18  failed  3 epochs\n"
    )
    assert (
        """
key                                       A       B
---------------------------------------------------
runner.epochs                             1       9
hyper_parameters.fc_layers  [64, 32, 16, 8]  [8, 4]
"""
        in said
    )
    assert (
        """
figure           A       B    B - A
-----------------------------------
epoch            2       3
HR@10       0.2000  0.4000  +0.2000
NDCG@10     0.2000  0.2000  +0.0000
test AUC    0.7000  0.7000  +0.0000
train loss  0.5000  0.5000  +0.0000
seconds        1.0     1.0     +0.0
"""
        in said
    )
    assert max(map(len, said.splitlines())) <= 80


def test_against_popularity(
    two: list[RunDirectory], begin: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    begin(two[0], "fl-rec run", hr_10=0.25, ndcg_10=0.1)
    assert cli.main(["compare", "17", "18"]) == 0
    said = capsys.readouterr().out
    assert (
        """
HR@10         0.2000  0.4000  +0.2000
  popularity  0.2500       -
NDCG@10       0.2000  0.2000  +0.0000
  popularity  0.1000       -
test AUC"""
        in said
    )
    assert "\nHR@10   (... popularity, 0.2500)\n" in said
    assert "\n         | .............\n" in said


@pytest.mark.usefixtures("two")
def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "17", "18", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["configuration"] == {"runner.epochs": [1, 9], "hyper_parameters.fc_layers": [[64, 32, 16, 8], [8, 4]]}
    assert [each["HR@K"] for each in said["figures"]] == [0.2, 0.4]


def test_alike_but_for_what_was_written_where_and_how(
    two: list[RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that is left out has its default; an old name is the new one."""
    two[0].config.write_text("runner: {train_data_dir: /data, exchanges_per_epoch: 4}\n")
    two[1].config.write_text("runner: {train_data_dir: /data, rounds_per_epoch: 4, epochs: 1}\n")
    assert cli.main(["compare", "17", "18"]) == 0
    assert "\nThe configurations are alike.\n" in capsys.readouterr().out


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("arguments", [["17"], ["17", "17"]])
def test_two_different_runs_are_needed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *arguments]) == 2
    assert "Two to 26 different runs are compared." in capsys.readouterr().err


def test_a_chart() -> None:
    curves = {"A": [(1, 0.0), (2, 0.5), (3, 1.0)], "B": [(1, 0.0), (2, math.nan), (3, 0.5)]}
    assert (
        chart(curves, 80, 3)
        == """\
  1.0000 |             A
         |       A     B
  0.0000 | *
   epoch | 1           3"""
    )


def test_a_chart_of_one_point_and_of_none() -> None:
    assert chart({"A": [(4, 0.5)]}, 80, 2) == "  0.5000 | A\n  0.5000 |\n   epoch | 4"
    assert chart({"A": [(1, math.nan)], "B": []}, 80) == ""


def test_a_chart_of_many_epochs_is_as_wide_as_the_terminal() -> None:
    lines = chart({"A": [(epoch, epoch / 100) for epoch in range(1, 101)]}, 60).splitlines()
    assert max(map(len, lines)) == 60 and len(lines) == 9
