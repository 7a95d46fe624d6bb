"""The pipe command: which command is run, and that a reader that fails is never taken for an empty shard."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_rec.config import Config
from fl_rec.data.reader import Reader
from fl_rec.errors import ConfigError, DataError

DEADLINE = 30.0
# Prints its arguments to stderr, and its rows in capitals.
SHOUT = "import sys\nprint(sys.argv[1:], file=sys.stderr)\nsys.stdout.write(sys.stdin.read().upper())\n"

NewReader = Callable[..., Reader]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The YAML's folder, with a space in its path."""
    folder = tmp_path / "a job"
    folder.mkdir()
    return folder


@pytest.fixture
def new_reader(folder: Path) -> NewReader:
    def new_reader(pipe_command: str, **runner: Any) -> Reader:
        yaml = folder / "job.yaml"
        yaml.write_text("runner: {train_data_dir: train}\n", encoding="utf-8")
        config = Config.load(yaml).replace(
            **{"runner.pipe_command": pipe_command}, **{f"runner.{key}": value for key, value in runner.items()}
        )
        return Reader.from_config(config, folder / "resolved.yaml", folder / "reader.0")

    return new_reader


@pytest.fixture
def shard(folder: Path) -> Path:
    path = folder / "part-000.txt"
    path.write_text("a row\nand one\n", encoding="utf-8")
    return path


def write_script(path: Path, content: str = SHOUT) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def feed(reader: Reader, shard: Path) -> str:
    """The reader's rows, when run as Paddle's data feed runs it: the shard is appended as `< "SHARD"`."""
    command = f'{reader.pipe()} < "{shard}"'
    return subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, timeout=DEADLINE).stdout.decode()


def complaint(reader: Reader, shard: Path, rows: int, expected: int | None) -> str:
    with pytest.raises(DataError) as caught:
        reader.check(shard, rows, expected)
    return str(caught.value)


# -- which command is run ----------------------------------------------------------------------------------


def test_cat_stays_bare(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("cat")
    assert (reader.shell, reader.pipe()) == ("cat", "cat")
    assert feed(reader, shard) == "a row\nand one\n"


@pytest.mark.parametrize("program", ["python", "python3"])
def test_python_is_this_python_and_gets_the_configuration(new_reader: NewReader, folder: Path, program: str) -> None:
    script = write_script(folder / "shout.py")
    shell = new_reader(f"{program} -S shout.py --fast").shell
    assert shell == f"{sys.executable} -S '{script}' '{folder}/resolved.yaml' --fast"


def test_script_gets_rows_and_arguments(new_reader: NewReader, folder: Path, shard: Path) -> None:
    write_script(folder / "shout.py")
    reader = new_reader("python -I -S shout.py --fast")
    assert feed(reader, shard) == "A ROW\nAND ONE\n"
    assert reader.log.read_text().split("\n")[0] == f"['{folder}/resolved.yaml', '--fast']"
    reader.check(shard, 2, 2)


def test_script_beside_the_net(new_reader: NewReader, tmp_path: Path) -> None:
    script = write_script(tmp_path / "nets" / "shout.py")
    assert str(script) in new_reader("python shout.py", model_path=script.parent / "net.py").shell


def test_script_beside_the_yaml_comes_first(new_reader: NewReader, folder: Path, tmp_path: Path) -> None:
    mine = write_script(folder / "shout.py")
    write_script(tmp_path / "nets" / "shout.py")
    assert str(mine) in new_reader("python shout.py", model_path=tmp_path / "nets" / "net.py").shell


def test_script_by_its_whole_path(new_reader: NewReader, tmp_path: Path) -> None:
    script = write_script(tmp_path / "elsewhere" / "shout.py")
    assert str(script) in new_reader(f"python {script}").shell


def test_other_command_stays_as_it_is(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("tr a-z A-Z | head -n 1")
    assert reader.shell == "tr a-z A-Z | head -n 1"
    assert feed(reader, shard) == "A ROW\n"


def test_missing_script(new_reader: NewReader, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        new_reader("python shuot.py", model_path=tmp_path / "nets" / "net.py")
    assert str(caught.value) == (
        "runner.pipe_command must name a script that exists. Received: 'shuot.py', looked for in "
        f"{folder} and {tmp_path}/nets."
    )


def test_quote_that_is_not_closed(new_reader: NewReader) -> None:
    with pytest.raises(ConfigError) as caught:
        new_reader("awk '{print")
    assert str(caught.value) == (
        'runner.pipe_command must be a shell command. Received: "awk \'{print" (No closing quotation).'
    )


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quoted_script_with_a_space(new_reader: NewReader, folder: Path, shard: Path, quote: str) -> None:
    write_script(folder / "my reader.py")
    assert feed(new_reader(f"python -I -S {quote}my reader.py{quote}"), shard) == "A ROW\nAND ONE\n"


def test_script_whose_name_ends_another_ones(new_reader: NewReader, folder: Path, shard: Path) -> None:
    script, other = write_script(folder / "reader.py"), write_script(folder / "my_reader.py")
    reader = new_reader("python -I -S reader.py my_reader.py")
    assert feed(reader, shard) == "A ROW\nAND ONE\n"
    assert str(script) in reader.shell
    arguments = [f"{folder}/resolved.yaml", str(other), f"{folder}/resolved.yaml"]
    assert reader.log.read_text().startswith(f"{arguments}\n")


def test_configuration_goes_to_the_script_and_not_to_what_follows(
    new_reader: NewReader, folder: Path, shard: Path
) -> None:
    write_script(folder / "shout.py")
    assert feed(new_reader("python -I -S shout.py | sort -r"), shard) == "AND ONE\nA ROW\n"


def test_script_after_a_pipe(new_reader: NewReader, folder: Path, shard: Path) -> None:
    script = write_script(folder / "shout.py")
    reader = new_reader("sort -r | python3 -I -S 'shout.py' --fast")
    assert reader.shell == f"sort -r | {sys.executable} -I -S '{script}' '{folder}/resolved.yaml' --fast"
    assert feed(reader, shard) == "AND ONE\nA ROW\n"
    assert reader.log.read_text().split("\n")[0] == f"['{folder}/resolved.yaml', '--fast']"


# -- what it left after an epoch ---------------------------------------------------------------------------


def test_rows_as_expected(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("cat")
    reader.check(shard, 2, 2)
    reader.check(shard, 2, None)


@pytest.mark.parametrize(
    ("rows", "expected", "received"),
    [(0, 2000, "0 rows from {}, not 2,000."), (1999, 2000, "1,999 rows from {}, not 2,000."), (3, 2, "3 rows from")],
)
def test_other_number_of_rows(new_reader: NewReader, shard: Path, rows: int, expected: int, received: str) -> None:
    text = complaint(new_reader("cat"), shard, rows, expected)
    assert text.startswith(f"An epoch trains every row of its shard. Received: {received.format(shard)}")
    assert text.endswith("The reader is runner.pipe_command='cat', run as: cat\nIt said: nothing")


def test_no_row_at_all_of_an_unknown_number(new_reader: NewReader, shard: Path) -> None:
    assert f"0 rows from {shard}, not at least 1." in complaint(new_reader("cat"), shard, 0, None)


def test_reader_that_exits_1_fails_though_rows_are_unknown(new_reader: NewReader, folder: Path, shard: Path) -> None:
    write_script(folder / "dies.py", SHOUT + "raise ValueError('row 2 has no label')\n")
    reader = new_reader("python -I -S dies.py")
    assert feed(reader, shard) == "A ROW\nAND ONE\n"
    text = complaint(reader, shard, 2, None)
    assert "runner.pipe_command='python -I -S dies.py'" in text
    assert text.endswith("\n    ValueError: row 2 has no label\n    exit 1")


def test_command_that_does_not_exist(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("no_such_reader_of_mine")
    assert feed(reader, shard) == ""
    text = complaint(reader, shard, 0, 2)
    assert "no_such_reader_of_mine: " in text.split("It said:")[1]
    assert text.endswith("\n    exit 127")


def test_reader_that_is_killed(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("sh -c 'kill -9 $$'")
    feed(reader, shard)
    assert complaint(reader, shard, 2, None).endswith("exit 137")


def test_only_the_last_lines_are_quoted(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("sh -c 'seq 20 >&2; exit 3'")
    feed(reader, shard)
    said = complaint(reader, shard, 0, 2).split("It said:\n")[1].split()
    assert said == ["14", "15", "16", "17", "18", "19", "20", "exit", "3"]


def test_chatter_is_no_failure(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("sh -c 'echo starting >&2; cat'")
    assert feed(reader, shard) == "a row\nand one\n"
    reader.check(shard, 2, 2)


def test_failure_after_a_complaint_without_a_line_end(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("sh -c 'cat; printf oops >&2; exit 1'")
    feed(reader, shard)
    assert "oops" in complaint(reader, shard, 2, None)


def test_complaint_that_begins_with_exit(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("sh -c 'echo exit poll rows skipped >&2; cat'")
    feed(reader, shard)
    reader.check(shard, 2, 2)


def test_new_epoch_forgets_the_last_ones_complaints(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("false")
    reader.begin_epoch()
    feed(reader, shard)
    assert reader.log.read_text().split() == ["exit", "1"]
    reader.begin_epoch()
    assert not reader.log.exists()
    reader.check(shard, 2, 2)


# -- a shard read here -------------------------------------------------------------------------------------


def test_read_as_it_is(new_reader: NewReader, shard: Path) -> None:
    assert new_reader("cat").read(shard, DEADLINE) == b"a row\nand one\n"


def test_read_through_a_command(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("tr a-z A-Z")
    assert reader.read(shard, DEADLINE) == b"A ROW\nAND ONE\n"
    assert not reader.log.exists(), "the log is for the epochs"


@pytest.mark.parametrize("command", ["cat", "tr a-z A-Z"])
def test_read_of_a_missing_shard(new_reader: NewReader, folder: Path, command: str) -> None:
    with pytest.raises(DataError) as caught:
        new_reader(command).read(folder / "part-009.txt", DEADLINE)
    assert str(caught.value) == (
        f"A shard must be readable. Received: {folder}/part-009.txt (No such file or directory)."
    )


def test_read_through_a_command_that_fails(new_reader: NewReader, shard: Path) -> None:
    command = "sh -c 'echo no such column >&2; exit 4'"
    with pytest.raises(DataError) as caught:
        new_reader(command).read(shard, DEADLINE)
    assert str(caught.value) == (
        f"The reader must exit with 0. Received: 4 from runner.pipe_command={command!r} on {shard}, "
        f"run as: {command}\nIt said:\n    no such column"
    )


def test_read_through_a_command_that_hangs(new_reader: NewReader, shard: Path) -> None:
    with pytest.raises(DataError) as caught:
        new_reader("exec sleep 60").read(shard, 0.1)
    assert str(caught.value) == f"The reader 'exec sleep 60' must read {shard} within 0.1 s, and did not."
