"""Jobs that are killed and go on."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fl_rec.evaluation.metrics import Times
from fl_rec.job.watch import Mark
from fl_rec.runs import training_state
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory
from tests.integration import held
from tests.integration.conftest import (
    TIMEOUT,
    WORKERS,
    Finished,
    Job,
    SharedJob,
    role_process,
)

EPOCHS = 4
# Of a record, what a clock has measured.
TIMES = ("seconds", "rows_per_second", *Times().to_record())


def together(job: Job) -> None:
    """Synchronised exchanges, Adam, and a learning rate and negatives that change from epoch to epoch."""
    job.runner.update(epochs=EPOCHS, exchanges_per_epoch=2, reproducible=True, resample_negatives=4)
    job.hyper_parameters["optimizer"]["schedule"] = "linear"


@pytest.fixture(scope="session")
def unbroken(shared_job: SharedJob) -> Finished:
    return shared_job("unbroken", together)


def held_before(job: Job, epoch: int, trainer: str = "fl_rec.trainer.FLTrainer") -> Path:
    """Has a job wait before an epoch; it goes on when the file is removed that this returns."""
    job.arguments += ["--script", held.script(job.folder, trainer)]
    return held.hold(job.folder, f"training epoch {epoch}")


def wait_for_epoch(job: Job, started: subprocess.Popen, epoch: int) -> None:
    """Returns when an epoch's checkpoint is there."""
    deadline = time.monotonic() + TIMEOUT
    while epoch not in training_state.epochs(job.run):
        assert started.poll() is None and time.monotonic() < deadline, "the epoch was not trained"
        time.sleep(0.01)


def figures(run: RunDirectory) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name not in TIMES} for each in run.read_metrics()]


def kill_all_after(job: Job, epoch: int, trainer: str = "fl_rec.trainer.FLTrainer") -> None:
    """Starts a job, and kills every process of it when an epoch's checkpoint is there."""
    file = held_before(job, epoch + 1, trainer)
    started = job.start()
    wait_for_epoch(job, started, epoch)
    started.kill()
    for process in job.processes():
        process.kill()
    started.communicate(timeout=TIMEOUT)
    Mark(ENVIRONMENT_KEY, str(job.run.path)).end()
    file.unlink()


def resume(job: Job, *options: Any) -> Finished:
    return job.wait(job.resume("--script", job.folder / held.NAME, *options))


def test_a_killed_job_goes_on_to_the_same_figures(job: Job, unbroken: Finished) -> None:
    together(job)
    kill_all_after(job, 2)
    finished = resume(job)
    assert finished.code == 0, finished.output + finished.errors
    assert " resumed   after epoch 2\n" in finished.output
    assert figures(job.run) == figures(unbroken.run)
    assert [each["epoch"] for each in finished.result["epochs"]] == list(range(1, EPOCHS + 1))
    assert training_state.epochs(job.run) == [EPOCHS - 1, EPOCHS]
    assert (job.run.log / "before-1" / "workerlog.0").is_file()
    # And further.
    assert "this one has been there" in resume(job).errors
    finished = resume(job, "-o", f"runner.epochs={EPOCHS + 1}")
    assert finished.code == 0 and f" resumed   after epoch {EPOCHS}\n" in finished.output
    found = figures(job.run)
    assert found[: -WORKERS - 1] == figures(unbroken.run) and found[-1]["epoch"] == EPOCHS + 1


def test_a_lost_worker_sits_an_epoch_out(job: Job, unbroken: Finished) -> None:
    together(job)
    job.runner.update(on_worker_loss="continue", heartbeat_timeout=2)
    file = held_before(job, 3)
    started = job.start()
    wait_for_epoch(job, started, 2)
    role_process(job, "worker.1").suspend()
    file.unlink()
    finished = job.wait(started)
    assert finished.code == 0, finished.output + finished.errors
    assert "note: worker.1 failed: no sign of life for " in finished.output
    assert "restart 1 of 3, without worker.1 in this epoch, after epoch " in finished.output
    rows = [each["rows"] for each in finished.records(1)]
    (missed,) = [epoch for epoch, count in enumerate(rows) if not count]
    assert len(rows) == EPOCHS and finished.records(1)[missed]["test_users"] == 0
    per_epoch = (WORKERS + 1) * missed
    assert figures(job.run)[:per_epoch] == figures(unbroken.run)[:per_epoch]
    before, without = (finished.records("all")[epoch] for epoch in (missed - 1, missed))
    assert without["rows"] == before["rows"] - rows[missed - 1]


def test_a_killed_job_with_a_coordinator_goes_on(job: Job) -> None:
    job.runner.update(epochs=EPOCHS, exchanges_per_epoch=2)
    job.coordinator = {"strategy": "random_k", "options": {"k": 2}}
    job.arguments = ["--coordinator_num=1"]
    kill_all_after(job, 2, "fl_rec.trainer.coordinated.CoordinatedTrainer")
    finished = resume(job)
    assert finished.code == 0, finished.output + finished.errors
    from fl_rec.coordinator.rounds import RoundLog

    rounds = list(RoundLog(job.run.rounds))
    assert [each.round for each in rounds] == list(range(EPOCHS + 1))
    trained = [
        [each["client"] for each in figures(job.run) if each["epoch"] == epoch and each["rows"]]
        for epoch in range(1, EPOCHS + 1)
    ]
    assert [each[:-1] for each in trained] == [each.clients("JOIN") for each in rounds[:-1]]


def test_other_data_and_other_workers_are_refused(unbroken: Finished, commands: Any, prepared: Any) -> None:
    run = unbroken.run.path
    assert "as many workers as it had" in commands.refusal("resume", run, "--worker_num", WORKERS + 1)
    assert "this one has been there" in commands.refusal("resume", run)
