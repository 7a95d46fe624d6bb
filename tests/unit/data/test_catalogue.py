"""Names of users and items, and what each user has had: read from shards, written, read again, refused."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.catalogue import Catalogue
from fl_rec.data.manifest import MANIFEST_VERSION, SLOTS, Manifest
from fl_rec.data.shards import write_shards
from fl_rec.data.text import LAYOUTS
from fl_rec.errors import DataError

ITEMS = 'item,original_id,title,tags\n0,10,"Star, The",Drama|War\n1,20,Élan,\n2,30,Third,Drama\n3,40,Fourth,War\n'
USERS = "user,original_id,activity,tag,zip_code\n0,7,2,Drama,01234\n1,5,1,War,1\n2,9,1,,\n"
# User, item, label: users 0 and 2 in shard 0, user 1 in shard 1.
TRAIN = [[[0, 0, 1], [0, 3, 0], [0, 1, 1], [0, 3, 0], [2, 3, 1], [2, 0, 0]], [[1, 2, 1], [1, 1, 0]]]
TEST = [[[0, 2, 1], [0, 3, 0], [2, 1, 1], [2, 0, 0]], [[1, 3, 1], [1, 0, 0]]]
VALIDATION = [[[2, 2, 1], [2, 0, 0]], [[1, 0, 1], [1, 1, 0]]]


def make(folder: Path, layout: str = "multislot", group_size: int = 1, validation: bool = True) -> Manifest:
    train, test, valid = ([np.array(rows) for rows in kind] for kind in (TRAIN, TEST, VALIDATION))
    shards = write_shards(folder, train, test, LAYOUTS[layout], 1, valid if validation else None, group_size)
    contents = {"items.csv": ITEMS.encode(), "users.csv": USERS.encode()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return Manifest(
        version=MANIFEST_VERSION,
        format=layout,
        slots=SLOTS,
        seed=1,
        source={},
        partitioner={},
        num_shards=2,
        num_users=3,
        num_items=4,
        unplaced={},
        dropped_users=0,
        totals={},
        shards=shards,
        folder=folder,
        group_size=group_size,
        mappings={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )


def histories(catalogue: Catalogue) -> dict[int, list[int]]:
    users = catalogue.original_users.tolist()
    return {user: catalogue.seen(catalogue.position(user)).tolist() for user in users}


@pytest.mark.parametrize(("layout", "group_size"), [("multislot", 1), ("csv", 1), ("multislot", 2)])
def test_history_is_every_positive_of_training_validation_and_test(
    tmp_path: Path, layout: str, group_size: int
) -> None:
    manifest = make(tmp_path, layout, group_size)
    catalogue = Catalogue.of_shards(manifest, manifest.mappings)
    assert catalogue.users.tolist() == [0, 1, 2]
    assert histories(catalogue) == {7: [0, 1, 2], 5: [0, 2, 3], 9: [1, 2, 3]}
    assert catalogue.items.title == ["Star, The", "Élan", "Third", "Fourth"]
    assert catalogue.items.original_id.tolist() == [10, 20, 30, 40]


def test_without_validation_shards(tmp_path: Path) -> None:
    manifest = make(tmp_path, validation=False)
    assert histories(Catalogue.of_shards(manifest, manifest.mappings)) == {7: [0, 1, 2], 5: [2, 3], 9: [1, 3]}


def test_shards_of_other_hosts_need_not_be_here(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    for path in tmp_path.rglob("part-001*"):
        path.unlink()
    assert histories(Catalogue.of_shards(manifest, manifest.mappings, clients=[0])) == {7: [0, 1, 2], 9: [1, 2, 3]}
    for clients in (None, [0, 1]):
        with pytest.raises(DataError, match=r"must exist. Missing: .*fl_train_data/part-001"):
            Catalogue.of_shards(manifest, manifest.mappings, clients)


def test_one_client_has_its_shards_users_alone(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    catalogue = Catalogue.of_shards(manifest, manifest.mappings, clients=[0])
    assert histories(catalogue) == {7: [0, 1, 2], 9: [1, 2, 3]}
    with pytest.raises(DataError, match=r"one of the 2 that the model serves, .* \(from 7 to 9\)\. Received: 5\."):
        catalogue.position(5)


def test_what_is_written_is_read_again_and_says_no_more_of_users_than_their_ids(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    checksums = Catalogue.of_shards(manifest, manifest.mappings, clients=[0]).write(out)
    assert (out / "users.csv").read_text() == "user,original_id\n0,7\n2,9\n"
    assert (out / "items.csv").read_text(encoding="utf-8") == ITEMS
    assert checksums["items.csv"] == manifest.mappings["items.csv"]
    with np.load(out / "history.npz") as file:
        assert (file["indptr"].dtype, file["items"].dtype) == (np.int64, np.int32)
        assert (file["indptr"].tolist(), file["items"].tolist()) == ([0, 3, 6], [0, 1, 2, 1, 2, 3])
    assert histories(Catalogue.read(out, checksums)) == {7: [0, 1, 2], 9: [1, 2, 3]}


@pytest.mark.parametrize("name", ["items.csv", "users.csv", "history.npz"])
@pytest.mark.parametrize("how", ["changed", "cut off", "missing"])
def test_a_file_that_is_not_the_exported_one(tmp_path: Path, name: str, how: str) -> None:
    manifest = make(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    checksums = Catalogue.of_shards(manifest, manifest.mappings).write(out)
    content = (out / name).read_bytes()
    if how == "missing":
        (out / name).unlink()
    else:
        (out / name).write_bytes(content[:-4] if how == "cut off" else content + b"\n")
    with pytest.raises(DataError, match="An exported folder is used as it was written. Received: .*" + name) as error:
        Catalogue.read(out, checksums)
    assert checksums[name] in str(error.value)
    assert str(error.value).endswith("Export the model again.")
    assert ("no such file" in str(error.value)) == (how == "missing")


@pytest.mark.parametrize("name", ["items.csv", "users.csv"])
def test_a_stale_mapping(tmp_path: Path, name: str) -> None:
    """The data was made again since the model was trained, and an id means somebody else."""
    manifest = make(tmp_path)
    trained_with = dict(manifest.mappings)
    lines = (tmp_path / name).read_text(encoding="utf-8").replace(",10,", ",50,", 1).replace(",7,", ",6,", 1)
    (tmp_path / name).write_text(lines, encoding="utf-8")
    now = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    again = dataclasses.replace(manifest, mappings={**trained_with, name: now})
    with pytest.raises(DataError, match="A model's ids mean the users and items that it was trained with") as error:
        Catalogue.of_shards(again, trained_with)
    for part in (str(tmp_path / name), now, trained_with[name], "Train again, or name the data"):
        assert part in str(error.value)
    assert Catalogue.of_shards(again, again.mappings).users.tolist() == [0, 1, 2]


def test_names_that_came_or_went_since(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    with pytest.raises(DataError) as caught:
        Catalogue.of_shards(manifest, {})
    assert str(caught.value) == (
        "A model's ids mean the users and items that it was trained with. Received: the names of these with the shards "
        f"in {tmp_path} alone. Train again, or name the data that the model was trained with: --data FOLDER"
    )
    with pytest.raises(DataError, match="the names of these with the model alone"):
        Catalogue.of_shards(dataclasses.replace(manifest, mappings={}), manifest.mappings)


def test_without_names_ids_are_as_they_are(tmp_path: Path) -> None:
    nameless = dataclasses.replace(make(tmp_path), mappings={})
    catalogue = Catalogue.of_shards(nameless, {}, clients=[0])
    assert histories(catalogue) == {0: [0, 1, 2], 2: [1, 2, 3]}
    assert catalogue.items.original_id.tolist() == [0, 1, 2, 3] and catalogue.items.title == [""] * 4
    checksums = catalogue.write(tmp_path)
    assert Catalogue.read(tmp_path, checksums).items.tags == [""] * 4
    half = dataclasses.replace(make(tmp_path), mappings={"users.csv": make(tmp_path).mappings["users.csv"]})
    assert Catalogue.of_shards(half, half.mappings).original_users.tolist() == [7, 5, 9]


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    path = tmp_path / manifest.shards[1].train.file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="must have .* bytes, says the manifest"):
        Catalogue.of_shards(manifest, manifest.mappings)


def test_ids_may_be_texts(tmp_path: Path) -> None:
    """As soon as one of them is no whole number as Python writes it: then 7 is a text too."""
    users, items = USERS.replace("1,5,1", "1,u-5,1").replace("2,9,", "2,009,"), ITEMS.replace("0,10,", "0,sku-10,")
    manifest = make(tmp_path)
    for name, text in (("users.csv", users), ("items.csv", items)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    mappings = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in manifest.mappings}
    catalogue = Catalogue.of_shards(dataclasses.replace(manifest, mappings=mappings), mappings)
    out = tmp_path / "out"
    out.mkdir()
    for each in (catalogue, Catalogue.read(out, catalogue.write(out))):
        assert each.original_users.tolist() == ["7", "u-5", "009"]
        assert each.items.original_id.tolist() == ["sku-10", "20", "30", "40"]
        assert [each.position(user) for user in ("u-5", 7, "7")] == [1, 0, 0]
        for absent, hint in (("9", ""), (9, ""), ("u-", "Did you mean u-5? "), ("u-55", "Did you mean u-5? ")):
            told = re.escape(f"(from 009 to u-5). Received: {absent}. {hint}users.csv")
            with pytest.raises(DataError, match=told):
                each.position(absent)


@pytest.mark.parametrize("absent", ["u-5", "05", "+5", "5.0", "-5", "8", "5" * 19, "\u0665", ""])
def test_a_text_that_is_no_users_number(tmp_path: Path, absent: str) -> None:
    manifest = make(tmp_path)
    catalogue = Catalogue.of_shards(manifest, manifest.mappings)
    assert catalogue.position("5") == catalogue.position(5) == 1
    with pytest.raises(DataError, match=r"\(from 5 to 9\)\. Received: "):
        catalogue.position(absent)
