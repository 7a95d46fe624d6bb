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
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that it runs from a clone without installing

from fl_rec.data.shards import generate, verify
from fl_rec.data.text import LAYOUTS
from fl_rec.errors import FLRecError


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
