"""Matrix factorisation by SGD, where a step is memory traffic and little else: each row is read twice and written once.

All other nets and optimizers are trained by `fl_rec.kernels.net`, which keeps gradients by themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.kernels.compiled import kernel, part
from fl_rec.kernels.losses import count_scores, loss

# Items whose rows stay in the first cache between their scores and their gradients.
_BLOCK = 64
_ONE, _TWO = np.float32(1), np.float32(2)


@part
def dot(a: Any, i: Any, b: Any, j: Any) -> Any:
    total = np.float32(0)
    for k in range(a.shape[1]):
        total += a[i, k] * b[j, k]
    return total


@part
def add_rows(table: Any, ids: Any, factors: Any, first: Any, count: Any, out: Any, row: Any) -> None:
    """Fills a row with the sum of rows of a table, each times its factor; four at a time, for fewer passes over it."""
    width = table.shape[1]
    for k in range(width):
        out[row, k] = 0
    t = first
    while t + 4 <= first + count:
        a, b, c, d = ids[t], ids[t + 1], ids[t + 2], ids[t + 3]
        fa, fb, fc, fd = factors[t], factors[t + 1], factors[t + 2], factors[t + 3]
        for k in range(width):
            out[row, k] += fa * table[a, k] + fb * table[b, k] + fc * table[c, k] + fd * table[d, k]
        t += 4
    while t < first + count:
        a, fa = ids[t], factors[t]
        for k in range(width):
            out[row, k] += fa * table[a, k]
        t += 1


@part
def step(table: Any, i: Any, keep: Any, gradients: Any, j: Any, rate: Any) -> None:
    for k in range(table.shape[1]):
        table[i, k] = keep * table[i, k] - rate * gradients[j, k]


@kernel(
    "float64(int32[::1], int32[::1], uint8[::1], int64, int64, float32[:, ::1], float32[:, ::1], float32[:, ::1],"
    "float32[::1], float32[::1], int64, float32[::1], int32[::1], int32[::1], int64[::1], int64[::1])"
)
def train(
    users: Any,
    items: Any,
    labels: Any,
    group: Any,
    batch: Any,
    user: Any,
    item: Any,
    bias: Any,
    rates: Any,
    l2: Any,
    kind: Any,
    options: Any,
    user_counts: Any,
    item_counts: Any,
    positives: Any,
    negatives: Any,
) -> Any:
    """Trains rows in batches; returns the sum over rows of their batch's mean loss.

    Args:
        users: of each row. items, labels: `group` of each row.
        batch: rows of a step.
        user, item, bias: the embeddings, changed in place; `bias` may have no column.
        rates, l2: of each of the three.
        kind, options: see `losses.loss`.
        user_counts, item_counts: int32 of each row of an embedding, 0, and 0 again afterwards.
        positives, negatives: the buckets of scores, added to.
    """
    total, block = 0.0, max(1, _BLOCK // group)
    logits, scores = np.empty(block * group, np.float32), np.empty(block * group, np.float32)
    slopes = np.empty(batch * group, np.float32)
    gradients = np.empty((batch, user.shape[1]), np.float32)
    for start in range(0, len(users), batch):
        rows = min(batch, len(users) - start)
        own, theirs, marks = users[start:], items[start * group :], labels[start * group :]
        decays = rates * l2 * _TWO / np.float32(rows)
        for t in range(rows):
            user_counts[own[t]] += 1
        for t in range(rows * group):
            item_counts[theirs[t]] += 1
        for row in range(0, rows, block):
            some = min(block, rows - row)
            first, count = row * group, some * group
            t = first
            for r in range(row, row + some):
                for _ in range(group):
                    logits[t - first] = dot(user, own[r], item, theirs[t])
                    if bias.shape[1]:
                        logits[t - first] += bias[theirs[t], 0]
                    t += 1
            total += loss(kind, options, logits, marks[first:], slopes[first:], scores, count, group, rows)
            count_scores(scores, marks[first:], count, positives, negatives)
            for r in range(row, row + some):
                add_rows(item, theirs, slopes, r * group, group, gradients, r)
        # No row of users has changed yet.
        t = 0
        for r in range(rows):
            for _ in range(group):
                i, often = theirs[t], np.float32(item_counts[theirs[t]])
                item_counts[i] = 0
                step(item, i, _ONE - decays[1] * often, user, own[r], rates[1] * slopes[t])
                if bias.shape[1]:
                    bias[i, 0] = (_ONE - decays[2] * often) * bias[i, 0] - rates[2] * slopes[t]
                t += 1
        for r in range(rows):
            i, often = own[r], np.float32(user_counts[own[r]])
            user_counts[i] = 0
            step(user, i, _ONE - decays[0] * often, gradients, r, rates[0])
    return total
