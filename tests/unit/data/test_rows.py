"""Which rows a worker trains next: parts of passes over the data, in order, each row once in each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.reader import Reader
from fl_rec.data.rows import FreshRows, ShardRows, TrainingRows
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import parse_multislot
from fl_rec.errors import RunError

DEADLINE = 30.0
LINES = [f"1 {number} 1 {number} 1 1\n" for number in range(5)]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "part 0.txt"
    path.write_text("".join(LINES))
    return path


def shard_rows(shard: Path, count: int | None = 5, command: str = "cat") -> ShardRows:
    return ShardRows([shard], Reader(command, command, shard.parent / "log"), count, DEADLINE)


def fed(files: list[Path], command: str) -> list[str]:
    """The lines that Paddle's data feed would get."""
    text = ""
    for file in files:
        shell = ["sh", "-c", f'{command} < "{file}"']
        text += subprocess.run(shell, stdout=subprocess.PIPE, timeout=DEADLINE, check=True).stdout.decode()
    return text.splitlines(keepends=True)


def taken(rows: TrainingRows, wanted: int | None) -> list[list[str]]:
    """The lines of each part that `take` gives, which must be used before the next is asked for."""
    return [fed(*part) for part in rows.take(wanted)]


@pytest.mark.parametrize("command", ["cat", "sed s/1/1/"], ids=["as they are", "through a reader"])
def test_parts_go_on_where_the_last_one_ended(shard: Path, command: str) -> None:
    rows = shard_rows(shard, command=command)
    assert rows.at_start
    assert taken(rows, 2) == [LINES[:2]]
    assert not rows.at_start
    assert taken(rows, 2) == [LINES[2:4]]
    # The end of one pass, and the beginning of the next.
    assert taken(rows, 3) == [LINES[4:], LINES[:2]]
    assert taken(rows, 3) == [LINES[2:]]
    assert rows.at_start


def test_no_rows_are_no_part(shard: Path) -> None:
    rows = shard_rows(shard)
    assert taken(rows, 0) == []
    assert rows.at_start


def test_more_than_a_pass(shard: Path) -> None:
    assert taken(shard_rows(shard), 12) == [LINES, LINES, LINES[:2]]


def test_a_whole_pass_is_read_as_it_is(shard: Path) -> None:
    rows = shard_rows(shard)
    assert [command for _, command in rows.take(5)] == ["cat"]
    assert [command for _, command in rows.take(None)] == ["cat"]
    rows = shard_rows(shard)
    list(rows.take(1))
    (_, command), *_ = rows.take(4)
    assert command != "cat", "the rest of a pass is not all of it"


def test_a_whole_pass_of_an_unknown_number_is_not_counted(tmp_path: Path) -> None:
    rows = shard_rows(tmp_path / "not there", count=None)
    (files, command), *_ = rows.take(None)
    assert (files, command) == ([tmp_path / "not there"], "cat")


def test_rows_are_counted_at_need(shard: Path) -> None:
    rows = shard_rows(shard, count=None, command="head -n 3")
    assert rows.count == 3
    shard.unlink()
    assert rows.count == 3, "and once"


def test_the_text_of_a_pass_is_what_is_trained(tmp_path: Path) -> None:
    shards = [tmp_path / "a", tmp_path / "b"]
    for number, shard in enumerate(shards):
        shard.write_text(f"1 {number} 1 2 1 1\n")
    reader = Reader("cat", "cat", tmp_path / "log")
    assert ShardRows(shards, reader, None, 1.0).text(3) == b"1 0 1 2 1 1\n1 1 1 2 1 1\n"

    source = FreshNegatives(np.array([[0, 1, 1], [1, 2, 1]]), 9, 3, 4, 7)
    rows = FreshRows(source, tmp_path / "rows")
    texts = [rows.text(number) for number in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert sorted(parse_multislot(texts[2], 3)[0].tolist()) == [[0], [1]]
    (file,), _ = next(rows.take(None))
    assert file.read_bytes() == texts[0]


class Numbered:
    """Draws three lines that tell of their pass."""

    lines = 3

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def epoch(self, number: int) -> np.ndarray:
        self.drawn.append(number)
        lines = "".join(f"{number} {line}\n" for line in range(self.lines))
        return np.frombuffer(lines.encode(), np.uint8).reshape(self.lines, -1)


def test_rows_are_drawn_anew_for_each_pass_and_once(tmp_path: Path) -> None:
    source = Numbered()
    rows = FreshRows(source, tmp_path / "rows" / "0")
    assert rows.count == 3
    assert taken(rows, 2) == [["0 0\n", "0 1\n"]]
    assert taken(rows, 3) == [["0 2\n"], ["1 0\n", "1 1\n"]]
    assert taken(rows, 1) == [["1 2\n"]]
    assert taken(rows, None) == [["2 0\n", "2 1\n", "2 2\n"]]
    assert taken(rows, None) == [["3 0\n", "3 1\n", "3 2\n"]]
    assert source.drawn == [0, 1, 2, 3]
    rows.close()
    assert not (tmp_path / "rows" / "0").exists()
    rows.close()


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "rows").touch()
    rows = FreshRows(Numbered(), tmp_path / "rows" / "0")
    with pytest.raises(RunError) as caught:
        next(rows.take(1))
    assert str(caught.value).startswith(
        f"runner.resample_negatives writes each epoch's rows. Received: {tmp_path}/rows/0, which can't be written ("
    )
