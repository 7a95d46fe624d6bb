"""Launches one small job many times in a row, and counts how often that ends well.

python benchmarks/launch_soak.py --launches 20 --workers 10 --servers 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import (
    JobRun,
    Report,
    count,
    median,
    new_parser,
    open_data,
    run_benchmark,
    run_job,
    say,
    titled_table,
)

from fl_rec.tables import figure


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All launches, the next one also after a failed one."""
    data = open_data(None, folder, args.workers)
    runs = []
    for number in range(1, args.launches + 1):
        run = run_job(folder / f"launch-{number}", data, {"runner.epochs": 1}, args.timeout, args.servers)
        say(f"launch    {number} of {args.launches}: {run.failure or 'well'} ({run.seconds:.1f} s)")
        runs.append(run)
    figures = {"workers": args.workers, "servers": args.servers, "launches": len(runs), **summarise(runs)}
    lines = [
        [
            str(number),
            "hung" if run.hung else str(run.exit_code),
            figure(run.seconds, ".1f"),
            figure(run.running_after, ".1f"),
            str(len(run.leftovers)),
        ]
        for number, run in enumerate(runs, 1)
    ]
    table = titled_table(
        f"{args.workers} workers, {args.servers} server(s)",
        ["launch", "exit", "seconds", "all running after s", "processes left"],
        lines,
    )
    summary = (
        "{ended_well} of {launches} ended well, {hung} hung; "
        "seconds: median {seconds_median:.1f}, longest {seconds_max:.1f}"
    ).format(**figures)
    failures = [run.failure for run in runs if run.failure]
    return Report(f"{table}\n\n{summary}", {**figures, "runs": [run.to_record() for run in runs]}, failures)


def summarise(runs: Sequence[JobRun]) -> dict[str, Any]:
    """Counts, and the seconds of all launches, hung ones among them."""
    return {
        "ended_well": sum(run.failure is None for run in runs),
        "hung": sum(run.hung for run in runs),
        "processes_left": sum(len(run.leftovers) for run in runs),
        "seconds_median": median(run.seconds for run in runs),
        "seconds_max": max(run.seconds for run in runs),
        "running_after_median": median(run.running_after for run in runs),
    }


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--launches", type=count, default=20, metavar="N", help="(default: 20; --quick: 2)")
    parser.add_argument("--workers", type=count, default=10, metavar="N", help="(default: 10; --quick: 3)")
    parser.add_argument("--servers", type=count, default=1, metavar="N", help="(default: 1)")
    parser.add_argument(
        "--timeout", type=count, default=120, metavar="S", help="seconds until a launch has hung (default: 120)"
    )
    return run_benchmark(parser, {"launches": 2, "workers": 3}, measure)


if __name__ == "__main__":
    sys.exit(main())
