"""The split and the negatives."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.sampling import (
    AbsentItems,
    Stream,
    TrainRows,
    adopt_test_positives,
    generator,
    hold_out_one,
    leave_one_out,
    read_test_rows,
    sample_test_rows,
)
from fl_rec.errors import ConfigError, DataError

ROWS = np.array([[0, 7, 1], [0, 12, 0], [3, 1, 0], [10, 0, 1]])


def test_latest_is_left_out_and_of_equal_times_the_later_line() -> None:
    user = np.array([1, 0, 1, 0, 1, 2])
    time = np.array([9, 5, 9, 1, 3, 7])
    train, test = leave_one_out(user, time)
    assert test.tolist() == [1, 2]
    assert train.tolist() == [3, 4, 0, 5]  # user 2's only interaction stays


def test_one_item_of_each_user_is_held_out_with_its_repeats() -> None:
    train = np.array([[4, 2], [0, 1], [4, 0], [0, 1], [2, 3], [4, 2], [2, 3], [4, 1]])  # users 0 and 2 have one item
    drawn = np.zeros(3, dtype=int)
    for seed in range(3000):
        rest, held_out = hold_out_one(train, 5, np.random.default_rng(seed))
        ((user, item),) = held_out.tolist()
        assert user == 4 and rest.tolist() == [pair for pair in train.tolist() if pair != [4, item]]
        drawn[item] += 1
    assert drawn.tolist() == pytest.approx([1000] * 3, abs=4 * (3000 * 2 / 9) ** 0.5)


def test_who_is_held_out_depends_on_the_seed_and_not_on_the_order() -> None:
    rng = np.random.default_rng(0)
    items = rng.random((200, 50)).argsort(axis=1)[:, :10]
    train = np.stack([np.repeat(np.arange(200), 10), items.ravel()], axis=1)
    rest, first = hold_out_one(train, 50, np.random.default_rng(1))
    assert first[:, 0].tolist() == list(range(200)) and len(rest) == 1800
    assert sorted(np.concatenate([rest, first]).tolist()) == sorted(train.tolist())
    _, again = hold_out_one(rng.permutation(train), 50, np.random.default_rng(1))
    assert again.tolist() == first.tolist()
    _, other = hold_out_one(train, 50, np.random.default_rng(2))
    assert (other[:, 1] == first[:, 1]).sum() == pytest.approx(20, abs=4 * 18**0.5)


def test_absent_items_lists_exactly_the_complement() -> None:
    pairs = np.array([[0, 0], [0, 1], [0, 4], [2, 3], [2, 3]])
    absent = AbsentItems(pairs, num_users=3, num_items=5)
    assert absent.count.tolist() == [2, 5, 4]
    found = [absent.item(np.full(n, user), np.arange(n)).tolist() for user, n in enumerate(absent.count)]
    assert found == [[2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 4]]


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99], ids=lambda share: f"{share:g} present")
def test_absent_items_of_any_density(share: float) -> None:
    present = np.random.default_rng(3).random((7, 500)) < share
    present[2] = False
    present[4, 100:400] = True
    absent = AbsentItems(np.argwhere(present), *present.shape)
    for user, row in enumerate(present):
        assert absent.item(np.array([[user]]), np.arange(absent.count[user])).tolist() == [
            np.flatnonzero(~row).tolist()
        ]


def test_a_training_negative_is_any_item_but_a_training_item_and_the_test_item_is_one() -> None:
    train = np.array([[0, 0], [0, 2], [1, 3]])  # user 0's test item is 4
    drawn = {0: set(), 1: set()}
    for seed in range(30):
        rows = np.concatenate(list(TrainRows(train, 6, 4, seed)))
        assert rows[rows[:, 2] == 1][:, :2].tolist() == train.tolist()
        assert rows.shape == (15, 3) and rows.dtype == np.int32
        for user, item, label in rows.tolist():
            if label == 0:
                drawn[user].add(item)
    assert drawn == {0: {1, 3, 4, 5}, 1: {0, 1, 2, 4, 5}}


def test_training_negatives_are_uniform() -> None:
    train = np.stack([np.zeros(2), [1, 3]], axis=1).astype(np.int64)
    rows = np.concatenate(list(TrainRows(train, 5, 15_000, 0)))
    share = np.bincount(rows[rows[:, 2] == 0, 1], minlength=5) / 30_000
    np.testing.assert_allclose(share, [1 / 3, 0, 1 / 3, 0, 1 / 3], atol=0.015)


def test_no_possible_negative_and_fewer_negatives_than_none_are_errors() -> None:
    with pytest.raises(DataError, match=r"Received: 1 user\(s\) with all 2 items, first user id 4"):
        list(TrainRows(np.array([[3, 0], [4, 0], [4, 1]]), 2, 4, 0))
    with pytest.raises(ConfigError, match=r"num_neg must be 0 or more. Received: -1"):
        TrainRows(np.array([[0, 0]]), 2, -1, 0)
    assert np.concatenate(list(TrainRows(np.array([[0, 0], [1, 1]]), 2, 0, 0))).tolist() == [[0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("by_user", [True, False])
def test_rows_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch, by_user: bool) -> None:
    rng = np.random.default_rng(3)
    pairs = np.unique(rng.integers(0, [40, 150], (400, 2)), axis=0)
    rng.shuffle(pairs)
    test = np.stack([np.arange(40)[:: 1 if by_user else -1], rng.integers(0, 150, 40)], axis=1)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")] if by_user else pairs

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        train = TrainRows(pairs.astype(np.int32), 150, 3, 7)
        assert sum(map(len, train)) == len(train) == 4 * len(pairs)
        return np.concatenate(list(train)), sample_test_rows([pairs, pairs[:9]], test, 150, generator(7, 2))

    whole = drawn()
    had = {*map(tuple, pairs.tolist()), *map(tuple, test.tolist())}
    assert had.isdisjoint((user, item) for user, item, label in whole[1].tolist() if label == 0)
    assert {*map(tuple, pairs.tolist())}.isdisjoint((u, i) for u, i, label in whole[0].tolist() if label == 0)
    monkeypatch.setattr("fl_rec.data.sampling._ROWS_PER_BLOCK", 21)
    for one, other in zip(whole, drawn()):
        np.testing.assert_array_equal(one, other)


def test_test_negatives_are_distinct_and_new_to_the_user() -> None:
    train = np.array([[0, item] for item in range(50)] + [[1, 5]])
    test = np.array([[0, 50], [1, 6]])
    rows = sample_test_rows([train], test, 151, generator(0, 0))
    assert rows.shape == (200, 3)
    for group, (user, item) in zip(rows.reshape(2, 100, 3), test.tolist()):
        assert group[0].tolist() == [user, item, 1]
        assert (group[:, 0] == user).all() and (group[1:, 2] == 0).all()
        assert len(set(group[1:, 1].tolist())) == 99
        assert not set(group[1:, 1].tolist()) & {i for u, i in [*train.tolist(), *test.tolist()] if u == user}


def test_a_user_with_fewer_than_99_possible_negatives_gets_all() -> None:
    rows = sample_test_rows([np.array([[0, 0]])], np.array([[0, 2]]), 5, generator(0, 0))
    assert rows[0].tolist() == [0, 2, 1] and sorted(rows[1:, 1].tolist()) == [1, 3, 4]


def negative_lines(*heads: str, count: int = 99) -> bytes:
    return "".join(head + "".join(f"\t{10 + n}" for n in range(count)) + "\n" for head in heads).encode()


def test_given_negatives_are_used_in_their_order_and_users_sorted(tmp_path: Path) -> None:
    path = tmp_path / "x.test.negative.gz"
    path.write_bytes(gzip.compress(negative_lines("(1,3)", "(0,2)")))
    rows = read_test_rows(path, np.array([[0, 2], [1, 3]]), 200)
    assert rows[::100].tolist() == [[0, 2, 1], [1, 3, 1]]
    assert rows[1:100].tolist() == [[0, 10 + n, 0] for n in range(99)]


def test_a_published_split_chooses_among_a_users_items(tmp_path: Path) -> None:
    """Of ratings with one timestamp any may be the last; the file's choice is taken, and nothing is lost."""
    path = tmp_path / "x.test.negative"
    path.write_bytes(negative_lines("(0,2)", "(1,4)", "(2,9)"))
    train = np.array([[0, 1], [1, 4], [1, 5], [2, 7]])
    test = np.array([[0, 2], [1, 3], [2, 8]])
    new_train, new_test, moved = adopt_test_positives(path, train, test)
    assert moved == 1
    assert new_train.tolist() == [[0, 1], [1, 3], [1, 5], [2, 7]]
    # User 2 never rated item 9: left as it is, for read_test_rows to refuse.
    assert new_test.tolist() == [[0, 2], [1, 4], [2, 8]]


@pytest.mark.parametrize(
    ("text", "num_items", "message"),
    [
        (
            negative_lines("(0,2)"),
            200,
            "line 1: .*each of 2 tested users. Received 1 lines; the first missing is user 1",
        ),
        (negative_lines("(0,2)", "(1,4)"), 200, "line 2: the positive of user 1 must be item 3. Received 4"),
        (negative_lines("(0,2)", "(1,3)", count=98), 200, "line 1: a line must have 101 fields"),
        (negative_lines("(0,2)", "(0,2)"), 200, "line 2: .*Received user 0, who is listed twice"),
        (negative_lines("(0,2)", "(7,3)"), 200, "line 2: .*Received user 7, who has no test item"),
        (negative_lines("(0,2)", "(1,3)"), 100, "line 1: an item id must be below 100. Received 108"),
    ],
)
def test_negatives_of_another_data_set_are_refused(tmp_path: Path, text: bytes, num_items: int, message: str) -> None:
    (tmp_path / "negatives").write_bytes(text)
    with pytest.raises(DataError, match=message):
        read_test_rows(tmp_path / "negatives", np.array([[0, 2], [1, 3]]), num_items)


def test_random_streams_keep_their_numbers_so_that_data_stays_as_it_is() -> None:
    """A seed's data is published with figures: whoever changes one of these changes it for everybody."""
    assert {each.name: each.value for each in Stream} == {
        "PARTITION": 0,
        "TRAIN_NEGATIVES": 1,
        "TEST_NEGATIVES": 2,
        "SYNTHETIC": 3,
        "FRESH_NEGATIVES": 4,
        "VALIDATION_NEGATIVES": 5,
        "HOLD_OUT": 6,
        "PUBLIC_USERS": 7,
        "PROXY_ROWS": 8,
        "STUDENT_ORDER": 9,
    }
    assert [Stream.shard_order(shard) for shard in range(3)] == [1, 2, 3]
    expected = np.random.Generator(np.random.PCG64([2022, 8, 3])).integers(0, 1 << 62, 4)
    np.testing.assert_array_equal(generator(2022, Stream.PROXY_ROWS, 3).integers(0, 1 << 62, 4), expected)
