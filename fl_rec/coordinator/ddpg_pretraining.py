"""Teaches ddpg a policy on simulated fleets, before it decides for a real one. Paddle is imported when it starts.

What fleets it meets is drawn anew for every episode: which client has which speed, how the metric hangs on who trains
(`locality` and `participation` of `simulation`), and how many rounds there are. So the policy is of use beyond one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fl_rec.coordinator.simulation import Recording, SimulatedFleet, permuted_slow_downs
from fl_rec.coordinator.strategies.base import Fleet
from fl_rec.coordinator.strategies.ddpg import Ddpg
from fl_rec.coordinator.strategies.ddpg_agent import Agent, Options

# Seeds of speeds from here on are for pre-training; a comparison of strategies takes smaller ones.
FIRST_SEED = 1_000_000


EPISODES = 500


VALIDATION_FLEETS = 6


ROUNDS = (20, 40, 80)


LOCALITY, PARTICIPATION = (0.2, 0.6), (0.15, 0.5)


# Exploration of the first and of the last episode.
NOISE = (0.5, 0.05)


def fleets(recordings: Sequence[Recording], seed: int) -> Iterator[tuple[SimulatedFleet, Fleet]]:
    """Fleets to learn on without end, each with the `Fleet` that its strategy decides for."""
    random = np.random.default_rng([FIRST_SEED, seed])
    while True:
        recording = recordings[int(random.integers(len(recordings)))]
        number = int(random.integers(FIRST_SEED, 2**31))
        simulated = SimulatedFleet(
            recording,
            permuted_slow_downs(recording.clients, number),
            seed=number,
            locality=float(random.uniform(*LOCALITY)),
            participation=float(random.uniform(*PARTICIPATION)),
        )
        yield simulated, Fleet(recording.clients, int(random.choice(ROUNDS)), number)


def pretrain(
    recordings: Sequence[Recording],
    episodes: int,
    seed: int = 0,
    options: Options | None = None,
    every: int = 10,
    progress: Callable[[int, float], None] = lambda _episode, _reward: None,
) -> Agent:
    """Learns from episodes, and keeps the policy that did best on fleets that it does not learn from.

    Args:
        recordings: runs to simulate.
        episodes: plays of one fleet each.
        seed: of everything random.
        options: of the strategy; None for its defaults, with larger batches. Noise is set here.
        every: episodes between two validations.
        progress: told of (episodes done, mean reward of a validation play) at each validation, the untrained policy's
            first.
    """
    given = options or Options(batch_size=64, updates=2)
    options = given.model_copy(update={"policy": None, "learn": True, "explore": True, "noise_decay": 1.0})
    agent, training, others = Agent(options, seed), fleets(recordings, seed), fleets(recordings, seed + FIRST_SEED)
    validation = [next(others) for _ in range(VALIDATION_FLEETS)]
    best, kept = -np.inf, _copy(agent.arrays())
    for episode in range(episodes + 1):
        if episode % every == 0 or episode == episodes:
            quiet = options.model_copy(update={"learn": False, "explore": False})
            reward = float(np.mean([_play(agent, quiet, *each) for each in validation]))
            progress(episode, reward)
            if reward > best:
                best, kept = reward, _copy(agent.arrays())
        if episode < episodes:
            noise = float(np.interp(episode, (0, episodes), NOISE))
            _play(agent, options.model_copy(update={"noise": noise}), *next(training))
    agent.set_arrays(kept, "the best of this pre-training")
    return agent


def _play(agent: Agent, options: Options, simulated: SimulatedFleet, fleet: Fleet) -> float:
    """The discounted sum of rewards."""
    strategy = Ddpg(fleet, options, agent)
    simulated.play(strategy)
    return strategy.total_reward


def _copy(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(each) for name, each in arrays.items()}
