"""The pipe command: which command is run, what comes of its rows, and that a reader's failure is told."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config
from fl_rec.data.reader import Reader
from fl_rec.data.rows import Sizes
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


def write_yaml(folder: Path) -> Path:
    yaml = folder / "job.yaml"
    yaml.write_text("runner: {train_data_dir: train}\n", encoding="utf-8")
    return yaml


@pytest.fixture
def new_reader(folder: Path) -> NewReader:
    def new_reader(pipe_command: str, **runner: Any) -> Reader:
        config = Config.load(write_yaml(folder)).replace(
            **{"runner.pipe_command": pipe_command}, **{f"runner.{key}": value for key, value in runner.items()}
        )
        return Reader.from_config(config, folder / "resolved.yaml")

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


def shout(reader: Reader, shard: Path) -> str:
    return reader.run(shard, DEADLINE)[0].decode()


# -- which command is run ----------------------------------------------------------------------------------


def test_cat_stays_bare(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("cat")
    assert reader.shell == "cat"
    assert shout(reader, shard) == "a row\nand one\n"


@pytest.mark.parametrize("program", ["python", "python3"])
def test_python_is_this_python_and_gets_the_configuration(new_reader: NewReader, folder: Path, program: str) -> None:
    script = write_script(folder / "shout.py")
    shell = new_reader(f"{program} -S shout.py --fast").shell
    assert shell == f"{sys.executable} -S '{script}' '{folder}/resolved.yaml' --fast"


def test_script_gets_rows_and_arguments(
    new_reader: NewReader, folder: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_script(folder / "shout.py")
    reader = new_reader("python -I -S shout.py --fast")
    assert shout(reader, shard) == "A ROW\nAND ONE\n"
    assert capsys.readouterr().err == f"['{folder}/resolved.yaml', '--fast']\n", "what it says is passed on"


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
    assert shout(reader, shard) == "A ROW\n"


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
    assert shout(new_reader(f"python -I -S {quote}my reader.py{quote}"), shard) == "A ROW\nAND ONE\n"


def test_script_whose_name_ends_another_ones(
    new_reader: NewReader, folder: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, other = write_script(folder / "reader.py"), write_script(folder / "my_reader.py")
    reader = new_reader("python -I -S reader.py my_reader.py")
    assert shout(reader, shard) == "A ROW\nAND ONE\n"
    assert str(script) in reader.shell
    arguments = [f"{folder}/resolved.yaml", str(other), f"{folder}/resolved.yaml"]
    assert capsys.readouterr().err == f"{arguments}\n"


def test_configuration_goes_to_the_script_and_not_to_what_follows(
    new_reader: NewReader, folder: Path, shard: Path
) -> None:
    write_script(folder / "shout.py")
    assert shout(new_reader("python -I -S shout.py | sort -r"), shard) == "AND ONE\nA ROW\n"


def test_script_after_a_pipe(
    new_reader: NewReader, folder: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = write_script(folder / "shout.py")
    reader = new_reader("sort -r | python3 -I -S 'shout.py' --fast")
    assert reader.shell == f"sort -r | {sys.executable} -I -S '{script}' '{folder}/resolved.yaml' --fast"
    assert shout(reader, shard) == "AND ONE\nA ROW\n"
    assert capsys.readouterr().err == f"['{folder}/resolved.yaml', '--fast']\n"


# -- how it fails -------------------------------------------------------------------------------------------


def refused(reader: Reader, shard: Path) -> str:
    with pytest.raises(DataError) as caught:
        reader.run(shard, DEADLINE)
    return str(caught.value)


def test_reader_that_exits_1(new_reader: NewReader, folder: Path, shard: Path) -> None:
    write_script(folder / "dies.py", SHOUT + "raise ValueError('row 2 has no label')\n")
    text = refused(new_reader("python -I -S dies.py"), shard)
    assert "Received: 1 on " in text and "runner.pipe_command='python -I -S dies.py'" in text
    assert text.endswith("\n    ValueError: row 2 has no label")


def test_command_that_does_not_exist(new_reader: NewReader, shard: Path) -> None:
    text = refused(new_reader("no_such_reader_of_mine"), shard)
    assert "Received: 127 on " in text
    assert "no_such_reader_of_mine: " in text.split("It said:")[1]


def test_reader_that_is_killed(new_reader: NewReader, shard: Path) -> None:
    text = refused(new_reader("sh -c 'kill -9 $$'; exit $?"), shard)
    assert f"Received: 137 on {shard} from " in text


def test_only_the_last_lines_are_quoted(new_reader: NewReader, shard: Path) -> None:
    said = refused(new_reader("seq 20 >&2; exit 3"), shard).split("It said:\n")[1].split()
    assert said == ["13", "14", "15", "16", "17", "18", "19", "20"]


def test_read_as_it_is(new_reader: NewReader, shard: Path) -> None:
    assert new_reader("cat").run(shard, DEADLINE) == (b"a row\nand one\n", b"")


def test_read_through_a_command(new_reader: NewReader, shard: Path) -> None:
    reader = new_reader("tr a-z A-Z")
    assert reader.run(shard, DEADLINE) == (b"A ROW\nAND ONE\n", b"")


@pytest.mark.parametrize("command", ["cat", "tr a-z A-Z"])
def test_read_of_a_missing_shard(new_reader: NewReader, folder: Path, command: str) -> None:
    with pytest.raises(DataError) as caught:
        new_reader(command).run(folder / "part-009.txt", DEADLINE)
    assert str(caught.value) == (
        f"A shard must be readable. Received: {folder}/part-009.txt (No such file or directory)."
    )


def test_read_through_a_command_that_fails(new_reader: NewReader, shard: Path) -> None:
    command = "sh -c 'echo no such column >&2; exit 4'"
    with pytest.raises(DataError) as caught:
        new_reader(command).run(shard, DEADLINE)
    assert str(caught.value) == (
        f"The reader must exit with 0. Received: 4 on {shard} from runner.pipe_command={command!r}, "
        f"run as: {command}\nIt said:\n    no such column"
    )


def test_read_through_a_command_that_hangs(new_reader: NewReader, shard: Path) -> None:
    with pytest.raises(DataError) as caught:
        new_reader("exec sleep 60").run(shard, 0.1)
    assert str(caught.value) == (
        f"The reader 'exec sleep 60' must read {shard} within 0.1 s, and did not. Make it faster, or raise "
        "runner.start_timeout."
    )


# -- its rows ----------------------------------------------------------------------------------------------


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_rows_of_all_shards_in_order(new_reader: NewReader, folder: Path) -> None:
    shards = [
        write_lines(folder / "b", "1 4 2 7 8 2 1 0"),
        write_lines(folder / "a", "1 3 2 0 5 2 1 0", "1 2 2 1 1 2 0 1"),
    ]
    user, items, labels = new_reader("cat").rows(shards, 3, DEADLINE, 3)
    assert (user.tolist(), user.dtype) == ([[4], [3], [2]], np.int32)
    assert (items.tolist(), items.dtype) == ([[7, 8], [0, 5], [1, 1]], np.int32)
    assert (labels.tolist(), labels.dtype) == ([[1, 0], [1, 0], [0, 1]], np.int8)


def test_rows_that_need_more(new_reader: NewReader, shard: Path) -> None:
    write_lines(shard, "1 2147483647 1 0.5 1 127 1 1", "1 2147483648 1 2 1 128 1 0")
    user, share, number, label = new_reader("cat").rows([shard], 4, DEADLINE)
    assert (user.tolist(), user.dtype) == ([[2147483647], [2147483648]], np.int64)
    assert (share.tolist(), share.dtype) == ([[0.5], [2.0]], np.float32)
    assert (number.tolist(), number.dtype) == ([[127], [128]], np.int32)
    assert (label.tolist(), label.dtype) == ([[1], [0]], np.int8)


@pytest.mark.parametrize(
    ("command", "where"),
    [("cat", ""), ("tr , ' '", " as \"tr , ' '\" gives it")],
    ids=["as it is", "through a command"],
)
def test_rows_that_cannot_be_trained(
    new_reader: NewReader, shard: Path, command: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_rec.data.text._BYTES_PER_PARSE", 20)
    reader = replace(new_reader(command), sizes=Sizes(5, None))
    lines = [f"1 4 1 {number} 1 1" for number in range(9)]
    reader.rows([write_lines(shard, *lines)], 3, DEADLINE)
    with pytest.raises(DataError) as caught:
        reader.rows([write_lines(shard, *lines, "1 4 1 7 1 3", "1 4 1 7 1 5")], 3, DEADLINE)
    assert str(caught.value) == (
        f"{shard}{where}, line 10: a label must be 0 or 1. Received: 3. Write 1 where the user chose the item, or "
        "rated it well enough, and 0 where not."
    )
    with pytest.raises(DataError, match="line 10: a user's id must be .* below num_users=5. Received: 5"):
        reader.rows([write_lines(shard, *lines, "1 5 1 7 1 1")], 3, DEADLINE)


def test_sizes_are_those_of_the_configuration(new_reader: NewReader, folder: Path) -> None:
    config = Config.load(write_yaml(folder)).replace(
        **{"hyper_parameters.num_users": 7, "hyper_parameters.num_items": 11}
    )
    assert Reader.from_config(config, folder / "resolved.yaml").sizes == Sizes(7, 11)
    assert new_reader("cat").sizes == Sizes(None, None)


def test_first_rows_are_checked_without_a_command(new_reader: NewReader, shard: Path) -> None:
    write_lines(shard, *["1 4 2 7 8 2 1 0"] * 5000, "1 4 2 7 8 2 1 3")
    new_reader("cat").peek(shard)  # the rest is a worker's to find
    shard.write_bytes(gzip.compress(shard.read_bytes()[-32:]))
    with pytest.raises(DataError, match=r"part-000.txt, line 2: a label must be 0 or 1. Received: 3\. "):
        new_reader("cat").peek(shard)
    new_reader("grep 0").peek(shard)
    write_lines(shard, "0,1,2", "4,7,1")
    with pytest.raises(DataError, match="line 1: MultiSlot text has no commas. Received: '0,1,2'. .*_reader.py"):
        new_reader("cat").peek(shard)


@pytest.mark.parametrize("command", ["cat", "cat | cat", "zcat", "gunzip -c | cat"])
def test_gzip_is_unpacked_for_all_who_do_not_so_themselves(new_reader: NewReader, shard: Path, command: str) -> None:
    shard.write_bytes(gzip.compress(b"1 4 1 7 1 1\n1 3 1 0 1 0\n"))
    user, items, labels = new_reader(command).rows([shard], 3, DEADLINE, 2)
    assert (user.tolist(), items.tolist(), labels.tolist()) == ([[4], [3]], [[7], [0]], [[1], [0]])


def test_gzip_that_is_damaged(new_reader: NewReader, shard: Path) -> None:
    shard.write_bytes(gzip.compress(b"1 4 1 7 1 1\n" * 1000)[:-20])
    with pytest.raises(DataError, match=r"A shard must be readable. Received: .*part-000.txt \(Compressed file ended"):
        new_reader("cat").rows([shard], 3, DEADLINE)


@pytest.mark.parametrize(
    ("command", "expected", "received"),
    [
        ("cat", 2000, "2 rows from {}, not 2,000."),
        ("head -n 1", 2, "1 rows from {}, not 2."),
        ("cat; echo '1 1 1 1 1 1'", 2, "3 rows from {}, not 2."),
        ("true", 2, "0 rows from {}, not 2."),
        ("true", None, "0 rows from {}, not at least 1."),
    ],
)
def test_other_number_of_rows(
    new_reader: NewReader, shard: Path, command: str, expected: int | None, received: str
) -> None:
    write_lines(shard, "1 4 1 7 1 1", "1 3 1 0 1 0")
    with pytest.raises(DataError) as caught:
        new_reader(command).rows([shard], 3, DEADLINE, expected)
    assert str(caught.value) == (
        f"The reader must give every row of its shard. Received: {received.format(shard)} It is "
        f"runner.pipe_command={command!r}, run as: {command}\nIt said: nothing"
    )
    assert new_reader("cat").rows([shard], 3, DEADLINE, 2)[0].tolist() == [[4], [3]]


def test_what_a_reader_said_that_lost_rows(new_reader: NewReader, shard: Path) -> None:
    write_lines(shard, "1 4 1 7 1 1", "1 3 1 0 1 0")
    with pytest.raises(DataError) as caught:
        new_reader("tail -n 1; echo 1 row skipped >&2").rows([shard, shard], 3, DEADLINE, 4)
    assert f"Received: 2 rows from {shard} and 1 more, not 4. " in str(caught.value)
    assert str(caught.value).endswith("\nIt said:\n    1 row skipped\n    1 row skipped")


def test_chatter_is_no_failure(new_reader: NewReader, shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(shard, "1 4 1 7 1 1")
    (user, *_) = new_reader("echo starting >&2; cat").rows([shard], 3, DEADLINE, 1)
    assert user.tolist() == [[4]] and capsys.readouterr().err == "starting\n"


def test_rows_of_another_number_of_slots(new_reader: NewReader, shard: Path) -> None:
    write_lines(shard, "1 4 1 7 1 1")
    with pytest.raises(DataError, match=r"part-000.txt, line 1: a line must hold 4 slots"):
        new_reader("cat").rows([shard], 4, DEADLINE, 1)
