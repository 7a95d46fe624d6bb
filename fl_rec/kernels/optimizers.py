"""SGD and Adam as Paddle does them, and the gradients of rows that a batch looks up more than once."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from fl_rec.kernels.compiled import part

_ONE = np.float32(1)


def _to_pointer(_typing: Any, _address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), code


_pointer: Any = intrinsic(_to_pointer)


@part
def array_at(address: Any, shape: Any) -> Any:
    """The float32 array of two dimensions at an address."""
    return numba.carray(_pointer(address), (shape[0], shape[1]))


@part
def places_of(ids: Any, places: Any, at: Any, rows: Any, gradients: Any) -> int:
    """Gives each distinct id of a batch a row of `gradients`, which becomes 0.

    Args:
        places: of each id its row, -1 of those that have none.
        at: filled with the row of each of `ids`.
        rows: filled with the id of each row, and how often it comes.

    Returns:
        how many are distinct.
    """
    distinct = 0
    for t in range(len(ids)):
        i = ids[t]
        if places[i] < 0:
            places[i] = distinct
            rows[distinct, 0], rows[distinct, 1] = i, 0
            for k in range(gradients.shape[1]):
                gradients[distinct, k] = 0
            distinct += 1
        at[t] = places[i]
        rows[places[i], 1] += 1
    return distinct


@part
def forget(rows: Any, distinct: Any, places: Any) -> None:
    """Takes the places of a batch's ids away."""
    for s in range(distinct):
        places[rows[s, 0]] = -1


@part
def step_rows(
    values: Any,
    first: Any,
    second: Any,
    rows: Any,
    distinct: Any,
    gradients: Any,
    column: Any,
    decay: Any,
    rate: Any,
    adam: Any,
    betas: Any,
    powers: Any,
) -> None:
    """A step of the rows of an embedding that a batch has looked up.

    Args:
        first, second: Adam's moments.
        rows, distinct, gradients: see `places_of`; those of this embedding begin at `column`.
        decay: what a row is multiplied with, once for each time it was looked up, for its part of the gradient.
        powers: of Adam's betas.
    """
    width = values.shape[1]
    if not adam:
        for s in range(distinct):
            i, often = rows[s, 0], decay * np.float32(rows[s, 1])
            for k in range(width):
                values[i, k] -= rate * (gradients[s, column + k] + often * values[i, k])
        return
    # Paddle's sparse Adam (2.6.2 and 3.0.0) counts the step before it takes it, unlike the dense one.
    powers[0] *= betas[0]
    powers[1] *= betas[1]
    size, epsilon = _sizes(rate, betas, powers)
    for s in range(distinct):
        i, often = rows[s, 0], decay * np.float32(rows[s, 1])
        for k in range(width):
            gradients[s, column + k] += often * values[i, k]
        _adam(values, first, second, i, gradients, s, column, size, epsilon, betas)


@part
def _sizes(rate: Any, betas: Any, powers: Any) -> Any:
    root = math.sqrt(_ONE - powers[1])
    return rate * root / (_ONE - powers[0]), betas[2] * root


@part
def _adam(
    values: Any,
    first: Any,
    second: Any,
    i: Any,
    gradients: Any,
    s: Any,
    column: Any,
    size: Any,
    epsilon: Any,
    betas: Any,
) -> None:
    beta, beta2 = betas[0], betas[1]
    for k in range(values.shape[1]):
        g = gradients[s, column + k]
        m = beta * first[i, k] + (_ONE - beta) * g
        v = beta2 * second[i, k] + (_ONE - beta2) * g * g
        first[i, k], second[i, k] = m, v
        values[i, k] -= size * (m / (math.sqrt(v) + epsilon))


@part
def step_dense(
    values: Any, first: Any, second: Any, gradient: Any, rate: Any, adam: Any, betas: Any, powers: Any
) -> None:
    """A step of all numbers [n, 1] of a parameter."""
    if not adam:
        for k in range(values.shape[0]):
            values[k, 0] -= rate * gradient[k]
        return
    size, epsilon = _sizes(rate, betas, powers)
    beta, beta2 = betas[0], betas[1]
    for k in range(values.shape[0]):
        g = gradient[k]
        m = beta * first[k, 0] + (_ONE - beta) * g
        v = beta2 * second[k, 0] + (_ONE - beta2) * g * g
        first[k, 0], second[k, 0] = m, v
        values[k, 0] -= size * (m / (math.sqrt(v) + epsilon))
    powers[0] *= betas[0]
    powers[1] *= betas[1]
