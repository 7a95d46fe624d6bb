"""What fl-rec compress saves and costs: size, latency, HR@10 and NDCG@10, each beside those of the float32 model.

python benchmarks/compression.py --data datasets/movielens/fl_data

Two models. The ranking model (--config, or a trained one by --model) is nearly all embeddings: 8 and 4 bits. The net
with dense layers (config_fl.yaml's NCF-MLP, or a trained one by --net) is pruned, trained on with its zeros kept
(tuned), and put into 8 bits. `trained on` is that net, not pruned, after as many epochs more, with which a tuned one is
to be compared.

A figure is of the test shards, as fl-rec evaluate has it. ms is the median processor time to score all items for one
user on one core. Sizes are of the model's files, those in float32 with all users' embeddings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import (
    CONFIG,
    METRICS,
    PROJECT,
    TOP_K,
    Report,
    add_config_argument,
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

from fl_rec.data.manifest import Manifest
from fl_rec.errors import RunError
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import figure

# What is promised of the ranking model: the share of the size at most, and HR@10 lower by at most so much.
PROMISED = {("ranking", "8 bits"): (0.30, 0.002), ("ranking", "4 bits"): (0.15, 0.006)}
SHARES = (0.5, 0.8)


class Bench:
    """Jobs and compressed models in one folder, and a line of the table for each model."""

    def __init__(self, args: argparse.Namespace, folder: Path, data: Manifest) -> None:
        self._args, self._folder, self._data = args, folder, data
        self.lines: list[dict[str, Any]] = []

    def train(self, name: str, config: Path, **runner: Any) -> Path:
        """A job's model."""
        keys = {f"runner.{key}": value for key, value in {"top_k": TOP_K, **runner}.items()}
        job = run_job(self._folder / name, self._data, keys, self._args.timeout, config=config)
        say(f"job       {name}: {job.failure or 'well'} ({job.seconds:.1f} s)")
        if job.failure:
            raise RunError(job.failure)
        run = RunDirectory(self._folder / name)
        return run.path / str(json.loads(run.result.read_text(encoding="utf-8"))["model"])

    def compress(self, model: Path, name: str, *options: str) -> tuple[Path, Mapping[str, Any]]:
        """The compressed model, and what its model.json says of that."""
        out = self._folder / name
        command = [sys.executable, "-m", "fl_rec.cli", "compress", str(model.resolve()), "--out", str(out), *options]
        command += ["--data", str(self._data.folder)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=self._args.timeout)
        if done.returncode:
            raise RunError(f"{name} must be compressed. It ended with {done.returncode}:\n{done.stderr}")
        say(f"model     {name}")
        return out, json.loads((out / "model.json").read_text(encoding="utf-8"))["compression"]

    def add(self, net: str, title: str, figures: Mapping[str, Any], base: Mapping[str, Any]) -> None:
        """A line; `base` is the float32 model that it is compared with."""
        line = {"net": net, "model": title, **figures, "share": figures["bytes"] / base["bytes"]}
        self.lines.append({**line, **{f"{name}_change": figures[name] - base[name] for name in METRICS}})


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """The ranking model first, then the one with dense layers."""
    data = open_data(args.data, folder, config=args.config)
    bench = Bench(args, folder, data)
    # Quick: epochs for both, and no figure means anything.
    epochs = {"epochs": args.epochs} if args.quick else {}

    model = args.model or bench.train("ranking", args.config, **epochs)
    for bits in (8, 4):
        _, record = bench.compress(model, f"ranking-{bits}", "--bits", str(bits))
        if bits == 8:
            base = record["before"]
            bench.add("ranking", "float32", base, base)
        bench.add("ranking", f"{bits} bits", record["after"], base)

    net = args.net or bench.train("net", CONFIG, epochs=args.epochs)
    _, record = bench.compress(net, "net-8", "--bits", "8")
    base = record["before"]
    bench.add("dense", "float32", base, base)
    bench.add("dense", "8 bits", record["after"], base)
    tuned = {"epochs": args.fine_tuning, "warmup_model_path": str(net.resolve())}
    _, record = bench.compress(bench.train("on", CONFIG, **tuned), "on-8", "--bits", "8")
    bench.add("dense", "trained on", record["before"], base)
    for share in args.shares:
        pruned, record = bench.compress(net, f"pruned-{share:g}", "--prune", str(share))
        bench.add("dense", f"{share:.0%} pruned", record["after"], base)
        tuned = {**tuned, "warmup_model_path": str(pruned), "keep_zeros": True}
        small = bench.train(f"tuned-{share:g}", CONFIG, **tuned)
        _, record = bench.compress(small, f"tuned-{share:g}-8", "--bits", "8")
        bench.add("dense", f"{share:.0%} pruned, tuned", record["before"], base)
        bench.add("dense", f"{share:.0%} pruned, tuned, 8 bits", record["after"], base)

    failures = []
    for line in bench.lines:
        promised = PROMISED.get((line["net"], line["model"]))
        if promised is None or args.quick:
            continue
        share, loss = promised
        if line["share"] > share or line["hr_change"] < -loss:
            failures.append(
                f"{line['model']} must have at most {share:.0%} of the size and lose at most {loss} in "
                f"{METRICS['hr']}. Received: {line['share']:.1%}, {line['hr_change']:+.4f}."
            )
    figures = {
        **describe_data(data),
        "config": args.config.name,
        "epochs": args.epochs,
        "fine_tuning": args.fine_tuning,
        "models": bench.lines,
    }
    table = titled_table(
        "{source}: {train_rows:,} training rows, {workers} workers; ranking: {config}; dense: config_fl.yaml, {epochs} "
        "epochs, {fine_tuning} of fine-tuning".format(**figures),
        ["net", "model", "bytes", "of float32", "in memory", *METRICS.values(), "change", "in NDCG", "test AUC", "ms"],
        [
            [
                line["net"],
                line["model"],
                figure(line["bytes"], ",d"),
                figure(line["share"], ".1%"),
                figure(line["memory"], ",d"),
                *(figure(line[name], ".4f") for name in METRICS),
                *(figure(line[f"{name}_change"], "+.4f") for name in METRICS),
                figure(line["auc"], ".4f"),
                figure(line["milliseconds"], ".1f"),
            ]
            for line in bench.lines
        ],
    )
    return Report(table, figures, failures)


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the ranking model (default: --config's, trained)")
    parser.add_argument("--net", type=Path, metavar="FOLDER", help="the net with dense layers (default: trained)")
    parser.add_argument(
        "--epochs", type=count, default=12, metavar="N", help="of the net with dense layers (default: 12; --quick: 1)"
    )
    parser.add_argument(
        "--fine_tuning", type=count, default=3, metavar="N", help="epochs after pruning (default: 3; --quick: 1)"
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=SHARES,
        metavar="SHARE",
        help="of the hidden layers' weights that are pruned (default: 0.5 0.8; --quick: 0.5)",
    )
    parser.add_argument(
        "--timeout", type=count, default=3600, metavar="S", help="seconds until a job has hung (default: 3600)"
    )
    return run_benchmark(parser, {"data": None, "epochs": 1, "fine_tuning": 1, "shares": (0.5,)}, measure)


if __name__ == "__main__":
    sys.exit(main())
