"""How long one user's recommendations take on one core: an exported model, all items ranked, what was seen left out.

python benchmarks/recommend.py --model runs/NAME/exported

Each call is for another user, as `Recommender.recommend` is called. The time of the clock is what a caller waits; that
of the processor is what other jobs of a busy machine do not lengthen.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import PROJECT, Report, count, new_parser, open_data, run_benchmark, run_job, say, titled_table

from fl_rec.errors import RunError
from fl_rec.runs.saved import EXPORTED, SavedModel, newest_export
from fl_rec.serving.recommend import Recommender, export_newest

WARM_UP = 50
# Read when Paddle is imported.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """Opens the model once, and asks it for one user after another."""
    trained = train(folder, args.timeout) if args.quick and args.model is None else None
    model: Path = args.model or trained or newest_export() or export_newest(Path())
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        start = time.perf_counter()
        recommender = Recommender(model)
        opened = time.perf_counter() - start
        times = ask(recommender, args.users, args.top)
    finally:
        os.sched_setaffinity(0, cores)
    catalogue = recommender.catalogue
    clocks = {"clock": times[:, 0], "processor": times[:, 1]}
    figures: dict[str, Any] = {
        "run": SavedModel.open(model).signature["run"],
        "users": len(catalogue.users),
        "items": len(catalogue.items.title),
        "asked": args.users,
        "top": args.top,
        "open_seconds": opened,
        **{
            f"{clock}_ms": {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}
            for clock, values in clocks.items()
        },
    }
    lines = [[clock, *(f"{figures[f'{clock}_ms'][each]:.2f}" for each in ("median", "p99"))] for clock in clocks]
    title = (
        "{items:,} items ranked for one of {users:,} users, {asked:,} times on one core; opened in "
        "{open_seconds:.1f} s with Paddle's import".format(**figures)
    )
    return Report(titled_table(title, ["time", "median ms", "p99 ms"], lines), figures, [])


def ask(recommender: Recommender, times: int, top: int) -> np.ndarray:
    """Milliseconds of each call by the clock and by the processor, float64 [times, 2]."""
    users = recommender.catalogue.original_users
    drawn = np.random.default_rng(0).choice(users, WARM_UP + times).tolist()
    return np.array(list(_calls(recommender, drawn, top)))[WARM_UP:]


def _calls(recommender: Recommender, users: list[int], top: int) -> Iterator[tuple[float, float]]:
    for user in users:
        clock, processor = time.perf_counter(), time.process_time()
        recommender.recommend(user, top)
        yield 1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)


def train(folder: Path, timeout: float) -> Path:
    """A model of one epoch on built-in data."""
    job = run_job(folder / "job", open_data(None, folder), {"runner.epochs": 1}, timeout)
    say(f"model     {job.failure or 'trained'} ({job.seconds:.1f} s)")
    if job.failure:
        raise RunError(f"--quick needs a model of its own. {job.failure}")
    # In a process of its own, since Paddle is not imported here yet.
    command = [sys.executable, "-m", "fl_rec.cli", "export", str(folder / "job")]
    subprocess.run(command, cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)
    return folder / "job" / EXPORTED


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="an exported model (default: the newest of runs/*/exported; --quick: one made now)",
    )
    parser.add_argument("--users", type=count, default=2000, metavar="N", help="(default: 2000; --quick: 200)")
    parser.add_argument("--top", type=count, default=10, metavar="N", help="(default: 10)")
    parser.add_argument(
        "--timeout", type=count, default=600, metavar="S", help="seconds until --quick's job has hung (default: 600)"
    )
    return run_benchmark(parser, {"users": 200}, measure)


if __name__ == "__main__":
    sys.exit(main())
