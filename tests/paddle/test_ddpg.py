"""The tests of ddpg that need Paddle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.coordinator.ddpg_pretraining import pretrain
from fl_rec.coordinator.messages import JOIN, WAIT, ClientReport, Decision, Device
from fl_rec.coordinator.simulation import Recording, SimulatedFleet, permuted_slow_downs
from fl_rec.coordinator.strategies import Fleet, new_strategy
from fl_rec.coordinator.strategies.ddpg import POLICY_NAME, Ddpg
from fl_rec.coordinator.strategies.ddpg_agent import FEATURES, Agent, Options
from fl_rec.errors import ConfigError

PROJECT = Path(__file__).parents[2]
EAGER = True
# Learns from the second round on.
EAGER = Options(batch_size=2, hidden=8)

Reports = Mapping[int, ClientReport]


def recording(clients: int = 3, epochs: int = 20) -> Recording:
    """Clients of 100, 200, ... rows, whose metric rises by a point in every epoch."""
    rising = np.tile(np.linspace(0.4, 0.4 + 0.01 * (epochs - 1), epochs), (clients, 1))
    curves = dict.fromkeys(("train_auc", "test_auc", "hr", "ndcg"), rising)
    rows = np.arange(1, clients + 1) * 100
    return Recording(rows, np.full(clients, 10), 1e-2, {**curves, "train_loss": 1 - rising})


class Told(Ddpg):
    """Keeps what it was told."""

    def decide(self, reports: Reports, round: int) -> Mapping[int, Decision]:
        self.__dict__.setdefault("heard", []).append(reports)
        return super().decide(reports, round)


def shown(decisions: Mapping[int, Decision]) -> list[tuple[int, str, float, str]]:
    return [(client, each.next_state, each.local_epochs, each.reason) for client, each in decisions.items()]


def report(client: int, round: int, **fields: Any) -> ClientReport:
    return ClientReport(client, round, **{"shard_rows": 100, "test_users": 10, **fields})


def with_last_bias(agent: Agent, *bias: float) -> Agent:
    """An actor that gives the same raw actions whatever it sees."""
    arrays = {name: np.array(each) for name, each in agent.arrays().items()}
    arrays["actor.4.weight"][:] = 0
    arrays["actor.4.bias"][:] = bias
    agent.set_arrays(arrays, "a test")
    return agent


def play(options: Options, seed: int = 0, epochs: int = 6, folder: Path | None = None) -> Any:
    strategy = Told(Fleet(3, epochs, seed, folder), options)
    return strategy, SimulatedFleet(recording(), np.array([1.0, 5.0, 10.0]), seed).play(strategy)


def test_replay_gives_the_same_decisions() -> None:
    """A coordinator that was started again shows a new object the recorded reports."""
    strategy, played = play(EAGER)
    assert (strategy.agent.arrays()["actor.0.weight"] != Agent(EAGER, 0).arrays()["actor.0.weight"]).any()
    first, second = (Ddpg(Fleet(3, 6, 0), EAGER) for _ in range(2))
    for round, reports in enumerate(strategy.heard):
        decisions = first.next_round(reports, round)
        assert shown(decisions) == shown(second.next_round(reports, round))
        joined = {client: each.local_epochs for client, each in decisions.items() if each.next_state == JOIN}
        assert joined == (played.rounds[round].joined if round < 6 else {})
    for name, weight in first.agent.arrays().items():
        assert (weight == strategy.agent.arrays()[name]).all(), name


def test_another_seed_decides_otherwise() -> None:
    assert play(EAGER, 0)[1].rounds[0].joined != play(EAGER, 1)[1].rounds[0].joined


def test_somebody_joins_always() -> None:
    """All scores are low; of the two that report, one trains. Client 1 has none in time."""
    agent = with_last_bias(Agent(Options(), 0), -3.0, 0.0)
    strategy = Ddpg(Fleet(3, 20), Options(explore=False), agent)
    decisions = strategy.next_round({0: report(0, 0), 2: report(2, 0)}, 0)
    assert sorted(each.next_state for each in decisions.values()) == [JOIN, WAIT, WAIT]
    assert decisions[1].reason == "no report in time"
    assert decisions[0].reason == decisions[2].reason == "score 0.00"
    for seed in range(5):
        noisy = Ddpg(Fleet(3, 20, seed), Options(noise=1.0, noise_decay=1.0, learn=False), agent)
        played = SimulatedFleet(recording(), np.ones(3)).play(noisy)
        assert len(played.rounds) == 20 and all(each.joined for each in played.rounds)
        assert all(0.1 <= amount <= 2 for each in played.rounds for amount in each.joined.values())


def test_score_and_amount_become_a_decision() -> None:
    """tanh(0.549) is 0.5, a score of 0.75; the amount of tanh(0) is the middle of 0.5 and 2, which is 1."""
    options = Options(explore=False, min_local_epochs=0.5, max_local_epochs=2.0)
    strategy = Ddpg(Fleet(2, 20), options, with_last_bias(Agent(options, 0), math.atanh(0.5), 0.0))
    # Client 1 is 1.6 times as fast.
    reports = {0: report(0, 0), 1: report(1, 0, device=Device(capacity=1.6))}
    decided = shown(strategy.next_round(reports, 0))
    assert [each[:2] + each[3:] for each in decided] == [(0, JOIN, "score 0.75"), (1, JOIN, "score 0.75")]
    assert [each[2] for each in decided] == pytest.approx([1.0, 1.6], rel=1e-5)


def test_reward_is_points_gained_less_time() -> None:
    options = Options(time_weight=0.5, discount=0.81, learn=False, explore=False)
    strategy = Ddpg(Fleet(2, 20), options, with_last_bias(Agent(options, 0), 3.0, 0.0))
    strategy.next_round({0: report(0, 0), 1: report(1, 0)}, 0)
    # Half an epoch of each; an epoch takes 20 and 10 seconds.
    after = {0: report(0, 1, rows=50, seconds=10.0, hr=0.4), 1: report(1, 1, rows=50, seconds=5.0, hr=0.4)}
    strategy.next_round(after, 1)
    # The metric before the first round is not known; its time is 10 of 20 seconds.
    assert strategy.total_reward == pytest.approx(-0.5 * 0.5)
    after = {
        0: report(0, 2, rows=100, seconds=20.0, hr=0.45),
        1: report(1, 2, hr=0.41, test_users=30),  # waited
    }
    strategy.next_round(after, 2)
    # From 0.4 to 0.42, two points, in 20 of 20 seconds; half a round of join_all discounts by the root of 0.81.
    assert strategy.total_reward == pytest.approx(-0.25 + 0.9 * (2.0 - 0.5 * 1.0))


def test_policy_survives_saving_and_loading(tmp_path: Path) -> None:
    strategy, _ = play(EAGER, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [POLICY_NAME]
    quiet: dict[str, Any] = {"learn": False, "explore": False, "hidden": 8}
    saved = new_strategy("ddpg", {"policy": POLICY_NAME, **quiet}, Fleet(3, 6, 99), tmp_path)
    assert isinstance(saved, Ddpg)
    for name, weight in strategy.agent.arrays().items():
        assert weight.dtype == np.float32 and (weight == saved.agent.arrays()[name]).all(), name
    again = Ddpg(Fleet(3, 6, 99), Options(learn=False, explore=False, hidden=8), strategy.agent)
    for round, reports in enumerate(strategy.heard[:3]):
        assert shown(saved.next_round(reports, round)) == shown(again.next_round(reports, round))


def test_reports_of_nothing() -> None:
    """Empty shards, rows trained in no time, nobody at all."""
    strategy = Ddpg(Fleet(2, 20), EAGER)
    told: list[Reports] = [
        {0: report(0, 0, shard_rows=0), 1: report(1, 0, shard_rows=0)},
        {0: report(0, 1, shard_rows=0), 1: report(1, 1, rows=5, seconds=0.0, hr=0.1)},
        {},
        {1: report(1, 3, hr=0.2)},
    ]
    decided = [strategy.next_round(reports, round) for round, reports in enumerate(told)]
    joined = [[client for client, each in one.items() if each.next_state == JOIN] for one in decided]
    assert all(joined[:2]) and joined[2:] == [[], [1]]
    assert math.isfinite(strategy.total_reward)


def test_without_learning_nothing_changes_and_nothing_is_saved(tmp_path: Path) -> None:
    strategy, _ = play(EAGER.model_copy(update={"learn": False}), folder=tmp_path)
    for name, weight in Agent(EAGER, 0).arrays().items():
        assert (weight == strategy.agent.arrays()[name]).all()
    assert not list(tmp_path.iterdir())


def spoiled(path: Path, **changes: Any) -> Path:
    Agent(Options(hidden=8), 0).save(path)
    with np.load(path) as file:
        content = {**{name: file[name] for name in file.files}, **changes}
    np.savez(path, **content)
    return path


def refusal(policy: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        new_strategy("ddpg", {"policy": str(policy), "hidden": 8, **options}, Fleet(3, 6))
    return str(caught.value)


def test_policy_that_is_damaged(tmp_path: Path) -> None:
    path = spoiled(tmp_path / "policy.npz")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(content)
        assert "must be a policy that ddpg or tools/pretrain_ddpg.py wrote" in refusal(path)
    assert "leave the key out to start untrained" in refusal(tmp_path / "none.npz")
    assert "Received: " in refusal(spoiled(path, objects=np.array([{}], dtype=object)))


def test_policy_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    assert "must be of version 1" in refusal(spoiled(path, version=9))
    assert "version 1, ['loss', 'other']. Make it anew" in refusal(spoiled(path, features=np.array(["loss", "other"])))
    wanted = f"actor.0.bias [16]. Received: {path}, [8]. Set them as they were when it was learned"
    assert wanted in refusal(spoiled(path), hidden=16)
    assert "actor.0.weight [40, 8]" in refusal(path, dense_field="weights")
    bias = np.full(8, np.nan, np.float32)
    assert "must be finite float32" in refusal(spoiled(path, **{"actor.0.bias": bias}))


def test_limits_that_contradict_one_another() -> None:
    with pytest.raises(ConfigError, match="must not be above options.max_local_epochs. Received: 1 and 0.5"):
        Ddpg(Fleet(3, 6), Options(min_local_epochs=1.0, max_local_epochs=0.5))


def test_dense_field_is_projected() -> None:
    options = Options(dense_field="weights", dense_size=4, explore=False)
    agent = Agent(options, 0)
    assert agent.features == len(FEATURES) + 4
    field = np.arange(6, dtype=np.float32).reshape(2, 3)

    def state(weights: np.ndarray, seed: int = 0) -> np.ndarray:
        strategy = Ddpg(Fleet(2, 6, seed), options, agent)
        strategy.next_round({0: report(0, 0, extra={"weights": weights}), 1: report(1, 0)}, 0)
        assert strategy._before is not None
        return strategy._before[0][:, len(FEATURES) :]

    assert np.abs(state(field)[0]).min() > 0 and (state(field)[1] == 0).all()
    assert (state(field) == state(field)).all()
    assert state(3 * field) == pytest.approx(state(field), rel=1e-5)  # its size tells nothing
    assert (state(field) != state(field, seed=1))[0].all()


def test_policy_does_not_depend_on_the_order_of_clients() -> None:
    agent = Agent(Options(), 0)
    state = np.random.default_rng(0).standard_normal((5, len(FEATURES))).astype(np.float32)
    order = np.array([3, 1, 4, 0, 2])
    assert agent.act(state[order]) == pytest.approx(agent.act(state)[order], abs=1e-5)


def test_it_learns() -> None:
    """Time costs four times what it is worth: to train as little as possible is best, and untrained it does not."""
    told: list[tuple[int, float]] = []
    options = Options(batch_size=32, updates=2, hidden=16, time_weight=4.0, actor_learning_rate=2e-3)
    agent = pretrain([recording(3)], 12, 0, options, every=4, progress=lambda *each: told.append(each))
    assert [episode for episode, _ in told] == [0, 4, 8, 12]
    rewards = {}
    for name, tried in (("untrained", Agent(options, 0)), ("trained", agent)):
        total = 0.0
        for seed in range(3):
            quiet = options.model_copy(update={"learn": False, "explore": False})
            strategy = Ddpg(Fleet(3, 30, seed), quiet, tried)
            SimulatedFleet(recording(3), permuted_slow_downs(3, seed), seed).play(strategy)
            total += strategy.total_reward / 3
        rewards[name] = total
    assert rewards["trained"] > rewards["untrained"] + 1, rewards


def test_shipped_policy_is_small_and_of_use() -> None:
    path = PROJECT / "configs" / "ddpg_policy.npz"
    assert path.stat().st_size < 200_000
    recorded = Recording.read(PROJECT / "benchmarks" / "recorded" / "metrics_join_all.jsonl")
    untrained = {"learn": False, "explore": False}
    compared = {"join_all": {}, "random_k": {}, "utility": {}, "ddpg": {"policy": str(path)}, "untrained": untrained}
    seconds = {}
    for name, options in compared.items():
        plays = (
            SimulatedFleet(recorded, permuted_slow_downs(10, seed), seed).play(
                new_strategy("ddpg" if name == "untrained" else name, options, Fleet(10, 60, seed)), 0.55
            )
            for seed in range(3)
        )
        ends = [played.reached(0.55) for played in plays]
        seconds[name] = np.mean([end.seconds for end in ends if end is not None])
        assert all(ends)
    # benchmarks/scheduling.py has the figures.
    assert seconds["ddpg"] < 0.7 * min(seconds["join_all"], seconds["random_k"])
    assert seconds["ddpg"] < seconds["utility"] and seconds["ddpg"] < seconds["untrained"]
