"""Split interactions leave-one-out and sample negatives: `fl-rec prepare`, from a data set to training and test rows.

Writes into --out: big_train/train_data.csv, big_test/test_data.csv, with --validation big_valid/valid_data.csv and
with --public big_public/public_data.csv (user,item,label, no header); users.csv and items.csv (with a header);
meta.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fl_rec.data.blocks import ahead
from fl_rec.data.catalogue import ITEMS, USERS, write_items, write_users
from fl_rec.data.ids import rows_of
from fl_rec.data.manifest import Manifest
from fl_rec.data.output import stage, writing
from fl_rec.data.partition import by_column, find_partitioner, require_column
from fl_rec.data.sampling import (
    TEST_NEGATIVES,
    Stream,
    TrainRows,
    adopt_test_positives,
    generator,
    hold_out_one,
    read_test_rows,
    sample_test_rows,
)
from fl_rec.data.shards import (
    SHARDS_NAME,
    add_cutting_arguments,
    check_seed,
    describe_shards,
    generate,
)
from fl_rec.data.sources.archive import table_file
from fl_rec.data.sources.base import Dataset, with_items, with_users
from fl_rec.data.sources.columns import NoColumn
from fl_rec.data.sources.movielens import read_movielens_users
from fl_rec.data.sources.registry import load_source, recognise
from fl_rec.data.sources.tables import Table
from fl_rec.data.sources.tabular import read_items, read_users, separator_of
from fl_rec.data.starter import JOB_NAME, write_starter
from fl_rec.data.text import LAYOUTS, write_rows
from fl_rec.errors import ConfigError, DataError
from fl_rec.files import write_json
from fl_rec.plugins import did_you_mean

log = logging.getLogger("prepare")


Blocks = Iterable[np.ndarray]


def hold_out(dataset: Dataset, source: str, seed: int) -> tuple[Dataset, np.ndarray]:
    """Take one random training item of each user out of the data set, as `hold_out_one` does.

    Returns the data set and the validation positives, int64 [k, 2] of (user, item). DataError if the source has
    training negatives already, or if nobody has two training items.
    """
    if dataset.train_rows is not None:
        raise DataError(
            "--validation holds out one training interaction of each user before training negatives are sampled, so "
            f"the source must leave them to fl-rec prepare. Received: {source} ({dataset.kind}), which has training "
            "rows of its own. Leave --validation out, or prepare the interactions themselves."
        )
    train, validation = hold_out_one(dataset.train, dataset.num_items, generator(seed, Stream.HOLD_OUT))
    if not len(validation):
        raise DataError(
            "--validation needs a user with at least two different training items. Received: "
            f"{source}, where all of {dataset.num_users} users have fewer. Leave --validation out."
        )
    return dataclasses.replace(dataset, train=train), validation


def make_rows(
    dataset: Dataset, validation: np.ndarray | None, num_neg: int, test_negative: Path | None, seed: int
) -> tuple[Blocks, np.ndarray, np.ndarray | None]:
    """Return training, test and validation rows, [rows, 3] each, sampling the negatives that are not given.

    Training rows come in blocks. What is held out for the test or the validation can be drawn as a training negative,
    and the test item as a validation negative: to leave it out would tell which item it is.
    """
    train: Blocks
    if dataset.train_rows is not None:
        log.info("this source comes with training negatives: its rows are kept, and --num_neg is not used")
        train = [dataset.train_rows]
    else:
        train = TrainRows(dataset.train, dataset.num_items, num_neg, seed)
    with stage("make the test set") as counts:
        if test_negative is not None:
            test = read_test_rows(test_negative, dataset.test, dataset.num_items)
        elif dataset.test_rows is not None:
            test = dataset.test_rows
        else:
            seen = [dataset.train] if validation is None else [dataset.train, validation]
            test = sample_test_rows(seen, dataset.test, dataset.num_items, generator(seed, Stream.TEST_NEGATIVES))
        counts.update({"users": len(dataset.test), "rows": len(test)})
    if validation is None:
        return train, test, None
    with stage("make the validation set") as counts:
        rng = generator(seed, Stream.VALIDATION_NEGATIVES)
        valid = sample_test_rows([dataset.train], validation, dataset.num_items, rng)
        counts.update({"users": len(validation), "rows": len(valid)})
    return train, test, valid


class Counted:
    """Blocks of rows, counted while they are gone through."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.rows = self.positives = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.rows += len(block)
            self.positives += int(block[:, 2].sum())
            yield block


def draw_public(rows: Sequence[np.ndarray], share: float, seed: int) -> np.ndarray:
    """Draw the users who agree to be public, and return all that they interacted with, int64 [n, 3], label 1.

    Only users with a row in ``rows`` can be drawn. DataError if the share comes to nobody, or leaves nobody.
    """
    known = np.unique(np.concatenate([each[:, 0] for each in rows]))
    count = round(share * len(known))
    if not 0 < count < len(known):
        raise DataError(
            f"--public must be a share that some of the {len(known)} users are, and not all. Received: {share:g}, "
            f"which comes to {count}. Choose another share."
        )
    users = generator(seed, Stream.PUBLIC_USERS).choice(known, count, replace=False)
    seen = np.unique(np.concatenate([each[each[:, 2] == 1, :2] for each in rows]), axis=0)
    seen = seen[np.isin(seen[:, 0], users)]
    return np.concatenate([seen, np.ones((len(seen), 1), np.int64)], axis=1)


def _count_ranked(kind: str, rows: np.ndarray) -> dict[str, int]:
    """Return the counts of test or validation rows for meta.json, and warn of users with few negatives."""
    negatives = np.bincount(rows[:, 0])[rows[rows[:, 2] == 1, 0]] - 1
    short = int((negatives < TEST_NEGATIVES).sum())
    if short:
        log.warning(
            "warning: %d of %d %s users have fewer than %d negatives (the smallest number is %d): all "
            "there are, but their ranks are not comparable with published ones",
            *(short, len(negatives), kind, TEST_NEGATIVES, negatives.min()),
        )
    return {
        f"{kind}_rows": len(rows),
        f"{kind}_users": len(negatives),
        f"{kind}_users_with_fewer_negatives": short,
    }


# What --columns may say of the interactions, and of the table of items.
_SOURCE_ROLES, _ITEM_ROLES = ("user", "item", "time", "value"), ("title", "tags")


def read_source(args: argparse.Namespace) -> Dataset:
    """Load the source, with the tables of users and items that are given."""
    columns = _columns(args.columns)
    options = {role: columns[role] for role in _SOURCE_ROLES if role in columns}
    for name in ("separator", "min_value", "min_interactions"):
        if getattr(args, name) is not None:
            options[name] = getattr(args, name)
    users = items = None
    in_table = recognise(Path(args.source)) == "tabular" or args.source.startswith("tabular:")
    if args.users is not None:
        table = Table(table_file(args.users), separator_of(args.separator or ""))
        users = read_movielens_users(args.users) or read_users(table, _of(table, columns))
    if args.items is not None:
        table = Table(table_file(args.items), separator_of(args.separator or ""))
        items = read_items(table, _of(table, columns), args.tag_separator)
    if args.client_column is not None and in_table and (users is None or args.client_column not in users.columns):
        options["client"] = args.client_column
    try:
        dataset = load_source(args.source, args.seed, options)
    except NoColumn as err:
        if users is not None and err.role == "client":
            require_column(args.client_column, (*users.columns, *err.has), "the table of users, or of interactions")
        raise
    if users is not None:
        dataset = with_users(dataset, users)
        _say_unknown(args.users, dataset.original_user, users.original_id, "users")
    if items is not None:
        dataset = with_items(dataset, items)
        _say_unknown(args.items, dataset.items.original_id, items.original_id, "items")
    return dataset


def _say_unknown(path: Path, ids: np.ndarray, known: np.ndarray, what: str) -> None:
    """Warn if a table lacks some of the ids. DataError if it has none of them: it is of other data."""
    lacking = np.flatnonzero(rows_of(ids, known) < 0)
    if len(lacking) == len(ids):
        raise DataError(
            f"A table of {what} must have {what} of the interactions. Received: {path}, with none of their {len(ids)}, "
            f"such as {ids[0]}. Say which column has their ids: --columns {what[:-1]}=NAME"
        )
    if len(lacking):
        example = ids[lacking[0]]
        log.warning("warning: %s lacks %d of %d %s, such as %s", path, len(lacking), len(ids), what, example)


def _of(table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    """Those of a table of users or items, which may call an id otherwise than the interactions do."""
    return {role: name for role, name in columns.items() if role in _ITEM_ROLES or name in table.first}


def _columns(text: str) -> dict[str, str]:
    """Columns by role. ConfigError if it is not written so, or there is no such role."""
    columns = {}
    for part in filter(None, text.split(",")):
        role, equals, column = (each.strip() for each in part.partition("="))
        if role not in (*_SOURCE_ROLES, *_ITEM_ROLES) or not (equals and column):
            raise ConfigError(
                f"--columns must be role=column,..., of the roles {', '.join((*_SOURCE_ROLES, *_ITEM_ROLES))}. "
                f"Received: {part!r}. {did_you_mean(role, (*_SOURCE_ROLES, *_ITEM_ROLES)) if equals else ''}".rstrip()
            )
        columns[role] = column
    return columns


class Made(NamedTuple):
    """A data set, and its rows as they are to be written; those of training are made meanwhile."""

    dataset: Dataset
    train: Blocks
    test: np.ndarray
    valid: np.ndarray | None
    public: np.ndarray | None


def make(args: argparse.Namespace) -> Made:
    """Do all but write what the command line asks for; FLRecError if it can't be done."""
    with stage(f"read {args.source}") as counts:
        dataset = read_source(args)
        if args.client_column is not None:
            require_column(args.client_column, dataset.user_columns)
        counts.update(
            {
                "users": dataset.num_users,
                "items": dataset.num_items,
                "positives": len(dataset.train) + len(dataset.test),
            }
        )
    if args.test_negative is not None and dataset.train_rows is None:
        positives = adopt_test_positives(args.test_negative, dataset.train, dataset.test)
        moved = {"test_positives_from_file": positives[2]}
        dataset = dataclasses.replace(dataset, train=positives[0], test=positives[1], notes={**dataset.notes, **moved})
        if positives[2]:
            log.info(
                "%d users' test positive is the one of %s, not the last line rated", positives[2], args.test_negative
            )
    validation = None
    if args.validation:
        dataset, validation = hold_out(dataset, args.source, args.seed)
    train, test, valid = make_rows(dataset, validation, args.num_neg, args.test_negative, args.seed)
    public = None
    if args.public:
        known = np.insert(dataset.train, 2, 1, axis=1) if dataset.train_rows is None else dataset.train_rows
        public = draw_public([known, test] if valid is None else [known, test, valid], args.public, args.seed)
        # Who is public is in no training row, and in no test figure.
        private = partial(_without, users=public[:, 0])
        train, test = map(private, train), private(test)
        if valid is not None:
            valid = private(valid)
    return Made(dataset, train, test, valid, public)


def describe(made: Made, train: Counted, args: argparse.Namespace) -> dict[str, Any]:
    """Return the content of meta.json."""
    dataset, public = made.dataset, made.public
    given = "sampled" if dataset.test_rows is None else "source"
    if args.test_negative is not None:
        given = args.test_negative.name
    return {
        "source": {"kind": dataset.kind, "name": Path(args.source).name},
        "partitioner": dataset.partitioner,
        "seed": args.seed,
        "num_neg": args.num_neg if dataset.train_rows is None else None,
        "test_negative": given,
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "train_rows": train.rows,
        "train_positives": train.positives,
        **_count_ranked("test", made.test),
        **({} if made.valid is None else _count_ranked("validation", made.valid)),
        **({} if public is None else {"public_users": len(np.unique(public[:, 0])), "public_positives": len(public)}),
        **dataset.notes,
    }


def write(args: argparse.Namespace, made: Made) -> None:
    """Write all files into --out. OSError."""
    written = Counted(ahead(made.train))
    with stage(f"write {args.out}") as counts:
        # meta.json vouches for the others: it goes first and comes last.
        valid_file = args.out / "big_valid" / "valid_data.csv"
        public_file = args.out / "big_public" / "public_data.csv"
        for stale in (args.out / "meta.json", valid_file, public_file):
            stale.unlink(missing_ok=True)
        write_rows(args.out / "big_train" / "train_data.csv", written, LAYOUTS["csv"])
        write_rows(args.out / "big_test" / "test_data.csv", made.test, LAYOUTS["csv"])
        if made.valid is not None:
            write_rows(valid_file, made.valid, LAYOUTS["csv"])
        if made.public is not None:
            write_rows(public_file, made.public, LAYOUTS["csv"])
        write_users(args.out / "users.csv", made.dataset)
        write_items(args.out / "items.csv", made.dataset.items)
        write_json(args.out / "meta.json", describe(made, written, args))
        counts["rows"] = written.rows + len(made.test) + (0 if made.valid is None else len(made.valid))


def _without(rows: np.ndarray, users: np.ndarray) -> np.ndarray:
    return rows[~np.isin(rows[:, 0], users)]


def _require_other_file(given: Path, out: Path) -> None:
    """What is read must not be written over. ConfigError."""
    for name in (USERS, ITEMS):
        if given.exists() and (out / name).exists() and given.samefile(out / name):
            raise ConfigError(
                f"What is read must not be written over. Received: {given}, and --out {out}, where {name} is written. "
                "Name another folder: --out DIR"
            )


def add_arguments(parser: argparse.ArgumentParser, folder: Path = Path()) -> None:
    """Adds the arguments of `fl-rec prepare`; `folder` is where it writes unless told."""
    parser.add_argument(
        "--source",
        required=True,
        help="'synthetic'; a table of interactions (CSV, TSV, JSON lines, Parquet; plain, .gz or .zip); the archive of "
        "a MovieLens data set or its folder; a folder with RecBole's or PaddleRec's files; a folder with, or the path "
        "prefix of, the NCF paper's files; or module:function or file.py:function; options after a colon: "
        "synthetic:num_users=1000,positives=50000",
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="ROLE=COLUMN,...",
        help="user, item, time and value of the table, title and tags of --items, by their names in the header, or, "
        "where there is none, by number from 1 (default: guessed from the header)",
    )
    parser.add_argument("--separator", help="between a table's columns, 'tab' too (default: found in its first line)")
    parser.add_argument("--min_value", metavar="X", help="interactions of a lower value are left out")
    parser.add_argument(
        "--min_interactions", metavar="N", help="users with fewer different items, after --min_value, are left out"
    )
    parser.add_argument("--out", type=Path, default=folder, help="folder to write into (default: %(default)s)")
    parser.add_argument(
        "--num_neg",
        type=int,
        default=4,
        help="negatives per training positive; 0: runner.resample_negatives draws them (default: 4)",
    )
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
    parser.add_argument("--users", type=Path, help="table of users with a header: an id, and columns of any names")
    parser.add_argument(
        "--items", type=Path, help="table of items with a header: an id, and if there are, title and tags"
    )
    parser.add_argument(
        "--tag_separator", default="", metavar="X", help="between an item's tags (default: | or ; or , as found)"
    )
    parser.add_argument("--seed", type=int, default=2022, help="(default: %(default)s)")
    shards = parser.add_argument_group(
        "shards", f"Any of these cuts the rows too, into OUT/{SHARDS_NAME}, and writes OUT/{JOB_NAME} to start from."
    )
    shards.add_argument(
        "--client_column",
        metavar="NAME",
        help="column of the table of users, or of interactions, whose values are the clients, such as region; as "
        "by_column:column=NAME",
    )
    add_cutting_arguments(shards)


def command(args: argparse.Namespace) -> int:
    """Plays `fl-rec prepare`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    manifest = play(args)
    if manifest is not None:
        job = args.out / JOB_NAME
        print(f"{describe_shards(manifest)}\njob: {job}\nnext: fl-rec run -m {shlex.quote(str(job))}")
    return 0


def play(args: argparse.Namespace) -> Manifest | None:
    """Makes rows and writes them, and cuts them into shards if the arguments, which are yet to be checked, say how.

    What is logged is the caller's affair. Returns the shards' manifest; None without shards.
    """
    check_seed(args.seed)
    if not 0 <= args.public < 1:
        raise ConfigError(f"--public must be 0 or more, and below 1. Received: {args.public}")
    if args.client_column is not None and args.partitioner is not None:
        raise ConfigError(
            f"--client_column is the partitioner by_column. Received: --partitioner {args.partitioner} beside it. "
            "Leave one out."
        )
    partitioner = args.partitioner
    if args.client_column is not None:
        partitioner = f"{by_column.__name__}:column={args.client_column}"
    if partitioner is not None:
        find_partitioner(partitioner)  # before the work
    for given in filter(None, (args.source, args.users, args.items)):
        _require_other_file(Path(given), args.out)
    made = make(args)
    with writing(args.out):
        write(args, made)
        del made  # shards take as much memory again
        if partitioner is None and args.num_shards is None:
            return None
        manifest = generate(args.out, args.out / SHARDS_NAME, args.num_shards, partitioner, "multislot", args.seed)
        job = args.out / JOB_NAME
        if not write_starter(job, Path(SHARDS_NAME), args.validation):
            log.info("%s is kept as it was", job)
    return manifest
