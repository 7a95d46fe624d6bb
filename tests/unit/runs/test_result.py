"""How a job ended: result.json."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fl_rec.errors import DataError
from fl_rec.runs import roles
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.result import Began, Data, RunResult, Versions, figures

VERSIONS = Versions("0.1.0", "3.0.0", "3.11.2", "abc-dirty")
FOLDED = {"hr@5": 0.4, "ndcg@5": 0.2, "validation_hr@5": 0.3, "validation_ndcg@5": 0.1}


def line(epoch: int, **more: Any) -> dict[str, Any]:
    ranked = {"hr": 0.4, "ndcg": 0.2, "validation_hr": 0.3, "validation_ndcg": 0.1}
    return {"epoch": epoch, "client": "all", "rows": 7, **ranked, "top_k": 5, **more}


def began(run: RunDirectory) -> Began:
    data = Data("../data/fl_train_data", "0" * 64)
    told = Began("2026-01-01T10:00:00+08:00", time.monotonic() - 60, "fl-rec run", VERSIONS, data, {"hr@5": 0.35})
    Launch(2, 1, 0, began=told).write(run)
    return told


def test_a_job_that_ended_well(run: RunDirectory) -> None:
    began(run)
    run.append_metrics([{"epoch": 1, "client": 0}, line(1), line(2, epsilon=1.5, mine=3)])
    for worker in range(2):
        roles.write_status(run.roles, f"worker.{worker}", roles.RUNNING)
    run.end("done", 1, model=run.model / "1", local_step={"name": "compiled", "why_not_compiled": []})
    written = json.loads(run.result.read_text())
    found = run.read_result()
    assert written == found.to_json()
    assert (found.format, found.state, found.workers, found.servers, found.coordinators) == (2, "done", 2, 1, 0)
    assert (found.started, found.command, found.versions) == ("2026-01-01T10:00:00+08:00", "fl-rec run", VERSIONS)
    assert found.ended is not None and datetime.fromisoformat(found.ended).tzinfo is not None
    assert found.seconds is not None and found.start_seconds is not None
    assert 59 < found.start_seconds <= found.seconds < 120
    assert found.data == Data("../data/fl_train_data", "0" * 64) and found.popularity == {"hr@5": 0.35}
    assert found.model == "model/1", "the folder may be moved"
    assert found.epochs == [
        {"epoch": 1, "rows": 7, **FOLDED},
        {"epoch": 2, "rows": 7, **FOLDED, "epsilon": 1.5, "mine": 3},
    ]
    assert found.best == found.epochs[0] == found.kept and found.last == found.epochs[1]
    assert found.local_step == {"name": "compiled", "why_not_compiled": []} and found.privacy is None


def test_without_validation_shards_nothing_is_the_best(run: RunDirectory) -> None:
    run.append_metrics([line(1), line(2)])
    run.end("done", None, model=run.path.parent / "elsewhere" / "2")
    found = run.read_result()
    assert (found.best, found.model) == (None, "../elsewhere/2") and found.kept == found.last
    assert (found.started, found.seconds, found.versions, found.workers) == (None, None, None, None), "nobody knows"


def test_a_job_whose_workers_never_trained(run: RunDirectory) -> None:
    began(run)
    roles.write_status(run.roles, "worker.0", roles.RUNNING)
    run.end("failed", role="worker.1", kind="died", error="it ended", log=run.log / "workerlog.1")
    found = run.read_result()
    assert (found.role, found.kind, found.error, found.log) == ("worker.1", "died", "it ended", "log/workerlog.1")
    assert found.start_seconds is None and found.seconds is not None and found.last is None


def test_it_is_read_as_a_mapping_too(run: RunDirectory) -> None:
    result = RunResult(state="done", versions=VERSIONS)
    assert result["versions"] == {"fl_rec": "0.1.0", "paddle": "3.0.0", "python": "3.11.2", "commit": "abc-dirty"}
    assert (result["state"], result.get("best"), result.get("nothing", 3)) == ("done", None, 3)
    with pytest.raises(KeyError, match="nothing"):
        result["nothing"]


def test_every_key_has_its_meaning() -> None:
    described = RunResult.model_json_schema()["properties"]
    assert [name for name, each in described.items() if "description" not in each] == ["format"]


@pytest.mark.parametrize("validated", [True, False])
def test_one_of_an_earlier_version(run: RunDirectory, validated: bool) -> None:
    lines = [line(0), line(1)]
    if not validated:
        lines = [{name: each for name, each in one.items() if "validation" not in name} for one in lines]
    (run.model / "1").mkdir(parents=True)
    before = {
        "state": "done", "workers": 3, "servers": 1, "model": "/somewhere/run/model/1", "last": lines[1],
        "best": lines[0], "epochs": lines, "local_step": {"name": "graph"}, "unknown": 1,
    }  # fmt: skip
    run.result.write_text(json.dumps(before))
    found = run.read_result()
    assert [each["epoch"] for each in found.epochs] == [1, 2]
    assert found.best == (figures(line(1)) if validated else None), "that was the last one's, whatever it was called"
    assert found.last is not None and (found.last["epoch"], found.last["hr@5"]) == (2, 0.4)
    assert (found.model, found.workers, found.local_step) == ("model/1", 3, {"name": "graph"})


@pytest.mark.parametrize(
    "content",
    [{}, {"state": "best"}, {"state": "done", "model": 3}, {"format": 2, "state": "done", "seconds": "long"}, []],
)
def test_one_that_does_not_tell(run: RunDirectory, content: Any) -> None:
    run.result.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"result.json"):
        run.read_result()


def test_a_launch_of_an_earlier_version(run: RunDirectory, tmp_path: Path) -> None:
    run.launch.write_text('{"workers": 2, "servers": 1, "coordinators": 0, "script": ""}')
    assert Launch.read(run) == Launch(2, 1, 0)
    told = began(run)
    assert Launch.read(run).began == told
