"""Jobs whose servers, two of them, add up what nobody sees of any one client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.evaluation.metrics import Times
from fl_rec.privacy.secure_sum.fixed_point import FixedPoint

from .conftest import ROOT, Finished, Job, Once, SharedJob, run_script

WORKERS, EPOCHS, EXCHANGES = 4, 3, 2  # one of four may be lost, and of three none
SPOILT, KILLED = 1, 2
TIMES = ("seconds", "rows_per_second", *Times().to_record())

# A worker that writes down its shared parameters before and after each portion and each exchange, and what it sends.
# One has trained no learning in epoch 2; and where a file asks for it, another is killed in an exchange of epoch 3,
# once, with half of its numbers sent.
WITNESS = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from fl_rec.errors import Diverged
from fl_rec.trainer import FLTrainer, main

class Trainer(FLTrainer):
    '''Remembers every exchange.'''

    def start_worker(self):
        super().start_worker()
        self.seen, self.sent, self.number, exchange = {{}}, 0.0, 0, self.exchange
        train, merge, push = self.local.train, exchange.merge, exchange.push

        def watched_train(portion, title):
            self.remember("before")
            train(portion, title)
            if self.role.index == {SPOILT} and title == "epoch 2":
                raise Diverged("a loss of nan")

        def watched_merge(rows, what):
            self.remember("trained")
            merge(rows, what)
            self.remember("after")
            self.seen[f"{{self.number}}/rows"] = rows
            self.number += 1

        def watched_push(changes, **options):
            kill = self.run_directory.path.parent / "kill"
            if self.role.index == {KILLED} and self.number >= 4 and kill.exists():
                kill.unlink()
                push({{name: each * (each.ndim > 1) for name, each in changes.items()}}, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            self.sent = self.sent + np.concatenate([each.reshape(-1) for each in changes.values()])
            self.seen[f"{{self.number}}/sent"] = self.sent
            self.seen[f"{{self.number}}/still"] = [not each.any() for change in changes.values() for each in change]
            push(changes, **options)

        self.local.train, exchange.merge, exchange.push = watched_train, watched_merge, watched_push

    def remember(self, when):
        for name in set(self.program.names) - set(self.private_params):
            self.seen[f"{{self.number}}/{{when}}/{{name}}"] = self.program.value(name)

    def finish(self):
        sums = dict(self.exchange._sums.values())
        held = np.concatenate([sums[name].reshape(-1) for name in self.exchange._base])
        path = self.run_directory.path / f"seen.{{self.role.index}}.npz"
        np.savez(path, held=held, bytes=self.runtime.bytes_exchanged(), **self.seen)
        super().finish()

if __name__ == "__main__":
    sys.exit(main(Trainer))
"""


@pytest.fixture(scope="session")
def four_shards(prepared: Path, once: Once) -> Path:
    split = ("datasets/movielens/gen_heter_data.py", "--data", prepared, "--num_shards", WORKERS)
    return once("four_shards", lambda folder: run_script(*split, "--out", folder))


def prepare(job: Job, shards: Path) -> None:
    job.runner.update({f"{which}_data_dir": str(shards / f"fl_{which}_data") for which in ("train", "test")})
    (job.folder / "witness.py").write_text(WITNESS)
    job.arguments += ["--script", job.folder / "witness.py", "--server_num=2"]
    job.runner.update(epochs=EPOCHS, exchanges_per_epoch=EXCHANGES, resample_negatives=4)
    job.runner.update(secure_aggregation=True, on_divergence="warn", aggregation="weighted")


@pytest.fixture(scope="session")
def secure(shared_job: SharedJob, four_shards: Path) -> Finished:
    return shared_job("secure", lambda job: prepare(job, four_shards))


def seen_of(finished: Finished) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(finished.run.path / f"seen.{worker}.npz")) for worker in range(WORKERS)]


def test_the_sum_is_the_plain_one_also_without_who_was_lost(secure: Finished) -> None:
    workers, step = seen_of(secure), FixedPoint.of(WORKERS).step
    names = {key.split("/")[2] for key in workers[0] if "/after/" in key}
    assert {"mlp_item_embedding"} < names and "mlp_user_embedding" not in names
    for exchange in range(EPOCHS * EXCHANGES):
        spoilt = exchange // EXCHANGES == 1
        rows = [
            0 if spoilt and worker == SPOILT else int(each[f"{exchange}/rows"]) for worker, each in enumerate(workers)
        ]
        for name in names:
            before = workers[0][f"{exchange}/before/{name}"].astype(float)
            change = sum(
                row / sum(rows) * (each[f"{exchange}/trained/{name}"] - before) for row, each in zip(rows, workers)
            )
            after = [each[f"{exchange}/after/{name}"] for each in workers]
            # What is lost is made up for by a factor, by which rounding grows too.
            assert np.abs(after[0] - before - change).max() < WORKERS * step * (2.5 if spoilt else 1), name
            assert np.abs(change).max() > 10 * step
            for each in after[1:]:
                np.testing.assert_array_equal(each, after[0], "all have the same to the bit")
    tables = secure.run.tables.read_text()
    assert tables.count("Received: others from worker.1, which reached nobody. It begins anew") == EXCHANGES
    hr = [each["hr"] for each in secure.records("all")]
    assert hr[-1] > 0.15 and hr[-1] > hr[0]


def test_servers_have_nothing_but_what_is_masked(secure: Finished) -> None:
    workers = seen_of(secure)
    for worker, each in enumerate(workers):
        for exchange in range(EPOCHS * EXCHANGES):
            limbs = each[f"{exchange}/sent"]
            if worker == SPOILT and exchange // EXCHANGES == 1:
                assert not limbs.any(), "who has no learning sends none, and takes back what it had sent"
                continue
            assert not any(each[f"{exchange}/still"]), "every row is sent, whoever has trained it"
            assert len(limbs) > 10_000 and np.array_equal(limbs, np.rint(limbs))
            counts, _ = np.histogram(limbs, bins=256, range=(-(2**20), 2**20))
            expected = len(limbs) / 256
            assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(2 * 255)
            assert counts.sum() == len(limbs)
    np.testing.assert_array_equal(workers[0]["held"], sum(each["5/sent"] for each in workers))
    received = workers[0]["bytes"][1] / (EPOCHS * EXCHANGES)
    assert received < 4 * len(workers[0]["held"]) * 2.5, "an exchange pulls as much as a plain one"


def test_the_model_that_is_saved_is_the_workers(secure: Finished, commands: Any) -> None:
    last = seen_of(secure)[0]
    names = {key.split("/")[2] for key in last if "/after/" in key}
    with np.load(secure.run.checkpoint / str(EPOCHS) / "shared.npz") as shared:
        assert names == set(shared)
        for name in names:
            np.testing.assert_array_equal(shared[name], last[f"5/after/{name}"])
    evaluated = json.loads(commands.succeed("evaluate", secure.run.path, "--format", "json"))
    assert evaluated["hr"] == pytest.approx(secure.result["last"]["hr@10"], abs=1e-9)


def test_who_is_killed_in_an_exchange_is_named_and_the_run_ends_as_the_unbroken_one(
    job: Job, secure: Finished, four_shards: Path
) -> None:
    prepare(job, four_shards)
    job.runner.update(on_worker_loss="restart")
    (job.folder / "kill").touch()
    finished = job.succeed()
    assert not (job.folder / "kill").exists()
    assert f"note: worker.{KILLED} failed: " in finished.output and "after epoch 2" in finished.output

    def figures(of: Finished) -> list[dict[str, Any]]:
        return [{name: value for name, value in each.items() if name not in TIMES} for each in of.run.read_metrics()]

    assert figures(finished) == figures(secure), "without runner.reproducible, too: sums hang on no order"
