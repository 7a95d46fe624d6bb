"""Jobs with a coordinator: real processes, real sockets; what is decided is what is done."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_rec.coordinator import FINISH, JOIN, WAIT
from fl_rec.coordinator.rounds import Round, RoundLog
from fl_rec.data.manifest import load_manifest
from fl_rec.job.watch import FLEETRUN_MARK, Mark
from fl_rec.runs import roles
from tests.documented import snippet

from .conftest import (
    PROMPT,
    ROOT,
    TIMEOUT,
    WORKERS,
    Commands,
    Finished,
    Job,
    clean_environment,
    role_process,
    start_coordinator_again,
    wait_for_round,
)

SCRIPT = ROOT / "tools" / "static_fl_trainer_with_coordinator.py"

PLAN = """
from fl_rec.coordinator import FINISH, JOIN, WAIT, Decision, Strategy

class Plan(Strategy):
    '''A bit of everything, in three rounds.'''

    def decide(self, reports, round):
        if round == 0:
            return {0: Decision(JOIN, local_epochs=0.4), 1: Decision(JOIN), 2: Decision(WAIT, reason="its turn comes")}
        if round == 1:
            return {0: Decision(JOIN, local_epochs=1.5), 1: Decision(FINISH, reason="done"), 2: Decision(JOIN)}
        return {0: Decision(JOIN, learning_rate_factor=1e-9), 2: Decision(WAIT)}
"""


def rounds_of(finished: Finished) -> list[Round]:
    return list(RoundLog(finished.run.rounds))


def assert_done_as_decided(finished: Finished, shards: Path) -> None:
    """The rows in metrics.jsonl are those that rounds.jsonl told each client to train."""
    manifest = load_manifest(shards)
    assert manifest is not None
    rounds = rounds_of(finished)
    for client, shard in enumerate(manifest.shards):
        for record in finished.records(client):
            decision = rounds[record["epoch"] - 1].decisions[client]
            joins = decision.next_state == JOIN
            assert record["rows"] == (math.ceil(decision.local_epochs * shard.train.rows) if joins else 0)
            report = rounds[record["epoch"]].reports.get(client)
            if report is not None:
                told = {"rows": report.rows, "hr": report.hr, "test_auc": report.test_auc}
                assert {name: record[name] for name in told} == pytest.approx(told)


@pytest.mark.parametrize("exchanges", [0, 2], ids=["plain GEO", "rounds, TLS"])
def test_what_is_decided_is_what_is_done(
    job: Job, shards: Path, tmp_path: Path, commands: Commands, exchanges: int
) -> None:
    (tmp_path / "plan.py").write_text(PLAN)
    job.coordinator = {"strategy": "plan.py:Plan"}
    job.anew = not exchanges
    if exchanges:
        pytest.importorskip("cryptography")
        from fl_rec.commands.certs import create

        create(tmp_path / "certs", WORKERS, [])
        files = {"cert": "{name}.crt", "key": "{name}.key", "ca": "ca.crt"}
        job.coordinator["tls"] = {key: f"certs/{name}" for key, name in files.items()}
    job.runner.update(epochs=3, exchanges_per_epoch=exchanges)
    finished = job.succeed("--coordinator_num", 1)
    assert_done_as_decided(finished, shards)

    rounds = rounds_of(finished)
    assert [(each.clients(JOIN), each.clients(WAIT), each.clients(FINISH)) for each in rounds] == [
        ([0, 1], [2], []),
        ([0, 2], [], [1]),
        ([0], [2], [1]),
        ([], [], [0, 1, 2]),
    ]
    # The client that finished reports no more, and holds nobody up.
    assert [sorted(each.reports) for each in rounds] == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 2]]
    assert "round 0, for epoch 1 of 3, plan.py:Plan: 2 JOIN, 1 WAIT, 0 FINISH" not in finished.output, (
        "an absolute path"
    )
    assert "plan.py:Plan: 2 JOIN, 1 WAIT, 0 FINISH" in finished.output
    assert "its turn comes" in finished.output
    audit = [json.loads(line) for line in finished.run.audit.read_text().splitlines()]
    told = {(each["what"], each["who"]): each["why"] for each in audit}
    assert set(told) == {(what, f"client-{client}") for what in ("joined", "finished") for client in range(WORKERS)}
    assert told["finished", "client-1"] == "in round 1: done"
    assert told["joined", "client-2"].endswith(" (client-2)") == bool(exchanges)
    tokens = {path.name: path.read_text() for path in (finished.run.coordinator / "tokens").iterdir()}
    assert sorted(tokens) == ["0", "1", "2"] and len(set(tokens.values())) == WORKERS
    # Everybody's figures of every epoch; those who wait evaluate too.
    for client in range(WORKERS):
        assert [record["epoch"] for record in finished.records(client)] == [1, 2, 3]
        assert all(record["hr"] is not None for record in finished.records(client))
    # A step of next to no length changes nothing.
    before, after = finished.records("all")[1:]
    assert after["test_auc"] == pytest.approx(before["test_auc"], abs=0.01)
    assert (finished.run.model / "3" / "rec_static.pdmodel").is_file()
    states = {name: each.state for name, each in roles.read_statuses(finished.run.roles).items()}
    assert set(states) == set(roles.role_names(WORKERS, 1, 1))

    other = ("-o", "coordinator.strategy=random_k", "coordinator.options={k: 1}")
    dry = commands.play("coordinator", finished.run.path, "--dry", *other, cwd=ROOT)
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.count("random_k: 1 JOIN, 2 WAIT, 0 FINISH") == 3
    assert "after 3 epochs, random_k: 3 FINISH" in dry.stdout


def test_one_that_waits_learns_from_the_others(job: Job, tmp_path: Path) -> None:
    """All wait but one, in turn: each starts from what the servers hold, and not from what it last saw itself."""
    (tmp_path / "turns.py").write_text(
        "from fl_rec.coordinator import Decision, Strategy\n"
        "class Turns(Strategy):\n"
        "    def decide(self, reports, round):\n"
        "        return {round % self.fleet.clients: Decision()}\n"
    )
    job.coordinator = {"strategy": "turns.py:Turns"}
    job.runner["epochs"] = 6
    finished = job.succeed("--coordinator_num", 1)
    losses = [finished.records(epoch % WORKERS)[epoch]["train_loss"] for epoch in range(6)]
    assert losses[3] < losses[0]
    assert losses[5] < losses[2]


def trainer_with_an_array() -> str:
    """The documentation's, which tells the output layer too."""
    told = 'return {"output": min(self.pull_dense().values(), key=lambda values: values.size).ravel(), '
    return snippet("my_trainer.py").replace("return {", told)


def test_a_users_strategy_field_and_run_worker(job: Job, shards: Path, tmp_path: Path) -> None:
    assert len(snippet("fl_worst_served.py").strip().splitlines()) < 15
    (tmp_path / "fl_worst_served.py").write_text(snippet("fl_worst_served.py"))
    (tmp_path / "my_trainer.py").write_text(trainer_with_an_array())
    job.coordinator = {
        "strategy": "fl_worst_served.py:WorstServed",
        "report_fields": {"largest": [], "output": [1]},
    }
    job.runner["epochs"] = 2
    finished = job.succeed("--coordinator_num", 1, "--script", tmp_path / "my_trainer.py")
    assert_done_as_decided(finished, shards)
    _, second, _ = rounds_of(finished)
    assert len(second.clients(JOIN)) == 2
    fields = second.reports[0].extra
    assert 0 < fields["largest"] < 10
    assert fields["output"].shape == (1,)
    # All see the same servers.
    assert {round(each.extra["largest"], 3) for each in second.reports.values()} == {round(fields["largest"], 3)}
    assert "largest weight 0." in finished.run.tables.read_text()
    assert "device machine" in (finished.run.log / "workerlog.0").read_text()


LOGITS_TRAINER = """
import sys
import numpy as np
from fl_rec.trainer.coordinated import CoordinatedTrainer
from fl_rec.trainer import main

class Trainer(CoordinatedTrainer):
    def report_fields(self, metrics):
        told = self.decision.extra["logits"]
        assert told.dtype == np.float32 and told.shape == (3000, 100), told
        return {"logits": told + 1}

if __name__ == "__main__":
    sys.exit(main(Trainer))
"""
LOGITS = """
import numpy as np
from fl_rec.coordinator import Decision, Strategy

class Logits(Strategy):
    def decide(self, reports, round):
        logits = [report.extra["logits"] for report in reports.values() if report.extra]
        mean = np.mean(logits, axis=0) if logits else np.full((3000, 100), 0.5, np.float32)
        return {client: Decision(extra={"logits": mean}) for client in reports}
"""


def test_long_messages(job: Job, tmp_path: Path) -> None:
    (tmp_path / "logits.py").write_text(LOGITS)
    (tmp_path / "my_trainer.py").write_text(LOGITS_TRAINER)
    job.coordinator = {"strategy": "logits.py:Logits", "report_fields": {"logits": [3000, 100]}}
    job.runner.update(epochs=2, compress_report="int8")
    finished = job.succeed("--coordinator_num", 1, "--script", tmp_path / "my_trainer.py")
    first, second, third = rounds_of(finished)
    assert first.report_bytes[0] < 1000
    for size in (*first.decision_bytes.values(), *second.report_bytes.values(), *third.report_bytes.values()):
        assert 300_000 < size < 315_000
    assert third.reports[2].extra["logits"] == pytest.approx(2.5, abs=0.02)
    assert len(list((finished.run.path / "coordinator" / "arrays").iterdir())) == 3, "equal ones are there once"
    assert " KiB up and " in finished.run.tables.read_text()


def test_an_undeclared_field(job: Job, tmp_path: Path) -> None:
    (tmp_path / "my_trainer.py").write_text(trainer_with_an_array())
    job.coordinator = {"report_fields": {"largest": [], "outputs": [1]}}
    finished = job.finish("--coordinator_num", 1, "--script", tmp_path / "my_trainer.py")
    assert finished.code == 1
    assert "output, which is not. Did you mean outputs?" in finished.errors


def test_emulated_devices(job: Job) -> None:
    job.coordinator = {"clients": {0: {"slow_down": 20}, 1: {"type": "phone", "bandwidth": 1e6}}}
    finished = job.succeed("--coordinator_num", 1)
    first, second = rounds_of(finished)
    assert (first.reports[0].device.capacity, second.reports[1].device.type) == (1 / 20, "phone")
    slow, thin, usual = (second.reports[client] for client in range(WORKERS))
    assert slow.seconds_per_row > 3 * usual.seconds_per_row
    assert thin.bytes_sent > 1e5, "an epoch's exchange of embeddings"
    # The report counts the evaluation's bytes too, for which no time is taken.
    assert 0.4 < thin.seconds / ((thin.bytes_sent + thin.bytes_received) / 1e6 + usual.seconds) < 1
    assert finished.records(0)[0]["seconds"] == slow.seconds


def kill_coordinator(job: Job, started: subprocess.Popen) -> None:
    wait_for_round(job, started, 2)
    role_process(job, "coordinator.0").kill()


def test_coordinator_lost_stop(job: Job) -> None:
    job.runner["epochs"] = 1000
    job.coordinator = {"coordinator_timeout": 2}
    started = job.start("--coordinator_num", 1)
    kill_coordinator(job, started)
    finished = job.wait(started, PROMPT)
    assert finished.code == 1
    assert "could not be reached for 2 s" in finished.errors
    assert "on_coordinator_loss=stop" in finished.errors
    assert (finished.run.model / "1" / "rec_static.pdmodel").is_file()


def test_coordinator_lost_continue(job: Job, shards: Path) -> None:
    job.runner["epochs"] = 8
    job.coordinator = {
        "strategy": "random_k", "options": {"k": 1}, "coordinator_timeout": 2, "on_coordinator_loss": "continue",
    }  # fmt: skip
    started = job.start("--coordinator_num", 1)
    kill_coordinator(job, started)
    finished = job.wait(started)
    assert finished.code == 0
    assert finished.output.count("Going on without it: all train") == 1
    assert finished.result["last"]["epoch"] == 8
    manifest = load_manifest(shards)
    assert manifest is not None
    assert finished.result["last"]["rows"] == manifest.totals["train_rows"], "all train"
    assert finished.records("all")[1]["rows"] < manifest.totals["train_rows"], "one trained"


def test_coordinator_started_again(job: Job, shards: Path) -> None:
    job.runner["epochs"] = 8
    job.coordinator = {"strategy": "random_k", "options": {"k": 1}}
    started = job.start("--coordinator_num", 1)
    kill_coordinator(job, started)
    finished = start_coordinator_again(job, started)
    assert "note: coordinator.0 is gone. Workers try to reach it" in finished.output
    assert f"fl-rec coordinator {job.run.path}" in finished.output
    assert "note: coordinator.0 is back." in finished.output
    rounds = rounds_of(finished)
    assert [each.round for each in rounds] == list(range(9)), "each round once"
    assert_done_as_decided(finished, shards)


def test_coordinator_started_late(job: Job, tmp_path: Path) -> None:
    late = tmp_path / "late.py"
    late.write_text(
        "import os, runpy, sys, time\n"
        "from pathlib import Path\n"
        f"status = Path({str(job.run.roles / 'worker.0.json')!r})\n"
        "while os.environ['TRAINING_ROLE'] == 'COORDINATOR':\n"
        "    time.sleep(0.5)\n"
        "    if status.exists() and '\"running\"' in status.read_text(): break\n"
        f"sys.argv[0] = {str(SCRIPT)!r}\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    finished = job.succeed("--coordinator_num", 1, "--script", late)
    assert len(rounds_of(finished)) == 2
    statuses = roles.read_statuses(finished.run.roles)
    assert statuses["coordinator.0"].times["running"] > statuses["worker.0"].times["running"]


def test_strategy_that_fails(job: Job, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from fl_rec.coordinator import Strategy\n"
        "class Bad(Strategy):\n"
        "    def decide(self, reports, round):\n"
        "        return {client: 1 / round for client in reports}\n"
    )
    job.coordinator = {"strategy": "bad.py:Bad"}
    started = job.start("--coordinator_num", 1)
    finished = job.wait(started, PROMPT)
    assert finished.code == 1
    assert (
        "coordinator.0 failed: the strategy Bad failed in round 0: ZeroDivisionError: division by zero"
        in finished.errors
    )
    assert "(bad.py, line 4)" in finished.errors
    assert "Traceback" in (finished.run.log / "coordinator.0").read_text()


def test_bare_fleetrun(job: Job, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--worker_num={WORKERS}", "--server_num=1"]
    command += ["--coordinator_num=1", str(SCRIPT), "-m", str(job.yaml)]
    environment = clean_environment()
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, said
    assert len(list(RoundLog(job.run.rounds))) == 2
    assert "round 1, after 1 epochs, join_all: 3 FINISH" in job.run.tables.read_text()
    mark = Mark(FLEETRUN_MARK, (job.run.path / "job").read_text().partition("\n")[0])
    deadline = time.monotonic() + PROMPT
    while mark.processes() and time.monotonic() < deadline:
        time.sleep(0.2)  # who watched the job goes last
    assert mark.processes() == []
