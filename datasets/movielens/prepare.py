"""Split interactions leave-one-out and sample negatives: the step from a data set to training and test rows.

    python datasets/movielens/prepare.py --source ml-1m.zip --test_negative ml-1m.test.negative.gz
    python datasets/movielens/prepare.py --source synthetic --validation

Writes into --out: big_train/train_data.csv, big_test/test_data.csv, with --validation big_valid/valid_data.csv and
with --public big_public/public_data.csv (user,item,label, no header); users.csv and items.csv (with a header);
meta.json. README.md describes sources and columns.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that it runs from a clone without installing

from fl_rec.data.prepare import prepare
from fl_rec.errors import FLRecError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make training and test rows from a data set.")
    parser.add_argument(
        "--source",
        required=True,
        help="'synthetic'; ml-1m.zip, ml-100k.zip or their folder; a folder with PaddleRec's CSVs; "
        "a folder with, or the path prefix of, the NCF paper's files",
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into (default: %(default)s)")
    parser.add_argument("--num_neg", type=int, default=4, help="negatives per training positive (default: 4)")
    parser.add_argument("--test_negative", type=Path, help="the NCF paper's .test.negative file, or .gz, used as it is")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="hold out one random training positive of each user too, drawn with --seed, as the NCF paper does",
    )
    parser.add_argument(
        "--public",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the users who agree to be public, for distillation; they are in no other file (default: 0)",
    )
    parser.add_argument("--users", type=Path, help="users.dat or u.user with zip codes, for a source that has none")
    parser.add_argument("--seed", type=int, default=2022, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more. Received: {args.seed}")
    if not 0 <= args.public < 1:
        parser.error(f"--public must be 0 or more, and below 1. Received: {args.public}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        prepare(args)
    except FLRecError as err:
        print(f"prepare.py: error: {err}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
