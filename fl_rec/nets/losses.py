"""Losses by name, and penalties on parameters that can be added to any net's loss.

A loss is a function ``(logits, labels, *, option=default) -> cost`` of variables of a static program. `logits`, what a
net computes before the sigmoid, and `labels`, 0 or 1, are float32 [batch, group]; `cost` is a scalar. A row is one user
with `group` items: one in pointwise rows; in grouped rows the first is a positive and the others are its negatives.

Keyword-only parameters are options, set under ``hyper_parameters.loss_options``; their types are checked. A user's own
is named ``module:function`` or ``path/to/file.py:function``; one that needs grouped rows has the attribute
``grouped = True``. No Paddle is imported before a loss is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.plugins import Registry
from fl_rec.typed import Fraction, NonNegativeFloat, PositiveFloat, options_of, read_options

Loss = Callable[..., Any]


def log_loss(logits: Any, labels: Any) -> Any:
    """Binary cross entropy, eq. 7 of arXiv:1708.05031, as a mean over all items of all rows."""
    return cross_entropy(logits, labels)


def label_smoothing(logits: Any, labels: Any, *, smoothing: Fraction = 0.1) -> Any:
    """`log_loss` of labels that are drawn to 1/2 (arXiv:1512.00567): smoothing / 2 and 1 - smoothing / 2."""
    return log_loss(logits, labels * (1 - smoothing) + smoothing / 2)


def focal(logits: Any, labels: Any, *, gamma: NonNegativeFloat = 2.0, alpha: Fraction = 0.25) -> Any:
    """Focal loss (arXiv:1708.02002), as a mean over all items of all rows.

    Args:
        gamma: what is scored right already counts by the power of `gamma` of its error; 0: as much as all else.
        alpha: weight of positives; that of negatives is 1 - alpha.
    """
    import paddle
    from paddle.nn import functional as F

    # With p the probability of the right answer, log p and log(1 - p), neither of which overflows.
    right = paddle.multiply(logits, labels * 2 - 1)
    weight = labels * (2 * alpha - 1) + (1 - alpha)
    error = paddle.exp(gamma * F.log_sigmoid(-right))
    return -paddle.mean(paddle.multiply(paddle.multiply(weight, error), F.log_sigmoid(right)))


def bpr(logits: Any, labels: Any) -> Any:
    """Bayesian personalised ranking (arXiv:1205.2618), as a mean over the pairs of a row's positive and a negative."""
    import paddle
    from paddle.nn import functional as F

    return -paddle.mean(F.log_sigmoid(paddle.subtract(logits[:, :1], logits[:, 1:])))


def sampled_softmax(logits: Any, labels: Any, *, temperature: PositiveFloat = 1.0) -> Any:
    """Cross entropy of a row's positive against the whole row, as a mean over rows.

    Args:
        temperature: what logits are divided by; below 1, the negatives with the highest scores count for more.
    """
    import paddle

    ahead = paddle.subtract(logits, logits[:, :1])
    return paddle.mean(paddle.logsumexp(ahead * (1 / temperature), axis=1))


bpr.grouped = True  # type: ignore[attr-defined]


sampled_softmax.grouped = True  # type: ignore[attr-defined]


LOSSES: Registry[Loss] = Registry(
    "a loss",
    "hyper_parameters.loss",
    {function.__name__: function for function in (log_loss, focal, label_smoothing, bpr, sampled_softmax)},
)


@dataclass(frozen=True)
class NamedLoss:
    """A loss with its name and every option's value.

    Attributes:
        grouped: whether it compares the items of a row, so that it needs grouped rows.
    """

    name: str
    options: Mapping[str, Any]
    function: Loss
    grouped: bool

    def __call__(self, logits: Any, labels: Any) -> Any:
        """Adds the loss to the program of its arguments.

        Args:
            logits: float32 [batch, group].
            labels: 0 or 1, float32 [batch, group].

        Returns:
            a scalar variable.

        Raises:
            ConfigError: the function returns something else.
        """
        cost = self.function(logits, labels, **self.options)
        shape = getattr(cost, "shape", None)
        if shape is None or tuple(shape) not in ((), (1,)):
            received = type(cost).__name__ if shape is None else f"shape {list(shape)}"
            raise ConfigError(
                f"hyper_parameters.loss: {self.name} must return a scalar variable. Received: {received}. "
                "Return paddle.mean(...) of it."
            )
        return cost


def find_loss(config: Config) -> NamedLoss:
    """The configured loss: ``hyper_parameters.loss`` with its ``loss_options``.

    Raises:
        ConfigError: there is no such loss, suggesting the nearest name; an option is unknown or refused; or the loss
            needs grouped rows and ``group_size`` is 1. A `group_size` of None is not known yet, and no error.
    """
    settings = config.hyper_parameters
    name, folder = settings.loss, config.yaml_path.parent
    function = LOSSES.find(name, folder)
    at = f"hyper_parameters.loss_options of {name}"
    options = read_options(options_of(function, name), settings.loss_options, at, folder)
    grouped = bool(getattr(function, "grouped", False))
    if grouped and settings.group_size == 1:
        raise ConfigError(
            f"hyper_parameters.loss={name} compares a positive with the negatives of its own row, which must hold "
            "several items. Received: group_size=1. Set runner.resample_negatives=8, make grouped shards with "
            "fl-rec partition --group, or choose log_loss."
        )
    return NamedLoss(name, dict(options), function, grouped)


def cross_entropy(logits: Any, labels: Any, weight: Any = None) -> Any:
    """Binary cross entropy of labels from 0 to 1, times a weight, as a mean over all; float32 of one shape."""
    from paddle.nn import functional as F

    # Of a logit that is exactly 0, as where all units of an MLP's last layer are off, Paddle 3.0.0's gradient is wrong
    # by 1. To any other this adds nothing.
    return F.binary_cross_entropy_with_logits(logits + 1e-30, labels, weight=weight)


def logits_of(prediction: Any) -> Any:
    """The logits of probabilities, float32 of the same shape; of 0 and 1 too."""
    import paddle

    # A float32 next to 1 is 6e-8 away, so that no larger logit could be told.
    p = paddle.clip(prediction, 1e-7, 1 - 1e-7)
    return paddle.log(p) - paddle.log(1 - p)
