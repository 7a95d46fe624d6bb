"""Compares shards in MultiSlot text with the same rows read through a Python reader that imports Paddle.

python benchmarks/throughput.py --data datasets/movielens/fl_data

The two are run in turn, since a machine's speed drifts. Both train the same rows in the same order.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from common import (
    CONFIG,
    GIB,
    JobRun,
    Report,
    add_data_argument,
    count,
    describe_data,
    median,
    new_parser,
    open_data,
    ratio,
    run_benchmark,
    run_job,
    say,
    titled_table,
)

from fl_rec.data.manifest import MANIFEST_NAME, Manifest, Shard, ShardFile
from fl_rec.data.text import LAYOUTS, parse_multislot, write_rows
from fl_rec.errors import DataError
from fl_rec.files import write_json
from fl_rec.tables import figure

READER = Path(__file__).resolve().with_name("paddle_reader.py")
PIPE_COMMANDS = {"multislot": "cat", "csv": f"python {os.path.relpath(READER, CONFIG.parent)}"}


def to_csv(data: Manifest, out: Path) -> Manifest:
    """Writes MultiSlot shards as CSV: the same rows in the same order, and a manifest that vouches for them."""

    def convert(file: ShardFile) -> ShardFile:
        text = (data.folder / file.file).read_bytes()
        rows = np.hstack(parse_multislot(text, len(data.slots), file.file))
        name = str(PurePosixPath(file.file).with_suffix(LAYOUTS["csv"].suffix))
        size, sha256 = write_rows(out / name, rows, LAYOUTS["csv"])
        return dataclasses.replace(file, file=name, bytes=size, sha256=sha256)

    shards = tuple(Shard(convert(shard.train), convert(shard.test)) for shard in data.shards)
    converted = dataclasses.replace(data, format="csv", shards=shards, folder=out)
    write_json(out / MANIFEST_NAME, converted.to_json())
    return converted


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All pairs, or those before the first failure: a ratio needs both halves."""
    multislot = open_data(args.data, folder)
    if multislot.format != "multislot":
        raise DataError(
            f"--data must hold MultiSlot shards, which are compared with CSV. Received: {multislot.format} in "
            f"{multislot.folder}. Write them with gen_heter_data.py --format multislot."
        )
    say("data      the same rows as CSV")
    data = {"multislot": multislot, "csv": to_csv(multislot, folder / "csv")}
    runs: dict[str, list[JobRun]] = {kind: [] for kind in data}
    failures: list[str] = []
    for pair, kind in ((pair, kind) for pair in range(1, args.pairs + 1) for kind in data):
        keys = {"runner.epochs": args.epochs, "runner.pipe_command": PIPE_COMMANDS[kind]}
        run = run_job(folder / f"{kind}-{pair}", data[kind], keys, args.timeout)
        runs[kind].append(run)
        say(f"pair      {pair} of {args.pairs}, {kind}: {run.failure or 'well'} ({run.seconds:.1f} s)")
        if run.failure:
            failures.append(run.failure)
            break
    figures = {
        **describe_data(multislot),
        "epochs": args.epochs,
        "pairs": args.pairs,
        "pair_ratios": [ratio(*map(JobRun.rows_per_second, pair)) for pair in zip(*runs.values())],
        **{kind: summarise(of_kind) for kind, of_kind in runs.items()},
    }
    figures["ratio"] = ratio(*(figures[kind]["rows_per_second"] for kind in data))
    return Report(_show(runs, figures), figures, failures)


def summarise(runs: Sequence[JobRun]) -> dict[str, Any]:
    """Medians over the runs of one kind, and the worst memory."""
    return {
        "rows_per_second": median(run.rows_per_second() for run in runs),
        "rows_per_second_fastest_epoch": median(run.rows_per_second(max) for run in runs),
        "running_after": median(run.running_after for run in runs),
        "peak_pss": max((run.peak_pss for run in runs), default=None),
        "runs": [run.to_record() for run in runs],
    }


def _show(runs: dict[str, list[JobRun]], figures: dict[str, Any]) -> str:
    lines = [
        [
            str(pair),
            kind,
            figure(run.rows_per_second(), ",.0f"),
            figure(run.rows_per_second(max), ",.0f"),
            figure(run.running_after, ".1f"),
            figure(run.peak_pss / GIB, ".2f"),
            figure(run.seconds, ".1f"),
        ]
        for kind, of_kind in runs.items()
        for pair, run in enumerate(of_kind, 1)
    ]
    table = titled_table(
        "{source}: {train_rows:,} training rows, {workers} workers, {epochs} epochs".format(**figures),
        ["pair", "shards", "rows/s, median epoch", "fastest", "all running after s", "peak PSS GiB", "seconds"],
        sorted(lines, key=lambda line: int(line[0])),
    )
    ratios = ", ".join(figure(each, ".2f") for each in figures["pair_ratios"]) or "-"
    summary = f"MultiSlot is {figure(figures['ratio'], '.2f')} times as fast (ratio of medians; of each pair: {ratios})"
    return f"{table}\n\n{summary}"


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    parser.add_argument("--pairs", type=count, default=3, metavar="N", help="runs of each (default: 3; --quick: 1)")
    parser.add_argument("--epochs", type=count, default=3, metavar="N", help="of each run (default: 3; --quick: 2)")
    parser.add_argument(
        "--timeout", type=count, default=900, metavar="S", help="seconds until a run has hung (default: 900)"
    )
    return run_benchmark(parser, {"data": None, "pairs": 1, "epochs": 2}, measure)


if __name__ == "__main__":
    sys.exit(main())
