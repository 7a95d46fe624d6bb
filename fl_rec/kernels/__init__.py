"""Compiled kernels (numba) that train and score nets of a `fl_rec.nets.structure.Structure`. They know no Paddle.

numba is imported when a kernel is compiled, and llvmlite when one is called for the first time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_rec.kernels.arrays import arrays_of, ids
from fl_rec.kernels.compiled import cache_environment, cache_folder, compile_all, is_compiled, load, load_all
from fl_rec.nets.structure import Structure

__all__ = ["cache_environment", "cache_folder", "compile_all", "is_compiled", "load_all", "score"]


def score(
    structure: Structure, parameters: Mapping[str, np.ndarray], users: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """What a net scores.

    Args:
        parameters: float32, those that the structure names; others are not looked at.
        users: integers [rows] or [rows, 1].
        items: integers [rows] or [rows, group], of one user each.

    Returns:
        float32 from 0 to 1, of the shape of `items`.

    Raises:
        DataError: an id is no row of an embedding, or the parameters are not those of such a net.
    """
    (user, item, mlp_user, mlp_item, bias), widths, dense = arrays_of(structure, parameters)
    scores = np.empty(items.shape, np.float32)
    group = items.shape[1] if items.ndim == 2 else 1
    load("net.score")(
        ids(users, (user, mlp_user), "users"),
        ids(items, (item, mlp_item, bias), "items"),
        group,
        user,
        item,
        mlp_user,
        mlp_item,
        bias,
        widths,
        dense,
        scores.reshape(-1),
    )
    return scores
