"""`fl-rec new`: what it makes, says and refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fl_rec import cli, environment
from fl_rec.config import Config

ROOT = Path(__file__).resolve().parents[3]
FILES = [
    *("README.md", "README.zh.md", "clicks.csv", "customers.csv"),
    *("fl_loss.py", "fl_net.py", "fl_partitioner.py", "fl_strategy.py", "fl_trainer.py"),
    *("goods.csv", "job.yaml", "test_project.py"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_project(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "mein Laden 数据"]) == 0
    project = here / "mein Laden 数据"
    assert sorted(path.name for path in project.iterdir()) == FILES
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "made      mein Laden 数据: its README.md says what each file is for",
        "next      cd 'mein Laden 数据'",
        "          fl-rec prepare --source clicks.csv --users customers.csv \\",
        "                 --items goods.csv --out data",
    ]
    assert max(map(len, said)) <= 80
    assert said[-1] == "          fl-rec recommend --user c07 --top 5 --history 5"
    config = Config.load(project / "job.yaml")
    assert config.runner.model_path == project / "fl_net.py"
    assert config.hyper_parameters.loss_options == {"positive": 2.0}
    # Files are named that are there, and each of them is.
    for name in ("README.md", "README.zh.md"):
        named = set(re.findall(r"[\w]+\.(?:py|csv|yaml)", (project / name).read_text(encoding="utf-8"), re.ASCII))
        assert named == {*FILES} - {"README.md", "README.zh.md"}


def test_every_file_is_short_and_says_what_it_is() -> None:
    for path in (ROOT / "examples" / "project").glob("*.[py][ya]*"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 40 and lines[0].startswith(('"""', "# ")), path
        assert max(map(len, lines)) <= 120, path


def test_in_a_clone(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`./fl_run.sh new shop` tells of itself, and runs that were made in the template are none of the project's."""
    monkeypatch.setenv("FL_REC_PROGRAM", "./fl_run.sh")
    monkeypatch.setattr(environment, "CLONE", here)
    template = here / "examples" / "project"
    (template / "runs" / "job-1").mkdir(parents=True)
    (template / "README.md").write_text("```bash\nfl-rec run -m job.yaml\n```\n")
    assert cli.main(["new", "mine/shop"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "next      cd mine/shop",
        "          ../../fl_run.sh run -m job.yaml",
    ]
    assert [path.name for path in (here / "mine" / "shop").iterdir()] == ["README.md"]


def refused(capsys: pytest.CaptureFixture[str], name: str) -> str:
    assert cli.main(["new", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("name", [".", "..", "a/..", "/", ".shop", "shop ", "a\nb", "a:b", "shop$"])
def test_an_odd_name(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, name) == (
        "fl-rec: error: A project is a new folder, whose name has letters, digits, and between them spaces, dots and "
        f"dashes. Received: {str(Path(name))!r}. Name another, such as shop.\n"
    )
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_one_that_is_there(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = {"folder": Path.mkdir, "file": Path.touch, "dangling link": lambda path: path.symlink_to("nowhere")}
    make[kind](here / "shop")
    assert refused(capsys, "shop") == (
        f"fl-rec: error: A project is a new folder. Received: {here}/shop, which is there. Name another, or move it "
        "away.\n"
    )


def test_a_disk_that_is_full(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: object, target: str | os.PathLike[str]) -> None:
        if str(target).endswith("job.yaml"):
            raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("shutil.copyfile", full)
    said = refused(capsys, "shop")
    assert "A project's folder must be writable. Received: " in said and "No space left on device" in said
    assert list(here.iterdir()) == []
