"""The loss, named by hyper_parameters.loss; its keyword-only parameters are set in loss_options."""

import paddle
from paddle.nn import functional as F


def weighted(logits, labels, *, positive: float = 2.0):
    """The log loss, in which what a user has had counts `positive` times as much as what is drawn beside it.

    Both are float32 [batch, group]; labels are 1 or 0. Returns a number.
    """
    right = logits * (2 * labels - 1)  # large where the net is right
    weight = 1 + (positive - 1) * labels
    return -paddle.mean(weight * F.log_sigmoid(right))
