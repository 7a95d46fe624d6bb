"""Files written whole or not at all, and read with an error that says which one and why."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fl_rec.errors import DataError

_GZIP = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """Return a file's content, decompressed if it is gzip. DataError if it is unreadable or empty."""
    try:
        content = unpacked(path.read_bytes())
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"A data file must be readable. Received: {path} ({err}). Check path and download.") from err
    if not content.strip():
        raise DataError(f"A data file must hold at least one row. Received: {path}, which is empty. Create it again.")
    return content


def lines_of(path: Path, size: int) -> Iterator[bytes]:
    """Yields a file's whole lines, some `size` bytes of them at a time; in all else as `read_bytes`."""
    rest, empty = b"", True
    try:
        with open(path, "rb") as file, gzip.open(file) as packed:
            content = packed if file.peek(2).startswith(_GZIP) else file
            while block := content.read(size):
                lines, end, rest = (rest + block).rpartition(b"\n")
                empty = False
                if end:
                    yield lines + end
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"A data file must be readable. Received: {path} ({err}). Check path and download.") from err
    if empty:
        raise DataError(f"A data file must hold at least one row. Received: {path}, which is empty. Create it again.")
    if rest:
        yield rest


def unpacked(content: bytes, cut_off: bool = False) -> bytes:
    """What is in a gzip file, by how it begins, or the content itself.

    Args:
        cut_off: whether it is only a file's beginning.

    Raises:
        OSError, EOFError, zlib.error: it is damaged.
    """
    if not content.startswith(_GZIP):
        return content
    return zlib.decompressobj(wbits=31).decompress(content) if cut_off else gzip.decompress(content)


def read_json(path: Path, rule: str = "", remedy: str = "") -> dict[str, Any]:
    """A JSON object. DataError if it can't be read, or holds something else.

    Args:
        rule: what the error says first; else that a file of this name must be readable JSON.
        remedy: what the error says last.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError) as err:
        rule = rule or f"A {path.name} must be readable JSON."
        raise DataError(f"{rule} Received: {path} ({err}). {remedy}".rstrip()) from err
    return content


@contextmanager
def atomic_write(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when all is written, and only then.

    Several processes may do so at once: the last one's stays. OSError, which names `path`, if it can't be written.

    Args:
        path: its folder is made if it is not there.
        mode: who may read and write it, before the process's umask.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
        os.replace(draft, path)
    except OSError as err:
        if err.filename in (None, str(draft)):
            err.filename, err.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Has whoever comes here at the same time wait. OSError.

    Args:
        path: a file that is made for nothing else, and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, content: Mapping[str, Any], mode: int = 0o666) -> None:
    """Writes indented UTF-8 JSON; see `atomic_write`."""
    with atomic_write(path, mode) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def read_arrays(path: Path, rule: str) -> dict[str, Any]:
    """What `write_arrays` wrote. DataError, which begins with the rule, if it can't be read."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise DataError(f"{rule} Received: {path} ({err}).") from err


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes an .npz; see `atomic_write`."""
    import numpy as np  # a tenth of a second, that a command which only looks at files need not take

    with atomic_write(path) as file:
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
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when all is written, and only then. OSError."""
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
