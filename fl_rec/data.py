"""Row files, shards and their manifest: what the data tools write and the trainer reads.

A *row* is ``(user, item, label)``: 0-based ids and a label of 0 or 1. Two text layouts hold one row per line:

* ``multislot``: ``1 <user> 1 <item> 1 <label>``, each value after the number of values in its slot. Paddle's
  QueueDataset reads it with no reader process.
* ``csv``: ``<user>,<item>,<label>``, no header.

MultiSlot text also holds *groups*, a positive and its negatives in one line, for losses that compare them:
``1 <user> G <positive> <negative>... G 1 0 0 ...``.

Numpy only; nothing here imports Paddle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import logging
import os
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from fl_rec.errors import DataError

log = logging.getLogger(__name__)

SLOTS = ("user_input", "item_input", "label")
MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
TRAIN_FOLDER = "fl_train_data"
TEST_FOLDER = "fl_test_data"
VALIDATION_FOLDER = "fl_valid_data"
PUBLIC_FOLDER = "fl_public_data"
# Which user and which item an id is; beside the manifest, as prepare.py wrote them.
MAPPINGS = ("items.csv", "users.csv")

_ROWS_PER_WRITE = 1 << 18
_MAX_DIGITS = 18  # 10**18 - 1 is the longest run of nines that an int64 holds


class Layout(NamedTuple):
    """How a line is written: one template per column, and the file's suffix."""

    columns: tuple[str, ...]
    suffix: str


LAYOUTS: Mapping[str, Layout] = {
    "multislot": Layout(("1 {} ", "1 {} ", "1 {}\n"), ".txt"),
    "csv": Layout(("{},", "{},", "{}\n"), ".csv"),
}


def grouped_layout(group_size: int) -> Layout:
    """Return how MultiSlot text holds groups of ``group_size`` items: columns are the user and then the items."""
    labels = " ".join(["1"] + ["0"] * (group_size - 1))
    first, last = f"1 {{}} {group_size} ", f"{{}} {group_size} {labels}\n"
    return Layout((first, *["{} "] * (group_size - 1), last), LAYOUTS["multislot"].suffix)


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Return the PCG64 generator of one ``stream`` of ``seed``; streams are independent of each other."""
    return np.random.Generator(np.random.PCG64([seed, *stream]))


@contextlib.contextmanager
def stage(title: str) -> Iterator[dict[str, int]]:
    """Log ``title``, the counts that the caller puts into the yielded dict, and the seconds that it took."""
    counts: dict[str, int] = {}
    start = time.perf_counter()
    yield counts
    text = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    log.info("%s: %s (%.1f s)", title, text or "done", time.perf_counter() - start)


# ---------------------------------------------------------------------------------------------- reading text


def read_bytes(path: Path) -> bytes:
    """Return a file's content, decompressed if it is gzip. DataError if it is unreadable or empty."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"A data file must be readable. Received: {path} ({err}). Check path and download.") from err
    if not content.strip():
        raise DataError(f"A data file must hold at least one row. Received: {path}, which is empty. Create it again.")
    return content


def parse_table(text: bytes, columns: int, separator: bytes, name: str) -> np.ndarray:
    """Parse lines of ``columns`` whole numbers >= 0 into int64 [rows, columns].

    ``separator`` is one byte; ``name`` says in the DataError, which carries the line number, whose text it
    is.
    """
    text = _unix_lines(text)
    table = _regular_integers(text, separator * (columns - 1) + b"\n")
    if table is not None:
        return table
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) != columns:
            raise DataError(
                f"{name}, line {number}: a line must have {columns} fields separated by "
                f"{separator.decode()!r}. Received {len(fields)}: {_excerpt(line)}. Correct or remove the "
                "line."
            )
        for field in fields:
            if not field.isdigit() or len(field) > _MAX_DIGITS:
                raise DataError(
                    f"{name}, line {number}: a field must be a whole number of at most {_MAX_DIGITS} digits. "
                    f"Received {_excerpt(field)} in {_excerpt(line)}. Correct the field (ids are numbers "
                    "from 0 up, and there is no header line)."
                )
        rows.append([int(field) for field in fields])
    return np.array(rows, dtype=np.int64).reshape(-1, columns)


def read_csv_rows(path: Path) -> np.ndarray:
    """Read ``user,item,label`` lines, no header, into int64 [rows, 3]. DataError as for `parse_csv_rows`."""
    return parse_csv_rows(read_bytes(path), str(path))


def parse_csv_rows(text: bytes, name: str) -> np.ndarray:
    """Parse ``user,item,label`` lines into int64 [rows, 3]. DataError, with the line number, if malformed."""
    rows = parse_table(text, 3, b",", name)
    bad = np.flatnonzero(rows[:, 2] > 1)
    if bad.size:
        raise DataError(
            f"{name}, line {bad[0] + 1}: a label must be 0 or 1. Received {rows[bad[0], 2]}. "
            "The columns are user,item,label, in this order."
        )
    return rows


def parse_multislot(text: bytes, num_slots: int, name: str = "MultiSlot text") -> list[np.ndarray]:
    """Parse MultiSlot text: per line and slot a count, then that many values.

    Returns one array [rows, width] per slot, int64, or float64 if any value of the slot is not a whole
    number; [0, 1] for empty text. Each slot must keep one width over all lines. DataError (with line number)
    otherwise.
    """
    if not text.strip():
        return [np.empty((0, 1), dtype=np.int64) for _ in range(num_slots)]
    text = _unix_lines(text)
    widths = [len(values) for values in _line_slots(text[: text.index(b"\n")], num_slots, f"{name}, line 1")]
    starts = np.cumsum([0] + [width + 1 for width in widths])
    table = _regular_integers(text, b" " * (int(starts[-1]) - 1) + b"\n")
    if table is not None and (table[:, starts[:-1]] == widths).all():
        return [table[:, start + 1 : start + 1 + width] for start, width in zip(starts, widths)]
    return _irregular_multislot(text, widths, name)


def _unix_lines(text: bytes) -> bytes:
    text = text.replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") else text + b"\n"


def _excerpt(text: bytes) -> str:
    return repr(text[:60].decode("latin-1") + ("..." if len(text) > 60 else ""))


def _regular_integers(text: bytes, terminators: bytes) -> np.ndarray | None:
    """Parse text in which every line is digits ended by exactly these bytes in turn; None if any line is not.

    np.fromstring is many times faster than a loop over lines, but accepts ragged lines and stops at bad
    fields with no more than a warning: hence the check of every byte that is not a digit.
    """
    characters = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero((characters < ord("0")) | (characters > ord("9")))
    if ends.size == 0 or ends.size % len(terminators) or ends[-1] != characters.size - 1:
        return None
    if (characters[ends].reshape(-1, len(terminators)) != np.frombuffer(terminators, dtype=np.uint8)).any():
        return None
    digits = np.diff(ends, prepend=-1) - 1
    if digits.min() < 1 or digits.max() > _MAX_DIGITS:
        return None
    spaced = text.translate(bytes.maketrans(terminators, b" " * len(terminators)))
    return np.fromstring(spaced, dtype=np.int64, sep=" ").reshape(-1, len(terminators))


def _irregular_multislot(text: bytes, widths: Sequence[int], name: str) -> list[np.ndarray]:
    """The slow way, for floats and spare blanks, which also knows the line number of whatever is wrong."""
    slots: list[list[list[float]]] = [[] for _ in widths]
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}, line {number}"
        for slot, (values, width) in enumerate(zip(_line_slots(line, len(widths), where), widths)):
            if len(values) != width:
                raise DataError(
                    f"{where}: slot {slot} must have the same number of values in every line, {width} as in "
                    f"line 1. Received {len(values)}: {_excerpt(line)}. Pad the slot or write the file again."
                )
            slots[slot].append(values)
    arrays = [np.array(values) for values in slots]
    return [array.astype(np.int64 if array.dtype.kind == "i" else np.float64) for array in arrays]


def _line_slots(line: bytes, num_slots: int, where: str) -> list[list[float]]:
    tokens = line.split()
    slots: list[list[float]] = []
    try:
        start = 0
        for _ in range(num_slots):
            width = int(tokens[start])
            values = [
                int(token) if token.isdigit() else float(token) for token in tokens[start + 1 : start + 1 + width]
            ]
            if width < 1 or len(values) != width:
                raise ValueError(f"count {width} before {len(values)} values")
            slots.append(values)
            start += 1 + width
        if start != len(tokens):
            raise ValueError(f"{len(tokens) - start} tokens left over")
    except (ValueError, IndexError) as err:
        raise DataError(
            f"{where}: a line must hold {num_slots} slots, each a count of at least 1 and then that many "
            f"numbers. Received {_excerpt(line)} ({err}). Write the file again, or set the number of slots "
            "that it has."
        ) from err
    return slots


# ---------------------------------------------------------------------------------------------- writing text


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under ``path`` only once it is complete. DataError if it can't be written."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as err:
        raise DataError(
            f"An output file must be writable. Received: {path} ({err.strerror or err}). "
            "Check permissions and free space, or choose another --out."
        ) from err
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented UTF-8 JSON, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def write_rows(path: Path, rows: np.ndarray, layout: Layout) -> tuple[int, str]:
    """Write int64 rows [n, columns] as text, atomically; return the file's size in bytes and its SHA-256 in hex."""
    digest = hashlib.sha256()
    size = 0
    with atomic_write(path) as file:
        for chunk in _text_chunks(rows, layout.columns):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _text_chunks(rows: np.ndarray, templates: Sequence[str]) -> Iterator[bytes]:
    # Ids repeat, so each one's text is made once and looked up; a format call per row is 20 times slower.
    tables = {}
    for template in dict.fromkeys(templates):
        alike = [column for column, other in enumerate(templates) if other == template]
        tables[template] = np.array([template.format(n) for n in range(rows[:, alike].max(initial=0) + 1)], object)
    for start in range(0, len(rows), _ROWS_PER_WRITE):
        part = rows[start : start + _ROWS_PER_WRITE]
        text = tables[templates[0]][part[:, 0]]
        for column, template in enumerate(templates[1:], 1):
            text = text + tables[template][part[:, column]]
        yield "".join(text.tolist()).encode("ascii")


# ---------------------------------------------------------------------------------------------- manifest


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


@dataclass(frozen=True)
class Shard:
    """What one worker trains and tests on, and what its best epoch is chosen by."""

    train: ShardFile
    test: ShardFile
    validation: ShardFile | None = None


@dataclass(frozen=True)
class Manifest:
    """What ``gen_heter_data.py`` wrote.

    ``num_users`` and ``num_items`` are upper bounds of the ids (an embedding's number of rows). ``bad_zip``
    has the policy (null if the partitioner takes no zip code), and the users and training rows it concerns.
    ``folder`` is where the manifest was found; it is not in the file. ``group_size`` is the number of items in a
    line of the training files. ``mappings`` has the SHA-256 of each of `MAPPINGS`; a manifest may be older than that.
    ``public`` has the interactions of the users who are in no shard, if there are any.
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
    bad_zip: Mapping[str, Any]
    dropped_users: int
    totals: Mapping[str, int]
    shards: tuple[Shard, ...]
    folder: Path
    group_size: int = 1
    mappings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    public: ShardFile | None = None

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
    remedy = "Run datasets/movielens/gen_heter_data.py again."
    try:
        content = json.loads(read_bytes(path).decode("utf-8"))
    except ValueError as err:
        raise DataError(f"A manifest must be JSON. Received: {path} ({err}). {remedy}") from err
    version = content.get("version") if isinstance(content, dict) else None
    if version != MANIFEST_VERSION:
        raise DataError(f"A manifest must be of version {MANIFEST_VERSION}. Received: {version} in {path}. {remedy}")
    try:
        shards = tuple(
            Shard(**{kind: ShardFile(**file) for kind, file in shard.items() if file is not None})
            for shard in content.pop("shards")
        )
        public = content.pop("public", None)
        manifest = Manifest(
            slots=tuple(content.pop("slots")),
            shards=shards,
            folder=path.parent,
            public=None if public is None else ShardFile(**public),
            **content,
        )
        if manifest.num_shards != len(shards):
            raise ValueError(f"num_shards is {manifest.num_shards}, but {len(shards)} shards are listed")
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise DataError(f"A manifest must be complete. Received: {path} ({err}). {remedy}") from err
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
        _check_folder([manifest.public], manifest.folder / PUBLIC_FOLDER, verify)
    if test_dir is not None:
        _check_folder([shard.test for shard in manifest.shards], test_dir, verify)
    if validation_dir is not None:
        files = [shard.validation for shard in manifest.shards if shard.validation is not None]
        if len(files) < manifest.num_shards:
            raise DataError(
                f"{validation_dir} can be used only if the manifest lists a validation file for every shard. Received: "
                f"{len(files)} of {manifest.num_shards} in {manifest.folder / MANIFEST_NAME}. Run prepare.py "
                "--validation and gen_heter_data.py again."
            )
        _check_folder(files, validation_dir, verify)


def _check_folder(files: Sequence[ShardFile], folder: Path, verify: bool) -> None:
    remedy = "Run datasets/movielens/gen_heter_data.py again."
    for file in files:
        path = folder / Path(file.file).name
        if not path.is_file():
            raise DataError(f"Every shard of the manifest must exist. Missing: {path}. {remedy}")
        size = path.stat().st_size
        if size != file.bytes:
            raise DataError(f"{path} must have {file.bytes} bytes, says the manifest. Received {size}. {remedy}")
        if verify and _sha256(path) != file.sha256:
            raise DataError(f"{path} must have the SHA-256 {file.sha256}, says the manifest. It differs. {remedy}")
    surplus = sorted({path.name for path in folder.glob("part-*")} - {Path(file.file).name for file in files})
    if surplus:
        raise DataError(
            f"A shard folder must hold the manifest's files only. Received: {folder / surplus[0]}. {remedy}"
        )


def changed_file(folder: Path, checksums: Mapping[str, str]) -> tuple[Path, str] | None:
    """The first of a folder's files whose SHA-256 is not the given one, and what it is instead; None if all are."""
    for name, expected in sorted(checksums.items()):
        path = folder / name
        found = _sha256(path) if path.is_file() else "no such file"
        if found != expected:
            return path, found
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------- shards


def split_rows(rows: np.ndarray, shard_of_user: np.ndarray, num_shards: int) -> list[np.ndarray]:
    """Split rows [n, 3] by their user's shard (int64 [users], -1 leaves a user out); their order is kept."""
    shard = shard_of_user[rows[:, 0]]
    return [rows[shard == k] for k in range(num_shards)]


def group_rows(rows: np.ndarray, name: str) -> np.ndarray:
    """Group rows [n, 3] in which each positive is followed by its negatives, all of one user and equally many.

    Returns int64 [groups, group_size, 3]. DataError, with ``name`` and the line's number, if the rows are not so.
    """
    positives = np.flatnonzero(rows[:, 2])
    size = int(positives[1] - positives[0]) if len(positives) > 1 else len(rows)
    place = np.arange(len(rows))
    wrong = (rows[:, 2] != (place % size == 0)) | (rows[:, 0] != rows[place - place % size, 0])
    if len(rows) % size:
        wrong[-1] = True  # the last group ends too early
    if size == 1:
        wrong[0] = True
    if wrong.any():
        line = int(np.argmax(wrong))
        raise DataError(
            f"{name}, line {line + 1}: rows can be grouped only if each positive is followed by its negatives, all of "
            f"one user and as many as the first positive has. Received: user {rows[line, 0]}, label {rows[line, 2]}, "
            f"after a first group of {size} row(s). Leave --group out, or prepare a source that leaves the training "
            "negatives to prepare.py."
        )
    return rows.reshape(-1, size, 3)


def require_rows(shards: Sequence[np.ndarray], kind: str) -> None:
    """DataError if a shard is empty: its worker could neither train nor take part in the others' barriers."""
    empty = [k for k, rows in enumerate(shards) if not len(rows)]
    if empty:
        raise DataError(
            f"Every shard must have {kind} rows, since a worker without any can't work. Received none for "
            f"shard(s) {', '.join(map(str, empty))} of {len(shards)}. Use fewer --num_shards, another "
            "--seed, or another --partitioner (iid is the most even; for Dirichlet a larger alpha is)."
        )


def write_shards(
    out: Path,
    train: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    layout: Layout,
    seed: int,
    validation: Sequence[np.ndarray] | None = None,
    group_size: int = 1,
) -> tuple[Shard, ...]:
    """Write each shard's rows [n, 3] to one file per kind, after removing those of an earlier generation.

    Training rows are shuffled, since a trainer reads them in file order; the others keep theirs. A shard's shuffle
    depends on ``seed`` and its number only. With a ``group_size`` above 1 every so many training rows are a group
    (see `group_rows`), shuffled and written as one line of MultiSlot text.
    """
    clear_shards(out)
    shards = []
    for k, (train_rows, test_rows) in enumerate(zip(train, test)):
        name = f"part-{k:03d}{layout.suffix}"
        with stage(f"shard {k}") as counts:
            groups = train_rows.reshape(-1, group_size, 3)
            shuffled = groups[generator(seed, k + 1).permutation(len(groups))]
            written = Shard(
                _write_shard(out, f"{TRAIN_FOLDER}/{name}", shuffled, layout),
                _write_shard(out, f"{TEST_FOLDER}/{name}", test_rows[:, None], layout),
            )
            counts.update({"training rows": len(groups), "test rows": len(test_rows)})
            if validation is not None:
                file = _write_shard(out, f"{VALIDATION_FOLDER}/{name}", validation[k][:, None], layout)
                written = dataclasses.replace(written, validation=file)
                counts["validation rows"] = file.rows
            shards.append(written)
    return tuple(shards)


def write_public(out: Path, rows: np.ndarray, layout: Layout) -> ShardFile:
    """Write the rows [n, 3] of users who are in no shard, after `write_shards`."""
    return _write_shard(out, f"{PUBLIC_FOLDER}/part-000{layout.suffix}", rows[:, None], layout)


def clear_shards(out: Path) -> None:
    """Remove an earlier generation; its manifest first, as that vouches for the others."""
    stale = [out / MANIFEST_NAME]
    for folder in (TRAIN_FOLDER, TEST_FOLDER, VALIDATION_FOLDER, PUBLIC_FOLDER):
        stale += sorted((out / folder).glob("part-*.*")) + sorted((out / folder).glob(".part-*.tmp"))
    discard(stale)


def discard(files: Sequence[Path]) -> None:
    """Remove those of the files that exist, in this order. DataError if one can't be removed."""
    try:
        for path in files:
            if path.exists():
                path.unlink()
    except OSError as err:
        raise DataError(
            f"Files of an earlier run must be removable. Received: {err.filename} ({err.strerror}). "
            "Check its permissions, or choose another --out."
        ) from err


def _write_shard(out: Path, file: str, groups: np.ndarray, layout: Layout) -> ShardFile:
    columns, group_size = groups[:, 0], groups.shape[1]
    if group_size > 1:
        columns = np.concatenate([groups[:, 0, :1], groups[:, :, 1]], axis=1)
        layout = grouped_layout(group_size)
    size, sha256 = write_rows(out / file, columns, layout)
    return ShardFile(file=file, bytes=size, sha256=sha256, **count_rows(groups.reshape(-1, 3), group_size))


def count_rows(rows: np.ndarray, group_size: int = 1) -> dict[str, int]:
    """Count the lines that rows [n, 3] make, their positives, and their distinct users and items."""
    return {
        "rows": len(rows) // group_size,
        "positives": int(rows[:, 2].sum()),
        "users": int(np.count_nonzero(np.bincount(rows[:, 0]))),
        "items": int(np.count_nonzero(np.bincount(rows[:, 1]))),
    }
