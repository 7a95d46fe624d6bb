"""Row files, MultiSlot text, shards and manifest; split and negatives; sources."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_rec import data, sampling, sources
from fl_rec.errors import ConfigError, DataError

ROWS = np.array([[0, 7, 1], [0, 12, 0], [3, 1, 0], [10, 0, 1]])


# ---------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("layout", sorted(data.LAYOUTS))
def test_rows_survive_writing_and_reading(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "new" / "part"
    size, sha256 = data.write_rows(path, ROWS, data.LAYOUTS[layout])
    text = path.read_bytes()
    assert size == len(text) and len(sha256) == 64
    if layout == "csv":
        assert text == b"0,7,1\n0,12,0\n3,1,0\n10,0,1\n"
        read = data.read_csv_rows(path)
    else:
        assert text == b"1 0 1 7 1 1\n1 0 1 12 1 0\n1 3 1 1 1 0\n1 10 1 0 1 1\n"
        read = np.concatenate(data.parse_multislot(text, 3), axis=1)
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, ROWS)


def test_rows_are_written_in_chunks_that_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_ROWS_PER_WRITE", 3)
    data.write_rows(tmp_path / "rows", ROWS, data.LAYOUTS["csv"])
    np.testing.assert_array_equal(data.read_csv_rows(tmp_path / "rows"), ROWS)


def test_csv_first_row_counts_and_a_last_newline_or_crlf_do_not(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"5,6,1\r\n7,8,0")
    assert data.read_csv_rows(tmp_path / "rows.csv").tolist() == [[5, 6, 1], [7, 8, 0]]


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
        (b"1,2,0\n3,4,2\n", "line 2: a label must be 0 or 1. Received 2"),
        (b" \n", "must hold at least one row. Received: .*rows.csv, which is empty"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "rows.csv").write_bytes(text)
    with pytest.raises(DataError, match=message):
        data.read_csv_rows(tmp_path / "rows.csv")


def test_missing_and_damaged_files_keep_their_cause(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be readable. Received: .*absent") as missing:
        data.read_bytes(tmp_path / "absent")
    assert isinstance(missing.value.__cause__, FileNotFoundError)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"1\t2\n" * 1000)[:-20])
    with pytest.raises(DataError, match=r"must be readable. Received: .*cut.gz"):
        data.read_bytes(tmp_path / "cut.gz")


def test_multislot_widths_and_types() -> None:
    user, history, score = data.parse_multislot(b"1 4 2 8 9 1 0.5\n1 5 2 6 7 1 -2\n", 3)
    assert user.tolist() == [[4], [5]] and user.dtype == np.int64
    assert history.tolist() == [[8, 9], [6, 7]] and history.dtype == np.int64
    assert score.tolist() == [[0.5], [-2.0]] and score.dtype == np.float64


def test_multislot_fast_way_equals_slow_way() -> None:
    text = b"".join(b"1 %d 2 %d %d\n" % (n, n * 7, n * 11) for n in range(50))
    fast = data.parse_multislot(text, 2)
    slow = data.parse_multislot(text.replace(b" ", b"  "), 2)
    assert [array.shape for array in fast] == [(50, 1), (50, 2)]
    for one, other in zip(fast, slow):
        assert one.dtype == other.dtype == np.int64
        np.testing.assert_array_equal(one, other)


def test_multislot_of_nothing_has_no_rows() -> None:
    assert [array.shape for array in data.parse_multislot(b"", 3)] == [(0, 1)] * 3


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
        data.parse_multislot(text, 2)


def test_a_group_is_a_line_with_a_users_items_and_labels(tmp_path: Path) -> None:
    assert data.grouped_layout(3) == (("1 {} 3 ", "{} ", "{} ", "{} 3 1 0 0\n"), ".txt")
    data.write_rows(tmp_path / "groups", np.array([[12, 7, 3, 100], [0, 0, 12, 3]]), data.grouped_layout(3))
    assert (tmp_path / "groups").read_bytes() == b"1 12 3 7 3 100 3 1 0 0\n1 0 3 0 12 3 3 1 0 0\n"
    user, items, labels = data.parse_multislot((tmp_path / "groups").read_bytes(), 3)
    assert user.tolist() == [[12], [0]] and items.tolist() == [[7, 3, 100], [0, 12, 3]]
    assert labels.tolist() == [[1, 0, 0]] * 2


def test_interrupted_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), data.atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# ---------------------------------------------------------------------------------------------- shards


def make_manifest(out: Path, num_shards: int = 2, layout: str = "multislot", validation: bool = False) -> data.Manifest:
    shards = [np.array([[k, 1, 1], [k, 2, 0], [k, 3, 0]]) for k in range(num_shards)]
    manifest = data.Manifest(
        version=data.MANIFEST_VERSION,
        format=layout,
        slots=data.SLOTS,
        seed=1,
        source={"kind": "test"},
        partitioner={"name": "iid", "options": {}},
        num_shards=num_shards,
        num_users=num_shards,
        num_items=4,
        bad_zip={"policy": None, "users": 0, "train_rows": 0},
        dropped_users=0,
        totals={},
        shards=data.write_shards(
            out, shards, shards, data.LAYOUTS[layout], seed=1, validation=shards if validation else None
        ),
        folder=out,
    )
    data.write_json(out / data.MANIFEST_NAME, manifest.to_json())
    return manifest


def test_manifest_is_found_in_the_folder_or_its_parent(tmp_path: Path) -> None:
    written = make_manifest(tmp_path)
    assert data.load_manifest(tmp_path) == written
    assert data.load_manifest(tmp_path / data.TRAIN_FOLDER) == written
    assert written.shards[1].train.file == "fl_train_data/part-001.txt"
    assert (written.shards[1].train.rows, written.shards[1].train.positives) == (3, 1)
    assert (written.shards[1].test.users, written.shards[1].test.items) == (1, 3)


def test_a_manifest_from_before_groups_and_validation_loads(tmp_path: Path) -> None:
    written = make_manifest(tmp_path)
    content = written.to_json()
    assert content.pop("group_size") == 1
    assert [shard.pop("validation") for shard in content["shards"]] == [None, None]
    data.write_json(tmp_path / data.MANIFEST_NAME, content)
    assert data.load_manifest(tmp_path) == written


def test_validation_shards_are_listed_written_as_they_are_and_checked(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, validation=True)
    assert data.load_manifest(tmp_path) == manifest
    file = manifest.shards[1].validation
    assert file is not None and file.file == "fl_valid_data/part-001.txt"
    assert (file.rows, file.positives, file.users, file.items) == (3, 1, 1, 3)
    folders = [tmp_path / name for name in (data.TRAIN_FOLDER, data.TEST_FOLDER, data.VALIDATION_FOLDER)]
    part = folders[2] / "part-001.txt"
    assert part.read_bytes() == b"1 1 1 1 1 1\n1 1 1 2 1 0\n1 1 1 3 1 0\n"
    data.check_shards(manifest, *folders, verify=True)
    part.write_bytes(part.read_bytes().replace(b"3", b"4"))
    data.check_shards(manifest, *folders)
    with pytest.raises(DataError, match=r"fl_valid_data/part-001.txt must have the SHA-256"):
        data.check_shards(manifest, *folders, verify=True)


@pytest.mark.parametrize("listed", [0, 1])
def test_validation_shards_that_the_manifest_does_not_list(tmp_path: Path, listed: int) -> None:
    manifest = make_manifest(tmp_path, validation=True)
    shards = [shard if k < listed else replace(shard, validation=None) for k, shard in enumerate(manifest.shards)]
    with pytest.raises(DataError) as caught:
        data.check_shards(replace(manifest, shards=tuple(shards)), tmp_path / data.TRAIN_FOLDER, None, tmp_path / "v")
    assert str(caught.value) == (
        f"{tmp_path}/v can be used only if the manifest lists a validation file for every shard. Received: {listed} of "
        f"2 in {tmp_path}/manifest.json. Run prepare.py --validation and gen_heter_data.py again."
    )


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert data.load_manifest(tmp_path / "a" / "b") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be of version 1. Received: None"),
        ('{"version": 2}', "must be of version 1. Received: 2"),
        ('{"version": 1}', "must be complete"),
        ('{"version": 1, "shards": [{}], "slots": []}', "must be complete"),
    ],
)
def test_bad_manifest_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / data.MANIFEST_NAME).write_text(text)
    with pytest.raises(DataError, match=message):
        data.load_manifest(tmp_path)


def test_check_shards_finds_missing_surplus_and_changed_files(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    train, test = tmp_path / data.TRAIN_FOLDER, tmp_path / data.TEST_FOLDER
    data.check_shards(manifest, train, test, verify=True)
    part = train / "part-001.txt"
    text = part.read_bytes()
    part.write_bytes(text.replace(b"3", b"4"))
    data.check_shards(manifest, train)  # sizes only
    with pytest.raises(DataError, match=r"part-001.txt must have the SHA-256"):
        data.check_shards(manifest, train, verify=True)
    part.write_bytes(text[:-1])
    with pytest.raises(DataError, match=rf"part-001.txt must have {len(text)} bytes.*Received {len(text) - 1}"):
        data.check_shards(manifest, train)
    part.unlink()
    with pytest.raises(DataError, match=r"Missing: .*part-001.txt.*gen_heter_data.py"):
        data.check_shards(manifest, train)
    part.write_bytes(text)
    (test / "part-002.txt").write_bytes(text)
    with pytest.raises(DataError, match=r"files only. Received: .*part-002.txt"):
        data.check_shards(manifest, train, test)


def test_an_earlier_generation_is_removed(tmp_path: Path) -> None:
    make_manifest(tmp_path, num_shards=5, validation=True)
    make_manifest(tmp_path, num_shards=2, layout="csv")
    assert list((tmp_path / data.VALIDATION_FOLDER).iterdir()) == []
    for folder in (data.TRAIN_FOLDER, data.TEST_FOLDER):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["part-000.csv", "part-001.csv"]


def test_training_shards_are_shuffled_and_test_shards_are_not(tmp_path: Path) -> None:
    rows = np.stack([np.zeros(100), np.arange(100), np.ones(100)], axis=1).astype(np.int64)
    first, again = (data.write_shards(tmp_path / name, [rows], [rows], data.LAYOUTS["csv"], seed=3) for name in "ab")
    assert first == again
    assert data.write_shards(tmp_path / "c", [rows], [rows], data.LAYOUTS["csv"], seed=4) != first
    shuffled = data.read_csv_rows(tmp_path / "a" / first[0].train.file)
    assert shuffled.tolist() != rows.tolist() and sorted(shuffled.tolist()) == rows.tolist()
    assert data.read_csv_rows(tmp_path / "a" / first[0].test.file).tolist() == rows.tolist()


def test_groups_are_shuffled_whole_and_counted_as_rows(tmp_path: Path) -> None:
    groups = np.array([[[n % 7, n, 1], [n % 7, 200 + n, 0], [n % 7, 400 + n, 0]] for n in range(100)])
    rows, test = groups.reshape(-1, 3), np.array([[0, 1, 1], [0, 2, 0]])
    (shard,) = data.write_shards(tmp_path, [rows], [test], data.LAYOUTS["multislot"], seed=3, group_size=3)
    train = shard.train
    assert (train.rows, train.positives, train.users, train.items) == (100, 100, 7, 300)
    user, items, labels = data.parse_multislot((tmp_path / train.file).read_bytes(), 3)
    assert labels.tolist() == [[1, 0, 0]] * 100
    written = np.concatenate([user, items], axis=1).tolist()
    expected = [[n % 7, n, 200 + n, 400 + n] for n in range(100)]
    assert written != expected and sorted(written) == sorted(expected)
    assert (tmp_path / shard.test.file).read_bytes() == b"1 0 1 1 1 1\n1 0 1 2 1 0\n"


def test_rows_are_grouped_in_their_order() -> None:
    groups = data.group_rows(np.array([[0, 7, 1], [0, 1, 0], [0, 8, 1], [0, 2, 0], [3, 1, 1], [3, 9, 0]]), "x")
    assert groups[:, :, 1].tolist() == [[7, 1], [8, 2], [1, 9]] and groups[:, 0, 0].tolist() == [0, 0, 3]
    assert data.group_rows(np.array([[0, 7, 1], [0, 1, 0], [0, 2, 0]]), "x").shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("rows", "line", "received"),
    [
        ([(0, 0), (0, 1), (0, 0), (0, 1)], 1, "user 0, label 0, after a first group of 2 row(s)"),
        ([(0, 1), (0, 0), (0, 1), (0, 0), (0, 0)], 5, "user 0, label 0, after a first group of 2 row(s)"),
        ([(0, 1), (0, 0), (0, 0), (0, 1), (0, 0)], 5, "user 0, label 0, after a first group of 3 row(s)"),
        ([(0, 1), (0, 0), (0, 0), (0, 1), (0, 1), (0, 0)], 5, "user 0, label 1, after a first group of 3 row(s)"),
        ([(0, 1), (0, 0), (1, 1), (2, 0)], 4, "user 2, label 0, after a first group of 2 row(s)"),
        ([(0, 1), (0, 1)], 1, "user 0, label 1, after a first group of 1 row(s)"),
        ([(0, 1)], 1, "user 0, label 1, after a first group of 1 row(s)"),
        ([(0, 0), (0, 0)], 1, "user 0, label 0, after a first group of 2 row(s)"),
    ],
)
def test_rows_in_another_order_are_not_grouped(rows: list[tuple[int, int]], line: int, received: str) -> None:
    with pytest.raises(DataError) as caught:
        data.group_rows(np.array([(user, 5, label) for user, label in rows]), "a.csv")
    assert str(caught.value) == (
        f"a.csv, line {line}: rows can be grouped only if each positive is followed by its negatives, all of one user "
        f"and as many as the first positive has. Received: {received}. Leave --group out, or prepare a source that "
        "leaves the training negatives to prepare.py."
    )


def test_an_empty_shard_is_an_error_with_a_remedy() -> None:
    shards = data.split_rows(ROWS, np.array([0] * 10 + [2]), 4)
    assert [len(rows) for rows in shards] == [3, 0, 1, 0]
    with pytest.raises(DataError, match=r"training rows.*Received none for shard\(s\) 1, 3 of 4.*fewer --num_shards"):
        data.require_rows(shards, "training")


# ---------------------------------------------------------------------------------------------- sampling


def test_latest_is_left_out_and_of_equal_times_the_later_line() -> None:
    user = np.array([1, 0, 1, 0, 1, 2])
    time = np.array([9, 5, 9, 1, 3, 7])
    train, test = sampling.leave_one_out(user, time)
    assert test.tolist() == [1, 2]
    assert train.tolist() == [3, 4, 0, 5]  # user 2's only interaction stays


def test_one_item_of_each_user_is_held_out_with_its_repeats() -> None:
    train = np.array([[4, 2], [0, 1], [4, 0], [0, 1], [2, 3], [4, 2], [2, 3], [4, 1]])  # users 0 and 2 have one item
    drawn = np.zeros(3, dtype=int)
    for seed in range(3000):
        rest, held_out = sampling.hold_out_one(train, 5, np.random.default_rng(seed))
        ((user, item),) = held_out.tolist()
        assert user == 4 and rest.tolist() == [pair for pair in train.tolist() if pair != [4, item]]
        drawn[item] += 1
    assert drawn.tolist() == pytest.approx([1000] * 3, abs=4 * (3000 * 2 / 9) ** 0.5)


def test_who_is_held_out_depends_on_the_seed_and_not_on_the_order() -> None:
    rng = np.random.default_rng(0)
    items = rng.random((200, 50)).argsort(axis=1)[:, :10]
    train = np.stack([np.repeat(np.arange(200), 10), items.ravel()], axis=1)
    rest, first = sampling.hold_out_one(train, 50, np.random.default_rng(1))
    assert first[:, 0].tolist() == list(range(200)) and len(rest) == 1800
    assert sorted(np.concatenate([rest, first]).tolist()) == sorted(train.tolist())
    _, again = sampling.hold_out_one(rng.permutation(train), 50, np.random.default_rng(1))
    assert again.tolist() == first.tolist()
    _, other = sampling.hold_out_one(train, 50, np.random.default_rng(2))
    assert (other[:, 1] == first[:, 1]).sum() == pytest.approx(20, abs=4 * 18**0.5)


def test_absent_items_lists_exactly_the_complement() -> None:
    pairs = np.array([[0, 0], [0, 1], [0, 4], [2, 3], [2, 3]])
    absent = sampling.AbsentItems(pairs, num_users=3, num_items=5)
    assert absent.count.tolist() == [2, 5, 4]
    found = [absent.item(np.full(n, user), np.arange(n)).tolist() for user, n in enumerate(absent.count)]
    assert found == [[2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 4]]


def test_a_training_negative_is_any_item_but_a_training_item_and_the_test_item_is_one() -> None:
    train = np.array([[0, 0], [0, 2], [1, 3]])  # user 0's test item is 4
    drawn = {0: set(), 1: set()}
    for seed in range(30):
        rows = sampling.sample_train_rows(train, 2, 6, 4, data.generator(seed, 0))
        assert rows[rows[:, 2] == 1][:, :2].tolist() == train.tolist()
        assert rows.shape == (15, 3) and rows.dtype == np.int64
        for user, item, label in rows.tolist():
            if label == 0:
                drawn[user].add(item)
    assert drawn == {0: {1, 3, 4, 5}, 1: {0, 1, 2, 4, 5}}


def test_training_negatives_are_uniform() -> None:
    train = np.stack([np.zeros(2), [1, 3]], axis=1).astype(np.int64)
    rows = sampling.sample_train_rows(train, 1, 5, 15_000, data.generator(0, 0))
    share = np.bincount(rows[rows[:, 2] == 0, 1], minlength=5) / 30_000
    np.testing.assert_allclose(share, [1 / 3, 0, 1 / 3, 0, 1 / 3], atol=0.015)


def test_no_possible_negative_and_no_negatives_are_errors() -> None:
    with pytest.raises(DataError, match=r"Received: 1 user\(s\) with all 2 items, first user id 1"):
        sampling.sample_train_rows(np.array([[0, 0], [1, 0], [1, 1]]), 2, 2, 4, data.generator(0, 0))
    with pytest.raises(ConfigError, match=r"num_neg must be at least 1. Received: 0"):
        sampling.sample_train_rows(np.array([[0, 0]]), 1, 2, 0, data.generator(0, 0))


def test_test_negatives_are_distinct_and_new_to_the_user() -> None:
    train = np.array([[0, item] for item in range(50)] + [[1, 5]])
    test = np.array([[0, 50], [1, 6]])
    rows = sampling.sample_test_rows(train, test, 2, 151, data.generator(0, 0))
    assert rows.shape == (200, 3)
    for group, (user, item) in zip(rows.reshape(2, 100, 3), test.tolist()):
        assert group[0].tolist() == [user, item, 1]
        assert (group[:, 0] == user).all() and (group[1:, 2] == 0).all()
        assert len(set(group[1:, 1].tolist())) == 99
        assert not set(group[1:, 1].tolist()) & {i for u, i in [*train.tolist(), *test.tolist()] if u == user}


def test_a_user_with_fewer_than_99_possible_negatives_gets_all() -> None:
    rows = sampling.sample_test_rows(np.array([[0, 0]]), np.array([[0, 2]]), 1, 5, data.generator(0, 0))
    assert rows[0].tolist() == [0, 2, 1] and sorted(rows[1:, 1].tolist()) == [1, 3, 4]


def negative_lines(*heads: str, count: int = 99) -> bytes:
    return "".join(head + "".join(f"\t{10 + n}" for n in range(count)) + "\n" for head in heads).encode()


def test_given_negatives_are_used_in_their_order_and_users_sorted(tmp_path: Path) -> None:
    path = tmp_path / "x.test.negative.gz"
    path.write_bytes(gzip.compress(negative_lines("(1,3)", "(0,2)")))
    rows = sampling.read_test_rows(path, np.array([[0, 2], [1, 3]]), 200)
    assert rows[::100].tolist() == [[0, 2, 1], [1, 3, 1]]
    assert rows[1:100].tolist() == [[0, 10 + n, 0] for n in range(99)]


def test_a_published_split_chooses_among_a_users_items(tmp_path: Path) -> None:
    """Of ratings with one timestamp any may be the last; the file's choice is taken, and nothing is lost."""
    path = tmp_path / "x.test.negative"
    path.write_bytes(negative_lines("(0,2)", "(1,4)", "(2,9)"))
    train = np.array([[0, 1], [1, 4], [1, 5], [2, 7]])
    test = np.array([[0, 2], [1, 3], [2, 8]])
    new_train, new_test, moved = sampling.adopt_test_positives(path, train, test)
    assert moved == 1
    assert new_train.tolist() == [[0, 1], [1, 3], [1, 5], [2, 7]]
    # User 2 never rated item 9: left as it is, for read_test_rows to refuse.
    assert new_test.tolist() == [[0, 2], [1, 4], [2, 8]]


@pytest.mark.parametrize(
    ("text", "num_items", "message"),
    [
        (
            negative_lines("(0,2)"),
            200,
            "line 1: .*each of 2 tested users. Received 1 lines; the first missing is user 1",
        ),
        (negative_lines("(0,2)", "(1,4)"), 200, "line 2: the positive of user 1 must be item 3. Received 4"),
        (negative_lines("(0,2)", "(1,3)", count=98), 200, "line 1: a line must have 101 fields"),
        (negative_lines("(0,2)", "(0,2)"), 200, "line 2: .*Received user 0, who is listed twice"),
        (negative_lines("(0,2)", "(7,3)"), 200, "line 2: .*Received user 7, who has no test item"),
        (negative_lines("(0,2)", "(1,3)"), 100, "line 1: an item id must be below 100. Received 108"),
    ],
)
def test_negatives_of_another_data_set_are_refused(tmp_path: Path, text: bytes, num_items: int, message: str) -> None:
    (tmp_path / "negatives").write_bytes(text)
    with pytest.raises(DataError, match=message):
        sampling.read_test_rows(tmp_path / "negatives", np.array([[0, 2], [1, 3]]), num_items)


# ---------------------------------------------------------------------------------------------- sources

RATINGS = "5::30::4::100\n2::10::4::7\n5::10::3::90\n2::20::1::7\n5::40::1::80\n"
USERS = "2::F::1::10::48067\n5::M::56::16::T8H1N\n"
MOVIES = "10::Café (1995)::Comedy|Drama\n20::B::Drama\n30::C, D::Action\n40::D::Drama\n"


def write_ml1m(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in (("ratings", RATINGS), ("users", USERS), ("movies", MOVIES)):
        (folder / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return folder


def test_movielens_1m_ids_split_and_titles(tmp_path: Path) -> None:
    loaded = sources.load_source(str(write_ml1m(tmp_path / "ml-1m")), seed=0)
    assert loaded.kind == "ml-1m" and (loaded.num_users, loaded.num_items) == (2, 4)
    assert loaded.items.original_id.tolist() == [30, 10, 20, 40]  # order of first appearance
    assert loaded.original_user.tolist() == [2, 5]
    assert loaded.zip_code.tolist() == ["48067", "T8H1N"]
    assert loaded.test.tolist() == [[0, 2], [1, 0]]
    assert loaded.train.tolist() == [[0, 1], [1, 3], [1, 1]]
    assert loaded.items.title[1] == "Café (1995)" and loaded.items.genres[1] == "Comedy|Drama"
    assert loaded.user_table().genre.tolist() == ["Comedy", "Drama"]
    assert loaded.user_table().activity.tolist() == [1, 2]


@pytest.mark.parametrize("inside", ["", "ml-1m/"])
def test_a_zip_equals_its_folder(tmp_path: Path, inside: str) -> None:
    folder = write_ml1m(tmp_path / "ml-1m")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, inside + path.name)
    packed, plain = (sources.load_source(str(path), 0) for path in (tmp_path / "a.zip", tmp_path))
    np.testing.assert_array_equal(packed.train, plain.train)
    assert packed.items.title == plain.items.title


def test_a_repeated_rating_counts_once_at_its_latest_time(tmp_path: Path) -> None:
    folder = write_ml1m(tmp_path / "ml-1m")
    (folder / "ratings.dat").write_text("1::10::5::1\n1::20::5::2\n1::10::5::3\n2::20::5::1\n")
    loaded = sources.load_source(str(folder), 0)
    assert loaded.test.tolist() == [[0, 0]] and loaded.train.tolist() == [[0, 1], [1, 1]]
    assert loaded.notes == {"repeated_ratings_dropped": 1, "users_without_test_item": 1}


def test_movielens_100k(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t3\t881250950\n")
    (tmp_path / "u.user").write_text("186|24|M|technician|85711\n196|53|F|other|94043\n")
    (tmp_path / "u.item").write_bytes("242|Kolya|1996||url|0|1|1\n302|L.A.|1997||url|0|0|1\n".encode("latin-1"))
    (tmp_path / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n\n")
    loaded = sources.load_source(str(tmp_path), 0)
    assert loaded.kind == "ml-100k" and loaded.zip_code.tolist() == ["85711", "94043"]
    assert loaded.test.tolist() == [[1, 1]] and loaded.train.tolist() == [[0, 1], [1, 0]]
    assert loaded.items.title == ["Kolya", "L.A."] and loaded.items.genres == ["Action|Drama", "Drama"]


@pytest.mark.parametrize("folders", [True, False])
def test_paddlerec_rows_are_kept_and_the_first_one_counts(tmp_path: Path, folders: bool) -> None:
    train, test = tmp_path / "big_train", tmp_path / "big_test"
    for folder in (train, test):
        folder.mkdir()
    train, test = (train, test) if folders else (tmp_path, tmp_path)
    (train / "train_data.csv").write_text("0,3,1\n0,1,0\n1,2,1\n")
    (test / "test_data.csv").write_text("1,4,0\n1,5,1\n0,2,1\n0,4,0\n0,3,0\n")
    loaded = sources.load_source(str(tmp_path), 0)
    assert loaded.kind == "paddlerec" and (loaded.num_users, loaded.num_items) == (2, 6)
    assert loaded.train_rows is not None and loaded.test_rows is not None
    assert loaded.train_rows.tolist() == [[0, 3, 1], [0, 1, 0], [1, 2, 1]]
    assert loaded.test_rows.tolist() == [[0, 2, 1], [0, 4, 0], [0, 3, 0], [1, 5, 1], [1, 4, 0]]
    assert loaded.train.tolist() == [[0, 3], [1, 2]] and loaded.test.tolist() == [[0, 2], [1, 5]]
    assert loaded.zip_code.tolist() == ["", ""]
    (test / "test_data.csv").write_text("0,2,1\n1,4,0\n")
    with pytest.raises(DataError, match=r"must have exactly one positive. Received 0 for user 1"):
        sources.load_source(str(tmp_path), 0)


def write_ncf(folder: Path, name: str = "ml") -> Path:
    (folder / f"{name}.train.rating").write_text("0\t1\t5\t9\n1\t0\t5\t9\n0\t4\t5\t9\n")
    (folder / f"{name}.test.rating").write_text("1\t3\t5\t9\n0\t2\t5\t9\n")
    (folder / f"{name}.test.negative.gz").write_bytes(gzip.compress(negative_lines("(0,2)", "(1,3)")))
    return folder / name


def test_ncf_files_by_prefix_or_folder(tmp_path: Path) -> None:
    prefix = write_ncf(tmp_path)
    for source in (prefix, tmp_path):
        loaded = sources.load_source(str(source), 0)
        assert loaded.kind == "ncf" and (loaded.num_users, loaded.num_items) == (2, 109)
        assert loaded.train.tolist() == [[0, 1], [0, 4], [1, 0]] and loaded.test.tolist() == [[0, 2], [1, 3]]
        assert loaded.train_rows is None and loaded.test_rows is not None and len(loaded.test_rows) == 200
    write_ncf(tmp_path, "pinterest")
    with pytest.raises(DataError, match=r"one data set. Received: .* with ml, pinterest. Give the prefix"):
        sources.load_source(str(tmp_path), 0)


def test_zip_codes_can_come_from_a_users_file(tmp_path: Path) -> None:
    loaded = sources.load_source(str(write_ncf(tmp_path)), 0)
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n3::F::1::10::55555\n")
    assert sources.with_zip_codes(loaded, tmp_path / "users.dat").zip_code.tolist() == ["48067", ""]
    (tmp_path / "u.user").write_text("2|24|M|technician|85711\n")
    assert sources.with_zip_codes(loaded, tmp_path / "u.user").zip_code.tolist() == ["", "85711"]


def test_an_id_with_one_digit_too_many_does_not_take_all_memory(tmp_path: Path) -> None:
    write_ncf(tmp_path)
    (tmp_path / "ml.train.rating").write_text("0\t99999999999\t5\t9\n")
    with pytest.raises(DataError, match=r"id must be below 50000000. Received: 99999999999"):
        sources.load_source(str(tmp_path), 0)


@pytest.mark.parametrize("name", ["ratings.dat", "users.dat"])
def test_malformed_movielens_names_file_and_line(tmp_path: Path, name: str) -> None:
    folder = write_ml1m(tmp_path / "ml-1m")
    with open(folder / name, "a", encoding="latin-1") as file:
        file.write("x::1\n")
    line = (folder / name).read_text(encoding="latin-1").count("\n")
    with pytest.raises(DataError, match=f"{name}, line {line}: "):
        sources.load_source(str(folder), 0)


def test_unknown_layouts_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Looked for ratings.dat and users.dat.*u.data.*train_data.csv.*train.rating"):
        sources.load_source(str(tmp_path), 0)
    with pytest.raises(DataError, match=r"absent, which does not exist. Looked for"):
        sources.load_source(str(tmp_path / "absent"), 0)
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"must be a folder or a zip. Received: .*bad.zip") as caught:
        sources.load_source(str(tmp_path / "bad.zip"), 0)
    assert isinstance(caught.value.__cause__, zipfile.BadZipFile)


def test_synthetic_is_as_uneven_as_movielens_and_the_same_for_a_seed() -> None:
    one, same, other = (sources.load_source("synthetic", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train, same.train)
    assert len(one.train) != len(other.train) or (one.train != other.train).any()
    assert (one.num_users, one.num_items) == (600, 400)
    assert len(one.train) + len(one.test) == pytest.approx(30_000, rel=0.02)
    region = np.array([int(code[0]) for code in one.zip_code])
    share = np.bincount(region[one.train[:, 0]], minlength=10) / len(one.train)
    np.testing.assert_allclose(share, np.array(sources.REGION_ROWS) / sum(sources.REGION_ROWS), atol=0.01)
    popularity = np.sort(np.bincount(one.train[:, 1]))[::-1]
    assert popularity[:40].sum() > 0.2 * len(one.train)  # a tenth of the items


def test_users_survive_writing_and_reading(tmp_path: Path) -> None:
    loaded = sources.load_source(str(write_ml1m(tmp_path / "ml-1m")), 0)
    sources.write_users(tmp_path / "users.csv", loaded)
    read, expected = sources.read_users(tmp_path / "users.csv"), loaded.user_table()
    for name in ("user", "zip_code", "activity", "genre"):
        assert getattr(read, name).tolist() == getattr(expected, name).tolist()
    sources.write_items(tmp_path / "items.csv", loaded.items)
    with open(tmp_path / "items.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[:3] == [
            ["item", "original_id", "title", "genres"],
            ["0", "30", "C, D", "Action"],
            ["1", "10", "Café (1995)", "Comedy|Drama"],
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,zip_code\n0,1\n", "line 2: the columns must be user, original_id"),
        ("user,zip_code,activity,genre\n0,1,2,\n1,1,x,\n", "line 3: the columns must be"),
        ("user,zip_code,activity,genre\n1,1,2,\n", "must be numbered 0, 1, 2"),
    ],
)
def test_a_bad_users_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "users.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        sources.read_users(tmp_path / "users.csv")


def test_a_user_without_known_genre_has_an_empty_one(tmp_path: Path) -> None:
    loaded = sources.load_source(str(write_ml1m(tmp_path / "ml-1m")), 0)
    blank = replace(loaded, items=replace(loaded.items, genres=[""] * 4))
    assert blank.user_table().genre.tolist() == ["", ""]


def test_json_is_readable_utf8(tmp_path: Path) -> None:
    data.write_json(tmp_path / "a.json", {"title": "Café"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"title": "Café"}
