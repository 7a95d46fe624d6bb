"""A NeuMF's parameters from those of a GMF and an MLP; that its logits follow is in tests/paddle/test_nets.py."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.nets.neumf import neumf_parameters

USERS, ITEMS = 5, 7
GMF_SHAPES = {
    "gmf_user_embedding": (USERS, 3),
    "gmf_item_embedding": (ITEMS, 3),
    "prediction.w": (3, 1),
    "prediction.b": (1,),
}
MLP_SHAPES = {
    "mlp_user_embedding": (USERS, 4),
    "mlp_item_embedding": (ITEMS, 4),
    "mlp_fc_0.w": (8, 6),
    "mlp_fc_0.b": (6,),
    "mlp_fc_1.w": (6, 2),
    "mlp_fc_1.b": (2,),
    "prediction.w": (2, 1),
    "prediction.b": (1,),
}


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(shapes))
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def refusal(gmf: Mapping[str, np.ndarray], mlp: Mapping[str, np.ndarray]) -> str:
    with pytest.raises(DataError) as caught:
        neumf_parameters(gmf, mlp, 0.5)
    return str(caught.value)


def test_parameters_of_both_and_a_scaled_predicting_layer() -> None:
    gmf, mlp = drawn(GMF_SHAPES), drawn(MLP_SHAPES)
    joined = neumf_parameters({**gmf, "learning_rate_0": np.ones(1)}, mlp, 0.3)
    assert set(joined) == set(GMF_SHAPES) | set(MLP_SHAPES)
    assert all(each.dtype == np.float32 for each in joined.values())
    for name in set(joined) - {"prediction.w", "prediction.b"}:
        source = gmf if name in gmf else mlp
        np.testing.assert_array_equal(joined[name], source[name])
        assert not np.shares_memory(joined[name], source[name])
    both = np.concatenate([0.3 * gmf["prediction.w"], 0.7 * mlp["prediction.w"]])
    np.testing.assert_allclose(joined["prediction.w"], both, rtol=1e-6)
    np.testing.assert_allclose(joined["prediction.b"], 0.3 * gmf["prediction.b"] + 0.7 * mlp["prediction.b"], rtol=1e-6)


def test_more_layers_than_ten() -> None:
    deep = {f"mlp_fc_{layer}.w": (8, 8) for layer in range(11)}
    shapes = {**MLP_SHAPES, **deep, **{f"mlp_fc_{layer}.b": (8,) for layer in range(11)}, "prediction.w": (8, 1)}
    assert neumf_parameters(drawn(GMF_SHAPES), drawn(shapes), 0.5)["prediction.w"].shape == (11, 1)


def test_missing_parameters() -> None:
    gmf, mlp = drawn(GMF_SHAPES), drawn(MLP_SHAPES)
    assert refusal(mlp, gmf) == (
        "NCF_NeuMF starts from the parameters of an NCF_GMF. Missing: gmf_user_embedding, gmf_item_embedding. "
        f"Received: {', '.join(sorted(MLP_SHAPES))}. Give a saved epoch of NCF_GMF from models/ncf."
    )
    assert "an NCF_MLP. Missing: mlp_user_embedding, mlp_item_embedding, mlp_fc_0.w, mlp_fc_0.b. " in refusal(gmf, gmf)
    assert "Missing: mlp_fc_1.b. " in refusal(gmf, {name: mlp[name] for name in mlp if name != "mlp_fc_1.b"})
    assert "Received: none." in refusal({}, mlp)


@pytest.mark.parametrize(
    ("changed_gmf", "changed_mlp", "wrong"),
    [
        ({}, {"mlp_user_embedding": (6, 4)}, "NCF_MLP's mlp_user_embedding must be [5, 4]. Received: [6, 4]."),
        ({}, {"mlp_item_embedding": (8, 4)}, "NCF_MLP's mlp_item_embedding must be [7, 4]. Received: [8, 4]."),
        ({"gmf_item_embedding": (7, 2)}, {}, "NCF_GMF's gmf_item_embedding must be [7, 3]. Received: [7, 2]."),
        ({"prediction.w": (5, 1)}, {}, "NCF_GMF's prediction.w must be [3, 1]. Received: [5, 1]."),
        ({"prediction.b": (3,)}, {}, "NCF_GMF's prediction.b must be [1]. Received: [3]."),
        ({}, {"mlp_fc_0.w": (6, 6)}, "NCF_MLP's mlp_fc_0.w must be [8, 6]. Received: [6, 6]."),
        ({}, {"mlp_fc_1.b": (6,)}, "NCF_MLP's mlp_fc_1.b must be [2]. Received: [6]."),
        ({}, {"prediction.w": (6, 1)}, "NCF_MLP's prediction.w must be [2, 1]. Received: [6, 1]."),
    ],
)
def test_shapes_that_do_not_fit(
    changed_gmf: dict[str, tuple[int, ...]], changed_mlp: dict[str, tuple[int, ...]], wrong: str
) -> None:
    assert refusal(drawn({**GMF_SHAPES, **changed_gmf}), drawn({**MLP_SHAPES, **changed_mlp})) == (
        f"The nets that NCF_NeuMF starts from must have the same users and items, and layers that fit: {wrong} Train "
        "both with the num_users, num_items, mf_dim and fc_layers that NCF_NeuMF has."
    )


def test_table_that_is_no_table() -> None:
    assert refusal(drawn({**GMF_SHAPES, "gmf_user_embedding": (5,)}), drawn(MLP_SHAPES)) == (
        "gmf_user_embedding must have rows and columns. Received: an array [5]. Train the net again."
    )
