"""Names of users and items, and what each user has had: read from shards, written, read again, refused."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.catalogue import Catalogue
from fl_rec.data.manifest import MANIFEST_VERSION, SLOTS, Manifest
from fl_rec.data.shards import write_shards
from fl_rec.data.text import LAYOUTS
from fl_rec.errors import DataError

ITEMS = 'item,original_id,title,genres\n0,10,"Star, The",Drama|War\n1,20,Élan,\n2,30,Third,Drama\n3,40,Fourth,War\n'
USERS = "user,original_id,zip_code,activity,genre\n0,7,01234,2,Drama\n1,5,1,1,War\n2,9,,1,\n"
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
        bad_zip={},
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


def test_one_client_has_its_shards_users_alone(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    catalogue = Catalogue.of_shards(manifest, manifest.mappings, client=0)
    assert histories(catalogue) == {7: [0, 1, 2], 9: [1, 2, 3]}
    with pytest.raises(DataError, match=r"one of the 2 that the model serves, .* \(from 7 to 9\)\. Received: 5\."):
        catalogue.position(5)


def test_what_is_written_is_read_again_and_says_no_more_of_users_than_their_ids(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    checksums = Catalogue.of_shards(manifest, manifest.mappings, client=0).write(out)
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
    lines = (tmp_path / name).read_text(encoding="utf-8").replace(",10,", ",40,", 1).replace(",7,", ",6,", 1)
    (tmp_path / name).write_text(lines, encoding="utf-8")
    now = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    again = dataclasses.replace(manifest, mappings={**trained_with, name: now})
    with pytest.raises(DataError, match="A model's ids mean the users and items that it was trained with") as error:
        Catalogue.of_shards(again, trained_with)
    for part in (str(tmp_path / name), now, trained_with[name], "Train again, or name the data"):
        assert part in str(error.value)
    assert Catalogue.of_shards(again, again.mappings).users.tolist() == [0, 1, 2]


def test_shards_or_a_model_from_before_the_mappings(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    with pytest.raises(
        DataError, match="Received: the model, made before .* Make the shards again .*, and train again"
    ):
        Catalogue.of_shards(manifest, {})
    older = dataclasses.replace(manifest, mappings={})
    with pytest.raises(DataError, match=f"Received: shards in {tmp_path}, made before"):
        Catalogue.of_shards(older, manifest.mappings)


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    path = tmp_path / manifest.shards[1].train.file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="must have .* bytes, says the manifest"):
        Catalogue.of_shards(manifest, manifest.mappings)
