"""Compares the strategies on simulated fleets: how long until the common model is as good as wanted?

python benchmarks/scheduling.py

Ten clients whose shards and learning curves are those of a recorded run, and whose speeds are 1 to 10, dealt anew for
each seed (`fl_rec.coordinator.simulation`, which says what the model leaves out). Every strategy has its defaults and
meets the same fleets and the same noise. ddpg starts from configs/ddpg_policy.npz, which has learned from fleets of
other seeds, and goes on learning; `ddpg untrained` shows what its action's form alone is worth. With --pretrain it
starts from a policy made now. With --quick the figures mean little.

A target is a share of what join_all reaches at the end of the recorded run: 95 %, and 90 % as a lower one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import PROJECT, Report, count, new_parser, ratio, run_benchmark, say, titled_table

# isort: split
import numpy as np

from fl_rec.coordinator.ddpg_pretraining import EPISODES, pretrain
from fl_rec.coordinator.simulation import Play, Recording, SimulatedFleet, permuted_slow_downs
from fl_rec.coordinator.strategies import Fleet, new_strategy
from fl_rec.tables import figure

RECORD = PROJECT / "benchmarks" / "recorded" / "metrics_join_all.jsonl"
POLICY = PROJECT / "configs" / "ddpg_policy.npz"
SHARES = (0.95, 0.90)
# More than any strategy needs; who does not get there has no time.
ROUNDS = 100
# The most that ddpg may need of another's time.
BOUNDS = {"join_all": 0.7, "random_k": 0.7, "utility": 1.0}


@dataclass(frozen=True)
class Result:
    """What a strategy needed for a target, over the seeds.

    Attributes:
        seconds: simulated, mean; None if it missed the target with any seed.
        spread: standard deviation of them.
        rounds: mean.
        work: rows trained, as share of those of as many rounds of join_all; mean.
    """

    seconds: float | None = None
    spread: float | None = None
    rounds: float | None = None
    work: float | None = None

    @classmethod
    def of(cls, plays: Sequence[Play], target: float) -> Result:
        ends = [end for end in (play.reached(target) for play in plays) if end is not None]
        if len(ends) < len(plays):
            return cls()
        seconds = [end.seconds for end in ends]
        return cls(
            statistics.mean(seconds),
            statistics.pstdev(seconds),
            statistics.mean(end.round + 1 for end in ends),
            statistics.mean(end.epochs / (end.round + 1) for end in ends),
        )


def measure(args: argparse.Namespace, folder: Path) -> Report:
    recording = Recording.read(args.record)
    policy = args.policy
    if args.pretrain:
        policy = folder / "policy.npz"
        pretrain(
            [recording],
            args.pretrain,
            progress=lambda episode, reward: say(f"pretrain  episode {episode}, reward {reward:.2f}"),
        ).save(policy)
    strategies: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        **{name: (name, {}) for name in ("join_all", "random_k", "resource_aware", "utility")},
        "ddpg untrained": ("ddpg", {"learn": False, "explore": False}),
        "ddpg": ("ddpg", {"policy": str(policy)}),
    }
    last = recording.metrics_at(np.full(recording.clients, float(recording.epochs)))["hr"]
    reached = float(np.average(last, weights=recording.test_users))
    plays: dict[str, list[Play]] = {name: [] for name in strategies}
    for name, (strategy, options) in strategies.items():
        say(f"play      {name}")
        for seed in range(args.seeds):
            fleet = SimulatedFleet(recording, permuted_slow_downs(recording.clients, seed), seed)
            made = new_strategy(strategy, options, Fleet(recording.clients, ROUNDS, seed))
            plays[name].append(fleet.play(made, SHARES[0] * reached))
    targets = [round(share * reached, 4) for share in SHARES]
    results = {target: {name: Result.of(each, target) for name, each in plays.items()} for target in targets}
    text = [_table(target, results[target]) for target in targets]
    checks = _checks(results[targets[0]])
    shares = (
        f"{figure(each['ratio'], '.0%')} of {name}'s (at most {each['bound']:.0%}: {'yes' if each['holds'] else 'NO'})"
        for name, each in checks.items()
    )
    text.append("ddpg's time to the higher target: " + "; ".join(shares))
    start = f"{args.pretrain} episodes of pre-training now" if args.pretrain else Path(policy).name
    text.append(f"ddpg's policy: {start}; {args.seeds} seeds")
    figures = {
        "record": args.record.name,
        "policy": start,
        "seeds": args.seeds,
        "targets": [
            {"hr": target, **{name: vars(result) for name, result in results[target].items()}} for target in targets
        ],
        "checks": checks,
    }
    return Report("\n\n".join(text), figures, [])


def _table(target: float, results: Mapping[str, Result]) -> str:
    join_all = results["join_all"].seconds
    return titled_table(
        f"simulated time to HR@10 of {target:.4f}",
        ["strategy", "seconds", "+-", "of join_all", "rounds", "work"],
        [
            [
                name,
                figure(each.seconds, ",.0f"),
                figure(each.spread, ",.0f"),
                figure(ratio(each.seconds, join_all), ".0%"),
                figure(each.rounds, ".1f"),
                figure(each.work, ".0%"),
            ]
            for name, each in results.items()
        ],
    )


def _checks(results: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
    """Whether ddpg is as fast as it should be."""
    shares = {name: ratio(results["ddpg"].seconds, results[name].seconds) for name in BOUNDS}
    return {
        name: {"ratio": share, "bound": BOUNDS[name], "holds": share is not None and share <= BOUNDS[name]}
        for name, share in shares.items()
    }


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--record", type=Path, default=RECORD, metavar="PATH", help="a run directory or metrics.jsonl")
    parser.add_argument("--policy", type=Path, default=POLICY, metavar="POLICY.npz", help="that ddpg starts from")
    parser.add_argument(
        "--pretrain", type=int, nargs="?", const=EPISODES, metavar="EPISODES", help="make a policy now instead"
    )
    parser.add_argument("--seeds", type=count, default=5, metavar="N", help="deals of the speeds (default: 5)")
    return run_benchmark(parser, {"seeds": 1}, measure)


if __name__ == "__main__":
    sys.exit(main())
