"""The losses of `fl_rec.nets.losses` by number, with their gradients by the logits, and the counting of scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_rec.kernels.arrays import LOSSES
from fl_rec.kernels.compiled import as_written, part

LOG_LOSS, LABEL_SMOOTHING, FOCAL, BPR, SAMPLED_SOFTMAX = range(len(LOSSES))

BUCKETS = np.float32(4096)
_ZERO, _HALF, _ONE, _TWO, _LOWEST = (np.float32(value) for value in (0, 0.5, 1, 2, -87))
# exp by 2 ** k times a polynomial of what is left, and log(1 + x) by the series of 2 artanh(x / (2 + x)).
_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_E = tuple(np.float32(c) for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1))
_L = tuple(np.float32(1 / odd) for odd in (15, 13, 11, 9, 7, 5, 3))


@as_written
def exp(x: Any) -> Any:
    """e ** x of a float32 of at most 0, to 1 unit in the last place or two; what numba takes of libm is no vector."""
    x = max(x, _LOWEST)
    k = np.int32(x * _LOG2E - _HALF)
    r = x - np.float32(k) * _LN2_HIGH - np.float32(k) * _LN2_LOW
    p = ((((_E[0] * r + _E[1]) * r + _E[2]) * r + _E[3]) * r + _E[4]) * r + _HALF
    return (p * r * r + r + _ONE) * np.int32((k + np.int32(127)) << np.int32(23)).view(np.float32)


@as_written
def log1p(x: Any) -> Any:
    """log(1 + x) of a float32 from 0 to 1."""
    s = x / (_TWO + x)
    q = s * s
    p = (((((_L[0] * q + _L[1]) * q + _L[2]) * q + _L[3]) * q + _L[4]) * q + _L[5]) * q + _L[6]
    return _TWO * s * (_ONE + q * p)


@part
def sigmoid(x: Any) -> Any:
    e = exp(-abs(x))
    return (_ONE if x >= _ZERO else e) / (_ONE + e)


@part
def log_sigmoid(x: Any) -> Any:
    return min(x, _ZERO) - log1p(exp(-abs(x)))


@part
def pointwise(kind: Any, options: Any, logits: Any, labels: Any, gradients: Any, scores: Any, count: Any) -> Any:
    """Losses that are means over items: gradients of their sum, scores, and the sum."""
    total = _ZERO
    if kind == FOCAL:
        gamma, alpha = options[0], options[1]
        for t in range(count):
            scores[t] = sigmoid(logits[t])
            side = _TWO * np.float32(labels[t]) - _ONE
            right = logits[t] * side
            weight = np.float32(labels[t]) * (_TWO * alpha - _ONE) + (_ONE - alpha)
            p, log_p, log_q = sigmoid(right), log_sigmoid(right), log_sigmoid(-right)
            error = weight * exp(gamma * log_q)
            gradients[t] = side * error * (gamma * p * log_p - sigmoid(-right))
            total -= error * log_p
        return np.float64(total)
    smoothing = options[0] if kind == LABEL_SMOOTHING else _ZERO
    for t in range(count):
        x = logits[t]
        label = np.float32(labels[t]) * (_ONE - smoothing) + smoothing * _HALF
        e = exp(-abs(x))
        scores[t] = (_ONE if x >= _ZERO else e) / (_ONE + e)
        gradients[t] = scores[t] - label
        total += max(x, _ZERO) - x * label + log1p(e)
    return np.float64(total)


@part
def of_groups(kind: Any, options: Any, logits: Any, gradients: Any, scores: Any, count: Any, group: Any) -> Any:
    """Losses of a row's positive against its negatives: gradients of their sum over pairs or rows, scores, the sum."""
    total = _ZERO
    for t in range(count):
        scores[t] = sigmoid(logits[t])
    for first in range(0, count, group):
        if kind == BPR:
            gradients[first] = _ZERO
            for t in range(first + 1, first + group):
                ahead = logits[first] - logits[t]
                slope = sigmoid(-ahead)
                gradients[t] = slope
                gradients[first] -= slope
                total -= log_sigmoid(ahead)
        else:
            highest, summed = logits[first], _ZERO
            for t in range(first, first + group):
                highest = max(highest, logits[t])
            for t in range(first, first + group):
                gradients[t] = exp((logits[t] - highest) * options[0])
                summed += gradients[t]
            for t in range(first, first + group):
                gradients[t] *= options[0] / summed
            gradients[first] -= options[0]
            total += (highest - logits[first]) * options[0] + np.float32(np.log(summed))
    return np.float64(total)


@part
def loss(
    kind: Any, options: Any, logits: Any, labels: Any, gradients: Any, scores: Any, count: Any, group: Any, rows: Any
) -> Any:
    """The loss of some whole rows of a batch.

    Args:
        kind: its place in LOSSES; label_smoothing is log_loss with other labels.
        options: float32 [2]: smoothing; gamma and alpha; 1 / temperature.
        logits, labels: float32 and uint8, of `count` items.
        gradients, scores: filled with the gradients of the batch's mean and with what the net gives.
        group: items of a row.
        rows: of the batch.

    Returns:
        what the batch's mean, times its rows, takes of them; float64. NaN if a logit is no finite number.
    """
    if kind in (BPR, SAMPLED_SOFTMAX):
        total = of_groups(kind, options, logits, gradients, scores, count, group)
    else:
        total = pointwise(kind, options, logits, labels, gradients, scores, count)
    # A row's terms: its items, its pairs, or itself.
    terms = 1 if kind == SAMPLED_SOFTMAX else group - 1 if kind == BPR else group
    factor, spoilt = np.float32(1.0 / (rows * terms)), _ZERO
    for t in range(count):
        gradients[t] *= factor
        spoilt += logits[t] - logits[t]
    return total / terms + spoilt


@part
def count_scores(scores: Any, labels: Any, count: Any, positives: Any, negatives: Any) -> None:
    """Adds scores to the buckets of Paddle's `auc` operator."""
    for t in range(count):
        # Of NaN it would be anywhere in memory.
        bucket = np.int32(scores[t] * BUCKETS) if scores[t] <= _ONE else np.int32(0)
        if labels[t] > 0:
            positives[bucket] += 1
        else:
            negatives[bucket] += 1
