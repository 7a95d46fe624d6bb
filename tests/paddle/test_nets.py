"""The tests of losses, penalties and nets that need Paddle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.base import core

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.nets.contract import load_model_class
from fl_rec.nets.graph import ANCHOR
from fl_rec.nets.losses import LOSSES, find_loss
from fl_rec.nets.neumf import neumf_parameters
from fl_rec.nets.penalties import add_penalties

from .conftest import new_program

PROJECT = Path(__file__).parents[2]
NETS = PROJECT / "models" / "ncf"
USERS, ITEMS = 11, 13


# --- Losses --------------------------------------------------------------------------------------------

Reference = Callable[..., float]


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def cross_entropy(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y * softplus(-z) + (1 - y) * softplus(z)


def focal(z: np.ndarray, y: np.ndarray, gamma: float = 2.0, alpha: float = 0.25) -> np.ndarray:
    p = 1 / (1 + np.exp(-z))
    right = np.where(y == 1, p, 1 - p)
    return -np.where(y == 1, alpha, 1 - alpha) * (1 - right) ** gamma * np.log(right)


REFERENCES: Mapping[str, Reference] = {
    "log_loss": lambda z, y: cross_entropy(z, y).mean(),
    "focal": lambda z, y, **options: focal(z, y, **options).mean(),
    "label_smoothing": lambda z, y, smoothing=0.1: cross_entropy(z, y * (1 - smoothing) + smoothing / 2).mean(),
    "bpr": lambda z, y: softplus(z[:, 1:] - z[:, :1]).mean(),
    "sampled_softmax": lambda z, y, temperature=1.0: (np.log(np.exp((z - z[:, :1]) / temperature).sum(axis=1)).mean()),
}
CASES = [
    ("log_loss", 1, {}),
    ("log_loss", 4, {}),
    ("focal", 1, {}),
    ("focal", 4, {"gamma": 0.5, "alpha": 0.9}),
    ("focal", 4, {"gamma": 0.0, "alpha": 0.5}),
    ("label_smoothing", 1, {}),
    ("label_smoothing", 4, {"smoothing": 0.4}),
    ("bpr", 2, {}),
    ("bpr", 5, {}),
    ("sampled_softmax", 2, {}),
    ("sampled_softmax", 5, {"temperature": 0.3}),
]


def configured(folder: Path, **hyper_parameters: Any) -> Config:
    path = folder / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")
    sizes = {"num_users": USERS, "num_items": ITEMS, "fc_layers": [8, 6, 4], "mf_dim": 3}
    changes = {f"hyper_parameters.{name}": value for name, value in {**sizes, **hyper_parameters}.items()}
    return Config.load(path).replace(**changes)


def computed(loss: Any, logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """A loss and its gradient with respect to the logits."""
    with new_program() as executor:
        group = logits.shape[1]
        z, y = (paddle.static.data(name, [-1, group], "float32") for name in ("z", "y"))
        z.stop_gradient = False
        cost = loss(z, y)
        (gradient,) = paddle.static.gradients(cost, z)
        feed = {"z": logits.astype(np.float32), "y": labels.astype(np.float32)}
        value, slope = executor.run(feed=feed, fetch_list=[cost, gradient])
    return float(np.asarray(value).reshape(())), np.asarray(slope)


def differences(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient by central differences."""
    slope = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        moved = np.zeros_like(at)
        moved[index] = step
        slope[index] = (function(at + moved) - function(at - moved)) / (2 * step)
    return slope


def rows(group: int, number: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels: pointwise of both kinds, or grouped with the positive first; two rows' logits are 0."""
    rng = np.random.default_rng(group)
    logits = rng.normal(scale=2.0, size=(number, group)).astype(np.float32).astype(np.float64)
    logits[:2] = 0
    labels = np.zeros((number, group))
    labels[:, 0] = 1 if group > 1 else np.arange(number) % 2
    return logits, labels


@pytest.mark.parametrize(("name", "group", "options"), CASES)
def test_loss_and_gradient(tmp_path: Path, name: str, group: int, options: Mapping[str, float]) -> None:
    logits, labels = rows(group)
    loss = find_loss(configured(tmp_path, loss=name, loss_options=options))
    value, slope = computed(loss, logits, labels)
    reference = REFERENCES[name]
    assert value == pytest.approx(reference(logits, labels, **options), rel=1e-5)
    expected = differences(lambda z: reference(z, labels, **options), logits)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


def test_focal_without_gamma_is_half_the_log_loss(tmp_path: Path) -> None:
    logits, labels = rows(3)
    values = [
        computed(find_loss(configured(tmp_path, loss=name, loss_options=options)), logits, labels)[0]
        for name, options in (("focal", {"gamma": 0, "alpha": 0.5}), ("log_loss", {}))
    ]
    assert values[0] == pytest.approx(values[1] / 2, rel=1e-6)


def test_bpr_and_softmax_agree_on_pairs() -> None:
    logits, labels = rows(2)
    assert computed(LOSSES.find("bpr"), logits, labels)[0] == pytest.approx(
        computed(LOSSES.find("sampled_softmax"), logits, labels)[0], rel=1e-6
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("right", [True, False])
def test_extreme_logits(name: str, right: bool) -> None:
    """Wrong ones cost about what the logits differ by and have a gradient, right ones next to nothing."""
    labels = np.array([[1.0, 0.0, 0.0]])
    logits = (200 * labels - 100) * (1 if right else -1)
    value, slope = computed(LOSSES.find(name), logits, labels)
    assert np.isfinite(value) and np.isfinite(slope).all()
    if name == "label_smoothing":
        assert value == pytest.approx(5.0 if right else 95.0)
    elif right:
        assert 0 <= value < 1e-6
    else:
        weights = {"focal": 100 * (0.25 + 0.75 * 2) / 3, "log_loss": 100.0, "bpr": 200.0}
        assert value == pytest.approx(weights.get(name, 200 + np.log(2)), rel=1e-6)
        assert slope[0, 0] < 0 < slope[0, 1]


def test_a_users_loss(tmp_path: Path) -> None:
    content = (
        "import paddle\n"
        "def hinge(logits, labels, *, margin=1.0):\n"
        "    return paddle.mean(paddle.nn.functional.relu(margin - paddle.multiply(logits, 2 * labels - 1)))\n"
        "def rows(logits, labels):\n"
        "    return paddle.mean(logits, axis=1)\n"
    )
    (tmp_path / "my_loss.py").write_text(content, encoding="utf-8")
    logits, labels = rows(3)
    loss = find_loss(configured(tmp_path, loss="my_loss.py:hinge", loss_options={"margin": 2}))
    value, _ = computed(loss, logits, labels)
    assert value == pytest.approx(np.maximum(2 - logits * (2 * labels - 1), 0).mean(), rel=1e-5)
    with pytest.raises(ConfigError, match=r"my_loss.py:rows must return a scalar variable. Received: shape \[-1\]. "):
        computed(find_loss(configured(tmp_path, loss="my_loss.py:rows")), logits, labels)


# --- Penalties -----------------------------------------------------------------------------------------

GROUP = 3
USER_IDS = np.array([[0], [3], [3], [4]])
ITEM_IDS = np.array([[0, 1, 2], [2, 2, 5], [1, 0, 2], [6, 6, 6]])


@dataclass
class Stepped:
    """What one step of plain SGD with rate 1 did: the gradient is before - after."""

    cost: float
    before: Mapping[str, np.ndarray]
    gradient: Mapping[str, np.ndarray]
    sparse: Mapping[str, bool]
    frozen: Mapping[str, str]
    operators: list[str]


def small_net(user: Any, item: Any) -> Any:
    """An embedding of users and items, a frozen one of items, and a dense layer; a scalar."""

    def embedding(rows: int, name: str, **more: Any) -> Any:
        return paddle.nn.Embedding(rows, 2, weight_attr=paddle.ParamAttr(name=name, **more), sparse=True)

    users, items = embedding(8, "users")(user), embedding(8, "items")(item)
    popularity = embedding(8, "frozen", trainable=False)(item)
    dense = paddle.nn.Linear(2, 1, paddle.ParamAttr(name="dense.w"), paddle.ParamAttr(name="dense.b"))
    return paddle.mean(dense(paddle.multiply(users, paddle.add(items, popularity))))


def step(
    l2: Mapping[str, float], proximal: float, shared: Sequence[str], net: Callable[[Any, Any], Any] = small_net
) -> Stepped:
    rng = np.random.default_rng(7)
    with new_program() as executor:
        user, item = paddle.static.data("user", [-1, 1], "int64"), paddle.static.data("item", [-1, GROUP], "int64")
        cost = net(user, item)
        program = cost.block.program
        cost, frozen = add_penalties(cost, l2, proximal, shared)
        operators = [op.type for op in program.global_block().ops]
        paddle.optimizer.SGD(1.0).minimize(cost)
        executor.run(paddle.static.default_startup_program())
        scope = paddle.static.global_scope()
        parameters = {each.name: each for each in program.all_parameters()}
        assert not {name for name in parameters if name.endswith(ANCHOR)}

        def values() -> dict[str, np.ndarray]:
            # A copy: the tensor's memory is written to by the step.
            return {name: np.array(scope.find_var(name).get_tensor(), np.float64) for name in parameters}

        for name in parameters:
            drawn = rng.normal(size=parameters[name].shape).astype(np.float32)
            scope.find_var(name).get_tensor().set(drawn, paddle.CPUPlace())
        for name, anchor in frozen.items():
            scope.var(anchor).get_tensor().set(anchor_of(name, parameters[name].shape), paddle.CPUPlace())
        before = values()
        (value,) = executor.run(feed={"user": USER_IDS, "item": ITEM_IDS}, fetch_list=[cost])
        after = values()
        for name, anchor in frozen.items():  # no optimizer has changed it
            np.testing.assert_array_equal(
                np.array(scope.find_var(anchor).get_tensor()), anchor_of(name, parameters[name].shape)
            )
        sparse = {
            name: program.global_block().var(f"{name}@GRAD").type == core.VarDesc.VarType.SELECTED_ROWS
            for name, each in parameters.items()
            if each.trainable
        }
    gradient = {name: before[name] - after[name] for name in before}
    return Stepped(float(np.asarray(value).reshape(())), before, gradient, sparse, frozen, operators)


def anchor_of(name: str, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(sum(name.encode())).normal(size=shape).astype(np.float32)


def small_cost(values: Mapping[str, np.ndarray]) -> float:
    users, items = values["users"][USER_IDS], values["items"][ITEM_IDS] + values["frozen"][ITEM_IDS]
    return float(((users * items) @ values["dense.w"] + values["dense.b"]).mean())


def penalty(values: Mapping[str, np.ndarray], l2: Mapping[str, float], proximal: float, shared: Sequence[str]) -> float:
    batch, total = len(USER_IDS), 0.0
    for name, ids in (("users", USER_IDS), ("items", ITEM_IDS)):
        total += l2.get(name, l2.get("*", 0.0)) * (values[name][ids] ** 2).sum() / batch
        if name in shared:
            anchors = anchor_of(name, values[name].shape)
            total += proximal / 2 * ((values[name][ids] - anchors[ids]) ** 2).sum() / batch
    for name in ("dense.w", "dense.b"):
        if name in shared:
            total += proximal / 2 * ((values[name] - anchor_of(name, values[name].shape)) ** 2).sum()
    return total


ALL = ("users", "items", "frozen", "dense.w", "dense.b")


@pytest.mark.parametrize(
    ("l2", "proximal", "shared", "anchored"),
    [
        ({"*": 0.3}, 0.0, ALL, []),
        ({}, 0.7, ALL, ["dense.b", "dense.w", "items", "users"]),
        ({}, 0.7, ["items", "dense.w", "of another net"], ["dense.w", "items"]),
        ({"items": 0.2, "*": 0.3}, 0.7, ["items", "dense.w", "dense.b"], ["dense.b", "dense.w", "items"]),
    ],
)
def test_penalties_and_their_gradients(
    l2: Mapping[str, float], proximal: float, shared: Sequence[str], anchored: list[str]
) -> None:
    """Ids are there several times, within a row and in several rows; each lookup counts."""
    done = step(l2, proximal, shared)
    assert done.frozen == {name: name + ANCHOR for name in anchored}

    def total(values: Mapping[str, np.ndarray]) -> float:
        return small_cost(values) + penalty(values, l2, proximal, shared)

    assert done.cost == pytest.approx(total(done.before), rel=1e-5)
    for name in ("users", "items", "dense.w", "dense.b"):
        expected = differences(lambda value, name=name: total({**done.before, name: value}), done.before[name])
        np.testing.assert_allclose(done.gradient[name], expected, rtol=1e-3, atol=1e-5, err_msg=name)
    assert not done.gradient["frozen"].any()
    assert done.sparse == {"users": True, "items": True, "dense.w": False, "dense.b": False}
    untouched = sorted(set(range(8)) - set(USER_IDS.flat))
    assert not done.gradient["users"][untouched].any()


def test_penalties_of_nothing_add_nothing() -> None:
    plain = step({}, 0.0, [])
    for done in (step({}, 0.0, ALL), step({}, 0.7, []), step({}, 0.7, ["frozen"])):
        assert done.operators == plain.operators and done.cost == plain.cost and done.frozen == {}


def test_an_embedding_that_is_looked_up_twice() -> None:
    """It has one anchor, and both lookups count."""

    def net(user: Any, item: Any) -> Any:
        table = paddle.nn.Embedding(8, 2, weight_attr=paddle.ParamAttr(name="users"), sparse=True)
        return paddle.mean(table(user)) + 0 * paddle.mean(table(item))

    done = step({"*": 0.5}, 0.7, ["users"], net)
    table, anchors = done.before["users"], anchor_of("users", (8, 2))
    expected = table[USER_IDS].mean()
    for ids in (USER_IDS, ITEM_IDS):
        squares, distances = table[ids] ** 2, (table[ids] - anchors[ids]) ** 2
        expected += (0.5 * squares.sum() + 0.35 * distances.sum()) / len(USER_IDS)
    assert done.cost == pytest.approx(expected, rel=1e-5) and done.frozen == {"users": "users" + ANCHOR}
    assert done.sparse == {"users": True}


def test_a_dense_embedding_and_a_padding_index() -> None:
    """Rows are what is looked up also of a table whose gradient is dense; the padding is zeros, near to itself."""

    def net(user: Any, item: Any) -> Any:
        name = paddle.ParamAttr(name="items")
        return 0 * paddle.mean(paddle.nn.Embedding(8, 2, padding_idx=2, weight_attr=name)(item))

    done = step({}, 2.0, ["items"], net)
    ids = ITEM_IDS[ITEM_IDS != 2]
    expected = ((done.before["items"][ids] - anchor_of("items", (8, 2))[ids]) ** 2).sum() / len(ITEM_IDS)
    assert done.cost == pytest.approx(expected, rel=1e-5) and done.sparse == {"items": False}


def test_an_anchor_that_was_never_set_shows() -> None:
    with new_program() as executor:
        user = paddle.static.data("user", [-1, 1], "int64")
        table = paddle.nn.Embedding(8, 2, weight_attr=paddle.ParamAttr(name="users"), sparse=True)
        cost, _ = add_penalties(paddle.mean(table(user)), {}, 1.0, ["users"])
        executor.run(paddle.static.default_startup_program())
        (value,) = executor.run(feed={"user": USER_IDS}, fetch_list=[cost])
    assert np.isnan(value)


# --- Nets ----------------------------------------------------------------------------------------------


@dataclass
class Built:
    """One program of a net, run on its own parameters or given ones."""

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, np.ndarray]
    feeds: list[tuple[str, tuple[int, ...], Any]]
    target: tuple[int, ...]
    sparse: set[str]
    scores: np.ndarray


def build(
    config: Config,
    users: np.ndarray,
    items: np.ndarray,
    is_infer: bool = False,
    values: Mapping[str, np.ndarray] | None = None,
) -> Built:
    paddle.seed(1)
    model = load_model_class(config.runner.model_path)(config)
    with new_program() as executor:
        feeds = model.create_feeds(is_infer=is_infer)
        if is_infer:
            model.infer_net(feeds)
        else:
            model.net(feeds)
        program = paddle.static.default_main_program()
        sparse = set()
        if not is_infer:
            assert tuple(model._cost.shape) == ()
            forward = program.clone(for_test=True)
            model.create_optimizer()
            gradients = program.global_block().vars
            sparse = {
                each.name
                for each in program.all_parameters()
                if gradients[f"{each.name}@GRAD"].type == core.VarDesc.VarType.SELECTED_ROWS
            }
        else:
            forward = program
        executor.run(paddle.static.default_startup_program())
        scope = paddle.static.global_scope()
        parameters = {each.name: tuple(each.shape) for each in program.all_parameters()}
        for name, value in (values or {}).items():
            scope.find_var(name).get_tensor().set(value, paddle.CPUPlace())
        feed = {feeds[0].name: users, feeds[1].name: items, feeds[2].name: np.zeros_like(items)}
        (scores,) = executor.run(forward, feed=feed, fetch_list=[model.inference_target_var.name])
        held = {name: np.array(scope.find_var(name).get_tensor()) for name in parameters}
    described = [(each.name, tuple(each.shape), each.dtype) for each in feeds]
    return Built(parameters, held, described, tuple(model.inference_target_var.shape), sparse, np.asarray(scores))


def logit(scores: np.ndarray) -> np.ndarray:
    p = scores.astype(np.float64)
    return np.log(p / (1 - p))


EMBEDDINGS = {
    "NCF_GMF": {"gmf_user_embedding": (USERS, 3), "gmf_item_embedding": (ITEMS, 3)},
    "NCF_MLP": {"mlp_user_embedding": (USERS, 4), "mlp_item_embedding": (ITEMS, 4)},
    "fl_mf": {"mf_user_embedding": (USERS, 3), "mf_item_embedding": (ITEMS, 3), "mf_item_bias": (ITEMS, 1)},
}
EMBEDDINGS["NCF_NeuMF"] = {**EMBEDDINGS["NCF_GMF"], **EMBEDDINGS["NCF_MLP"]}
LAYERS = {"mlp_fc_0.w": (8, 6), "mlp_fc_0.b": (6,), "mlp_fc_1.w": (6, 4), "mlp_fc_1.b": (4,)}
DENSE: dict[str, dict[str, tuple[int, ...]]] = {
    "NCF_GMF": {"prediction.w": (3, 1), "prediction.b": (1,)},
    "NCF_MLP": {**LAYERS, "prediction.w": (4, 1), "prediction.b": (1,)},
    "NCF_NeuMF": {**LAYERS, "prediction.w": (7, 1), "prediction.b": (1,)},
    "fl_mf": {},
}
USER_ROWS = np.array([[0], [10], [3], [3]])
ITEM_ROWS = np.random.default_rng(0).integers(0, ITEMS, (4, 5))


def net_config(folder: Path, net: str, **hyper_parameters: Any) -> Config:
    """An NCF with rows of 5 items."""
    mode = {} if net == "fl_mf" else {"mode": net}
    config = configured(folder, **{**mode, "group_size": 5, **hyper_parameters})
    file = "fl_mf.py" if net == "fl_mf" else "static_model.py"
    return config.replace(**{"runner.model_path": str(NETS / file)})


def spread(config: Config) -> dict[str, np.ndarray]:
    """Values of a net's parameters with which its scores differ: biases are drawn too."""
    rng = np.random.default_rng(3)
    shapes = build(config, USER_ROWS, ITEM_ROWS).shapes
    return {name: rng.normal(scale=0.7, size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("net", DENSE)
def test_parameters_and_shapes(tmp_path: Path, net: str) -> None:
    """Their names and shapes follow from the configuration, in training and in inference, in every order."""
    config = net_config(tmp_path, net)
    grouped = build(config, USER_ROWS, ITEM_ROWS)
    inferring = build(config, USER_ROWS, ITEM_ROWS[:, :1], is_infer=True)
    for built, group in ((grouped, 5), (inferring, 1)):
        assert built.shapes == {**EMBEDDINGS[net], **DENSE[net]}
        assert built.target == (-1, group) and built.scores.shape == (4, group)
        assert built.feeds == [
            ("user_input", (-1, 1), paddle.int64),
            ("item_input", (-1, group), paddle.int64),
            ("label", (-1, group), paddle.int64),
        ]
    assert grouped.sparse == set(EMBEDDINGS[net])
    assert list(grouped.shapes) == list(inferring.shapes)


@pytest.mark.parametrize("net", DENSE)
def test_grouped_and_pointwise_rows_have_the_same_scores(tmp_path: Path, net: str) -> None:
    config = net_config(tmp_path, net)
    values = spread(config)
    grouped = build(config, USER_ROWS, ITEM_ROWS, values=values).scores
    alone = np.repeat(USER_ROWS, 5, axis=0), ITEM_ROWS.reshape(-1, 1)
    for settings in ({"group_size": 1}, {"group_size": None}):
        pointwise = build(net_config(tmp_path, net, **settings), *alone, values=values).scores
        np.testing.assert_allclose(grouped.reshape(-1, 1), pointwise, rtol=1e-5)
    inferred = build(config, *alone, is_infer=True, values=values).scores
    np.testing.assert_allclose(pointwise, inferred, rtol=1e-6)
    assert np.ptp(grouped) > 0.1


def test_logits_against_the_paper(tmp_path: Path) -> None:
    """Eqs. 9, 10 and 12 of arXiv:1708.05031 in numpy."""
    config = net_config(tmp_path, "NCF_NeuMF")
    values = spread(config)

    def looked_up(table: str, ids: np.ndarray) -> np.ndarray:
        return values[table][ids].astype(np.float64)

    gmf = looked_up("gmf_user_embedding", USER_ROWS) * looked_up("gmf_item_embedding", ITEM_ROWS)
    users = np.repeat(looked_up("mlp_user_embedding", USER_ROWS), 5, axis=1)
    mlp = np.concatenate([users, looked_up("mlp_item_embedding", ITEM_ROWS)], axis=2)
    for layer in (0, 1):
        mlp = np.maximum(mlp @ values[f"mlp_fc_{layer}.w"] + values[f"mlp_fc_{layer}.b"], 0)
    logits = np.concatenate([gmf, mlp], axis=2) @ values["prediction.w"] + values["prediction.b"]
    scores = build(config, USER_ROWS, ITEM_ROWS, values=values).scores
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits[:, :, 0])), rtol=1e-4)


def test_matrix_factorisation(tmp_path: Path) -> None:
    config = net_config(tmp_path, "fl_mf")
    values = spread(config)
    users, items = values["mf_user_embedding"][USER_ROWS], values["mf_item_embedding"][ITEM_ROWS]
    products, bias = (users * items).sum(axis=2), values["mf_item_bias"][ITEM_ROWS][:, :, 0]
    scores = build(config, USER_ROWS, ITEM_ROWS, values=values).scores
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-products - bias)), rtol=1e-4)
    plain = net_config(tmp_path, "fl_mf", extra={"bias": False})
    del values["mf_item_bias"]
    built = build(plain, USER_ROWS, ITEM_ROWS, values=values)
    np.testing.assert_allclose(built.scores, 1 / (1 + np.exp(-products)), rtol=1e-4)
    assert "mf_item_bias" not in built.shapes


@pytest.mark.parametrize(("extra", "std"), [({}, 0.05), ({"std": 0.2}, 0.2)])
def test_embeddings_are_drawn_from_a_normal_distribution(tmp_path: Path, extra: dict[str, float], std: float) -> None:
    config = net_config(tmp_path, "fl_mf", extra=extra, num_users=2000)
    table = build(config, USER_ROWS, ITEM_ROWS).values["mf_user_embedding"]
    assert table.std() == pytest.approx(std, rel=0.05) and abs(table.mean()) < 0.05 * std * 2


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_neumf_of_a_gmf_and_an_mlp(tmp_path: Path, alpha: float) -> None:
    logits, values = {}, {}
    for net in ("NCF_GMF", "NCF_MLP"):
        config = net_config(tmp_path, net)
        values[net] = spread(config)
        logits[net] = logit(build(config, USER_ROWS, ITEM_ROWS, values=values[net]).scores)
    joined = neumf_parameters(values["NCF_GMF"], values["NCF_MLP"], alpha)
    built = build(net_config(tmp_path, "NCF_NeuMF"), USER_ROWS, ITEM_ROWS, values=joined)
    assert {name: each.shape for name, each in joined.items()} == built.shapes
    expected = alpha * logits["NCF_GMF"] + (1 - alpha) * logits["NCF_MLP"]
    np.testing.assert_allclose(logit(built.scores), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "loss"), [*(("NCF_NeuMF", loss) for loss in LOSSES), *((net, "bpr") for net in DENSE if net != "NCF_NeuMF")]
)
def test_every_loss_and_every_net_trains(tmp_path: Path, net: str, loss: str) -> None:
    """On one batch, with both penalties, its cost falls."""
    config = net_config(tmp_path, net, loss=loss, **{"optimizer.learning_rate": 0.05})
    paddle.seed(1)
    model = load_model_class(config.runner.model_path)(config)
    with new_program() as executor:
        feeds = model.create_feeds()
        model.net(feeds)
        plain, program = model._cost, model._cost.block.program
        names = [each.name for each in program.all_parameters()]
        model._cost, frozen = add_penalties(plain, {"*": 1e-4}, 1e-4, names)
        assert sorted(frozen) == sorted(names)
        model.create_optimizer()
        for name in EMBEDDINGS[net]:
            assert program.global_block().var(f"{name}@GRAD").type == core.VarDesc.VarType.SELECTED_ROWS
        executor.run(paddle.static.default_startup_program())
        scope = paddle.static.global_scope()
        for name, anchor in frozen.items():
            value = np.array(scope.find_var(name).get_tensor())
            scope.var(anchor).get_tensor().set(value, paddle.CPUPlace())
        labels = np.zeros_like(ITEM_ROWS)
        labels[:, 0] = 1
        feed = {"user_input": USER_ROWS, "item_input": np.arange(20).reshape(4, 5) % ITEMS, "label": labels}
        costs = [executor.run(feed=feed, fetch_list=[plain, model._cost]) for _ in range(40)]
    first, last = (np.asarray(each).reshape(2) for each in (costs[0], costs[-1]))
    assert last[0] < 0.9 * first[0] and last[1] < 0.9 * first[1] and last[1] > last[0]


def test_pointwise_rows_with_a_grouped_loss(tmp_path: Path) -> None:
    config = net_config(tmp_path, "NCF_MLP", loss="bpr", group_size=1)
    with pytest.raises(ConfigError, match="loss=bpr compares a positive with the negatives of its own row"):
        build(config, USER_ROWS, ITEM_ROWS[:, :1])
    # What is evaluated has no loss.
    assert build(config, USER_ROWS, ITEM_ROWS[:, :1], is_infer=True).scores.shape == (4, 1)


def test_a_weight_for_an_embedding_that_is_not_there() -> None:
    with pytest.raises(ConfigError) as caught:
        step({"users": 0.1, "item": 0.2}, 0.0, ALL)
    assert str(caught.value) == (
        "hyper_parameters.l2 must name embeddings of the net. Received: 'item'. The net has items, users."
    )
