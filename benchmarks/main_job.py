"""Runs the main job, configs/config_fl.yaml, once: does it end well, how long does it take, how good is the model?

python benchmarks/main_job.py --data datasets/movielens/fl_data --epochs 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import (
    GIB,
    JobRun,
    Report,
    add_data_argument,
    count,
    describe_data,
    new_parser,
    open_data,
    run_benchmark,
    run_job,
    titled_table,
)

from fl_rec.tables import figure

# Column, figure of an epoch's record, format.
COLUMNS = (
    ("rows", "rows", ",d"),
    ("seconds", "seconds", ".1f"),
    ("rows/s", "rows_per_second", ",.0f"),
    ("train loss", "train_loss", ".4f"),
    ("train AUC", "train_auc", ".4f"),
    ("test AUC", "test_auc", ".4f"),
    ("users", "test_users", ",d"),
    ("HR@{top_k}", "hr", ".4f"),
    ("NDCG@{top_k}", "ndcg", ".4f"),
)


def not_training(run: JobRun, models: Path) -> float | None:
    """The share of an epoch in which not even the slowest worker trains: what is left of the time between the first
    epoch's model and the last one's is the last exchange, evaluation, saving and reports. None with fewer than two.

    Args:
        models: where the epochs' folders are.
    """
    if len(run.epochs) < 2:
        return None
    first, *later = run.epochs
    written = [(models / str(epoch["epoch"])).stat().st_mtime for epoch in (first, later[-1])]
    return float(1 - sum(epoch["seconds"] for epoch in later) / (written[1] - written[0]))


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """One job; the figures of its last epoch are those of the model it saves."""
    data = open_data(args.data, folder)
    path = folder / "main_job"
    run = run_job(path, data, {"runner.epochs": args.epochs}, args.timeout, show=True)
    last: Mapping[str, Any] = run.epochs[-1] if run.epochs else {}
    figures = {
        **describe_data(data),
        **run.to_record(),
        "rows_per_second": run.rows_per_second(),
        "not_training": not_training(run, path / "model"),
        **{name: last.get(name) for name in ("top_k", "hr", "ndcg", "test_auc", "train_auc", "train_loss", "rows")},
    }
    lines = [
        [str(record["epoch"]), *(figure(record[name], spec) for _, name, spec in COLUMNS)] for record in run.epochs
    ]
    table = titled_table(
        "{source}: {train_rows:,} training rows, {workers} workers".format(**figures),
        ["epoch", *(title.format(top_k=last.get("top_k")) for title, _, _ in COLUMNS)],
        lines,
    )
    summary = (
        f"exit code {'none, it hung' if run.hung else run.exit_code} after {run.seconds:.1f} s; "
        f"all running after {figure(run.running_after, '.1f')} s; peak PSS {run.peak_pss / GIB:.2f} GiB; "
        f"{figure(figures['not_training'], '.1%')} of an epoch is not training"
    )
    return Report(f"{table}\n\n{summary}", figures, [run.failure] if run.failure else [])


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    parser.add_argument("--epochs", type=count, default=2, metavar="N", help="(default: 2)")
    parser.add_argument(
        "--timeout", type=count, default=3600, metavar="S", help="seconds until it has hung (default: 3600)"
    )
    return run_benchmark(parser, {"data": None}, measure)


if __name__ == "__main__":
    sys.exit(main())
