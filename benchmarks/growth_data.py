"""Shards of any size for growth.py, made in place: only what a job needs, a second for a million rows."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np

from fl_rec.data.manifest import (
    MANIFEST_NAME,
    MANIFEST_VERSION,
    SLOTS,
    TEST_FOLDER,
    TRAIN_FOLDER,
    Manifest,
    Shard,
    ShardFile,
)
from fl_rec.files import write_json

# A user likes items of one kind of these, and popular ones.
KINDS = 8
LIKES_THE_KIND = 0.7
POSITIVE_SHARE = 0.2
TEST_NEGATIVES = 99


def make_shards(folder: Path, workers: int, users: int, items: int, rows: int, test_users: int, seed: int) -> Manifest:
    """Writes identically distributed shards, and their manifest.

    Worker k has every user from k * users / workers on. The rows are dealt out to its users in turn.

    Args:
        folder: is made.
        users, items: how many ids there are.
        rows: of each training shard, a fifth of them positive.
        test_users: of each test shard at most, each with a positive and 99 negatives.
    """
    edges = [users * worker // workers for worker in range(workers + 1)]
    shards = []
    for worker, (first, stop) in enumerate(itertools.pairwise(edges)):
        rng = np.random.default_rng([seed, worker])
        user = first + np.arange(rows) % (stop - first)
        label = (rng.random(rows) < POSITIVE_SHARE).astype(np.int64)
        train = np.stack([user, np.where(label, liked(rng, user, items), rng.integers(0, items, rows)), label], axis=1)
        tested = np.repeat(np.arange(first, min(stop, first + test_users)), TEST_NEGATIVES + 1)
        label = np.tile(np.arange(TEST_NEGATIVES + 1) == 0, len(tested) // (TEST_NEGATIVES + 1)).astype(np.int64)
        item = np.where(label, liked(rng, tested, items), rng.integers(0, items, len(tested)))
        name = f"part-{worker:03d}.txt"
        shards.append(
            Shard(
                _write(folder, f"{TRAIN_FOLDER}/{name}", train),
                _write(folder, f"{TEST_FOLDER}/{name}", np.stack([tested, item, label], axis=1)),
            )
        )
    manifest = Manifest(
        version=MANIFEST_VERSION,
        format="multislot",
        slots=SLOTS,
        seed=seed,
        source={"kind": "growth"},
        partitioner={"name": "blocks", "options": {}},
        num_shards=workers,
        num_users=users,
        num_items=items,
        unplaced={"policy": None, "users": 0, "train_rows": 0},
        dropped_users=0,
        totals={"train_rows": workers * rows, "test_rows": sum(shard.test.rows for shard in shards)},
        shards=tuple(shards),
        folder=folder,
    )
    write_json(folder / MANIFEST_NAME, manifest.to_json())
    return manifest


def liked(rng: np.random.Generator, user: np.ndarray, items: int) -> np.ndarray:
    """An item for each user: low ids are popular, and mostly it is of the user's kind."""
    item = (items * rng.random(len(user)) ** 3).astype(np.int64)
    of_kind = item - item % KINDS + user % KINDS
    return np.where((rng.random(len(user)) < LIKES_THE_KIND) & (of_kind < items), of_kind, item)


def _write(folder: Path, name: str, rows: np.ndarray) -> ShardFile:
    text = _lines(rows)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return ShardFile(
        file=name,
        rows=len(rows),
        positives=int(rows[:, 2].sum()),
        users=len(np.unique(rows[:, 0])),
        items=len(np.unique(rows[:, 1])),
        bytes=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
    )


def _lines(rows: np.ndarray) -> bytes:
    """MultiSlot text; ids have leading zeros, so that every line is as long as the others."""
    columns = []
    for values, end in zip(rows.T, (" ", " ", "\n")):
        digits = len(str(values.max()))
        powers = 10 ** np.arange(digits - 1, -1, -1)
        columns.append(np.broadcast_to(np.frombuffer(b"1 ", np.uint8), (len(rows), 2)))
        columns.append((values[:, None] // powers % 10 + ord("0")).astype(np.uint8))
        columns.append(np.full((len(rows), 1), ord(end), np.uint8))
    return np.concatenate(columns, axis=1).tobytes()
