"""Shards that somebody else wrote: which files are found, what is counted, told and refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from fl_rec import cli
from fl_rec.data.adopt import adopt
from fl_rec.data.catalogue import Catalogue
from fl_rec.data.manifest import Manifest, check_shards, load_manifest
from fl_rec.data.ranks import Ranked
from fl_rec.data.shards import verify
from fl_rec.errors import DataError

TRAIN = ["1 0 1 2 1 1\n1 0 1 3 1 0\n1 2 1 2 1 1\n1 2 1 0 1 0\n", "1 1 1 4 1 1\n1 1 1 2 1 0\n1 1 1 3 1 0\n"]
TEST = ["1 0 1 1 1 1\n1 0 1 0 1 0\n", "1 1 1 0 1 1\n1 1 1 1 1 0\n"]


def write(folder: Path, train: list[str] = TRAIN, test: list[str] = TEST, names: tuple[str, ...] = ("train", "test")):
    for name, texts in zip(names, (train, test)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k, text in enumerate(texts):
            (folder / name / f"clicks-{k}").write_text(text)
    return folder


def refused(folder: Path, **options: object) -> str:
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError) as caught:
        adopt(folder, {}, **options)
    assert sorted(folder.rglob("*")) == before, "nothing is written"
    return str(caught.value)


def test_what_is_counted(tmp_path: Path) -> None:
    manifest, notes = adopt(write(tmp_path), {})
    assert notes == [] and load_manifest(tmp_path / "train") == load_manifest(tmp_path) == manifest
    assert (manifest.num_shards, manifest.num_users, manifest.num_items) == (2, 3, 5)
    assert (manifest.format, manifest.group_size, dict(manifest.mappings)) == ("multislot", 1, {})
    assert manifest.source == {"kind": "shards", "name": tmp_path.name}
    file = manifest.shards[0].train
    assert (file.file, file.rows, file.positives, file.users, file.items) == ("train/clicks-0", 4, 2, 2, 3)
    assert file.bytes == len(TRAIN[0]) and manifest.shards[1].test.file == "test/clicks-1"
    assert manifest.totals == {
        **{"train_rows": 7, "train_positives": 3, "train_users": 3, "train_items": 4},
        **{"test_rows": 4, "test_positives": 2, "test_users": 2, "test_items": 2},
    }
    assert manifest.difference["train_positives"] == {"smallest": 1, "largest": 2}
    assert manifest.difference["common_items"]["shards"] == [0.0, 0.0] and manifest.difference["tags"] is None
    # Both items of a user's list are in no training positive: a tie counts against the first.
    assert manifest.popularity == ((Ranked(1, 1, (0, 1), (0, 1)),),) * 2 and manifest.popularity_at(1, shard=1) == {
        "hr@1": 0.0, "ndcg@1": 0.0,
    }  # fmt: skip
    assert manifest.popularity_at(2) == {"hr@2": 1.0, "ndcg@2": pytest.approx(0.6309, abs=1e-4)}
    assert verify(tmp_path) == manifest
    (tmp_path / "test" / "clicks-1").write_text(TEST[1].replace("1 1 1 0 1 1", "1 1 1 2 1 1"))
    check_shards(manifest, tmp_path / "train", tmp_path / "test")
    with pytest.raises(DataError, match="test/clicks-1 must have the SHA-256"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("popularity", "received"),
    [
        ([[]], "popularity is of 1 shards, of 2"),
        ([[{"positives": 1, "users": 1, "first": [2], "every": [1]}], []], "popularity has more positives than users"),
        (
            [[{"positives": 1, "users": 1, "first": [1], "every": [1, 1]}], []],
            "popularity has more positives than users",
        ),
        ([[{"positives": 0, "users": 1, "first": [], "every": []}], []], "greater than or equal to 1"),
    ],
)
def test_popularity_that_cannot_be(tmp_path: Path, popularity: object, received: str) -> None:
    adopt(write(tmp_path), {})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "popularity": popularity}))
    with pytest.raises(DataError, match=received):
        load_manifest(tmp_path)


def test_shards_of_an_earlier_version_tell_nothing_of_popularity(tmp_path: Path) -> None:
    manifest, _ = adopt(write(tmp_path), {})
    content = {name: each for name, each in manifest.to_json().items() if name != "popularity"}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    found = load_manifest(tmp_path)
    assert found is not None and (found.popularity_at(10), found.popularity_at(10, shard=1)) == (None, None)


def test_gzip_groups_validation_public_and_folders_of_other_names(tmp_path: Path) -> None:
    groups = ["1 0 2 2 3 2 1 0\n", "1 1 2 4 2 2 1 0\n"]
    write(tmp_path, groups, names=("mine", "fl_test_data"))
    for name, text in (("validation/a", TEST[0]), ("validation/b", TEST[1]), ("public/all", "1 7 1 2 1 1\n")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
    manifest, notes = adopt(tmp_path, {"train": "mine"})
    assert notes == ["Ids of users go up to 7, and 3 of them occur. A table has a row for each: number them without "
                     "wide gaps."]  # fmt: skip
    assert (manifest.group_size, manifest.num_users) == (2, 8)
    assert (manifest.shards[0].train.rows, manifest.shards[0].train.positives) == (1, 1)
    validation, public = manifest.shards[1].validation, manifest.public
    assert validation and public
    assert (validation.file, validation.rows, public.file, public.rows) == ("validation/b", 2, "public/all", 1)
    assert manifest.folder_of("validation") == tmp_path / "validation"
    assert verify(tmp_path) == manifest


def catalogue(manifest: Manifest) -> Catalogue:
    return Catalogue.of_shards(manifest, manifest.mappings)


def test_ids_are_the_names_where_there_are_no_others(tmp_path: Path) -> None:
    found = catalogue(adopt(write(tmp_path), {})[0])
    assert found.original_users.tolist() == [0, 1, 2] and found.position("2") == 2
    assert (found.items.original_id.tolist(), set(found.items.title)) == ([0, 1, 2, 3, 4], {""})
    assert [found.seen(user).tolist() for user in range(3)] == [[1, 2], [0, 4], [2]]


def test_names_of_users_and_items(tmp_path: Path) -> None:
    write(tmp_path)
    items, users = tmp_path / "items.csv", tmp_path / "all users.csv"
    items.write_text("item,original_id,title,tags\n" + "".join(f"{n},sku-{n},Thing {n},a|b\n" for n in range(6)))
    users.write_text("user,original_id,city\n0,u-7,Lima\n1,u-8,Oslo\n2,u-9,Oslo\n")
    manifest, _ = adopt(tmp_path, {}, items=items, users=users)
    assert (manifest.num_items, sorted(manifest.mappings)) == (6, ["items.csv", "users.csv"])
    assert (tmp_path / "users.csv").read_bytes() == users.read_bytes()
    found = catalogue(manifest)
    assert found.original_users.tolist() == ["u-7", "u-8", "u-9"] and found.position("u-8") == 1
    assert (found.items.original_id[5], found.items.title[5]) == ("sku-5", "Thing 5")
    with pytest.raises(DataError, match="the names of these with the shards in .* alone"):
        Catalogue.of_shards(manifest, {})
    manifest, _ = adopt(tmp_path, {}, items=items)
    assert sorted(manifest.mappings) == ["items.csv"]
    assert catalogue(manifest).original_users.tolist() == [0, 1, 2]
    users.write_text("user,original_id\n0,u-7\n1,u-8\n")
    with pytest.raises(DataError, match="clicks-0, line 3: a user's id must be .* from 0 to 1, below num_users=2. Rec"):
        adopt(tmp_path, {}, users=users)


def test_what_a_user_should_know(tmp_path: Path) -> None:
    several = [TRAIN[0], TRAIN[1] + "1 0 1 1 1 1\n"]
    notes = adopt(write(tmp_path, several, TEST[::-1]), {})[1]
    assert [note.split(":")[0].split(". ")[0] for note in notes] == [
        "1 of 3 users are in several training shards, the first is user 0",
        "test/clicks-0 has 1 users who are not in its training shard, the first is user 1",
    ]
    notes = adopt(write(tmp_path, [TRAIN[0], "1 1 1 4 1 1\n"]), {})[1]
    assert notes == [
        "train/clicks-1 have labels of one kind only, which teach and tell nothing. Set runner.resample_negatives to "
        "draw negatives."
    ]
    csv = [[text.replace(" 1 ", ",").replace("1 ", "") for text in texts] for texts in (TRAIN, TEST)]
    manifest, notes = adopt(write(tmp_path, *csv), {})
    assert manifest.format == "csv" and manifest.totals["train_rows"] == 7
    assert notes == ['The shards are CSV: runner.pipe_command="python queuedataset_reader.py" reads them.']


def test_what_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == (
        f"{tmp_path} must be a folder of train shards. Received: {tmp_path}/fl_train_data, which does not exist. It is "
        "called fl_train_data or train; name another with --train NAME"
    )
    assert refused(write(tmp_path, TRAIN, TEST[:1])) == (
        "Each worker has one file of each kind, so there must be equally many. Received: 2 train files, 1 test files "
        f"beside {tmp_path}/train. Join or split files: the k-th of each kind, by name, are for the same users."
    )
    assert refused(write(tmp_path, [TRAIN[0], "0,1,2\n"])).endswith(
        "clicks-1, line 1: a label must be 0 or 1. Received: 2. These are the columns' numbers, in a header line as "
        "PaddleRec's splitter writes it: remove it."
    )
    assert "line 1: an item's id must be a whole number from 0 to 49,999,999, below num_items=50000000" in refused(
        write(tmp_path, [TRAIN[0], "1 4 1 50000000 1 1\n"])
    )
    assert "Shards must be of the same layout. Received: multislot in train/clicks-0, and csv in train/clicks-1." in (
        refused(write(tmp_path, [TRAIN[0], "1,2,1\n"]))
    )
    assert "Shards must be of the same group_size. Received: 1 in train/clicks-0, and 2 in train/clicks-1." in (
        refused(write(tmp_path, [TRAIN[0], "1 1 2 2 3 2 1 0\n"]))
    )
    assert refused(write(tmp_path, TRAIN, [TEST[0], "1 1 2 2 3 2 1 0\n"])) == (
        "A row to score must have one item and its label. Received: 2 in test/clicks-1. Write a row per item; only "
        "training rows may be groups."
    )
    (tmp_path / "manifest.json").write_text('{"source": {"kind": "ml-1m"}}')
    assert refused(write(tmp_path)) == (
        f"fl-rec shards writes the manifest of shards that have none. Received: {tmp_path}/manifest.json, which fl-rec "
        "partition wrote. Check them with fl-rec partition --verify, or remove it first."
    )


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["shards", str(write(tmp_path, [TRAIN[0], "1 1 1 4 1 1\n"])), "--test", "test"]) == 0
    out = capsys.readouterr().out
    assert (
        out.split()[:4] == ["shard", "users", "training", "rows"] and "\nrows      multislot, 1 item(s) each\n" in out
    )
    assert "\nids       3 users, 5 items\nnote: train/clicks-1 have labels of one kind" in out
    assert out.endswith(
        f"\nwritten   {tmp_path}/manifest.json; in a configuration: runner: {{train_data_dir: {tmp_path}/train, "
        f"test_data_dir: {tmp_path}/test}}\n"
    )
