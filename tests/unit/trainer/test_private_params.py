"""What of a private parameter is this worker's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fl_rec.trainer.private_params import PrivateParams


def private(values: dict[str, Any], **by_row: bool) -> tuple[PrivateParams, Any]:
    """Private parameters of a program that has such values."""
    now = {name: np.array(value, np.float32) for name, value in values.items()}
    program = SimpleNamespace(value=lambda name: now[name].copy(), now=now)
    params = PrivateParams(by_row)
    params.remember(program)  # type: ignore[arg-type]
    return params, program


def test_they_are_a_mapping_of_names() -> None:
    params = PrivateParams({"users": True, "layer": False})
    assert list(params) == ["users", "layer"] and len(params) == 2 and "items" not in params and params["users"]
    assert not PrivateParams({})


def test_of_an_embedding_the_trained_rows_are_a_workers_and_of_another_all() -> None:
    params, program = private({"users": [[1, 1], [2, 2], [3, 3]], "layer": [5, 6]}, users=True, layer=False)
    program.now["users"][1, 0] = 9
    parts = params.parts(program)
    assert parts["users"].rows is not None
    assert parts["users"].rows.tolist() == [1] and parts["users"].values.tolist() == [[9, 2]]
    assert parts["layer"].rows is None and parts["layer"].values.tolist() == [5, 6]

    put = {}
    net = SimpleNamespace(set_parameter=lambda name, values: put.update({name: values.tolist()}))
    params.put_into(net, program)  # type: ignore[arg-type]
    assert put == {"users": [[0, 0], [9, 2], [0, 0]], "layer": [5, 6]}


def test_a_warm_start_takes_over_the_rows_that_it_has() -> None:
    params, program = private({"users": [[1, 1], [2, 2]], "layer": [5, 6]}, users=True, layer=False)
    taken = params.take_over("users", np.array([[0, 0], [7, 7]], np.float32))
    assert taken.tolist() == [[1, 1], [7, 7]], "a row of zeros is another worker's"
    program.now["users"] = taken
    parts = params.parts(program)
    assert parts["users"].rows is not None
    assert parts["users"].rows.tolist() == [1], "what was taken over is this worker's own"
    assert params.take_over("layer", np.array([0, 8], np.float32)).tolist() == [0, 8]


def test_of_a_table_that_all_had_nothing_is_a_workers_until_it_trains() -> None:
    params, program = private({"users": [[1, 1], [2, 2]]}, users=True)
    taken = params.take_over("users", np.array([[3, 3], [7, 7]], np.float32))
    assert taken.tolist() == [[3, 3], [7, 7]]
    program.now["users"] = taken.copy()
    assert params.parts(program)["users"].rows.tolist() == []  # type: ignore[union-attr]
    program.now["users"][0] = 4
    assert params.parts(program)["users"].rows.tolist() == [0]  # type: ignore[union-attr]
