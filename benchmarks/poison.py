"""One client of a job attacks: what becomes of the item that it promotes and of the others' figures, with and without
what is there against it.

python benchmarks/poison.py --data datasets/movielens/fl_data

The attacks are those of poison_trainer.py, each in these ways to exchange:
as it is   --config
robust     runner.aggregation=trimmed_mean over all clients, times as many as there are where --config adds changes up
geo        plain GEO, in which Paddle sends by itself
All have runner.on_divergence=warn, so that who can go on does. An attack is contained if the others' HR@10 is within
--within of a run in which the attacker never trains, or the job ends and says so; and named if the job's tables or its
error name the attacker.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
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

from fl_rec.config import Config
from fl_rec.data.manifest import Manifest
from fl_rec.evaluation.metrics import ALL
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import figure

SCRIPT = Path(__file__).with_name("poison_trainer.py")
ATTACKS = ("none", "absent", "nan", "huge", "scale", "promote", "lie")
WAYS = ("as it is", "robust", "geo")
# By plain GEO there is nothing to compare: the configuration is made for exchanges.
OF_GEO = ("nan", "huge", "lie")


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Attributes:
        way, attack: which.
        ended: the job's error; "" if it came to its end.
        named: whether the attacker is named.
        hr: HR@10 of the others' users.
        exposure: the share of the others' users with the item among the first ten that they have not chosen.
        minutes: from the command to its end.
    """

    way: str
    attack: str
    ended: str
    named: bool
    hr: float | None
    exposure: float | None
    minutes: float


def keys_of(way: str, config: Config, clients: int, trim: float | None, clip: float | None) -> dict[str, Any]:
    """What a way changes in the configuration."""
    if way == "geo":
        return {"runner.exchanges_per_epoch": 0, "runner.aggregation": "mean"}
    if way == "as it is":
        return {}
    rate = config.runner.server_learning_rate * (clients if config.runner.aggregation == "sum" else 1)
    return {
        "runner.aggregation": "trimmed_mean" if trim is not None else "median",
        **({} if trim is None else {"runner.trim": trim}),
        "runner.clip_update": clip,
        "runner.server_learning_rate": rate,
    }


def outcome(run: RunDirectory, way: str, attack: str, attacker: int, ended: str | None, seconds: float) -> Outcome:
    """Reads what a job has left."""
    tables = run.tables.read_text(encoding="utf-8") if run.tables.is_file() else ""
    told = "\n".join(line for line in tables.splitlines() if line.startswith("note: ")) + (ended or "")
    hr = exposure = None
    if not ended:
        records = run.read_metrics()
        last = max(record["epoch"] for record in records)
        others = [each for each in records if each["epoch"] == last and each["client"] not in (ALL, attacker)]
        users = sum(each["test_users"] for each in others)
        hr = sum((each["hr"] or 0) * each["test_users"] for each in others) / users if users else None
        exposed = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in run.path.glob("exposure.*.json")
            if path.name != f"exposure.{attacker}.json"
        ]
        exposure = sum(each["exposed"] for each in exposed) / sum(each["users"] for each in exposed)
    return Outcome(way, attack, ended or "", f"worker.{attacker}" in told, hr, exposure, seconds / 60)


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """One job per way and attack."""
    data = open_data(args.data, folder, workers=args.workers, config=args.config)
    config = Config.load(args.config)
    found: list[Outcome] = []
    for way in args.ways:
        for attack in OF_GEO if way == "geo" else args.attacks:
            run = RunDirectory(folder / f"{way.replace(' ', '-')}-{attack}")
            extra = {"attacker": args.attacker, "attack": attack, "target": args.target, "boost": args.boost}
            keys = {
                "runner.epochs": args.epochs,
                "runner.on_divergence": "warn",
                "hyper_parameters.extra": {**config.hyper_parameters.extra, **extra},
                **keys_of(way, config, data.num_shards, args.trim, args.clip),
            }
            job = run_job(run.path, data, keys, args.timeout, config=args.config, script=SCRIPT)
            found.append(outcome(run, way, attack, args.attacker, job.failure, job.seconds))
            say(f"{way}, {attack}: {found[-1]}")
    return Report(table(found, data, args), figures(found, data, args), failures(found, args))


def failures(found: list[Outcome], args: argparse.Namespace) -> list[str]:
    """What is neither contained nor named."""
    without: Mapping[str, float | None] = {each.way: each.hr for each in found if each.attack == "absent"}
    wrong = []
    for each in found:
        if each.attack in ("none", "absent"):
            if each.ended or each.named:
                wrong.append(f"{each.way}, {each.attack}: nobody attacks, and it ended or named somebody. {each.ended}")
            continue
        if each.way == "as it is" and each.attack in ("scale", "promote"):
            continue  # nothing is there against it
        if not each.named and not (each.attack == "lie" and each.way != "robust"):
            wrong.append(f"{each.way}, {each.attack}: the attacker is not named.")
        if each.way == "robust" and each.attack != "absent":
            base = without.get(each.way)
            if each.hr is None or (base is not None and not args.quick and abs(each.hr - base) > args.within):
                wrong.append(f"{each.way}, {each.attack}: HR@10 of the others {each.hr}, without the attacker {base}.")
    return wrong


def table(found: list[Outcome], data: Manifest, args: argparse.Namespace) -> str:
    """For people."""
    lines = [
        [
            each.way,
            each.attack,
            figure(each.hr, ".4f"),
            figure(each.exposure, ".4f"),
            "yes" if each.named else "no",
            figure(each.minutes, ".1f"),
            "ended" if each.ended else "went on",
        ]
        for each in found
    ]
    title = f"client {args.attacker} of {data.num_shards} attacks, {args.epochs} epochs, item {args.target}"
    return titled_table(
        title, ["exchange", "attack", f"others' HR@{TOP_K}", "exposure", "named", "minutes", "job"], lines
    )


def figures(found: list[Outcome], data: Manifest, args: argparse.Namespace) -> dict[str, Any]:
    """For machines."""
    return {
        **describe_data(data),
        "config": args.config.name,
        "epochs": args.epochs,
        "attacker": args.attacker,
        "target": args.target,
        "outcomes": [vars(each) for each in found],
    }


def main() -> int:
    """The command."""
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser)
    parser.add_argument("--epochs", type=count, default=20)
    parser.add_argument("--workers", type=count, default=10, help="of the built-in data")
    parser.add_argument("--attacker", type=int, default=3, help="a client's number")
    parser.add_argument("--target", type=int, default=100, help="the item to promote")
    parser.add_argument("--boost", type=float, default=3.0, help="times what a popular item is")
    parser.add_argument("--trim", type=float, default=0.1, help="runner.trim")
    parser.add_argument("--clip", type=float, default=None, help="runner.clip_update")
    parser.add_argument("--within", type=float, default=0.01, help="of HR@10 without the attacker")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--timeout", type=count, default=600, metavar="S", help="seconds until a job has hung")
    few = {"attacks": ("absent", "nan", "promote"), "ways": WAYS[:2]}
    return run_benchmark(parser, {"data": None, "epochs": 2, **few}, measure)


if __name__ == "__main__":
    sys.exit(main())
