"""The drawing of the architecture, and the script that compares it with the imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fl_rec import environment

SCRIPT = environment.shipped("docs/check_architecture.py")
PAGE = """\
![rooms](architecture.svg)

| room | what it is for | imports |
| --- | --- | --- |
| `high` | The roof. | low, middle |
| `middle` | A floor. | low |
| `low` | The cellar. | errors |
| `errors` | The ground. |  |
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small one whose drawing is right: a package, two modules, and the ground."""
    package = tmp_path / "fl_rec"
    (package / "high" / "deep").mkdir(parents=True)
    (package / "high" / "__init__.py").touch()
    (package / "high" / "deep" / "__init__.py").write_text("def f():\n    from fl_rec import low\n")
    (package / "__init__.py").write_text("import fl_rec.high\n")
    (package / "high" / "names.py").write_text('NAMES = {"a": "fl_rec.middle:Name"}\n')
    (package / "middle.py").write_text("from fl_rec.low import x\n")
    (package / "low.py").write_text("import fl_rec.errors\nimport os\n")
    (package / "errors.py").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "architecture.md").write_text(PAGE)
    (tmp_path / "docs" / "architecture.zh.md").write_text(PAGE.replace("The roof.", "屋顶。"))
    for script in (SCRIPT, SCRIPT.with_name("picture.py")):
        (tmp_path / "docs" / script.name).write_bytes(script.read_bytes())
    assert check(tmp_path, "--write").returncode == 0
    return tmp_path


def check(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(project / "docs" / SCRIPT.name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_drawing_shows_the_imports() -> None:
    done = check(SCRIPT.parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_right_drawing(project: Path) -> None:
    done = check(project)
    assert (done.returncode, done.stdout) == (0, "")


def test_an_import_that_is_not_drawn(project: Path) -> None:
    (project / "fl_rec" / "middle.py").write_text("")
    done = check(project)
    assert done.returncode == 1
    changed = {line for line in done.stdout.splitlines() if line[:2] in ("+|", "-|")}
    assert changed == {"-| `middle` | A floor. | low |", "+| `middle` | A floor. |  |"}
    assert "docs/architecture.svg must show what is imported" in done.stdout


def boxes(project: Path) -> dict[str, tuple[float, float]]:
    """Where the middle of each box of the picture is."""
    picture = ElementTree.parse(project / "docs" / "architecture.svg")
    texts = picture.iter("{http://www.w3.org/2000/svg}text")
    return {each.text or "": (float(each.attrib["x"]), float(each.attrib["y"])) for each in texts}


def test_the_picture(project: Path) -> None:
    """A row each, an arrow from each to the next, and none where another way leads there or to the ground."""
    found = boxes(project)
    assert sorted(found, key=lambda box: found[box][1]) == ["high", "middle", "low"]
    picture = (project / "docs" / "architecture.svg").read_text()
    assert picture.count("marker-end") == 2
    (project / "fl_rec" / "cellar.py").write_text("from fl_rec import errors\n")
    (project / "fl_rec" / "low.py").write_text("import fl_rec.cellar\n")
    (project / "fl_rec" / "stairs.py").write_text("import fl_rec.high, fl_rec.cellar\n")
    (project / "fl_rec" / "ramp.py").write_text("import fl_rec.low\n")
    check(project, "--write")
    found = boxes(project)
    assert [found[one][1] < found[other][1] for one, other in (("stairs", "high"), ("ramp", "low"))] == [True, True]
    assert found["ramp"][1] == found["middle"][1] and abs(found["ramp"][0] - found["middle"][0]) > 60, "side by side"


def test_a_new_room_is_drawn_and_wants_a_sentence(project: Path) -> None:
    (project / "fl_rec" / "attic.py").write_text("from fl_rec import high\n")
    assert "+| `attic` | to be written | high |" in check(project).stdout
    assert check(project, "--write").returncode == 0
    assert boxes(project)["attic"][1] < boxes(project)["high"][1]
    assert check(project).returncode == 1
    english, chinese = project / "docs" / "architecture.md", project / "docs" / "architecture.zh.md"
    english.write_text(english.read_text().replace("to be written", "The attic."))
    chinese.write_text(chinese.read_text().replace("| `attic` | to be written | high |\n", ""))
    assert "docs/architecture.zh.md must show what is imported" in check(project).stdout
    check(project, "--write")
    assert check(project).returncode == 0
    assert "| `attic` | The attic. | high |\n| `high` | 屋顶。 | low, middle |" in chinese.read_text()


def test_a_circle(project: Path) -> None:
    (project / "fl_rec" / "low.py").write_text("import fl_rec.high\n")
    done = check(project)
    assert done.returncode == 1
    assert "packages import downwards only. Received: a circle of ['high', 'low', 'middle']" in done.stderr
