"""The manifest of a folder of shards, and whether the folder is what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import ConfigDict, with_config

from fl_rec.data import ranks
from fl_rec.data.ranks import Ranked
from fl_rec.data.rows import Size
from fl_rec.errors import DataError
from fl_rec.files import read_json, sha256_of
from fl_rec.outside import Count, Inside, Number, Share, as_typed

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

    file: Inside
    rows: Count
    positives: Count
    users: Count
    items: Count
    bytes: Count
    sha256: str


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Shard:
    """What one worker trains and tests on, and what its best epoch is chosen by."""

    train: ShardFile
    test: ShardFile
    validation: ShardFile | None = None


@dataclass(frozen=True)
class Spread:
    """How different each shard is from the others, and the mean."""

    mean: Number
    shards: tuple[Number, ...]


@dataclass(frozen=True)
class Tastes:
    """Each tag's share of the training positives of all shards, and of each."""

    names: tuple[str, ...]
    all: tuple[Share, ...]
    shards: tuple[tuple[Share, ...], ...]


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
    how different they are (see `fl_rec.data.difference`). ``popularity`` has for each shard where its test users'
    positives rank if items are ranked by their training positives in all shards, by users with equally many.
    """

    version: int
    format: str
    slots: tuple[str, ...]
    seed: Count
    source: Mapping[str, Any]
    partitioner: Mapping[str, Any]
    num_shards: Count
    num_users: Size
    num_items: Size
    unplaced: Mapping[str, Any]
    dropped_users: Count
    totals: Mapping[str, Count]
    shards: tuple[Shard, ...]
    folder: Path
    group_size: Annotated[Count, Ge(1)] = 1
    mappings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    public: ShardFile | None = None
    clients: tuple[str, ...] = ()
    difference: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    popularity: tuple[tuple[Ranked, ...], ...] = ()

    def popularity_at(self, top_k: int, shard: int | None = None) -> dict[str, float] | None:
        """`hr@K` and `ndcg@K` of ranking test items by their training counts; of one shard's users, or of all.

        None if nothing tells, as of shards that an earlier version wrote.
        """
        shards = self.popularity if shard is None else self.popularity[shard : shard + 1]
        return ranks.figures([each for groups in shards for each in groups], top_k)

    def folder_of(self, kind: str) -> Path | None:
        """Where the "train", "test" or "validation" shards are; None if there are none."""
        file: ShardFile | None = getattr(self.shards[0], kind)
        return self.folder / Path(file.file).parent if file else None

    def stated(self, kind: str, folder: Path) -> dict[Path, ShardFile]:
        """What is said of each shard of a kind, by where it lies in a folder."""
        files: list[ShardFile] = [file for shard in self.shards if (file := getattr(shard, kind)) is not None]
        return {folder / Path(file.file).name: file for file in files}

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
    manifest = as_typed(Manifest, {**content, "folder": path.parent}, "A manifest must be complete.", path, remedy)
    wrong = next(_contradictions(manifest), "")
    if wrong:
        raise DataError(f"A manifest must be complete. Received: {path} ({wrong}). {remedy}")
    for name in ("common_items", "tags"):
        if manifest.difference.get(name) is not None:
            spread = as_typed(Spread, manifest.difference[name], f"A manifest's {name} is of each shard.", path, remedy)
            if len(spread.shards) != len(manifest.shards):
                raise DataError(f"A manifest's {name} is of each shard. Received: {path}, of others. {remedy}")
    if manifest.difference.get("tastes") is not None:
        rule = "A manifest's tastes are of each shard and each tag."
        tastes = as_typed(Tastes, manifest.difference["tastes"], rule, path, remedy)
        if {len(each) for each in (tastes.all, *tastes.shards)} != {len(tastes.names)} or len(tastes.shards) != len(
            manifest.shards
        ):
            raise DataError(f"{rule} Received: {path}, of others. {remedy}")
    return manifest


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What a manifest says of itself that can't be so."""
    shards = manifest.shards
    if manifest.num_shards != len(shards):
        yield f"num_shards is {manifest.num_shards}, but {len(shards)} shards are listed"
    if not shards:
        yield "there is no shard"
    if len(manifest.clients) not in (0, len(shards)):
        yield f"there are {len(manifest.clients)} clients for {len(shards)} shards"
    if len(manifest.popularity) not in (0, len(shards)):
        yield f"popularity is of {len(manifest.popularity)} shards, of {len(shards)}"
    for each in chain.from_iterable(manifest.popularity):
        if sum(each.first) > each.users or sum(each.every) > each.users * each.positives:
            yield "popularity has more positives than users have"
    for kind in ("train", "test", "validation"):
        files: list[ShardFile] = [file for shard in shards if (file := getattr(shard, kind)) is not None]
        if len({file.file for file in files}) < len(files):
            yield f"two shards have the same {kind} file"
        for what in ("rows", "positives"):
            total, added = manifest.totals.get(f"{kind}_{what}"), sum(getattr(file, what) for file in files)
            if total not in (None, added):
                yield f"totals.{kind}_{what} is {total}, but those of the shards are {added} together"
        items = manifest.group_size if kind == "train" else 1
        for file in files:
            if file.positives > items * file.rows or file.users > manifest.num_users or file.items > manifest.num_items:
                yield f"{file.file} has more positives than items, or users or items than there are"
    strange = set(manifest.mappings) - set(MAPPINGS)
    if strange:
        yield f"mappings has {min(strange)[:80]!r}"


def check_shards(
    manifest: Manifest,
    train_dir: Path,
    test_dir: Path | None = None,
    validation_dir: Path | None = None,
    *,
    verify: bool = False,
    own: Collection[int] | None = None,
) -> None:
    """Check that the folders hold the manifest's shard files and no others, with the sizes it lists.

    ``own`` are the numbers of the shards that must be there, None for all: others may lie on other hosts. ``verify``
    also compares checksums, which reads every byte; that of the public users' file is compared in any case.
    A folder that is None is left unchecked. DataError names the first file that is missing, surplus or different.
    """
    needed = None if own is None else set(own)
    _check_folder([shard.train for shard in manifest.shards], train_dir, verify, needed)
    if manifest.public is not None:
        # Shards are compared when they are read, and this one by nobody else.
        _check_folder([manifest.public], manifest.folder / Path(manifest.public.file).parent, verify=True)
    if test_dir is not None:
        _check_folder([shard.test for shard in manifest.shards], test_dir, verify, needed)
    if validation_dir is not None:
        files = [shard.validation for shard in manifest.shards if shard.validation is not None]
        if len(files) < manifest.num_shards:
            raise DataError(
                f"{validation_dir} can be used only if the manifest lists a validation file for every shard. Received: "
                f"{len(files)} of {manifest.num_shards} in {manifest.folder / MANIFEST_NAME}. Make them: "
                "fl-rec prepare --validation, then fl-rec partition"
            )
        _check_folder(files, validation_dir, verify, needed)


def _check_folder(files: Sequence[ShardFile], folder: Path, verify: bool, own: set[int] | None = None) -> None:
    remedy = "Make the shards again: fl-rec partition"
    for number, file in enumerate(files):
        path = folder / Path(file.file).name
        if not path.is_file():
            if own is not None and number not in own:
                continue
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


def list_own_shards(folder: Path, key: str, stated: Sequence[Path], own: Collection[int]) -> list[Path]:
    """As `list_shards`, of a folder that has some workers' shards: where that of each worker is, or would be.

    Args:
        stated: where the manifest says that each shard is.
        own: whose must be there.

    Raises:
        DataError: one of these is missing or empty.
    """
    mine = {number: path for number, path in enumerate(stated) if number in own}
    for number, path in mine.items():
        if not path.is_file():
            raise DataError(
                f"The shards of this host's workers must be in runner.{key}. Missing: {path}, worker {number}'s. Copy "
                "it from where the data was partitioned; those of other hosts' workers need not be here."
            )
    _require_content(mine.values(), folder)
    return list(stated)


def list_shards(folder: Path, key: str) -> list[Path]:
    """A folder's shards by name. DataError, which names `runner.KEY`, if there is none or one is empty."""
    remedy = "Make the shards with fl-rec prepare and fl-rec partition, or leave -m out for built-in data."
    if key == "validation_data_dir":
        remedy = "Make the shards with fl-rec prepare --validation and fl-rec partition."
    files = list_files(folder, f"runner.{key}", "shards", remedy)
    _require_content(files, folder)
    return files


def _require_content(files: Iterable[Path], folder: Path) -> None:
    empty = [path.name for path in files if path.stat().st_size == 0]
    if empty:
        raise DataError(f"A shard must not be empty. Received: {', '.join(empty)} in {folder}. Make the shards again.")
