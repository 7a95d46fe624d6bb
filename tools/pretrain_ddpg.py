"""Teaches the strategy ddpg a policy on simulated fleets of recorded runs, without any training job.

    python tools/pretrain_ddpg.py --record runs/NAME --out policy.npz

A record is a run directory or a metrics.jsonl of a run without a coordinator. `coordinator.options.policy` names the
policy in a configuration. That of configs/ was made on one core in about ten minutes by

    python tools/pretrain_ddpg.py --record benchmarks/recorded/metrics_join_all.jsonl --out configs/ddpg_policy.npz
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.errors import FLRecError, packages_needed

with packages_needed():
    from fl_rec.coordinator.ddpg_pretraining import EPISODES, pretrain
    from fl_rec.coordinator.simulation import Recording


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, nargs="+", required=True, metavar="PATH", help="runs to simulate")
    parser.add_argument("--out", type=Path, required=True, metavar="POLICY.npz", help="the policy to write")
    parser.add_argument("--episodes", type=int, default=EPISODES, help=f"plays to learn from (default: {EPISODES})")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    options = parser.parse_args(arguments)
    try:
        records = [Recording.read(path) for path in options.record]
        agent = pretrain(records, options.episodes, options.seed, progress=show)
        agent.save(options.out)
    except (FLRecError, OSError) as err:
        print(f"pretrain_ddpg.py: error: {err}", file=sys.stderr)
        return 2
    print(f"written: {options.out}")
    return 0


def show(episode, reward):
    print(f"episode {episode}: reward {reward:.2f} on fleets that it does not learn from", flush=True)


if __name__ == "__main__":
    sys.exit(main())
