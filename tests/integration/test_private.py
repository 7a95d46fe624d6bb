"""What never leaves a worker, looked for in everything that the others have; and rounds, which must be exact."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.job.watch import log_path
from fl_rec.runs import private_parts
from fl_rec.runs.result import figures

from .conftest import ROOT, WORKERS, Finished, Job, SharedJob

USERS = "mlp_user_embedding"
ITEMS = 400

# An exchange that writes down what its worker had before and after each.
WITNESS = """
import os
from pathlib import Path
import numpy as np
from fl_rec.plugins import load

class Witness(load({base!r}, "an exchange")):
    seen = []

    def merge(self, rows, what):
        before = self.shared_parameters()
        super().merge(rows, what)
        self.seen.append((rows, before, self.shared_parameters()))

    def stop(self):
        arrays = {{}}
        for number, (rows, before, after) in enumerate(self.seen):
            arrays[f"{{number}}/rows"] = rows
            for name in before:
                arrays[f"{{number}}/before/{{name}}"] = before[name]
                arrays[f"{{number}}/after/{{name}}"] = after[name]
        np.savez(Path(os.environ["FL_REC_RUN_DIR"]) / f"seen.{{self.runtime.role.index}}.npz", **arrays)
        super().stop()
"""
OWN = "fl_rec.ps.exchange:SynchronousGeo"
EXAMPLE = f"{ROOT / 'tools' / 'fl_exchange_example.py'}:RootOfRows"


def trained_users(finished: Finished, epoch: int) -> list[private_parts.Part]:
    folder = finished.run.model / str(epoch) / "private"
    assert sorted(path.name for path in folder.iterdir()) == [f"{worker}.npz" for worker in range(WORKERS)]
    return [private_parts.load(folder / f"{worker}.npz")[USERS] for worker in range(WORKERS)]


@pytest.fixture(scope="session")
def witnessed(shared_job: SharedJob) -> Callable[..., Finished]:
    """`witnessed(aggregation, rate)` is a job whose workers write down each exchange, two in each of two epochs."""

    def witnessed(aggregation: str = "mean", rate: float = 1.0) -> Finished:
        def change(job: Job) -> None:
            base = OWN if aggregation != "of one's own" else EXAMPLE
            (job.folder / "witness.py").write_text(WITNESS.format(base=base))
            job.runner.update(
                epochs=2, exchanges_per_epoch=2, server_learning_rate=rate, exchange="witness.py:Witness"
            )  # fmt: skip
            if base == OWN:
                job.runner["aggregation"] = aggregation

        return shared_job(f"witnessed {aggregation}", change)

    return witnessed


@pytest.mark.parametrize("exchanges", [False, True], ids=["plain GEO", "synchronous"])
def test_no_row_of_a_private_parameter_is_anywhere_else(
    trained: Finished, witnessed: Callable[..., Finished], exchanges: bool
) -> None:
    finished = witnessed() if exchanges else trained
    epoch = finished.result["last"]["epoch"]
    parts = trained_users(finished, epoch)
    rows = [set(part.rows.tolist()) for part in parts if part.rows is not None]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 600, "every user is one worker's"

    # The server: its table list, as it made them at its start, and the rows that it holds.
    log = log_path(finished.run, "server.0").read_text(errors="replace")
    listed = set(re.findall(r"idx, name, ctx: \d+ (\S+)@GRAD", log))
    assert listed == {"mlp_item_embedding", "Dense"}
    made = set(re.findall(r"accessor initializing: table_id: (\d+)", log))
    assert len(made) == 3, "the items', the dense one, and the barrier's, which holds nothing"
    tables = finished.run.model / str(epoch) / "tables"
    shared = {path.name for path in tables.iterdir()}
    assert "mlp_item_embedding" in shared and USERS not in shared and len(shared) == 9
    content = (tables / "mlp_item_embedding").read_bytes()
    items = np.frombuffer(content[-ITEMS * 32 * 4 :], np.float32).reshape(ITEMS, 32)
    assert np.count_nonzero(items.any(axis=1)) == ITEMS
    assert len(content) < (ITEMS + 1) * 32 * 4, "it has the items' rows and no more"

    # Every file of the run but the worker's own, as bytes and as the text that a dense table is written in.
    for worker, part in enumerate(parts):
        mine = finished.run.model / str(epoch) / "private" / f"{worker}.npz"
        needles = [row[:2].tobytes() for row in part.values]
        assert all(needle in mine.read_bytes() for needle in needles), "they would be found"
        for path in sorted(finished.run.path.rglob("*")):
            # Its part of the model, and of a checkpoint.
            if not path.is_file() or (path.parent.name in ("private", "worker") and path.name == mine.name):
                continue
            content = path.read_bytes()
            content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
            found = [needle for needle in needles if needle in content]
            assert not found, f"{len(found)} rows of worker {worker} are in {path}"
            if path.parent.name == "001":
                numbers = np.array(re.findall(rb"-?\d+\.?\d*(?:e-?\d+)?", content), float)
                assert len(numbers) > 2000, "the dense table is text"
                pairs = np.column_stack([numbers[:-1], numbers[1:]])
                distance = np.abs(part.values[:, None, :2] - pairs).max(axis=2)
                assert distance.min() > 1e-6, f"a row of worker {worker} is in {path}"


def seen(finished: Finished) -> list[dict[str, Any]]:
    return [dict(np.load(finished.run.path / f"seen.{worker}.npz")) for worker in range(WORKERS)]


@pytest.mark.parametrize(
    ("aggregation", "rate"),
    [("mean", 1.0), ("weighted", 1.0), ("sum", 0.5), ("of one's own", 1.0)],
    ids=lambda value: str(value),
)
def test_an_exchange_is_the_aggregate_of_what_all_have_learned(
    witnessed: Callable[..., Finished], aggregation: str, rate: float
) -> None:
    finished = witnessed(aggregation, rate)
    workers = seen(finished)
    rows = np.array([[worker[f"{number}/rows"] for worker in workers] for number in range(4)], float)
    weights = {"mean": np.full_like(rows, 1 / WORKERS), "weighted": rows / rows.sum(axis=1, keepdims=True)}
    weights["of one's own"] = np.sqrt(rows) / np.sqrt(rows).sum(axis=1, keepdims=True)
    names = [key.split("/", 2)[2] for key in workers[0] if key.startswith("0/before/")]
    assert len(names) == 9 and USERS not in names
    for number in range(1, 4):
        share = rate * weights.get(aggregation, np.ones_like(rows))[number]
        for name in names:
            start = workers[0][f"{number - 1}/after/{name}"].astype(np.float64)
            changes = [worker[f"{number}/before/{name}"] - start for worker in workers]
            wanted = start + sum(part * change for part, change in zip(share, changes))
            for worker in workers:
                assert worker[f"{number}/after/{name}"] == pytest.approx(wanted, abs=1e-6)
            assert max(np.abs(change).max() for change in changes) > 1e-4, "there was something to exchange"
    assert finished.records("all")[1]["train_loss"] < finished.records("all")[0]["train_loss"]


def test_both_local_steps_end_alike(shared_job: SharedJob) -> None:
    """By SGD, since what Adam makes of next to nothing is chance."""

    def run(local_step: str) -> Finished:
        def change(job: Job) -> None:
            (job.folder / "witness.py").write_text(WITNESS.format(base=OWN))
            job.runner.update(
                exchanges_per_epoch=2,
                aggregation="sum",
                resample_negatives=3,
                model_path=str(ROOT / "models" / "ncf" / "fl_mf.py"),
                exchange="witness.py:Witness",
                local_step=local_step,
            )
            job.hyper_parameters.update(optimizer={"class": "sgd", "learning_rate": 20}, l2=0.001, mf_dim=16)

        return shared_job(f"local step {local_step}", change)

    compiled, by_graph = run("compiled"), run("graph")
    assert compiled.result["local_step"] == {"name": "compiled", "why_not_compiled": []}
    assert by_graph.result["local_step"] == {"name": "graph", "why_not_compiled": ["runner.local_step=graph"]}
    for one, two in zip(seen(compiled), seen(by_graph)):
        for key, values in one.items():
            np.testing.assert_allclose(values, two[key], rtol=1e-4, atol=1e-5, err_msg=key)
    for one, two in zip(compiled.run.read_metrics(), by_graph.run.read_metrics()):
        assert one["rows"] == two["rows"] and one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-5)
        assert one["train_auc"] == pytest.approx(two["train_auc"], abs=1e-4)


# A worker whose training is no program of Paddle's: it adds to some rows of its items, all at once and twice.
BY_HAND = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from fl_rec.trainer import FLTrainer, main

class Trainer(FLTrainer):
    def train_epoch(self, epoch, local_epochs=1.0):
        metrics, items = super().train_epoch(epoch, 0), "mlp_item_embedding"
        self.before = self.program.value(items)
        self.exchange.begin()
        for part in (0, 1):
            rows = 7 * np.arange(10) + 70 * part + self.role.index
            values = self.program.value(items)
            values[rows] += 1 + part
            self.program.set_value(items, values)
            self.exchange.changed({{items: rows.astype(np.int32)}})
        return metrics

    def finish(self):
        after = self.net.parameter("mlp_item_embedding")
        np.savez(self.run_directory.path / f"seen.{{self.role.index}}.npz", before=self.before, after=after)
        super().finish()

if __name__ == "__main__":
    sys.exit(main(Trainer))
"""


def test_what_is_trained_outside_of_paddles_program_is_exchanged(job: Job, tmp_path: Path) -> None:
    (tmp_path / "by_hand.py").write_text(BY_HAND.format(root=str(ROOT)))
    job.succeed("--script", tmp_path / "by_hand.py", "-o", "runner.geo_step=50")
    for worker in range(WORKERS):
        with np.load(job.run.path / f"seen.{worker}.npz") as seen:
            rows = 7 * np.arange(20)[:, None] + np.arange(WORKERS)
            expected = np.zeros(ITEMS)
            expected[rows] = np.repeat([1, 2], 10)[:, None] / WORKERS
            change = seen["after"] - seen["before"]
            np.testing.assert_allclose(change, np.broadcast_to(expected[:, None], change.shape), atol=1e-6)


def test_everything_else_that_an_exchange_may_meet(job: Job, shards: Path, tmp_path: Path) -> None:
    """Two servers, more exchanges than batches, groups of fresh negatives, penalties, a schedule, validation."""
    job.runner.update(
        epochs=2,
        exchanges_per_epoch=4,
        aggregation="sum",
        resample_negatives=3,
        train_batch_size=4096,
        early_stopping=1,
    )
    job.runner["validation_data_dir"] = str(shutil.copytree(shards / "fl_test_data", tmp_path / "validation"))
    job.hyper_parameters.update(
        loss="sampled_softmax", loss_options={"temperature": 0.5}, l2=0.001, proximal=0.01,
        optimizer={"class": "adam", "learning_rate": 0.01, "schedule": "linear"},
    )  # fmt: skip
    finished = job.succeed("--server_num", 2)
    positives = [
        json.loads((shards / "manifest.json").read_text())["shards"][k]["train"]["positives"] for k in range(3)
    ]
    for worker, count in enumerate(positives):
        assert [record["rows"] for record in finished.records(worker)] == [count, count]
    for record in finished.records("all"):
        assert (record["validation_hr"], record["validation_ndcg"]) == (record["hr"], record["ndcg"])
    best = max(finished.records("all"), key=lambda record: record["validation_ndcg"])
    assert finished.result["best"] == figures(best)
    assert [path.name for path in finished.run.model.iterdir()] == [str(best["epoch"])], "no other epoch's model stays"
    assert not list(finished.run.path.glob("*rows*")), "the rows that were drawn are gone"


def test_a_name_that_fits_no_parameter(job: Job) -> None:
    job.runner["private_params"] = ["user*"]
    finished = job.finish()
    assert finished.code == 1
    assert (
        "runner.private_params must name parameters of the net. Received: 'user*'. "
        "The net has mlp_user_embedding, mlp_item_embedding, mlp_fc_0.w" in finished.errors
    )


def test_a_private_layer_and_shared_users(private_layer: Finished) -> None:
    """Any parameter can be private."""
    folder = private_layer.run.model / "2"
    parts = [private_parts.load(folder / "private" / f"{worker}.npz") for worker in range(WORKERS)]
    assert all(set(part) == {"prediction.w", "prediction.b"} for part in parts)
    assert len({part["prediction.w"].values.tobytes() for part in parts}) == WORKERS
    assert USERS in {path.name for path in (folder / "tables").iterdir()}
