"""The simulated fleet: its times and metrics against closed forms, and what its clients report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.coordinator.messages import FINISH, JOIN, WAIT, ClientReport, Decision
from fl_rec.coordinator.simulation import (
    LEAST_SHARE,
    Recording,
    SimulatedFleet,
    permuted_slow_downs,
    progress,
)
from fl_rec.coordinator.strategies import Fleet, Strategy, new_strategy
from fl_rec.errors import DataError

RECORD = Path(__file__).parents[3] / "benchmarks" / "recorded" / "metrics_join_all.jsonl"
ROWS, USERS = [100, 200, 300], [1, 1, 2]
HR = [[0.1, 0.3, 0.2, 0.4], [0.2, 0.2, 0.4, 0.6], [0.0, 0.2, 0.4, 0.6]]
NOISELESS = {"time_noise": 0.0, "loss_noise": 0.0, "overhead": 5.0}

Reports = Mapping[int, ClientReport]


class Scripted(Strategy):
    """Does what `plan` says, and keeps what it was told."""

    plan: Callable[[int], Mapping[int, Decision]]

    def decide(self, reports: Reports, round: int) -> Mapping[int, Decision]:
        self.__dict__.setdefault("heard", []).append(reports)
        return type(self).plan(round)


def lines() -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch + 1,
            "client": client,
            "rows": ROWS[client],
            "seconds": ROWS[client] * 0.5,
            "train_loss": 0.6 - 0.1 * epoch,
            "train_auc": 0.7,
            "test_auc": 0.8,
            "test_users": USERS[client],
            "hr": HR[client][epoch],
            "ndcg": HR[client][epoch] / 2,
        }
        for client in range(3)
        for epoch in range(4)
    ]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in [*records, {"epoch": 1, "client": "all"}]))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording.read(write(tmp_path / "metrics.jsonl", lines()))


def fleet_of(recording: Recording, **settings: Any) -> SimulatedFleet:
    return SimulatedFleet(recording, np.array([4.0, 1.0, 2.0]), **{**NOISELESS, **settings})


def scripted(plan: Callable[[int], Mapping[int, Decision]], epochs: int) -> Any:
    return type("Plan", (Scripted,), {"plan": staticmethod(plan)})(Fleet(3, epochs))


def test_recording(recording: Recording, tmp_path: Path) -> None:
    assert (recording.clients, recording.epochs, recording.seconds_per_row) == (3, 4, 0.5)
    assert recording.rows.tolist() == ROWS and recording.test_users.tolist() == USERS
    # A dip is evened out by what is before and after it.
    assert recording.curves["hr"][0] == pytest.approx([0.1, 0.25, 0.25, 0.4])
    assert recording.curves["train_loss"][1] == pytest.approx([0.6, 0.5, 0.4, 0.3])
    assert Recording.read(tmp_path).seconds_per_row == 0.5  # a run directory


def test_curves_are_linear_between_epochs_and_flat_outside(recording: Recording) -> None:
    assert recording.metrics_at(np.array([1.5, 3.25, 9.0]))["hr"] == pytest.approx([0.175, 0.45, 0.6])
    assert recording.metrics_at(np.array([0.0, 0.5, 1.0]))["hr"] == pytest.approx([0.1, 0.2, 0.0])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda records: records[:-1],
        lambda records: [*records[:-1], {**records[-1], "rows": 10}],
        lambda records: [*records[:-1], {**records[-1], "hr": None}],
        lambda records: [each for each in records if each["client"]],
        lambda records: [{"client": 0}],
        lambda records: [],
    ],
)
def test_record_that_no_fleet_can_be_made_of(tmp_path: Path, spoil: Callable[[Any], Any]) -> None:
    path = write(tmp_path / "metrics.jsonl", spoil(lines()))
    with pytest.raises(DataError, match=r"Received: .*metrics\.jsonl"):
        Recording.read(path)


def test_missing_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Give a run directory or a metrics.jsonl of a run that ended"):
        Recording.read(tmp_path)


def test_one_slow_down_for_each_client(recording: Recording) -> None:
    with pytest.raises(DataError, match="one slow-down for each of its 3 recorded clients. Received: 2"):
        SimulatedFleet(recording, np.ones(2))


def test_join_all_in_closed_form(recording: Recording) -> None:
    play = fleet_of(recording).play(new_strategy("join_all", {}, Fleet(3, 4)))
    # The slowest has 300 rows of 0.5 s, twice as slow: 300 s, and 5 s of overhead.
    assert [each.seconds for each in play.rounds] == pytest.approx([305, 610, 915, 1220])
    assert [each.epochs for each in play.rounds] == pytest.approx([1, 2, 3, 4])
    # Weighted by test users 1, 1, 2.
    assert [each.metric for each in play.rounds] == pytest.approx([0.075, 0.2125, 0.3625, 0.55])
    assert play.reached(0.3) == play.rounds[2] and play.reached(0.6) is None


def test_transfer_takes_time_too(recording: Recording) -> None:
    fleet = fleet_of(recording, bytes_per_row=100.0, bandwidth=50.0)
    assert fleet.epoch_seconds().tolist() == [200 + 200, 100 + 400, 300 + 600]
    strategy = scripted(lambda round: {1: Decision(JOIN)}, 1)
    assert fleet.play(strategy).rounds[0].seconds == pytest.approx(505)
    last = strategy.heard[1][1]
    assert (last.bytes_sent, last.bytes_received, last.device.bandwidth) == (10000, 10000, 50.0)


def test_play_ends_at_the_target(recording: Recording) -> None:
    play = fleet_of(recording).play(new_strategy("join_all", {}, Fleet(3, 4)), target=0.3)
    assert len(play.rounds) == 3


def test_progress() -> None:
    rows = np.array([100, 200, 300])
    assert progress(np.zeros(3), rows, 0.4, 0.25).tolist() == [0, 0, 0]
    assert progress(np.full(3, 0.5), rows, 0.4, 0.25) == pytest.approx([0.5, 0.5, 0.5])
    # Five sixths of the rows, all of them once.
    some = progress(np.array([0.0, 1.0, 1.0]), rows, 0.4, 0.25)
    assert np.average(some, weights=rows) == pytest.approx((5 / 6) ** 0.25)
    assert some[0] == pytest.approx(0.6 * (5 / 6) ** 0.25)
    assert some[1] == some[2] == pytest.approx((0.6 + 0.4 * 6 / 5) * (5 / 6) ** 0.25)
    # Of fewer rows than any round that the model was fitted to: in proportion.
    few = progress(np.array([1.0, 0.0, 0.0]), rows, 0.0, 0.25)
    assert few == pytest.approx([LEAST_SHARE**0.25 * (1 / 6) / LEAST_SHARE] * 3)


@pytest.mark.parametrize("locality", [0.0, 1.0])
def test_locality(recording: Recording, locality: float) -> None:
    """Client 1 alone trains 3 epochs of its 200 of 600 rows, one epoch of the fleet; then 1.5 more of it."""
    amounts = [3.0, 1.5]
    strategy = scripted(lambda round: {1: Decision(JOIN, local_epochs=amounts[round])} if round < 2 else {}, 2)
    play = fleet_of(recording, locality=locality, participation=1.0).play(strategy)
    assert [each.epochs for each in play.rounds] == pytest.approx([1.0, 1.5])
    first, second = ([each[client].hr for client in range(3)] for each in strategy.heard[1:])
    assert first == pytest.approx([0.1, 0.4, 0.0] if locality else [0.1, 0.2, 0.0])
    assert second == pytest.approx([0.1, 0.6, 0.0] if locality else [0.175, 0.2, 0.1])


def test_reports_are_those_of_real_clients(recording: Recording) -> None:
    strategy = scripted(lambda round: {0: Decision(JOIN, local_epochs=0.5), 2: Decision(WAIT)}, 1)
    fleet_of(recording).play(strategy)
    start, end = strategy.heard
    assert all(math.isnan(each.hr) and math.isnan(each.train_loss) and not each.trained for each in start.values())
    assert [each.shard_rows for each in start.values()] == ROWS
    assert [each.device.capacity for each in start.values()] == [0.25, 1.0, 0.5]
    assert (end[0].rows, end[0].seconds, end[0].round) == (50, pytest.approx(100), 1)
    assert end[0].train_loss == pytest.approx(0.6)
    assert (end[2].rows, end[2].seconds, end[2].hr, end[2].test_users) == (0, 0.0, 0.0, 2)
    assert math.isnan(end[2].train_loss) and math.isnan(end[2].train_auc)


def test_finished_clients_report_no_more(recording: Recording) -> None:
    strategy = scripted(lambda round: {0: Decision(FINISH), 1: Decision(JOIN if round < 2 else FINISH)}, 9)
    play = fleet_of(recording).play(strategy)
    assert [sorted(each) for each in strategy.heard[:3]] == [[0, 1, 2], [1, 2], [1, 2]]
    assert [dict(each.joined) for each in play.rounds[:3]] == [{1: 1.0}, {1: 1.0}, {}]
    everyone = scripted(lambda round: dict.fromkeys(range(3), Decision(FINISH)), 9)
    assert not fleet_of(recording).play(everyone).rounds


def test_noise_is_seeded_and_the_same_for_every_strategy(recording: Recording) -> None:
    settings: dict[str, Any] = {"time_noise": 0.2, "loss_noise": 0.1, "overhead": 0.0}

    def play(seed: int, clients: tuple[int, ...] = (0, 1, 2)) -> Any:
        strategy = scripted(lambda round: dict.fromkeys(clients, Decision(JOIN)), 200)
        fleet_of(recording, seed=seed, **settings).play(strategy)
        return strategy.heard[1:]

    seconds = np.array([[report.seconds for report in each.values()] for each in play(1)])
    again = np.array([[report.seconds for report in each.values()] for each in play(1)])
    assert (seconds == again).all()
    assert [each[1].seconds for each in play(1, (1,))] == seconds[:, 1].tolist()
    assert [each[1].seconds for each in play(2)] != seconds[:, 1].tolist()
    assert np.log(seconds / [200, 100, 300]).std() == pytest.approx(0.2, rel=0.1)
    losses = np.array([each[0].train_loss for each in play(1)])[10:]
    assert losses.std() == pytest.approx(0.1 * 0.3, rel=0.2)
    assert losses.mean() == pytest.approx(0.3, rel=0.05)


def test_slow_downs_are_dealt_by_seed() -> None:
    assert sorted(permuted_slow_downs(10, 3)) == list(range(1, 11))
    assert permuted_slow_downs(10, 3).tolist() == permuted_slow_downs(10, 3).tolist()
    assert permuted_slow_downs(10, 3).tolist() != permuted_slow_downs(10, 4).tolist()


def test_strategies_on_the_recorded_run() -> None:
    """Means over 3 deals of the speeds, of the seconds to a HR@10 of 0.58."""
    recording = Recording.read(RECORD)
    seconds = {}
    for name in ("join_all", "resource_aware", "utility"):
        ends = []
        for seed in range(3):
            fleet = SimulatedFleet(recording, permuted_slow_downs(10, seed), seed=seed)
            ends.append(fleet.play(new_strategy(name, {}, Fleet(10, 100, seed)), 0.58).reached(0.58))
        seconds[name] = np.mean([end.seconds for end in ends if end is not None])
        assert all(end is not None for end in ends)
    # A deadline spares every round the slow clients; a choice of the fast and useful ones does for the most part.
    assert seconds["resource_aware"] < seconds["utility"] < seconds["join_all"]
    assert seconds["resource_aware"] < 0.8 * seconds["join_all"]


@pytest.mark.parametrize("name", ["metrics_random_5.jsonl", "metrics_parts.jsonl"])
def test_progress_is_that_of_real_runs(name: str) -> None:
    """Each client's HR@10 of a real run in which not all trained all is predicted, to what its standard error is."""
    recording = Recording.read(RECORD)
    lines = [json.loads(line) for line in RECORD.with_name(name).read_text().splitlines()]
    records = {(line["client"], line["epoch"]): line for line in lines}
    clients, epochs = range(recording.clients), range(1, 1 + max(line["epoch"] for line in lines))
    fleet = SimulatedFleet(recording, np.ones(recording.clients))

    def errors(participation: float) -> np.ndarray:
        effective, found = np.zeros(recording.clients), []
        for epoch in epochs:
            local_epochs = np.array([records[client, epoch]["rows"] for client in clients]) / recording.rows
            effective += progress(local_epochs, recording.rows, fleet.locality, participation)
            real = np.array([records[client, epoch]["hr"] for client in clients])
            found.append(real - recording.metrics_at(effective)["hr"])
        return np.array(found[3:])

    assert np.sqrt(np.mean(errors(fleet.participation) ** 2)) < 0.025
    if name == "metrics_random_5.jsonl":
        assert np.sqrt(np.mean(errors(1.0) ** 2)) > 0.045, "progress is not by rows alone"
