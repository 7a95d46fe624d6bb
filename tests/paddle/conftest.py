"""Tests that import Paddle, in the process of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl_rec  # noqa: F401 - sets flags that Paddle reads once
from fl_rec.config import Config
from fl_rec.nets.program import TrainingProgram
from fl_rec.privacy.noise import ALL_OF_IT

NETS = Path(__file__).parents[2] / "models" / "ncf"
USERS, ITEMS = 4, 6
# Users 0 to 3 with items 0 to 4: five rows, of which two are positives.
ROWS_OF_SHARD = [(0, 0, 1), (1, 1, 0), (2, 2, 1), (3, 3, 0), (0, 4, 0)]
# The same as a step gets them.
SLOTS = (
    np.array([[user] for user, _, _ in ROWS_OF_SHARD], np.int32),
    np.array([[item] for _, item, _ in ROWS_OF_SHARD], np.int32),
    np.array([[label] for _, _, label in ROWS_OF_SHARD], np.int8),
)


class RememberingExchange:
    """Of an exchange what a step has to know; it remembers what was trained."""

    noise = ALL_OF_IT

    def __init__(self, send_every: int = 0) -> None:
        self.send_every = send_every
        self.told: list[dict[str, list[int]]] = []

    def changed(self, rows: Mapping[str, np.ndarray]) -> None:
        self.told.append({name: each.tolist() for name, each in rows.items()})


@pytest.fixture(autouse=True)
def graph_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Static programs, unless the module says EAGER = True; and what a test leaves behind is not the next one's."""
    import paddle

    eager = getattr(request.module, "EAGER", False)
    paddle.disable_static() if eager else paddle.enable_static()
    with paddle.utils.unique_name.guard():
        yield
    paddle.disable_static()


@contextlib.contextmanager
def new_program() -> Iterator[Any]:
    """Programs, names and a scope of their own; gives the executor."""
    import paddle

    with contextlib.ExitStack() as stack:
        stack.enter_context(paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()))
        stack.enter_context(paddle.utils.unique_name.guard())
        stack.enter_context(paddle.static.scope_guard(paddle.static.Scope()))
        yield paddle.static.Executor(paddle.CPUPlace())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")
    changes = {
        "runner.model_path": str(NETS / "static_model.py"),
        "runner.train_batch_size": 2,
        "runner.epochs": 4,
        "hyper_parameters.num_users": USERS,
        "hyper_parameters.num_items": ITEMS,
        "hyper_parameters.fc_layers": [8, 4],
        "hyper_parameters.group_size": 1,
        "hyper_parameters.optimizer.class": "sgd",
        "hyper_parameters.optimizer.learning_rate": 0.5,
    }
    return Config.load(path).replace(**changes)


@contextlib.contextmanager
def built(config: Config, **settings: Any) -> Iterator[TrainingProgram]:
    """A program, initialised, in a scope and with names of its own."""
    config = config.replace(**settings)
    with new_program():
        program = TrainingProgram(config)
        program.add_penalties(set(program.names))
        program.minimise(None, counts=True)
        program.initialise()
        yield program
