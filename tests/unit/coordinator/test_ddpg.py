"""The strategy ddpg and its pre-training. What needs Paddle is in tests/paddle."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from fl_rec.coordinator.ddpg_pretraining import EPISODES, FIRST_SEED, VALIDATION_FLEETS, fleets
from fl_rec.coordinator.simulation import Recording, permuted_slow_downs
from fl_rec.coordinator.strategies.ddpg_agent import Options

PROJECT = Path(__file__).parents[3]
RECORD = PROJECT / "benchmarks" / "recorded" / "metrics_join_all.jsonl"
DEADLINE = 180.0


def test_modules_need_no_paddle() -> None:
    code = (
        "import sys, fl_rec.coordinator.ddpg_pretraining, fl_rec.coordinator.strategies.ddpg\n"
        "sys.exit('paddle' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, timeout=DEADLINE).returncode == 0


@pytest.mark.parametrize(
    ("amount", "expected"),
    # Seconds of an epoch are 1, 0.5 and 0.01 of the slowest's.
    [(-1, [0.1, 0.2, 2.0]), (0, [np.sqrt(0.2), 2 * np.sqrt(0.2), 2.0]), (1, [2.0, 2.0, 2.0])],
)
def test_one_amount_is_the_same_time_for_all_within_limits(amount: float, expected: list[float]) -> None:
    needed = np.array([1.0, 0.5, 0.01])
    assert Options().local_epochs(np.full(3, amount), needed) == pytest.approx(expected)


def test_fleets_of_pre_training_are_none_of_the_benchmark() -> None:
    recording = Recording.read(RECORD)
    compared = {tuple(permuted_slow_downs(10, seed)) for seed in range(100)}
    # As many as the shipped policy has seen.
    learned = {tuple(simulated.slow_downs) for simulated, _ in islice(fleets([recording], 0), EPISODES)}
    others = fleets([recording], FIRST_SEED)
    validated = {tuple(simulated.slow_downs) for simulated, _ in islice(others, VALIDATION_FLEETS)}
    assert (len(learned), len(validated)) == (EPISODES, VALIDATION_FLEETS)
    assert not compared & (learned | validated) and not learned & validated
