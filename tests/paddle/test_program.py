"""The training program and passes over the rows, with Paddle's own data feed and no server."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from fl_rec.config import Config
from fl_rec.data.reader import Reader
from fl_rec.data.rows import Rows, SameRows, TrainingRows
from fl_rec.distillation.student import Student
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.evaluation.evaluator import EvaluationRows
from fl_rec.nets import graph
from fl_rec.nets.inference import scoring_program
from fl_rec.nets.own_users import ALL_USERS
from fl_rec.nets.program import LOSS_SUM, ROWS, TrainingProgram, scheduled
from fl_rec.nets.structure import Structure, structure_of
from fl_rec.runs import models
from fl_rec.steps.base import LocalStep
from fl_rec.steps.graph import GraphStep
from fl_rec.trainer.local_training import DpPasses, LocalTraining, Passes, WorkerShards, local_training, training_rows

from .conftest import ROWS_OF_SHARD, SLOTS, RememberingExchange, built


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "part-000.txt"
    path.write_text("".join(f"1 {user} 1 {item} 1 {label}\n" for user, item, label in ROWS_OF_SHARD))
    return path


def passes(config: Config, program: TrainingProgram, folder: Path) -> Passes:
    return Passes(TrainingRows(SameRows(SLOTS)), GraphStep(config, program, folder / "rows"), Student())


def rows_of(
    config: Config, program: TrainingProgram, shard: Path, rows: int | None = None, client: int = 0
) -> TrainingRows:
    shards = WorkerShards(client, [shard], rows, Reader("cat", "cat"))
    return training_rows(config, program, shards, shards.read(config, program), Student(), ALL_USERS)


def rate(program: TrainingProgram) -> float:
    (name,) = graph.learning_rates(program.main)
    return float(program.value(name).reshape(-1)[0])


# --- The learning rate ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "done", "factor"),
    [
        ("constant", 0.0, 1.0),
        ("constant", 3.9, 1.0),
        ("linear", 0.0, 1.0),
        ("linear", 1.0, 0.75),
        ("linear", 3.0, 0.25),
        ("linear", 4.0, 0.0),
        ("linear", 5.0, 0.0),
    ],
)
def test_a_schedule(schedule: str, done: float, factor: float) -> None:
    assert scheduled(schedule, done, 4) == factor


@pytest.mark.parametrize(("schedule", "expected"), [("linear", 0.5 * 0.25), ("constant", 0.5)])
def test_the_optimizers_step_follows_the_schedule(config: Config, schedule: str, expected: float) -> None:
    with built(config, **{"hyper_parameters.optimizer.schedule": schedule}) as program:
        assert rate(program) == 0.5
        program.begin_portion(3.0, 1.0)
        assert rate(program) == pytest.approx(expected)
        program.begin_portion(3.0, 0.5)
        assert rate(program) == pytest.approx(expected / 2), "and is not what is left of the last one"


def test_steps_are_as_long_as_the_rate_says(config: Config, tmp_path: Path) -> None:
    config = config.replace(**{"runner.train_batch_size": 5, "hyper_parameters.optimizer.schedule": "linear"})
    changes = []
    for done in (0.0, 2.0):
        with built(config) as program:
            local = passes(config, program, tmp_path)
            before = program.value("mlp_item_embedding")
            program.begin_portion(done, 1.0)
            local.train(5, "test")
            changes.append(program.value("mlp_item_embedding") - before)
    assert np.abs(changes[0]).max() > 0
    np.testing.assert_allclose(changes[1], changes[0] / 2, atol=1e-7)


# --- What is counted -----------------------------------------------------------------------------------


def test_rows_losses_and_scores_are_added_up_and_begun_anew(config: Config, tmp_path: Path) -> None:
    with built(config) as program:
        local = passes(config, program, tmp_path)
        program.begin_portion(4.0, 0.0)  # nothing is learned, so that each pass over the data has the same loss
        for _ in range(2):
            program.begin_epoch()
            local.train(5, "test")
            counted = program.counted()
            assert counted.rows == 5
            assert (counted.positives.sum(), counted.negatives.sum()) == (2, 3)
        feeds = {
            feed.name: np.array([row[place] for row in ROWS_OF_SHARD])[:, None]
            for place, feed in enumerate(program.feeds)
        }
        (cost,) = program.executor.run(program.main, feed=feeds, fetch_list=[program.fetches["Loss"]])
        # Batches of 2, 2 and 1: a mean of their means would be another number.
        assert counted.loss_sum == pytest.approx(5 * float(np.ravel(cost)[0]), rel=1e-6)
        assert program.statistics[:2] == (LOSS_SUM, ROWS) and len(program.statistics) == 4


def test_a_penalty_is_trained_and_not_told_as_loss(config: Config, tmp_path: Path) -> None:
    sums, items = [], []
    for weight in (0.0, 10.0):
        with built(config, **{"hyper_parameters.l2": weight, "runner.train_batch_size": 5}) as program:
            local = passes(program._config, program, tmp_path)
            program.begin_epoch()
            local.train(5, "test")
            sums.append(program.counted().loss_sum)
            items.append(program.value("mlp_item_embedding"))
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)
    assert np.abs(items[0] - items[1]).max() > 1e-3


def test_a_net_that_counts_in_its_own_auc(config: Config) -> None:
    with built(config) as program:
        program.begin_epoch()
        program.set_value(program.statistics[2], np.ones_like(program.value(program.statistics[2])))
        with pytest.raises(RunError, match="each item of its rows once. Received: 4,097 counts for 0 rows of 1"):
            program.counted()


def test_a_server_counts_nothing(config: Config) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()))
        program = TrainingProgram(config)
        program.minimise(None, counts=False)
        assert program.statistics == () and graph.auc_statistics(program.main) is None


def test_the_rows_of_a_net_must_be_the_datas(config: Config, tmp_path: Path) -> None:
    net = tmp_path / "fl_net.py"
    net.write_text(
        "import paddle\nfrom static_model import StaticModel as NCF\n\n"
        "class StaticModel(NCF):\n"
        "    def create_feeds(self, is_infer=False):\n"
        "        return [paddle.static.data(name, [-1, 1], 'int64') for name in ('user', 'item', 'label')]\n"
    )
    config = config.replace(**{"runner.model_path": str(net), "hyper_parameters.group_size": 3})
    with (
        paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()),
        pytest.raises(
            ConfigError, match=r"group_size=3 has each training row hold 3 items .* Received: feeds of widths \[1\]"
        ),
    ):
        TrainingProgram(config)


# --- Parameters ----------------------------------------------------------------------------------------


def test_the_proximal_term_holds_on_to_the_portions_beginning(config: Config, tmp_path: Path) -> None:
    with built(config, **{"hyper_parameters.proximal": 1.0}) as program:
        name = "mlp_item_embedding"
        program.begin_portion(0.0, 1.0)
        np.testing.assert_array_equal(program.value(name + graph.ANCHOR), program.value(name))
        passes(program._config, program, tmp_path).train(5, "test")
        assert np.abs(program.value(name + graph.ANCHOR) - program.value(name)).max() > 0
        program.begin_portion(1.0, 1.0)
        np.testing.assert_array_equal(program.value(name + graph.ANCHOR), program.value(name))


def test_zeros_stay_zeros_where_they_are_kept(config: Config, tmp_path: Path) -> None:
    for keeps in (True, False):
        settings = {"runner.keep_zeros": keeps, "runner.warmup_model_path": str(tmp_path)}
        with built(config, **settings) as program:
            weights = np.ones_like(program.value("mlp_fc_0.w"))
            weights[0] = 0
            program.set_value("mlp_fc_0.w", weights)
            program.set_value("mlp_fc_0.b", np.ones_like(program.value("mlp_fc_0.b")))
            passes(program._config, program, tmp_path).train(5, "test")
            trained = program.value("mlp_fc_0.w")
            assert (trained[1:] != 1).any()
            assert bool((trained[0] == 0).all()) is keeps


def test_the_net_that_scores_has_the_names_of_the_one_that_is_trained(config: Config) -> None:
    with built(config) as program:
        net = scoring_program(config, program).net()
        assert net.feeds == ("user_input", "item_input")
        assert {each.name for each in net.program.all_parameters()} == set(program.names)
        for name in program.names:
            net.set_parameter(name, program.value(name))
        rows = np.array(ROWS_OF_SHARD)
        scores = net.predict((rows[:, :1], rows[:, 1:2]), 2)
        feeds = {feed.name: rows[:, place : place + 1] for place, feed in enumerate(program.feeds)}
        program.begin_portion(4.0, 0.0)
        (prediction,) = program.executor.run(program.main, feed=feeds, fetch_list=[program.prediction])
        np.testing.assert_allclose(scores, np.ravel(prediction), rtol=1e-6)


def test_a_net_that_says_what_it_is_is_scored_by_a_kernel(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with built(config) as program:
        structure = structure_of(program.model)
        assert isinstance(structure, Structure)
        net = scoring_program(config, program).net(structure=structure)
        inputs, labels = (np.array([[0], [0], [1], [1]]), np.array([[2], [1], [0], [2]])), np.array([1, 0, 0, 1])
        rows = EvaluationRows(inputs, labels)
        by_paddle = rows.measure(dataclasses.replace(net, structure=None), 8, 1)
        monkeypatch.setattr(net.executor, "run", lambda *_, **__: pytest.fail("Paddle is not asked"))
        assert rows.measure(net, 8, 1).to_record() == by_paddle.to_record()
        net.set_parameter("prediction.b", np.array([1e9]))
        assert rows.measure(net, 8, 1).hits == 0, "scores are those of the parameters as they are"
        models.write(net, tmp_path, {})
        assert models.load(tmp_path).structure == structure, "whoever evaluates it goes the same way"


# --- Passes over the rows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local_epochs", "exchanges", "expected"),
    [
        (1.0, 0, [5]),
        (0.5, 0, [3]),
        (2.0, 0, [10]),
        (0.0, 0, [0]),
        (1.0, 1, [5]),
        (1.0, 2, [2, 3]),
        (0.5, 2, [1, 2]),
        (0.0, 3, [0, 0, 0]),
        (1.0, 6, [0, 1, 1, 1, 1, 1]),
    ],
)
def test_portions(local_epochs: float, exchanges: int, expected: list[int]) -> None:
    local = Passes(TrainingRows(SameRows(SLOTS)), Remembering(), Student())
    assert local.portions(local_epochs, exchanges) == expected


class Remembering(LocalStep):
    """Trains nothing; `trained` is what it was to train, by the items."""

    name = "remembering"

    def __init__(self) -> None:
        self.trained: list[list[int]] = []
        self.epochs: list[int] = []
        self.closed = False

    def begin_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def train(self, rows: Rows, title: str) -> None:
        assert title == "test"
        self.trained.append(rows[1][:, 0].tolist())

    def close(self) -> None:
        self.closed = True


def test_passes_have_their_step_train_what_comes_next() -> None:
    step = Remembering()
    local = Passes(TrainingRows(SameRows(SLOTS)), step, Student())
    assert local.shard_rows == 5
    local.begin_epoch(3)
    for portion in (2, 0, 5):
        local.train(portion, "test")
    assert (step.trained, step.epochs) == ([[0, 1], [2, 3, 4], [0, 1]], [3])
    step.why_not_compiled = ["this", "that"]
    assert local.result() == {"local_step": {"name": "remembering", "why_not_compiled": ["this", "that"]}}
    assert str(step) == "remembering (not compiled: this; that)"
    local.close()
    assert step.closed


def test_a_student_knows_of_an_epoch_before_its_rows_are_drawn() -> None:
    known: list[int] = []
    student = Student()
    student.begin_epoch = known.append  # type: ignore[method-assign]
    Passes(TrainingRows(SameRows(SLOTS)), Remembering(), student).begin_epoch(4)
    assert known == [4]


def test_rows_are_compared_with_the_manifests(config: Config, shard: Path) -> None:
    with built(config) as program:
        for known in (5, None):
            rows = rows_of(config, program, shard, known)
            (found,) = rows.take(5)
            for given, read in zip(SLOTS, found):
                assert given.dtype == read.dtype and given.tolist() == read.tolist()
        with pytest.raises(DataError, match=r"Received: 5 rows from .*part-000.txt, not 6\."):
            rows_of(config, program, shard, 6)


def test_rows_with_fresh_negatives(config: Config, shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config.replace(**{"runner.resample_negatives": 2, "hyper_parameters.group_size": 3, "runner.seed": 7})
    with built(config) as program:
        made = [rows_of(config, program, shard, 5, client) for client in (0, 0, 1)]
        assert all(each.count == 2 for each in made)
        drawn = [np.hstack(each.of_pass(0)).tolist() for each in made]
        assert drawn[0] == drawn[1] != drawn[2], "each client draws its own, and the same whenever it is asked"
        assert sorted(row[0] for row in drawn[0]) == [0, 2]
        rows, scratch = rows_of(config, program, shard), shard.with_name("rows")
        local = local_training(config, program, (), RememberingExchange(), rows, Student(), scratch, scratch)
        assert isinstance(local, Passes)
        assert "local step: compiled\n" in capsys.readouterr().out
        program.begin_epoch()
        local.train(2, "test")
        counted = program.counted()
        assert (counted.rows, counted.positives.sum(), counted.negatives.sum()) == (2, 2, 4)
        local.close()
        assert not shard.with_name("rows").exists()
        with pytest.raises(DataError, match=r"Received: 5 rows from .*part-000.txt, not 4\."):
            rows_of(config, program, shard, 4)


def test_rows_of_another_kind_have_no_negatives_to_draw(config: Config, tmp_path: Path) -> None:
    config = config.replace(**{"runner.resample_negatives": 2})
    wide = tmp_path / "wide.txt"
    wide.write_text("2 0 1 1 3 1 1\n")
    with (
        built(config) as program,
        pytest.raises(DataError, match="wide.txt, line 1: .* as many labels as items. Received: 2, 1, 1 values"),
    ):
        rows_of(config, program, wide)


# --- With differential privacy -------------------------------------------------------------------------


def test_passes_with_differential_privacy(config: Config, shard: Path) -> None:
    settings = {"privacy.clip": 1.0, "runner.exchanges_per_epoch": 2, "privacy.noise_multiplier": 2.0}
    config = config.replace(**settings)
    with built(config) as program:
        local = local_training(
            config,
            program,
            ["mlp_user_embedding"],
            RememberingExchange(),
            rows_of(config, program, shard, 5),
            Student(),
            shard.with_name("rows"),
            shard.with_name("privacy") / "0.json",
        )
        assert isinstance(local, DpPasses)
        assert local.portions(1.0, 2) == [1, 1], "how many users are drawn is not told"
        with pytest.raises(ConfigError, match="Received: local_epochs=0.5. Have run_worker call train_epoch"):
            local.portions(0.5, 2)
        before = program.value("mlp_item_embedding")
        for _ in range(2):
            local.train(1, "test")
        assert (program.value("mlp_item_embedding") != before).all()
        spent = local.training.spent()
        assert spent.epsilon is not None and spent.epsilon > 0
        assert local.figures() == {"epsilon": spent.epsilon}
        assert local.result() == {"privacy": spent.to_record()}
        assert str(local) == f": {spent}"

        # What it costs is the run's: others' exchanges without this worker, and those that others alone have paid for.
        local.sit_out()
        assert local.training.spent().exchanges == 3

        def gather(own: np.ndarray, what: str) -> np.ndarray:
            return np.stack([own, np.array([5.0])] if what == "the privacy that was spent" else [own])

        local.check(SimpleNamespace(ids=lambda own: own), 0, gather)  # type: ignore[arg-type]
        assert local.training.spent().exchanges == 5
        local.train(1, "test")
        assert local.training.spent().exchanges == 6


def test_other_training_adds_no_figures(config: Config, tmp_path: Path) -> None:
    with built(config) as program:
        local: LocalTraining = passes(config, program, tmp_path)
        assert (local.figures(), str(local)) == ({}, "")
