"""A worker's tables of users have rows for its own users only, and what leaves the worker goes by the data's ids."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import paddle
import psutil
import pytest

from fl_rec.config import Config
from fl_rec.nets import graph
from fl_rec.nets.inference import InferenceNet, scoring_program
from fl_rec.nets.own_users import ALL_USERS
from fl_rec.nets.program import TrainingProgram
from fl_rec.nets.tensors import persistent
from fl_rec.runs import models, private_parts
from fl_rec.steps.graph import GraphStep
from fl_rec.trainer import warm_start
from fl_rec.trainer.private_params import PrivateParams
from tests.paddle.conftest import new_program

NET = Path(__file__).parents[2] / "models" / "ncf" / "static_model.py"
USERS, ITEMS = 50, 6
OWN = np.array([40, 7, 7, 23, 40, 23])
ROWS = (OWN[:, None].astype(np.int32), np.arange(6, dtype=np.int32)[:, None], np.array([[1], [0]] * 3, np.int8))


class Worker(NamedTuple):
    """What a worker trains and scores with, without servers."""

    config: Config
    program: TrainingProgram
    private: PrivateParams
    net: InferenceNet


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")
    sizes = {"num_users": USERS, "num_items": ITEMS, "fc_layers": [8, 4], "group_size": 1, "mode": "NCF_NeuMF"}
    changes = {"runner.model_path": str(NET), "runner.train_batch_size": 2}
    return Config.load(path).replace(**changes, **{f"hyper_parameters.{name}": size for name, size in sizes.items()})


@contextlib.contextmanager
def worker(config: Config, users: np.ndarray | None = None, **settings: Any) -> Iterator[Worker]:
    """With rows for these users; for all without."""
    config = config.replace(**settings)
    with new_program():
        program = TrainingProgram(config)
        private, scoring = PrivateParams.of(config, program), scoring_program(config, program)
        feed = {} if users is None else private.keep_own([users], config, program, scoring)
        program.add_penalties(set(program.names) - set(private))
        program.minimise(None, counts=True)
        program.initialise(feed)
        private.remember(program)
        yield Worker(config, program, private, scoring.net(private.users))


def rows_kept(each: Worker) -> set[int]:
    """Of all variables that stay, and of what is remembered."""
    kept = [each.program.value(name) for name in persistent(each.program.main)]
    kept += [each.net.parameter(name) for name in persistent(each.net.program)]
    return {values.shape[0] for values in (*kept, *each.private._untrained.values()) if values.ndim}


def test_of_a_million_users_a_worker_keeps_its_own(config: Config) -> None:
    sizes = {"hyper_parameters.num_users": 1_000_000, "hyper_parameters.fc_layers": [64, 8]}
    own = np.random.default_rng(0).choice(1_000_000, 1000, replace=False)
    process = psutil.Process()
    before = process.memory_info().rss
    with worker(config, own, **sizes) as each:
        tables = ["gmf_user_embedding", "mlp_user_embedding"]
        assert sorted(each.private) == sorted(each.private.users.tables) == tables
        # The longest are counters of the AUC.
        assert 1000 in rows_kept(each) and max(rows_kept(each)) < 5000
        # One copy of the larger table would be 128 MB.
        assert process.memory_info().rss - before < 100e6


def trained(each: Worker, tmp_path: Path) -> None:
    """The same from the same values, whatever rows it has."""
    generator = np.random.default_rng(1)
    for name in each.program.names:
        whole = each.private.users.whole(name, each.program.value(name).shape)
        values = generator.normal(scale=0.3, size=whole).astype(np.float32)
        each.program.set_value(name, each.private.users.own(name, values))
    each.private.remember(each.program)
    step = GraphStep(each.config, each.program, tmp_path / "rows.txt")
    each.program.begin_epoch()
    each.program.begin_portion(0.0, 1.0)
    step.train((each.private.users.places(ROWS[0]), *ROWS[1:]), "test")
    for name in set(each.program.names) - set(each.private):
        each.net.set_parameter(name, each.program.value(name))
    each.private.put_into(each.net, each.program)


def test_all_else_is_as_if_all_users_had_rows(config: Config, tmp_path: Path) -> None:
    made = []
    for users in (None, OWN):
        with worker(config, users) as each:
            trained(each, tmp_path)
            folder = tmp_path / str(len(made))
            folder.mkdir()
            private_parts.save(models.private_path(folder, 0), each.private.parts(each.program))
            models.write(each.net, folder, {}, each.private)
            files = [(folder / f"rec_static.{kind}").read_bytes() for kind in ("pdmodel", "pdiparams")]
            made.append((rows_kept(each), each.net.predict(ROWS[:2], 4).tolist(), files, models.load(folder, 0)))
    (rows, scores, files, loaded), (own_rows, own_scores, own_files, own_loaded) = made
    assert USERS in rows and USERS not in own_rows and 3 in own_rows
    assert own_scores == scores and own_files == files
    for name in persistent(loaded.program):
        assert own_loaded.parameter(name).tolist() == loaded.parameter(name).tolist()
    assert np.flatnonzero(own_loaded.parameter("mlp_user_embedding").any(axis=1)).tolist() == [7, 23, 40]
    assert own_loaded.predict(ROWS[:2], 4).tolist() == scores


def test_a_warm_start_goes_by_the_datas_ids(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(config, OWN) as each:
        saved = {
            name: np.zeros(each.private.users.whole(name, each.program.value(name).shape), np.float32)
            for name in each.program.names
        }
        saved["mlp_user_embedding"][[7, 8, 40]] = [[1], [2], [3]]
        monkeypatch.setattr(warm_start, "load_parameters", lambda path, client: saved)
        before = each.program.value("mlp_user_embedding")
        settings: Any = SimpleNamespace(
            runner=SimpleNamespace(warmup_model_path="model"), hyper_parameters=each.config.hyper_parameters
        )
        warm_start.warm_start(settings, 0, each.program, each.private)
        now = each.program.value("mlp_user_embedding")
        assert now[[0, 2]].tolist() == [[1] * 4, [3] * 4] and now[1].tolist() == before[1].tolist()
        part = each.private.parts(each.program)["mlp_user_embedding"]
        assert part.rows is not None and part.rows.tolist() == [7, 40]


@pytest.mark.parametrize(
    "settings",
    [
        {"runner.private_params": ["mlp_user_embedding"]},
        {"runner.private_params": []},
        {"runner.need_dump": True, "runner.dump_fields_path": "dumped"},
    ],
)
def test_where_it_is_not_done(config: Config, settings: dict[str, Any]) -> None:
    """One of the tables is shared, or what is dumped has ids."""
    with worker(config, OWN, **settings) as each:
        assert each.private.users is ALL_USERS and USERS in rows_kept(each)


Logits = Callable[[Any, Any], Any]


def embedding(rows: int, name: str, **options: Any) -> Any:
    return paddle.nn.Embedding(rows, 2, weight_attr=paddle.ParamAttr(name=name), **options)


@pytest.mark.parametrize(
    ("net", "tables"),
    [
        (lambda user, item: embedding(9, "u")(user) + embedding(9, "i")(item), {"u"}),
        (lambda user, item: embedding(9, "u")(user) + embedding(9, "v")(user) + embedding(9, "i")(item), {"u", "v"}),
        (lambda user, item: embedding(9, "u")(user) * paddle.cast(user, "float32") + embedding(9, "i")(item), set()),
        (lambda user, item: embedding(9, "u", padding_idx=0)(user) + embedding(9, "i")(item), set()),
        (lambda user, item: (lambda both: both(user) + both(item))(embedding(9, "u")), set()),
        (lambda user, item: (lambda u: u(user) + paddle.sum(u.weight))(embedding(9, "u")), set()),
        (lambda user, item: embedding(9, "i")(item), set()),
    ],
)
def test_tables_that_are_of_users_alone(net: Logits, tables: set[str]) -> None:
    with new_program():
        net(*(paddle.static.data(name, [-1, 1], "int64") for name in ("user", "item")))
        program = paddle.static.default_main_program()
        assert graph.tables_of_alone(program, "user") == tables


@pytest.mark.parametrize("initializer", ["Normal", "Uniform", "TruncatedNormal", "XavierUniform", "Constant"])
def test_first_values_are_those_among_all(initializer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are other parameters', which are drawn after them."""
    monkeypatch.setattr(graph, "_DRAWN", 16)
    attribute = paddle.ParamAttr(name="users", initializer=getattr(paddle.nn.initializer, initializer)())
    rows, drawn = np.array([0, 15, 16, 39, 49]), []
    for kept in (np.arange(50), rows):
        with new_program() as executor:
            paddle.seed(3)
            paddle.nn.Embedding(50, 3, weight_attr=attribute)
            embedding(9, "items")
            programs = paddle.static.default_main_program(), paddle.static.default_startup_program()
            feed = graph.keep_rows(*programs, "users", kept) if kept is rows else {}
            executor.run(programs[1], feed=feed)
            scope = paddle.static.global_scope()
            drawn.append([np.array(scope.find_var(name).get_tensor()) for name in ("users", "items")])
    (users, items), (own, others) = drawn
    assert own.tolist() == users[rows].tolist() and others.tolist() == items.tolist()
    assert users.any() == (initializer != "Constant")


def test_a_table_that_can_not_be_drawn_in_parts_keeps_its_rows() -> None:
    with new_program():
        ones = paddle.nn.initializer.Assign(np.ones((9, 2), np.float32))
        paddle.nn.Embedding(9, 2, weight_attr=paddle.ParamAttr(name="given", initializer=ones))
        embedding(9, "drawn")
        startup = paddle.static.default_startup_program()
        assert [graph.can_keep_rows(startup, name) for name in ("given", "drawn")] == [False, True]
        (op,) = (op for op in startup.global_block().ops if op.type == "uniform_random")
        op._set_attr("seed", 4)
        assert not graph.can_keep_rows(startup, "drawn")
