"""What a reader is to the fuzzer, and what several of them read."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.fuzzing.mutations import Files

USERS, ITEMS, SHARDS = 12, 40, 2


class Wrong(AssertionError):
    """Accepted, and not sound."""


def sound(holds: Any, what: str) -> None:
    if not holds:
        raise Wrong(what)


class Reader(NamedTuple):
    """Attributes: corpus, which gives sound files; read; weight, its share of the inputs; seal, which makes checksums
    right again after the damage, as who means harm would; files, those that are damaged, None for all."""

    corpus: Callable[[], Files]
    read: Callable[[Path], None]
    weight: int
    seal: Callable[[Files], None] | None = None


READERS: dict[str, Reader] = {}


def reader(
    corpus: Callable[[], Mapping[str, Any]],
    weight: int = 4,
    seal: Callable[[Files], None] | None = None,
    name: str = "",
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(read: Callable[[Path], None]) -> Callable[[Path], None]:
        READERS[name or read.__name__] = Reader(cache(corpus), read, weight, seal)
        return read

    return register


def given(path: Path) -> bytes:
    """A file's content; what is in the way of it is no matter of the reader's."""
    return path.read_bytes() if path.is_file() else b""


def interactions() -> list[tuple[int, int, int, int]]:
    """user, item, rating, time"""
    rng = random.Random(1)
    pairs = [(user, item) for user in range(1, USERS + 1) for item in rng.sample(range(1, ITEMS + 1), 6)]
    rng.shuffle(pairs)
    return [(user, item, rng.randint(1, 5), 978300000 + n) for n, (user, item) in enumerate(pairs)]


def lines(separator: str, rows: Any, header: str = "") -> bytes:
    return (header + "".join(separator.join(map(str, row)) + "\n" for row in rows)).encode()


def ranked_rows() -> list[tuple[int, int, int]]:
    """Test rows: of each user a positive and negatives."""
    return [(u, (u + 7 * n) % ITEMS, int(n == 0)) for u in range(USERS) for n in range(5)]


def trained_rows() -> list[tuple[int, int, int]]:
    return [(u - 1, i - 1, int(n % 3 == 0)) for n, (u, i, _, _) in enumerate(interactions())]


def ids_are_below(ids: np.ndarray, size: int, what: str) -> None:
    for each in np.asarray(ids).ravel().tolist():
        sound(isinstance(each, int) and 0 <= each < size, f"{what}: {each} of {size}")


def prepared() -> Files:
    meta = {
        "source": {"kind": "made", "name": "x"},
        **{"partitioner": "iid", "seed": 1, "num_neg": 4, "test_negative": "sampled"},
        **{"num_users": USERS, "num_items": ITEMS, "train_rows": len(trained_rows())},
    }
    users = ((u, u + 1, 3, "a", u % 3) for u in range(USERS))
    items = ((i, i + 1, f"T {i}", "a|b" if i % 2 else "c") for i in range(ITEMS))
    return {
        "big_train/train_data.csv": lines(",", sorted(trained_rows())),
        "big_test/test_data.csv": lines(",", ranked_rows()),
        "users.csv": lines(",", users, "user,original_id,activity,tag,region\n"),
        "items.csv": lines(",", items, "item,original_id,title,tags\n"),
        "meta.json": json.dumps(meta).encode(),
    }


def rows_of(content: bytes, slots: int, sizes: tuple[int, int]) -> Iterator[list[list[float]]]:
    """The rows of MultiSlot text or CSV, by `split` and `float`; `Wrong` if one is not sound."""
    for line in (each.decode("latin-1") for each in content.splitlines()):
        if not line.strip():
            continue
        if "," in line:
            row = [[float(each)] for each in line.split(",")]
        else:
            tokens, row = line.split(), []
            while tokens:
                width = int(tokens[0])
                row.append([float(each) for each in tokens[1 : 1 + width]])
                sound(len(row[-1]) == width > 0, f"a slot of {width}: {line[:60]}")
                tokens = tokens[1 + width :]
        sound(len(row) == slots and len(row[0]) == 1, f"{len(row)} slots: {line[:60]}")
        for number, slot in enumerate(row):
            for each in slot:
                sound(math.isfinite(each), f"{each} in a row")
                if number == 0:
                    sound(each == int(each) and 0 <= each < sizes[0], f"user {each} of {sizes[0]}")
                elif number == slots - 1:
                    sound(each in (0, 1), f"label {each}")
                elif slots == 3:
                    sound(each == int(each) and 0 <= each < sizes[1], f"item {each} of {sizes[1]}")
        yield row


def multislot(rows: Any) -> bytes:
    return b"".join(b"1 %d 1 %d 1 %d\n" % tuple(row) for row in rows)


def of_shard(rows: Any, shard: int) -> list[tuple[int, int, int]]:
    return [row for row in rows if row[0] % SHARDS == shard]


def npz(arrays: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()
