"""Jobs in which one client sends or says what can't be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fl_rec.data.manifest import load_manifest

from .conftest import ROOT, Job

ATTACKS = ROOT / "benchmarks" / "poison_trainer.py"
NET = ROOT / "models" / "ncf" / "fl_mf.py"
ATTACKER = 1

# As the benchmark's; from the second epoch on, and of its test users it says whatever it likes.
LIAR = f"""
import dataclasses, sys
sys.path.insert(0, {str(ATTACKS.parent)!r})
from poison_trainer import Attacked, main

class Liar(Attacked):
    '''Attacks, and says that all of its 10^9 users are served.'''

    def attack(self):
        if self.history or self.saving.best_epoch:
            super().attack()

    def evaluate(self, metrics):
        metrics = super().evaluate(metrics)
        if self.role.index != self.extra["attacker"]:
            return metrics
        test = dataclasses.replace(metrics.test, users=10**9, hits=10**9, ndcg_sum=1e9)
        return dataclasses.replace(metrics, test=test)

if __name__ == "__main__":
    sys.exit(main(Liar))
"""


def prepare(job: Job, attack: str, **runner: object) -> None:
    job.runner.update(model_path=str(NET), epochs=3, resample_negatives=4, **runner)
    job.hyper_parameters["optimizer"] = {"class": "sgd", "learning_rate": 20.0}
    job.hyper_parameters["extra"] = {"std": 0.1, "attacker": ATTACKER, "attack": attack, "target": 7, "boost": 3.0}
    (job.folder / "liar.py").write_text(LIAR)
    job.arguments += ["--script", job.folder / "liar.py"]


def test_the_others_go_on_without_a_client_whose_changes_and_figures_cannot_be(job: Job) -> None:
    prepare(job, "nan", exchanges_per_epoch=2, on_divergence="warn")
    finished = job.succeed()
    hr = [each["hr"] for each in finished.records("all")]
    assert all(0.1 < each < 0.9 for each in hr) and hr[2] > hr[0] * 0.8, hr
    tables = job.run.tables.read_text()
    lie = "note: worker.1's figures of epoch 1 can't be, and count for nothing. Received: 1,000,000,000 of "
    assert lie in tables
    for part in (1, 2):
        assert (
            f"note: epoch 3, exchange {part} of 2: changes must be finite, and shorter than 1e+12. Received: others "
            "from worker.1, which reached nobody. It begins anew from the common model.\n" in tables
        )
    exposed = [json.loads((job.run.path / f"exposure.{client}.json").read_text()) for client in range(3)]
    assert all(0 <= each["exposed"] < each["users"] for each in exposed)


def test_or_the_job_ends_and_keeps_the_last_good_model(job: Job) -> None:
    prepare(job, "huge", exchanges_per_epoch=2, aggregation="median")
    finished = job.finish()
    assert finished.code == 1
    assert "epoch 2, exchange 1 of 2: changes must be finite" in finished.errors
    assert "others from worker.1, which reached nobody." in finished.errors
    assert f"The last good model is {job.run.model / '1'}; fl-rec resume RUN goes on" in finished.errors
    assert [each.name for each in sorted(job.run.model.iterdir())] == ["1"]


def test_plain_geo_ends_the_epoch_and_names_the_client(job: Job) -> None:
    prepare(job, "nan", geo_step=5)
    finished = job.finish()
    assert finished.code == 1
    assert "epoch 2: training must keep a net's parameters finite and within sense, and diverged." in finished.errors
    # Which of the two hangs on whether Paddle's thread has sent the row before the worker has looked at it.
    own, first = "worker.1's own training gave others", "others came from the servers, to worker.1 first"
    assert f"Received: {own}" in finished.errors or f"Received: {first}" in finished.errors
    assert f"The last good model is {job.run.model / '1'}; fl-rec resume RUN goes on" in finished.errors


def test_plain_geo_notices_what_a_client_does_not_tell(job: Job) -> None:
    prepare(job, "lie", geo_step=5)
    finished = job.finish()
    assert finished.code == 1
    assert "runner.aggregation=median" in finished.errors and "The last good model is " in finished.errors


def test_a_learning_rate_that_is_far_too_large_ends_the_job(job: Job, shards: Path) -> None:
    job.hyper_parameters["optimizer"] = {"class": "sgd", "learning_rate": 1e6}
    finished = job.finish()
    assert finished.code == 1
    assert "lower the learning rate" in finished.errors.lower()


def test_no_privacy_is_told_where_users_are_in_several_shards(job: Job, shards: Path, tmp_path: Path) -> None:
    for kind in ("fl_train_data", "fl_test_data"):
        shutil.copytree(shards / kind, tmp_path / kind)
        job.runner[f"{kind.split('_')[1]}_data_dir"] = str(tmp_path / kind)
    one, other, *_ = sorted((tmp_path / "fl_train_data").rglob("*.txt"))
    line = one.read_text().splitlines()[0]
    other.write_text(other.read_text() + line + "\n")
    manifest = load_manifest(shards)
    assert manifest is not None
    job.hyper_parameters.update(num_users=manifest.num_users, num_items=manifest.num_items)
    job.hyper_parameters["optimizer"] = {"class": "sgd", "learning_rate": 5.0}
    job.runner.update(exchanges_per_epoch=1)
    finished = job.finish("-o", "privacy.clip=0.1")
    assert finished.code == 1 and not finished.records("all")
    assert "needs each user's rows in one training shard. Received: 1 users with rows in several." in finished.errors
