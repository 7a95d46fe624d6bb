"""Which model scores which shard, what is printed and refused; real models are in tests/integration/test_export.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fl_rec import environment, runs
from fl_rec.config import Config
from fl_rec.errors import DataError
from fl_rec.runs.private_parts import NoCommonModel
from fl_rec.runs.saved import SavedModel
from fl_rec.serving.evaluate import evaluate, to_table

USERS, ITEMS = 4, 3
# Users 2k and 2k + 1 are client k's. Of each user's items 0 is the positive.
SHARDS = [[(user, item, int(item == 0)) for user in (2 * k, 2 * k + 1) for item in range(ITEMS)] for k in range(2)]

Load = Callable[..., Any]


class Net:
    """Likes an item less, the higher its number; its own user likes it best of all."""

    feeds, structure = ("user_input", "item_input"), None

    def __init__(self, client: int | None = None, likes: int = 0) -> None:
        self.client, self.likes = client, likes

    def predict(self, inputs: Sequence[np.ndarray], _batch_size: int) -> np.ndarray:
        user, item = (each[:, 0] for each in inputs)
        if self.client is not None:
            assert set(user // 2) == {self.client}, "rows of another client's users"
        return np.where(item == self.likes, 0.9, 0.5 - item / 10)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    data = tmp_path / "data" / "fl_test_data"
    data.mkdir(parents=True)
    for number, rows in enumerate(SHARDS):
        (data / f"part-00{number}.txt").write_text("".join("1 {} 1 {} 1 {}\n".format(*row) for row in rows))
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"runner": {"train_data_dir": "data", "test_data_dir": str(data), "top_k": 1}}))
    return Config.load(path).replace(**{"hyper_parameters.num_users": USERS, "hyper_parameters.num_items": ITEMS})


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., SavedModel]:
    def saved(clients: int = 0, **signature: Any) -> SavedModel:
        folder = tmp_path / "model" / "3"
        (folder / "private").mkdir(parents=True)
        for client in range(clients):
            (folder / "private" / f"{client}.npz").touch()
        return SavedModel(folder, signature, None)

    return saved


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Load], None]:
    """`load(function)` has models loaded by a function of the client, without Paddle."""
    monkeypatch.setattr(environment, "quiet_paddle", lambda: None)
    models: Any = ModuleType("fl_rec.runs.models")
    monkeypatch.setitem(sys.modules, models.__name__, models)
    monkeypatch.setattr(runs, "models", models, raising=False)

    def load(function: Load) -> None:
        models.load = lambda _folder, client=None: function(client)

    return load


def test_figures_of_all_shards(config: Config, saved: Callable, load: Callable) -> None:
    load(lambda _client: Net())
    assert evaluate(saved(epoch=3), config) == {
        "model": str(config.yaml_path.parent / "model" / "3"), "epoch": 3, "client": "all",
        "test_auc": 1.0, "test_users": 4, "test_tied": 0, "hr": 1.0, "ndcg": 1.0, "top_k": 1,
    }  # fmt: skip


def test_ranks_and_scores_that_are_not_the_best(config: Config, saved: Callable, load: Callable) -> None:
    load(lambda _client: Net(likes=1))
    model = saved()
    found = evaluate(model, config.replace(**{"runner.top_k": 2}))
    assert (found["hr"], found["ndcg"], found["test_auc"]) == (1.0, pytest.approx(1 / np.log2(3)), 0.5)
    assert evaluate(model, config)["hr"] == 0.0


def test_a_model_for_one_client_is_scored_on_its_shard(config: Config, saved: Callable, load: Callable) -> None:
    load(lambda _client: Net(client=1))
    found = evaluate(saved(client=1), config)
    assert (found["client"], found["test_users"], found["hr"]) == (1, 2, 1.0)


def test_a_client_without_a_shard(config: Config, saved: Callable, load: Callable) -> None:
    load(lambda _client: Net())
    with pytest.raises(DataError, match="The model of client 2 is evaluated on shard 2. Received: 2 shards in "):
        evaluate(saved(client=2), config)


def no_common(client: int | None) -> Net:
    if client is None:
        raise NoCommonModel("Workers have no common one.")
    return Net(client, likes=client)  # only client 0's likes the positive


def test_without_a_common_model_each_shard_has_its_own_workers(config: Config, saved: Callable, load: Callable) -> None:
    load(no_common)
    found = evaluate(saved(clients=2), config)
    # Two users who are served well, two who are not, and the counts of both together.
    assert (found["client"], found["test_users"], found["hr"], found["ndcg"]) == ("all", 4, 0.5, 0.5)
    assert found["test_auc"] == 26 / 32


def test_as_many_private_parts_as_shards(config: Config, saved: Callable, load: Callable) -> None:
    load(no_common)
    with pytest.raises(DataError, match="there must be as many. Received: 3 workers' parts and 2 shards in "):
        evaluate(saved(clients=3), config)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("num_users", "part-001.txt, line 4: a user's id must be .* below num_users=3. Received: 3. "),
        (
            "num_items",
            "part-000.txt, line 3: an item's id must be .* below num_items=2. Received: 2. ",
        ),
    ],
)
def test_ids_that_the_model_does_not_know(
    config: Config, saved: Callable, load: Callable, key: str, error: str
) -> None:
    load(lambda _client: Net())
    size = config[f"hyper_parameters.{key}"]
    with pytest.raises(DataError, match=error):
        evaluate(saved(), config.replace(**{f"hyper_parameters.{key}": size - 1}))


def test_data_that_was_made_again(config: Config, saved: Callable, load: Callable, tmp_path: Path) -> None:
    load(lambda _client: Net())
    model = saved(mappings={"users.csv": "1", "items.csv": "2"})
    assert evaluate(model, config, tmp_path / "data")["test_users"] == 4, "there is no manifest to tell"
    with pytest.raises(DataError, match="An evaluation needs test shards. Received: .*nowhere, which is no folder"):
        evaluate(model, config, tmp_path / "nowhere")


def test_figures_of_several_models() -> None:
    best = {"model": "runs/a/model/19", "epoch": 19, "client": "all", "test_users": 6040, "top_k": 10}
    best.update(test_auc=0.91388, hr=0.71921, ndcg=0.44443)
    other = {
        **best,
        "model": "c",
        "epoch": None,
        "client": 3,
        "test_users": 0,
        "test_auc": None,
        "hr": None,
        "ndcg": None,
    }
    assert to_table([best, other]).splitlines() == [
        "model            epoch  client  users   K  test AUC    HR@K  NDCG@K",
        "-------------------------------------------------------------------",
        "runs/a/model/19     19     all  6,040  10    0.9139  0.7192  0.4444",
        "c                    -       3      0  10         -       -       -",
    ]
