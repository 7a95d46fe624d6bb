"""Which rows are made of a data set; the command line is tested in test_prepare_cli.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fl_rec.data.prepare import draw_public, hold_out, make_rows
from fl_rec.data.sources.base import Dataset, Items
from fl_rec.errors import DataError

USERS, ITEMS = 12, 110


def dataset(**changes: Any) -> Dataset:
    """Twelve users with three training items each, u, u + 1 and u + 2, and the test item u + 3."""
    users = np.arange(USERS)
    given: dict[str, Any] = {
        "kind": "test",
        "train": np.array([[user, user + place] for user in users for place in range(3)]),
        "test": np.stack([users, users + 3], axis=1),
        "original_user": users + 1,
        "items": Items(np.arange(ITEMS), [""] * ITEMS, [""] * ITEMS),
    }
    return Dataset(**{**given, **changes})


def made(data: Dataset, validation: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """As `make_rows`, the blocks of training rows put together."""
    train, *others = make_rows(data, validation, 4, None, seed)
    return np.concatenate(list(train)), *others


def items_of(rows: np.ndarray, user: int) -> set[int]:
    return set(rows[rows[:, 0] == user, 1].tolist())


def test_each_positive_is_followed_by_its_negatives() -> None:
    train, test, validation = made(dataset(), None, 1)
    assert (train.shape, test.shape, validation) == ((USERS * 3 * 5, 3), (USERS * 100, 3), None)
    assert train[::5].tolist() == [[*pair, 1] for pair in dataset().train.tolist()]
    assert test[::100].tolist() == [[*pair, 1] for pair in dataset().test.tolist()]


def test_what_is_held_out_is_no_negative_where_it_would_tell() -> None:
    """A validation item is no test negative: the model has been chosen by it. A test item may be a validation one."""
    held, validation = hold_out(dataset(), "made up", 1)
    assert len(held.train) == 2 * USERS and len(validation) == USERS
    _, test, valid = made(held, validation, 1)
    assert valid is not None and valid[::100, :2].tolist() == validation.tolist()
    for user in range(USERS):
        mine = set(range(user, user + 3))
        assert items_of(test, user) & mine == set(), "all that the user has had"
        assert items_of(valid, user) & mine == items_of(validation, user)
    assert any(user + 3 in items_of(valid, user) for user in range(USERS))


def test_each_kind_of_rows_has_a_stream_of_its_own() -> None:
    held, validation = hold_out(dataset(), "made up", 1)
    _, test, valid = made(held, held.test, 1)
    assert valid is not None and not np.array_equal(test, valid), "the same positives, and other negatives"
    for number, rows in enumerate(made(held, validation, 1)):
        assert np.array_equal(rows, made(held, validation, 1)[number])
        assert not np.array_equal(rows, made(held, validation, 2)[number])


def test_rows_that_the_source_has_are_kept() -> None:
    given = np.array([[0, 1, 1], [0, 2, 0]])
    train, test, _ = made(dataset(train_rows=given, test_rows=given[:1]), None, 1)
    assert (train.tolist(), test.tolist()) == (given.tolist(), given[:1].tolist())
    with pytest.raises(DataError, match=r"Received: made up \(test\), which has training rows of its own"):
        hold_out(dataset(train_rows=given), "made up", 1)


def public(share: float, seed: int = 1, rows: Sequence[np.ndarray] | None = None) -> np.ndarray:
    return draw_public(made(dataset(), None, 1)[:2] if rows is None else rows, share, seed)


def test_of_public_users_all_that_they_have_had_is_public_and_nothing_else() -> None:
    rows = public(0.25)
    users = np.unique(rows[:, 0])
    assert len(users) == 3 and (rows[:, 2] == 1).all()
    assert rows[:, :2].tolist() == [[user, user + place] for user in users for place in range(4)]


def test_who_is_public_is_drawn() -> None:
    drawn = {tuple(np.unique(public(0.25, seed)[:, 0])) for seed in range(8)}
    assert len(drawn) > 4
    assert set(np.concatenate([list(each) for each in drawn])) > set(range(6))


@pytest.mark.parametrize(("share", "count"), [(0.01, 0), (0.99, 12)])
def test_a_share_is_somebody_and_not_all(share: float, count: int) -> None:
    with pytest.raises(DataError, match=f"some of the 12 users are, and not all. Received: {share}, which comes to"):
        public(share)


def test_only_users_with_rows_can_be_drawn() -> None:
    rows = np.array([[3, 1, 1], [7, 2, 1], [7, 3, 0]])
    assert {tuple(np.unique(public(0.5, seed, [rows])[:, 0])) for seed in range(20)} == {(3,), (7,)}
