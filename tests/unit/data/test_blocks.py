import threading

import numpy as np
import pytest

from fl_rec.data.blocks import ahead


def test_the_next_block_is_made_while_one_is_used() -> None:
    made = threading.Event()

    def blocks():
        yield np.array([1])
        made.set()
        yield np.array([2])

    found = ahead(blocks())
    assert next(found).tolist() == [1]
    assert made.wait(10)
    assert [block.tolist() for block in found] == [[2]]


def test_an_error_in_a_block_comes_in_its_place() -> None:
    def blocks():
        yield np.array([1])
        raise ValueError("line 2")

    found = ahead(blocks())
    assert next(found).tolist() == [1]
    with pytest.raises(ValueError, match="line 2"):
        next(found)


def test_no_thread_is_left_when_the_user_stops() -> None:
    before = threading.active_count()
    found = ahead(iter([np.array([1]), np.array([2]), np.array([3])]))
    next(found)
    found.close()
    assert threading.active_count() == before
