"""What a page is told of a run: that which the run has written, and nothing where it has not."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from fl_rec.errors import DataError
from fl_rec.page.content import content_of
from fl_rec.runs import roles
from fl_rec.runs.directory import RunDirectory
from tests.unit.page.conftest import NAMES, STRANGE, MakeRun


def test_figures_are_those_of_metrics_jsonl(make_run: MakeRun) -> None:
    run = make_run(epochs=3, clients=2)
    content = content_of(run)
    assert content["epochs"] == [1, 2, 3] and sorted(content["figures"]) == ["0", "1", "all"]
    for line in run.read_metrics():
        columns = content["figures"][str(line["client"])]
        shown = {name: columns[name][line["epoch"] - 1] for name in columns}
        others = ("epoch", "client", "top_k", "groups")
        assert shown == {name: value for name, value in line.items() if name not in others}
    assert content["run"]["top_k"] == 10
    assert (content["run"]["state"], content["run"]["epochs"], content["run"]["workers"]) == ("done", 3, 2)


def test_a_figure_that_is_missing_is_null(make_run: MakeRun) -> None:
    run = make_run(epochs=2, clients=2)
    written = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    written[0] |= {"hr": None, "own": 3, "told": "a text"}  # of client 1 in epoch 1
    run.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in written))
    own = content_of(run)["figures"]["1"]
    assert own["hr"][0] is None and own["hr"][1] > 0 and own["own"] == [3, None] and "told" not in own


def test_popularity_is_that_of_the_result_and_before_it_that_of_the_data(make_run: MakeRun) -> None:
    told = {"format": 2, "state": "done", "popularity": {"hr@10": 0.5, "ndcg@10": 0.25}}
    assert content_of(make_run(result=told))["popularity"] == {"hr": 0.5, "ndcg": 0.25}
    assert content_of(make_run(name="it trains", result={}))["popularity"]["hr"] == 24 / 150


def test_groups_of_users_are_those_of_the_epoch_that_is_kept(make_run: MakeRun) -> None:
    run = make_run(epochs=3, clients=2)
    groups = content_of(run)["groups"]
    assert groups["bounds"] == [0, 20, 50, 100, 200] and groups["1"]["users"] == [10, 35, 0, 0, 5]
    assert groups["1"]["hr"] == [0.1, pytest.approx((int(50 * 0.27) - 4) / 35), None, None, 0.6]
    assert groups["all"]["users"] == [20, 60, 0, 0, 10] and groups["all"]["ndcg"] == [0.05, 0.1, None, None, 0.4]
    best = {"format": 2, "state": "done", "best": {"epoch": 1}}
    first = content_of(make_run(name="validated", clients=2, result=best))["groups"]["1"]["hr"][1]
    assert first == pytest.approx((int(50 * 0.23) - 4) / 35)


def test_an_epoch_counts_when_all_have_reported_it(make_run: MakeRun) -> None:
    run = make_run(epochs=2, clients=2, result={})
    written = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(written[:-1]))
    content = content_of(run)
    assert content["epochs"] == [1] and {len(each["hr"]) for each in content["figures"].values()} == {1}


def test_what_each_client_holds(make_run: MakeRun) -> None:
    content = content_of(make_run(clients=3))
    first = {"name": STRANGE, "train_rows": 1000, "positives": 200, "users": 40, "items": 90, "test_users": 40}
    popular = {"hr": 0.2, "ndcg": pytest.approx(0.2 / math.log2(3))}  # 8 of 40, all at the second place
    assert content["clients"][0] == {**first, "common_items": 0.25, "tags": 0.125, "popularity": popular}
    assert content["clients"][2]["popularity"]["hr"] == 8 / 60 and content["popularity"]["hr"] == 24 / 150
    assert [client["name"] for client in content["clients"]] == NAMES
    assert content["tastes"]["tags"] == ["Drama", STRANGE]
    assert content["tastes"]["shares"] == {
        "all": [0.5, 0.25],
        **{str(k): [round(0.5 + 0.1 * k / 3, 4), 0.2] for k in range(3)},
    }


def test_clients_of_data_that_is_gone_or_dealt_otherwise_have_numbers(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(clients=3)
    numbered = [{"name": f"client {number}", "test_users": 40 + 10 * number} for number in range(3)]
    content = json.loads((tmp_path / "data" / "manifest.json").read_text())
    content["shards"], content["num_shards"] = content["shards"][:2], 2
    content |= {"clients": content["clients"][:2], "difference": {}}
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(content))
    assert content_of(run)["clients"] == numbered and content_of(run)["tastes"] is None
    shutil.rmtree(tmp_path / "data")
    assert content_of(run)["clients"] == numbered


def test_rounds_need_none_of_their_arrays(make_run: MakeRun) -> None:
    run = make_run(epochs=2, clients=3, rounds=True)
    assert list((run.coordinator / "arrays").iterdir())
    shutil.rmtree(run.coordinator)
    content = content_of(run)
    assert content["reasons"] == ["it waits: <i>slow</i>", ""]
    first = {"round": 0, "strategy": "random_k", "seconds": 0.25, "missing": [2], "sent": 601, "received": 601}
    joins = ["JOIN", 2, 0.5, 1]
    assert content["rounds"][0] == {**first, "clients": {"0": ["WAIT", 1.0, 1.0, 0], "1": joins, "2": joins}}
    assert content["rounds"][1]["clients"]["1"] == ["WAIT", 1.0, 1.0, 0]


def test_a_failure_with_the_end_of_its_log(make_run: MakeRun) -> None:
    why = {"role": "worker.1", "kind": "died", "error": "It died."}
    run = make_run(epochs=1, result={"state": "failed", **why, "log": "log/workerlog.1"})
    (run.log / "workerlog.1").write_bytes(b"old\n" * 3000 + b"\xff the last line\n")
    told = content_of(run)["failure"]
    assert {**told, "tail": None} == {**why, "log": "workerlog.1", "tail": None}
    assert told["tail"].endswith("old\n\ufffd the last line\n") and len(told["tail"]) < 6001
    assert told["tail"].startswith("old\n")
    (run.log / "workerlog.1").unlink()
    assert content_of(run)["failure"]["tail"] is None


@pytest.mark.parametrize("log", ["../../secret", "log/link", "{secret}"])
def test_a_log_that_lies_elsewhere_is_not_shown(make_run: MakeRun, tmp_path: Path, log: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a password\n")
    run = make_run(epochs=1, result={"state": "failed", "error": "", "log": log.format(secret=secret)})
    (run.log / "link").symlink_to(secret)
    assert content_of(run)["failure"]["tail"] is None


def test_whether_it_still_trains(make_run: MakeRun) -> None:
    run = make_run(epochs=1, result={})
    assert content_of(run)["run"]["state"] == "killed"
    status = {"role": "worker.0", "pid": os.getpid(), "started": roles.started(), "state": "running", "error": ""}
    (run.roles / "worker.0.json").write_text(json.dumps({**status, "times": {"running": 1.0}}))
    assert content_of(run)["run"]["state"] == "training"


def test_what_was_configured(make_run: MakeRun) -> None:
    run = make_run(
        runner={"exchanges_per_epoch": 5, "compress_report": "int8", "private_params": ["user*"]},
        hyper_parameters={"optimizer": {"class": "sgd", "learning_rate": 1e-3}, "num_users": 400},
        privacy={"clip": 1, "noise_multiplier": 0.5},
        distillation={"proxy_data_dir": "public", "weight": 4, "students": {"1": {"mf_dim": 4}}},
    )
    content = content_of(run)
    changed = {key["name"]: (key["value"], key["default"]) for key in content["configuration"] if key["changed"]}
    assert changed["runner.exchanges_per_epoch"] == ("5", "0") and changed["runner.compress_report"] == (
        '"int8"',
        '"none"',
    )
    assert changed["runner.train_data_dir"][1] is None
    assert [name for name in changed if name.startswith("hyper")] == ["hyper_parameters.optimizer.class"]
    assert "runner.model_path" not in changed
    assert len(content["configuration"]) > 80 and all(key["meaning"] for key in content["configuration"])
    assert content["run"]["private"] == ["user*"] and content["compression"] == {"reports": "int8", "models": []}
    assert content["distillation"]["students"] == {"1": {"mf_dim": 4}} and content["distillation"]["weight"] == 4
    spent = {"epsilon": None, "exchanges": 15, "noise_multiplier": 0.5, "clip": 1, "delta": 1e-5}
    assert content["privacy"] == {**spent, "users_per_exchange": None}


def test_a_plain_run_has_nothing_beyond(make_run: MakeRun) -> None:
    content = content_of(make_run())
    names = ("failure", "distillation", "compression", "privacy", "progress")
    assert [content[name] for name in names] == [None] * 5 and content["rounds"] == content["notes"] == []


def test_compressed_models_of_the_run(make_run: MakeRun) -> None:
    run = make_run()
    small = {"bits": 8, "prune": None, "before": {"bytes": 900, "hr": 0.3}, "after": {"bytes": 300, "hr": 0.29}}
    for folder, content in (("small", {"compression": small}), ("model/3", {})):
        (run.path / folder).mkdir(parents=True)
        (run.path / folder / "model.json").write_text(json.dumps(content))
    assert content_of(run)["compression"] == {"reports": "none", "models": [{"folder": "small", **small}]}


def test_what_a_result_adds(make_run: MakeRun) -> None:
    result = {"state": "done", "model": "m", "privacy": {"epsilon": 2.5}, "best": {"epoch": 2}, "seconds": 1.5}
    run = make_run(result=result, runner={"validation_data_dir": "v", "exchanges_per_epoch": 5}, privacy={"clip": 1})
    content = content_of(run)
    assert (content["run"]["best"], content["run"]["seconds"], content["privacy"]["epsilon"]) == (2, 1.5, 2.5)


def test_notes_of_the_tables_once_each(make_run: MakeRun) -> None:
    run = make_run()
    for text in ("epoch 1\nnote: a client is slow", "note: a client is slow", "note: <b>another</b>"):
        run.append_table(text)
    assert content_of(run)["notes"] == ["a client is slow", "<b>another</b>"]


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"A run's folder has a metrics.jsonl\. Received: .*/x, which is no folder\."):
        content_of(RunDirectory(tmp_path / "x"))


def test_a_configuration_of_another_version_does_not_matter(make_run: MakeRun) -> None:
    run = make_run()
    run.config.write_text("runner: {strange_key: 1}\n")
    content = content_of(run)
    assert content["configuration"] == [] and content["run"]["epochs"] is None and content["epochs"] == [1, 2, 3]
