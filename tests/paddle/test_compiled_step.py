"""The compiled step against Paddle's graph: from the same values and rows, the same in the end."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.nets.program import LOSS_SUM, TrainingProgram
from fl_rec.steps import choice
from fl_rec.steps.compiled_step import CompiledStep

from .conftest import NETS, RememberingExchange, built

USERS, ITEMS, BATCH = 11, 13, 16
RATES = {"sgd": 1.0, "adam": 0.01}


def settings(net: str, optimizer: str, **hyper: Any) -> dict[str, Any]:
    own = {"num_users": USERS, "num_items": ITEMS, "fc_layers": [12, 9, 4], "mf_dim": 5, **hyper}
    if net != "MF":
        own["mode"] = f"NCF_{net}"
    return {
        "runner.model_path": str(NETS / ("fl_mf.py" if net == "MF" else "static_model.py")),
        "runner.train_batch_size": BATCH,
        "hyper_parameters.optimizer.class": optimizer,
        "hyper_parameters.optimizer.learning_rate": RATES[optimizer],
        **{f"hyper_parameters.{name}": value for name, value in own.items()},
    }


def drawn(group: int, steps: int) -> tuple[np.ndarray, ...]:
    """Rows for so many steps, the last one short; users and items come again within a batch."""
    rng, rows = np.random.default_rng(group), BATCH * (steps - 1) + 5
    labels = np.zeros((rows, group), np.int8)
    labels[:, 0] = 1 if group > 1 else rng.integers(2, size=rows)
    return rng.integers(USERS, size=(rows, 1), dtype=np.int32), rng.integers(ITEMS, size=(rows, group)), labels


def state(program: TrainingProgram) -> dict[str, np.ndarray]:
    """All that training changes: parameters, moments, powers and statistics."""
    names = (variable.name for variable in program.main.list_vars() if variable.persistable)
    return {name: program.value(name) for name in names if name not in ("feed", "fetch")}


def reset(program: TrainingProgram, values: Mapping[str, np.ndarray]) -> None:
    for name, each in values.items():
        program.set_value(name, each)


def by_graph(program: TrainingProgram, rows: Sequence[np.ndarray]) -> None:
    for start in range(0, len(rows[0]), BATCH):
        feed = {each.name: values[start : start + BATCH].astype(np.int64) for each, values in zip(program.feeds, rows)}
        program.executor.run(program.main, feed=feed, fetch_list=[], scope=program.scope)


@contextlib.contextmanager
def compared(config: Config) -> Iterator[tuple[TrainingProgram, CompiledStep]]:
    config = config.replace(**{"runner.local_step": "compiled"})
    with built(config) as program:
        step = choice.new_step(config, program, RememberingExchange(), config.yaml_path)
        assert isinstance(step, CompiledStep)
        yield program, step


def assert_alike(program: TrainingProgram, expected: Mapping[str, np.ndarray], optimizer: str, loss: str) -> None:
    # By Adam a number moves by about the step size however small its gradient is, so that where a gradient is next to
    # nothing its rounding shows as a part of a step: here less than a thousandth.
    atol = {"sgd": 5e-7, "adam": 1e-3 * RATES["adam"]}[optimizer]
    found = state(program)
    assert set(found) == set(expected)
    compares = loss in ("bpr", "sampled_softmax")
    for name, each in expected.items():
        if each.dtype == np.int64:
            # A score next to a bucket's edge may fall into the other one: one in two hundred, or one.
            assert found[name].sum() == each.sum()
            assert np.abs(found[name] - each).sum() <= 2 + each.sum() / 100 or (compares and optimizer == "adam")
        elif compares and name.startswith("prediction.b"):
            # It cancels out of such a loss: its gradient is the sum of what is rounded, and nothing else.
            continue
        else:
            np.testing.assert_allclose(found[name], each, rtol=1e-5, atol=atol, err_msg=name)


CASES = [
    ("MF", "log_loss", 9, "sgd", {"l2": {"mf_user_embedding": 0.02, "*item*": 0.01}}),
    ("MF", "log_loss", 1, "sgd", {"extra": {"bias": False}}),
    ("MF", "bpr", 5, "sgd", {"l2": 0.01}),
    ("MF", "sampled_softmax", 80, "sgd", {"loss_options": {"temperature": 0.5}}),
    ("MF", "label_smoothing", 4, "adam", {"l2": 0.01}),
    ("GMF", "focal", 1, "sgd", {}),
    ("GMF", "log_loss", 4, "adam", {"l2": {"*user*": 0.01}}),
    ("MLP", "log_loss", 1, "adam", {}),
    ("MLP", "bpr", 4, "sgd", {"l2": {"*item*": 0.01}}),
    ("MLP", "focal", 150, "adam", {"loss_options": {"gamma": 1.5, "alpha": 0.6}}),
    ("NeuMF", "label_smoothing", 1, "adam", {"l2": 0.01, "loss_options": {"smoothing": 0.3}}),
    ("NeuMF", "sampled_softmax", 4, "adam", {}),
    ("NeuMF", "log_loss", 4, "sgd", {"l2": 0.01}),
]


@pytest.mark.parametrize(("net", "loss", "group", "optimizer", "hyper"), CASES)
def test_same_as_the_graph(
    config: Config, net: str, loss: str, group: int, optimizer: str, hyper: dict[str, Any]
) -> None:
    changes = settings(net, optimizer, loss=loss, group_size=group, **hyper)
    with compared(config.replace(**changes)) as (program, step):
        first = state(program)
        for steps in (1, 20):
            rows = drawn(group, steps)
            by_graph(program, rows)
            expected = state(program)
            reset(program, first)
            step.train(rows, "test")
            assert program.counted().rows == len(rows[0])
            assert_alike(program, expected, optimizer, loss)
            assert program.value(LOSS_SUM) == pytest.approx(expected[LOSS_SUM], rel=1e-6)
            reset(program, first)


@pytest.mark.parametrize("optimizer", RATES)
def test_one_goes_on_where_the_other_ended(config: Config, optimizer: str) -> None:
    with compared(config.replace(**settings("NeuMF", optimizer, group_size=4))) as (program, step):
        first, rows = state(program), drawn(4, 20)
        by_graph(program, rows)
        expected = state(program)
        reset(program, first)
        half = 10 * BATCH
        step.train(tuple(each[:half] for each in rows), "test")
        by_graph(program, [each[half:] for each in rows])
        assert_alike(program, expected, optimizer, "log_loss")


def test_the_learning_rate_is_what_is_in_the_scope(config: Config) -> None:
    changes = settings("MLP", "sgd", **{"group_size": 1, "optimizer.schedule": "linear"})
    with compared(config.replace(**changes)) as (program, step):
        first, rows = state(program), drawn(1, 3)
        program.begin_portion(3.0, 0.5)  # of 4 epochs
        step.train(rows, "test")
        found = program.value("mlp_fc_0.w")
        reset(program, first)
        program.begin_portion(0.0, 0.125)
        step.train(rows, "test")
        np.testing.assert_array_equal(program.value("mlp_fc_0.w"), found)
        assert np.abs(found - first["mlp_fc_0.w"]).max() > 1e-4


def test_the_exchange_hears_what_was_trained(config: Config) -> None:
    asked = config.replace(**settings("MF", "sgd", group_size=2))
    with built(asked) as program:
        exchange, rows = RememberingExchange(send_every=2), drawn(2, 4)
        choice.new_step(asked, program, exchange, config.yaml_path).train(rows, "test")
    parts = [(rows[0][start : start + 2 * BATCH], rows[1][start : start + 2 * BATCH]) for start in (0, 2 * BATCH)]
    assert exchange.told == [
        {
            "mf_user_embedding": sorted(set(users.flat)),
            "mf_item_embedding": sorted(set(items.flat)),
            "mf_item_bias": sorted(set(items.flat)),
        }
        for users, items in parts
    ]


def test_ids_that_no_embedding_has_are_errors(config: Config) -> None:
    with compared(config.replace(**settings("MLP", "adam", group_size=1))) as (program, step):
        users, items, labels = drawn(1, 2)
        items[7] = ITEMS
        before = state(program)
        with pytest.raises(DataError, match=f"items must be from 0 to {ITEMS - 1}"):
            step.train((users, items, labels), "test")
        for name, each in state(program).items():
            np.testing.assert_array_equal(each, before[name])


@pytest.mark.parametrize("loss", ["log_loss", "focal", "bpr", "sampled_softmax"])
def test_a_net_that_diverges_is_an_error(config: Config, loss: str) -> None:
    with compared(config.replace(**settings("MF", "sgd", group_size=3, loss=loss))) as (program, step):
        users, items, labels = drawn(3, 1)
        values = program.value("mf_item_embedding")
        values[items[-1, -1], 2] = np.nan
        program.set_value("mf_item_embedding", values)
        text = "this one diverged. Received: a loss of nan within 5 rows of epoch 3. Lower the learning rate (hyper_pa"
        with pytest.raises(RunError, match=re.escape(text)):
            step.train((users, items, labels), "epoch 3")


# -- what it leaves to the graph ---------------------------------------------------------------------------

NET = """
import paddle
from static_model import StaticModel as NCF
from fl_mf import StaticModel as MF
from fl_rec.nets.structure import factorisation


class OtherLogits(MF):
    def logits(self, user, item):
        return 2 * super().logits(user, item)


class Wrong(OtherLogits):
    def structure(self):
        return factorisation("mf_user_embedding", "mf_item_embedding", "mf_item_bias")


class Other(MF):
    def structure(self):
        return factorisation("mf_user_embedding", "mf_item_embedding")


class Optimized(NCF):
    def structure(self):
        return super().structure()

    def create_optimizer(self, strategy=None):
        {optimizer}.minimize(self._cost)
"""
CLIP = "paddle.nn.ClipGradByGlobalNorm(1.0)"


def choose(config: Config, program: TrainingProgram, exchange: RememberingExchange | None = None) -> list[str]:
    return list(choice.new_step(config, program, exchange or RememberingExchange(), config.yaml_path).why_not_compiled)


@pytest.mark.parametrize(
    ("net", "optimizer", "why"),
    [
        (
            "OtherLogits",
            "",
            "OtherLogits has a logits of its own and no structure() to go with it: the one it inherits",
        ),
        ("Wrong", "", "the net scores otherwise than its structure() says, by 0."),
        ("Other", "", "structure() names other parameters than the net trains: mf_item_bias"),
        ("Optimized", "paddle.optimizer.Momentum(0.1)", "mlp_fc_0.b is trained by momentum; mlp_fc_0.w is trained by "),
        (
            "Optimized",
            f"paddle.optimizer.SGD(0.1, grad_clip={CLIP})",
            "the gradient of mlp_fc_0.b is clipped or regula",
        ),
        ("Optimized", "paddle.optimizer.SGD(0.1, weight_decay=0.1)", "the gradient of mlp_fc_0.b is clipped or regula"),
        ("Optimized", "paddle.optimizer.Adam(0.1)", "Adam changes all rows of mlp_item_embedding in each step"),
    ],
)
def test_a_net_of_another_kind(config: Config, tmp_path: Path, net: str, optimizer: str, why: str) -> None:
    (tmp_path / "own.py").write_text(NET.replace("{optimizer}", optimizer or "None"))
    changes = {**settings("MLP", "sgd", group_size=1), "runner.model_path": f"{tmp_path / 'own.py'}:{net}"}
    config = config.replace(**changes)
    with built(config) as program:
        assert "; ".join(sorted(choose(config, program))).startswith(why)
        if net == "Other":
            asked = config.replace(**{"runner.local_step": "compiled"})
            with pytest.raises(
                ConfigError, match=re.escape(f"can't train everything. Received: {why}. Set it to auto.")
            ):
                choose(asked, program)


def test_what_is_configured_otherwise(config: Config) -> None:
    config = config.replace(**settings("MLP", "sgd", group_size=1))
    assert choice.obstacles(config) == []
    for name, value, what in [
        ("hyper_parameters.loss", "my.py:loss", "hyper_parameters.loss=my.py:loss"),
        ("hyper_parameters.proximal", 0.5, "hyper_parameters.proximal=0.5"),
        ("runner.sync_mode", "async", "runner.sync_mode=async"),
        ("runner.thread_num", 2, "runner.thread_num=2"),
        ("runner.keep_zeros", True, "runner.keep_zeros"),
        ("runner.need_dump", True, "runner.need_dump"),
        ("runner.dataset_debug", True, "runner.dataset_debug"),
        ("privacy.clip", 1.0, "privacy.clip"),
        ("distillation.proxy_data_dir", "proxy", "distillation.proxy_data_dir"),
    ]:
        changed = config.replace(
            **{name: value, "runner.warmup_model_path": "saved", "runner.dump_fields_path": "dump"}
        )
        assert choice.obstacles(changed) == [what]


def test_what_is_added_to_the_program(config: Config) -> None:
    config = config.replace(**settings("MLP", "sgd", group_size=1))
    with built(config) as program:
        assert choose(config, program) == []
        block = program.main.global_block()
        block.append_op(type="send", inputs={"X": [program.prediction]}, outputs={"Out": []}, attrs={"table_id": 0})
        program.cost = program.cost + 1
        why = ["more was added to the loss than hyper_parameters.l2", "the exchange sends gradients, batch by batch"]
        assert choose(config, program) == why
        assert choose(config, program, RememberingExchange(send_every=3)) == why[:1]
