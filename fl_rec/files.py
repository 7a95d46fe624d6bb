"""Files written whole or not at all, and read with an error that says which one and why."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any, BinaryIO

from fl_rec.errors import DataError
from fl_rec.packed import check_member, open_regular, unpacking

log = logging.getLogger(__name__)

# Of linux/fcntl.h and linux/fs.h.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Bytes of a file of JSON: a manifest has some 500 a shard. And of a line.
_LARGEST_JSON, _LONGEST_LINE = 1 << 26, 1 << 24
# Levels in it, of which whoever copies or writes it goes down each.
_DEEPEST = 64


def read_bytes(path: Path) -> bytes:
    """Return a file's content, decompressed if it is gzip. DataError if it is unreadable or empty."""
    with _told(path), open_regular(path) as file:
        content = unpacking(file).read()
    if not content.strip():
        raise DataError(f"A data file must hold at least one row. Received: {path}, which is empty. Create it again.")
    return content


def last_bytes(path: Path, most: int) -> bytes:
    """A file's end. OSError."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read(most)


def lines_of(path: Path, size: int) -> Iterator[bytes]:
    """Yields a file's whole lines, some `size` bytes of them at a time; in all else as `read_bytes`."""
    rest, empty = b"", True
    with _told(path), open_regular(path) as file:
        content = unpacking(file)
        while block := content.read(size):
            lines, end, rest = (rest + block).rpartition(b"\n")
            empty = False
            if end:
                yield lines + end
            if len(rest) > _LONGEST_LINE:
                raise OSError(f"it has a line of more than {_LONGEST_LINE:,} bytes")
    if empty:
        raise DataError(f"A data file must hold at least one row. Received: {path}, which is empty. Create it again.")
    if rest:
        yield rest


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"A data file must be readable. Received: {path} ({err}). Check path and download.") from err


def read_json(path: Path, rule: str = "", remedy: str = "") -> dict[str, Any]:
    """A JSON object. DataError if it can't be read, or holds something else.

    Args:
        rule: what the error says first; else that a file of this name must be readable JSON.
        remedy: what the error says last.
    """
    try:
        with open_regular(path) as file:
            text = file.read(_LARGEST_JSON + 1)
        if len(text) > _LARGEST_JSON:
            raise ValueError(f"it has more than {_LARGEST_JSON:,} bytes")
        content = parse_json(text.decode("utf-8"))
    except (OSError, ValueError) as err:
        rule = rule or f"A {path.name} must be readable JSON."
        raise DataError(f"{rule} Received: {path} ({err}). {remedy}".rstrip()) from err
    return content


def parse_json(text: str) -> dict[str, Any]:
    """A JSON object. ValueError if it is none."""
    try:
        content = json.loads(text)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err
    if "\\ud" in text.lower():  # half a letter, which no file can hold
        json.dumps(content, ensure_ascii=False).encode()
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}")
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return content
    raise ValueError("it is nested too deeply")


def whole_line(text: str, where: str) -> dict[str, Any] | None:
    """The JSON object of a line; None, which is told, if a full disk or a killed process has torn it.

    Args:
        where: the file and the line's number.
    """
    try:
        return parse_json(text)
    except ValueError as err:
        log.warning("note: %s is torn, and left out (%s)", where, str(err)[:200])
        return None


@contextmanager
def atomic_write(path: Path, mode: int = 0o666, sync: bool = True) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when all is on the disk, and only then.

    Several processes may do so at once: the last one's stays. OSError, which names `path`, if it can't be written.

    Args:
        path: its folder is made if it is not there.
        mode: who may read and write it, before the process's umask.
        sync: false for what nobody needs when the machine has stopped, and in a draft, of which `publish` syncs all.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(draft, path)
        if sync:
            _sync(path.parent)
    except OSError as err:
        if err.filename in (None, str(draft)):
            err.filename, err.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _sync(path: Path) -> None:
    """Returns when a file, or a folder's list of names, is on the disk. OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Has whoever comes here at the same time wait. OSError.

    Args:
        path: a file that is made for nothing else, and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:  # and not "wb", which empties what a link leads to
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def append_line(path: Path, line: str) -> None:
    """Adds a line in one write; after one that a full disk has torn, on the next. OSError if it is torn too."""
    with open(path, "a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # in the middle of another's write, its line looks torn
        torn = file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
        content = b"\n" * bool(torn) + line.encode() + b"\n"
        while content:  # a write that takes a part says nothing, and the next one why
            content = content[file.write(content) :]


def write_json(path: Path, content: Mapping[str, Any], mode: int = 0o666, sync: bool = True) -> None:
    """Writes indented UTF-8 JSON; see `atomic_write`."""
    with atomic_write(path, mode, sync) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def read_arrays(path: Path, rule: str) -> dict[str, Any]:
    """What `write_arrays` wrote. DataError, which begins with the rule, if it can't be read, or holds less or more than
    it says: no array is made of a size that is only claimed."""
    import numpy as np

    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    check_member(archive, member)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as err:
        raise DataError(f"{rule} Received: {path} ({err}).") from err


def write_arrays(path: Path, arrays: Mapping[str, Any], mode: int = 0o666, sync: bool = True) -> None:
    """Writes an .npz; see `atomic_write`."""
    import numpy as np  # a tenth of a second, that a command which only looks at files need not take

    with atomic_write(path, mode, sync) as file:
        np.savez(file, **arrays)


def changed_file(folder: Path, checksums: Mapping[str, str]) -> tuple[Path, str] | None:
    """The first of a folder's files whose SHA-256 is not the given one, and what it is instead; None if all are."""
    for name, expected in sorted(checksums.items()):
        path = folder / name
        found = sha256_of(path) if path.is_file() else "no such file"
        if found != expected:
            return path, found
    return None


def sha256_of(path: Path) -> str:
    """OSError; one of them if it is a pipe or a device, which may have no end."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# --- Folders -------------------------------------------------------------------------------------------


@contextmanager
def drafted(folder: Path, mode: int = 0o777) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when all is on the disk, and only then. OSError.

    Args:
        folder: its parents are made if they are not there.
        mode: who may read and write it, before the process's umask.
    """
    draft = begin_draft(folder, mode)
    try:
        yield draft
        publish(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def draft_of(folder: Path) -> Path:
    """The draft of a folder that several processes write together, after one of them has called `begin_draft`, and
    before one of them calls `publish`."""
    return folder.with_name(f".{folder.name}.tmp")


def begin_draft(folder: Path, mode: int = 0o777) -> Path:
    """Makes an empty draft of a folder; what a process that was killed has left of another is removed. OSError."""
    recover(folder)
    draft = draft_of(folder)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode, parents=True)
    return draft


def publish(folder: Path) -> None:
    """Puts the draft of a folder in its place, when all of it is on the disk. OSError; then the old one stays."""
    draft, old = draft_of(folder), _aside(folder)
    for path in (*draft.rglob("*"), draft):
        _sync(path)
    if not folder.exists():
        os.rename(draft, folder)
    elif _exchange(draft, folder):
        old = draft
    else:  # there is a moment without the folder: see `recover`
        os.rename(folder, old)
        try:
            os.rename(draft, folder)
        except OSError:
            os.rename(old, folder)
            raise
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Puts a folder back that `publish` was about to replace when its process was killed; else does nothing."""
    if not folder.exists():
        with contextlib.suppress(OSError):
            os.rename(_aside(folder), folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Has two folders change places in one step; False where system or file system can't."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return renameat2 is not None and not renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )


# --- What belongs together -----------------------------------------------------------------------------


def seal(folder: Path, name: str, content: Mapping[str, Any], mode: int = 0o666) -> None:
    """Writes a folder's last file: JSON of `content`, and `files`, [bytes, SHA-256] of each other one by its path in
    the folder. OSError.

    Args:
        name: the file's.
        content: has an `identity`: what the files are of, {run, epoch, net, data}; see `digest`.
        mode: see `atomic_write`.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / name)
    files = {str(path.relative_to(folder)): [path.stat().st_size, sha256_of(path)] for path in paths}
    write_json(folder / name, {**content, "files": files}, mode)


def verify(
    folder: Path, name: str, rule: str, remedy: str, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Any]:
    """What `seal` wrote, when every file was found to be as it was then.

    Args:
        rule: what the error says first.
        remedy: what it says last.
        wanted: whether a file, by its path in the folder, is to be looked at.

    Raises:
        DataError: a file is missing or has another content, or the one of this name can't be read.
    """
    content = read_json(folder / name, rule, remedy)
    identity, files = (content.get(key) for key in ("identity", "files"))
    if not (isinstance(identity, dict) and isinstance(files, dict) and all(starmap(_listed, files.items()))):
        raise DataError(
            f"{rule} Received: {folder / name}, which does not list the files and of what they are. {remedy}"
        )
    for file, (size, checksum) in files.items():
        if wanted(file) and (found := _difference(folder / file, size, checksum)):
            raise DataError(f"{rule} Received: {folder / file}, {found} in {name}. {remedy}")
    return content


def _listed(file: str, entry: Any) -> bool:
    """Whether it is a path that stays in its folder, with bytes and a checksum."""
    inside = not Path(file).is_absolute() and ".." not in Path(file).parts
    return inside and isinstance(entry, list) and [type(each) for each in entry] == [int, str]


def _difference(path: Path, size: int, checksum: str) -> str:
    """How a file differs from what it was, "" if it does not."""
    try:
        found = path.stat().st_size
        if found != size:
            return f"which has {found:,} bytes, and {size:,}"
        return "" if sha256_of(path) == checksum else "whose content is not that of the checksum"
    except OSError as err:
        return f"which can't be read ({err.strerror}), and is listed"


def digest(content: Any) -> str:
    """A SHA-256 that stands for what JSON can hold, such as a net's parameters {name: shape} in an identity."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
