"""Forward and backward through a net's towers, for some items at a time.

What lies between layers has a row of `size` numbers for each feature, one number for each item, so that all inner loops
go over items next to each other. A net's dense parameters lie one behind another in one array, in the order of
`Structure.dense`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.kernels.compiled import part

_ZERO = np.float32(0)


@part
def gather(table: Any, ids: Any, group: Any, start: Any, count: Any, size: Any, out: Any) -> None:
    """Looks up the rows of `count` items, item t of the id of row t // group."""
    width = table.shape[1]
    for t in range(count):
        row = ids[(start + t) // group]
        for f in range(width):
            out[f * size + t] = table[row, f]


@part
def forward(x: Any, fan_in: Any, weight: Any, fan_out: Any, count: Any, size: Any, out: Any) -> None:
    """A fully connected layer: `weight` has its matrix, then its bias."""
    bias = fan_in * fan_out
    for o in range(fan_out):
        y = o * size
        for t in range(count):
            out[y + t] = weight[bias + o]
        i = 0
        while i + 8 <= fan_in:
            w0, w1 = weight[i * fan_out + o], weight[(i + 1) * fan_out + o]
            w2, w3 = weight[(i + 2) * fan_out + o], weight[(i + 3) * fan_out + o]
            w4, w5 = weight[(i + 4) * fan_out + o], weight[(i + 5) * fan_out + o]
            w6, w7 = weight[(i + 6) * fan_out + o], weight[(i + 7) * fan_out + o]
            a = i * size
            for t in range(count):
                out[y + t] += (
                    w0 * x[a + t]
                    + w1 * x[a + size + t]
                    + w2 * x[a + 2 * size + t]
                    + w3 * x[a + 3 * size + t]
                    + w4 * x[a + 4 * size + t]
                    + w5 * x[a + 5 * size + t]
                    + w6 * x[a + 6 * size + t]
                    + w7 * x[a + 7 * size + t]
                )
            i += 8
        while i < fan_in:
            w0 = weight[i * fan_out + o]
            for t in range(count):
                out[y + t] += w0 * x[i * size + t]
            i += 1


@part
def relu(x: Any, width: Any, count: Any, size: Any) -> None:
    for f in range(width):
        for t in range(count):
            x[f * size + t] = max(x[f * size + t], _ZERO)


@part
def towers(widths: Any, dense: Any, count: Any, size: Any, x: Any) -> int:
    """Through all layers but the predicting one; returns where what they give begins in `x`."""
    at, begin = 0, 0
    for layer in range(len(widths) - 1):
        fan_in, fan_out = widths[layer], widths[layer + 1]
        out = x[begin + fan_in * size :]
        forward(x[begin:], fan_in, dense[at:], fan_out, count, size, out)
        relu(out, fan_out, count, size)
        at += (fan_in + 1) * fan_out
        begin += fan_in * size
    return begin
