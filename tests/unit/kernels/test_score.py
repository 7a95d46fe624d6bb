"""Scores of compiled kernels against numpy's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest

from fl_rec import kernels
from fl_rec.errors import DataError
from fl_rec.nets.structure import Layer, Structure, Tables, factorisation

USERS, ITEMS = 11, 13
LAYERS = (Layer("w0", "b0"), Layer("w1", "b1"))
PRODUCT, SIDE_BY_SIDE = Tables("users", "items"), Tables("mlp_users", "mlp_items")
SHAPES = {
    "users": (USERS, 5),
    "items": (ITEMS, 5),
    "bias": (ITEMS, 1),
    "mlp_users": (USERS, 6),
    "mlp_items": (ITEMS, 6),
}
# Widths that are no multiples of what the kernels take at a time.
DENSE = {
    "w0": (12, 9),
    "b0": (9,),
    "w1": (9, 3),
    "b1": (3,),
    "gmf.w": (5, 1),
    "mlp.w": (3, 1),
    "both.w": (8, 1),
    "b": (1,),
}
NETS = {
    "factorisation": factorisation("users", "items"),
    "bias": factorisation("users", "items", "bias"),
    "gmf": Structure(PRODUCT, prediction=Layer("gmf.w", "b")),
    "mlp": Structure(None, SIDE_BY_SIDE, LAYERS, Layer("mlp.w", "b")),
    "neumf": Structure(PRODUCT, SIDE_BY_SIDE, LAYERS, Layer("both.w", "b"), "bias"),
}


def parameters(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in {**SHAPES, **DENSE}.items()}


def logits(net: Structure, values: Mapping[str, np.ndarray], users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """In float64, by row and item."""
    values = {name: each.astype(np.float64) for name, each in values.items()}
    user = np.broadcast_to(users.reshape(-1, 1), items.shape)
    features = []
    if net.product:
        features.append(values[net.product.user][user] * values[net.product.item][items])
    if net.mlp:
        x = np.concatenate([values[net.mlp.user][user], values[net.mlp.item][items]], axis=-1)
        for layer in net.layers:
            x = np.maximum(x @ values[layer.weight] + values[layer.bias], 0)
        features.append(x)
    total = np.concatenate(features, axis=-1)
    if net.prediction:
        total = total @ values[net.prediction.weight] + values[net.prediction.bias]
    bias = values[net.bias][items, 0] if net.bias else 0
    return total.sum(axis=-1) + bias


@pytest.mark.parametrize("name", NETS)
def test_scores(name: str) -> None:
    net, values, rng = NETS[name], parameters(), np.random.default_rng(1)
    users, items = rng.integers(USERS, size=(150, 1)), rng.integers(ITEMS, size=(150, 3))
    expected = 1 / (1 + np.exp(-logits(net, values, users, items)))
    scores = kernels.score(net, values, users, items)
    assert scores.shape == (150, 3) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(kernels.score(net, values, users[:, 0], items[:, 2]), scores[:, 2])


def test_ids_that_no_embedding_has_are_errors() -> None:
    users, items = np.array([0, 1]), np.array([0, ITEMS])
    text = "Ids of items must be from 0 to 12, the rows of the net's embeddings. Received: from 0 to 13."
    with pytest.raises(DataError, match=re.escape(text)):
        kernels.score(NETS["bias"], parameters(), users, items)
    with pytest.raises(DataError, match=re.escape("users must be from 0 to 10")):
        kernels.score(NETS["neumf"], parameters(), users - 1, items - 1)


def test_a_structure_that_does_not_fit_the_parameters() -> None:
    text = "A net's structure() must describe it: w1 must be [9, 3] to fit the other parameters. Received: [8, 3]."
    with pytest.raises(DataError, match=re.escape(text)):
        kernels.score(NETS["mlp"], {**parameters(), "w1": np.zeros((8, 3), np.float32)}, np.array([0]), np.array([0]))
