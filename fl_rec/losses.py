"""Losses by name, and penalties on parameters that can be added to any net's loss.

A loss is a function ``(logits, labels, *, option=default) -> cost`` of variables of a static program. `logits`, what a
net computes before the sigmoid, and `labels`, 0 or 1, are float32 [batch, group]; `cost` is a scalar. A row is one user
with `group` items: one in pointwise rows; in grouped rows the first is a positive and the others are its negatives.

Keyword-only parameters are options, set under ``hyper_parameters.loss_options``. A user's own is named
``module:function`` or ``path/to/file.py:function``; one that needs grouped rows has the attribute ``grouped = True``.
No Paddle is imported before a loss is called.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import inspect
import math
import sys
from dataclasses import dataclass
from typing import Any, Callable, Collection, Mapping

from fl_rec import plugin
from fl_rec.config import Config, Rule, flag, fraction, integer, key, number, read_options, text
from fl_rec.errors import ConfigError

Loss = Callable[..., Any]

ANCHOR = "@ANCHOR"
_LOOKUPS = ("lookup_table", "lookup_table_v2")


# --- Losses --------------------------------------------------------------------------------------------
# Of two variables of unknown batch size, paddle.subtract and the like: Paddle warns of - and * (seen with 3.0.0).


def log_loss(logits: Any, labels: Any) -> Any:
    """Binary cross entropy, eq. 7 of arXiv:1708.05031, as a mean over all items of all rows."""
    return cross_entropy(logits, labels)


def label_smoothing(logits: Any, labels: Any, *, smoothing: float = 0.1) -> Any:
    """`log_loss` of labels that are drawn to 1/2 (arXiv:1512.00567): smoothing / 2 and 1 - smoothing / 2."""
    return log_loss(logits, labels * (1 - smoothing) + smoothing / 2)


def focal(logits: Any, labels: Any, *, gamma: float = 2.0, alpha: float = 0.25) -> Any:
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


def sampled_softmax(logits: Any, labels: Any, *, temperature: float = 1.0) -> Any:
    """Cross entropy of a row's positive against the whole row, as a mean over rows.

    Args:
        temperature: what logits are divided by; below 1, the negatives with the highest scores count for more.
    """
    import paddle

    ahead = paddle.subtract(logits, logits[:, :1])
    return paddle.mean(paddle.logsumexp(ahead * (1 / temperature), axis=1))


bpr.grouped = True  # type: ignore[attr-defined]
sampled_softmax.grouped = True  # type: ignore[attr-defined]

LOSSES: Mapping[str, Loss] = {
    function.__name__: function for function in (log_loss, focal, label_smoothing, bpr, sampled_softmax)
}
_RULES: Mapping[str, Mapping[str, Rule]] = {
    "focal": {"gamma": number(at_least=0), "alpha": fraction()},
    "label_smoothing": {"smoothing": fraction()},
    "sampled_softmax": {"temperature": number(above=0)},
}


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
    if name in LOSSES:
        function = LOSSES[name]
    elif ":" in name:
        function = plugin.load(name, "a loss", folder)
        if not callable(function):
            raise ConfigError(f"A loss must be a function. Received: {name!r}, {type(function).__name__}.")
    else:
        near = difflib.get_close_matches(name, LOSSES, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Your own is named module:function or file.py:function."
        raise ConfigError(
            f"hyper_parameters.loss must be one of {', '.join(LOSSES)}, or module:function. Received: {name!r}. {hint}"
        )
    # Checked as the options of a strategy are, so that both read alike.
    declared, names = _options_of(name, function)
    values = read_options(declared, settings.loss_options, f"hyper_parameters.loss_options of {name}", folder)
    grouped = bool(getattr(function, "grouped", False))
    if grouped and settings.group_size == 1:
        raise ConfigError(
            f"hyper_parameters.loss={name} compares a positive with the negatives of its own row, which must hold "
            "several items. Received: group_size=1. Set runner.resample_negatives=8, make grouped shards with "
            "gen_heter_data.py --group, or choose log_loss."
        )
    return NamedLoss(name, {option: getattr(values, option) for option in names}, function, grouped)


def _options_of(name: str, function: Loss) -> tuple[type, list[str]]:
    """A function's keyword-only parameters as a dataclass of `key` fields, and their names."""
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = parameter.default
            rule = _RULES.get(name, {}).get(parameter.name) or _rule_of(default)
            doc = f"{parameter.name} that {name} takes"
            given = {} if default is parameter.empty else {"factory": lambda default=default: default}
            fields.append((parameter.name, Any, key(rule, doc, **given)))
    # A field without a default must not follow one with a default.
    fields.sort(key=lambda each: each[2].default_factory is not dataclasses.MISSING)
    return dataclasses.make_dataclass("LossOptions", fields, frozen=True), [each[0] for each in fields]


def _rule_of(default: Any) -> Rule:
    """What an option accepts whose default this is."""
    if isinstance(default, bool):
        return flag()
    if isinstance(default, int):
        return Rule("an integer", f"Write it as {default}.", integer(at_least=-sys.maxsize).convert)
    if isinstance(default, float):
        return Rule("a number", f"Write it as {default}.", number().convert)
    if isinstance(default, str):
        return text()
    return Rule("anything", "Any value will do.", lambda value, _folder: value)


# --- Penalties -----------------------------------------------------------------------------------------


def add_penalties(
    cost: Any, l2: Mapping[str, float], proximal: float, shared: Collection[str]
) -> tuple[Any, dict[str, str]]:
    """Adds to a net's loss what keeps its parameters small, or near to those that a round began with.

    An embedding counts by the rows that a batch looks up, as often as it does so, over the number of rows of the batch:
    so its gradient has no other rows, and stays sparse where it is.

        l2 * sum(e ** 2) / batch
        proximal / 2 * (sum((e - anchor of e) ** 2) / batch + sum((w - anchor of w) ** 2))

    with `e` of all trainable embeddings, in the second line of the `shared` ones, and `w` of all other trainable
    parameters that are shared. The second line is that of FedProx (arXiv:1812.06127).

    Call it when the net is built and its optimizer is not, within the net's `unique_name.guard`.

    Args:
        cost: the net's loss, a scalar variable of its training program.
        l2: weight of each embedding by name, * for any text; the first name that fits counts, and none is 0.
        proximal: weight; 0 adds nothing.
        shared: names of the parameters that are exchanged with others.

    Returns:
        the new loss, and for each parameter the name of its anchor, a variable of the same shape that no optimizer
        changes. It is NaN until whoever trains copies the parameter's value to it.

    Raises:
        ConfigError: a name of `l2` fits no embedding.
    """
    import paddle

    program = cost.block.program
    block = program.global_block()
    trainable = {parameter.name: parameter for parameter in program.all_parameters() if parameter.trainable}
    lookups = [op for op in block.ops if op.type in _LOOKUPS and op.input("W")[0] in trainable]
    tables = {op.input("W")[0] for op in lookups}
    frozen: dict[str, str] = {}

    def anchor(name: str) -> Any:
        if name not in frozen:
            frozen[name] = name + ANCHOR
            shape, dtype = trainable[name].shape, trainable[name].dtype
            # One that was never set shows in the loss; without a value it would be a crash in train_from_dataset.
            variable = paddle.static.create_global_var(shape, math.nan, dtype, persistable=True, name=frozen[name])
            variable.stop_gradient = True
        return block.var(frozen[name])

    def looked_up(op: Any) -> Any:
        return block.var(op.output("Out")[0])

    def looked_up_anchor(op: Any) -> Any:
        table = anchor(op.input("W")[0])
        rows = block.create_var(
            name=paddle.utils.unique_name.generate(table.name), dtype=table.dtype, stop_gradient=True
        )
        block.append_op(
            type=op.type,
            inputs={"W": [table], "Ids": [block.var(op.input("Ids")[0])]},
            outputs={"Out": [rows]},
            # Not is_sparse, by which fleet takes a variable for a table of the servers.
            attrs={"padding_idx": op.attr("padding_idx"), "is_sparse": False},
        )
        return rows

    def per_row(rows: Any) -> Any:
        # One operator in place of square and sum, and one gradient: each goes over all rows of every step.
        squares = block.create_var(name=paddle.utils.unique_name.generate("squares"), dtype=rows.dtype)
        block.append_op(type="squared_l2_norm", inputs={"X": [rows]}, outputs={"Out": [squares]})
        return paddle.divide(paddle.sum(squares), paddle.cast(paddle.shape(rows)[0], rows.dtype))

    with paddle.static.program_guard(program):
        for pattern in l2:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in tables):
                raise ConfigError(
                    f"hyper_parameters.l2 must name embeddings of the net. Received: {pattern!r}. The net has "
                    f"{', '.join(sorted(tables))}."
                )
        for op in lookups:
            fitting = (weight for name, weight in l2.items() if fnmatch.fnmatchcase(op.input("W")[0], name))
            weight = next(fitting, 0.0)
            if weight > 0:
                cost = cost + weight * per_row(looked_up(op))
        if proximal > 0:
            distances = [
                per_row(paddle.subtract(looked_up(op), looked_up_anchor(op)))
                for op in lookups
                if op.input("W")[0] in shared
            ] + [
                paddle.sum(paddle.square(parameter - anchor(name)))
                for name, parameter in trainable.items()
                if name in shared and name not in tables
            ]
            if distances:
                cost = cost + proximal / 2 * paddle.add_n(distances)
    return cost, frozen


def add_distillation(cost: Any, prediction: Any, targets: Any, temperature: float, weight: float) -> Any:
    """Adds the distance to a teacher's logits, times T^2 so that its gradient keeps its size (arXiv:1503.02531).

    Args:
        cost: the scalar loss of a batch.
        prediction: the net's probabilities, float32 [batch, group].
        targets: float32 [batch, group], in units of `fl_rec.distillation.TARGET_UNIT`, or its NO_TARGET.
        temperature: T, by which both logits are divided.
        weight: of the distance, a mean over all items of the batch, those without a target included.
    """
    import paddle

    from fl_rec.distillation import NO_TARGET, TARGET_UNIT

    known = paddle.cast(targets < NO_TARGET - 0.5, "float32")
    soft = paddle.nn.functional.sigmoid(targets * (TARGET_UNIT / temperature))
    distance = cross_entropy(logits_of(prediction) / temperature, soft, known)
    return cost + weight * temperature**2 * distance


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
