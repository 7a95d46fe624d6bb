"""Which rows a worker trains next: parts of passes over the data, in order, each row once in each."""

from __future__ import annotations

import numpy as np

from fl_rec.data.rows import Rows, SameRows, TrainingRows


def same() -> SameRows:
    """Rows 0 to 4, of two slots."""
    return SameRows((np.arange(5)[:, None], np.arange(10).reshape(5, 2)))


class Numbered:
    """Draws three rows that tell of their pass."""

    count = 3

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def epoch(self, number: int) -> Rows:
        self.drawn.append(number)
        return (10 * number + np.arange(3)[:, None],)


def taken(rows: TrainingRows, wanted: int) -> list[list[int]]:
    """The rows of each part that `take` gives, by their first slot."""
    return [part[0][:, 0].tolist() for part in rows.take(wanted)]


def test_parts_go_on_where_the_last_one_ended() -> None:
    rows = TrainingRows(same())
    assert rows.count == 5
    assert taken(rows, 2) == [[0, 1]]
    assert taken(rows, 2) == [[2, 3]]
    # The end of one pass, and the beginning of the next.
    assert taken(rows, 3) == [[4], [0, 1]]
    assert taken(rows, 3) == [[2, 3, 4]]
    assert taken(rows, 1) == [[0]]


def test_all_slots_of_a_part_are_of_the_same_rows() -> None:
    rows = TrainingRows(same())
    list(rows.take(1))
    (part,) = rows.take(2)
    assert [slot.tolist() for slot in part] == [[[1], [2]], [[2, 3], [4, 5]]]


def test_no_rows_are_no_part() -> None:
    rows = TrainingRows(same())
    assert taken(rows, 0) == []
    assert taken(rows, 1) == [[0]]


def test_more_than_a_pass() -> None:
    assert taken(TrainingRows(same()), 12) == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1]]


def test_a_whole_pass_over_rows_that_do_not_change_is_known_by_its_object() -> None:
    source = same()
    rows = TrainingRows(source)
    assert all(part is source.rows for part in rows.take(10))
    list(rows.take(1))
    (rest,) = rows.take(4)
    assert rest is not source.rows, "the rest of a pass is not all of it"


def test_rows_are_drawn_anew_for_each_pass_and_once() -> None:
    source = Numbered()
    rows = TrainingRows(source)
    assert rows.count == 3
    assert taken(rows, 2) == [[0, 1]]
    assert taken(rows, 3) == [[2], [10, 11]]
    assert taken(rows, 1) == [[12]]
    assert taken(rows, 3) == [[20, 21, 22]]
    assert source.drawn == [0, 1, 2]


def test_a_pass_by_its_number() -> None:
    source = Numbered()
    rows = TrainingRows(source)
    assert [rows.of_pass(number)[0][0, 0] for number in (7, 7, 0)] == [70, 70, 0]
    assert source.drawn == [7, 0]
    assert TrainingRows(same()).of_pass(3)[0].tolist() == [[0], [1], [2], [3], [4]]
