"""What can be wrong with a file: by bytes, by what its format holds, and by how it lies in its folder."""

from __future__ import annotations

import functools
import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np


class Link(NamedTuple):
    """Stands for a file's content: a symbolic link, a named pipe ("|") or a folder ("/") lies in its place."""

    target: str


Content = bytes | Link
Files = dict[str, Content]

# Whatever a number or a text may be replaced with.
NUMBERS = (
    *(
        "nan",
        "NaN",
        "inf",
        "-inf",
        "Infinity",
        "-1",
        "-0",
        "0",
        "1",
        "2",
        "3",
        "0.5",
        "1.5",
        "1.0",
        "1e2",
        "1e30",
        "-1e400",
    ),
    *("007", "+1", "1_000", "0x10", "٣", "²", "", " ", "null", "true", '"', "1,5", "a", "é", "\0", "\ud800", "../x"),
    *map(
        str, (39, 40, 12, 13, 255, 256, 999, 10**5, 10**9, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64)
    ),
    *map(str, (10**18 - 1, 10**18, 10**19, 3 * 10**8, "9" * 400, "9" * 5000)),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 0.5, 1.5, -0.5, 1e30, float("nan"), float("inf"), float("-inf")),
    *(
        2**31,
        2**53 + 1,
        2**63,
        2**64,
        10**9,
        10**12,
        3 * 10**8,
        10**400,
        "",
        " ",
        "a",
        "nan",
        "1",
        "-1",
        "é\0",
        "x" * 5000,
    ),
    *([], {}, [[]], [1], ["a"], {"a": 1}, "../../etc/passwd", "/etc/passwd", "\ud800", "{}", "%s%n", "all", "1e5"),
)
JSON_NAMES = (".json", ".jsonl")
# No files, but what somebody types.
TYPED = ("overrides.txt",)
BOMB = 3 << 30


def choose(rng: random.Random, files: Files) -> str:
    """Damages one of the files, in place, and says how."""
    name = rng.choice(sorted(files))
    kinds: list[Callable[[random.Random, Files, str], str]] = [_bytes, _bytes, _text, _text, _text]
    if name.endswith(JSON_NAMES):
        kinds += [_json] * 12
    elif name.endswith(".npz"):
        kinds += [_npz] * 12
    elif name.endswith(".msgpack"):
        kinds += [_msgpack] * 12
    elif name.endswith(".npy"):
        kinds += [_npy] * 3
    elif name.endswith(".yaml"):
        kinds += [_yaml] * 4
    kind = rng.choice(kinds)
    if name not in TYPED:
        kind = _place if rng.random() < 0.04 else _packed if rng.random() < 0.02 else kind
    try:
        return f"{name}: {kind(rng, files, name)}"
    except Exception:  # it is no JSON any more, or the like, after an earlier damage
        return f"{name}: {_bytes(rng, files, name)}"


# -- by bytes ---------------------------------------------------------------------------------------------------


def _bytes(rng: random.Random, files: Files, name: str) -> str:
    content = bytearray(_content(files, name))
    at, size = rng.randrange(len(content) + 1), rng.choice((1, 2, 4, 8, 64, 300))
    how = rng.choice(("cut", "flip", "drop", "repeat", "insert", "zeros", "empty", "noise", "many"))
    if how == "cut":
        del content[at:]
    elif how == "flip":
        for _ in range(rng.choice((1, 2, 8, 100))):
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "drop":
        del content[at : at + size]
    elif how == "repeat":
        content[at:at] = content[at : at + size] * rng.choice((1, 1, 100))
    elif how == "insert":
        content[at:at] = rng.randbytes(size)
    elif how == "zeros":
        content[at : at + size] = bytes(size)
    elif how == "empty":
        content = bytearray(rng.choice((b"", b"\n", b" \n\n", b"\xef\xbb\xbf", b"\0")))
    elif how == "noise":
        content = bytearray(rng.randbytes(rng.choice((1, 10, 1000))))
    else:
        content += content[at : at + size] * 1000
    files[name] = bytes(content)
    return how


def _text(rng: random.Random, files: Files, name: str) -> str:
    content = _content(files, name)
    how = rng.choice(("number", "number", "number", "number", "field", "line", "order", "encoding", "newline", "long"))
    if how == "number":
        found = list(re.finditer(rb"-?\d+(\.\d+)?", content))
        if found:
            at = rng.choice(found)
            new = rng.choice(NUMBERS).encode("utf-8", "surrogatepass")
            content = content[: at.start()] + new + content[at.end() :]
            how += f" {at[0][:20]!r} -> {new[:30]!r}"
    elif how == "field":
        found = list(re.finditer(rb"[^\s,;|:\t]+", content))
        if found:
            at = rng.choice(found)
            content = content[: at.start()] + rng.choice(found)[0] + content[at.end() :]
    elif how == "encoding":
        how = rng.choice(("utf-16", "utf-8-sig", "utf-16-be", "latin-1", "cp037", "utf-32"))
        content = (content.decode("utf-8", "replace") + "é" * rng.randrange(2)).encode(how, "replace")
    elif how == "newline":
        content = content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"", b"\n ", b"\x0b", "\u2028".encode())))
    else:
        lines = content.split(b"\n")
        at = rng.randrange(len(lines))
        if how == "line":
            lines[at : at + 1] = rng.choice(([], [lines[at]] * 2, [b""], [lines[at]] * 300, [lines[at] + b" "]))
        elif how == "order":
            rng.shuffle(lines)
        else:
            lines[at] = lines[at][:5] + rng.choice((b"9", b"x", b"[", b'{"a":', b'"', b"1 ", b"1,")) * 200_000
        content = b"\n".join(lines)
    files[name] = content
    return how


# -- by format --------------------------------------------------------------------------------------------------


def _json(rng: random.Random, files: Files, name: str) -> str:
    content = _content(files, name)
    lines = content.split(b"\n") if name.endswith(".jsonl") else [content]
    at = rng.randrange(len(lines))
    tree = json.loads(lines[at] or b"{}")
    said, tree = _changed(rng, tree)
    text = json.dumps(tree).encode()
    if said == "deep":
        deep = rng.choice((500, 5000, 100_000))
        text = text.replace(b'"DEEP"', b"[" * deep + b"]" * deep)
    lines[at] = text
    files[name] = b"\n".join(lines)
    return said


def _changed(rng: random.Random, tree: Any) -> tuple[str, Any]:
    """A tree with one place changed, and how."""
    places = list(_places(tree))
    if not places:
        return "root", rng.choice(VALUES)
    parent, key = rng.choice(places)
    how = rng.choice(("value", "value", "value", "value", "drop", "rename", "add", "deep", "swap", "digits"))
    if how == "value":
        how = f"{key} = {str(value := rng.choice(VALUES))[:30]}"
        parent[key] = value
    elif how == "drop":
        how = f"without {key}"
        del parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice(("", "x", "__class__", f"{key}2", "../x", "nan", "1"))] = parent.pop(key)
    elif how == "add" and isinstance(parent, dict):
        parent[rng.choice(("extra", "", "version", "path", "\ud800"))] = rng.choice(VALUES)
    elif how == "swap":
        other, place = rng.choice(places)
        parent[key], other[place] = other[place], parent[key]
    elif how == "digits":
        parent[key] = int(rng.choice(NUMBERS[-6:-1]))
    else:
        how, parent[key] = "deep", "DEEP"
    try:
        json.dumps(tree)
    except ValueError:  # swapped with what holds it
        return "root", rng.choice(VALUES)
    return how, tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _msgpack(rng: random.Random, files: Files, name: str) -> str:
    tree = msgpack.unpackb(_content(files, name))
    if rng.random() < 0.5:
        try:
            said, tree = _changed(rng, tree)
            files[name] = msgpack.packb(tree)
            return said
        except (TypeError, OverflowError, ValueError, UnicodeError):
            pass
    if rng.random() < 0.2:
        files[name] = rng.choice((b"\xdd", b"\xdf", b"\xc6", b"\xc9")) + b"\xff\xff\xff\xff" + _content(files, name)
        return "a claim of four billion"
    shape = rng.choice(([3], [-1], [10**12, 10**12], [0], [3, 0], [[3]], "3", None, [1.5], [2**63]))
    data = rng.choice((b"", b"\0" * 12, b"\xff" * 12, 5, None, "x"))
    body = [rng.choice(("float32", "float16", "object", "O", "int64", "", None, "<U3", "complex64")), shape, data, data]
    tree["extra"] = {"logits": msgpack.ExtType(rng.choice((1, 2, 3, 127)), msgpack.packb(body[: rng.choice((3, 4))]))}
    files[name] = msgpack.packb(tree)
    return f"an array {body}"


def _npz(rng: random.Random, files: Files, name: str) -> str:
    if len(_content(files, name)) > 1 << 20:
        raise ValueError("it is a bomb already")
    with np.load(io.BytesIO(_content(files, name)), allow_pickle=True) as file:
        arrays = dict(file)
    member = rng.choice(sorted(arrays))
    how = rng.choice(("claim", "bomb", "drop", "rename", "again", "pickle", *["array"] * 12))
    if how in ("claim", "bomb"):
        out = io.BytesIO()
        np.savez(out, **arrays)
        files[name] = _with_member(out.getvalue(), f"{member}.npy", how)
        return f"{how} in {member}"
    if how == "drop":
        del arrays[member]
    elif how == "rename":
        arrays[rng.choice(("x", "../x", "/values", member.upper(), f"{member}/rows"))] = arrays.pop(member)
    elif how == "pickle":
        arrays[member] = np.array([{"a": 1}, None], object)
    elif how == "array":
        how, arrays[member] = _other_array(rng, arrays[member])
    out = io.BytesIO()
    rng.choice((np.savez, np.savez_compressed))(out, **arrays)
    files[name] = out.getvalue()
    return f"{how} of {member}"


def _other_array(rng: random.Random, array: np.ndarray) -> tuple[str, np.ndarray]:
    dtype = rng.choice(("f4", "f8", "i4", "i8", "u8", "u1", "b1", "c8", "S3", "U3", "M8[s]", "f2", ">f4"))
    how = rng.choice((f"dtype {dtype}", "value", "value", "value", "shape", "empty", "scalar", "more", "order"))
    if how.startswith("dtype"):
        try:
            return how, array.astype(dtype)
        except (ValueError, TypeError):
            return how, np.zeros(array.shape, dtype)
    if how == "value" and array.size and array.dtype.kind in "fiu":
        array = array.copy()
        value = rng.choice((np.nan, np.inf, -1, 10**9, 1e30, 39, 40, 12, 2**31, 2**63 - 1, 0))
        with np.errstate(all="ignore"):
            array.flat[rng.randrange(array.size)] = np.asarray(value).astype(array.dtype)
        return f"value {value}", array
    if how == "shape":
        return how, array.reshape(rng.choice(((-1,), (1, -1), (-1, 1), (1, *array.shape), (*array.shape, 1))))
    if how == "empty":
        return how, array[:0] if array.ndim else np.zeros((0,), array.dtype)
    if how == "scalar":
        return how, np.asarray(array.ravel()[0] if array.size else 0)
    if how == "more" and array.ndim:
        return how, np.concatenate([array, array])
    return "order", array[::-1].copy() if array.ndim else array


def _npy(rng: random.Random, files: Files, name: str) -> str:
    array = np.load(io.BytesIO(_content(files, name)))
    how, array = _other_array(rng, array)
    out = io.BytesIO()
    np.save(out, array)
    files[name] = rng.choice((out.getvalue(), _claim(), _claim("O")))
    return how


def _claim(dtype: str = "<f4") -> bytes:
    """A header of a billion billion numbers, and none of them."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': (1000000000, 4096), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def _with_member(archive: bytes, member: str, how: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for each in old.namelist():
            if each != member:
                new.writestr(each, old.read(each))
        if how == "claim":
            new.writestr(member, _claim())
    return out.getvalue() if how == "claim" else _zip_bomb(out.getvalue(), member)


def _yaml(rng: random.Random, files: Files, name: str) -> str:
    how = rng.choice(("laughs", "deep", "tag", "twice", "anchor", "key"))
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    extra = {
        "laughs": laughs + "hyper_parameters:\n  extra: {a: *a11}\n",
        "deep": "extra: " + "[" * 5000 + "]" * 5000,
        "tag": "extra: !!python/object/apply:os.system ['touch /tmp/planted']",
        "twice": "runner: {}",
        "anchor": "extra: &a [*a]",
        "key": "? [1, 2]\n: 3",
    }[how]
    files[name] = _content(files, name) + b"\n" + extra.encode()
    return how


# -- by place and packing ---------------------------------------------------------------------------------------


def _place(rng: random.Random, files: Files, name: str) -> str:
    how = rng.choice(("away", "elsewhere", "link", "pipe", "folder", "zero", "name"))
    if how == "away":
        del files[name]
    elif how == "elsewhere":
        files[f"other/{name}"] = files.pop(name)
    elif how == "name":
        parent, suffix = Path(name).parent, "".join(Path(name).suffixes)
        new = rng.choice(("x", "-1", "1.5", "part-x", "part-001", "é", " ", "9" * 30, "²")) + suffix
        files[(parent / new).as_posix()] = files.pop(name)
    else:
        files[name] = Link(
            {"link": rng.choice((Path(name).name, "/etc/hostname", "no-such-file")), "pipe": "|"}.get(
                how, "/" if how == "folder" else "/dev/zero"
            )
        )
    return how


def _packed(rng: random.Random, files: Files, name: str) -> str:
    content = _content(files, name)
    how = rng.choice(("gzip", "cut gzip", "gzip bomb", "bomb of rows", "twice", "zip bomb", "zip"))
    packed = gzip.compress(content, 1)
    if how == "gzip":
        files[name] = packed
    elif how == "cut gzip":
        files[name] = packed[: rng.randrange(len(packed))]
    elif how == "gzip bomb":
        files[name] = packed[: rng.choice((0, len(packed)))] + _gzip_bomb()
    elif how == "bomb of rows":
        line = max(content.split(b"\n")[-3:], key=len) + b"\n"
        member = gzip.compress(line * (2 * 10**6 // len(line)))
        files[name] = packed + member * (10**6 // len(member))
    elif how == "twice":
        files[name] = gzip.compress(packed)
    else:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(f"../{name}" if rng.random() < 0.3 else name, content)
        files[name] = out.getvalue() if how == "zip" else _zip_bomb(out.getvalue(), "zeros")
    return how


def make_bombs() -> None:
    """Has them made once, before processes are forked that use them."""
    _gzip_bomb()
    _zeros()


@functools.cache
def _gzip_bomb() -> bytes:
    """Three million bytes, of which `BOMB` zeros come."""
    return gzip.compress(bytes(1 << 24), 9) * (BOMB >> 24)


@functools.cache
def _zeros() -> bytes:
    """The same as one raw deflate stream."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = pack.compress(bytes(1 << 24)) + pack.flush(zlib.Z_FULL_FLUSH)
    return block * (BOMB >> 24) + b"\x03\x00"


def _zip_bomb(archive: bytes, member: str) -> bytes:
    """A zip with one more member, `_zeros`; its CRC is wrong, which shows when all is unpacked."""
    stream = _zeros()
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as file:
        file.writestr(zipfile.ZipInfo(member), b"")
        info = file.infolist()[-1]
        info.compress_type, info.compress_size, info.file_size = zipfile.ZIP_DEFLATED, len(stream), BOMB
        assert file.fp is not None
        file.fp.seek(info.header_offset)
        file.fp.write(info.FileHeader(zip64=False) + stream)
        file.start_dir = file.fp.tell()
    return out.getvalue()


def _content(files: Files, name: str) -> bytes:
    content = files[name]
    return content if isinstance(content, bytes) else b"\n"
