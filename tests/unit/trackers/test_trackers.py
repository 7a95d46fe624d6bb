"""TensorBoard's, VisualDL's and MLflow's own files, read back by their own readers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.evaluation.records import EpochRecord
from fl_rec.runs.directory import RunDirectory
from fl_rec.trackers import TRACKERS, Tracker, check, figures_of

# By client and figure, (epoch, value).
Points = dict[str, dict[str, list[tuple[int, float]]]]
LoadJob = Callable[..., Config]


def record(epoch: int, client: int | str, hr: float, **more: Any) -> EpochRecord:
    nan = float("nan")
    return EpochRecord(epoch, client, 100, 0.5, 200.0, 0.25, nan, 0.75, hr, 0.125, 7, 10, **more)


def figures(epoch: int) -> dict[str, dict[str, float]]:
    clients = tuple(record(epoch, client, epoch / 16 + client / 2) for client in (0, 1))
    extra = {"chosen": True, "temperature": 2, "why": "warm"}
    return {"popularity": {"hr@10": 0.5}, **figures_of(record(epoch, "all", epoch / 8, clients=clients, extra=extra))}


def test_figures_of_an_epoch() -> None:
    found = figures(1)
    assert list(found) == ["popularity", "client_0", "client_1", "all"]
    assert found["client_1"]["hr@10"] == 0.5625
    assert found["all"] == {
        **{"rows": 100, "seconds": 0.5, "rows_per_second": 200, "train_loss": 0.25, "test_auc": 0.75},
        **{"hr@10": 0.125, "ndcg@10": 0.125, "test_users": 7, "test_tied": 0, "temperature": 2},
    }


def tensorboard(run: RunDirectory, _: Tracker) -> tuple[Points, str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util.tensor_util import make_ndarray

    points: Points = {}
    for folder in (run.path / "tensorboard").iterdir():
        (file,) = folder.iterdir()
        events = EventAccumulator(str(file)).Reload()
        points[folder.name] = {}
        for tag in events.Tags()["tensors"]:
            content = events.SummaryMetadata(tag).plugin_data
            if content.plugin_name == "scalars":
                points[folder.name][tag] = [
                    (each.step, float(make_ndarray(each.tensor_proto))) for each in events.Tensors(tag)
                ]
            elif content.plugin_name == "hparams":
                parameters = HParamsPluginData.FromString(content.content).session_start_info.hparams
                assert parameters["runner.epochs"].number_value == 7
            else:
                assert content.plugin_name == "text"
    (configuration,) = (
        EventAccumulator(str(next((run.path / "tensorboard" / "all").iterdir()))).Reload().Tensors("configuration")
    )
    return points, make_ndarray(configuration.tensor_proto).item().decode()


def visualdl(run: RunDirectory, _: Tracker) -> tuple[Points, str]:
    from visualdl import LogReader

    points: Points = {}
    for folder in (run.path / "visualdl").iterdir():
        (file,) = folder.iterdir()
        reader = LogReader(file_path=str(file))
        tags = reader.get_tags()
        points[folder.name] = {
            tag: [(each.id, each.value) for each in reader.get_data("scalar", tag)] for tag in tags.get("scalar", ())
        }
        if folder.name == "all":
            (configuration,) = reader.get_data("text", "configuration")
            (hparam,) = reader.get_data("hyper_parameters", "hparam")
            assert "runner.epochs" in str(hparam)
    return points, str(configuration)


def mlflow(run: RunDirectory, tracker: Any) -> tuple[Points, str]:
    client, points = tracker._client, {}
    (found,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert found.info.run_name == "a run" and found.data.params["runner.epochs"] == "7"
    for name in found.data.metrics:
        whose, _, figure = name.rpartition("/")
        history = [(each.step, each.value) for each in client.get_metric_history(found.info.run_id, name)]
        points.setdefault(whose or "all", {})[figure.replace("_at_", "@")] = sorted(history)
    return points, Path(client.download_artifacts(found.info.run_id, "config.yaml")).read_text()


READERS: Mapping[str, Callable[[RunDirectory, Any], tuple[Points, str]]] = {
    "tensorboard": tensorboard,
    "visualdl": visualdl,
    "mlflow": mlflow,
}


def expected(*epochs: int) -> Points:
    points: Points = {}
    for epoch in epochs:
        for whose, values in figures(epoch).items():
            for name, value in values.items():
                points.setdefault(whose, {}).setdefault(name, []).append((epoch, value))
    return points


@pytest.mark.parametrize("name", READERS)
def test_what_is_read_back(
    name: str, run: RunDirectory, load_job: LoadJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that goes back to a checkpoint, that is resumed, and that is resumed from further back."""
    pytest.importorskip(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    database = all(importlib.util.find_spec(each) for each in ("sqlalchemy", "alembic"))
    if not database:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config = load_job("runner.epochs=7", "hyper_parameters.extra={deep: [1, 2]}")
    config.dump(run.config)
    model = tmp_path / "model" / "3"
    for file in ("rec_static.pdmodel", "tables/items", "private/0.npz"):
        (model / file).parent.mkdir(parents=True, exist_ok=True)
        (model / file).write_text(file)

    def tracker() -> Tracker:
        return TRACKERS.find(name)(run, config, config.changed())

    first = tracker()
    first.begin({})
    first.log(1, figures(1))
    first.log(2, figures(2))
    first.end(False, None)
    assert READERS[name](run, first)[0] == expected(1, 2)

    second = tracker()
    second.begin({1: figures(1), 2: figures(2)})
    second.log(3, figures(3))
    points, configuration = READERS[name](run, second)
    assert points == expected(1, 2, 3)
    assert "epochs: 7" in configuration

    second.begin({1: figures(1)})
    second.log(2, figures(2))
    second.end(True, model)
    points, _ = READERS[name](run, second)
    assert points == expected(1, 2)
    if name == "mlflow":
        assert not database or {"mlflow.db", "mlflow_artifacts"} <= {each.name for each in tmp_path.iterdir()}
        client, number = second._client, second._id
        assert number != first._id == client.get_run(first._id).info.run_id, "whose points can't be removed"
        assert client.get_run(first._id).info.lifecycle_stage == "deleted"
        assert client.get_run(number).info.status == "FINISHED"
        assert [each.path for each in client.list_artifacts(number, "model")] == [
            "model/rec_static.pdmodel",
            "model/tables",
        ]
        assert Path(client.download_artifacts(number, "model/tables/items")).read_text() == "tables/items"


def test_a_run_of_mlflow_that_is_anothers(
    run: RunDirectory, load_job: LoadJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A received folder may name any of one's runs: that one is neither gone on with nor deleted."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "films")
    config = load_job()
    config.dump(run.config)
    received = RunDirectory.claim(tmp_path / "received", "another test")[0]
    config.dump(received.config)
    trackers = []
    for each in (run, received):
        trackers.append(TRACKERS.find("mlflow")(each, config, {}))
        trackers[-1].begin({})
        trackers[-1].log(1, figures(1))
        (received.path / "mlflow").write_text(trackers[0]._id)
    client = trackers[0]._client
    assert trackers[0]._id != trackers[1]._id
    assert [each.step for each in client.get_metric_history(trackers[0]._id, "rows")] == [1]
    assert client.get_run(trackers[0]._id).info.lifecycle_stage == "active"
    assert client.get_experiment_by_name("films").experiment_id == client.get_run(trackers[1]._id).info.experiment_id


def checked(config: Config) -> Config:
    return check(config, Facts.of(config, 2, 0))


@pytest.mark.parametrize(
    ("missing", "told"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow, sqlalchemy, alembic")]
)
def test_a_missing_package(missing: str, told: str, load_job: LoadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as err:
        checked(load_job(f"runner.log_to=[{missing}]"))
    assert str(err.value) == (
        f"runner.log_to names trackers whose packages are installed. Received: {missing}, and there is no module "
        f'{told}. Install it (pip install "fl_rec[{missing}]"), or leave {missing} out.'
    )


def test_a_server_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert TRACKERS.find("mlflow").needed() == ("mlflow",)


OWN = """
from fl_rec.trackers import Tracker

class Mine(Tracker):
    modules = ("json", "there_is_none")
    def begin(self, epochs): ...
    def log(self, epoch, figures): ...
    def end(self, done, model): ...
"""


def test_a_tracker_of_ones_own(load_job: LoadJob) -> None:
    config = load_job("runner.log_to=[mine.py:Mine]")
    own = config.yaml_path.parent / "mine.py"
    own.write_text(OWN)
    with pytest.raises(
        ConfigError, match=r"there is no module there_is_none\. Install it \(pip install there_is_none\)"
    ):
        checked(config)
    own.write_text(OWN.replace(', "there_is_none"', ","))
    assert checked(config).runner.log_to == (f"{own}:Mine",)


def test_an_unknown_one(load_job: LoadJob) -> None:
    known = "runner.log_to must be one of tensorboard, visualdl, mlflow, or module:Class"
    with pytest.raises(ConfigError, match=f"{known}. Received: 'tensorbord'. Did you mean tensorboard?"):
        checked(load_job("runner.log_to=[tensorbord]"))
