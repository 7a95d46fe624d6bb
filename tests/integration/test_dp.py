"""Rounds with differential privacy: what a worker shares of its users, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.manifest import load_manifest
from fl_rec.privacy.accountant import epsilon

from .conftest import ROOT, WORKERS, Job

CLIP, NOISE, CHANCE, DELTA = 0.05, 1.5, 0.02, 1e-4
ITEMS = "mlp_item_embedding"
ROUNDS = 4

# A worker that writes down its shared parameters before and after each round, and after the exchange. In round 0 it
# draws one user and in round 1 all of them, without noise; the others are as they come.
WITNESS = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from fl_rec.trainer import FLTrainer, main

class Known:
    def __init__(self, users):
        self.users = users

    def random(self, count):
        return (np.arange(count) >= self.users).astype(float)

    def normal(self, mean, deviation, shape):
        return np.zeros(shape)

class Trainer(FLTrainer):
    '''Remembers every round.'''

    def start_worker(self):
        super().start_worker()
        self.seen, training, secret = {{}}, self.local.training, self.local.training.new_generator
        known = {{0: Known(1), 1: Known(10**9)}}
        training.new_generator = lambda: known.get(training.exchanges) or secret()
        train, merge = self.local.train, self.exchange.merge

        def watched_train(portion, title):
            number = training.exchanges
            self.remember(number, "before")
            weight = train(portion, title)
            self.remember(number, "trained")
            return weight

        def watched_merge(rows, what):
            merge(rows, what)
            self.remember(training.exchanges - 1, "after")

        self.local.train, self.exchange.merge = watched_train, watched_merge

    def remember(self, number, when):
        for name in set(self.program.names) - set(self.private_params):
            self.seen[f"{{number}}/{{when}}/{{name}}"] = self.program.value(name)

    def finish(self):
        np.savez(self.run_directory.path / f"seen.{{self.role.index}}.npz", **self.seen)
        super().finish()

if __name__ == "__main__":
    sys.exit(main(Trainer))
"""


def test_what_a_worker_shares_with_differential_privacy(job: Job, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "witness.py").write_text(WITNESS.format(root=str(ROOT)))
    job.runner.update(epochs=2, exchanges_per_epoch=ROUNDS // 2, resample_negatives=4)
    del job.runner["train_batch_size"]
    job.hyper_parameters["optimizer"] = {"class": "sgd", "learning_rate": 5.0}
    settings = {"clip": CLIP, "noise_multiplier": NOISE, "users_per_exchange": CHANCE, "delta": DELTA}
    options = [f"privacy.{name}={value}" for name, value in settings.items()]
    finished = job.succeed("--script", tmp_path / "witness.py", "-o", *options)
    workers = [dict(np.load(finished.run.path / f"seen.{worker}.npz")) for worker in range(WORKERS)]
    names = {key.split("/")[2] for key in workers[0]}
    assert ITEMS in names and len(names) > 5 and "mlp_user_embedding" not in names
    manifest = load_manifest(shards)
    assert manifest is not None

    def changes(worker: int, round_: int, until: str) -> dict[str, np.ndarray]:
        seen = workers[worker]
        return {
            name: seen[f"{round_}/{until}/{name}"].astype(float) - seen[f"{round_}/before/{name}"] for name in names
        }

    for worker, shard in enumerate(manifest.shards):
        # Clipped: one user, then as many as there are. What is rounded to float32 may be a little longer.
        lengths = [
            np.sqrt(sum(np.square(each).sum() for each in changes(worker, n, "trained").values())) for n in (0, 1)
        ]
        assert lengths[0] == pytest.approx(CLIP, rel=1e-3), "this rate takes every user's change to the clip"
        assert CLIP * 2 < lengths[1] <= shard.train.users * CLIP * (1 + 1e-3)
        one_user = np.count_nonzero(changes(worker, 0, "trained")[ITEMS].any(axis=1))
        assert one_user < 400, "there are items which one user leaves alone"

        # Noisy: every row of every parameter, whether anybody drawn has the item or not, and every number in it.
        for round_ in range(2, ROUNDS):
            found = changes(worker, round_, "trained")
            assert all(each.any(axis=-1).all() for each in found.values())
            every = np.concatenate([each.reshape(-1) for each in found.values()])
            assert np.count_nonzero(every) > 0.999 * len(every)
            # A few users are drawn, whose changes are small beside the noise on 14,000 numbers.
            assert every.std() == pytest.approx(NOISE * CLIP, rel=0.05)
        first, second = (changes(worker, round_, "trained")[ITEMS] for round_ in (2, 3))
        assert abs(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1]) < 0.1, "noise is new in every round"
    first, second = (changes(worker, 2, "trained")[ITEMS] for worker in (0, 1))
    assert abs(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1]) < 0.1, "and in every worker"

    # The servers' model is that of before and the mean of just these.
    for round_ in range(ROUNDS):
        sent = [changes(worker, round_, "trained") for worker in range(WORKERS)]
        for worker in range(WORKERS):
            for name, change in changes(worker, round_, "after").items():
                mean = sum(each[name] for each in sent) / WORKERS
                np.testing.assert_allclose(change, mean, atol=1e-6, err_msg=f"{name} in round {round_}")

    # Users' own embeddings are trained and stay; figures count the rows of those that were drawn.
    for worker, shard in enumerate(manifest.shards):
        one_and_all, few = finished.records(worker)
        assert shard.train.positives < one_and_all["rows"] < shard.train.positives * 1.5
        assert few["rows"] < shard.train.positives / 4
        assert "epsilon" not in few
        with np.load(finished.run.model / "2" / "private" / f"{worker}.npz") as part:
            assert len(part["mlp_user_embedding/rows"]) == shard.train.users

    expected = [epsilon(NOISE, CHANCE, rounds, DELTA) for rounds in (ROUNDS // 2, ROUNDS)]
    assert 0 < expected[0] < expected[1] < 10
    assert finished.result["privacy"] == {"epsilon": expected[1], "exchanges": ROUNDS, **settings}
    assert [record["epsilon"] for record in finished.records("all")] == expected
    assert finished.result["last"]["epsilon"] == expected[1]
    assert f"epoch 2 of 2: epsilon {expected[1]:.3g} at delta 0.0001" in finished.run.tables.read_text()
    assert f"  epsilon {expected[1]:.2f}" in finished.output
