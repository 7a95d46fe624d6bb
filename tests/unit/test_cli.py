"""The table of commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fl_rec import __version__, cli
from fl_rec.arguments import PROGRAM_KEY, count

ASKED = """
import sys
from fl_rec import __version__, cli
from fl_rec.arguments import PROGRAM_KEY
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
    assert done.stdout.splitlines()[-1] == "0 ['fl_rec', 'fl_rec.arguments', 'fl_rec.cli', 'fl_rec.errors']"


def test_an_error_of_the_project_is_one_message_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["coordinator", "no/such\x1b[2J\x9bm/run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fl-rec: error: RUN must be a run's folder. Received: ") and "no/such?[2J?m/run" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluat"], "there is no command 'evaluat'. Did you mean evaluate?"),
        (["--nothing"], "a command comes first, as in fl-rec run --nothing"),
        (["-m", "a.yaml"], "a command comes first, as in fl-rec run -m a.yaml"),
        (["a.yaml"], "there is no command 'a.yaml'. To train with a configuration: fl-rec run -m a.yaml"),
        (["zzz"], "there is no command 'zzz'."),
    ],
)
def test_what_is_no_command(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"fl-rec: error: {says}\nfl-rec --help shows what there is.\n"


def test_without_a_command_it_shows_its_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main([]) == 0
    bare = capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert (end.value.code, capsys.readouterr().out) == (0, bare)
    assert cli.EXIT_CODES in bare
    assert max(map(len, bare.splitlines())) <= 80
    monkeypatch.setenv(PROGRAM_KEY, "./fl_run.sh")
    assert cli.main([]) == 0
    assert "./fl_run.sh doctor" in capsys.readouterr().out
    assert cli.main(["config", "zzz"]) == 2
    assert (
        capsys.readouterr().err
        == "./fl_run.sh: error: zzz: unknown key. Remove it; ./fl_run.sh config lists all keys.\n"
    )


def test_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert re.fullmatch(rf"fl_rec {__version__}, Paddle [\d.]+, Python 3\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_commands_help_tells_exit_codes(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: fl-rec {name} ") and said.endswith(f"{cli.EXIT_CODES}\n")


BROKEN = """
def command(options):
    return {}["no such key"]
"""


@pytest.mark.parametrize("debug", [False, True])
def test_what_nobody_foresaw_has_a_traceback_with_debug_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, debug: bool
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN + "def add_arguments(parser): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, "broken", ("broken", "breaks"))
    for arguments in (["broken", "--debug"], ["--debug", "broken"]) if debug else (["broken"],):
        assert cli.main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("Traceback") == debug
        assert said.endswith(
            "fl-rec: error: KeyError: 'no such key' (broken.py, line 3)\n"
            "That was not foreseen, here or in code of yours: --debug shows where it came up.\n"
        )


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", ""])
def test_a_count_is_at_least_1(text: str) -> None:
    with pytest.raises(cli.argparse.ArgumentTypeError, match="must be at least 1, received"):
        count(text)
