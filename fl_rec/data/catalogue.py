"""The users that an exported model serves, and with what: names of users and items, and what each user has had.

FOLDER/items.csv     item, original_id, title, tags, as `fl-rec prepare` writes them
FOLDER/users.csv     user, original_id; those that the model serves
FOLDER/history.npz   indptr, int64 [users + 1], and items, int32: those of line k of users.csv are
                     items[indptr[k]:indptr[k + 1]], in ascending order

No Paddle is imported here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.data.ids import MAX_DIGITS, checked_ids, position_of
from fl_rec.data.manifest import Manifest, Shard, check_shards
from fl_rec.data.partition import UserTable
from fl_rec.data.rows import MAX_IDS, Sizes
from fl_rec.data.sources.base import USER_COLUMNS, Dataset, Items
from fl_rec.data.text import read_rows
from fl_rec.errors import DataError
from fl_rec.files import atomic_write, changed_file, read_arrays, read_bytes, sha256_of
from fl_rec.plugins import did_you_mean

# ---------------------------------------------------------------------------------------------- tables

_ITEM_COLUMNS = ("item", "original_id", "title", "tags")


def write_users(path: Path, dataset: Dataset) -> None:
    """Write ``user,original_id,activity,tag`` and what else the source knows, with a header line, UTF-8."""
    table = dataset.user_table()
    columns = (table.user, dataset.original_user, table.activity, table.tag, *table.columns.values())
    _write_csv(path, (*USER_COLUMNS, *table.columns), [column.tolist() for column in columns])


def write_items(path: Path, items: Items) -> None:
    """Write ``item,original_id,title,tags`` with a header line, UTF-8; tags are joined with ``|``."""
    number = list(range(len(items.title)))
    _write_csv(path, _ITEM_COLUMNS, [number, items.original_id.tolist(), items.title, items.tags])


def _write_csv(path: Path, header: Sequence[str], columns: list[list[Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns))
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8"))


def read_users(path: Path) -> UserTable:
    """Read what `write_users` wrote. DataError, with the line number, if a column is missing or no number."""
    columns = _read_csv(path, USER_COLUMNS)
    _require_numbered(path, columns["user"], "users")
    own = {name: column for name, column in columns.items() if name not in USER_COLUMNS}
    return UserTable(user=columns["user"], activity=columns["activity"], columns=own, tag=columns["tag"])


ITEMS, USERS, HISTORY = "items.csv", "users.csv", "history.npz"


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Users and items by the model's ids and by the data set's own.

    Attributes:
        users: int64 [users], ids of the model, ascending.
        original_users: int64 or str [users], the data set's own ids of them.
        items: of every item, by its id.
        indptr, history: what each user has had; see above.
    """

    users: np.ndarray
    original_users: np.ndarray
    items: Items
    indptr: np.ndarray
    history: np.ndarray

    @classmethod
    def of_shards(
        cls, manifest: Manifest, mappings: Mapping[str, str], clients: Collection[int] | None = None
    ) -> Catalogue:
        """Reads what a model was trained with.

        Args:
            manifest: of the shards.
            mappings: `Manifest.mappings` when the model was trained. Where there is none, ids are as they are in the
                shards, and items have no titles.
            clients: whose users, by the numbers of the shards, which alone must be there; None for all.

        Raises:
            DataError: the shards were made again since the model was trained.
        """
        folder = manifest.folder
        if mappings.keys() != manifest.mappings.keys():
            with_names = "the model" if mappings else f"the shards in {folder}"
            raise DataError(
                "A model's ids mean the users and items that it was trained with. Received: the names of these with "
                f"{with_names} alone. Train again, or name the data that the model was trained with: --data FOLDER"
            )
        require_unchanged(folder, mappings)
        train, test, validation = (manifest.folder_of(kind) for kind in ("train", "test", "validation"))
        check_shards(manifest, train or folder, test, validation, own=clients)
        shards = manifest.shards if clients is None else [manifest.shards[client] for client in sorted(clients)]
        users, indptr, history = _history(manifest, shards)
        original = _of_all(folder, manifest.num_users)[users] if USERS in mappings else users
        number = np.arange(manifest.num_items)
        items = (
            read_items(folder / ITEMS) if ITEMS in mappings else Items(number, [""] * len(number), [""] * len(number))
        )
        return cls(users, original, items, indptr, history)

    @classmethod
    def read(cls, folder: Path, checksums: Mapping[str, str]) -> Catalogue:
        """Reads what `write` wrote.

        Raises:
            DataError: a file can't be read, or is not the one that was written.
        """
        if set(checksums) != {ITEMS, USERS, HISTORY}:
            raise DataError(
                f"An exported folder is used as it was written. Received: {folder}, whose model.json lacks checksums "
                f"of {ITEMS}, {USERS} and {HISTORY}. Export the model again."
            )
        changed = changed_file(folder, checksums)
        if changed:
            raise DataError(
                f"An exported folder is used as it was written. Received: {changed[0]}, whose SHA-256 is now "
                f"{changed[1]}, and model.json has {checksums[changed[0].name]}. Export the model again."
            )
        users, original = read_original_users(folder / USERS, all_there=False)
        items = read_items(folder / ITEMS)
        indptr, history = _read_history(folder / HISTORY, users, len(items.title))
        return cls(users, original, items, indptr, history)

    def write(self, folder: Path) -> dict[str, str]:
        """Writes the three files; returns their SHA-256. OSError if one can't be written."""
        write_items(folder / ITEMS, self.items)
        _write_csv(folder / USERS, USER_COLUMNS[:2], [self.users.tolist(), self.original_users.tolist()])
        np.savez_compressed(folder / HISTORY, indptr=self.indptr, items=self.history)
        return {name: sha256_of(folder / name) for name in (ITEMS, USERS, HISTORY)}

    def position(self, original_id: int | str) -> int:
        """A user's line of users.csv. DataError if the model does not know the user.

        Args:
            original_id: the data set's own id, or its text.
        """
        found = position_of(original_id, self.original_users)
        if found is None:
            by_value = np.sort(self.original_users)
            hint = "" if by_value.dtype.kind == "i" else did_you_mean(str(original_id), by_value.tolist())
            raise DataError(
                f"A user must be one of the {len(self.users):,} that the model serves, by the data set's own id (from "
                f"{by_value[0]} to {by_value[-1]}). Received: {original_id}. {hint}{' ' * bool(hint)}users.csv in the "
                "exported folder lists them all."
            )
        return found

    def seen(self, position: int) -> np.ndarray:
        """Items that the user of a line has had, int32, ascending."""
        return self.history[self.indptr[position] : self.indptr[position + 1]]


def require_unchanged(folder: Path, mappings: Mapping[str, str]) -> None:
    """DataError if the mappings in a folder are not those that a model was trained with."""
    changed = changed_file(folder, mappings)
    if changed:
        raise DataError(
            f"A model's ids mean the users and items that it was trained with. Received: {changed[0]}, whose SHA-256 "
            f"is {changed[1]}, and the model was trained with {mappings[changed[0].name]}: the data was made again "
            "since. Train again, or name the data that the model was trained with: --data FOLDER"
        )


def _history(manifest: Manifest, shards: Sequence[Shard]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, ascending, and their positives of all kinds of rows, as indptr and items."""
    users, positives, sizes = [], [], Sizes(manifest.num_users, manifest.num_items)
    for shard in shards:
        for file in filter(None, (shard.train, shard.validation, shard.test)):
            user, item, label = read_rows(manifest.folder / file.file, sizes).T
            users.append(np.unique(user))
            positives.append((user * manifest.num_items + item)[label == 1])
    everyone = np.unique(np.concatenate(users))
    user, item = np.divmod(np.unique(np.concatenate(positives)), manifest.num_items)
    indptr = np.append(np.searchsorted(user, everyone), len(user))
    return everyone, indptr, item.astype(np.int32)


def read_original_users(path: Path, all_there: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the model, int64, ascending, and of the data set, int64 or str. DataError as for `read_users`.

    Args:
        all_there: whether they must be 0, 1, 2, ...
    """
    columns = _read_csv(path, USER_COLUMNS[:2])
    users = columns["user"]
    if all_there:
        _require_numbered(path, users, "users")
    elif not (len(users) and (np.diff(users) > 0).all() and users[-1] < MAX_IDS):
        raise DataError(f"{path}: users must be in order, each once, below {MAX_IDS:,}. Export the model again.")
    return users, columns["original_id"]


def _of_all(folder: Path, count: int) -> np.ndarray:
    """The data set's own ids of all users that a manifest counts."""
    original = read_original_users(folder / USERS)[1]
    if len(original) != count:
        raise DataError(
            f"A manifest and its {USERS} must be of the same users. Received: {count:,}, and {len(original):,} in "
            f"{folder}. Make the shards again: fl-rec partition"
        )
    return original


def _read_history(path: Path, users: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """indptr and items; see above. DataError if they are not so."""
    rule = "A history must be readable, and tell what each user has had."
    arrays = read_arrays(path, rule)
    indptr, items = (arrays.get(name, np.empty(0)) for name in ("indptr", "items"))
    whole = all(each.ndim == 1 and each.dtype.kind == "i" for each in (indptr, items))
    ends = whole and len(indptr) == len(users) + 1 and indptr[0] == 0 and indptr[-1] == len(items)
    if not (ends and (indptr[1:] >= indptr[:-1]).all()):
        raise DataError(f"{rule} Received: {path}, with others than {len(users):,} users. Export the model again.")
    whose = np.repeat(np.arange(len(users)), np.diff(indptr))
    ascending = (items[1:] > items[:-1])[whose[1:] == whose[:-1]].all()
    if not (ascending and 0 <= items.min(initial=0) <= items.max(initial=0) < num_items):
        raise DataError(
            f"{rule} Received: {path}, with items that are not 0 to {num_items - 1:,} in order. Export again."
        )
    return indptr, items


def read_items(path: Path) -> Items:
    """Read what `write_items` wrote; DataError as for `read_users`."""
    columns = _read_csv(path, _ITEM_COLUMNS)
    _require_numbered(path, columns["item"], "items")
    return Items(columns["original_id"], columns["title"].tolist(), columns["tags"].tolist())


# Of the columns that are needed; an original id is a whole number or a text, and all else is text.
_NUMBERS = {"user", "item", "activity"}


def _read_csv(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """All columns of a table with a header line, int64 or str. DataError if one that is needed is not there."""
    whole = _NUMBERS.intersection(needed)
    columns: dict[str, list[Any]] = {}
    line = 1
    try:
        reader = csv.reader(io.StringIO(read_bytes(path).decode("utf-8"), newline=""))
        header = next(reader)
        columns = {name: [] for name in header}
        if not set(needed) <= set(header) or len(columns) < len(header):
            raise KeyError(*sorted(set(needed) - set(header)))
        for row in reader:
            line = reader.line_num
            for column, name, text in zip(columns.values(), header, row, strict=True):
                column.append(_whole(text) if name in whole else text)
        original = checked_ids(columns["original_id"], str(path))
        if len(np.unique(original)) < len(original):
            raise ValueError("an original_id is there twice")
    except (KeyError, ValueError, StopIteration, csv.Error) as err:
        numbers = " and ".join(name for name in needed if name in whole)
        raise DataError(
            f"{path}, line {line}: the columns must be {', '.join(needed)}, {numbers} whole numbers. "
            f"Received something else ({repr(err)[:200]}). Run fl-rec prepare again."
        ) from err
    read = {name: np.array(values, np.int64 if name in whole else np.str_) for name, values in columns.items()}
    return {**read, "original_id": original}


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _require_numbered(path: Path, ids: np.ndarray, what: str) -> None:
    if not np.array_equal(ids, np.arange(len(ids))):
        raise DataError(f"{path}: {what} must be numbered 0, 1, 2, ... in order. Run fl-rec prepare again.")
    if not len(ids):
        raise DataError(f"{path}: there must be {what}. Received: a header alone. Run fl-rec prepare again.")
