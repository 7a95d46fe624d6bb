"""Partitioners by name and by file, their options, and the checks on what they return."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.data.partition import PARTITIONERS, NamedPartitioner, UserTable, find_partitioner
from fl_rec.data.sampling import generator
from fl_rec.errors import ConfigError, DataError

EXAMPLE = Path(__file__).resolve().parents[3] / "datasets" / "movielens" / "fl_partitioner_example.py"


def make_users(zip_codes: list[str], genres: list[str] | None = None) -> UserTable:
    number = len(zip_codes)
    return UserTable(
        user=np.arange(number),
        activity=np.arange(number)[::-1] + 1,
        columns={"zip_code": np.array(zip_codes)},
        tag=np.array(genres or ["Drama"] * number),
    )


def assign(spec: str, users: UserTable, num_shards: int, seed: int = 0) -> list[int]:
    result: list[int] = find_partitioner(spec)(users, num_shards, generator(seed, 0)).tolist()
    return result


def test_zip_first_digit_is_the_region() -> None:
    users = make_users(["98107-1448", "02460", "55117", "9"])
    assert assign("zip_first_digit", users, 10) == [9, 0, 5, 9]
    assert assign("zip_first_digit", users, 4) == [3, 0, 2, 3]
    assert assign("zip_first_digit", users, 1) == [0, 0, 0, 0]


def test_bad_zip_codes_are_spread_dropped_or_refused_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    users = make_users(["12345", "T8H1N", "", "٣4567", "40000"])  # an Arabic digit is no ASCII digit
    with caplog.at_level(logging.WARNING):
        assert assign("zip_first_digit", users, 10) == [1, 1, 2, 3, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "warning: a zip code should start with a digit; 3 of 5 users have another (user 1 has 'T8H1N'); "
        "they are spread over all shards by user id"
    ]
    assert assign("zip_first_digit:bad_zip=drop", users, 10) == [1, -1, -1, -1, 4]
    with pytest.raises(DataError, match=r"must start with a digit. Received: 3 of 5 users .*bad_zip=spread"):
        assign("zip_first_digit:bad_zip=error", users, 10)
    with pytest.raises(ConfigError, match=r"bad_zip must be one of spread, drop, error. Received: bad_zip='lose'"):
        assign("zip_first_digit:bad_zip=lose", users, 10)


def test_good_zip_codes_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assign("zip_first_digit", make_users(["1", "2"]), 10)
    assert not caplog.records


def test_zip_first_digit_fills_at_most_ten_shards() -> None:
    with pytest.raises(ConfigError, match=r"at most 10 shards, one per digit. Received: num_shards=11"):
        assign("zip_first_digit", make_users(["1"]), 11)


def test_iid_deals_evenly_and_by_seed() -> None:
    users = make_users(["1"] * 103)
    assert sorted(np.bincount(assign("iid", users, 10)).tolist()) == [10] * 7 + [11] * 3
    assert assign("iid", users, 10, seed=1) == assign("iid", users, 10, seed=1) != assign("iid", users, 10, seed=2)


@pytest.mark.parametrize("name", ["dirichlet_activity", "dirichlet_genre"])
def test_a_smaller_alpha_is_more_uneven(name: str) -> None:
    users = make_users(["1"] * 2000, ["Drama", "Action", "Comedy", "Horror"] * 500)
    spread = []
    for alpha in (0.1, 100.0):
        shard = np.array(assign(f"{name}:alpha={alpha}", users, 5))
        assert shard.min() >= 0 and shard.max() <= 4
        action = users.tag == "Action" if name == "dirichlet_genre" else np.arange(2000) < 200
        spread.append(np.bincount(shard[action], minlength=5).std())
    assert spread[0] > 3 * spread[1]


@pytest.mark.parametrize("name", sorted(PARTITIONERS))
def test_every_named_partitioner_repeats_itself(name: str) -> None:
    users = make_users([str(n % 10) for n in range(200)], ["Drama", "Action"] * 100)
    assert assign(name, users, 10) == assign(name, users, 10)


def test_genre_partitioner_needs_genres() -> None:
    with pytest.raises(DataError, match=r"needs a source with genres.*use dirichlet_activity"):
        assign("dirichlet_genre", make_users(["1", "2"], ["", ""]), 2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("zip_first_digits", "one of zip_first_digit, iid, .*Did you mean zip_first_digit\\?"),
        (
            "dirichlet_genre:alhpa=1",
            "--partitioner dirichlet_genre: alhpa: unknown key. Did you mean alpha\\?",
        ),
        (
            "dirichlet_genre:alpha=x",
            "--partitioner dirichlet_genre: alpha must be a number above 0. Received: alpha='x'",
        ),
        ("dirichlet_activity:classes=0", "classes must be an integer of at least 1. Received: classes='0'"),
        ("iid:alpha=1", "--partitioner iid: alpha: unknown key. Its keys: none."),
        ("no_such_module:f", r"must be importable. Received: 'no_such_module:f' \(ModuleNotFoundError"),
        ("no/such/file.py:f", "must be importable. Received: 'no/such/file.py:f'"),
        ("math:no_such", r"must be importable. Received: 'math:no_such' \(AttributeError"),
        ("math:pi", "must be a function. Received: 'math:pi', float"),
    ],
)
def test_a_wrong_name_or_option_is_explained(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_partitioner(spec)


@pytest.mark.parametrize("alpha", ["0", "-1", "inf", "nan"])
def test_alpha_must_be_a_positive_number(alpha: str) -> None:
    with pytest.raises(ConfigError, match="alpha must be a number above 0"):
        assign(f"dirichlet_activity:alpha={alpha}", make_users(["1"]), 2)


def test_the_example_is_a_partitioner_with_an_option() -> None:
    users = make_users(["1"] * 6)  # activity falls with the user id
    assert assign(f"{EXAMPLE}:by_activity", users, 3) == [0, 0, 1, 1, 2, 2]
    assert assign(f"{EXAMPLE}:by_activity:ascending=1", users, 3) == [2, 2, 1, 1, 0, 0]


def test_a_module_on_the_path_is_a_partitioner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import numpy as np\ndef f(users, num_shards, rng):\n    return np.zeros(len(users), int)\n"
    (tmp_path / "my_partitioner.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert assign("my_partitioner:f", make_users(["1", "2"]), 3) == [0, 0]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros(2, int), r"one shard number per user, shape \(3,\). Received: shape \(2,\)"),
        (np.zeros(3), "whole numbers. Received: dtype float64"),
        (None, r"one shard number per user, shape \(3,\). Received: shape \(\)"),
        (np.array([0, 1, 2]), "numbers from 0 to 1, or -1 to leave a user out. Received: 2 for user 2"),
        (np.array([0, -2, 1]), "numbers from 0 to 1, .*Received: -2 for user 1"),
    ],
)
def test_a_wrong_return_value_is_explained(returned: Any, message: str) -> None:
    function: Callable[..., Any] = lambda users, num_shards, rng: returned  # noqa: E731
    with pytest.raises(DataError, match="Partitioner mine must return " + message):
        NamedPartitioner("mine", {}, function)(make_users(["1", "2", "3"]), 2, generator(0, 0))


def test_num_shards_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"num_shards must be at least 1. Received: 0"):
        assign("iid", make_users(["1"]), 0)
