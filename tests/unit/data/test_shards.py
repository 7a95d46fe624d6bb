"""Shards and their manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.manifest import (
    MANIFEST_NAME,
    MANIFEST_VERSION,
    PUBLIC_FOLDER,
    SLOTS,
    TEST_FOLDER,
    TRAIN_FOLDER,
    VALIDATION_FOLDER,
    Manifest,
    check_shards,
    load_manifest,
)
from fl_rec.data.partition import Dealt
from fl_rec.data.shards import Split, grouped, require_rows, write_shards
from fl_rec.data.text import LAYOUTS, parse_multislot, read_rows
from fl_rec.errors import DataError
from fl_rec.files import write_json

ROWS = np.array([[0, 7, 1], [0, 12, 0], [3, 1, 0], [10, 0, 1]])


def make_manifest(out: Path, num_shards: int = 2, layout: str = "multislot", validation: bool = False) -> Manifest:
    shards = [np.array([[k, 1, 1], [k, 2, 0], [k, 3, 0]]) for k in range(num_shards)]
    manifest = Manifest(
        version=MANIFEST_VERSION,
        format=layout,
        slots=SLOTS,
        seed=1,
        source={"kind": "test"},
        partitioner={"name": "iid", "options": {}},
        num_shards=num_shards,
        num_users=num_shards,
        num_items=4,
        unplaced={"policy": None, "users": 0, "train_rows": 0},
        dropped_users=0,
        totals={},
        shards=write_shards(out, shards, shards, LAYOUTS[layout], seed=1, validation=shards if validation else None),
        folder=out,
    )
    write_json(out / MANIFEST_NAME, manifest.to_json())
    return manifest


def test_manifest_is_found_in_the_folder_or_its_parent(tmp_path: Path) -> None:
    written = make_manifest(tmp_path)
    assert load_manifest(tmp_path) == written
    assert load_manifest(tmp_path / TRAIN_FOLDER) == written
    assert written.shards[1].train.file == "fl_train_data/part-001.txt"
    assert (written.shards[1].train.rows, written.shards[1].train.positives) == (3, 1)
    assert (written.shards[1].test.users, written.shards[1].test.items) == (1, 3)


def test_a_manifest_from_before_groups_and_validation_loads(tmp_path: Path) -> None:
    written = make_manifest(tmp_path)
    content = written.to_json()
    assert content.pop("group_size") == 1
    assert [shard.pop("validation") for shard in content["shards"]] == [None, None]
    write_json(tmp_path / MANIFEST_NAME, content)
    assert load_manifest(tmp_path) == written


def test_a_manifest_of_version_1_is_read_without_what_it_lacks(tmp_path: Path) -> None:
    written = make_manifest(tmp_path)
    content = written.to_json()
    for name in ("unplaced", "clients", "difference"):
        del content[name]
    write_json(tmp_path / MANIFEST_NAME, {**content, "version": 1, "bad_zip": {"policy": "spread"}})
    assert load_manifest(tmp_path) == replace(written, unplaced={})


def test_validation_shards_are_listed_written_as_they_are_and_checked(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, validation=True)
    assert load_manifest(tmp_path) == manifest
    file = manifest.shards[1].validation
    assert file is not None and file.file == "fl_valid_data/part-001.txt"
    assert (file.rows, file.positives, file.users, file.items) == (3, 1, 1, 3)
    folders = [tmp_path / name for name in (TRAIN_FOLDER, TEST_FOLDER, VALIDATION_FOLDER)]
    part = folders[2] / "part-001.txt"
    assert part.read_bytes() == b"1 1 1 1 1 1\n1 1 1 2 1 0\n1 1 1 3 1 0\n"
    check_shards(manifest, *folders, verify=True)
    part.write_bytes(part.read_bytes().replace(b"3", b"4"))
    check_shards(manifest, *folders)
    with pytest.raises(DataError, match=r"fl_valid_data/part-001.txt must have the SHA-256"):
        check_shards(manifest, *folders, verify=True)


@pytest.mark.parametrize("listed", [0, 1])
def test_validation_shards_that_the_manifest_does_not_list(tmp_path: Path, listed: int) -> None:
    manifest = make_manifest(tmp_path, validation=True)
    shards = [shard if k < listed else replace(shard, validation=None) for k, shard in enumerate(manifest.shards)]
    with pytest.raises(DataError) as caught:
        check_shards(replace(manifest, shards=tuple(shards)), tmp_path / TRAIN_FOLDER, None, tmp_path / "v")
    assert str(caught.value) == (
        f"{tmp_path}/v can be used only if the manifest lists a validation file for every shard. Received: {listed} of "
        f"2 in {tmp_path}/manifest.json. Make them: fl-rec prepare --validation, then fl-rec partition"
    )


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert load_manifest(tmp_path / "a" / "b") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", r"must be JSON\. Received: .*manifest\.json \(it holds a list\)"),
        ("{}", "must be of version 2. Received: None"),
        ('{"version": 3}', "must be of version 2. Received: 3"),
        ('{"version": 1}', "must be complete"),
        (
            '{"version": 2, "shards": [{}], "slots": []}',
            r"must be complete\. Received: .*json \(format: Field required; ",
        ),
    ],
)
def test_bad_manifest_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(DataError, match=message):
        load_manifest(tmp_path)


def test_check_shards_finds_missing_surplus_and_changed_files(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    train, test = tmp_path / TRAIN_FOLDER, tmp_path / TEST_FOLDER
    check_shards(manifest, train, test, verify=True)
    part = train / "part-001.txt"
    text = part.read_bytes()
    part.write_bytes(text.replace(b"3", b"4"))
    check_shards(manifest, train)  # sizes only
    with pytest.raises(DataError, match=r"part-001.txt must have the SHA-256"):
        check_shards(manifest, train, verify=True)
    # The public users' file is compared so in any case: nobody else does.
    public = shutil.copytree(train, tmp_path / PUBLIC_FOLDER) / "part-001.txt"
    (public.parent / "part-000.txt").unlink()
    file = replace(manifest.shards[1].train, file=f"{PUBLIC_FOLDER}/part-001.txt")
    with pytest.raises(DataError, match=rf"{public} must have the SHA-256"):
        check_shards(replace(manifest, public=file), train)
    public.write_bytes(text)
    check_shards(replace(manifest, public=file), train)
    part.write_bytes(text[:-1])
    with pytest.raises(DataError, match=rf"part-001.txt must have {len(text)} bytes.*Received {len(text) - 1}"):
        check_shards(manifest, train)
    part.unlink()
    with pytest.raises(DataError, match=r"Missing: .*part-001.txt.*Make the shards again: fl-rec partition"):
        check_shards(manifest, train)
    part.write_bytes(text)
    (test / "part-002.txt").write_bytes(text)
    with pytest.raises(DataError, match=r"files only. Received: .*part-002.txt"):
        check_shards(manifest, train, test)


def test_an_earlier_generation_is_removed(tmp_path: Path) -> None:
    make_manifest(tmp_path, num_shards=5, validation=True)
    make_manifest(tmp_path, num_shards=2, layout="csv")
    assert list((tmp_path / VALIDATION_FOLDER).iterdir()) == []
    for folder in (TRAIN_FOLDER, TEST_FOLDER):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["part-000.csv", "part-001.csv"]


def test_training_shards_are_shuffled_and_test_shards_are_not(tmp_path: Path) -> None:
    rows = np.stack([np.zeros(100), np.arange(100), np.ones(100)], axis=1).astype(np.int64)
    first, again = (write_shards(tmp_path / name, [rows], [rows], LAYOUTS["csv"], seed=3) for name in "ab")
    assert first == again
    assert write_shards(tmp_path / "c", [rows], [rows], LAYOUTS["csv"], seed=4) != first
    shuffled = read_rows(tmp_path / "a" / first[0].train.file)
    assert shuffled.tolist() != rows.tolist() and sorted(shuffled.tolist()) == rows.tolist()
    assert read_rows(tmp_path / "a" / first[0].test.file).tolist() == rows.tolist()


def test_groups_are_shuffled_whole_and_counted_as_rows(tmp_path: Path) -> None:
    groups = np.array([[[n % 7, n, 1], [n % 7, 200 + n, 0], [n % 7, 400 + n, 0]] for n in range(100)])
    rows, test = groups.reshape(-1, 3), np.array([[0, 1, 1], [0, 2, 0]])
    (shard,) = write_shards(tmp_path, [rows], [test], LAYOUTS["multislot"], seed=3, group_size=3)
    train = shard.train
    assert (train.rows, train.positives, train.users, train.items) == (100, 100, 7, 300)
    user, items, labels = parse_multislot((tmp_path / train.file).read_bytes(), 3)
    assert labels.tolist() == [[1, 0, 0]] * 100
    written = np.concatenate([user, items], axis=1).tolist()
    expected = [[n % 7, n, 200 + n, 400 + n] for n in range(100)]
    assert written != expected and sorted(written) == sorted(expected)
    assert (tmp_path / shard.test.file).read_bytes() == b"1 0 1 1 1 1\n1 0 1 2 1 0\n"


def whole(rows: Sequence[Sequence[int]], size: int = 2) -> np.ndarray:
    """Groups of rows that come in blocks of this size."""
    blocks = [np.array(rows[start : start + size]) for start in range(0, len(rows), size)]
    return np.concatenate(list(grouped(blocks, "a.csv")))


def test_rows_are_grouped_in_their_order() -> None:
    groups = whole([[0, 7, 1], [0, 1, 0], [0, 8, 1], [0, 2, 0], [3, 1, 1], [3, 9, 0]])
    assert groups[:, :, 1].tolist() == [[7, 1], [8, 2], [1, 9]] and groups[:, 0, 0].tolist() == [0, 0, 3]
    assert whole([[0, 7, 1], [0, 1, 0], [0, 2, 0]]).shape == (1, 3, 3)


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
@pytest.mark.parametrize("size", [1, 3, 99])
def test_rows_in_another_order_are_not_grouped(
    rows: list[tuple[int, int]], line: int, received: str, size: int
) -> None:
    with pytest.raises(DataError) as caught:
        whole([(user, 5, label) for user, label in rows], size)
    assert str(caught.value) == (
        f"a.csv, line {line}: rows can be grouped only if each positive is followed by its negatives, all of one user "
        f"and as many as the first positive has. Received: {received}. Leave --group out, or prepare a source that "
        "leaves the training negatives to fl-rec prepare."
    )


def test_rows_are_dealt_by_their_user_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.data.shards._ROWS_PER_PART", 2)
    rows = np.array([[0, 4, 1], [0, 1, 0], [1, 2, 1], [2, 3, 1], [2, 1, 0], [0, 1, 1], [2, 0, 1]])
    split = Split([rows[:5], rows[5:]], Dealt(np.array([1, -1, 0]), num_shards=2), 6)
    assert [len(shard) for shard in split.shards] == [3, 3]
    assert [shard.take().tolist() for shard in split.shards] == [rows[[3, 4, 6]].tolist(), rows[[0, 1, 5]].tolist()]
    assert [len(shard) for shard in split.shards] == [0, 0], "they are kept no longer"
    assert split.of_user.tolist() == [3, 1, 3]
    assert split.positives.tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]]
    assert split.totals == {"rows": 6, "positives": 4, "users": 2, "items": 4}


def test_an_empty_shard_is_an_error_with_a_remedy() -> None:
    shards = Split([ROWS], Dealt(np.array([0] * 10 + [2]), num_shards=4), 13).shards
    assert [len(rows) for rows in shards] == [3, 0, 1, 0]
    with pytest.raises(DataError, match=r"training rows.*Received none for shard\(s\) 1, 3 of 4.*fewer --num_shards"):
        require_rows(shards, "training")
    with pytest.raises(DataError, match=r"Received none for shard\(s\) 1 \(north\), 3 \(west\) of 4"):
        require_rows(shards, "training", ["east", "north", "south", "west"])


def test_each_shard_has_an_order_of_its_own(tmp_path: Path) -> None:
    """The same in every run of a seed, and other than another shard's of the same rows."""
    rows = np.stack([np.zeros(50, np.int64), np.arange(50), np.ones(50, np.int64)], axis=1)

    def orders(folder: str, seed: int) -> list[bytes]:
        written = write_shards(tmp_path / folder, [rows, rows], [rows, rows], LAYOUTS["csv"], seed)
        return [(tmp_path / folder / shard.train.file).read_bytes() for shard in written]

    first, second = orders("a", 1)
    assert sorted(first.splitlines()) == sorted(second.splitlines()) and first != second
    assert orders("b", 1) == [first, second]
    assert first not in orders("c", 2)


@pytest.mark.parametrize("change", [b"", b"1 0 1 1 1 1\n"], ids=["cut off", "longer"])
def test_a_shard_of_another_size(tmp_path: Path, change: bytes) -> None:
    manifest = make_manifest(tmp_path)
    path = tmp_path / TRAIN_FOLDER / "part-001.txt"
    before = path.read_bytes()
    path.write_bytes(before + change if change else before[:-1])
    with pytest.raises(DataError, match=f"part-001.txt must have {len(before)} bytes, says the manifest. Received "):
        check_shards(manifest, tmp_path / TRAIN_FOLDER)
