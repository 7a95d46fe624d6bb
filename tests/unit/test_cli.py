"""The table of commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fl_rec import cli
from fl_rec.config import loading

ASKED = """
import sys
from fl_rec import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as end:
    print(end.code, sorted(name for name in sys.modules if name.split(".")[0] in ("fl_rec", "paddle", "numpy")))
"""


def test_the_help_lists_every_command_and_imports_none() -> None:
    """Paddle takes two seconds to import, and numpy a tenth of one."""
    done = subprocess.run([sys.executable, "-c", ASKED, "--help"], capture_output=True, text=True, timeout=60)
    for name, (_, summary) in cli.COMMANDS.items():
        assert name in done.stdout
        assert summary.split()[0] in done.stdout
    assert done.stdout.splitlines()[-1] == "0 ['fl_rec', 'fl_rec.cli', 'fl_rec.errors']"


def test_an_error_of_the_project_is_one_message_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["coordinator", "no/such/run"]) == 2
    assert capsys.readouterr().err.startswith("fl-rec: error: RUN must be a run's folder. Received: ")


@pytest.mark.parametrize("arguments", [[], ["evaluat"], ["--nothing"]])
def test_what_is_no_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: fl-rec" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", ""])
def test_a_count_is_at_least_1(text: str) -> None:
    with pytest.raises(cli.argparse.ArgumentTypeError, match="must be at least 1, received"):
        loading.count(text)
