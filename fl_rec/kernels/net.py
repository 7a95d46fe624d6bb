"""Scores of a net of any `Structure`, and its training by SGD or Adam."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.kernels import blocks
from fl_rec.kernels.compiled import kernel, part
from fl_rec.kernels.losses import count_scores, loss, sigmoid
from fl_rec.kernels.optimizers import array_at, forget, places_of, step_dense, step_rows

# Items at a time: so many fill vectors, and what lies between the layers stays in the first cache.
SIZE: Any = np.int64(128)
# A plain 1 would have what it is given to compiled once more.
_SINGLE = np.int64(1)

_TABLES = ", ".join(["float32[:, ::1]"] * 5)


@part
def logits_of(
    users: Any, items: Any, group: Any, start: Any, count: Any, size: Any, tables: Any, widths: Any, dense: Any, x: Any
) -> int:
    """Fills the last row of `x` with logits of `count` items; returns where the layers' output begins in it."""
    begin, half = 0, tables[2].shape[1]
    if half:
        blocks.gather(tables[2], users, group, start, count, size, x)
        blocks.gather(tables[3], items, _SINGLE, start, count, size, x[half * size :])
        begin = blocks.layers(widths, dense, count, size, x)
    predict(users, items, group, start, count, size, tables, widths, dense, begin, x)
    return begin


@part
def predict(
    users: Any,
    items: Any,
    group: Any,
    start: Any,
    count: Any,
    size: Any,
    tables: Any,
    widths: Any,
    dense: Any,
    begin: Any,
    x: Any,
) -> None:
    """The same where the layers' output begins at `begin`."""
    user, item, mlp_user, _, bias = tables
    width, half, last = user.shape[1], mlp_user.shape[1], widths[len(widths) - 1]
    predicting = len(dense) - 1 - width - last
    logits = x[blocks.total(widths) * size :]
    for t in range(count):
        logits[t] = dense[len(dense) - 1]
    if half:
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
    """Fills `scores` with those of items, `group` of which belong to a user.

    Of the first layer, which is most of a net's work, what a user and what an item adds is the same for all its rows.
    """
    between = blocks.total(widths) * SIZE
    x = np.empty(between + SIZE, np.float32)
    logits, half = x[between:], mlp_user.shape[1]
    tables = (user, item, mlp_user, mlp_item, bias)
    once = half > 0 and len(items) > len(mlp_user) + len(mlp_item)
    if once:
        first = (widths[0] + 1) * widths[1]
        of_users = blocks.first_layer(mlp_user, dense, widths[1])
        of_items = blocks.first_layer(mlp_item, dense[half * widths[1] :], widths[1])
        of_users += dense[first - widths[1] : first]
    for start in range(0, len(items), SIZE):
        count = min(SIZE, len(items) - start)
        if once:
            inner = x[widths[0] * SIZE :]
            blocks.gather_sums(of_users, users, group, of_items, items, start, count, SIZE, inner)
            begin = widths[0] * SIZE + blocks.layers(widths[1:], dense[first:], count, SIZE, inner)
            predict(users, items, group, start, count, SIZE, tables, widths, dense, begin, x)
        else:
            logits_of(users, items, group, start, count, SIZE, tables, widths, dense, x)
        for t in range(count):
            scores[start + t] = sigmoid(logits[t])


@part
def product_backward(
    user: Any, u: Any, item: Any, v: Any, weights: Any, slope: Any, gradient: Any, own: Any, i: Any, theirs: Any, j: Any
) -> None:
    """Adds the gradients of the product of row u of users and v of items: to row i of `own` and j of `theirs`, and to
    that of the weights of the predicting layer."""
    for k in range(user.shape[1]):
        own[i, k] += slope * weights[k] * item[v, k]
    for k in range(user.shape[1]):
        theirs[j, k] += slope * weights[k] * user[u, k]
    for k in range(user.shape[1]):
        gradient[k] += slope * user[u, k] * item[v, k]


@kernel(
    "float64(int32[::1], int32[::1], uint8[::1], int64, int64, int64[:, ::1], int64[:, ::1], float32[::1], int64,"
    "float32[::1], float32[:, ::1], float32[::1], float32[::1], int64[::1], int64, float32[::1],"
    "int32[::1], int32[::1], int64[::1], int64[::1])"
)
def train(
    users: Any,
    items: Any,
    labels: Any,
    group: Any,
    batch: Any,
    addresses: Any,
    shapes: Any,
    rates: Any,
    adam: Any,
    betas: Any,
    powers: Any,
    l2: Any,
    dense: Any,
    widths: Any,
    kind: Any,
    options: Any,
    user_places: Any,
    item_places: Any,
    positives: Any,
    negatives: Any,
) -> Any:
    """Trains rows in batches; returns the sum over rows of their batch's mean loss.

    Args:
        users: of each row. items, labels: `group` of each row.
        batch: rows of a step.
        addresses: int64 [parameters, 3], of the memory of each parameter's values and of Adam's moments. First those of
            the five embeddings, then the dense ones in the order of `dense`; all are changed in place.
        shapes: int64 [parameters, 2]; of width 0 where there is no such embedding.
        rates: step sizes, of each parameter.
        adam: or else SGD.
        betas: Adam's two, and its epsilon.
        powers: float32 [parameters, 2], of both betas; changed in place.
        l2: of each embedding.
        dense: room for a copy of the dense parameters. If `addresses` has none it is what is predicted with.
        kind, options: see `losses.loss`.
        user_places, item_places: int32 of each row of an embedding, -1, and -1 again afterwards.
        positives, negatives: the buckets of scores, added to.
    """
    user, item = array_at(addresses[0, 0], shapes[0]), array_at(addresses[1, 0], shapes[1])
    mlp_user, mlp_item = array_at(addresses[2, 0], shapes[2]), array_at(addresses[3, 0], shapes[3])
    tables = (user, item, mlp_user, mlp_item, array_at(addresses[4, 0], shapes[4]))
    width, half, last = user.shape[1], mlp_user.shape[1], widths[len(widths) - 1]
    predicting, biased = len(dense) - 1 - width - last, shapes[4, 1]
    some_rows = max(_SINGLE, SIZE // group)
    size, total = some_rows * group, 0.0
    between = blocks.total(widths) * size
    x = np.empty(between + size, np.float32)
    logits = x[between:]
    scores, slopes = np.empty(size, np.float32), np.empty(size, np.float32)
    back, spare = np.empty(between, np.float32), np.empty(between, np.float32)
    gradient = np.empty(len(dense), np.float32)
    own = np.empty((batch, width + half), np.float32)
    theirs = np.empty((batch * group, width + half + biased), np.float32)
    user_at, item_at = np.empty(batch, np.int32), np.empty(batch * group, np.int32)
    user_rows, item_rows = np.empty((batch, 2), np.int32), np.empty((batch * group, 2), np.int32)
    for start in range(0, len(users), batch):
        rows = min(batch, len(users) - start)
        some_users, some_items = users[start : start + rows], items[start * group : (start + rows) * group]
        marks = labels[start * group :]
        distinct_users = places_of(some_users, user_places, user_at, user_rows, own)
        distinct_items = places_of(some_items, item_places, item_at, item_rows, theirs)
        gradient[:] = 0
        at = 0
        for p in range(5, len(addresses)):
            values = array_at(addresses[p, 0], shapes[p])
            for k in range(values.shape[0]):
                dense[at + k] = values[k, 0]
            at += values.shape[0]
        for first in range(0, rows * group, size):
            count = min(size, rows * group - first)
            begin = logits_of(some_users, some_items, group, first, count, size, tables, widths, dense, x)
            total += loss(kind, options, logits, marks[first:], slopes, scores, count, group, rows)
            count_scores(scores, marks[first:], count, positives, negatives)
            for t in range(count):
                gradient[len(dense) - 1] += slopes[t]
            if half:
                for f in range(last):
                    a, summed = begin + f * size, np.float32(0)
                    for t in range(count):
                        summed += slopes[t] * x[a + t]
                    gradient[predicting + width + f] += summed
                    for t in range(count):
                        back[f * size + t] = slopes[t] * dense[predicting + width + f]
                inward = blocks.layers_backward(widths, dense, count, size, x, back, gradient, spare)
                blocks.scatter(inward, half, user_at, group, first, count, size, own, width)
                blocks.scatter(inward[half * size :], half, item_at, _SINGLE, first, count, size, theirs, width)
            if width:
                weights, of_weights = dense[predicting:], gradient[predicting:]
                for t in range(count):
                    u, v, slope = some_users[(first + t) // group], some_items[first + t], slopes[t]
                    i, j = user_at[(first + t) // group], item_at[first + t]
                    product_backward(user, u, item, v, weights, slope, of_weights, own, i, theirs, j)
            if biased:
                for t in range(count):
                    theirs[item_at[first + t], width + half] += slopes[t]
        for p in range(5):
            if shapes[p, 1]:
                values = array_at(addresses[p, 0], shapes[p])
                first, second = array_at(addresses[p, 1], shapes[p]), array_at(addresses[p, 2], shapes[p])
                decay = np.float32(2) * l2[p] / np.float32(rows)
                if p == 0 or p == 2:
                    ids, grads, number, column = user_rows, own, distinct_users, width if p == 2 else 0
                else:
                    ids, grads, number = item_rows, theirs, distinct_items
                    column = 0 if p == 1 else width if p == 3 else width + half
                step_rows(values, first, second, ids, number, grads, column, decay, rates[p], adam, betas, powers[p])
        at = 0
        for p in range(5, len(addresses)):
            values = array_at(addresses[p, 0], shapes[p])
            first, second = array_at(addresses[p, 1], shapes[p]), array_at(addresses[p, 2], shapes[p])
            step_dense(values, first, second, gradient[at:], rates[p], adam, betas, powers[p])
            at += shapes[p, 0]
        forget(user_rows, distinct_users, user_places)
        forget(item_rows, distinct_items, item_places)
    return total
