"""How fast federated training is here, beside what one would take instead, and beside what the machine could do.

python benchmarks/throughput.py --data datasets/movielens/fl_data

compiled  our job with runner.local_step=compiled
graph     our job with runner.local_step=graph
reader    our job whose shards are CSV, read by a Python reader that imports Paddle, as PaddleRec's do
pytorch   FedAvg in plain PyTorch: as many processes as there are cores, of one thread
by-hand   the same with the gradient of matrix factorisation written out, without autograd
flower    Flower with the same PyTorch clients: a SuperLink and a SuperNode for each shard, on loopback
limit     the compiled kernel with nothing around it, on all cores: nobody exchanges or evaluates anything
one-core  the same on one core

Two nets: mlp is configs/config_fl.yaml, mf configs/ml1m_best.yaml. All train the same shards with the same settings,
and rank the same test users in the same way. The contestants run in turn, since a machine's speed drifts. PyTorch and
Flower are installed into .venv-bench.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import (
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
    say,
    titled_table,
)
from contest import FOREIGN, NAMES, NETS, Contest, install

from fl_rec.config import Config
from fl_rec.errors import DataError, RunError
from fl_rec.tables import figure

OURS = "compiled"
# Of figures of all of a net's contestants.
PREFIXES = {"mlp": "", "mf": "mf_"}
TARGETS = (0.60, 0.70)
# Contestants that ours is compared with.
RATIOS = ("graph", "pytorch", "by-hand", "flower", "limit", "one-core")


def seconds_to(run: JobRun, target: float) -> float | None:
    """From the command until the first epoch whose HR@10 is known to be so high; None if none is."""
    for seconds, epoch in zip(run.known_after, run.epochs):
        if (epoch.get("hr") or 0.0) >= target:
            return seconds
    return None


def summarise(runs: Sequence[JobRun], items_per_row: int) -> dict[str, Any]:
    """Medians over the runs of one contestant, and the worst memory. A target must be reached in every run."""
    rate = median(run.rows_per_second() for run in runs)
    reached = {target: [seconds_to(run, target) for run in runs] for target in TARGETS}
    return {
        "rows_per_second": rate,
        "items_per_second": None if rate is None else rate * items_per_row,
        "cpu_per_million": median(run.cpu_per_million for run in runs),
        "peak_pss": max((run.peak_pss for run in runs), default=None),
        "first_epoch_known_after": median(run.known_after[0] if run.known_after else None for run in runs),
        **{
            f"seconds_to_{target * 100:03.0f}": None if None in seconds else median(seconds)
            for target, seconds in reached.items()
        },
        "hr": median(run.epochs[-1].get("hr") if run.epochs else None for run in runs),
        "seconds": median(run.seconds for run in runs),
        "epochs": max((len(run.epochs) for run in runs), default=0),
        "runs": [run.to_record() for run in runs],
    }


def compare(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """How many times as fast ours is as each other contestant of a net."""
    rates = {name: each["rows_per_second"] for name, each in figures.items()}
    return {f"ratio_to_{name.replace('-', '_')}": ratio(rates.get(OURS), rates.get(name)) for name in RATIOS}


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All pairs; a contestant that fails is left out of the later ones."""
    data = open_data(args.data, folder)
    if data.format != "multislot" or data.group_size > 1:
        raise DataError(
            f"--data must hold MultiSlot shards of one item a row. Received: {data.format} of {data.group_size} in "
            f"{data.folder}. Write them with gen_heter_data.py --format multislot."
        )
    names, failures = set(args.only), []
    if foreign := names & FOREIGN:
        try:
            install(foreign, shlex.split(args.pip))
        except RunError as err:
            failures.append(str(err))
            names -= foreign
    contest = Contest(data, folder, {"mlp": args.epochs, "mf": args.mf_epochs}, args.flower_exchanges, args.timeout)
    runs: dict[tuple[str, str], list[JobRun]] = {
        (net, name): [] for net in args.nets for name, nets in NAMES.items() if name in names and net in nets
    }
    failed = set()
    for pair in range(1, args.pairs + 1):
        for net, name in [each for each in runs if each not in failed]:
            run = contest.run(name, net, f"{net}-{name}-{pair}")
            say(f"pair      {pair} of {args.pairs}, {net}, {name}: {run.failure or 'well'} ({run.seconds:.1f} s)")
            if run.failure:
                failures.append(run.failure)
                failed.add((net, name))
            else:
                runs[net, name].append(run)
    groups = {net: 1 + (Config.load(NETS[net]).runner.resample_negatives or 0) for net in args.nets}
    figures: dict[str, Any] = {**describe_data(data), "pairs": args.pairs}
    for net in args.nets:
        figures[net] = {
            name: summarise(of_name, groups[net]) for (of_net, name), of_name in runs.items() if of_net == net
        }
        figures.update({f"{PREFIXES[net]}{name}": each for name, each in compare(figures[net]).items()})
    best = figures[args.nets[-1]].get(OURS, {})
    figures.update({name: each for name, each in best.items() if name.startswith("seconds_to_")})
    tables = [_table(net, figures[net], groups[net], figures) for net in args.nets]
    return Report("\n\n".join(tables), figures, failures)


def _table(net: str, figures: Mapping[str, Mapping[str, Any]], group: int, whole: Mapping[str, Any]) -> str:
    rate, unit = ("rows_per_second", "rows") if group == 1 else ("items_per_second", "items")
    lines = [
        [
            name,
            figure(each[rate], ",.0f"),
            figure(ratio(figures.get(OURS, {}).get(rate), each[rate]), ".2f"),
            # A row of several items is several items' work.
            figure(each["cpu_per_million"] and each["cpu_per_million"] / group, ".2f"),
            figure(each["peak_pss"] / GIB, ".2f"),
            figure(each["first_epoch_known_after"], ".1f"),
            *(figure(each[f"seconds_to_{target * 100:03.0f}"], ".0f") for target in TARGETS),
            figure(each["hr"], ".4f"),
            str(each["epochs"]),
            figure(each["seconds"], ".1f"),
        ]
        for name, each in figures.items()
        if each["runs"]
    ]
    header = [
        *("contestant", f"{unit}/s", "ours is times", f"CPU s per million {unit}", "peak PSS GiB", "first figures s"),
        *(f"HR@10 {target:.2f} s" for target in TARGETS),
        *("HR@10", "epochs", "seconds"),
    ]
    title = "{net}, {config}; {source}: {train_rows:,} training rows, {workers} clients, {pairs} pair(s)"
    return titled_table(title.format(net=net, config=NETS[net].name, **whole), header, lines)


def several(known: Sequence[str], text: str) -> tuple[str, ...]:
    """A comma list of known names, in their order."""
    given = text.split(",")
    strange = [name for name in given if name not in known]
    if strange:
        raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}. Received: {','.join(strange)}")
    return tuple(name for name in known if name in given)


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    parser.add_argument(
        "--only",
        type=lambda text: several(tuple(NAMES), text),
        default=tuple(NAMES),
        metavar="NAME,...",
        help="contestants (default: all)",
    )
    parser.add_argument(
        "--nets",
        type=lambda text: several(tuple(NETS), text),
        default=tuple(NETS),
        metavar="NET,...",
        help="mlp, mf or both (default: both)",
    )
    parser.add_argument("--pairs", type=count, default=3, metavar="N", help="runs of each (default: 3; --quick: 1)")
    parser.add_argument("--epochs", type=count, default=5, metavar="N", help="of mlp (default: 5; --quick: 2)")
    parser.add_argument("--mf_epochs", type=count, metavar="N", help="of mf (default: the configuration's; --quick: 2)")
    parser.add_argument(
        "--flower_exchanges",
        type=count,
        default=1,
        metavar="N",
        help="exchanges in an epoch of Flower, which starts a process for each client and exchange (default: 1)",
    )
    parser.add_argument("--pip", default="", metavar="OPTIONS", help="further options of pip, such as an index")
    parser.add_argument(
        "--timeout",
        type=count,
        default=900,
        metavar="S",
        help="seconds of a run; another's is ended then, and ours has hung (default: 900)",
    )
    return run_benchmark(parser, {"data": None, "pairs": 1, "epochs": 2, "mf_epochs": 2}, measure)


if __name__ == "__main__":
    sys.exit(main())
