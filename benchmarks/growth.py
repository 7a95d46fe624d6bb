"""How the cost of a job grows with its workers, servers, users, items and exchanges, and a model that predicts it.

python benchmarks/growth.py --record growth.jsonl --page docs/scaling.md docs/scaling.zh.md

Each point is a job of its own, on synthetic shards made for it. Some points are only for checking: the model is fitted
to the others. What would not fit into memory is skipped, with the reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from common import (
    GIB,
    Report,
    count,
    new_parser,
    run_benchmark,
    run_job,
    say,
    titled_table,
)
from growth_data import make_shards
from growth_model import BATCH, Model, Point, cluster_seconds, fit, short

from fl_rec.errors import DataError, RunError
from fl_rec.tables import figure

SCRIPT = Path(__file__).resolve().with_name("growth_trainer.py")
EPOCHS = 2
TEST_USERS = 100
MIB = 1 << 20
# For what is skipped: bytes of a worker, of a server, and of each row's byte that they hold, about.
WORKER, SERVER = 330 * MIB, 330 * MIB
WORKER_BYTE, SERVER_BYTE = 7, 6


def sweep(values: Mapping[str, Sequence[Any]], checks: Sequence[Any] = (), **fixed: Any) -> list[Point]:
    """A point for each value of one attribute; those of `checks` are not fitted."""
    ((name, each),) = values.items()
    return [Point(**{**fixed, name: value}, checks=value in checks) for value in each]


FULL = (
    *sweep({"workers": (1, 2, 4, 10, 20, 40)}, checks=(20,)),
    *sweep({"workers": (1, 2, 4, 10, 20, 40)}, checks=(20,), exchanges=5),
    *sweep({"geo_step": (10, 1000)}, rows=100_000, workers=4),
    *sweep({"exchanges": (1, 10, 20)}, checks=(10,)),
    *sweep({"servers": (1, 2, 4)}, checks=(2,), items=100_000, exchanges=5),
    *sweep({"items": (100_000, 300_000, 1_000_000)}, checks=(300_000,), workers=2),
    *sweep({"items": (30_000, 300_000, 1_000_000)}, checks=(300_000,), exchanges=2, workers=2),
    *sweep({"exchanges": (0, 2)}, items=300_000, width=8, workers=2),
    *sweep({"users": (200_000, 500_000, 1_000_000)}, checks=(500_000,), exchanges=1, rows=250_000),
    Point(users=10_000_000, rows=1_000_000, workers=10, exchanges=1, checks=True),
    *sweep({"width": (8, 32)}, items=10_000_000, servers=2, workers=1, exchanges=1, checks=(8, 32)),
)
QUICK = (
    Point(workers=1, rows=20_000),
    Point(workers=2, rows=20_000, exchanges=2),
    Point(workers=2, servers=2, rows=20_000, items=50_000, users=100_000, exchanges=5),
    Point(workers=3, rows=20_000, items=20_000, exchanges=3, checks=True),
)
# The quantities that are compared, with their factor, unit and format.
COMPARED = {
    "seconds": (1, "s", ".2f"),
    "worker_cpu": (1, "CPU s", ".2f"),
    "server_cpu": (1, "CPU s", ".2f"),
    "sent": (1 / MIB, "MiB", ",.1f"),
    "received": (1 / MIB, "MiB", ",.1f"),
    "worker_memory": (1 / MIB, "MiB", ",.0f"),
    "server_memory": (1 / MIB, "MiB", ",.0f"),
    "start": (1, "s", ".1f"),
    "gather": (1000, "ms", ".1f"),
}
# A cluster whose workers have a core each, and its servers 8, 10 Gbit/s and 0.1 ms.
SERVER_CORES, BANDWIDTH, LATENCY = 8, 1.25e9, 1e-4
CLUSTERS = tuple(
    Point(workers=workers, servers=servers, items=items, users=1000 * workers, rows=200_000, exchanges=exchanges)
    for exchanges in (0, 5)
    for items, servers in ((4_000, 1), (1_000_000, 1), (1_000_000, 4))
    for workers in (10, 100, 1000)
)
PAGE = re.compile(r"(?<=<!-- measured -->\n).*(?=<!-- end -->)", re.DOTALL)


# --- Measuring -------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All points, or those that there is memory and time for."""
    record, over = Record(args.record), time.monotonic() + args.budget
    points = QUICK if args.quick else FULL
    measured: list[tuple[Point, Mapping[str, float]]] = []
    skipped: dict[Point, str] = {}
    failures: list[str] = []
    for number, point in enumerate(points, 1):
        found: Mapping[str, float] | str | None = record.find(point) or why_not(
            point, psutil.virtual_memory().available, over - time.monotonic()
        )
        if found is None:
            try:
                found = run_point(point, folder, args.timeout)
                record.add(point, found)
            except RunError as err:
                found = str(err)
                failures.append(f"{point}: {err}")
        if isinstance(found, str):
            skipped[point] = found
        else:
            measured.append((point, found))
        say(f"point     {number} of {len(points)}, {point}: {found if isinstance(found, str) else 'measured'}")
    model = fit(measured, len(os.sched_getaffinity(0))) if measured else None
    text = show(measured, skipped, model)
    for page in args.page:
        write_page(page, text)
    return Report(
        text,
        {
            "points": [{**dataclasses.asdict(point), **figures} for point, figures in measured],
            "skipped": {str(point): why for point, why in skipped.items()},
            "model": {"/".join(filter(None, key)): of for key, of in model.coefficients.items()} if model else {},
            "worst_ratio": worst_ratio(measured, model) if model else {},
        },
        failures,
    )


def why_not(point: Point, memory: float, seconds: float) -> str | None:
    """Why a point is skipped, if it is, with so much memory that is free and so many seconds that are left."""
    row = 4 * point.width
    workers = point.workers * (WORKER + (point.items + point.users / point.workers) * row * WORKER_BYTE)
    needed = workers + point.servers * SERVER + point.items * row * SERVER_BYTE
    if needed > memory:
        return f"skipped: it may need {needed / GIB:.1f} GiB, and {memory / GIB:.1f} are free"
    if seconds < 0:
        return "skipped: --budget is spent"
    return None


def run_point(point: Point, folder: Path, timeout: float) -> dict[str, float]:
    """Runs a job, and gives its figures.

    Raises:
        RunError: it did not end well.
    """
    data = make_shards(folder / "data", point.workers, point.users, point.items, point.rows, TEST_USERS, seed=2022)
    path = folder / "run"
    keys = {
        "runner.epochs": EPOCHS,
        "runner.geo_step": point.geo_step,
        "runner.exchanges_per_epoch": point.exchanges,
        "runner.train_batch_size": BATCH,
        "runner.start_timeout": timeout,
        "runner.on_divergence": "warn",  # a net that collapses is a finding
        "hyper_parameters.mode": "NCF_MLP",
        "hyper_parameters.fc_layers": [2 * point.width, 32, 16, 8],
        "hyper_parameters.optimizer.class": "adam",
        "hyper_parameters.optimizer.learning_rate": 0.001,
    }
    try:
        job = run_job(path, data, keys, timeout, servers=point.servers, script=SCRIPT)
        if job.failure:
            raise RunError(job.failure)
        metered = [json.loads((path / f"growth.{index}.json").read_text()) for index in range(point.workers)]
        last = job.epochs[-1]
        return {
            "rows_per_second": last["rows_per_second"],
            "hr": last["hr"],
            "tied": last["test_tied"] / last["test_users"],
            "start": job.running_after,
            "job_memory": job.peak_pss,
            **costs(metered),
        }
    finally:
        for part in (folder / "data", path):
            shutil.rmtree(part, ignore_errors=True)


def costs(metered: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the last epoch's training cost, between its two marks, and what each role has needed of memory."""
    before, after = metered[0]["marks"][-2:]
    memory = metered[0]["memory"]

    def cpu(kind: str) -> float:
        return float(sum(after["cpu"][name] - before["cpu"][name] for name in after["cpu"] if name.startswith(kind)))

    def exchanged(way: int) -> int:
        return sum(each["marks"][-1]["bytes"][way] - each["marks"][-2]["bytes"][way] for each in metered)

    def peaks(kind: str) -> list[int]:
        return [peak for name, peak in memory.items() if name.startswith(kind)]

    return {
        "seconds": after["time"] - before["time"],
        "worker_cpu": cpu("worker"),
        "server_cpu": cpu("server"),
        "sent": exchanged(0),
        "received": exchanged(1),
        # The first worker saves, and so may need more.
        "worker_memory": median(peaks("worker")),
        "first_worker_memory": memory["worker.0"],
        "server_memory": max(peaks("server")),
        "gather": median(each["gather"] for each in metered),
    }


class Record:
    """Points that were measured before, one line of JSON each; without a file there are none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.is_file() else []
        self._known = {json.dumps(known["point"]): known["figures"] for known in map(json.loads, lines)}

    def find(self, point: Point) -> Mapping[str, float] | None:
        return self._known.get(json.dumps(dataclasses.asdict(point)))

    def add(self, point: Point, figures: Mapping[str, float]) -> None:
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps({"point": dataclasses.asdict(point), "figures": figures}) + "\n")


# --- Showing ---------------------------------------------------------------------------------------------


def show(measured: Sequence[tuple[Point, Mapping[str, float]]], skipped: Mapping[Point, Any], model: Any) -> str:
    """All tables."""
    tables = [points_table(measured)]
    if model:
        tables += [coefficients_table(model), checks_table(measured, model), clusters_table(model)]
    tables += ["\n".join(f"{point}: {why}" for point, why in skipped.items())]
    return "\n\n".join(filter(None, tables))


def points_table(measured: Sequence[tuple[Point, Mapping[str, float]]]) -> str:
    header = ["workers", "servers", "users", "items", "exchanges", "rows/s", "start s", "gather ms", "CPU s/M rows"]
    header += ["of servers", "sent MiB", "received", "worker MiB", "server MiB", "HR@10", "tied"]
    lines = []
    for point, found in measured:
        million = point.workers * point.rows / 1e6
        lines.append(
            [
                str(point.workers),
                str(point.servers),
                short(point.users),
                short(point.items) + ("" if point.width == Point.width else f" of {point.width}"),
                str(point.exchanges or f"geo {point.geo_step}"),
                figure(found["rows_per_second"], ",.0f"),
                figure(found["start"], ".1f"),
                figure(found["gather"] * 1000, ".1f"),
                figure(found["worker_cpu"] / million, ".1f"),
                figure(found["server_cpu"] / million, ".1f"),
                figure(found["sent"] / MIB, ",.1f"),
                figure(found["received"] / MIB, ",.1f"),
                figure(found["worker_memory"] / MIB, ",.0f"),
                figure(found["server_memory"] / MIB, ",.0f"),
                figure(found["hr"], ".3f"),
                figure(found["tied"], ".0%"),
            ]
        )
    return titled_table(f"Jobs of {EPOCHS} epochs, the last one's figures", header, lines)


def coefficients_table(model: Model) -> str:
    lines = []
    for (quantity, mode), terms in model.coefficients.items():
        unit = COMPARED.get(quantity, COMPARED["seconds"])[1].replace("MiB", "bytes").replace("ms", "s")
        for name, value in terms.items():
            if value:
                lines.append([quantity.replace("_", " "), mode, f"{value:.3g}", unit, name])
    return titled_table("The model", ["quantity", "mode", "coefficient", "", "for each"], lines)


def checks_table(measured: Sequence[tuple[Point, Mapping[str, float]]], model: Model) -> str:
    lines = []
    for point, found in measured:
        if point.checks:
            cells = [str(point)]
            for quantity, (factor, _, spec) in COMPARED.items():
                pair = (model(quantity, point), found[quantity])
                cells.append(" / ".join(figure(value * factor, spec) for value in pair))
            lines.append(cells)
    header = [f"{name.replace('_', ' ')} {unit}" for name, (_, unit, _) in COMPARED.items()]
    return titled_table("Predicted / measured, of points that the model was not fitted to", ["", *header], lines)


def worst_ratio(measured: Sequence[tuple[Point, Mapping[str, float]]], model: Model) -> dict[str, float | None]:
    """Of each quantity, the check's ratio of prediction to measurement that is farthest from 1."""
    worst: dict[str, float | None] = {}
    for quantity in COMPARED:
        ratios = [
            model(quantity, point) / found[quantity]
            for point, found in measured
            if point.checks and found[quantity] and model(quantity, point) > 0
        ]
        worst[quantity] = max(ratios, key=lambda ratio: max(ratio, 1 / ratio)) if ratios else None
    return worst


def clusters_table(model: Model) -> str:
    lines = []
    for point in CLUSTERS:
        spent = model.cluster(point, SERVER_CORES, BANDWIDTH, LATENCY)
        seconds = cluster_seconds(spent, point.mode)
        lines.append(
            [
                f"{point.workers:,}",
                str(point.servers),
                short(point.items),
                str(point.exchanges or "geo"),
                *(figure(value, ".3f") for value in spent.values()),
                figure(point.workers * point.rows / seconds / 1e6, ",.1f"),
                figure(model("worker_memory", point) / GIB, ".2f"),
                figure(model("server_memory", point) / GIB, ".2f"),
                max(spent, key=lambda name: spent[name]),
            ]
        )
    header = ["workers", "servers", "items", "exchanges", *spent, "M rows/s", "worker GiB", "server GiB", "most is for"]
    title = (
        f"A cluster: a core for each worker, {SERVER_CORES} cores and {8 * BANDWIDTH / 1e9:g} Gbit/s for each server, "
        f"{CLUSTERS[0].rows:,} rows a worker; seconds of an epoch"
    )
    return titled_table(title, header, lines)


def write_page(path: Path, text: str) -> None:
    """Puts the tables between the page's marks."""
    page = path.read_text(encoding="utf-8")
    if not PAGE.search(page):
        raise DataError(f"--page must be a file with <!-- measured --> and <!-- end -->. Received: {path}, without.")
    blocks = "".join(f"\n```text\n{block}\n```\n" for block in text.split("\n\n"))
    path.write_text(PAGE.sub(lambda _: blocks + "\n", page), encoding="utf-8")


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--record", type=Path, metavar="FILE", help="take from it what was measured, and add the rest")
    parser.add_argument(
        "--page", type=Path, nargs="+", default=(), metavar="FILE", help="pages to put the tables into, between marks"
    )
    parser.add_argument(
        "--timeout", type=count, default=400, metavar="S", help="seconds until a job has hung (default: 400)"
    )
    parser.add_argument(
        "--budget", type=count, default=3600, metavar="S", help="seconds after which no job is begun (default: 3600)"
    )
    return run_benchmark(parser, {"timeout": 120, "budget": 150}, measure)


if __name__ == "__main__":
    sys.exit(main())
