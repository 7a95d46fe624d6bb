"""`fl-rec runs` and `fl-rec runs remove`."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_rec import cli
from fl_rec.commands.words import bytes_in_words, seconds_in_words
from fl_rec.runs import roles
from fl_rec.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDirectory]:
    """Three runs in the current folder's project, the first one the newest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.time", lambda: 100_000.0)
    monkeypatch.setattr("fl_rec.runs.listing.measuring", lambda paths: _Sizes(len(paths)))
    made = [
        make_run("main-20260101-120000-17", (0.1234, 0.25), {"state": "done"}),
        make_run("main-20260101-120000-18", (), {"state": "failed", "error": "why"}),
        make_run("数据-20260101-120000-19", (0.5,)),
    ]
    for run, age in zip(made, (30, 7200, 200_000)):
        os.utime(run.path / "job", (100_000 - age, 100_000 - age))
    return made


class _Sizes:
    def __init__(self, count: int) -> None:
        self._sizes = [12_345_678 * (number + 1) for number in range(count)]

    def __enter__(self) -> Callable[[], list[int]]:
        return lambda: self._sizes

    def __exit__(self, *_: object) -> None: ...


def test_what_was_set_stands_below(
    make_run: MakeRun,
    begin: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    begin(
        make_run("a", (), {"state": "failed", "role": "worker.3", "error": "no\nmemory" + "!" * 99}),
        "x -o a.b=1 runner.run_dir=x c=2",
    )
    assert cli.main(["runs", "--project", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["  -o a.b=1 c=2", f"  worker.3: no memory{'!' * 58}…"]


def test_somebody_elses_run_neither_steers_the_terminal_nor_hides_the_others(
    make_run: MakeRun, begin: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steers = "\x1b[2J\x9bm"
    make_run("good", (0.5,), {"state": "done"})
    begin(make_run("a", (), {"state": "failed", "error": steers}), f"x -m '{steers}.yaml' -o 'a.b={steers}\n'")
    begin(make_run("b"), "x -m 'no end.yaml")
    make_run(f"c\nd\t{steers}")
    assert cli.main(["runs", "--project", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert all(line.isprintable() for line in listed.splitlines())
    assert all(f"\n{name}  " in listed for name in ("good", "a", "b", "c?d??[2J?m"))
    assert cli.main(["runs", "--project", str(tmp_path), "--json"]) == 0
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.splitlines())
    assert {each["error"] for each in json.loads(text)} == {"", steers}


@pytest.mark.usefixtures("runs")
def test_the_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["runs"]) == 0
    assert (
        capsys.readouterr().out
        == """\
run  configuration  state   epochs   HR@10  NDCG@10     AUC   size   age
19   数据           killed       1  0.5000   0.2000  0.7000  37 MB   2 d
18   main           failed       0       -        -       -  25 MB   2 h
  why
17   main           done         2  0.2500   0.2000  0.7000  12 MB  30 s
"""
    )


def test_as_json(runs: list[RunDirectory], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["path"] for each in found] == [str(run.path) for run in runs[::-1]]
    assert found[1] == {
        "run": "18",
        "path": str(runs[1].path),
        "configuration": "main",
        "overrides": [],
        "state": "failed",
        "error": "why",
        "epochs": 0,
        "size_bytes": 2 * 12_345_678,
        "started": found[1]["started"],
    }
    assert (found[2]["epoch"], found[2]["hr@10"], found[2]["train_loss"]) == (2, 0.25, 0.5)


def test_a_project_without_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["runs"]) == 0
    assert capsys.readouterr().out == f"There are no runs in {tmp_path}/runs. fl-rec run starts one.\n"
    assert cli.main(["runs", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("YES ", True), ("n", False), ("", False)])
def test_removing_asks(
    runs: list[RunDirectory],
    answer: str,
    removed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    assert cli.main(["runs", "remove", "17", str(runs[1].path)]) == 0
    assert asked == ["Remove these 2 runs for good? [y/N] "]
    assert [run.path.exists() for run in runs] == [not removed, not removed, True]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == ("removed 2" if removed else "Nothing was removed.")


def test_removing_without_a_terminal_needs_yes(
    runs: list[RunDirectory], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli.main(["runs", "remove", "17"]) == 2
    assert "Say so before: --yes" in capsys.readouterr().err and runs[0].path.exists()
    assert cli.main(["runs", "remove", "17", "--yes"]) == 0
    assert [run.path.exists() for run in runs] == [False, True, True]


def test_a_run_that_trains_stays(runs: list[RunDirectory], capsys: pytest.CaptureFixture[str]) -> None:
    roles.write_status(runs[0].roles, "worker.0", roles.RUNNING)
    assert cli.main(["runs", "remove", "18", "17", "--yes"]) == 2
    assert "A run is removed when its job has ended." in capsys.readouterr().err
    assert all(run.path.exists() for run in runs)


@pytest.mark.skipif(shutil.which("du") is None, reason="there is no du")
def test_sizes_are_of_the_disk(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("a")
    (run.path / "model" / "1").mkdir(parents=True)
    (run.path / "model" / "1" / "table").write_bytes(b"1" * 5_000_000)
    assert cli.main(["runs", "--json", "--project", str(tmp_path)]) == 0
    assert 5_000_000 <= json.loads(capsys.readouterr().out)[0]["size_bytes"] < 5_200_000


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12 MB"), (4e12, "4.0 TB")]
)
def test_sizes_in_words(size: float, words: str) -> None:
    assert bytes_in_words(size) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "119 min"), (7200, "2 h"), (86400, "24 h"), (200_000, "2 d")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words
