"""Count and check shards that somebody else wrote: `fl-rec shards`, from MultiSlot or CSV files to their manifest.

A folder holds a folder of training shards and one of test shards, and perhaps one of validation shards and one of a
file of public users' rows. Shard k is the k-th file by name, plain or gzip. Ids are whole numbers from 0 up; --items
and --users say which item and user each is. Written into the folder are manifest.json and copies of these two.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fl_rec.data.catalogue import ITEMS, USERS, read_items, read_original_users
from fl_rec.data.difference import difference, to_table
from fl_rec.data.manifest import (
    MANIFEST_NAME,
    MANIFEST_VERSION,
    PUBLIC_FOLDER,
    SLOTS,
    TEST_FOLDER,
    TRAIN_FOLDER,
    VALIDATION_FOLDER,
    Manifest,
    Shard,
    ShardFile,
    list_files,
)
from fl_rec.data.output import writing
from fl_rec.data.ranks import by_popularity
from fl_rec.data.rows import MAX_IDS, Sizes
from fl_rec.data.shards import count_rows
from fl_rec.data.tags import ItemTags
from fl_rec.data.text import read_slots, ungrouped
from fl_rec.errors import DataError
from fl_rec.files import atomic_write, read_json, sha256_of, write_json

KIND = "shards"


# What the folders may be called.
FOLDERS = {
    "train": (TRAIN_FOLDER, "train"),
    "test": (TEST_FOLDER, "test"),
    "validation": (VALIDATION_FOLDER, "valid", "validation"),
    "public": (PUBLIC_FOLDER, "public"),
}


# A table has a row for every id up to the largest: with so many for one that occurs, most of it is nobody's.
_WIDE_GAPS = 2


class Counted(NamedTuple):
    """A file: what a manifest says of it, its layout, the items of a row, the ids that occur, ascending, and how often
    each of these items is a positive."""

    file: ShardFile
    layout: str
    group_size: int
    users: np.ndarray
    items: np.ndarray
    liked: np.ndarray

    @classmethod
    def of(cls, folder: Path, path: Path, sizes: Sizes) -> Counted:
        """Reads a file. DataError, with the line, if a row can't be trained."""
        layout, slots = read_slots(path, sizes)
        rows, group_size = ungrouped(slots), slots[1].shape[1]
        name = path.relative_to(folder).as_posix()
        counts = count_rows(rows, group_size)
        file = ShardFile(name, **counts, bytes=path.stat().st_size, sha256=sha256_of(path))
        items, place = np.unique(rows[:, 1], return_inverse=True)
        liked = np.bincount(place, rows[:, 2]).astype(np.int64)
        return cls(file, layout, group_size, np.unique(rows[:, 0]), items, liked)


Found = Mapping[str, Sequence[Counted]]


def adopt(
    folder: Path, named: Mapping[str, str | None], items: Path | None = None, users: Path | None = None
) -> tuple[Manifest, list[str]]:
    """Writes the manifest of a folder's shards.

    Args:
        named: what a folder in it is called, by its name in `FOLDERS`, unless it is called so.
        items, users: which items and users the ids are, as in what `fl-rec prepare` writes: item, original_id, title
            and tags, or user and original_id, numbered 0, 1, 2, ...; None if the ids are all there is.

    Returns:
        the manifest, and what a user should know of the shards.

    Raises:
        DataError: a folder or a file is missing or malformed, a row can't be trained, there is not a file of each kind
            for each shard, or the manifest that is there is `fl-rec partition`'s.
    """
    _require_no_other_manifest(folder)
    num_users = len(read_original_users(users)[0]) if users else None
    num_items = len(read_items(items).original_id) if items else None
    sizes = Sizes(num_users or MAX_IDS, num_items or MAX_IDS)
    paths = {kind: _files(folder, kind, named.get(kind)) for kind in FOLDERS}
    _require_a_file_each(paths)
    found = {kind: [Counted.of(folder, path, sizes) for path in paths[kind]] for kind in FOLDERS}
    for counted in (*found["test"], *found["validation"]):
        if counted.group_size > 1:
            raise DataError(
                f"A row to score must have one item and its label. Received: {counted.group_size} in "
                f"{counted.file.file}. Write a row per item; only training rows may be groups."
            )
    every = [counted for each in found.values() for counted in each]
    ids = {name: reduce(np.union1d, [getattr(counted, name) for counted in every]) for name in ("users", "items")}
    group_size = _the_same("group_size", found["train"])
    layout = _the_same("layout", [*found["train"], *found["test"], *found["validation"]])
    num_users, num_items = num_users or int(ids["users"][-1]) + 1, num_items or int(ids["items"][-1]) + 1
    tags = read_items(items).tags if items else [""] * num_items
    positives: np.ndarray = np.zeros((len(paths["train"]), num_items), np.int64)
    for row, counted in zip(positives, found["train"]):
        row[counted.items] = counted.liked
    chosen = positives.sum(axis=0)
    ranked = tuple(by_popularity(ungrouped(read_slots(path, sizes)[1]), chosen) for path in paths["test"])
    with writing(folder):
        mappings = {name: _copied(path, folder / name) for name, path in ((ITEMS, items), (USERS, users)) if path}
        files = [[counted.file for counted in found[kind]] for kind in ("train", "test", "validation") if found[kind]]
        manifest = Manifest(
            version=MANIFEST_VERSION,
            format=layout,
            slots=SLOTS,
            seed=0,
            source={"kind": KIND, "name": folder.resolve().name},
            partitioner={"name": "as found", "options": {}},
            num_shards=len(paths["train"]),
            num_users=num_users,
            num_items=num_items,
            unplaced={"policy": None, "users": 0, "train_rows": 0},
            dropped_users=0,
            totals={name: count for kind in FOLDERS for name, count in _totals(kind, found[kind])},
            shards=tuple(Shard(*of_shard) for of_shard in zip(*files)),
            folder=folder,
            group_size=group_size,
            mappings=mappings,
            public=found["public"][0].file if found["public"] else None,
            difference=difference(positives, ItemTags.of(tags)),
            popularity=ranked,
        )
        write_json(folder / MANIFEST_NAME, manifest.to_json())
    return manifest, list(_notes(manifest, found, ids))


def _require_no_other_manifest(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    source = read_json(path).get("source") if path.is_file() else {"kind": KIND}
    if not isinstance(source, dict) or source.get("kind") != KIND:
        raise DataError(
            f"fl-rec shards writes the manifest of shards that have none. Received: {path}, which fl-rec partition "
            "wrote. Check them with fl-rec partition --verify, or remove it first."
        )


def _files(folder: Path, kind: str, name: str | None) -> list[Path]:
    known = [each for each in FOLDERS[kind] if (folder / each).is_dir()]
    if name is None and not known and kind in ("validation", "public"):
        return []
    name = name or next(iter(known), FOLDERS[kind][0])
    remedy = f"It is called {' or '.join(FOLDERS[kind])}; name another with --{kind} NAME"
    return list_files(folder / name, f"{folder}", f"{kind} shards", remedy)


def _require_a_file_each(paths: Mapping[str, Sequence[Path]]) -> None:
    counts = {kind: len(files) for kind, files in paths.items() if files and kind != "public"}
    if len(set(counts.values())) > 1:
        raise DataError(
            "Each worker has one file of each kind, so there must be equally many. Received: "
            f"{', '.join(f'{count} {kind} files' for kind, count in counts.items())} beside "
            f"{paths['train'][0].parent}. Join or split files: the k-th of each kind, by name, are for the same users."
        )
    if len(paths["public"]) > 1:
        raise DataError(
            f"Public users' rows must be in one file. Received: {len(paths['public'])} in {paths['public'][0].parent}. "
            "Join them."
        )


def _the_same(what: str, files: Sequence[Counted]) -> Any:
    """What all files have in common. DataError if one is otherwise."""
    first = files[0]
    for other in files:
        if getattr(other, what) != getattr(first, what):
            raise DataError(
                f"Shards must be of the same {what}. Received: {getattr(first, what)} in {first.file.file}, and "
                f"{getattr(other, what)} in {other.file.file}. Write one of them again."
            )
    return getattr(first, what)


def _totals(kind: str, files: Sequence[Counted]) -> Iterator[tuple[str, int]]:
    if files and kind != "public":
        for what in ("rows", "positives"):
            yield f"{kind}_{what}", sum(getattr(counted.file, what) for counted in files)
        for what in ("users", "items"):
            yield f"{kind}_{what}", len(reduce(np.union1d, [getattr(counted, what) for counted in files]))


def _copied(path: Path, to: Path) -> str:
    """The SHA-256 of a file, of which a copy is here or else made."""
    if not (to.exists() and to.samefile(path)):
        with atomic_write(to) as file:
            file.write(path.read_bytes())
    return sha256_of(to)


def _notes(manifest: Manifest, found: Found, ids: Mapping[str, np.ndarray]) -> Iterator[str]:
    shards = [counted.users for counted in found["train"]]
    users, times = np.unique(np.concatenate(shards), return_counts=True)
    if (times > 1).any():
        yield (
            f"{(times > 1).sum():,} of {len(users):,} users are in several training shards, the first is user "
            f"{users[times > 1][0]}. Differential privacy then protects what a worker has of a user, not all of the "
            "user, and runner.private_params keeps another embedding at each worker."
        )
    for kind in ("test", "validation"):
        for own, other in zip(shards, found[kind]):
            strange = np.setdiff1d(other.users, own)
            if len(strange):
                yield (
                    f"{other.file.file} has {len(strange):,} users who are not in its training shard, the first is "
                    f"user {strange[0]}: nobody has trained them there. Are the files in the same order by name?"
                )
    for kind in ("train", "test", "validation"):
        one_sided = [c.file.file for c in found[kind] if c.file.positives in (0, c.file.rows * c.group_size)]
        if one_sided:
            remedy = " Set runner.resample_negatives to draw negatives." if kind == "train" else ""
            yield f"{', '.join(one_sided[:3])} have labels of one kind only, which teach and tell nothing.{remedy}"
    for name, size in (("users", manifest.num_users), ("items", manifest.num_items)):
        if size > _WIDE_GAPS * len(ids[name]):
            yield (
                f"Ids of {name} go up to {size - 1:,}, and {len(ids[name]):,} of them occur. A table has a row for "
                "each: number them without wide gaps."
            )
    if manifest.format == "csv":
        yield 'The shards are CSV: runner.pipe_command="python queuedataset_reader.py" reads them.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec shards`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with a folder of training and one of test shards")
    for kind, names in FOLDERS.items():
        parser.add_argument(f"--{kind}", metavar="NAME", help=f"folder in it; default: {' or '.join(names)}")
    parser.add_argument("--items", type=Path, metavar="FILE", help="CSV with item, original_id, title, tags")
    parser.add_argument("--users", type=Path, metavar="FILE", help="CSV with user, original_id")


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec shards`."""
    named = {kind: getattr(options, kind) for kind in FOLDERS}
    manifest, notes = adopt(options.folder, named, options.items, options.users)
    print(f"{to_table(manifest)}\n")
    print(f"rows      {manifest.format}, {manifest.group_size} item(s) each")
    print(f"ids       {manifest.num_users:,} users, {manifest.num_items:,} items")
    for note in notes:
        print(f"note: {note}")
    keys = {"train_data_dir": "train", "test_data_dir": "test", "validation_data_dir": "validation"}
    dirs = [f"{key}: {folder}" for key, kind in keys.items() if (folder := manifest.folder_of(kind))]
    print(f"written   {manifest.folder / MANIFEST_NAME}; in a configuration: runner: {{{', '.join(dirs)}}}")
    return 0
