"""Files that others have packed, or say to be large: read within limits, so that nobody's memory is filled by them."""

from __future__ import annotations

import errno
import gzip
import io
import math
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

_GZIP = b"\x1f\x8b"
# What is packed may grow so many times beyond so many bytes; of ratings in any text it is some ten times.
_TIMES, _FREE = 50, 1 << 24


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to read. OSError; one of them if it is a pipe or a device, of which nobody knows the end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return open(descriptor, "rb")


def largest_unpacked(packed: int) -> int:
    """Bytes that so many packed ones may become: what grows more is made to fill the memory of who reads it."""
    return max(_FREE, _TIMES * packed)


class _Unpacked(io.RawIOBase):
    """What is in a gzip file. OSError when what was read of it has grown too much."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._file, self._size = packed, gzip.GzipFile(fileobj=packed), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read1(len(buffer))
        self._size += len(content)
        if self._size > largest_unpacked(self._packed.tell()):
            raise OSError(
                f"it grows to more than {_TIMES} times its size; unpack it yourself, if you trust who made it"
            )
        buffer[: len(content)] = content
        return len(content)


def unpacking(file: BinaryIO) -> BinaryIO:
    """What is in a gzip file, by how it begins, or the file itself, from its beginning.

    Raises:
        OSError, EOFError, zlib.error: when it is read, if it is damaged, or grows more than `largest_unpacked`.
    """
    begins = file.read(len(_GZIP))
    file.seek(0)
    return cast(BinaryIO, io.BufferedReader(_Unpacked(file), 1 << 17)) if begins == _GZIP else file


def unpacked(content: bytes, cut_off: bool = False) -> bytes:
    """What is in a gzip file, by how it begins, or the content itself.

    Args:
        cut_off: whether it is only a file's beginning.

    Raises:
        OSError, EOFError, zlib.error: it is damaged, or grows more than `largest_unpacked`.
    """
    if cut_off and content.startswith(_GZIP):
        return zlib.decompressobj(wbits=31).decompress(content, _FREE)
    return unpacking(io.BytesIO(content)).read()


def check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """ValueError if a file of an .npz does not hold an array of just the size that it says."""
    check_growth(member)
    with archive.open(member) as file:
        _check_array(cast(BinaryIO, file), member.file_size, member.filename)


def _check_array(file: BinaryIO, size: int, name: str) -> None:
    from numpy.lib import format

    version = format.read_magic(file)
    if version > (2, 0):
        raise ValueError(f"{name} is of a newer version")
    shape, _, dtype = (format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0)(file)
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there and not dtype.hasobject:  # which nobody unpickles
        raise ValueError(f"{name} must have {claimed:,} bytes for its shape {list(shape)}, and has {there:,}")


def parse_array(content: bytes) -> Any:
    """What `numpy.save` wrote. ValueError if it is none, or not of the size that it says."""
    import numpy as np

    _check_array(io.BytesIO(content), len(content), "an array")
    return np.load(io.BytesIO(content), allow_pickle=False)


def check_growth(member: zipfile.ZipInfo) -> None:
    """BadZipFile if a file of a zip grows more than `largest_unpacked`."""
    if member.file_size > largest_unpacked(member.compress_size):
        raise zipfile.BadZipFile(
            f"{member.filename} grows from {member.compress_size:,} to {member.file_size:,} bytes, more than {_TIMES} "
            "times; unpack it yourself, if you trust who made it"
        )
