"""Negatives drawn anew every epoch: what the text holds, what is drawn, and what is refused."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import parse_multislot
from fl_rec.errors import ConfigError, DataError

NUM_ITEMS = 12
# Users 0, 3 and 10 with their positives, one of them twice; the zeros are rows of an earlier draw.
ROWS = np.array(
    [[3, 0, 1], [3, 5, 0], [0, 11, 1], [0, 0, 1], [3, 7, 1], [3, 7, 1], [10, 4, 1], [10, 2, 0], [10, 0, 0], [0, 3, 0]]
)
POSITIVES = [(0, 0), (0, 11), (3, 0), (3, 7), (3, 7), (10, 4)]


def new(group_size: int, num_neg: int = 2, seed: int = 5) -> FreshNegatives:
    return FreshNegatives(ROWS, NUM_ITEMS, num_neg, group_size, seed)


def read(text: np.ndarray) -> np.ndarray:
    """(user, item, label) of each line, or the same of each line's items, [lines, items, 3]."""
    user, item, label = parse_multislot(text.tobytes(), 3)
    return np.stack([np.broadcast_to(user, item.shape), item, label], axis=2)


# -- text --------------------------------------------------------------------------------------------------


def test_a_group_is_a_line_that_starts_with_the_positive() -> None:
    fresh = new(group_size=3)
    text = fresh.epoch(0)
    assert (fresh.lines, text.dtype, text.shape) == (6, np.uint8, (6, len(b"1 03 3 00 05 07 3 1 0 0\n")))
    assert text[:, -1].tolist() == [ord("\n")] * 6 and text.flags.c_contiguous
    rows = read(text)
    assert rows.shape == (6, 3, 3) and rows[:, :, 2].tolist() == [[1, 0, 0]] * 6
    assert (rows[:, :, 0] == rows[:, :1, 0]).all()
    assert sorted(map(tuple, rows[:, 0, :2].tolist())) == POSITIVES


def test_pointwise_lines_hold_one_item_each() -> None:
    fresh = new(group_size=1)
    text = fresh.epoch(0)
    assert (fresh.lines, text.shape) == (18, (18, len(b"1 03 1 07 1 1\n")))
    rows = read(text)[:, 0]
    assert sorted(map(tuple, rows[rows[:, 2] == 1, :2].tolist())) == POSITIVES
    negatives = rows[rows[:, 2] == 0]
    assert Counter(negatives[:, 0].tolist()) == {0: 4, 3: 6, 10: 2}


def test_a_slice_of_lines_can_be_written(tmp_path: Path) -> None:
    text = new(group_size=3).epoch(1)
    text[2:5].tofile(tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == text.tobytes()[2 * text.shape[1] : 5 * text.shape[1]]


@pytest.mark.parametrize("num_items, digits", [(10, 1), (11, 2), (100, 2), (101, 3)])
def test_ids_have_the_digits_of_the_largest(num_items: int, digits: int) -> None:
    fresh = FreshNegatives(np.array([[9, 0, 1]]), num_items, 1, 1, 0)
    assert fresh.epoch(0).shape == (2, len("1 9 1  1 1\n") + digits)
    assert read(fresh.epoch(0))[:, 0, 1].max() < num_items


# -- draws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [1, 3])
def test_every_item_but_a_training_positive_is_drawn_equally_often(group_size: int) -> None:
    """Items of the shard's negatives are drawn, and so is a test item, which no training row shows."""
    fresh = new(group_size)
    drawn: dict[int, Counter[int]] = {0: Counter(), 3: Counter(), 10: Counter()}
    for number in range(1500):
        for user, item, label in read(fresh.epoch(number)).reshape(-1, 3).tolist():
            if not label:
                drawn[user][item] += 1
    positives: dict[int, set[int]] = {0: {0, 11}, 3: {0, 7}, 10: {4}}
    for user, counts in drawn.items():
        eligible = set(range(NUM_ITEMS)) - positives[user]
        assert set(counts) == eligible
        total = 1500 * 2 * [pair[0] for pair in POSITIVES].count(user)
        assert sum(counts.values()) == total
        mean = total / len(eligible)
        assert max(abs(count - mean) for count in counts.values()) < 5 * mean**0.5


def test_an_epoch_has_its_own_draws_and_order_and_always_the_same() -> None:
    one, other = new(group_size=3), new(group_size=3)
    first = one.epoch(0)
    kept = first.copy()
    second = one.epoch(1)
    np.testing.assert_array_equal(first, kept)  # not written to again
    np.testing.assert_array_equal(other.epoch(1), second)
    np.testing.assert_array_equal(other.epoch(0), first)
    assert sorted(map(tuple, first.tolist())) != sorted(map(tuple, second.tolist()))
    assert read(first)[:, 0].tolist() != read(second)[:, 0].tolist()
    assert (new(group_size=3, seed=6).epoch(0) != first).any()


def test_all_lines_are_shuffled() -> None:
    rows = np.stack([np.zeros(200), np.arange(200), np.ones(200)], axis=1).astype(np.int64)
    labels = read(FreshNegatives(rows, 400, 1, 1, 0).epoch(0))[:, 0, 2]
    assert 60 < labels[:200].sum() < 140
    positives = read(FreshNegatives(rows, 400, 1, 2, 0).epoch(0))[:, 0, 1]
    assert np.abs(np.corrcoef(positives, np.arange(200))[0, 1]) < 0.3


def test_it_costs_little() -> None:
    """Half a second is several times what it takes, and a fiftieth of what training these 900,000 rows takes."""
    rng = np.random.default_rng(0)
    keys = rng.choice(600 * 3706, 100_000, replace=False)
    fresh = FreshNegatives(np.stack([keys // 3706, keys % 3706, np.ones_like(keys)], axis=1), 3706, 8, 9, 0)
    start = time.process_time()
    text = fresh.epoch(0)
    assert time.process_time() - start < 0.5
    rows = read(text)
    negatives = rows[:, 1:].reshape(-1, 3)
    assert not np.isin(negatives[:, 0] * 3706 + negatives[:, 1], keys).any()
    assert sorted((rows[:, 0, 0] * 3706 + rows[:, 0, 1]).tolist()) == sorted(keys.tolist())


# -- errors ------------------------------------------------------------------------------------------------


def test_a_group_is_a_positive_with_all_its_negatives() -> None:
    with pytest.raises(ConfigError) as caught:
        new(group_size=2)
    assert str(caught.value) == (
        "group_size must be 1, or 1 + num_neg = 3 to have a positive and its negatives in one row. Received: 2."
    )


def test_no_negatives() -> None:
    with pytest.raises(ConfigError, match="num_neg must be at least 1. Received: 0"):
        new(group_size=1, num_neg=0)


def test_a_user_with_all_items() -> None:
    with pytest.raises(DataError) as caught:
        FreshNegatives(np.array([[0, 1, 1], [4, 0, 1], [4, 1, 1]]), 2, 1, 1, 0)
    assert str(caught.value) == (
        "A user must have at least one item that is not a training item, or no negative can be drawn. "
        "Received: 1 user(s) with all 2 items, first user id 4. Remove these users."
    )


def test_no_positives() -> None:
    with pytest.raises(DataError) as caught:
        FreshNegatives(ROWS[ROWS[:, 2] == 0], NUM_ITEMS, 1, 1, 0)
    assert str(caught.value) == (
        "Training rows must hold a positive, or there is nothing to draw negatives for. Received: 4 rows, all with "
        "label 0. Make the shards again."
    )


def test_an_item_beyond_the_last() -> None:
    with pytest.raises(DataError) as caught:
        FreshNegatives(ROWS, 11, 1, 1, 0)
    assert str(caught.value) == (
        "An item's id must be below 11, the number of items. Received: 11. Make the shards again, or set "
        "hyper_parameters.num_items."
    )
