"""What a net of any `Structure` scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.kernels import blocks
from fl_rec.kernels.compiled import kernel, part
from fl_rec.kernels.losses import sigmoid

# Items at a time: so many fill vectors, and what lies between the layers stays in the first cache.
SIZE = 128

_TABLES = ", ".join(["float32[:, ::1]"] * 5)


@part
def logits_of(
    users: Any, items: Any, group: Any, start: Any, count: Any, size: Any, tables: Any, widths: Any, dense: Any, x: Any
) -> int:
    """Fills the last row of `x` with logits of `count` items; returns where the layers' output begins in it."""
    user, item, mlp_user, mlp_item, bias = tables
    width, half, last = user.shape[1], mlp_user.shape[1], widths[len(widths) - 1]
    predicting, begin = len(dense) - 1 - width - last, 0
    logits = x[widths.sum() * size :]
    for t in range(count):
        logits[t] = dense[len(dense) - 1]
    if half:
        blocks.gather(mlp_user, users, group, start, count, size, x)
        blocks.gather(mlp_item, items, 1, start, count, size, x[half * size :])
        begin = blocks.towers(widths, dense, count, size, x)
        for f in range(last):
            w = dense[predicting + width + f]
            for t in range(count):
                logits[t] += w * x[begin + f * size + t]
    if width:
        for t in range(count):
            u, v = users[(start + t) // group], items[start + t]
            total = np.float32(0)
            for k in range(width):
                total += user[u, k] * item[v, k] * dense[predicting + k]
            logits[t] += total
    if bias.shape[1]:
        for t in range(count):
            logits[t] += bias[items[start + t], 0]
    return begin


@kernel(f"void(int32[::1], int32[::1], int64, {_TABLES}, int64[::1], float32[::1], float32[::1])")
def score(
    users: Any,
    items: Any,
    group: Any,
    user: Any,
    item: Any,
    mlp_user: Any,
    mlp_item: Any,
    bias: Any,
    widths: Any,
    dense: Any,
    scores: Any,
) -> None:
    """Fills `scores` with those of items, `group` of which belong to a user."""
    x = np.empty((widths.sum() + 1) * SIZE, np.float32)
    logits = x[widths.sum() * SIZE :]
    tables = (user, item, mlp_user, mlp_item, bias)
    for start in range(0, len(items), SIZE):
        count = min(SIZE, len(items) - start)
        logits_of(users, items, group, start, count, SIZE, tables, widths, dense, x)
        for t in range(count):
            scores[start + t] = sigmoid(logits[t])
