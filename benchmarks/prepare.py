"""How long `fl-rec prepare` takes, and in how much memory, to make shards of a data set as large as MovieLens 32M.

python benchmarks/prepare.py

The file is made for it, in MovieLens 32M's layout: as many users, films and ratings, users and films as unlike in
number as those of such data are. It is prepared with four negatives for each rating, and with none
(`--num_neg 0`: runner.resample_negatives draws them in each epoch), and cut into ten shards. 10 GB of free disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from common import GIB, PROJECT, Report, count, new_parser, run_benchmark, say, titled_table
from usage import run_watched

from fl_rec.data.text import Layout, write_rows
from fl_rec.job.watch import Mark

USERS, ITEMS, RATINGS, LEAST = 200_948, 87_585, 32_000_000, 20
GENRES = ["Action", "Comedy", "Drama", "Thriller", "Documentary", "Romance"]
FIRST_TIME, SECONDS = 789_652_009, 900_000_000
NEGATIVES = (4, 0)
SHARDS = 10
# user, film, stars, and a time in two parts, whose texts are looked up.
RATING = Layout(("{},", "{},", "{}.0,", "{}", "{:05}\n"), ".csv")


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """Makes the file, and prepares it once for each number of negatives."""
    start = time.perf_counter()
    source = folder / "ml-32m"
    ratings = make_source(source, args.users, args.items, args.ratings)
    say(f"made {source} in {time.perf_counter() - start:.0f} s")
    lines, figures, failures = [], [], []
    for number in NEGATIVES:
        found, said = prepare(source, folder / "out", number, args.timeout)
        shutil.rmtree(folder / "out", ignore_errors=True)
        if found["exit_code"] != 0:
            failures.append(f"--num_neg {number} ended with {found['exit_code']}: {said[-600:]}")
        figures.append(found)
        lines.append([str(number), f"{found['seconds']:.1f}", f"{found['peak_bytes'] / GIB:.2f}"])
    title = f"{ratings:,} ratings of {args.users:,} users and {args.items:,} films, from CSV to {SHARDS} shards"
    sizes = {"users": args.users, "items": args.items, "ratings": ratings}
    table = titled_table(title, ["negatives", "seconds", "peak GiB"], lines)
    return Report(table, {**sizes, "measured": figures}, failures)


def prepare(source: Path, out: Path, negatives: int, timeout: float) -> tuple[dict[str, Any], str]:
    """What one preparation took, and what it said."""
    command = [sys.executable, "-m", "fl_rec.cli", "prepare", "--source", str(source), "--out", str(out)]
    command += ["--num_neg", str(negatives), "--num_shards", str(SHARDS), "--partitioner", "iid"]
    mark = Mark("FL_REC_BENCHMARK", uuid.uuid4().hex)
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    start = time.perf_counter()
    code, said, usage = run_watched(command, {"PYTHONPATH": path}, mark, timeout, lambda: None)
    say(said)
    seconds = time.perf_counter() - start
    return {"negatives": negatives, "seconds": seconds, "peak_bytes": usage.peak_pss, "exit_code": code}, said


def make_source(folder: Path, users: int, items: int, ratings: int) -> int:
    """Writes ratings.csv and movies.csv; returns how many ratings there are, so many or, of few films, fewer."""
    rng = np.random.default_rng(32)
    activity = rng.lognormal(0, 1.4, users)
    # Of a user's draws those of the same film are one rating: some more are drawn.
    draws = (LEAST + activity / activity.sum() * 1.35 * (ratings - LEAST * users)).astype(np.int64)
    popularity = np.cumsum(1 / np.arange(20, items + 20) ** 1.05)
    user = np.repeat(np.arange(users, dtype=np.int64), draws)
    film = np.searchsorted(popularity, rng.random(len(user), np.float32) * popularity[-1]).clip(max=items - 1)
    pairs = np.unique(user * items + film)
    pairs = pairs[np.sort(rng.permutation(len(pairs))[:ratings])]
    user, film = np.divmod(pairs, items)
    stamp = FIRST_TIME + np.sort(rng.integers(0, SECONDS, len(user)))
    columns = (user + 1, 3 * film + 1, rng.integers(1, 6, len(user)), *np.divmod(stamp, 100_000))
    folder.mkdir()
    write_rows(folder / "rows", np.stack(columns, axis=1).astype(np.int32), RATING)
    with open(folder / "ratings.csv", "wb") as file, open(folder / "rows", "rb") as rows:
        file.write(b"userId,movieId,rating,timestamp\n")
        shutil.copyfileobj(rows, file, 1 << 20)
    (folder / "rows").unlink()
    with open(folder / "movies.csv", "w", encoding="utf-8") as file:
        file.write("movieId,title,genres\n")
        for number in range(items):
            genres = "|".join({GENRES[number % 6], GENRES[number % 5]})
            file.write(f'{3 * number + 1},"Film, The {number} (1999)",{genres}\n')
    return len(user)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--users", type=count, default=USERS, help="(default: %(default)s)")
    parser.add_argument("--items", type=count, default=ITEMS, help="(default: %(default)s)")
    parser.add_argument("--ratings", type=count, default=RATINGS, help="(default: %(default)s)")
    parser.add_argument("--timeout", type=count, default=1800, help="seconds for a preparation (default: %(default)s)")
    sys.exit(run_benchmark(parser, {"users": 600, "items": 400, "ratings": 30_000, "timeout": 120}, measure))
