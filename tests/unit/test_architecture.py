"""The drawing of the architecture, and the script that compares it with the imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fl_rec import environment

SCRIPT = environment.shipped("docs/check_architecture.py")
PAGE = """\
```mermaid
graph TD
    high --> middle
    middle --> low
```

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
    (tmp_path / "docs" / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
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
    changed = {line for line in done.stdout.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")}
    assert changed == {
        "-    high --> middle",
        "-    middle --> low",
        "+    high --> low & middle",
        "-| `middle` | A floor. | low |",
        "+| `middle` | A floor. |  |",
    }


def test_a_new_room_is_drawn_and_wants_a_sentence(project: Path) -> None:
    (project / "fl_rec" / "attic.py").write_text("from fl_rec import high\n")
    assert "+| `attic` | to be written | high |" in check(project).stdout
    assert check(project, "--write").returncode == 0
    assert "    attic --> high\n    high --> middle\n" in (project / "docs" / "architecture.md").read_text()
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
