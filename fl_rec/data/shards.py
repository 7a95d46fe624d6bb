"""Cut prepared rows into one shard per worker, unlike each other: `fl-rec partition`, from rows to federated data.

Reads what `fl-rec prepare` wrote into --data. Writes into --out: fl_train_data/part-NNN.txt,
fl_test_data/part-NNN.txt, after --validation fl_valid_data/part-NNN.txt (MultiSlot text, or .csv), copies of items.csv
and users.csv and, last, manifest.json, which vouches for them. All rows of a user go to the same shard.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from fl_rec.data.blocks import ahead
from fl_rec.data.catalogue import read_items, read_users
from fl_rec.data.difference import difference, to_table
from fl_rec.data.manifest import (
    MANIFEST_NAME,
    MANIFEST_VERSION,
    MAPPINGS,
    PUBLIC_FOLDER,
    SLOTS,
    TEST_FOLDER,
    TRAIN_FOLDER,
    VALIDATION_FOLDER,
    Manifest,
    Shard,
    ShardFile,
    check_shards,
    load_manifest,
)
from fl_rec.data.meta import read_meta, unchanged
from fl_rec.data.output import stage, writing
from fl_rec.data.partition import PARTITIONERS, Dealt, find_partitioner
from fl_rec.data.ranks import Ranked, by_popularity
from fl_rec.data.rows import Sizes
from fl_rec.data.sampling import Stream, generator
from fl_rec.data.tags import ItemTags
from fl_rec.data.text import LAYOUTS, Layout, csv_blocks, grouped_layout, read_rows, write_rows
from fl_rec.errors import ConfigError, DataError
from fl_rec.files import atomic_write, changed_file, read_bytes, write_json
from fl_rec.typed import to_plain

# 4 MB.
_ROWS_PER_PART = 1 << 19

SHARDS_NAME = "fl_data"


class ShardRows:
    """Rows of a shard as they come, in eight bytes each; the whole is made when it is wanted, and only then."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []  # of user, and twice the item plus the label
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: np.ndarray) -> None:
        """Copies rows [n, 3]."""
        while len(rows):
            place = self._count % _ROWS_PER_PART
            if not place:
                self._parts.append(np.empty((_ROWS_PER_PART, 2), np.int32))
            fit = rows[: _ROWS_PER_PART - place]
            part = self._parts[-1][place : place + len(fit)]
            part[:, 0] = fit[:, 0]
            part[:, 1] = 2 * fit[:, 1] + fit[:, 2]
            self._count += len(fit)
            rows = rows[len(fit) :]

    def take(self) -> np.ndarray:
        """All rows, int32 [n, 3], which are then no longer kept here."""
        rows: np.ndarray = np.empty((self._count, 3), np.int32)
        for start in range(0, self._count, _ROWS_PER_PART):
            part = self._parts.pop(0)[: self._count - start]
            here = rows[start : start + len(part)]
            here[:, 0] = part[:, 0]
            np.divmod(part[:, 1], 2, out=(here[:, 1], here[:, 2]))
        self._count = 0
        return rows


class Split:
    """Rows by their user's shard, in their order.

    Attributes:
        shards: of each shard its rows.
        of_user: int64 [users], how many rows each has, dealt or not.
        positives: int64 [shards, items], how many positives of each item a shard has.
        totals: of all that is dealt, as `count_rows` has it.
    """

    def __init__(self, blocks: Iterable[np.ndarray], dealt: Dealt, items: int, group_size: int = 1) -> None:
        """Goes through blocks of rows [n, 3], whose items are below a number."""
        users = len(dealt.shard)
        self.shards = [ShardRows() for _ in range(dealt.num_shards)]
        self.of_user: np.ndarray = np.zeros(users, np.int64)
        self.positives: np.ndarray = np.zeros((dealt.num_shards, items), np.int64)
        seen = np.zeros(items, bool)
        for block in blocks:
            self.of_user += np.bincount(block[:, 0], minlength=users)
            shard = dealt.shard[block[:, 0]]
            order = np.argsort(shard.astype(np.int16), kind="stable")
            bounds = np.searchsorted(shard[order], np.arange(dealt.num_shards + 1))
            seen[block[shard >= 0, 1]] = True
            for k, (start, stop) in enumerate(pairwise(bounds)):
                rows = block[order[start:stop]]
                self.shards[k].add(rows)
                self.positives[k] += np.bincount(_positives(rows)[:, 1], minlength=items)
        self.totals = {
            "rows": sum(map(len, self.shards)) // group_size,
            "positives": int(self.positives.sum()),
            "users": int(np.count_nonzero(self.of_user[dealt.shard >= 0])),
            "items": int(np.count_nonzero(seen)),
        }


class Popular:
    """Ranks test shards by their items' training positives in all shards, int64 [shards, items].

    Attributes:
        ranked: of each shard that has gone by.
    """

    def __init__(self, positives: np.ndarray) -> None:
        self._chosen, self.ranked = positives.sum(axis=0), list[tuple[Ranked, ...]]()

    def watching(self, shards: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same shards of rows [n, 3]."""
        for rows in shards:
            self.ranked.append(by_popularity(rows, self._chosen))
            yield rows


def grouped(blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """Yield rows [groups, group_size, 3] of blocks of rows [n, 3]; see `group_rows`."""
    rest: np.ndarray = np.empty((0, 3), np.int32)
    size, line = 0, 1
    for block in blocks:
        rest = np.concatenate([rest, block])
        positives = np.flatnonzero(rest[:, 2])
        if not size and len(positives) > 1:
            size = int(positives[1] - positives[0])
        whole = len(rest) // size * size if size else 0
        if whole:
            yield group_rows(rest[:whole], name, size, line)
        rest, line = rest[whole:], line + whole
    if len(rest):
        yield group_rows(rest, name, size or len(rest), line)


def group_rows(rows: np.ndarray, name: str, size: int, first: int = 1) -> np.ndarray:
    """Group rows [n, 3] in which each positive is followed by its negatives, all of one user and equally many.

    Returns [groups, size, 3]. DataError, with ``name`` and the line's number, if the rows are not so; theirs begin
    with ``first``.
    """
    place = np.arange(len(rows))
    wrong = (rows[:, 2] != (place % size == 0)) | (rows[:, 0] != rows[place - place % size, 0])
    if len(rows) % size:
        wrong[-1] = True  # the last group ends too early
    if size == 1:
        wrong[0] = True
    if wrong.any():
        line = int(np.argmax(wrong))
        user, _, label = rows[line]
        raise DataError(
            f"{name}, line {first + line}: rows can be grouped only if each positive is followed by its negatives, all "
            f"of one user and as many as the first positive has. Received: user {user}, label {label}, after a first "
            f"group of {size} row(s). Leave --group out, or prepare a source that leaves the training negatives to "
            "fl-rec prepare."
        )
    return rows.reshape(-1, size, 3)


def require_rows(shards: Sequence[Sized], kind: str, clients: Sequence[str] = ()) -> None:
    """DataError if a shard is empty: its worker could neither train nor take part in the others' barriers."""
    empty = [f"{k} ({clients[k]})" if clients else str(k) for k, rows in enumerate(shards) if not len(rows)]
    if empty:
        raise DataError(
            f"Every shard must have {kind} rows, since a worker without any can't work. Received none for "
            f"shard(s) {', '.join(empty)} of {len(shards)}. Use fewer --num_shards, another "
            "--seed, or another --partitioner (iid is the most even; for Dirichlet a larger alpha is)."
        )


def write_shards(
    out: Path,
    train: Iterable[np.ndarray],
    test: Iterable[np.ndarray],
    layout: Layout,
    seed: int,
    validation: Iterable[np.ndarray] | None = None,
    group_size: int = 1,
) -> tuple[Shard, ...]:
    """Write each shard's rows [n, 3] to one file per kind, after removing those of an earlier generation.

    Training rows are shuffled, since a trainer reads them in file order; the others keep theirs. A shard's shuffle
    depends on ``seed`` and its number only. With a ``group_size`` above 1 every so many training rows are a group
    (see `group_rows`), shuffled and written as one line of MultiSlot text.
    """
    clear_shards(out)
    shards = []
    for k, (train_rows, test_rows, *others) in enumerate(
        zip(train, test, *([] if validation is None else [validation]))
    ):
        name = f"part-{k:03d}{layout.suffix}"
        with stage(f"shard {k}") as counts:
            groups = train_rows.reshape(-1, group_size, 3)
            order = generator(seed, Stream.shard_order(k)).permutation(len(groups))
            kinds = (
                (TRAIN_FOLDER, groups, order),
                *(
                    (folder, rows[:, None], None)
                    for folder, rows in zip((TEST_FOLDER, VALIDATION_FOLDER), (test_rows, *others))
                ),
            )
            files = [_write_shard(out, f"{folder}/{name}", rows, layout, order) for folder, rows, order in kinds]
            counts.update(dict(zip((f"{title} rows" for title in _TITLES.values()), (file.rows for file in files))))
            shards.append(Shard(*files))
    return tuple(shards)


def write_public(out: Path, rows: np.ndarray, layout: Layout) -> ShardFile:
    """Write the rows [n, 3] of users who are in no shard, after `write_shards`."""
    return _write_shard(out, f"{PUBLIC_FOLDER}/part-000{layout.suffix}", rows[:, None], layout)


def clear_shards(out: Path) -> None:
    """Remove an earlier generation; its manifest first, as that vouches for the others."""
    stale = [out / MANIFEST_NAME]
    for folder in (TRAIN_FOLDER, TEST_FOLDER, VALIDATION_FOLDER, PUBLIC_FOLDER):
        stale += sorted((out / folder).glob("part-*.*")) + sorted((out / folder).glob(".part-*.tmp"))
    for path in stale:
        path.unlink(missing_ok=True)


def _write_shard(
    out: Path, file: str, groups: np.ndarray, layout: Layout, order: np.ndarray | None = None
) -> ShardFile:
    group_size = groups.shape[1]

    def columns() -> Iterator[np.ndarray]:
        for start in range(0, len(groups), _ROWS_PER_PART):
            part = slice(start, start + _ROWS_PER_PART)
            rows = groups[part if order is None else order[part]]
            yield rows[:, 0] if group_size == 1 else np.concatenate([rows[:, 0, :1], rows[:, :, 1]], axis=1)

    size, sha256 = write_rows(out / file, columns(), layout if group_size == 1 else grouped_layout(group_size))
    return ShardFile(file=file, bytes=size, sha256=sha256, **count_rows(groups.reshape(-1, 3), group_size))


def count_rows(rows: np.ndarray, group_size: int = 1) -> dict[str, int]:
    """Count the lines that rows [n, 3] make, their positives, and their distinct users and items."""
    return {
        "rows": len(rows) // group_size,
        "positives": int(rows[:, 2].sum()),
        "users": int(np.count_nonzero(np.bincount(rows[:, 0]))),
        "items": int(np.count_nonzero(np.bincount(rows[:, 1]))),
    }


_TITLES = {"train": "training", "test": "test", "validation": "validation"}


def generate(
    data: Path,
    out: Path,
    num_shards: int | None,
    partitioner: str | None,
    layout: str,
    seed: int,
    group: bool = False,
) -> Manifest:
    """Read ``data``, write the shards and their manifest into ``out``, and return it.

    ``num_shards`` and ``partitioner`` are None for what the partitioner, and the data's source, go by unless told.
    Everything that can be wrong with the input is found before the first file is written.
    """
    named = find_partitioner(partitioner) if partitioner else None
    with stage(f"read {data}") as counts, unchanged(data):
        users, tags = read_users(data / "users.csv"), ItemTags.of(read_items(data / "items.csv").tags)
        meta = read_meta(data, len(users), tags.num_items)
        partition = named or find_partitioner(meta.partitioner)
        mappings = {name: read_bytes(data / name) for name in MAPPINGS}
        sizes, group_size = Sizes(meta.num_users, meta.num_items), 1
        train_file = data / "big_train" / "train_data.csv"
        users = dataclasses.replace(
            users,
            positives=lambda: np.concatenate([_positives(rows)[:, :2] for rows in csv_blocks(train_file, sizes)]),
            item_tags=tags,
        )
        dealt = partition(users, num_shards, generator(seed, Stream.PARTITION))
        blocks = csv_blocks(train_file, sizes)
        if group:
            first = next(groups := grouped(blocks, str(train_file)))
            group_size = first.shape[1]
            blocks = (each.reshape(-1, 3) for each in chain([first], groups))
        split = {"train": Split(ahead(blocks), dealt, meta.num_items, group_size)}
        for kind, name in (("test", "big_test/test_data.csv"), ("validation", "big_valid/valid_data.csv")):
            if kind == "test" or (data / name).is_file():
                split[kind] = Split(csv_blocks(data / name, sizes), dealt, meta.num_items)
        public_file = data / "big_public" / "public_data.csv"
        public = read_rows(public_file, sizes) if public_file.is_file() else None
        counts["users"] = len(users)
        counts.update({f"{_TITLES[kind]} rows": int(split[kind].of_user.sum()) for kind in split})
    for kind in split:
        require_rows(split[kind].shards, _TITLES[kind], dealt.clients)
    unplaced = np.zeros(len(users), bool) if dealt.unplaced is None else dealt.unplaced
    with writing(out):
        train, test, *others = ((shard.take() for shard in each.shards) for each in split.values())
        popular = Popular(split["train"].positives)
        tests = popular.watching(test)
        shards = write_shards(out, train, tests, LAYOUTS[layout], seed, others[0] if others else None, group_size)
        public_shard = None if public is None else write_public(out, public, LAYOUTS[layout])
        for name, content in mappings.items():
            with atomic_write(out / name) as file:
                file.write(content)
        manifest = Manifest(
            version=MANIFEST_VERSION,
            format=layout,
            slots=SLOTS,
            seed=seed,
            source=meta.origin,
            partitioner={"name": partition.name, "options": to_plain(partition.options)},
            num_shards=dealt.num_shards,
            num_users=meta.num_users,
            num_items=meta.num_items,
            unplaced={
                "policy": dealt.policy,
                "users": int(unplaced.sum()),
                "train_rows": int(split["train"].of_user[unplaced].sum()) // group_size,
            },
            dropped_users=int((dealt.shard < 0).sum()),
            totals={f"{kind}_{name}": count for kind in split for name, count in split[kind].totals.items()},
            shards=shards,
            folder=out,
            group_size=group_size,
            mappings={name: hashlib.sha256(content).hexdigest() for name, content in mappings.items()},
            public=public_shard,
            clients=tuple(dealt.clients),
            difference=difference(split["train"].positives, tags),
            popularity=tuple(popular.ranked),
        )
        write_json(out / MANIFEST_NAME, manifest.to_json())
    return manifest


def _positives(rows: np.ndarray) -> np.ndarray:
    positives: np.ndarray = rows[rows[:, 2] == 1]
    return positives


def verify(out: Path) -> Manifest:
    """Compare every shard and mapping with the manifest's checksum; DataError names the first that differs."""
    manifest = load_manifest(out)
    if manifest is None:
        raise DataError(f"--out must be a folder with a {MANIFEST_NAME}. Received: {out}. Generate the shards first.")
    train, test, validation = (manifest.folder_of(kind) for kind in ("train", "test", "validation"))
    check_shards(manifest, train or out, test, validation, verify=True)
    changed = changed_file(manifest.folder, manifest.mappings)
    if changed:
        raise DataError(
            f"{changed[0]} must have the SHA-256 {manifest.mappings[changed[0].name]}, says the manifest. Received: "
            f"{changed[1]}. Make the shards again: fl-rec partition"
        )
    return manifest


def add_arguments(parser: argparse.ArgumentParser, folder: Path = Path()) -> None:
    """Adds the arguments of `fl-rec partition`; `folder` is where it reads and writes unless told."""
    parser.add_argument("--data", type=Path, default=folder, help="folder that prepare wrote (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=folder / SHARDS_NAME, help="folder to write (default: %(default)s)")
    add_cutting_arguments(parser)
    parser.add_argument("--format", choices=sorted(LAYOUTS), default="multislot", help="(default: multislot)")
    parser.add_argument(
        "--group", action="store_true", help="write each training positive and its negatives as one row"
    )
    parser.add_argument("--seed", type=int, default=2022, help="(default: %(default)s)")
    parser.add_argument("--verify", action="store_true", help="write nothing; check the shards in --out against it")


def add_cutting_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds the arguments that say how users are dealt out."""
    parser.add_argument(
        "--num_shards", type=int, metavar="N", help="one per worker (default: 10; for by_column one per value)"
    )
    parser.add_argument(
        "--partitioner",
        help=f"{', '.join(PARTITIONERS)}, module:function or file.py:function; options after a colon: "
        "by_column:column=region,missing=spread|drop|error, dirichlet_tag:alpha=0.3 (default: what suits the source)",
    )


def command(args: argparse.Namespace) -> int:
    """Plays `fl-rec partition`."""
    check_seed(args.seed)
    if args.group and args.format != "multislot":
        raise ConfigError(
            f"--group needs --format multislot, which can hold several items in a row. Received: {args.format}"
        )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if args.verify:
        manifest = verify(args.out)
    else:
        manifest = generate(args.data, args.out, args.num_shards, args.partitioner, args.format, args.seed, args.group)
    print(describe_shards(manifest, "verified" if args.verify else "written"))
    return 0


def describe_shards(manifest: Manifest, state: str = "written") -> str:
    """What a person should know of shards."""
    rows = [shard.train.rows for shard in manifest.shards]
    counts = f"{manifest.num_shards} shards, {sum(rows):,} training rows ({', '.join(map(str, rows))})"
    return f"{to_table(manifest)}\n\n{state}: {counts}"


def check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"--seed must be 0 or more. Received: {seed}")
