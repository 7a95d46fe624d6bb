"""Where a worker's users have their rows."""

from __future__ import annotations

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.nets.own_users import ALL_USERS, OwnUsers


@pytest.fixture
def own() -> OwnUsers:
    return OwnUsers([np.array([[70], [5]]), np.array([9, 70], np.int32), np.empty(0, np.int64)], {"users": 80})


@pytest.mark.parametrize("ids", [[[5], [5], [70], [9], [9], [5]], [[9, 70]], [[5]], np.empty((0, 1), int)])
def test_rows_lie_in_the_order_of_the_ids(own: OwnUsers, ids: list[list[int]]) -> None:
    users = np.array(ids, np.int32)
    places = own.places(users)
    assert places.dtype == np.int32 and places.tolist() == [[[5, 9, 70].index(each) for each in row] for row in users]
    assert own.ids(places).tolist() == users.tolist() and own.all.tolist() == [5, 9, 70]


@pytest.mark.parametrize("strange", [0, 6, 71, -1])
def test_another_workers_user_has_none(own: OwnUsers, strange: int) -> None:
    with pytest.raises(DataError, match=rf"knows the users of the worker's own rows\. Received: user {strange}\."):
        own.places(np.array([[5], [strange], [9]]))


def test_a_table_of_all_users_is_known_by_its_name(own: OwnUsers) -> None:
    table = np.arange(160).reshape(80, 2)
    assert own.own("users", table).tolist() == [[10, 11], [18, 19], [140, 141]] and own.whole("users", (3, 2)) == (
        80,
        2,
    )
    assert own.own("items", table) is table and own.whole("items", (3, 2)) == (3, 2)


@pytest.mark.parametrize("ids", [[3, 4], [-1, 2]])
def test_a_user_that_no_table_has(ids: list[int]) -> None:
    text = rf"Users' ids must be from 0 to 3, the rows of small\. Received: from {ids[0]} to {ids[1]}\. Set hyper"
    with pytest.raises(DataError, match=text):
        OwnUsers([np.array(ids)], {"large": 9, "small": 4})


def test_where_all_users_have_rows_nothing_changes() -> None:
    users = np.array([[3], [1]])
    assert ALL_USERS.places(users) is users and ALL_USERS.ids(users) is users and not ALL_USERS.tables
    assert ALL_USERS.own("users", users) is users and ALL_USERS.whole("users", (2, 1)) == (2, 1)
