"""Forward and backward through a net's fully connected layers, for some items at a time.

What lies between layers has a row of `size` numbers for each feature, one number for each item, so that all inner loops
go over items next to each other. A net's dense parameters lie one behind another in one array, in the order of
`Structure.dense`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.kernels.compiled import part

_ZERO = np.float32(0)
# An index that can't be negative: any other is looked at, which no vector instruction does.
U = np.uintp
_NEXT = np.int64(1)


@part
def total(widths: Any) -> int:
    """Features of all layers."""
    features = 0
    for width in widths:
        features += width
    return features


@part
def gather(table: Any, ids: Any, group: Any, start: Any, count: Any, size: Any, out: Any) -> None:
    """Looks up the rows of `count` items, item t of the id of row t // group."""
    for t in range(count):
        row = ids[(start + t) // group]
        for f in range(table.shape[1]):
            out[U(f * size + t)] = table[row, f]


@part
def scatter(
    slopes: Any, width: Any, places: Any, group: Any, start: Any, count: Any, size: Any, out: Any, column: Any
) -> None:
    """Adds the gradients of what was looked up to rows of `out`, from a column on; the inverse of `gather`."""
    for t in range(count):
        row = places[(start + t) // group]
        for f in range(width):
            out[row, U(column + f)] += slopes[U(f * size + t)]


@part
def fill(out: Any, at: Any, count: Any, value: Any) -> None:
    begin = U(at)
    for t in range(U(count)):
        out[begin + t] = value


@part
def add(out: Any, at: Any, factors: Any, first: Any, step: Any, number: Any, x: Any, size: Any, count: Any) -> None:
    """Adds to `count` numbers of `out` as many of each of the first `number` rows of `x`, each row times its factor:
    those of `factors` from `first` on, `step` apart. Eight at a time, for fewer passes over `out`."""
    y, count, f = U(at), U(count), 0
    while f + 8 <= number:
        w = first + f * step
        w0, w1, w2, w3 = factors[w], factors[w + step], factors[w + 2 * step], factors[w + 3 * step]
        w += 4 * step
        w4, w5, w6, w7 = factors[w], factors[w + step], factors[w + 2 * step], factors[w + 3 * step]
        a, b, c, d = U(f * size), U((f + 1) * size), U((f + 2) * size), U((f + 3) * size)
        e, g, h, i = U((f + 4) * size), U((f + 5) * size), U((f + 6) * size), U((f + 7) * size)
        for t in range(count):
            low = w0 * x[a + t] + w1 * x[b + t] + w2 * x[c + t] + w3 * x[d + t]
            out[y + t] += low + w4 * x[e + t] + w5 * x[g + t] + w6 * x[h + t] + w7 * x[i + t]
        f += 8
    while f < number:
        w0, a = factors[first + f * step], U(f * size)
        for t in range(count):
            out[y + t] += w0 * x[a + t]
        f += 1


@part
def forward(x: Any, fan_in: Any, weight: Any, fan_out: Any, count: Any, size: Any, out: Any) -> None:
    """A fully connected layer with a ReLU: `weight` has its matrix, then its bias."""
    for o in range(fan_out):
        fill(out, o * size, count, weight[fan_in * fan_out + o])
        add(out, o * size, weight, o, fan_out, fan_in, x, size, count)
        y = U(o * size)
        for t in range(U(count)):
            out[y + t] = max(out[y + t], _ZERO)


@part
def backward(
    x: Any, fan_in: Any, weight: Any, fan_out: Any, slopes: Any, count: Any, size: Any, gradient: Any, into: Any
) -> None:
    """A fully connected layer's gradients: adds those of its parameters, and fills `into` with those of `x`.

    Args:
        slopes: the gradients of what the layer gives.
        gradient: of `weight`, in its order.
    """
    for o in range(fan_out):
        total, b = _ZERO, U(o * size)
        for t in range(U(count)):
            total += slopes[b + t]
        gradient[fan_in * fan_out + o] += total
    for i in range(fan_in):
        a, o = U(i * size), 0
        while o + 4 <= fan_out:
            s0, s1, s2, s3 = _ZERO, _ZERO, _ZERO, _ZERO
            b, c, d, e = U(o * size), U((o + 1) * size), U((o + 2) * size), U((o + 3) * size)
            for t in range(U(count)):
                s0 += x[a + t] * slopes[b + t]
                s1 += x[a + t] * slopes[c + t]
                s2 += x[a + t] * slopes[d + t]
                s3 += x[a + t] * slopes[e + t]
            w = i * fan_out + o
            gradient[w] += s0
            gradient[w + 1] += s1
            gradient[w + 2] += s2
            gradient[w + 3] += s3
            o += 4
        while o < fan_out:
            s0, b = _ZERO, U(o * size)
            for t in range(U(count)):
                s0 += x[a + t] * slopes[b + t]
            gradient[i * fan_out + o] += s0
            o += 1
        fill(into, i * size, count, _ZERO)
        add(into, i * size, weight, i * fan_out, _NEXT, fan_out, slopes, size, count)


@part
def relu_backward(x: Any, slopes: Any, width: Any, count: Any, size: Any) -> None:
    for f in range(width):
        a = U(f * size)
        for t in range(U(count)):
            slopes[a + t] = slopes[a + t] if x[a + t] > _ZERO else _ZERO


@part
def first_layer(table: Any, weight: Any, fan_out: Any) -> Any:
    """What each row of an embedding adds to the sums of a layer; `weight` begins with the row of its first number."""
    sums = np.zeros((table.shape[0], fan_out), np.float32)
    for row in range(table.shape[0]):
        for f in range(table.shape[1]):
            x, w = table[row, f], f * fan_out
            for o in range(fan_out):
                sums[row, o] += x * weight[w + o]
    return sums


@part
def gather_sums(
    of_users: Any, users: Any, group: Any, of_items: Any, items: Any, start: Any, count: Any, size: Any, out: Any
) -> None:
    """Looks up what users and items add to the sums of the first layer: its output for `count` items."""
    for t in range(count):
        u, v = users[(start + t) // group], items[start + t]
        for f in range(of_users.shape[1]):
            out[f * size + t] = max(of_users[u, f] + of_items[v, f], _ZERO)


@part
def layers(widths: Any, dense: Any, count: Any, size: Any, x: Any) -> int:
    """Through all layers but the predicting one; returns where what they give begins in `x`."""
    at, begin = 0, 0
    for layer in range(len(widths) - 1):
        fan_in, fan_out = widths[layer], widths[layer + 1]
        forward(x[begin:], fan_in, dense[at:], fan_out, count, size, x[begin + fan_in * size :])
        at += (fan_in + 1) * fan_out
        begin += fan_in * size
    return begin


@part
def layers_backward(
    widths: Any, dense: Any, count: Any, size: Any, x: Any, slopes: Any, gradient: Any, spare: Any
) -> Any:
    """Back through all layers but the predicting one; returns the gradients of what goes in.

    Args:
        slopes: of what the last layer gives; it and `spare` have room for the widest layer, and are overwritten.
    """
    at, begin = 0, 0
    for layer in range(len(widths) - 1):
        at += (widths[layer] + 1) * widths[layer + 1]
        begin += widths[layer] * size
    for layer in range(len(widths) - 2, -1, -1):
        fan_in, fan_out = widths[layer], widths[layer + 1]
        relu_backward(x[begin:], slopes, fan_out, count, size)
        at -= (fan_in + 1) * fan_out
        begin -= fan_in * size
        backward(x[begin:], fan_in, dense[at:], fan_out, slopes, count, size, gradient[at:], spare)
        slopes, spare = spare, slopes
    return slopes
