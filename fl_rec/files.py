"""Files written whole or not at all, and read with an error that says which one and why."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fl_rec.errors import DataError


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


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when all is written, and only then."""
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
