"""A NeuMF that starts from a GMF and an MLP trained before it (arXiv:1708.05031, section 3.4.1).

Parameters are known by the names that fl_rec/nets/ncf.py gives them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_rec.errors import DataError

Parameters = Mapping[str, np.ndarray]


Shapes = Mapping[str, "tuple[int, ...]"]


def neumf_parameters(gmf: Parameters, mlp: Parameters, alpha: float) -> dict[str, np.ndarray]:
    """The parameters of the NeuMF whose logits are alpha times the GMF's plus 1 - alpha times the MLP's.

    That is eq. 13 of the paper: its predicting layer has the weights of the two others, scaled so, one below the
    other. Its bias is the sum of theirs, scaled likewise.

    Args:
        gmf: a trained NCF_GMF's parameters by name; other names are left out.
        mlp: the same of a trained NCF_MLP.
        alpha: from 0 to 1.

    Returns:
        the NCF_NeuMF's parameters by name, float32 copies.

    Raises:
        DataError: a parameter is missing, or has a shape that does not fit the others'.
    """
    number = sum(name.startswith("mlp_fc_") and name.endswith(".w") for name in mlp)
    layers = [f"mlp_fc_{layer}" for layer in range(max(number, 1))]
    predicting = ["prediction.w", "prediction.b"]
    own_gmf = _take(gmf, "NCF_GMF", ["gmf_user_embedding", "gmf_item_embedding", *predicting])
    dense = [f"{layer}.{part}" for layer in layers for part in "wb"]
    own_mlp = _take(mlp, "NCF_MLP", ["mlp_user_embedding", "mlp_item_embedding", *dense, *predicting])

    users, width = _size(own_gmf, "gmf_user_embedding")
    items, _ = _size(own_gmf, "gmf_item_embedding")
    _require(own_gmf, "NCF_GMF", {"gmf_user_embedding": (users, width), "gmf_item_embedding": (items, width)}, width)
    _, half = _size(own_mlp, "mlp_user_embedding")
    shapes: dict[str, tuple[int, ...]] = {"mlp_user_embedding": (users, half), "mlp_item_embedding": (items, half)}
    fan_in = 2 * half
    for layer in layers:
        _, fan_out = _size(own_mlp, f"{layer}.w")
        shapes.update({f"{layer}.w": (fan_in, fan_out), f"{layer}.b": (fan_out,)})
        fan_in = fan_out
    _require(own_mlp, "NCF_MLP", shapes, fan_in)

    # In the order in which the net puts their features side by side.
    weights = [alpha * own_gmf["prediction.w"], (1 - alpha) * own_mlp["prediction.w"]]
    bias = alpha * own_gmf["prediction.b"] + (1 - alpha) * own_mlp["prediction.b"]
    joined = {"prediction.w": np.concatenate(weights), "prediction.b": bias}
    return {name: each.astype(np.float32) for name, each in {**own_gmf, **own_mlp, **joined}.items()}


def _take(parameters: Parameters, net: str, names: list[str]) -> dict[str, np.ndarray]:
    missing = [name for name in names if name not in parameters]
    if missing:
        held = ", ".join(sorted(parameters)) or "none"
        raise DataError(
            f"NCF_NeuMF starts from the parameters of an {net}. Missing: {', '.join(missing)}. Received: {held}. "
            f"Give a saved epoch of {net} from models/ncf."
        )
    return {name: np.asarray(parameters[name]) for name in names}


def _size(parameters: Parameters, name: str) -> tuple[int, int]:
    """Rows and columns."""
    shape = parameters[name].shape
    if len(shape) != 2:
        raise DataError(f"{name} must have rows and columns. Received: an array {list(shape)}. Train the net again.")
    return shape[0], shape[1]


def _require(parameters: Parameters, net: str, shapes: Shapes, width: int) -> None:
    """Checks shapes; `width` is what the predicting layer gets."""
    wanted = {**shapes, "prediction.w": (width, 1), "prediction.b": (1,)}
    for name, shape in wanted.items():
        if parameters[name].shape != shape:
            raise DataError(
                f"The nets that NCF_NeuMF starts from must have the same users and items, and layers that fit: "
                f"{net}'s {name} must be {list(shape)}. Received: {list(parameters[name].shape)}. Train both with the "
                "num_users, num_items, mf_dim and fc_layers that NCF_NeuMF has."
            )
