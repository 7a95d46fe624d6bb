"""`fl-rec report` and `fl-rec compare --html`, as commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fl_rec.cli import main
from fl_rec.page.content import content_of
from fl_rec.page.render import comparison_page, run_page
from tests.unit.page.conftest import MakeRun


def test_the_page_is_written_into_the_run(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    assert main(["report", str(run.path)]) == 0
    page = run.path / "report.html"
    assert page.read_text(encoding="utf-8") == run_page(content_of(run))
    assert capsys.readouterr().out == f"page      {page} ({page.stat().st_size / 1000:,.0f} kB)\n"


def test_the_newest_run_and_another_place(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 2
    assert "The newest run in runs/ is taken if none is named. Received: " in capsys.readouterr().err
    for name, age in (("job-20260101-000000-2", 1), ("job-20260101-000000-1", 2)):
        os.utime(make_run(name=name).path / "job", (age, age))
    assert main(["report", "--out", "new.html"]) == main(["report", "2", "--out", "named.html"]) == 0
    assert "<title>job-20260101-000000-1 " in Path("new.html").read_text(encoding="utf-8")
    assert "<title>job-20260101-000000-2 " in Path("named.html").read_text(encoding="utf-8")


def test_what_is_refused(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(make_run().path), "--out", str(tmp_path)]) == 2
    assert f"A page must be writable. Received: {tmp_path} (Is a directory). " in capsys.readouterr().err


def test_runs_beside_each_other(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [make_run(name=name) for name in ("one", "two")]
    assert main(["compare", "--html", *(str(run.path) for run in runs)]) == 0
    assert capsys.readouterr().out == "page      compare.html\n"
    page = comparison_page([content_of(run) for run in runs])
    assert Path("compare.html").read_text(encoding="utf-8") == page
