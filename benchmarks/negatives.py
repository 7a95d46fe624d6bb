"""What drawing the negatives anew every epoch costs: seconds of an epoch beside those of the shards' own negatives.

python benchmarks/negatives.py --data datasets/movielens/fl_data

fixed    the shards' rows as they are, one item each
fresh    as many rows of one item each, with negatives that each worker draws before every epoch
grouped  the same draws, a positive and its negatives in one row; runner.train_batch_size then counts groups

The three are run in turn, every other time in the opposite order, since a machine's speed drifts. The net is that of
configs/config_fl.yaml, and the seconds of an epoch are its slowest worker's, with the drawing and without evaluation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from common import (
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

from fl_rec.data.manifest import Manifest
from fl_rec.errors import DataError
from fl_rec.tables import figure


def plan(data: Manifest) -> dict[str, dict[str, Any]]:
    """What each kind of job changes in the configuration. DataError if the shards have no negatives to compare with."""
    negatives = data.source.get("num_neg")
    if negatives is None or data.group_size != 1:
        raise DataError(
            "--data must hold rows of one item each, with negatives that prepare.py has drawn. Received: "
            f"num_neg={negatives}, group_size={data.group_size} in {data.folder}. Take a source without training "
            "negatives, such as ml-1m.zip, and leave gen_heter_data.py's --group out."
        )
    fresh = {"runner.resample_negatives": negatives}
    return {"fixed": {}, "fresh": {**fresh, "hyper_parameters.group_size": 1}, "grouped": fresh}


def epoch_seconds(run: JobRun) -> float | None:
    """Of the median epoch."""
    return median(epoch["seconds"] for epoch in run.epochs)


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All pairs, or those before the first failure: a ratio needs both halves."""
    data = open_data(args.data, folder)
    kinds = plan(data)
    runs: dict[str, list[JobRun]] = {kind: [] for kind in kinds}
    failures: list[str] = []
    orders = [list(kinds) if pair % 2 else list(kinds)[::-1] for pair in range(1, args.pairs + 1)]
    for pair, kind in ((pair, kind) for pair, order in enumerate(orders, 1) for kind in order):
        keys = {"runner.epochs": args.epochs, **kinds[kind]}
        run = run_job(folder / f"{kind}-{pair}", data, keys, args.timeout)
        runs[kind].append(run)
        say(f"pair      {pair} of {args.pairs}, {kind}: {run.failure or 'well'} ({run.seconds:.1f} s)")
        if run.failure:
            failures.append(run.failure)
            break
    if not failures:
        failures += _unlike(runs, 1 + data.source["num_neg"])
    ratios = {
        kind: [ratio(epoch_seconds(run), epoch_seconds(fixed)) for run, fixed in zip(runs[kind], runs["fixed"])]
        for kind in kinds
        if kind != "fixed"
    }
    figures = {
        **describe_data(data),
        "negatives": data.source["num_neg"],
        "epochs": args.epochs,
        "pairs": args.pairs,
        "seconds": {kind: median(map(epoch_seconds, of_kind)) for kind, of_kind in runs.items()},
        "pair_ratios": ratios,
        "ratio": {kind: median(of_kind) for kind, of_kind in ratios.items()},
        "runs": {kind: [run.to_record() for run in of_kind] for kind, of_kind in runs.items()},
    }
    return Report(_show(runs, figures), figures, failures)


def _unlike(runs: dict[str, list[JobRun]], group_size: int) -> list[str]:
    """A message if the jobs have not trained as many items as each other."""
    items = {
        kind: {epoch["rows"] * (group_size if kind == "grouped" else 1) for run in of_kind for epoch in run.epochs}
        for kind, of_kind in runs.items()
    }
    if len(set.union(*items.values())) == 1:
        return []
    received = "; ".join(f"{kind} {sorted(counts)}" for kind, counts in items.items())
    return [f"Jobs can be compared only if all epochs train as many items. Received: {received}."]


def _show(runs: dict[str, list[JobRun]], figures: dict[str, Any]) -> str:
    lines = [
        [
            str(pair),
            kind,
            figure(epoch_seconds(run), ".2f"),
            figure(median(epoch["rows"] for epoch in run.epochs), ",.0f"),
            figure(run.rows_per_second(), ",.0f"),
            figure(run.seconds, ".1f"),
        ]
        for kind, of_kind in runs.items()
        for pair, run in enumerate(of_kind, 1)
    ]
    table = titled_table(
        "{source}: {train_rows:,} training rows, {negatives} negatives of a positive, {workers} workers, {epochs} "
        "epochs".format(**figures),
        ["pair", "negatives", "seconds/epoch", "rows/epoch", "rows/s", "seconds"],
        sorted(lines, key=lambda line: int(line[0])),
    )
    sentences = [
        f"{kind} takes {figure(figures['ratio'][kind], '.2f')} times as long as fixed "
        f"(median of the pairs: {', '.join(figure(each, '.2f') for each in of_kind) or '-'})"
        for kind, of_kind in figures["pair_ratios"].items()
    ]
    return "\n".join([table, "", *sentences])


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    parser.add_argument("--pairs", type=count, default=3, metavar="N", help="runs of each (default: 3; --quick: 1)")
    parser.add_argument("--epochs", type=count, default=2, metavar="N", help="of each run (default: 2)")
    parser.add_argument(
        "--timeout", type=count, default=900, metavar="S", help="seconds until a run has hung (default: 900)"
    )
    return run_benchmark(parser, {"data": None, "pairs": 1}, measure)


if __name__ == "__main__":
    sys.exit(main())
