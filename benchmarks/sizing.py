"""How many servers, what memory and what bandwidth a fleet of clients needs, by the model of cost of growth.py.

python benchmarks/sizing.py --page docs/deploy.md docs/deploy.zh.md

No job is started. The model is that of recorded/growth.json, and is first held to the jobs there that it was not
fitted to. Servers are the fewest with which an epoch takes at most half as long again as with MOST_SERVERS.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import GIB, Report, new_parser, run_benchmark, titled_table
from growth import BANDWIDTH, COMPARED, LATENCY, SERVER_CORES, write_page
from growth_model import Model, Point, cluster_seconds, short

from fl_rec.errors import DataError
from fl_rec.tables import figure

RECORDED = Path(__file__).with_name("recorded") / "growth.json"
MOST_SERVERS, SLOWER = 64, 1.5
# Bytes and memory are held to this, both ways; seconds are of a machine that others shared.
WORST_RATIO = 1.5
HELD = ("sent", "received", "worker_memory", "server_memory")
EXCHANGES = 5


@dataclass(frozen=True)
class Fleet:
    """Who trains: `clients` by `workers`, each of which has the rows and the users of its clients."""

    clients: int
    workers: int
    rows: int
    users: int

    def point(self, items: int, servers: int = 1) -> Point:
        """Its job; `rows` and `users` are a worker's here, `users` of all of them there."""
        users = self.users * self.workers
        return Point(self.workers, servers, users, items, self.rows, exchanges=EXCHANGES)


# Ten regions; a thousand shops, by ten and one each; a hundred thousand people, by a hundred and one each.
FLEETS = (
    Fleet(10, 10, rows=200_000, users=1_000),
    Fleet(1_000, 100, rows=200_000, users=1_000),
    Fleet(1_000, 1_000, rows=20_000, users=100),
    Fleet(100_000, 1_000, rows=200_000, users=100),
    Fleet(100_000, 100_000, rows=2_000, users=1),
)
ITEMS = (4_000, 100_000, 1_000_000)
QUICK_ITEMS = (4_000,)


def read(path: Path) -> tuple[Model, list[tuple[Point, Mapping[str, float]]]]:
    """What growth.py's line of JSON says. DataError if it is none."""
    try:
        line = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in dataclasses.fields(Point)}
        points: list[tuple[Point, Mapping[str, float]]] = [
            (
                Point(**{name: value for name, value in each.items() if name in names}),
                {name: value for name, value in each.items() if name not in names},
            )
            for each in line["points"]
        ]
        coefficients = {
            (quantity, mode): of for key, of in line["model"].items() for quantity, _, mode in [key.partition("/")]
        }
        return Model(coefficients, line["cores"]), points
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise DataError(f"--growth must be the last line of growth.py, in a file. Received: {path} ({err!r}).") from err


def servers_for(model: Model, fleet: Fleet, items: int) -> int:
    """The fewest, as a power of two, with which an epoch takes at most SLOWER times as long as with MOST_SERVERS."""

    def seconds(servers: int) -> float:
        point = fleet.point(items, servers)
        return cluster_seconds(model.cluster(point, SERVER_CORES, BANDWIDTH, LATENCY), point.mode)

    servers = 1
    while seconds(servers) > SLOWER * seconds(MOST_SERVERS):
        servers *= 2
    return servers


def sizes(model: Model, fleet: Fleet, items: int) -> dict[str, Any]:
    """What a fleet needs; bytes, seconds, and bytes per second of a server's network, the busier way."""
    servers = servers_for(model, fleet, items)
    point = fleet.point(items, servers)
    spent = model.cluster(point, SERVER_CORES, BANDWIDTH, LATENCY)
    seconds = cluster_seconds(spent, point.mode)
    worker, server = model("worker_memory", point), model("server_memory", point)
    sent, received = model("sent", point), model("received", point)
    return {
        "clients": fleet.clients,
        "workers": fleet.workers,
        "items": items,
        "servers": servers,
        "worker_memory": worker,
        "server_memory": server,
        "memory": worker * fleet.workers + server * servers,
        "epoch_seconds": seconds,
        "bytes_per_worker": (sent + received) / fleet.workers,
        "server_bandwidth": max(sent, received) / servers / seconds,
        "most_for": max(spent, key=lambda name: spent[name]),
    }


def held_to(model: Model, points: Sequence[tuple[Point, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Predicted by measured, of each quantity: the median and what is farthest from 1, of points not fitted to."""
    found = {}
    for quantity in COMPARED:
        ratios = [model(quantity, point) / of[quantity] for point, of in points if point.checks and of[quantity] > 0]
        ratios = [each for each in ratios if each > 0]
        if ratios:
            found[quantity] = {"median": median(ratios), "worst": max(ratios, key=lambda each: max(each, 1 / each))}
    return found


def measure(args: argparse.Namespace, _folder: Path) -> Report:
    """The check and the table."""
    model, points = read(args.growth)
    checked = held_to(model, points)
    failures = [
        f"The model must be within {WORST_RATIO:g} times what was measured. Received: {each} {ratios['worst']:.2f} "
        "times."
        for each, ratios in checked.items()
        if each in HELD and not 1 / WORST_RATIO <= ratios["worst"] <= WORST_RATIO
    ]
    sized = [sizes(model, fleet, items) for items in (QUICK_ITEMS if args.quick else ITEMS) for fleet in FLEETS]
    text = "\n\n".join([sizes_table(sized), checked_table(checked, sum(point.checks for point, _ in points))])
    for page in args.page:
        write_page(page, text)
    return Report(text, {"fleets": sized, "predicted_by_measured": checked}, failures)


def sizes_table(sized: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            f"{each['clients']:,}",
            f"{each['workers']:,}",
            short(each["items"]),
            str(each["servers"]),
            figure(each["worker_memory"] / GIB, ".2f"),
            figure(each["server_memory"] / GIB, ".2f"),
            figure(each["memory"] / GIB, ",.0f"),
            figure(each["bytes_per_worker"] / 1e6, ",.1f"),
            figure(each["epoch_seconds"], ".2f"),
            figure(8 * each["server_bandwidth"] / 1e9, ".1f"),
            each["most_for"],
        ]
        for each in sized
    ]
    header = ["clients", "workers", "items", "servers", "worker GiB", "server GiB", "all GiB", "MB a worker", "epoch s"]
    title = (
        f"Embeddings of {Point.width} floats, {EXCHANGES} synchronous exchanges an epoch; a core for each worker, "
        f"{SERVER_CORES} cores and {8 * BANDWIDTH / 1e9:g} Gbit/s for each server"
    )
    return titled_table(title, [*header, "server Gbit/s", "most is for"], lines)


def checked_table(checked: Mapping[str, Mapping[str, float]], points: int) -> str:
    lines = [
        [name.replace("_", " "), figure(each["median"], ".2f"), figure(each["worst"], ".2f")]
        for name, each in checked.items()
    ]
    title = f"Predicted by measured, of {points} jobs that the model was not fitted to"
    return titled_table(title, ["", "median", "worst"], lines)


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--growth", type=Path, default=RECORDED, metavar="FILE", help="the last line of growth.py (default: recorded)"
    )
    parser.add_argument(
        "--page", type=Path, nargs="+", default=(), metavar="FILE", help="pages to put the tables into, between marks"
    )
    return run_benchmark(parser, {}, measure)


if __name__ == "__main__":
    sys.exit(main())
