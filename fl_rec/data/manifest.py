"""The manifest of a folder of shards, and whether the folder is what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fl_rec.errors import DataError
from fl_rec.files import read_json, sha256_of

SLOTS = ("user_input", "item_input", "label")


MANIFEST_NAME = "manifest.json"


MANIFEST_VERSION = 2


TRAIN_FOLDER = "fl_train_data"


TEST_FOLDER = "fl_test_data"


VALIDATION_FOLDER = "fl_valid_data"


PUBLIC_FOLDER = "fl_public_data"


# Which user and which item an id is; beside the manifest, as `fl-rec prepare` wrote them.
MAPPINGS = ("items.csv", "users.csv")


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ShardFile:
    """One file, ``file`` relative to the manifest's folder, with its counts, size and checksum; ``rows`` are lines."""

    file: str
    rows: int
    positives: int
    users: int
    items: int
    bytes: int
    sha256: str


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Shard:
    """What one worker trains and tests on, and what its best epoch is chosen by."""

    train: ShardFile
    test: ShardFile
    validation: ShardFile | None = None


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Manifest:
    """What `fl-rec partition` wrote.

    ``num_users`` and ``num_items`` are upper bounds of the ids (an embedding's number of rows). ``unplaced``
    has what was done with users whom the partitioner can't place (null if it can place all), and the users and
    training rows it concerns. ``folder`` is where the manifest was found; it is not in the file. ``group_size`` is the
    number of items in a line of the training files. ``mappings`` has the SHA-256 of each of `MAPPINGS`; without them
    users and items have no names but their ids. ``public`` has the interactions of the users who are in no shard, if
    there are any. ``clients`` has a name for each shard, such as its region, if shards have names; ``difference`` is
    how different they are (see `fl_rec.data.difference`).
    """

    version: int
    format: str
    slots: tuple[str, ...]
    seed: int
    source: Mapping[str, Any]
    partitioner: Mapping[str, Any]
    num_shards: int
    num_users: int
    num_items: int
    unplaced: Mapping[str, Any]
    dropped_users: int
    totals: Mapping[str, int]
    shards: tuple[Shard, ...]
    folder: Path
    group_size: int = 1
    mappings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    public: ShardFile | None = None
    clients: tuple[str, ...] = ()
    difference: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def folder_of(self, kind: str) -> Path | None:
        """Where the "train", "test" or "validation" shards are; None if there are none."""
        file: ShardFile | None = getattr(self.shards[0], kind)
        return self.folder / Path(file.file).parent if file else None

    def to_json(self) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        del content["folder"]
        return content


def load_manifest(data_dir: Path) -> Manifest | None:
    """Return the manifest in ``data_dir`` or its parent, None if neither has one.

    DataError if it is not JSON, of another version, or incomplete.
    """
    for folder in (data_dir, data_dir.parent):
        path = folder / MANIFEST_NAME
        if path.is_file():
            return _parse_manifest(path)
    return None


def _parse_manifest(path: Path) -> Manifest:
    remedy = "Make the shards again: fl-rec partition"
    content = read_json(path, "A manifest must be JSON.", remedy)
    version = content.get("version")
    if version == 1:
        names = {field.name for field in dataclasses.fields(Manifest)}
        content = {name: content[name] for name in content if name in names}
        content.update(version=MANIFEST_VERSION, unplaced={})  # which were told otherwise
    elif version != MANIFEST_VERSION:
        raise DataError(f"A manifest must be of version {MANIFEST_VERSION}. Received: {version} in {path}. {remedy}")
    try:
        manifest: Manifest = TypeAdapter(Manifest).validate_python({**content, "folder": path.parent})
    except ValidationError as err:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in err.errors()[:3])
        raise DataError(f"A manifest must be complete. Received: {path} ({wrong}). {remedy}") from err
    if manifest.num_shards != len(manifest.shards):
        listed = f"num_shards is {manifest.num_shards}, but {len(manifest.shards)} shards are listed"
        raise DataError(f"A manifest must be complete. Received: {path} ({listed}). {remedy}")
    return manifest


def check_shards(
    manifest: Manifest,
    train_dir: Path,
    test_dir: Path | None = None,
    validation_dir: Path | None = None,
    *,
    verify: bool = False,
) -> None:
    """Check that the folders hold the manifest's shard files and no others, with the sizes it lists.

    ``verify`` also compares checksums, which reads every byte. A folder that is None is left unchecked. DataError
    names the first file that is missing, surplus or different.
    """
    _check_folder([shard.train for shard in manifest.shards], train_dir, verify)
    if manifest.public is not None:
        _check_folder([manifest.public], manifest.folder / Path(manifest.public.file).parent, verify)
    if test_dir is not None:
        _check_folder([shard.test for shard in manifest.shards], test_dir, verify)
    if validation_dir is not None:
        files = [shard.validation for shard in manifest.shards if shard.validation is not None]
        if len(files) < manifest.num_shards:
            raise DataError(
                f"{validation_dir} can be used only if the manifest lists a validation file for every shard. Received: "
                f"{len(files)} of {manifest.num_shards} in {manifest.folder / MANIFEST_NAME}. Make them: "
                "fl-rec prepare --validation, then fl-rec partition"
            )
        _check_folder(files, validation_dir, verify)


def _check_folder(files: Sequence[ShardFile], folder: Path, verify: bool) -> None:
    remedy = "Make the shards again: fl-rec partition"
    for file in files:
        path = folder / Path(file.file).name
        if not path.is_file():
            raise DataError(f"Every shard of the manifest must exist. Missing: {path}. {remedy}")
        size = path.stat().st_size
        if size != file.bytes:
            raise DataError(f"{path} must have {file.bytes} bytes, says the manifest. Received {size}. {remedy}")
        if verify and sha256_of(path) != file.sha256:
            raise DataError(f"{path} must have the SHA-256 {file.sha256}, says the manifest. It differs. {remedy}")
    surplus = sorted({path.name for path in folder.glob("part-*")} - {Path(file.file).name for file in files})
    if surplus:
        raise DataError(
            f"A shard folder must hold the manifest's files only. Received: {folder / surplus[0]}. {remedy}"
        )


def list_files(folder: Path, key: str, holds: str, remedy: str) -> list[Path]:
    """A folder's files of rows by name. DataError, which names the key and the remedy, if there is none."""
    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{key} must be a folder of {holds}. Received: {folder}, which {why}. {remedy}")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.name != MANIFEST_NAME and not path.name.startswith(".")
    )
    if not files:
        raise DataError(f"{key} must hold files. Received: {folder}, which is empty.")
    return files


def list_shards(folder: Path, key: str) -> list[Path]:
    """A folder's shards by name. DataError, which names `runner.KEY`, if there is none or one is empty."""
    remedy = "Make the shards with fl-rec prepare and fl-rec partition, or leave -m out for built-in data."
    if key == "validation_data_dir":
        remedy = "Make the shards with fl-rec prepare --validation and fl-rec partition."
    files = list_files(folder, f"runner.{key}", "shards", remedy)
    empty = [path.name for path in files if path.stat().st_size == 0]
    if empty:
        raise DataError(f"A shard must not be empty. Received: {', '.join(empty)} in {folder}. Make the shards again.")
    return files
