"""Partitioners by name and by file, their options, and the checks on what they return."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.data.partition import PARTITIONERS, Dealt, NamedPartitioner, UserTable, find_partitioner
from fl_rec.data.sampling import generator
from fl_rec.data.tags import ItemTags
from fl_rec.errors import ConfigError, DataError

EXAMPLE = Path(__file__).resolve().parents[3] / "datasets" / "movielens" / "fl_partitioner_example.py"


def make_users(zip_codes: list[str], tags: list[str] | None = None) -> UserTable:
    number = len(zip_codes)
    return UserTable(
        user=np.arange(number),
        activity=np.arange(number)[::-1] + 1,
        columns={"zip_code": np.array(zip_codes)},
        tag=np.array(tags or ["Drama"] * number),
    )


def of_regions(regions: list[str], activity: list[int] | None = None) -> UserTable:
    number = len(regions)
    columns = {"age": np.array(["1"] * number), "region": np.array(regions, np.str_)}
    return UserTable(np.arange(number), np.array(activity or [1] * number), columns, np.array([""] * number))


def of_tastes(tastes: list[str]) -> UserTable:
    """User n has had item n, which is tagged so."""
    number = len(tastes)
    pairs = np.stack([np.arange(number)] * 2, axis=1)
    return UserTable(np.arange(number), np.ones(number, int), {}, np.array(tastes), lambda: pairs, ItemTags.of(tastes))


def deal(spec: str, users: UserTable, num_shards: int | None, seed: int = 0) -> Dealt:
    return find_partitioner(spec)(users, num_shards, generator(seed, 0))


def assign(spec: str, users: UserTable, num_shards: int | None, seed: int = 0) -> list[int]:
    result: list[int] = deal(spec, users, num_shards, seed).shard.tolist()
    return result


def test_zip_first_digit_is_the_region() -> None:
    users = make_users(["98107-1448", "02460", "55117", "9"])
    assert assign("zip_first_digit", users, 10) == [9, 0, 5, 9]
    assert assign("zip_first_digit", users, 4) == [3, 0, 2, 3]
    assert assign("zip_first_digit", users, 1) == [0, 0, 0, 0]


def test_bad_zip_codes_are_spread_dropped_or_refused_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    users = make_users(["12345", "T8H1N", "", "٣4567", "40000", "6"])  # an Arabic digit is no ASCII digit
    with caplog.at_level(logging.WARNING):
        dealt = deal("zip_first_digit", users, 10)
    assert dealt.shard.tolist() == [1, 1, 2, 3, 4, 6] and dealt.policy == "spread" and dealt.unplaced is not None
    assert dealt.unplaced.tolist() == [False, True, True, True, False, False]
    assert [record.getMessage() for record in caplog.records] == [
        "warning: a zip code should start with a digit; 3 of 6 users have another (user 1 has 'T8H1N'); "
        "they are spread over all shards by user id"
    ]
    assert assign("zip_first_digit:bad_zip=drop", users, 10) == [1, -1, -1, -1, 4, 6]
    with pytest.raises(DataError) as caught:
        assign("zip_first_digit:bad_zip=error", users, 10)
    assert str(caught.value) == (
        "A zip code must start with a digit. Received: 3 of 6 users have another (user 1 has 'T8H1N'). Use "
        "zip_first_digit:bad_zip=spread or bad_zip=drop, or another partitioner."
    )
    with pytest.raises(ConfigError, match=r"bad_zip must be one of spread, drop, error. Received: bad_zip='lose'"):
        assign("zip_first_digit:bad_zip=lose", users, 10)


@pytest.mark.parametrize(("policy", "good"), [("spread", 2), ("spread", 0), ("drop", 0)])
def test_regions_that_would_be_lost_are_an_error(policy: str, good: int) -> None:
    users = make_users(["1"] * good + ["north", "south", "north"])
    with pytest.raises(DataError) as caught:
        assign(f"zip_first_digit:bad_zip={policy}", users, 10)
    assert str(caught.value) == (
        f"A zip code must start with a digit, or shards can't be told apart by it. Received: 3 of {good + 3} users "
        f"have another (user {good} has 'north'). Use another partitioner: by_column:column=NAME takes any column of "
        "the table of users (zip_code)."
    )
    assert assign("by_column:column=zip_code", users, None)[good:] in ([1, 2, 1], [0, 1, 0])


def test_dropping_most_is_what_drop_says() -> None:
    assert assign("zip_first_digit:bad_zip=drop", make_users(["1", "north", "south"]), 10) == [1, -1, -1]


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


def test_a_shard_for_each_value_in_the_order_of_their_names() -> None:
    dealt = deal("by_column:column=region", of_regions(["west", "north", "west", "East"]), None)
    assert (dealt.shard.tolist(), dealt.clients, dealt.num_shards) == ([2, 1, 2, 0], ["East", "north", "west"], 3)
    assert dealt.policy == "spread" and dealt.unplaced is not None and not dealt.unplaced.any()
    dealt = deal("by_column:column=region", of_regions(["10", "9", "100"]), 3)
    assert (dealt.shard.tolist(), dealt.clients) == ([1, 0, 2], ["9", "10", "100"]), "numbers by size"
    dealt = deal("by_column:column=region", of_regions(["10", "9", "010"]), None)
    assert dealt.clients == ["010", "10", "9"]


def test_values_are_grouped_as_evenly_as_they_go() -> None:
    # Training positives: a 1 + 1, b 7, c 4, d 3, e 3. Largest first: b | c, then d to c, a and e to the lighter.
    users = of_regions(["a", "b", "a", "c", "d", "e"], [1, 7, 1, 4, 3, 3])
    dealt = deal("by_column:column=region", users, 2)
    assert dealt.shard.tolist() == [0, 1, 0, 0, 0, 1] and dealt.clients == ["a, c, d", "b, e"]
    assert deal("by_column:column=region", users, 1).clients == ["a, b, c, d, e"]
    silent = of_regions(["a", "b", "c"], [5, 0, 0])
    silent.activity[1:] = 0
    assert assign("by_column:column=region", silent, 3) == [0, 1, 2], "no shard is empty"


def test_users_without_a_value(caplog: pytest.LogCaptureFixture) -> None:
    users = of_regions(["b", "", "a", "b"])
    assert assign("by_column:column=region", users, None) == [1, 1, 0, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "warning: a user should have a value of region; 1 of 4 users have none; they are spread over all shards by "
        "user id"
    ]
    dealt = deal("by_column:column=region,missing=drop", users, None)
    assert dealt.shard.tolist() == [1, -1, 0, 1] and dealt.policy == "drop"
    with pytest.raises(DataError) as caught:
        assign("by_column:column=region,missing=error", users, None)
    assert str(caught.value) == (
        "A user must have a value of region. Received: 1 of 4 users have none. Use by_column:column=region,"
        "missing=spread or missing=drop, or another partitioner."
    )
    with pytest.raises(DataError, match=r"told apart by it. Received: 2 of 2 users have none.*\(age, region\)"):
        assign("by_column:column=region", of_regions(["", ""]), 2)


@pytest.mark.parametrize(
    ("column", "number", "message"),
    [
        ("regoin", 2, "'regoin'. Did you mean region? The columns: age, region."),
        ("x", 2, "A column must be one of the table of users. Received: 'x'. The columns: age, region."),
        (
            "region",
            4,
            "by_column fills at most one shard per value. Received: num_shards=4, and 3 of region (a, b, c). Use "
            "--num_shards 3 or less, or leave it out.",
        ),
    ],
)
def test_a_column_that_will_not_do(column: str, number: int, message: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        assign(f"by_column:column={column}", of_regions(["a", "b", "c"]), number)
    assert str(caught.value).endswith(message)


def test_a_column_needs_a_table_and_a_name() -> None:
    with pytest.raises(DataError, match="'region'. There is no such table: prepare the data with --users FILE"):
        assign("by_column:column=region", of_tastes(["a"]), 1)
    with pytest.raises(ConfigError, match="--partitioner by_column: column is missing"):
        find_partitioner("by_column")


def test_many_values_become_shards_only_if_asked() -> None:
    users = of_regions([f"r{n}" for n in range(101)])
    with pytest.raises(DataError) as caught:
        assign("by_column:column=region", users, None)
    assert str(caught.value) == (
        "Each value of a column becomes a shard, and so a process, unless they are grouped. Received: 101 values of "
        "region. Say how many shards there should be: --num_shards 10"
    )
    assert sorted(np.bincount(assign("by_column:column=region", users, 101)).tolist()) == [1] * 101
    assert sorted(np.bincount(assign("by_column:column=region", users, 10)).tolist()) == [10] * 9 + [11]


def test_users_of_one_taste_share_a_shard() -> None:
    users = of_tastes(["tea|cups", "bikes", "tea", "bikes|tea", "bikes", "cups|tea"] * 10)
    dealt = deal("taste", users, 2)
    shard = dealt.shard.reshape(10, 6)
    assert (shard == shard[0]).all() and dealt.policy == "spread"
    tea, bikes = shard[0, 0], shard[0, 1]
    assert shard[0].tolist() == [tea, bikes, tea, bikes, bikes, tea]
    assert (dealt.clients[tea], dealt.clients[bikes]) == ("tea, cups", "bikes")
    assert assign("taste", users, 2) == dealt.shard.tolist()


@pytest.mark.parametrize(("least", "smallest"), [("1", 10), ("0.5", 5), ("0.25", 2), ("0", 1)])
def test_a_taste_of_few_takes_those_who_are_nearest(least: str, smallest: int) -> None:
    """One likes tea, two like some of it, and all else like bikes."""
    users = of_tastes(["tea", "bikes|tea", *["bikes"] * 27, "bikes|tea"])
    shard = np.array(assign(f"taste:least={least}", users, 3))
    sizes = np.bincount(shard, minlength=3)
    assert sizes.min() == smallest and sizes.sum() == 30
    assert shard[1] == shard[29] and (shard[1] != shard[0] or smallest > 2), "those who are alike stay together"


def test_no_shard_is_empty_where_all_are_alike() -> None:
    assert sorted(np.bincount(assign("taste", of_tastes(["a"] * 20), 4)).tolist())[0] == 1


def test_users_without_tags(caplog: pytest.LogCaptureFixture) -> None:
    users = of_tastes(["a", "b", "", "b", "a"])
    found = assign("taste", users, 2)
    assert found[0] == found[4] != found[1] == found[3] and found[2] == 0
    assert "a user should have tagged items; 1 of 5 users have none; they are spread" in caplog.text
    assert assign("taste:missing=drop", users, 2)[2] == -1
    for too_few in (of_tastes(["", "a"]), of_regions(["x", "y"])):
        with pytest.raises(DataError, match="taste needs a source whose items have tags, .* for 2 shard"):
            assign("taste", too_few, 2)


def test_without_a_number_there_are_ten_shards() -> None:
    assert deal("iid", of_regions(["a"] * 20), None).num_shards == 10


@pytest.mark.parametrize("name", ["dirichlet_activity", "dirichlet_tag"])
def test_a_smaller_alpha_is_more_uneven(name: str) -> None:
    users = make_users(["1"] * 2000, ["Drama", "Action", "Comedy", "Horror"] * 500)
    spread = []
    for alpha in (0.1, 100.0):
        shard = np.array(assign(f"{name}:alpha={alpha}", users, 5))
        assert shard.min() >= 0 and shard.max() <= 4
        action = users.tag == "Action" if name == "dirichlet_tag" else np.arange(2000) < 200
        spread.append(np.bincount(shard[action], minlength=5).std())
    assert spread[0] > 3 * spread[1]


@pytest.mark.parametrize("name", sorted(PARTITIONERS))
def test_every_named_partitioner_repeats_itself(name: str) -> None:
    users = make_users([str(n % 10) for n in range(200)], ["Drama", "Action"] * 100)
    users = replace(
        users, positives=lambda: np.array([[n, n % 7] for n in range(200)]), item_tags=ItemTags.of("abcdefg")
    )
    spec = "by_column:column=zip_code" if name == "by_column" else name
    assert assign(spec, users, 10) == assign(spec, users, 10)


def test_a_partitioner_by_tags_needs_some() -> None:
    with pytest.raises(DataError, match=r"needs a source whose items have tags.*use dirichlet_activity"):
        assign("dirichlet_tag", make_users(["1", "2"], ["", ""]), 2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("zip_first_digits", "one of by_column, taste, iid, .*Did you mean zip_first_digit\\?"),
        ("dirichlet_genre", "Did you mean dirichlet_tag\\?"),  # its old name
        (
            "dirichlet_tag:alhpa=1",
            "--partitioner dirichlet_tag: alhpa: unknown key. Did you mean alpha\\?",
        ),
        (
            "dirichlet_tag:alpha=x",
            "--partitioner dirichlet_tag: alpha must be a number above 0. Received: alpha='x'",
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
        (Dealt(np.array([0, 1, 1]), ["north"]), "a name for each of 2 shards, or none. Received: 1 names"),
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
