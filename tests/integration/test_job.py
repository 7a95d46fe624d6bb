"""Whole jobs that end well: what they train, evaluate, write and save."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.manifest import Manifest, load_manifest
from fl_rec.data.text import parse_multislot
from fl_rec.files import sha256_of
from fl_rec.job.watch import log_path
from fl_rec.runs import roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import figures

from .conftest import ROOT, TIMEOUT, WORKERS, Commands, Finished, Job, SharedJob, clean_environment

SCORES = """
import json, sys
from pathlib import Path
from fl_rec.runs.models import load
import paddle
import numpy as np
paddle.enable_static()
rows = np.load(sys.argv[2])
net = load(Path(sys.argv[1]))
np.save(sys.argv[3], net.predict([rows[:, :1], rows[:, 1:2]], 1000))
"""


def test_what_a_run_trains_reports_and_saves(
    commands: Commands, trained: Finished, shards: Path, tmp_path: Path
) -> None:
    finished = trained
    manifest = load_manifest(shards)
    assert manifest is not None

    for epoch in range(3):
        for worker, shard in enumerate(manifest.shards):
            record = finished.records(worker)[epoch]
            assert (record["rows"], record["test_users"]) == (shard.train.rows, shard.test.users)
            assert record["rows_per_second"] == pytest.approx(record["rows"] / record["seconds"])
            assert sum(record["groups"]["users"]) == shard.test.users
            assert sum(record["groups"]["hits"]) == pytest.approx(record["hr"] * shard.test.users)
            spent = [record[f"{phase}_seconds"] for phase in ("train", "exchange", "wait", "evaluation", "save")]
            assert min(spent) >= 0 and spent[0] > 0 and spent[3] > 0
        total = finished.records("all")[epoch]
        parts = [finished.records(worker)[epoch] for worker in range(WORKERS)]
        assert total["rows"] == manifest.totals["train_rows"]
        assert total["train_loss"] * total["rows"] == pytest.approx(sum(p["train_loss"] * p["rows"] for p in parts))
        assert total["hr"] * total["test_users"] == pytest.approx(sum(p["hr"] * p["test_users"] for p in parts))
        assert total["seconds"] == max(part["seconds"] for part in parts)
        assert total["wait_seconds"] == pytest.approx(sum(part["wait_seconds"] for part in parts) / WORKERS, abs=1e-3)
        assert [sum(each) for each in zip(*(p["groups"]["users"] for p in parts))] == total["groups"]["users"]
    assert len(finished.run.read_metrics()) == 3 * (WORKERS + 1)
    losses = [record["train_loss"] for record in finished.records("all")]
    assert losses[2] < losses[0] < math.log(2)
    assert finished.records("all")[2]["train_auc"] > 0.55

    assert_told_of_itself(finished.run, manifest, "fl_rec.cli run")
    assert finished.result["last"] == figures(finished.records("all")[2]) and finished.result["best"] is None
    assert "epoch 3 of 3" in finished.run.tables.read_text()
    assert " epoch 3/3  loss " in finished.output and f" model     {finished.run.model / '3'}\n" in finished.output
    states = {name: each.state for name, each in roles.read_statuses(finished.run.roles).items()}
    assert set(states) == set(roles.role_names(WORKERS, 1))
    # fleetrun may end the server before its last word.
    assert states.pop("server.0") in ("running", "done")
    assert set(states.values()) == {"done"}
    for name in roles.role_names(WORKERS, 1):
        assert log_path(finished.run, name).stat().st_size > 0
    assert "num_users: 600" in finished.run.config.read_text()

    assert_saved_is_evaluated(commands, finished, shards, tmp_path)


def assert_saved_scores_are_the_logged_ones(
    commands: Commands, finished: Finished, shards: Path, tmp_path: Path
) -> Path:
    """The saved model, loaded in a process without fleet, gives the logged hit rate and AUC; returns its folder."""
    from sklearn.metrics import roc_auc_score

    texts = [path.read_bytes() for path in sorted((shards / "fl_test_data").iterdir())]
    rows = np.concatenate([np.column_stack(parse_multislot(text, 3)) for text in texts])
    np.save(tmp_path / "rows.npy", rows)
    model = finished.model
    commands.program(SCORES, model, tmp_path / "rows.npy", tmp_path / "scores.npy")
    scores = np.load(tmp_path / "scores.npy")
    hits = 0
    for user in np.unique(rows[:, 0]):
        mine = rows[:, 0] == user
        positive = scores[mine][rows[mine, 2] == 1][0]
        hits += np.sum(scores[mine][rows[mine, 2] == 0] >= positive) < 10
    logged = finished.result["last"]
    assert logged["hr@10"] == pytest.approx(hits / logged["test_users"], abs=1e-12)
    assert logged["test_auc"] == pytest.approx(roc_auc_score(rows[:, 2], scores), abs=1e-3)
    return model


def assert_saved_is_evaluated(commands: Commands, finished: Finished, shards: Path, tmp_path: Path) -> None:
    """The model is saved whole, and evaluated again from what was saved."""
    model = assert_saved_scores_are_the_logged_ones(commands, finished, shards, tmp_path)
    tables = {path.name for path in (model / "tables").iterdir()}
    assert {"mlp_item_embedding", "mlp_fc_0.w", "prediction.b"} <= tables and len(tables) == 9, "sparse and dense ones"

    epochs = ("runner.infer_start_epoch=1", "runner.infer_end_epoch=3")
    where = f"runner.infer_load_path={finished.run.model}"
    inferred = commands.succeed("evaluate", "-m", finished.run.config, "-o", where, *epochs)
    lines = [json.loads(line) for line in inferred.splitlines()]
    assert [line.pop("model") for line in lines] == [str(finished.run.model / str(epoch)) for epoch in (1, 2)]
    assert {line.pop("client") for line in lines} == {"all"}
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        record = finished.records("all")[line["epoch"] - 1]
        assert {key: record[key] for key in line} == pytest.approx(line, rel=0, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "servers"),
    [
        ({"sync_mode": "async"}, 1),
        ({"reader_type": "InmemoryDataset"}, 2),
        ({"split_file_list": False}, 1),
        ({"test_data_dir": None}, 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else f"{value} server(s)",
)
def test_other_ways_to_run(job: Job, shards: Path, tmp_path: Path, changes: dict, servers: int) -> None:
    """With what else has no part in the training: two servers, and with nothing to evaluate a dump of fields."""
    job.runner.update(changes, epochs=2)
    if "sync_mode" in changes:  # each step is an exchange
        job.runner["train_batch_size"], job.hyper_parameters["optimizer"]["learning_rate"] = 1024, 0.004
    dumps = "test_data_dir" in changes
    if dumps:
        job.runner.update(need_dump=True, dump_fields_path="dump", dump_fields=["user_input", "item_input"])
    finished = job.succeed("--worker_num", WORKERS, "--server_num", servers)
    assert finished.result["servers"] == servers
    checkpoints = "sync_mode" not in changes
    assert finished.run.checkpoint.is_dir() == checkpoints == ("there are no checkpoints" not in finished.output)
    if changes.get("split_file_list") is False:
        manifest = load_manifest(shards)
        assert manifest is not None
        rows = WORKERS * manifest.totals["train_rows"]
        assert [record["rows"] for record in finished.records("all")] == [rows, rows]
    else:
        assert_every_row_trained(finished, shards)
    first, last = finished.records("all")
    assert last["train_loss"] < first["train_loss"]
    if "test_data_dir" in changes:
        assert last["hr"] is None
    else:
        assert last["test_auc"] > 0.55, "what the servers hold is the model that was trained"
    if dumps:
        dumped = [path.read_text() for path in (tmp_path / "dump" / "epoch_1").iterdir()]
        assert any("user_input" in text and "item_input" in text for text in dumped)


def test_the_page_of_a_run(trained: Finished, commands: Commands, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    commands.succeed("report", trained.run.path, "--out", page)
    inside = re.search(r'id="content">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert inside is not None
    content = json.loads(inside[1])
    assert content["epochs"] == [1, 2, 3] and content["run"]["state"] == "done"
    for client in (*range(WORKERS), "all"):
        columns, records = content["figures"][str(client)], trained.records(client)
        for name in ("rows", "hr", "ndcg", "test_auc", "train_loss", "wait_seconds", "exchange_seconds"):
            assert columns[name] == [record[name] for record in records]
        assert sum(content["groups"][str(client)]["users"]) == records[-1]["test_users"]
    told = trained.result
    assert content["popularity"] == {name: told["popularity"][f"{name}@10"] for name in ("hr", "ndcg")}
    assert (content["run"]["seconds"], content["run"]["command"]) == (told["seconds"], told["command"])
    hits = sum(client["popularity"]["hr"] * client["test_users"] for client in content["clients"])
    assert hits / 600 == pytest.approx(content["popularity"]["hr"])


def assert_the_page_follows(started: subprocess.Popen) -> None:
    """The page that a job serves, asked until the job is over, which waits until the page has been told."""
    url = next(line.split()[2] for line in started.stdout if " page " in line)
    states, deadline = ["training"], time.monotonic() + TIMEOUT
    while states[-1] == "training" and time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}content.json", timeout=TIMEOUT) as answer:
            content = json.load(answer)
        states.append(content["run"]["state"])
        assert (content["progress"] is None) == (states[-1] == "done")
        time.sleep(0.2)
    assert states[-1] == "done" and len(states) > 2 and content["epochs"] == [1]


def test_warm_start_goes_on_where_the_model_was(
    commands: Commands, job: Job, trained: Finished, shards: Path, tmp_path: Path
) -> None:
    job.runner["warmup_model_path"] = str(trained.model)
    started = job.start("--ui")
    assert_the_page_follows(started)
    warm = job.wait(started)
    assert (warm.code, warm.errors) == (0, "")
    cold, *_, last = (record["train_loss"] for record in trained.records("all"))
    assert warm.records("all")[0]["train_loss"] < (cold + last) / 2
    # Nobody has taken other workers' users for its own: the parts join again.
    assert_saved_scores_are_the_logged_ones(commands, warm, shards, tmp_path)


def test_the_papers_other_nets_and_a_neumf_that_starts_from_two(
    job: Job, trained: Finished, shared_job: SharedJob, shards: Path
) -> None:
    """Private users and shared items of both; it begins below where a NeuMF ends that starts from nothing."""
    assert trained.result["last"]["epoch"] == 3
    gmf = shared_job(
        "gmf", lambda tower: (tower.runner.update(epochs=3), tower.hyper_parameters.update(mode="NCF_GMF"))
    )
    cold = shared_job("neumf", lambda net: net.hyper_parameters.update(mode="NCF_NeuMF"))
    for finished in (gmf, cold):
        assert_every_row_trained(finished, shards)
    job.hyper_parameters.update(
        mode="NCF_NeuMF", pretrained_gmf=str(gmf.model), pretrained_mlp=str(trained.model), pretrain_alpha=0.4
    )
    assert job.succeed().result["last"]["train_loss"] < cold.result["last"]["train_loss"] - 0.05


def test_by_hand_with_fleetrun(job: Job, tmp_path: Path) -> None:
    fleetrun = Path(sys.executable).parent / "fleetrun"
    command = [str(fleetrun), f"--worker_num={WORKERS}", "--server_num=1"]
    command += [f"--log_dir={tmp_path / 'log'}", "../../tools/static_fl_trainer.py", "-m", str(job.yaml)]
    done = subprocess.run(
        command, cwd=ROOT / "models" / "ncf", timeout=TIMEOUT, capture_output=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(Path(job.runner["train_data_dir"]))
    assert manifest is not None
    assert_told_of_itself(job.run, manifest, f"fleetrun --worker_num={WORKERS}")
    assert "http.log" not in {path.name for path in job.run.log.iterdir()}


def assert_told_of_itself(run: RunDirectory, manifest: Manifest, command: str) -> None:
    """The result says how a job that ended well was started, by whatever it was started, and how good it had to be."""
    result = run.read_result()
    assert (result.state, result.workers, result.servers, result.model) == (
        "done",
        WORKERS,
        1,
        f"model/{len(result.epochs)}",
    )
    assert result.command is not None and command in result.command
    assert result.started is not None and result.ended is not None and result.started <= result.ended
    assert result.start_seconds is not None and result.seconds is not None
    assert 0 < result.start_seconds < result.seconds < TIMEOUT
    assert result.versions is not None and result.versions.paddle == metadata.version("paddlepaddle")
    assert result.data is not None and (run.path / result.data.folder).resolve() == manifest.folder / "fl_train_data"
    assert result.data.checksum == sha256_of(manifest.folder / "manifest.json")
    assert result.popularity == manifest.popularity_at(10) and 0.1 < result.popularity["hr@10"] < 0.5


def assert_every_row_trained(finished: Finished, shards: Path) -> None:
    manifest = load_manifest(shards)
    assert manifest is not None
    for worker, shard in enumerate(manifest.shards):
        assert {record["rows"] for record in finished.records(worker)} == {shard.train.rows}
