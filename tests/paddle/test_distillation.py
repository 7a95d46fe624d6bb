"""The tests of distillation that need Paddle."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from fl_rec.config import Config
from fl_rec.distillation.proxy import LARGEST_LOGIT, ProxySet, Rows
from fl_rec.distillation.student import NO_TARGET, TARGET_UNIT, add_distillation
from fl_rec.distillation.teacher import Teacher
from fl_rec.errors import DataError
from fl_rec.nets.losses import logits_of

from .conftest import new_program

PROJECT = Path(__file__).parents[2]
USERS, ITEMS = 40, 60


# -- the loss --------------------------------------------------------------------------------------------


def distillation(
    probabilities: np.ndarray, targets: np.ndarray, temperature: float, weight: float
) -> tuple[float, np.ndarray]:
    """The cost, 7 without a teacher, and its gradient by the probabilities."""
    with new_program() as executor:
        prediction = paddle.static.data("prediction", probabilities.shape, "float32")
        prediction.stop_gradient = False
        given = paddle.static.data("targets", targets.shape, "float32")
        cost = add_distillation(paddle.full([], 7.0), prediction, given, temperature, weight)
        (gradient,) = paddle.static.gradients(cost, prediction)
        feed = {"prediction": probabilities.astype(np.float32), "targets": targets.astype(np.float32)}
        found = executor.run(paddle.static.default_main_program(), feed=feed, fetch_list=[cost, gradient])
    return float(found[0]), np.asarray(found[1])


def expected(
    probabilities: np.ndarray, targets: np.ndarray, temperature: float, weight: float
) -> tuple[float, np.ndarray]:
    """The same by numpy, in float64; NaN where there is no target."""
    p, known = probabilities.astype(np.float64), ~np.isnan(targets)
    z, soft = np.log(p / (1 - p)) / temperature, 1 / (1 + np.exp(-np.where(known, targets, 0) / temperature))
    entropy = -(soft * np.log(1 / (1 + np.exp(-z))) + (1 - soft) * np.log(1 / (1 + np.exp(z))))
    factor = weight * temperature**2 / p.size
    # d z / d p is 1 / (T p (1 - p)), and that of the cross entropy by z is sigmoid(z) - soft.
    slope = (1 / (1 + np.exp(-z)) - soft) / (temperature * p * (1 - p))
    return 7 + factor * (known * entropy).sum(), factor * np.where(known, slope, 0)


def in_units(targets: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(targets), NO_TARGET, np.rint(targets / TARGET_UNIT))


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (2.0, 10.0), (0.5, 3.0)])
def test_the_distance_and_its_gradient(group: int, temperature: float, weight: float) -> None:
    rng = np.random.default_rng(group)
    probabilities = rng.uniform(0.02, 0.98, (12, group))
    targets = np.round(rng.normal(0, 3, (12, group)), 3)
    targets[rng.permutation(12)[:5]] = np.nan
    cost, gradient = distillation(probabilities, in_units(targets), temperature, weight)
    wanted, slope = expected(probabilities, targets, temperature, weight)
    assert cost == pytest.approx(wanted, rel=1e-5) and abs(wanted - 7) > 0.1
    assert gradient == pytest.approx(slope, rel=1e-3, abs=1e-5)
    assert (gradient[np.isnan(targets)] == 0).all() and (gradient[~np.isnan(targets)] != 0).all()
    # The gradient by the net's own logits keeps its size: it is (sigmoid(z / T) - soft) * T * weight / n.
    known = ~np.isnan(targets)
    by_logit = (gradient * probabilities * (1 - probabilities))[known]
    z, soft = np.log(probabilities / (1 - probabilities))[known] / temperature, targets[known] / temperature
    difference = 1 / (1 + np.exp(-z)) - 1 / (1 + np.exp(-soft))
    assert by_logit == pytest.approx(difference * temperature * weight / probabilities.size, rel=1e-3, abs=1e-5)


def test_without_any_target_there_is_no_distance() -> None:
    probabilities = np.array([[0.1], [0.0], [1.0], [0.7]])
    cost, gradient = distillation(probabilities, np.full((4, 1), NO_TARGET), 2.0, 10.0)
    assert cost == 7 and (gradient == 0).all()


def test_who_agrees_with_the_teacher_stays() -> None:
    logits = np.array([[-3.0], [0.0], [2.5]])
    cost, gradient = distillation(1 / (1 + np.exp(-logits)), in_units(logits), 2.0, 10.0)
    assert gradient == pytest.approx(np.zeros((3, 1)), abs=1e-4)
    away, _ = distillation(1 / (1 + np.exp(-logits - 1)), in_units(logits), 2.0, 10.0)
    assert away > cost + 0.5


def test_certain_probabilities_and_targets_are_finite() -> None:
    probabilities = np.array([[0.0, 1.0, 0.0, 1.0, 1e-30, 1 - 2**-24]])
    targets = np.array([[15.0, -15.0, -15.0, 15.0, 15.0, -15.0]])
    cost, gradient = distillation(probabilities, in_units(targets), 1.0, 1.0)
    # The largest logit of a float32 is 16.1, which four of six are on the wrong side with; to the right is next to 0.
    assert np.isfinite(gradient).all()
    assert cost == pytest.approx(7 + 4 * 16.1 / 6, rel=0.02)


def test_logits_of_probabilities() -> None:
    with new_program() as executor:
        prediction = paddle.static.data("p", [-1, 1], "float32")
        logits = logits_of(prediction)
        values = np.array([[0.0], [1e-30], [0.25], [0.5], [0.75], [1.0]], np.float32)
        (found,) = executor.run(paddle.static.default_main_program(), feed={"p": values}, fetch_list=[logits])
    assert found.shape == (6, 1)
    assert found[2:5, 0] == pytest.approx([-np.log(3), 0, np.log(3)], abs=1e-6)
    assert found[0] == found[1] == pytest.approx(-16.118, abs=0.01)
    assert found[5] == pytest.approx(16.118, abs=0.2)


# -- the teacher -------------------------------------------------------------------------------------------


def settings(tmp_path: Path, group: int, **hyper_parameters: Any) -> Config:
    sizes = {"num_users": USERS, "num_items": ITEMS, "group_size": group, "fc_layers": [16, 8], **hyper_parameters}
    (tmp_path / "train").mkdir(exist_ok=True)
    runner = {
        "model_path": str(PROJECT / "models" / "ncf" / "static_model.py"),
        "train_data_dir": str(tmp_path / "train"),
        "resample_negatives": 3,
    }
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"runner": runner, "hyper_parameters": sizes}))
    return Config.load(path)


def lesson(group: int, round: int = 0) -> tuple[Rows, np.ndarray]:
    """A round's rows, and a probability for each user's each item that can't be told from the labels."""
    rng = np.random.default_rng(1)
    pairs = np.stack(np.divmod(rng.choice(USERS * ITEMS, 300, replace=False), ITEMS), axis=1)
    rows = ProxySet(pairs, ITEMS, 3, group, 300, 5).rows(round)
    taste = rng.normal(0, 1.5, (USERS, 2)), rng.normal(0, 1.5, (ITEMS, 2))
    logits = (taste[0][rows.users][:, None] * taste[1][rows.items]).sum(axis=-1)
    return rows, 1 / (1 + np.exp(-logits))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("group", [1, 4])
def test_the_teacher_learns_what_it_is_given(tmp_path: Path, group: int) -> None:
    rows, wanted = lesson(group)
    assert rows.items.shape == wanted.shape == (1200 // group, group)
    teacher = Teacher(settings(tmp_path, group), 0.01, 0.0, 128 // group)
    before = teacher.logits(rows)
    assert before.shape == rows.items.shape and before.dtype == np.float32
    untaught = np.abs(sigmoid(before) - wanted).mean()
    teacher.train(rows, wanted, 30)
    taught = np.abs(sigmoid(teacher.logits(rows)) - wanted).mean()
    # As measured: 0.266, then 0.039 and 0.036.
    assert untaught > 0.25 and taught < 0.08
    assert np.abs(teacher.logits(rows)).max() <= LARGEST_LOGIT


def test_a_teacher_in_a_thread(tmp_path: Path) -> None:
    """As the coordinator's service has one, in a process that was forked after Paddle had been imported."""
    paddle.disable_static()
    rows, wanted = lesson(4)
    with ThreadPoolExecutor(1) as thread:
        teacher = thread.submit(Teacher, settings(tmp_path, 4), 0.01, 0.0, 128).result(60)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(teacher.train, rows, wanted, 1).result(60)
        assert thread.submit(teacher.logits, rows).result(60).shape == rows.items.shape


def test_how_many_parameters_it_has(tmp_path: Path) -> None:
    small = Teacher(settings(tmp_path, 1, mode="NCF_GMF", mf_dim=4), 0.01, 0.0, 64)
    # Two embeddings, and a predicting layer with its bias.
    assert small.parameters == 4 * (USERS + ITEMS) + 4 + 1


def test_a_rate_factor_is_a_factor_of_the_rate(tmp_path: Path) -> None:
    rows, wanted = lesson(1)
    moved = {}
    for factor in (1e-9, 0.1, 1.0):
        teacher = Teacher(settings(tmp_path, 1), 0.01, 0.0, 1200)
        before = teacher.logits(rows)
        teacher.train(rows, wanted, 1, factor)
        moved[factor] = np.abs(teacher.logits(rows) - before).mean()
    # Adam's first step is as long as the rate.
    assert moved[1e-9] < 1e-6
    assert moved[1.0] / moved[0.1] == pytest.approx(10, rel=0.5)
    twice = Teacher(settings(tmp_path, 1), 0.01, 0.0, 1200)
    before = twice.logits(rows)
    twice.train(rows, wanted, 1, 1e-9)
    assert np.abs(twice.logits(rows) - before).mean() < 1e-6
    twice.train(rows, wanted, 1)
    assert np.abs(twice.logits(rows) - before).mean() > moved[0.1], "it holds for one call"


def test_the_labels_weight(tmp_path: Path) -> None:
    rows, _ = lesson(1)
    given = np.full(rows.items.shape, 0.5)
    means = []
    for weight in (0.0, 20.0):
        teacher = Teacher(settings(tmp_path, 1), 0.02, weight, 64)
        teacher.train(rows, given, 15)
        found = sigmoid(teacher.logits(rows))
        means.append(found[rows.labels == 1].mean() - found[rows.labels == 0].mean())
    assert abs(means[0]) < 0.05 and means[1] > 0.3


def test_what_was_saved_goes_on(tmp_path: Path) -> None:
    rows, wanted = lesson(1)
    first = Teacher(settings(tmp_path, 1), 0.01, 0.0, 1200)
    first.train(rows, wanted, 3)
    path = tmp_path / "teacher.npz"
    first.save(path, 17)
    assert sorted(each.name for each in tmp_path.glob("*teacher*")) == ["teacher.npz"]
    again = Teacher(settings(tmp_path, 1), 0.01, 0.0, 1200)
    assert again.logits(rows).tobytes() != first.logits(rows).tobytes()
    assert again.load(path) == 17
    assert again.logits(rows).tobytes() == first.logits(rows).tobytes()
    # Adam's moments are saved too: all rows in one step, so that the order does not matter.
    for teacher in (first, again):
        teacher.train(rows, wanted, 2, 0.5)
    assert again.logits(rows) == pytest.approx(first.logits(rows), abs=1e-4)
    other = Teacher(settings(tmp_path, 1), 0.01, 0.0, 1200)
    first.save(path, 18)
    assert other.load(path) == 18
    assert other.logits(rows).tobytes() == first.logits(rows).tobytes()


def test_a_teacher_of_another_size_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "teacher.npz"
    Teacher(settings(tmp_path, 1), 0.01, 0.0, 256).save(path, 3)
    larger = Teacher(settings(tmp_path, 1, fc_layers=[32, 8]), 0.01, 0.0, 256)
    with pytest.raises(DataError, match="A teacher goes on as the net that it was.*Leave coordinator.options.teacher"):
        larger.load(path)
    with pytest.raises(DataError, match="is missing"):
        Teacher(settings(tmp_path, 1, mode="NCF_GMF"), 0.01, 0.0, 256).load(path)


def test_two_teachers_of_one_process_are_two(tmp_path: Path) -> None:
    rows, wanted = lesson(1)
    one, other = (Teacher(settings(tmp_path, 1), 0.01, 0.0, 256) for _ in range(2))
    before = other.logits(rows)
    assert before.tobytes() == one.logits(rows).tobytes(), "the seed says how they start"
    one.train(rows, wanted, 2)
    assert other.logits(rows).tobytes() == before.tobytes()
    other.train(rows, wanted, 2)
    assert other.logits(rows) == pytest.approx(one.logits(rows), abs=1e-4)
