"""Strategies side by side in real jobs with emulated devices: seconds of these devices until a HR@10 is reached.

python benchmarks/scheduling_real.py --data datasets/movielens/fl_data --policy configs/ddpg_policy.npz

Each strategy has a job of its own, one after the other: ten workers, a server and a coordinator, the devices of
configs/config_fl_coordinator.yaml. A round lasts as long as its slowest client's device, by its processor's time, so
that what else runs on this machine makes little difference; what the job took on this machine's clock is given too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from common import (
    PROJECT,
    Report,
    add_data_argument,
    count,
    describe_data,
    new_parser,
    open_data,
    run_benchmark,
    run_job,
    say,
    titled_table,
)
from until_target import hit_rate

from fl_rec.coordinator.rounds import RoundLog
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import figure

CONFIG = PROJECT / "configs" / "config_fl_coordinator.yaml"
STRATEGIES = ("join_all", "random_k", "resource_aware", "utility", "ddpg")


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """One job per strategy."""
    data = open_data(args.data, folder)
    clients = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["coordinator"]["clients"]
    clients = {client: device for client, device in clients.items() if client < data.num_shards}
    results, failures = [], []
    for strategy in args.strategies:
        say(f"strategy  {strategy}")
        options = {"policy": str(args.policy.resolve())} if strategy == "ddpg" and args.policy else {}
        keys = {
            "runner.epochs": args.rounds,
            "runner.private_params": [],  # as in the recorded runs that ddpg's policy has learned from
            "coordinator.strategy": f"{Path(__file__).parent / 'until_target.py'}:UntilTarget",
            "coordinator.options": {"strategy": strategy, "options": options, "target": args.target},
            "coordinator.clients": clients,
        }
        job = run_job(folder / strategy, data, keys, args.timeout, coordinators=1, show=args.show)
        results.append({"strategy": strategy, "wall_seconds": job.seconds, **_outcome(folder / strategy, args.target)})
        failures += [job.failure] if job.failure else []
        say(str(results[-1]))
    base = next((each["seconds"] for each in results if each["strategy"] == "join_all"), None)
    for each in results:
        reached = each["reached"] and base
        each["share_of_join_all"] = each["seconds"] / base if reached else None
    lines = [
        [
            each["strategy"],
            figure(each["seconds"] if each["reached"] else None, ",.0f"),
            figure(each["share_of_join_all"], ".0%"),
            str(each["rounds"]),
            figure(each["local_epochs"], ".1f"),
            figure(each["hr"], ".4f"),
            figure(each["wall_seconds"], ",.0f"),
        ]
        for each in results
    ]
    header = ["strategy", "device s", "of join_all", "rounds", "local epochs", "HR@10", "wall s"]
    title = f"until HR@10 {args.target:g}, {data.num_shards} clients, {data.totals['train_rows']:,} rows"
    return Report(titled_table(title, header, lines), {**describe_data(data), "strategies": results}, failures)


def _outcome(path: Path, target: float) -> dict[str, Any]:
    seconds, epochs, metric, rounds = 0.0, 0.0, None, 0
    for each in RoundLog(RunDirectory(path).rounds):
        if each.round == 0:
            continue
        rounds = each.round
        seconds += max(report.seconds for report in each.reports.values())
        rows = sum(report.shard_rows for report in each.reports.values())
        epochs += sum(report.rows for report in each.reports.values()) / rows
        metric = hit_rate(each.reports)
        if metric >= target:
            break
    reached = metric is not None and metric >= target
    return {"seconds": seconds, "rounds": rounds, "local_epochs": epochs, "hr": metric, "reached": reached}


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, metavar="NAME", help="(default: all)")
    parser.add_argument("--policy", type=Path, metavar="NPZ", help="a policy for ddpg (default: untrained)")
    parser.add_argument("--target", type=float, default=0.52, metavar="HR", help="(default: 0.52)")
    parser.add_argument("--rounds", type=count, default=25, metavar="N", help="at most (default: 25)")
    parser.add_argument("--show", action="store_true", help="show the jobs' own tables")
    parser.add_argument("--timeout", type=count, default=3600, metavar="S", help="of one job (default: 3600)")
    return run_benchmark(parser, {"data": None, "rounds": 3, "target": 0.2, "strategies": STRATEGIES[:3]}, measure)


if __name__ == "__main__":
    sys.exit(main())
