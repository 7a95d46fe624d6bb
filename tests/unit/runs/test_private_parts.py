"""Workers' parts of a private parameter, joined."""

from __future__ import annotations

import numpy as np
import pytest

from fl_rec.runs.private_parts import NoCommonModel, Part, join


def test_public_users_rows_are_everyones() -> None:
    parts = [
        {"users": Part(np.array([0, 4]), np.array([[1.0], [2.0]], np.float32))},
        {"users": Part(np.array([1, 4]), np.array([[3.0], [5.0]], np.float32))},
    ]
    whole = {"users": np.zeros((6, 1), np.float32)}
    with pytest.raises(NoCommonModel, match="Received: rows of it from 2 workers"):
        join(parts, whole)
    assert join(parts, whole, {"users": [4, 99]})["users"].ravel().tolist() == [1, 3, 0, 0, 5, 0]
    # Number 4 of another parameter is no user.
    for everyones in ({"users": [0]}, {"items": [4]}, {"users": []}):
        with pytest.raises(NoCommonModel):
            join(parts, whole, everyones)
