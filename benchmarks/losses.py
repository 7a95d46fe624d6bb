"""Ranking quality that each loss comes to, beside popularity: one federated job per loss, all else alike.

python benchmarks/losses.py --data datasets/movielens/fl_data

The net, the optimizer and the rounds are those of --config, made for one of the losses: the figures show that a loss
trains, and not which is the best one. Losses that compare the items of a row get rows of a positive and its negatives;
if the configuration has rows of one item, a step takes fewer of these, so that it sees as many items. All have the
configuration's learning rate, but for two with sgd: sampled_softmax, a mean over rows and not over items, has that rate
divided by the items of a row, since with the whole one it diverged on the built-in data; and focal, whose gradients are
small, three times that rate. --rates changes these factors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import (
    METRICS,
    TOP_K,
    Report,
    add_config_argument,
    add_data_argument,
    count,
    describe_data,
    new_parser,
    open_data,
    popularity,
    run_benchmark,
    run_job,
    say,
    titled_table,
)

from fl_rec.config import Config
from fl_rec.data.manifest import Manifest
from fl_rec.evaluation.metrics import Evaluation
from fl_rec.nets.losses import LOSSES
from fl_rec.tables import figure

MEANS_OVER_ROWS = ("sampled_softmax",)
USUAL_RATES = {"focal": 3.0}  # its gradients are small; with 8 it diverged on MovieLens 1M
PROXIMAL = 0.01
PROXIMAL_LINE = f"log_loss,proximal={PROXIMAL:g}"
DEFAULT_NEGATIVES = 4


def plan(config: Config, data: Manifest, rates: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """What each line of the table changes in the configuration; `rates` are factors of the learning rate, by loss."""
    runner, hyper = config.runner, config.hyper_parameters
    negatives = runner.resample_negatives
    if negatives is None and data.group_size == 1:
        negatives = data.source.get("num_neg") or DEFAULT_NEGATIVES
    lines = {}
    for name in LOSSES:
        loss = LOSSES.find(name)
        keys: dict[str, Any] = {"runner.resample_negatives": negatives, "hyper_parameters.loss": name}
        if name != hyper.loss:
            keys["hyper_parameters.loss_options"] = None  # they are another loss's
        if getattr(loss, "grouped", False):
            keys["hyper_parameters.group_size"] = None
            if hyper.group_size == 1 and negatives is not None:
                keys["runner.train_batch_size"] = max(runner.train_batch_size // (1 + negatives), 1)
        group_size = data.group_size if negatives is None else 1 + negatives
        usual = 1 / group_size if name in MEANS_OVER_ROWS else USUAL_RATES.get(name, 1.0)
        if hyper.optimizer.class_ != "sgd":
            usual = 1.0
        rate = hyper.optimizer.learning_rate * rates.get(name, usual)
        lines[name] = {**keys, "hyper_parameters.optimizer.learning_rate": rate}
    lines[PROXIMAL_LINE] = {**lines["log_loss"], "hyper_parameters.proximal": PROXIMAL}
    return lines


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """One job per line, the next one also after one that failed."""
    data = open_data(args.data, folder, config=args.config)
    popular = Evaluation.total(popularity(data, TOP_K))
    base = {"hr": popular.hit_rate, "ndcg": popular.ndcg}
    results: list[dict[str, Any]] = [{"loss": "popularity", **base}]
    failures = []
    planned = plan(Config.load(args.config), data, dict(args.rates))
    for number, title in enumerate(args.losses, 1):
        keys = {"runner.epochs": args.epochs, "runner.top_k": TOP_K, **planned[title]}
        job = run_job(folder / f"loss-{number}", data, keys, args.timeout, config=args.config)
        last: Mapping[str, Any] = job.epochs[-1] if job.epochs and not job.failure else {}
        names = ("hr", "ndcg", "test_auc", "train_loss", "rows")
        rate = keys["hyper_parameters.optimizer.learning_rate"]
        results.append(
            {"loss": title, "rate": rate, **{name: last.get(name) for name in names}, "minutes": job.seconds / 60}
        )
        say(f"loss      {title}: {job.failure or 'well'} ({job.seconds:.1f} s)")
        if job.failure:
            failures.append(f"{title}: {job.failure}")
        elif not args.quick:
            failures += [
                f"{title} must come above popularity's {METRICS[name]} of {base[name]:.4f} in {args.epochs} epochs. "
                f"Received: {figure(last[name], '.4f')}."
                for name in METRICS
                if not (last[name] or 0) > base[name]
            ]
    lines = [
        [
            each["loss"],
            *(figure(each[name], ".4f") for name in METRICS),
            *(figure(each[name] - base[name] if each[name] and "rate" in each else None, "+.4f") for name in METRICS),
            figure(each.get("rate"), "g"),
            figure(each.get("rows"), ",d"),
            figure(each.get("train_loss"), ".4f"),
            figure(each.get("minutes"), ".1f"),
        ]
        for each in results
    ]
    figures = {**describe_data(data), "config": args.config.name, "epochs": args.epochs, "losses": results}
    table = titled_table(
        "{source}: {train_rows:,} training rows, {workers} workers, {epochs} epoch(s), {config}".format(**figures),
        ["loss", *METRICS.values(), "above popularity", "in NDCG", "rate", "rows/epoch", "train loss", "minutes"],
        lines,
    )
    return Report(table, figures, failures)


def factor(text: str) -> tuple[str, float]:
    """An argument LOSS=FACTOR."""
    name, _, value = text.partition("=")
    if name not in LOSSES or not float(value) > 0:
        raise argparse.ArgumentTypeError(f"must be a loss and a number above 0, as focal=4. Received: {text}")
    return name, float(value)


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser)
    parser.add_argument("--epochs", type=count, default=4, metavar="N", help="of each job (default: 4; --quick: 1)")
    names = (*LOSSES, PROXIMAL_LINE)
    parser.add_argument("--losses", nargs="+", choices=names, default=names, metavar="LOSS", help="(default: all)")
    parser.add_argument(
        "--rates",
        type=factor,
        nargs="+",
        default=(),
        metavar="LOSS=FACTOR",
        help="what the learning rate is multiplied by for a loss (default: see above)",
    )
    parser.add_argument(
        "--timeout", type=count, default=3600, metavar="S", help="seconds until a job has hung (default: 3600)"
    )
    return run_benchmark(parser, {"data": None, "epochs": 1}, measure)


if __name__ == "__main__":
    sys.exit(main())
