"""Training with differential privacy, step by step with Paddle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from fl_rec.config import Config
from fl_rec.data.rows import Rows
from fl_rec.errors import ConfigError, DataError
from fl_rec.nets.program import TrainingProgram
from fl_rec.privacy.accountant import Ledger
from fl_rec.privacy.dp_training import DpTraining
from fl_rec.privacy.noise import NoisePart
from fl_rec.trainer.private_params import private_parameters

NETS = Path(__file__).parents[2] / "models" / "ncf"
USERS, ITEMS = 5, 9
# Items of users 0 to 3, of which the first is a positive; user 2 has none, and user 4 the same item twice.
SEEN: Mapping[int, Sequence[int]] = {0: (1, 2, 3), 1: (4, 3), 3: (0, 8, 5, 6), 4: (7, 7, 1)}


def rows_of(users: Sequence[int] = tuple(SEEN)) -> Rows:
    """Pointwise rows, the users' taking turns."""
    turns = sorted((turn, user, item) for user in users for turn, item in enumerate(SEEN[user]))
    turn, user, item = np.array(turns, np.int32).T[:, :, None]
    return user, item, (turn == 0).astype(np.int8)


class Drawn:
    """A generator whose coins and noise are known."""

    def __init__(self, users: Sequence[int], noise: float = 0.0) -> None:
        self.users, self.noise, self.deviations = users, noise, []

    def random(self, count: int) -> np.ndarray:
        assert count == len(SEEN)
        return np.array([0.0 if user in self.users else 0.999999 for user in SEEN])

    def normal(self, _mean: float, deviation: float, shape: Any) -> np.ndarray:
        self.deviations.append(deviation)
        return np.full(shape, self.noise)


@dataclass
class Passes:
    """Rows that remember which passes they were asked for."""

    content: Rows
    passes: list[int] = field(default_factory=list)

    def of_pass(self, number: int) -> Rows:
        self.passes.append(number)
        return self.content


@dataclass
class Worker:
    """A net with its parameters, and what trains it with differential privacy."""

    config: Config
    program: TrainingProgram
    private: Sequence[str]
    rows: Passes
    folder: Path

    def __post_init__(self) -> None:
        self.start = self.parameters()

    def open(self, **more: Any) -> DpTraining:
        ledger = Ledger(self.folder / "privacy" / "0.json", self.config)
        return DpTraining(self.config, self.program, self.private, self.rows, ledger, **more)  # type: ignore[arg-type]

    def parameters(self) -> dict[str, np.ndarray]:
        return {name: self.program.value(name) for name in self.program.names}

    def put(self, values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            self.program.set_value(name, value)

    def step(self, user: int) -> dict[str, np.ndarray]:
        """What SGD as it is changes with one user's rows; the parameters are as before."""
        labels = np.arange(len(SEEN[user])) == 0
        slots = np.full(len(SEEN[user]), user), np.array(SEEN[user]), labels
        feed = {each.name: slot.astype(np.int64)[:, None] for each, slot in zip(self.program.feeds, slots)}
        self.program.executor.run(self.program.main, feed=feed)
        after = self.parameters()
        self.put(self.start)
        return {name: after[name].astype(np.float64) - self.start[name] for name in after}


@contextlib.contextmanager
def worker(folder: Path, net: str = "static_model.py", **settings: Any) -> Iterator[Worker]:
    path = folder / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")
    given = {
        "runner.model_path": str(NETS / net),
        "runner.exchanges_per_epoch": 2,
        "hyper_parameters.num_users": USERS,
        "hyper_parameters.num_items": ITEMS,
        "hyper_parameters.fc_layers": [8, 6, 4],
        "hyper_parameters.mf_dim": 3,
        "hyper_parameters.group_size": 1,
        "hyper_parameters.optimizer.class": "sgd",
        "hyper_parameters.optimizer.learning_rate": 0.5,
        "privacy.clip": 1e9,
        **settings,
    }
    config = Config.load(path).replace(**given)
    with contextlib.ExitStack() as stack:
        stack.enter_context(paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()))
        stack.enter_context(paddle.utils.unique_name.guard())
        stack.enter_context(paddle.static.scope_guard(paddle.static.Scope()))
        program = TrainingProgram(config)
        private = list(private_parameters(config, program.main, program.feeds[0].name))
        program.minimise(None, counts=False)
        program.initialise()
        yield Worker(config, program, private, Passes(rows_of()), folder)


def changes(each: Worker) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float64) - each.start[name] for name, value in each.parameters().items()}


def length(shared: Mapping[str, np.ndarray], private: Sequence[str]) -> float:
    return float(np.sqrt(sum(np.square(value).sum() for name, value in shared.items() if name not in private)))


NETS_AND_MODES = [("static_model.py", "NCF_MLP"), ("static_model.py", "NCF_NeuMF"), ("fl_mf.py", "NCF_MLP")]


@pytest.mark.parametrize(("net", "mode"), NETS_AND_MODES)
def test_it_adds_up_what_each_user_would_change_alone(tmp_path: Path, net: str, mode: str) -> None:
    with worker(tmp_path, net, **{"hyper_parameters.mode": mode}) as each:
        alone = {user: each.step(user) for user in SEEN}
        training = each.open()
        training.new_generator = lambda: Drawn([0, 3, 4])  # type: ignore[method-assign, assignment, return-value]
        training.train()
        found = changes(each)
        assert each.private and set(training._steps) == set(found) - set(each.private)
        for name, change in found.items():
            expected = alone[0][name] + alone[3][name] + alone[4][name]
            assert np.abs(expected).max() > 1e-4, f"{name} is not trained, which tests nothing"
            np.testing.assert_allclose(change, expected, atol=2e-7, err_msg=name)


def test_a_users_change_is_clipped_and_the_own_rows_are_not(tmp_path: Path) -> None:
    with worker(tmp_path, **{"privacy.clip": 0.001}) as each:
        alone = each.step(3)
        assert length(alone, each.private) > 0.01
        training = each.open()
        training.new_generator = lambda: Drawn([3])  # type: ignore[method-assign, assignment, return-value]
        training.train()
        found = changes(each)
        # Parameters are float32, and each coordinate is rounded to the next of them.
        assert length(found, each.private) == pytest.approx(0.001, rel=1e-3)
        factor = 0.001 / length(alone, each.private)
        for name in training._steps:
            np.testing.assert_allclose(found[name], factor * alone[name], atol=1e-7, err_msg=name)
        (table,) = each.private
        np.testing.assert_array_equal(found[table], alone[table])
        assert np.flatnonzero(found[table].any(axis=1)).tolist() == [3]


def test_every_coordinate_gets_the_noise_and_nobody_need_be_drawn(tmp_path: Path) -> None:
    with worker(tmp_path, **{"privacy.clip": 0.5, "privacy.noise_multiplier": 3}) as each:
        training, generator = each.open(), Drawn([], noise=0.25)
        training.new_generator = lambda: generator  # type: ignore[method-assign, assignment, return-value]
        training.train()
        assert generator.deviations == [1.5] * len(training._steps)
        for name, change in changes(each).items():
            np.testing.assert_allclose(change, 0.0 if name in each.private else 0.25, atol=1e-7, err_msg=name)


def test_a_part_of_the_noise_where_others_add_theirs(tmp_path: Path) -> None:
    with worker(tmp_path, **{"privacy.clip": 0.5, "privacy.noise_multiplier": 3}) as each:
        training, generator = each.open(noise=NoisePart(0.25, 1e-3)), Drawn([3], noise=0.25)
        training.new_generator = lambda: generator  # type: ignore[method-assign, assignment, return-value]
        training.train()
        assert generator.deviations == [1.5 / 4] * len(training._steps)
        found = changes(each)
        most = max(np.abs(found[name]).max() for name in training._steps)
        assert most == pytest.approx(0.251, abs=1e-6), "a user's change is cut off, and the noise is not"


def test_chance_and_noise_are_never_the_same_again(tmp_path: Path) -> None:
    found = []
    with worker(tmp_path, **{"privacy.clip": 0.5, "privacy.users_per_exchange": 0.5}) as each:
        training = each.open()
        for _ in range(2):
            each.put(each.start)
            training.train()
            found.append(changes(each)["mlp_item_embedding"])
    assert not np.isclose(found[0], found[1], atol=1e-9).any()


def test_an_epoch_is_read_once(tmp_path: Path) -> None:
    with worker(tmp_path) as each:
        training = each.open()
        for number in range(5):
            training.train()
            assert training.exchanges == training.spent().exchanges == number + 1
        assert each.rows.passes == [0, 1, 2]


def test_a_ledger_that_was_lost_tells_of_the_model_at_least(tmp_path: Path) -> None:
    with worker(tmp_path) as each:
        training = each.open()
        training.begin_epoch(3)
        assert training.spent().exchanges == 4
        training.train()
        assert training.spent().exchanges == Ledger(tmp_path / "privacy" / "0.json", each.config).exchanges == 5


def test_the_rate_is_that_of_the_exchange(tmp_path: Path) -> None:
    with worker(tmp_path) as each:
        whole, training = each.step(1), each.open()
        training.new_generator = lambda: Drawn([1])  # type: ignore[method-assign, assignment, return-value]
        (rate,) = {step.rate for step in training._steps.values()}
        each.put({rate: np.array([0.125], np.float32)})
        training.train()
        found = changes(each)
    for name, change in found.items():
        np.testing.assert_allclose(change, whole[name] / 4, atol=1e-7, err_msg=name)


def test_the_changes_of_a_user_who_diverged_count_as_none(tmp_path: Path) -> None:
    with worker(tmp_path) as each:
        (table,) = each.private
        broken = each.start[table].copy()
        broken[1] = np.nan
        each.put({table: broken})
        training = each.open()
        training.new_generator = lambda: Drawn([1])  # type: ignore[method-assign, assignment, return-value]
        training.train()
        found = changes(each)
        assert not any(found[name].any() for name in training._steps)


NET = """
import paddle
from static_model import StaticModel as NCF

class StaticModel(NCF):
    def logits(self, user, item):
        {users}
        logits = super().logits(user, item)
        {logits}
        return logits

    def create_optimizer(self, strategy=None):
        {optimizer}
"""
SGD = "super().create_optimizer(strategy)"
REFUSED = (
    "privacy.clip needs a user's change to depend on nothing but the last exchange's model and the user's own rows. "
    "Received: "
)


@pytest.mark.parametrize(
    ("parts", "start"),
    [
        (
            {"optimizer": "paddle.optimizer.Momentum(0.1).minimize(self._cost)"},
            f"{REFUSED}the optimizer momentum, which would carry one user's rows over to the next. ",
        ),
        (
            {"logits": "logits = paddle.static.nn.batch_norm(logits)"},
            f"{REFUSED}the variable batch_norm_0.w_1, the variable batch_norm_0.w_2, which would carry ",
        ),
        (
            {"users": "user = user + 0"},
            "privacy.clip needs the users' embeddings to be private, each with its worker. Received: a net with no "
            "table that is looked up by its first feed, the user's id. ",
        ),
    ],
)
def test_nets_that_users_share_more_of(tmp_path: Path, parts: Mapping[str, str], start: str) -> None:
    net = tmp_path / "fl_net.py"
    net.write_text(NET.format(**{"users": "pass", "logits": "pass", "optimizer": SGD, **parts}))
    with worker(tmp_path, **{"runner.model_path": str(net)}) as each, pytest.raises(ConfigError) as caught:
        each.open()
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("or leave privacy.clip out.")


def test_a_row_has_one_user(tmp_path: Path) -> None:
    with worker(tmp_path) as each:
        each.rows.content = (np.array([[0, 1]]), np.array([[3]]), np.array([[1]]))
        with pytest.raises(DataError, match="must have one user, who is kept private. Received: 2 values in its first"):
            each.open().train()
