"""What secure aggregation costs, in seconds and bytes, and what becomes of the figures.

python benchmarks/secure_aggregation.py --data datasets/movielens/fl_data

The same job with synchronised exchanges is run plainly and with runner.secure_aggregation, in pairs, by the same seed.
Seconds are the median epoch's from the begin of training to the end of its last exchange, by the number of exchanges;
processor's seconds those of all roles in that time, which is what the cores of one machine share; bytes those of one
client: with the servers as the kernel has counted them, with each other client as the messages are long.
What it takes to deal the shares of an exchange's secrets, which hangs on the number of clients alone, is a table of its
own: of one client, the median, without the way that the messages go.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    BEST_CONFIG,
    METRICS,
    Report,
    add_config_argument,
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

from fl_rec.config import Config
from fl_rec.data.manifest import Manifest
from fl_rec.errors import RunError
from fl_rec.privacy.secure_sum.clients import threshold_of
from fl_rec.privacy.secure_sum.member import DEALT, KEYS, VIEW, Member
from fl_rec.privacy.secure_sum.primitives import SEED
from fl_rec.tables import figure

TRAINER = Path(__file__).with_name("growth_trainer.py")
WAYS = {"plain": False, "secure": True}
MOST_READERS = 10
WORDS = 8  # bytes of which a message between workers is a multiple; of the rows, and of who has sent


def between_clients(workers: int, secure: bool) -> int:
    """Bytes that a client tells each other in one exchange."""
    if not secure:
        return 2 * WORDS
    return WORDS + KEYS + workers * DEALT + WORDS + VIEW + workers * SEED


def dealing(clients: int) -> dict[str, float]:
    """What one of some clients takes before it masks its numbers."""
    members = [Member(number) for number in range(clients)]
    keys = {member.number: member.keys for member in members}
    dealt, deal_seconds, read_seconds = {}, [], []
    for member in members:
        start = time.perf_counter()
        dealt[member.number] = member.deal(keys, threshold_of(clients))
        deal_seconds.append(time.perf_counter() - start)
    for member in members[:MOST_READERS]:
        to_it = {other: shares[member.number] for other, shares in dealt.items() if other != member.number}
        start = time.perf_counter()
        member.masked(np.zeros(0, np.uint32), to_it)
        read_seconds.append(time.perf_counter() - start)
    return {
        "deal_seconds": statistics.median(deal_seconds),
        "read_seconds": statistics.median(read_seconds),
        "sent_bytes": (clients - 1) * (WORDS + KEYS + clients * DEALT),
    }


def cost_of(folder: Path, workers: int, exchanges: int) -> dict[str, float]:
    """What one exchange of a run has taken, by what each worker has marked."""
    marked = [json.loads((folder / f"growth.{worker}.json").read_text())["marks"] for worker in range(workers)]
    # Of each epoch there is one mark before and one after.
    first = [(before, after) for before, after in zip(marked[0][::2], marked[0][1::2])]
    ends = [(marks[0]["bytes"], marks[-1]["bytes"]) for marks in marked]
    whole = exchanges * len(first)
    sent, received = (statistics.mean(after[way] - before[way] for before, after in ends) / whole for way in (0, 1))
    return {
        "seconds": statistics.median(after["time"] - before["time"] for before, after in first) / exchanges,
        "processor_seconds": sum(
            after["cpu"][role] - before["cpu"][role] for before, after in first for role in after["cpu"]
        )
        / whole,
        "sent_bytes": sent,
        "received_bytes": received,
    }


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """Both ways, in pairs, of which each begins with the other one."""
    data = open_data(None if args.quick else args.data, folder, config=args.config)
    exchanges = Config.load(args.config).runner.exchanges_per_epoch
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for pair in range(args.pairs):
        for way in sorted(WAYS, reverse=bool(pair % 2)):
            found[way].append(_run(args, folder / f"{pair}-{way}", data, way, exchanges))
    summary = {
        way: {
            **{name: median(each[name] for each in found[way]) for name in found[way][0]},
            "bytes_to_each_other_client": between_clients(data.num_shards, secure),
        }
        for way, secure in WAYS.items()
    }
    text = titled_table(
        f"{args.config.name}, {data.num_shards} clients, {exchanges} exchanges an epoch: one exchange",
        ["", *WAYS, "times"],
        list(_lines(summary)),
    )
    dealt = {str(clients): dealing(clients) for clients in args.clients}
    text += "\n\n" + titled_table(
        "dealing shares: one client in one exchange",
        ["clients", "milliseconds to deal", "to read the others'", "bytes sent"],
        [
            [
                clients,
                *(f"{1e3 * each[name]:.1f}" for name in ("deal_seconds", "read_seconds")),
                f"{each['sent_bytes']:,}",
            ]
            for clients, each in dealt.items()
        ],
    )
    figures = {"config": args.config.name, **describe_data(data), "exchanges": exchanges, "epochs": args.epochs}
    figures |= {"pairs": args.pairs, **summary, "ratio": _ratios(summary), "dealing": dealt}
    return Report(text, figures, [])


def _run(args: argparse.Namespace, path: Path, data: Manifest, way: str, exchanges: int) -> dict[str, Any]:
    overrides = {"runner.epochs": args.epochs, "runner.save_interval": 0, "runner.secure_aggregation": WAYS[way]}
    run = run_job(path, data, overrides, args.timeout, config=args.config, script=TRAINER)
    if run.failure:
        raise RunError(f"A job must end well to be measured. {run.failure}")
    cost = cost_of(path, data.num_shards, exchanges)
    last = {name: run.epochs[-1][name] for name in METRICS}
    say(f"{way:9} {cost['seconds']:.3f} s an exchange with its training, HR@10 {last['hr']:.4f}")
    return {**cost, **last}


def _ratios(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    return {name: ratio(value, summary["plain"][name]) for name, value in summary["secure"].items()}


def _lines(summary: Mapping[str, Mapping[str, Any]]) -> Sequence[Sequence[str]]:
    names = {
        "seconds": ("seconds, with the training before it", ".3f"),
        "processor_seconds": ("processor's seconds of all roles", ".3f"),
        "sent_bytes": ("bytes from a client to the servers", ",.0f"),
        "received_bytes": ("bytes from the servers to a client", ",.0f"),
        "bytes_to_each_other_client": ("bytes from a client to each other one", ",.0f"),
        **{name: (f"{title} of the last epoch", ".4f") for name, title in METRICS.items()},
    }
    ratios = _ratios(summary)
    return [
        [title, *(figure(summary[way][name], kind) for way in WAYS), figure(ratios[name], ".2f")]
        for name, (title, kind) in names.items()
    ]


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser, BEST_CONFIG)
    parser.add_argument("--epochs", type=count, default=20, metavar="N", help="of a job (default: 20; --quick: 2)")
    parser.add_argument("--pairs", type=count, default=1, metavar="N", help="of jobs (default: 1)")
    parser.add_argument("--timeout", type=count, default=900, metavar="S", help="seconds of a job (default: 900)")
    parser.add_argument(
        "--clients",
        type=count,
        nargs="+",
        default=[10, 30, 100],
        metavar="N",
        help="that deal shares (default: 10 30 100; --quick: 10)",
    )
    return run_benchmark(parser, {"epochs": 2, "timeout": 180, "clients": [10]}, measure)


if __name__ == "__main__":
    sys.exit(main())
