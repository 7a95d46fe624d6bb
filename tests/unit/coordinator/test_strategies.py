"""Strategies against numbers worked out by hand, and what all of them inherit."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config
from fl_rec.coordinator.check import check
from fl_rec.coordinator.messages import FINISH, JOIN, ClientReport, Decision, Device
from fl_rec.coordinator.strategies import STRATEGIES, Fleet, Strategy, new_strategy
from fl_rec.coordinator.strategies.join_all import JoinAll
from fl_rec.coordinator.strategies.random_k import RandomK
from fl_rec.coordinator.strategies.resource_aware import ResourceAware
from fl_rec.coordinator.strategies.utility import Utility, draw, round_half_up
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError, RunError
from fl_rec.job.check import check_job
from tests.unit.coordinator.scripted import Scripted


def make(name: str, clients: int, epochs: int = 100, seed: int = 0, **options: Any) -> Strategy:
    return new_strategy(name, options, Fleet(clients, epochs, seed))


def waiting(round: int, shard_rows: int = 100, capacity: float = 1.0) -> dict[str, Any]:
    """The fields of a client that did not train."""
    return {"round": round, "shard_rows": shard_rows, "device": Device("x", capacity)}


def after(round: int, rows: int = 100, seconds: float = 1.0, loss: float = 0.5, **changes: Any) -> dict[str, Any]:
    """The fields of a client that trained."""
    return {**waiting(round), "rows": rows, "seconds": seconds, "train_loss": loss, **changes}


def reports(*fields: Mapping[str, Any]) -> dict[int, ClientReport]:
    return {client: ClientReport(client=client, **each) for client, each in enumerate(fields)}


def states(decisions: Mapping[int, Decision]) -> str:
    """One letter a client."""
    return "".join(decisions[client].next_state[0] for client in sorted(decisions))


def joined(decisions: Mapping[int, Decision]) -> list[int]:
    return sorted(client for client, each in decisions.items() if each.next_state == JOIN)


def refusal(function: Callable[..., Any], *arguments: Any, error: type[Exception] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


# -- what every strategy inherits --------------------------------------------------------------------------


def test_every_client_is_told_something() -> None:
    strategy = Scripted(Fleet(4, 9), lambda reports, round: {1: Decision(JOIN, 0.5, reason="mine")})
    told = strategy.next_round({1: ClientReport(1, 0), 2: ClientReport(2, 0)}, 0)
    assert list(told) == [0, 1, 2, 3]
    assert states(told) == "WJWW"
    assert [each.reason for each in told.values()] == ["no report in time", "mine", "not chosen", "no report in time"]
    assert told[1].local_epochs == 0.5


def test_who_has_finished_stays_so() -> None:
    strategy = Scripted(Fleet(2, 9), lambda reports, round: {0: Decision(FINISH if round == 0 else JOIN, reason="x")})
    assert states(strategy.next_round({}, 0)) == "WW", "without a report nothing is decided"
    first = strategy.next_round(reports(waiting(0), waiting(0)), 0)
    assert (states(first), first[0].reason, strategy.finished) == ("FW", "x", {0})
    second = strategy.next_round({1: ClientReport(1, 1)}, 1)
    assert (states(second), second[0].reason) == ("FW", "finished before")
    assert strategy.standing[0].times_joined == 0


def test_all_finish_after_the_last_epoch() -> None:
    asked = []

    def decide(reports: Mapping[int, ClientReport], round: int) -> dict[int, Decision]:
        asked.append(round)
        return {client: Decision(JOIN) for client in reports}

    strategy = Scripted(Fleet(2, 3), decide)
    told = strategy.next_round(reports(after(3), after(3)), 3)
    assert states(told) == "FF"
    assert [each.reason for each in told.values()] == ["that was the last epoch"] * 2
    assert asked == [3], "a strategy that learns takes the last figures in"
    assert strategy.finished == {0, 1}
    assert states(strategy.next_round({}, 3)) == "FF"


def test_nobody_reported() -> None:
    for name in ("join_all", "random_k", "resource_aware", "utility"):
        told = make(name, 3).next_round({}, 1)
        assert states(told) == "WWW"
        assert told[0].reason == "no report in time"


def test_standing() -> None:
    strategy = Scripted(Fleet(2, 9), lambda reports, round: {0: Decision()} if round != 1 else {})
    strategy.next_round(reports(waiting(0), waiting(0)), 0)
    assert strategy.standing[0].trained is None
    second = reports(after(1), waiting(1))
    strategy.next_round(second, 1)
    strategy.next_round(reports(waiting(2), waiting(2)), 2)
    fourth = reports(after(3), waiting(3))
    strategy.next_round(fourth, 3)
    first, other = strategy.standing[0], strategy.standing[1]
    assert (first.report, first.trained, first.before) == (fourth[0], fourth[0], second[0])
    assert (first.times_joined, first.last_joined) == (3, 3)
    assert (other.report, other.trained, other.times_joined, other.last_joined) == (fourth[1], None, 0, -1)


def test_reports_come_in_the_order_of_clients() -> None:
    seen = []
    strategy = Scripted(Fleet(3, 9), lambda reports, round: seen.extend(reports) or {})
    strategy.next_round({client: ClientReport(client, 0) for client in (2, 0, 1)}, 0)
    assert seen == [0, 1, 2]


def test_decision_for_a_client_that_there_is_not() -> None:
    strategy = Scripted(Fleet(2, 9), lambda reports, round: {0: Decision(), 2: Decision(), "a": Decision()})
    assert refusal(strategy.next_round, reports(waiting(4)), 4, error=RunError) == (
        "the strategy Scripted must decide for clients 0 to 1. Received: [2, 'a'] in round 4."
    )


@pytest.mark.parametrize("nonsense", [None, [Decision()], {0: "JOIN"}, {0: None}, {0: Decision}, "x" * 1000])
def test_what_is_no_decision(nonsense: Any) -> None:
    strategy = Scripted(Fleet(2, 9), lambda reports, round: nonsense)
    text = refusal(strategy.next_round, reports(waiting(0)), 0, error=RunError)
    assert text.startswith("the strategy Scripted must return a mapping of clients to Decision from decide. Received: ")
    assert len(text) < 300


def test_no_such_file(tmp_path: Path) -> None:
    text = refusal(STRATEGIES.find, "nothing.py:Mine", tmp_path)
    assert f"Received: 'nothing.py:Mine'; there is no file {tmp_path / 'nothing.py'}." in text


def test_file_with_a_syntax_error(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("\nclass Mine(\n")
    text = refusal(STRATEGIES.find, "mine.py:Mine", tmp_path)
    assert text.startswith("A strategy must be importable. Received: 'mine.py:Mine'; ")
    assert re.search(r"mine\.py, line 2: .+\.$", text)


def test_strategy_that_raises() -> None:
    def decide(reports: Mapping[int, ClientReport], round: int) -> Any:
        raise KeyError("lost")

    strategy = Scripted(Fleet(2, 9), decide)
    with pytest.raises(
        RunError, match=r"^the strategy Scripted failed in round 7: KeyError: 'lost' \(test_strategies\.py, line \d+\)$"
    ) as caught:
        strategy.next_round(reports(waiting(7)), 7)
    assert isinstance(caught.value.__cause__, KeyError)


def test_clients_may_be_numbers_of_numpy() -> None:
    strategy = Scripted(Fleet(2, 9), lambda reports, round: {np.int64(1): Decision()})
    assert states(strategy.next_round(reports(waiting(0), waiting(0)), 0)) == "WJ"


def test_random_numbers_are_those_of_a_round() -> None:
    first, again, other = make("join_all", 2), make("join_all", 2), make("join_all", 2, seed=1)
    draws = [strategy.random(5).random() for strategy in (first, first, again)]
    assert len(set(draws)) == 1
    assert len({draws[0], first.random(6).random(), other.random(5).random()}) == 3


def test_seconds_of_an_epoch() -> None:
    strategy = make("join_all", 5)
    first = [waiting(0, 100, 1), waiting(0, 100, 0.5), waiting(0, 300, 1), waiting(0, 0, 1)]
    strategy.next_round(reports(*first), 0)
    assert strategy.epoch_seconds() == {0: 100, 1: 200, 2: 300, 3: 0}, "rows of work, before anybody has trained"
    # 0: 0.02 s a row. 1: half of its shard, 0.06 s a row on half a device. One second's work of the median: 0.025 s.
    second = [
        after(1, 100, 2.0),
        after(1, 50, 3.0, device=Device("x", 0.5)),
        waiting(1, 300, 0.25),
        waiting(1, 0, 1),
    ]
    strategy.next_round(reports(*second), 1)
    found = strategy.epoch_seconds()
    assert found == pytest.approx({0: 2.0, 1: 6.0, 2: 300 * 0.025 / 0.25, 3: 0})
    # It stays what it last took a client, however it fares now.
    strategy.next_round(reports(waiting(2), waiting(2), waiting(2), waiting(2)), 2)
    assert strategy.epoch_seconds()[1] == pytest.approx(6.0)


# -- everyone, and some at random --------------------------------------------------------------------------


def test_all_join_who_report() -> None:
    told = make("join_all", 3).next_round({0: ClientReport(0, 0), 2: ClientReport(2, 0)}, 0)
    assert states(told) == "JWJ"
    assert (told[0].local_epochs, told[0].learning_rate_factor) == (1, 1)


def test_k_of_those_that_report_are_drawn() -> None:
    strategy = make("random_k", 6, k=2)
    drawn = Counter()
    for round in range(99):
        told = strategy.next_round({client: ClientReport(client, round) for client in (0, 2, 5)}, round)
        assert len(joined(told)) == 2
        drawn.update(joined(told))
    assert sorted(drawn) == [0, 2, 5]
    assert told[joined(told)[0]].reason == "drawn"


def test_all_are_drawn_if_there_are_no_more() -> None:
    assert states(make("random_k", 3, k=5).next_round(reports(waiting(0), waiting(0)), 0)) == "JJW"


def test_all_are_equally_likely() -> None:
    strategy = RandomK(Fleet(10, 10**6, 1))
    drawn = Counter()
    everyone = {client: ClientReport(client, 0) for client in range(10)}
    rounds = 2000
    for round in range(rounds):
        drawn.update(list(strategy.decide(everyone, round)))
    # 5 of 10: mean rounds / 2, standard deviation sqrt(rounds) / 2 = 22; five of them.
    assert sum(drawn.values()) == 5 * rounds
    assert all(abs(drawn[client] - rounds / 2) < 5 * math.sqrt(rounds) / 2 for client in range(10))


def test_drawn_are_the_same_for_the_same_seed() -> None:
    everyone = {client: ClientReport(client, 0) for client in range(10)}
    first, again, other = (
        [sorted(make("random_k", 10, seed=seed, k=3).decide(everyone, round)) for round in range(20)]
        for seed in (4, 4, 5)
    )
    assert first == again
    assert first != other


# -- a deadline --------------------------------------------------------------------------------------------


def test_deadline_before_anybody_has_trained() -> None:
    # Work: 100, 200, 400, 800 and 10000 rows; half of the clients need 400.
    strategy = make("resource_aware", 5, deadline=1e-9)
    told = strategy.next_round(
        reports(waiting(0, 100), waiting(0, 100, 0.5), waiting(0, 400), waiting(0, 400, 0.5), waiting(0, 10000)), 0
    )
    assert states(told) == "JJJJW"
    assert [told[client].local_epochs for client in range(4)] == [1, 1, 1, 0.5]
    assert [each.reason for each in told.values()] == [
        *["in time"] * 3,
        "shortened to the deadline",
        "could do 0.04 of an epoch by the deadline",
    ]


@pytest.mark.parametrize(("options", "expected"), [({}, "JJJJ"), ({"min_local_epochs": 0.6}, "JJJW")])
def test_deadline_in_seconds(options: dict[str, Any], expected: str) -> None:
    strategy = make("resource_aware", 4, deadline=3, **options)
    told = strategy.next_round(
        reports(after(1, seconds=1), after(1, seconds=3), after(1, seconds=4), after(1, seconds=6)), 1
    )
    assert states(told) == expected
    assert [told[client].local_epochs for client in range(3)] == [1, 1, 0.75]
    if expected[-1] == "J":
        assert told[3].local_epochs == 0.5
    else:
        assert told[3].reason == "could do 0.50 of an epoch by the deadline"


def test_half_of_the_clients_are_in_time_without_a_deadline() -> None:
    told = make("resource_aware", 4).next_round(reports(*(after(1, seconds=s) for s in (1.0, 2.0, 4.0, 40.0))), 1)
    # The deadline is 3 s, midway between the two in the middle.
    assert states(told) == "JJJW"
    assert told[2].local_epochs == 0.75


def test_shortened_round_does_not_make_a_client_faster() -> None:
    strategy = make("resource_aware", 2, deadline=2)
    strategy.next_round(reports(after(1, seconds=1), after(1, seconds=4)), 1)
    told = strategy.next_round(reports(after(2, seconds=1), after(2, rows=50, seconds=2)), 2)
    assert told[1].local_epochs == pytest.approx(0.5)


@pytest.mark.parametrize("options", [{}, {"deadline": 1}])
def test_client_without_rows_is_in_time(options: dict[str, Any]) -> None:
    strategy = make("resource_aware", 3, **options)
    assert states(strategy.next_round(reports(waiting(0, 0), waiting(0, 0), waiting(0, 5)), 0)) == "JJW"
    told = strategy.next_round(reports(waiting(1, 0), waiting(1, 0), after(1, 5, 0.0)), 1)
    assert states(told) == "JJJ"


# -- Oort's utility ----------------------------------------------------------------------------------------


def oort(clients: int, **options: Any) -> Utility:
    found = make("utility", clients, **options)
    assert isinstance(found, Utility)
    return found


def utilities(strategy: Utility, round: int, wanted: float = 1.0) -> dict[int, float]:
    return strategy._utilities(list(strategy.fleet), strategy.epoch_seconds(), wanted, round)


def test_utility_is_rows_times_loss_relative_to_the_highest() -> None:
    strategy = oort(3)
    strategy.next_round(reports(waiting(0), waiting(0), waiting(0)), 0)
    strategy.next_round(reports(after(1, 100, loss=0.8), after(1, 100, loss=0.4), after(1, 50, 0.5, loss=0.4)), 1)
    # Statistical: 80, 40, 20; the 0.95 quantile of them, by which they are clipped, is 40 + 0.9 * 40 = 76. ln(1) = 0.
    assert utilities(strategy, 1) == pytest.approx({0: 1.0, 1: 40 / 76, 2: 20 / 76})


def test_utility_grows_with_the_rounds_not_seen() -> None:
    strategy = oort(2)
    strategy.next_round(reports(after(1), after(1)), 1)
    strategy.standing[0].last_joined, strategy.standing[1].last_joined = 9, 1
    grown = math.log(20) * 0.1
    assert utilities(strategy, 20) == pytest.approx({0: 1 + math.sqrt(grown / 10), 1: 1 + math.sqrt(grown / 2)})


def test_utility_of_slow_clients_falls() -> None:
    strategy = oort(3)
    strategy.next_round(reports(after(1, seconds=1), after(1, seconds=2), after(1, seconds=4)), 1)
    assert utilities(strategy, 1, wanted=2.0) == pytest.approx({0: 1, 1: 1, 2: 0.25})
    strategy.options = type(strategy.options)(speed_exponent=0.5)
    assert utilities(strategy, 1, wanted=2.0)[2] == pytest.approx(0.5**0.5)


def test_the_useful_are_chosen() -> None:
    strategy = oort(4, k=2, exploration=0, exploration_least=0, cut_off=1)
    told = strategy.next_round(reports(*(after(1, loss=loss) for loss in (0.1, 0.9, 0.5, 0.2))), 1)
    assert joined(told) == [1, 2]
    # Statistical: 10, 90, 50, 20; the quantile is 50 + 0.85 * 40 = 84.
    assert (told[1].reason, told[2].reason) == ("utility 1.00", f"utility {50 / 84:.2f}")


def test_wanted_speed_is_a_quantile_of_those_that_report() -> None:
    strategy = oort(3, k=1, exploration=0, exploration_least=0, cut_off=1, speed_quantile=0.5)
    # The middle one of 1, 2 and 4 s; the slowest's utility is a quarter of its own.
    told = strategy.next_round(
        reports(after(1, seconds=1, loss=0.3), after(1, seconds=2, loss=0.2), after(1, seconds=4, loss=0.9)), 1
    )
    assert joined(told) == [0]


def test_those_nearly_as_useful_are_drawn_from() -> None:
    strategy = oort(3, k=1, exploration=0, exploration_least=0, cut_off=0.5)
    drawn = Counter()
    for round in range(1, 400):
        drawn.update(
            joined(strategy.next_round(reports(after(1, loss=0.9), after(1, loss=0.8), after(1, loss=0.1)), 1))
        )
        strategy.fleet = Fleet(3, 10**6, round)
        for standing in strategy.standing.values():
            standing.last_joined = -1
    assert sorted(drawn) == [0, 1], "0.1 is below half of the best"
    assert abs(drawn[0] - 399 * 0.5) < 80


def test_first_rounds_explore() -> None:
    strategy = oort(10, k=5)
    told = strategy.next_round(reports(*(waiting(0) for _ in range(10))), 0)
    assert len(joined(told)) == 5
    assert {told[client].reason for client in joined(told)} == {"not trained yet"}
    # Four of five (0.9 * 0.98 * 5 = 4.41) are new ones again.
    told = strategy.next_round(
        reports(*(after(1) if client in joined(told) else waiting(1) for client in range(10))), 1
    )
    assert Counter(told[client].reason[:7] for client in joined(told)) == {"not tra": 4, "utility": 1}


def test_exploration_decays_to_its_least() -> None:
    strategy = oort(10, k=5, exploration=0.8, exploration_decay=0.5, exploration_least=0.4)
    explored = []
    for round in range(4):
        told = strategy.next_round(reports(*(after(round) if c < 5 else waiting(round) for c in range(10))), round)
        explored.append(sum(told[client].reason == "not trained yet" for client in joined(told)))
    assert explored == [4, 2, 2, 2]


def test_unused_places_go_to_the_others() -> None:
    few_new = oort(5, k=4).next_round(reports(*(after(1) if c else waiting(1) for c in range(5))), 1)
    assert len(joined(few_new)) == 4 and few_new[0].reason == "not trained yet"
    few_known = oort(5, k=4, exploration=0, exploration_least=0).next_round(
        reports(*(waiting(1) if c else after(1) for c in range(5))), 1
    )
    assert len(joined(few_known)) == 4 and few_known[0].reason == "utility 1.00"


def test_fast_new_ones_are_likelier() -> None:
    drawn = Counter()
    for seed in range(400):
        drawn.update(joined(oort(2, seed=seed, k=1).next_round(reports(waiting(0, 100), waiting(0, 300)), 0)))
    # Three to one: 300 of 400, standard deviation 9.
    assert abs(drawn[0] - 300) < 45


@pytest.mark.parametrize("round", [1, 7])
@pytest.mark.parametrize("loss", [math.nan, 0.0, -0.5])
def test_as_many_join_whatever_the_losses(loss: float, round: int) -> None:
    strategy = oort(6, k=3)
    told = strategy.next_round(reports(*(after(round, loss=loss) for _ in range(6))), round)
    assert len(joined(told)) == 3
    told = strategy.next_round(reports(after(round, loss=0.5), *(after(round, loss=loss) for _ in range(5))), round + 1)
    assert len(joined(told)) == 3


def test_losses_of_either_sign() -> None:
    strategy = oort(3, k=1, exploration=0, exploration_least=0, cut_off=1)
    told = strategy.next_round(reports(after(1, loss=-0.5), after(1, loss=0.5), after(1, loss=-0.9)), 1)
    assert joined(told) == [1]


def test_loss_before_the_waiting_counts() -> None:
    strategy = oort(2, k=1, exploration=0, exploration_least=0, cut_off=1)
    strategy.next_round(reports(after(1, loss=0.9), after(1, loss=0.1)), 1)
    told = strategy.next_round(reports(waiting(2), after(2, loss=0.1)), 2)
    assert joined(told) == [0] and told[0].reason.startswith("utility ")


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_clients_without_rows_are_the_last_to_be_explored(seconds: float) -> None:
    strategy = oort(4, k=2)
    assert joined(strategy.next_round(reports(waiting(0, 0), waiting(0, 5), waiting(0, 0), waiting(0, 7)), 0)) == [1, 3]
    told = strategy.next_round(reports(waiting(1, 0), after(1, 5, seconds), waiting(1, 0), waiting(1, 7)), 1)
    assert len(joined(told)) == 2
    assert len(joined(oort(3, k=3).next_round(reports(*(waiting(0, 0) for _ in range(3))), 0))) == 3


def test_utility_draws_the_same_for_the_same_seed() -> None:
    first, again, other = (
        [
            joined(oort(10, seed=seed, k=3, cut_off=0).next_round(reports(*(after(round) for _ in range(10))), round))
            for round in range(10)
        ]
        for seed in (4, 4, 5)
    )
    assert first == again
    assert first != other


def test_draw() -> None:
    random = np.random.default_rng(0)
    assert draw({}, 3, random) == []
    assert draw({4: 1.0}, 0, random) == []
    assert sorted(draw({4: 1.0, 7: 0.0, 9: 0.0}, 3, random)) == [4, 7, 9]
    assert all(draw({4: 1.0, 7: 0.0}, 1, random) == [4] for _ in range(100))
    assert all(isinstance(client, int) for client in draw({4: 1.0, 7: 2.0}, 2, random))


def test_rounding() -> None:
    assert [round_half_up(value) for value in (0, 0.4, 0.5, 1.5, 2.5)] == [0, 0, 1, 2, 3]


# -- by name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cls"),
    [("join_all", JoinAll), ("random_k", RandomK), ("resource_aware", ResourceAware), ("utility", Utility)],
)
def test_strategy_of_a_name(name: str, cls: type) -> None:
    assert STRATEGIES.find(name) is cls
    assert STRATEGIES.find(f"{cls.__module__}:{cls.__name__}") is cls
    assert str(make(name, 2)) == f"the strategy {cls.__name__}"


def test_unknown_name() -> None:
    head = f"coordinator.strategy must be one of {', '.join(STRATEGIES)}, or module:Class. Received: "
    assert refusal(STRATEGIES.find, "random") == head + "'random'. Did you mean random_k?"
    assert refusal(STRATEGIES.find, "zzz") == head + "'zzz'. Your own is named module:Class or file.py:Class."


@pytest.mark.parametrize("name", ["no_such_module:Mine", "fl_rec.coordinator:Mine", ":", "a:"])
def test_nothing_of_that_name(name: str, tmp_path: Path) -> None:
    text = refusal(STRATEGIES.find, name, tmp_path)
    assert text.startswith(f"A strategy must be importable. Received: {name!r} (")
    assert text.endswith("Give module:name, importable (PYTHONPATH), or path/to/file.py:name.")


def test_no_strategy() -> None:
    assert refusal(STRATEGIES.find, "pathlib:Path") == (
        "coordinator.strategy must be a subclass of fl_rec.coordinator.Strategy. Received: 'pathlib:Path', "
        "<class 'pathlib.Path'>."
    )
    assert "Received: 'math:pi', 3.14" in refusal(STRATEGIES.find, "math:pi")
    assert refusal(STRATEGIES.find, "fl_rec.coordinator:Strategy") == (
        "A strategy has the method decide. Received: 'fl_rec.coordinator:Strategy', which has not."
    )


def test_options_of_a_strategy() -> None:
    assert make("random_k", 2).options.k == 5
    assert make("random_k", 2, k="3").options.k == 3
    assert make("resource_aware", 2).options.deadline is None
    assert make("resource_aware", 2, deadline=None).options.deadline is None
    assert make("resource_aware", 2, deadline="1e1").options.deadline == 10.0


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("random_k", {"kk": 3}, "coordinator.options: kk: unknown key. Did you mean k?"),
        ("random_k", {"number": 3}, "coordinator.options: number: unknown key. Its keys: k."),
        ("join_all", {"k": 3}, "coordinator.options: k: unknown key. Its keys: none."),
        (
            "random_k",
            {"k": 0},
            "coordinator.options: k must be an integer of at least 1. Received: k=0 (int). Set it to 1 or more.",
        ),
        (
            "utility",
            {"exploration": 1.5},
            "coordinator.options: exploration must be a number from 0 to 1. Received: exploration=1.5 (float). "
            "Set it to 0, 1 or something between.",
        ),
        (
            "resource_aware",
            {"deadline": "soon"},
            "coordinator.options: deadline must be a number above 0, or null. Received: deadline='soon' (str). "
            "Set it to a finite number above 0. Or leave the key out.",
        ),
        (
            "utility",
            {"k": "x", "cut": 1},
            "2 problems in the configuration:\n"
            "coordinator.options: cut: unknown key. Did you mean cut_off?\n"
            "coordinator.options: k must be an integer of at least 1. Received: k='x' (str). Set it to 1 or more.",
        ),
        ("random_k", ["k"], "coordinator.options must be a mapping of keys. Received: ['k']. Its keys: k."),
    ],
)
def test_options_that_are_none(name: str, options: Any, text: str) -> None:
    assert refusal(new_strategy, name, options, Fleet(2, 2)) == text


OWN = """
from __future__ import annotations
from pathlib import Path
from fl_rec.typed import Keys, NonNegativeInt, key
from fl_rec.coordinator import JOIN, Decision, Strategy

class Options(Keys):
    first: NonNegativeInt = key(1, "who trains")

class Mine(Strategy):
    Options = Options
    def decide(self, reports, round):
        return {self.options.first: Decision(JOIN, local_epochs=0.5)}
"""


def test_strategy_of_a_users_file(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "my_strategy.py").write_text(OWN)
    for name in ("my_strategy.py:Mine", f"{folder}/my_strategy.py:Mine"):
        strategy = new_strategy(name, {"first": 0}, Fleet(2, 5), folder)
        assert states(strategy.next_round(reports(waiting(0), waiting(0)), 0)) == "JW"
    assert refusal(new_strategy, "my_strategy.py:Mine", {"frist": 0}, Fleet(2, 5), folder) == (
        "coordinator.options: frist: unknown key. Did you mean first?"
    )


def test_users_file_is_found_from_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_job: Callable[..., Config]
) -> None:
    (tmp_path / "my_strategy.py").write_text(OWN)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = load_job("coordinator.strategy=~/my_strategy.py:Mine", "coordinator.options.first=0")
    config = check_job(given, 2, 1).config
    assert config.coordinator.strategy == f"{tmp_path}/my_strategy.py:Mine"
    assert config.coordinator.options == {"first": 0}


@pytest.mark.parametrize(
    ("strategy", "settings", "least", "most"),
    [
        ("random_k", [], 3, 2),
        ("utility", [], 3, 1),
        ("random_k", ["privacy.clip=1", "privacy.noise_multiplier=1"], 6, 5),
    ],
)
def test_fewer_clients_than_a_secure_sum_needs(
    load_job: Callable[..., Config], strategy: str, settings: list[str], least: int, most: int
) -> None:
    config = load_job("runner.secure_aggregation=true", "runner.exchanges_per_epoch=2", *settings)
    config = config.replace(**{"coordinator.strategy": strategy})

    def checked(k: int) -> Config:
        return check(config.replace(**{"coordinator.options": {"k": k}}), Facts(8, 1))

    assert checked(least).coordinator.options["k"] == least
    with pytest.raises(ConfigError) as caught:
        checked(most)
    assert f"needs {least} clients or more that train at once" in str(caught.value)
    assert f"coordinator.strategy={strategy}, which has {most} train in a round. Let it" in str(caught.value)
    assert ("too little noise" in str(caught.value)) == bool(settings)


def test_users_file_that_fails(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    assert "ZeroDivisionError('division by zero')" in refusal(STRATEGIES.find, "broken.py:Mine", tmp_path)


def test_utility_does_not_believe_a_loss_beyond_the_others() -> None:
    strategy = make("utility", 5, k=2, exploration_least=0.0, exploration=0.0)
    fields = [after(1, loss=loss) for loss in (0.5, 0.6, 0.4, 0.5, 1e9)]
    decisions = strategy.next_round(reports(*fields), 1)
    assert states(decisions).count("J") == 2 and decisions[4].next_state == "WAIT"
    assert decisions[4].reason == "a loss of 1e+09 is beyond belief"


def test_an_excluded_client_waits() -> None:
    def decide(found: Mapping[int, ClientReport], round: int) -> dict[int, Decision]:
        if round == 1:
            strategy.exclude(2, "its loss was seven")
        return {client: Decision(JOIN) for client in found}

    strategy = Scripted(Fleet(3, 3), decide)
    told = [strategy.next_round(reports(*[waiting(round)] * 3), round) for round in range(4)]
    assert [states(each) for each in told] == ["JJJ", "JJW", "JJW", "FFF"]
    assert told[2][2].reason == "excluded: its loss was seven" and strategy.standing[2].times_joined == 1
