"""Row text, and files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.rows import Sizes, checked, narrowed
from fl_rec.data.text import (
    LAYOUTS,
    count_slots,
    csv_blocks,
    grouped_layout,
    multislot_blocks,
    multislot_text,
    parse_csv_rows,
    parse_multislot,
    read_rows,
    write_rows,
)
from fl_rec.errors import DataError
from fl_rec.files import read_bytes

ROWS = np.array([[0, 7, 1], [0, 12, 0], [3, 1, 0], [10, 0, 1]])


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_rows_survive_writing_and_reading(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "new" / f"part{LAYOUTS[layout].suffix}"
    size, sha256 = write_rows(path, ROWS, LAYOUTS[layout])
    text = path.read_bytes()
    assert size == len(text) and len(sha256) == 64
    if layout == "csv":
        assert text == b"0,7,1\n0,12,0\n3,1,0\n10,0,1\n"
    else:
        assert text == b"1 0 1 7 1 1\n1 0 1 12 1 0\n1 3 1 1 1 0\n1 10 1 0 1 1\n"
    read = read_rows(path)
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, ROWS)


def test_rows_are_written_in_chunks_that_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.data.text._ROWS_PER_WRITE", 3)
    write_rows(tmp_path / "rows.csv", ROWS, LAYOUTS["csv"])
    np.testing.assert_array_equal(read_rows(tmp_path / "rows.csv"), ROWS)


def test_csv_first_row_counts_and_a_last_newline_or_crlf_do_not(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"5,6,1\r\n7,8,0")
    assert read_rows(tmp_path / "rows.csv").tolist() == [[5, 6, 1], [7, 8, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"user,item,label\n1,2,0\n", "line 1: a field must be a whole number"),
        (b"1,2,0\n1,2\n", "line 2: a line must have 3 fields separated by ','. Received 2: '1,2'"),
        (b"1,2,0\n1,2,3,0\n", "line 2: a line must have 3 fields"),
        (b"1,2\n0,1,2,0\n", "line 1: a line must have 3 fields"),  # as many fields in all as two good lines
        (b"1,2,0\n1,-2,0\n", "line 2: a field must be a whole number of at most 18 digits. Received '-2'"),
        (b"1,,0\n", "line 1: a field must be a whole number of at most 18 digits. Received ''"),
        (b"1,1234567890123456789,0\n", "line 1: a field must be a whole number"),
        (b"1,2,0\n\n3,4,1\n", "line 2: a line must have 3 fields"),
        (b"1,2,0\n3,4,2\n", "line 2: a label must be 0 or 1. Received: 2. Write 1 where"),
        (b" \n", "must hold at least one row. Received: .*rows.csv, which is empty"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "rows.csv").write_bytes(text)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize("blank", ["", " "], ids=["fast way", "slow way"])
def test_ids_may_be_as_long_as_int64_has_digits_for(blank: str) -> None:
    largest = 10**18 - 1
    assert parse_csv_rows(f"{largest},{blank}7,1\n".encode(), "x").tolist() == [[largest, 7, 1]]
    with pytest.raises(DataError, match="line 1: a field must be a whole number of at most 18 digits"):
        parse_csv_rows(f"{largest + 1},{blank}7,1\n".encode(), "x")


def test_every_digit_counts_at_every_place(tmp_path: Path) -> None:
    """numpy 1 multiplies bytes by a small number as bytes: user 900 was user 132 once."""
    numbers = [digit * 10**place for place in range(18) for digit in range(1, 10)]
    lines = [f"{number},{10**18 - 1 - number},1\n" for number in numbers]
    assert parse_csv_rows("".join(lines).encode(), "x").tolist() == [[n, 10**18 - 1 - n, 1] for n in numbers]
    groups = b"".join(b"1 %d 2 %d 7\n" % (number, number) for number in numbers)
    users, items = parse_multislot(groups, 2)
    assert users.ravel().tolist() == numbers and items.tolist() == [[number, 7] for number in numbers]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_ids_beyond_what_small_types_hold_are_written(tmp_path: Path, dtype: type) -> None:
    ids = [place + step for place in (0, 10**2, 2**7, 2**8, 10**3, 2**15, 2**16, 10**5) for step in (0, 1, 9)]
    rows = np.array([[user, item, 1] for user, item in zip(ids, reversed(ids))], dtype)
    write_rows(tmp_path / "rows.csv", rows, LAYOUTS["csv"])
    assert (tmp_path / "rows.csv").read_text() == "".join(f"{user},{item},1\n" for user, item, _ in rows.tolist())
    assert read_rows(tmp_path / "rows.csv").tolist() == rows.tolist()
    slots = np.hsplit(rows.astype(np.int64), 3)
    assert [each.tolist() for each in parse_multislot(b"".join(map(bytes, multislot_text(slots))), 3)] == [
        each.tolist() for each in slots
    ]


def test_missing_and_damaged_files_keep_their_cause(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be readable. Received: .*absent") as missing:
        read_bytes(tmp_path / "absent")
    assert isinstance(missing.value.__cause__, FileNotFoundError)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"1\t2\n" * 1000)[:-20])
    with pytest.raises(DataError, match=r"must be readable. Received: .*cut.gz"):
        read_bytes(tmp_path / "cut.gz")


def test_multislot_widths_and_types() -> None:
    user, history, score = parse_multislot(b"1 4 2 8 9 1 0.5\n1 5 2 6 7 1 -2\n", 3)
    assert user.tolist() == [[4], [5]] and user.dtype == np.int64
    assert history.tolist() == [[8, 9], [6, 7]] and history.dtype == np.int64
    assert score.tolist() == [[0.5], [-2.0]] and score.dtype == np.float64


def test_multislot_fast_way_equals_slow_way() -> None:
    text = b"".join(b"1 %d 2 %d %d\n" % (n, n * 7, n * 11) for n in range(50))
    fast = parse_multislot(text, 2)
    slow = parse_multislot(text.replace(b" ", b"  "), 2)
    assert [array.shape for array in fast] == [(50, 1), (50, 2)]
    for one, other in zip(fast, slow):
        assert one.dtype == other.dtype == np.int64
        np.testing.assert_array_equal(one, other)


def test_multislot_of_nothing_has_no_rows() -> None:
    assert [array.shape for array in parse_multislot(b"", 3)] == [(0, 1)] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1 4 1 5\n1 4\n", "line 2: a line must hold 2 slots"),
        (b"1 4 1 5\n1 4 1 5 1 6\n", r"line 2: .* \(2 tokens left over\)"),
        (
            b"1 4 1 5\n1 4 2 5 6\n",
            "line 2: slot 1 must have the same number of values in every line, 1 as in line 1",
        ),
        (b"1 4 1 5\n1 x 1 5\n", "line 2: a line must hold 2 slots"),
        (b"1 4 0 1 5\n", "line 1: .*count 0 before 0 values"),
        (b"1 4 1 5\n1 4 3 5\n", "line 2: .*count 3 before 1 values"),
        (b"1 4 1 5\n\n1 4 1 5\n", "line 2: a line must hold 2 slots"),
    ],
)
def test_malformed_multislot_names_the_line(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_multislot(text, 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"1 4 1 5 1 4", r"a label must be 0 or 1. Received: 4. Write 1 where the user chose the item, or rated it"),
        (b"1 4 1 5 1 0.5", "a label must be 0 or 1. Received: 0.5. "),
        (b"1 4 1 5 1 nan", "a label must be 0 or 1. Received: nan. "),
        (b"1 4 1 5 1 -1", "a label must be 0 or 1. Received: -1. "),
        (
            b"1 0 1 1 1 2",
            "a label must be 0 or 1. Received: 2. These are the columns' numbers, in a header line as Padd",
        ),
        (
            b"1 9 1 5 1 1",
            "a user's id must be a whole number from 0 to 8, below num_users=9. Received: 9",
        ),
        (
            b"1 4 1 7 1 1",
            "an item's id must be a whole number from 0 to 6, below num_items=7. Received: 7",
        ),
        (
            b"1 -4 1 5 1 1",
            "a user's id must be a whole number from 0 to 8, .* Received: -4. Number the users from 0 up",
        ),
        (b"1 4 1 2.5 1 1", "an item's id must be a whole number from 0 to 6, .* Received: 2.5. "),
        (b"1 inf 1 5 1 1", "a user's id must be a whole number from 0 to 8, .* Received: inf. "),
        (b"1 1" + b"0" * 30 + b" 1 5 1 1", r"a user's id must be .* Received: 1e\+30. "),
    ],
)
def test_rows_that_cannot_be_trained(tmp_path: Path, row: bytes, message: str) -> None:
    path = tmp_path / "part-000.gz"
    path.write_bytes(gzip.compress(b"1 3 1 2 1 0\n1 8 1 6 1 1\n" + row + b"\n"))
    with pytest.raises(DataError, match=f"part-000.gz, line 3: {message}"):
        read_rows(path, Sizes(9, 7))


def test_ids_of_any_size_are_whole_and_at_least_zero(tmp_path: Path) -> None:
    path = tmp_path / "part-000"
    path.write_bytes(b"1 900000 1 5 1 1\n1 4 1 2.0 1 1.0\n")
    rows = read_rows(path)
    assert rows.tolist() == [[900000, 5, 1], [4, 2, 1]] and rows.dtype == np.int64
    path.write_bytes(b"1 900000 1 5 1 1\n1 4 1 -2 1 1\n")
    with pytest.raises(DataError, match="line 2: an item's id must be a whole number from 0 up. Received: -2. Number "):
        read_rows(path)


def test_other_slots_hold_any_number() -> None:
    slots = [np.array([[1]]), np.array([[-0.5]]), np.array([[99]]), np.array([[1.0]])]
    found = checked(slots, Sizes(2, 3), "x")
    assert [(slot.tolist(), slot.dtype.kind) for slot in found] == [
        ([[1]], "i"), ([[-0.5]], "f"), ([[99]], "i"), ([[1]], "i")
    ]  # fmt: skip
    slots[1] = np.array([[np.nan]])
    with pytest.raises(DataError, match="x, line 8: a value must be a finite number. Received: nan. "):
        checked(slots, Sizes(2, 3), "x", 8)


def test_csv_by_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "part-000.gz"
    path.write_bytes(gzip.compress(b"5,6,1\n7,8,0\n"))
    assert read_rows(path).tolist() == [[5, 6, 1], [7, 8, 0]]
    path.write_bytes(gzip.compress(b"0,1,2\n7,8,0\n"))
    with pytest.raises(DataError, match="part-000.gz, line 1: a label must be 0 or 1. Received: 2. These are the col"):
        read_rows(path)
    with pytest.raises(DataError, match="x, line 1: MultiSlot text has no commas. Received: '5,6,1'. Of a line user"):
        parse_multislot(b"5,6,1\n", 3, "x")


@pytest.mark.parametrize("packed", [False, True])
def test_csv_that_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    monkeypatch.setattr("fl_rec.data.text._BYTES_PER_PARSE", 20)
    monkeypatch.setattr("fl_rec.data.text._PARSES_PER_BLOCK", 3)
    path = tmp_path / "rows.csv"

    def blocks(text: bytes) -> list[np.ndarray]:
        path.write_bytes(gzip.compress(text) if packed else text)
        return list(csv_blocks(path, Sizes(99, 9999)))

    rows = [[n, n * n, n % 2] for n in range(40)]
    text = "\n".join("{},{},{}".format(*row) for row in rows).encode()
    found = blocks(text)
    assert len(found) > 3 and {block.dtype for block in found} == {np.dtype(np.int32)}
    assert np.concatenate(found).tolist() == rows
    assert np.concatenate(blocks(text.replace(b"\n", b"\r\n") + b"\r\n")).tolist() == rows
    with pytest.raises(DataError, match="rows.csv, line 41: a label must be 0 or 1. Received: 2"):
        blocks(text + b"\n1,2,2")
    with pytest.raises(DataError, match="rows.csv, line 21: a line must have 3 fields"):
        blocks(text.replace(b"\n20,", b"\n\n20,"))
    with pytest.raises(DataError, match="at least one row. Received: .*rows.csv, which is empty"):
        blocks(b"")


def test_slots_of_a_line() -> None:
    counts = [count_slots(text) for text in (b"1 4 2 7 8 2 1 0\n1 1\n", b"1 4 1 0.5", b"", b"x 1")]
    assert counts == [3, 2, 0, 0]


def test_blocks_are_whole_lines_and_know_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.data.text._BYTES_PER_PARSE", 20)
    text = b"".join(b"1 %d 1 %d\n" % (n, n * n) for n in range(12))
    blocks = list(multislot_blocks(text, 2))
    assert len(blocks) > 3 and min(len(user) for user, _ in blocks) >= 1
    user, item = parse_multislot(text, 2)
    assert user[:, 0].tolist() == list(range(12)) and item[:, 0].tolist() == [n * n for n in range(12)]
    mixed = text + b"1 12  1 0.5\n1 13 1 2\n"
    user, item = parse_multislot(mixed, 2)
    assert user.dtype == np.int64 and user[:, 0].tolist() == list(range(14))
    assert item.dtype == np.float64 and item[-3:, 0].tolist() == [121.0, 0.5, 2.0]
    with pytest.raises(DataError, match="line 15: a line must hold 2 slots"):
        parse_multislot(mixed + b"1 14\n", 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-128, 127], np.int8),
        ([0, 128], np.int32),
        ([-129, 0], np.int32),
        ([-(2**31), 2**31 - 1], np.int32),
        ([2**31], np.int64),
        ([-(2**31) - 1], np.int64),
        ([0.5, 3], np.float32),
    ],
)
def test_values_are_narrowed_without_loss(values: list[float], expected: type) -> None:
    found = narrowed(np.array(values), np.int8)
    assert found.dtype == expected and found.tolist() == values
    assert narrowed(np.array([1]), np.int32).dtype == np.int32


# -- rows as text for Paddle's data feed --------------------------------------------------------------------


def text_of(*slots: np.ndarray) -> bytes:
    return b"".join(lines.tobytes() for lines in multislot_text(slots))


def test_text_is_of_one_width_and_read_as_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.data.text._ROWS_PER_WRITE", 2)
    user = np.array([[7], [110], [0]], np.int32)
    items, labels = np.array([[5, 99], [0, 1], [12, 12]], np.int32), np.array([[1, 0]] * 3, np.int8)
    text = text_of(user, items, labels)
    assert text == b"1 007 2 05 99 2 1 0\n1 110 2 00 01 2 1 0\n1 000 2 12 12 2 1 0\n"
    for given, read in zip((user, items, labels), parse_multislot(text, 3)):
        np.testing.assert_array_equal(given, read)


@pytest.mark.parametrize("repeats", [1, 4000], ids=["digit by digit", "looked up"])
@pytest.mark.parametrize(
    ("values", "written"),
    [([0, 9], b"0 9"), ([10, 9], b"10 09"), ([-3, 12, 999], b"-003 0012 0999"), ([-100, -1, 0], b"-100 -001 0000")],
)
def test_numbers_have_the_digits_of_the_longest(values: list[int], written: bytes, repeats: int) -> None:
    slot = np.array([values] * repeats, np.int32)
    assert text_of(slot) == (b"%d %s\n" % (len(values), written)) * repeats


def test_ids_beyond_int32_and_no_table_of_them() -> None:
    assert text_of(np.array([[2**40], [3]])) == b"1 1099511627776\n1 0000000000003\n"


def test_floats_are_exact_for_float32() -> None:
    values = np.array([[0.1, -1e-30], [3e38, 0.0]], np.float32)
    text = text_of(values)
    assert len({len(line) for line in text.splitlines()}) == 1
    assert [np.float32(each) for each in text.split()[1:3]] == values[0].tolist()
    np.testing.assert_array_equal(parse_multislot(text, 1)[0].astype(np.float32), values)


def test_a_group_is_a_line_with_a_users_items_and_labels(tmp_path: Path) -> None:
    assert grouped_layout(3) == (("1 {} 3 ", "{} ", "{} ", "{} 3 1 0 0\n"), ".txt")
    write_rows(tmp_path / "groups", np.array([[12, 7, 3, 100], [0, 0, 12, 3]]), grouped_layout(3))
    assert (tmp_path / "groups").read_bytes() == b"1 12 3 7 3 100 3 1 0 0\n1 0 3 0 12 3 3 1 0 0\n"
    user, items, labels = parse_multislot((tmp_path / "groups").read_bytes(), 3)
    assert user.tolist() == [[12], [0]] and items.tolist() == [[7, 3, 100], [0, 12, 3]]
    assert labels.tolist() == [[1, 0, 0]] * 2
    assert read_rows(tmp_path / "groups").tolist() == [
        [12, 7, 1], [12, 3, 0], [12, 100, 0], [0, 0, 1], [0, 12, 0], [0, 3, 0]
    ]  # fmt: skip


def test_rows_of_other_widths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "groups").write_bytes(b"1 12 2 7 3 1 1\n")
    with pytest.raises(DataError, match=r"groups, line 1: .* as many labels as items\. Received: 1, 2, 1 values"):
        read_rows(tmp_path / "groups")
