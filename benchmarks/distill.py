"""What distillation gives a small net, beside the same net without it, on the same shards and test users.

python benchmarks/distill.py --data datasets/movielens/public/fl_data --record distill.jsonl

alone      --config without a coordinator and without the public users: each student knows its own shard
labels     the same with the public users' rows and their labels, which teach too; no teacher
distilled  --config as it is

No parameter is shared in any of them (runner.private_params). The figures are means over --seeds seeds, with the sample
standard deviation. With --record, what was measured before, of the same configuration, data and options, is not
measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import (
    CONFIG,
    METRICS,
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
from quality import Job, Outcome, Record, Table, digest, read_outcome, total

# isort: split
import numpy as np

from fl_rec.coordinator.rounds import RoundLog
from fl_rec.data.manifest import Manifest
from fl_rec.errors import RunError
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import figure

DISTILL = CONFIG.with_name("config_fl_distill.yaml")
KINDS: Mapping[str, Mapping[str, Any]] = {
    "alone": {"distillation.proxy_data_dir": None},
    "labels": {},
    "distilled": {},
}
MIB = 1 << 20
# What the project sets itself.
LEAST_GAIN, LARGEST_MESSAGE, LARGEST_STUDENT = 0.01, MIB, 0.25


def measure(args: argparse.Namespace, folder: Path) -> Report:
    data = open_data(args.data, folder, config=args.config)
    record = Record(args.record)
    outcomes: list[Outcome] = []
    failures: list[str] = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for kind in KINDS:
            keys = {"runner.seed": seed, **KINDS[kind], **({"runner.epochs": args.epochs} if args.epochs else {})}
            if args.start:
                keys["coordinator.options"] = {"start": args.start}
            job = Job(kind, seed, None, args.config, keys)
            outcome = _play(job, data, record, folder, args.timeout, failures)
            if outcome is None:
                continue
            outcomes.append(outcome)
            figures = ", ".join(f"{shown} {total(outcome.scores, name):.4f}" for name, shown in METRICS.items())
            say(f"job       {job.name}: {figures} ({outcome.minutes:.1f} minutes)")
    sizes: dict[str, float] = {}
    for each in outcomes:  # the largest of all seeds
        sizes.update({name: max(value, sizes.get(name, 0)) for name, value in each.sizes.items()})
    table = Table(
        {kind: [each.scores for each in outcomes if each.kind == kind] for kind in KINDS},
        data.num_shards,
    )
    found_figures = {
        **describe_data(data),
        "config": args.config.name,
        "public_users": data.public.users if data.public else 0,
        "first_seed": args.first_seed,
        "seeds": args.seeds,
        "table": table.to_record(),
        **sizes,
    }
    conclusions = conclude(table, sizes)
    title = "{source}: {train_rows:,} training rows, {workers} shards, {public_users} public users, {seeds} seed(s)"
    text = "\n\n".join([table.format(title.format(**found_figures)), _sizes_table(sizes), "\n".join(conclusions)])
    return Report(text, {**found_figures, "conclusions": conclusions}, failures)


def _play(
    job: Job, data: Manifest, record: Record, folder: Path, timeout: float, failures: list[str]
) -> Outcome | None:
    """What a job has measured, with the sizes of its messages and nets if it has had a coordinator."""
    key = digest(job, data)
    outcome = record.find((job.kind, job.seed, None, key))
    if outcome is not None:
        return outcome
    path = folder / job.name
    distills = job.kind == "distilled"
    done = run_job(path, data, job.overrides, timeout, coordinators=int(distills), config=job.config)
    try:
        if done.failure:
            raise RunError(done.failure)
        outcome = read_outcome(job, RunDirectory(path), key, done.seconds, None)
        if distills:
            outcome = dataclasses.replace(outcome, sizes=_sizes(RunDirectory(path)))
    except RunError as err:
        failures.append(str(err))
        say(f"job       {err}")
        return None
    record.add(outcome)
    return outcome


def _sizes(run: RunDirectory) -> dict[str, float]:
    """Sizes of messages, per round and client, and of both nets."""
    rounds = list(RoundLog(run.rounds))
    up = [size for each in rounds for size in each.report_bytes.values()]
    down = [size for each in rounds for size in each.decision_bytes.values()]
    both = [each.report_bytes[client] + each.decision_bytes[client] for each in rounds for client in each.report_bytes]
    with np.load(run.coordinator / "teacher.npz") as file:
        teacher = {name: file[name].shape for name in file.files}
    result = json.loads(run.result.read_text(encoding="utf-8"))
    with np.load(run.path / result["model"] / "private" / "0.npz") as file:
        names = [name[: -len("/values")] for name in file.files if name.endswith("/values")]
        widths = {name: file[f"{name}/values"].shape[1:] for name in names}
    rows = {name: teacher[name][0] for name in names}
    return {
        "largest_up_bytes": max(up),
        "largest_down_bytes": max(down),
        "largest_round_bytes": max(both),
        "student_parameters": sum(rows[name] * int(np.prod(widths[name])) for name in names),
        "teacher_parameters": sum(int(np.prod(teacher[name])) for name in names),
    }


def _sizes_table(sizes: Mapping[str, float]) -> str:
    def kib(name: str) -> str:
        return figure(sizes[name] / 1024 if name in sizes else None, ",.0f")

    lines = [
        ["largest report", kib("largest_up_bytes"), "KiB"],
        ["largest decision", kib("largest_down_bytes"), "KiB"],
        ["both, of one client in one round", kib("largest_round_bytes"), "KiB"],
        ["student", figure(sizes.get("student_parameters"), ",.0f"), "parameters"],
        ["teacher", figure(sizes.get("teacher_parameters"), ",.0f"), "parameters"],
    ]
    return titled_table("messages and nets", ["what", "size", "unit"], lines)


def conclude(table: Table, sizes: Mapping[str, float]) -> list[str]:
    """What the figures say, one sentence each."""
    sentences = []
    for other in ("alone", "labels"):
        gain = table.difference("distilled", other, "hr")
        if gain is None:
            continue
        worst = {kind: min(table.mean(kind, "hr", shard) or 0.0 for shard in table.shards) for kind in table.kinds}
        verdict = "holds" if gain >= LEAST_GAIN else "is not reached"
        rule = f"; the rule, {LEAST_GAIN:+.3f} or more, {verdict}" if other == "alone" else ""
        sentences.append(
            f"Distilled minus {other} in {METRICS['hr']}: {gain:+.4f}{rule}. The worst shard: "
            f"{worst['distilled']:.4f} against {worst[other]:.4f}; better on "
            f"{sum(table.better('distilled', other, 'hr') or [])} of {len(table.shards)} shards."
        )
    if sizes:
        share = sizes["student_parameters"] / sizes["teacher_parameters"]
        sentences.append(
            f"The student has {share:.0%} of the teacher's parameters, at most {LARGEST_STUDENT:.0%}: "
            f"{'holds' if share <= LARGEST_STUDENT else 'is broken'}. The messages of one client in one round take "
            f"{sizes['largest_round_bytes'] / MIB:.2f} MiB, below 1: "
            f"{'holds' if sizes['largest_round_bytes'] < LARGEST_MESSAGE else 'is broken'}."
        )
    return sentences


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser, DISTILL)
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="(default: 3; --quick: 1)")
    parser.add_argument("--first_seed", type=count, default=2022, metavar="N", help="(default: 2022)")
    parser.add_argument("--epochs", type=count, metavar="N", help="(default: the configuration's; --quick: 3)")
    parser.add_argument("--start", type=count, metavar="N", help="(default: the configuration's; --quick: 1)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="add each job's figures to it, and take known ones")
    parser.add_argument("--timeout", type=count, default=3600, metavar="S", help="of one job (default: an hour)")
    return run_benchmark(parser, {"data": None, "seeds": 1, "epochs": 3, "start": 1}, measure)


if __name__ == "__main__":
    sys.exit(main())
