"""Cut prepared rows into one shard per worker, unlike each other: the step from rows to federated data.

    python datasets/movielens/gen_heter_data.py --num_shards 10 --partitioner zip_first_digit
    python datasets/movielens/gen_heter_data.py --partitioner dirichlet_genre:alpha=0.3
    python datasets/movielens/gen_heter_data.py --verify

Reads what prepare.py wrote into --data. Writes into --out: fl_train_data/part-NNN.txt, fl_test_data/part-NNN.txt,
after prepare.py --validation fl_valid_data/part-NNN.txt (MultiSlot text, or .csv), copies of items.csv and users.csv
and, last, manifest.json. All rows of a user go to the same shard.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any, Sequence

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that it runs from a clone without installing

from fl_rec.data import (
    LAYOUTS,
    MANIFEST_NAME,
    MANIFEST_VERSION,
    MAPPINGS,
    SLOTS,
    TEST_FOLDER,
    TRAIN_FOLDER,
    VALIDATION_FOLDER,
    Manifest,
    atomic_write,
    changed_file,
    check_shards,
    count_rows,
    generator,
    group_rows,
    load_manifest,
    read_bytes,
    read_csv_rows,
    require_rows,
    split_rows,
    stage,
    write_json,
    write_public,
    write_shards,
)
from fl_rec.errors import DataError, FLRecError
from fl_rec.partition import find_partitioner, has_bad_zip
from fl_rec.sources import read_users

_PARTITION_STREAM = 0
_TITLES = {"train": "training", "test": "test", "validation": "validation"}


def generate(
    data: Path, out: Path, num_shards: int, partitioner: str, layout: str, seed: int, group: bool = False
) -> Manifest:
    """Read ``data``, write the shards and their manifest into ``out``, and return it.

    Everything that can be wrong with the input is found before the first file is written.
    """
    partition = find_partitioner(partitioner)
    with stage(f"read {data}") as counts:
        meta = _read_meta(data)
        users = read_users(data / "users.csv")
        mappings = {name: read_bytes(data / name) for name in MAPPINGS}
        train_file, valid_file = data / "big_train" / "train_data.csv", data / "big_valid" / "valid_data.csv"
        rows = {"train": read_csv_rows(train_file), "test": read_csv_rows(data / "big_test" / "test_data.csv")}
        if valid_file.is_file():
            rows["validation"] = read_csv_rows(valid_file)
        public_file = data / "big_public" / "public_data.csv"
        public = read_csv_rows(public_file) if public_file.is_file() else None
        counts.update({"users": len(users), **{f"{_TITLES[kind]} rows": len(rows[kind]) for kind in rows}})
    for kind in rows:
        _require_known_ids(data, rows[kind], len(users), meta["num_items"])
    if public is not None:
        _require_known_ids(data, public, len(users), meta["num_items"])
    group_size = group_rows(rows["train"], str(train_file)).shape[1] if group else 1
    shard_of_user = partition(users, num_shards, generator(seed, _PARTITION_STREAM))
    split = {kind: split_rows(rows[kind], shard_of_user, num_shards) for kind in rows}
    for kind in split:
        require_rows(split[kind], _TITLES[kind])
    bad_zip = has_bad_zip(users)
    shards = write_shards(
        out, split["train"], split["test"], LAYOUTS[layout], seed, split.get("validation"), group_size
    )
    public_shard = None if public is None else write_public(out, public, LAYOUTS[layout])
    for name, content in mappings.items():
        with atomic_write(out / name) as file:
            file.write(content)
    manifest = Manifest(
        version=MANIFEST_VERSION,
        format=layout,
        slots=SLOTS,
        seed=seed,
        source={**meta["source"], **{key: meta[key] for key in ("seed", "num_neg", "test_negative")}},
        partitioner={"name": partition.name, "options": partition.options},
        num_shards=num_shards,
        num_users=meta["num_users"],
        num_items=meta["num_items"],
        bad_zip={
            "policy": partition.options.get("bad_zip"),
            "users": int(bad_zip.sum()),
            "train_rows": int(bad_zip[rows["train"][:, 0]].sum()) // group_size,
        },
        dropped_users=int((shard_of_user < 0).sum()),
        totals={
            f"{kind}_{name}": count
            for kind in split
            for name, count in count_rows(np.concatenate(split[kind]), group_size if kind == "train" else 1).items()
        },
        shards=shards,
        folder=out,
        group_size=group_size,
        mappings={name: hashlib.sha256(content).hexdigest() for name, content in mappings.items()},
        public=public_shard,
    )
    write_json(out / MANIFEST_NAME, manifest.to_json())
    return manifest


def _read_meta(data: Path) -> dict[str, Any]:
    path = data / "meta.json"
    if not path.is_file():
        raise DataError(f"--data must be a folder that prepare.py wrote. Received: {data}, without meta.json.")
    try:
        meta = json.loads(read_bytes(path).decode("utf-8"))
        kept = {key: meta[key] for key in ("seed", "num_neg", "test_negative", "num_users", "num_items")}
        return {**kept, "source": {**meta["source"]}}
    except (KeyError, TypeError, ValueError) as err:
        raise DataError(
            f"meta.json must be as prepare.py writes it. Received: {path} ({err!r}). Run prepare.py again."
        ) from err


def _require_known_ids(data: Path, rows: np.ndarray, num_users: int, num_items: int) -> None:
    for column, name, limit in ((0, "user", num_users), (1, "item", num_items)):
        highest = int(rows[:, column].max())
        if highest >= limit:
            raise DataError(
                f"{data}: {name} ids must be below {limit}, the number of {name}s. Received: {highest}. "
                "Run prepare.py again."
            )


def verify(out: Path) -> Manifest:
    """Compare every shard and mapping with the manifest's checksum; DataError names the first that differs."""
    manifest = load_manifest(out)
    if manifest is None:
        raise DataError(f"--out must be a folder with a {MANIFEST_NAME}. Received: {out}. Generate the shards first.")
    folders = [TRAIN_FOLDER, TEST_FOLDER]
    if any(shard.validation for shard in manifest.shards):
        folders.append(VALIDATION_FOLDER)
    check_shards(manifest, *(manifest.folder / folder for folder in folders), verify=True)
    changed = changed_file(manifest.folder, manifest.mappings)
    if changed:
        raise DataError(
            f"{changed[0]} must have the SHA-256 {manifest.mappings[changed[0].name]}, says the manifest. Received: "
            f"{changed[1]}. Run datasets/movielens/gen_heter_data.py again."
        )
    return manifest


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cut prepared rows into heterogeneous shards, one per worker.")
    parser.add_argument("--data", type=Path, default=HERE, help="folder that prepare.py wrote (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "fl_data", help="folder to write (default: %(default)s)")
    parser.add_argument("--num_shards", type=int, default=10, help="one per worker (default: 10)")
    parser.add_argument(
        "--partitioner",
        default="zip_first_digit",
        help="zip_first_digit, iid, dirichlet_activity, dirichlet_genre, module:function or "
        "file.py:function; options after a colon: dirichlet_genre:alpha=0.3, "
        "zip_first_digit:bad_zip=spread|drop|error "
        "(default: zip_first_digit, which spreads bad zip codes over all shards by user id)",
    )
    parser.add_argument("--format", choices=sorted(LAYOUTS), default="multislot", help="(default: multislot)")
    parser.add_argument(
        "--group", action="store_true", help="write each training positive and its negatives as one row"
    )
    parser.add_argument("--seed", type=int, default=2022, help="(default: %(default)s)")
    parser.add_argument("--verify", action="store_true", help="write nothing; check the shards in --out against it")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more. Received: {args.seed}")
    if args.group and args.format != "multislot":
        parser.error(
            f"--group needs --format multislot, which can hold several items in a row. Received: {args.format}"
        )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if args.verify:
            manifest = verify(args.out)
        else:
            manifest = generate(
                args.data, args.out, args.num_shards, args.partitioner, args.format, args.seed, args.group
            )
    except FLRecError as err:
        print(f"gen_heter_data.py: error: {err}", file=sys.stderr)
        return 2
    state = "verified" if args.verify else "written"
    rows = [shard.train.rows for shard in manifest.shards]
    print(f"{state}: {manifest.num_shards} shards, {sum(rows):,} training rows ({', '.join(map(str, rows))})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
