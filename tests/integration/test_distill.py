"""Federated distillation, in real processes: what is told, what is shared, and what may go wrong on the way."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fl_rec.config import Config
from fl_rec.coordinator import FINISH, JOIN
from fl_rec.coordinator.rounds import Round, RoundLog
from fl_rec.data.manifest import PUBLIC_FOLDER, load_manifest
from fl_rec.distillation.proxy import FINGERPRINT, LARGEST_LOGIT, LOGITS, SOFT_TARGETS, ProxySet
from fl_rec.job.watch import Mark, log_path
from fl_rec.runs import private_parts
from fl_rec.runs.directory import ENVIRONMENT_KEY

from .conftest import (
    PROMPT,
    ROOT,
    TIMEOUT,
    WORKERS,
    Commands,
    Finished,
    Job,
    role_process,
    start_coordinator_again,
    wait_for_round,
)

PUBLIC_USERS, NEGATIVES, POSITIVES = 60, 4, 600
SHAPE = (POSITIVES, 1 + NEGATIVES)
# A round's logits as float16, and what a message has besides.
LOGITS_BYTES = range(2 * SHAPE[0] * SHAPE[1], 2 * SHAPE[0] * SHAPE[1] + 1000)

# A trainer that writes down in which epochs it had soft targets, and whose report can be changed.
TRAINER = """
import sys
from dataclasses import replace
import numpy as np
from fl_rec.trainer.coordinated import CoordinatedTrainer
from fl_rec.trainer import main

class Trainer(CoordinatedTrainer):
    '''Remembers its soft targets.'''

    def train_epoch(self, epoch, local_epochs=1.0):
        metrics = super().train_epoch(epoch, local_epochs)
        with open(self.run_directory.path / f"taught.{{self.role.index}}", "a") as file:
            file.write(f"{{epoch}} {{self.student.soft_targets is not None}}\\n")
        return metrics

    def client_report(self, metrics):
        report = super().client_report(metrics)
        fields = dict(report.extra)
        {change}
        return replace(report, extra=fields)

if __name__ == "__main__":
    sys.exit(main(Trainer))
"""


class DistillJob(Job):
    """A small job of `strategy: distill`, that starts its teacher in round 1."""

    def __init__(self, folder: Path, shards: Path) -> None:
        super().__init__(folder, shards)
        self.runner.update(resample_negatives=NEGATIVES, epochs=3)
        self.hyper_parameters["fc_layers"] = [16, 8]
        self.options: dict[str, Any] = {
            "start": 1, "first_epochs": 15, "batch_size": 32, "learning_rate": 0.01, "teacher": {"fc_layers": [32, 16]},
        }  # fmt: skip
        self.coordinator = {"strategy": "distill", "options": self.options}
        self.distillation: dict[str, Any] = {
            "proxy_data_dir": str(shards / PUBLIC_FOLDER),
            "positives": POSITIVES,
        }

    @property
    def yaml(self) -> Path:
        path = super().yaml
        content = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**content, "distillation": self.distillation}))
        return path

    def script(self, change: str = "pass") -> Path:
        """A trainer with a line that changes `fields` of `report`."""
        path = self.folder / "trainer.py"
        path.write_text(TRAINER.format(change=change))
        return path

    def taught(self, worker: int) -> list[bool]:
        """For each epoch whether the worker had soft targets."""
        lines = [line.split() for line in (self.run.path / f"taught.{worker}").read_text().splitlines()]
        assert [int(epoch) for epoch, _ in lines] == list(range(1, len(lines) + 1))
        return [there == "True" for _, there in lines]


@pytest.fixture
def job(tmp_path: Path, public_shards: Path) -> Iterator[DistillJob]:
    made = DistillJob(tmp_path, public_shards)
    yield made
    Mark(ENVIRONMENT_KEY, str(made.run.path)).end()


def module_job(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> DistillJob:
    return DistillJob(tmp_path_factory.mktemp("distill"), shards)


@pytest.fixture(scope="module")
def items_shared(tmp_path_factory: pytest.TempPathFactory, public_shards: Path) -> Iterator[Finished]:
    """Users are private, as by default, and items shared; two epochs without a teacher, and two with it."""
    job = module_job(tmp_path_factory, public_shards)
    job.runner["epochs"] = 4
    job.options["start"] = 2
    try:
        yield job.succeed("--coordinator_num", 1)
    finally:
        Mark(ENVIRONMENT_KEY, str(job.run.path)).end()


@pytest.fixture(scope="module")
def nothing_shared(tmp_path_factory: pytest.TempPathFactory, public_shards: Path) -> Iterator[Finished]:
    """All parameters are private."""
    job = module_job(tmp_path_factory, public_shards)
    job.runner.update(private_params=["*"], epochs=4)
    try:
        yield job.succeed("--coordinator_num", 1)
    finally:
        Mark(ENVIRONMENT_KEY, str(job.run.path)).end()


def rounds_of(job: Finished | Job) -> list[Round]:
    return list(RoundLog(job.run.rounds))


def proxy_set(finished: Finished) -> ProxySet:
    proxy = ProxySet.from_config(Config.load(finished.run.config))
    assert proxy is not None
    return proxy


def sigmoid(logits: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


# -- jobs that end well --------------------------------------------------------------------------------------


def test_what_is_told_each_round(items_shared: Finished) -> None:
    proxy = proxy_set(items_shared)
    assert proxy.shape == SHAPE and len(proxy.users) == PUBLIC_USERS
    rounds = rounds_of(items_shared)
    assert len(rounds) == 5
    for each in rounds:
        assert sorted(each.reports) == list(range(WORKERS)) and not each.missing
        for client, report in each.reports.items():
            assert report.extra[FINGERPRINT] == proxy.fingerprint
            assert set(report.extra) == ({FINGERPRINT} if each.round == 0 else {FINGERPRINT, LOGITS})
            if each.round:
                logits = np.asarray(report.extra[LOGITS])
                assert logits.dtype == np.float16 and logits.shape == SHAPE
                assert np.isfinite(logits).all() and np.abs(logits).max() <= LARGEST_LOGIT
                assert logits.std() > 0.1, "somebody thinks something"
                assert each.report_bytes[client] in LOGITS_BYTES
            else:
                assert each.report_bytes[client] < 1000
        if each.round:
            told = [np.asarray(report.extra[LOGITS]).tobytes() for report in each.reports.values()]
            assert len(set(told)) == WORKERS, "each has users' embeddings of its own"
        targets = {
            client: np.asarray(decision.extra[SOFT_TARGETS])
            for client, decision in each.decisions.items()
            if SOFT_TARGETS in decision.extra
        }
        assert sorted(targets) == (list(range(WORKERS)) if each.round in (2, 3) else [])
        for client, sent in targets.items():
            assert sent.dtype == np.float16 and sent.shape == SHAPE and np.isfinite(sent).all()
            assert sent.tobytes() == targets[0].tobytes(), "all learn of one teacher"
            assert each.decision_bytes[client] in LOGITS_BYTES
        if not targets:
            assert max(each.decision_bytes.values()) < 1000
        assert each.clients(JOIN if each.round < 4 else FINISH) == list(range(WORKERS))
    assert " KiB up and " in items_shared.run.tables.read_text()
    assert (items_shared.run.coordinator / "teacher.npz").is_file()


def test_the_teacher_says_what_the_clients_think(items_shared: Finished, nothing_shared: Finished) -> None:
    for finished, taught in ((items_shared, (2, 3)), (nothing_shared, (1, 2, 3))):
        for number in taught:
            told = rounds_of(finished)[number]
            means = np.mean([sigmoid(report.extra[LOGITS]) for report in told.reports.values()], axis=0)
            teacher = sigmoid(told.decisions[0].extra[SOFT_TARGETS])
            likeness = np.corrcoef(means.ravel(), teacher.ravel())[0, 1]
            # As measured: 0.988 to 0.999, and 0.002 to 0.006 away.
            assert likeness > 0.9 and np.abs(means - teacher).mean() < 0.03


def test_clients_learn_of_the_teacher(nothing_shared: Finished) -> None:
    """Alone in epoch 1, taught since: they come to think alike of the public users, who have no other teacher."""
    spreads = []
    for told in rounds_of(nothing_shared)[1:]:
        thoughts = [sigmoid(report.extra[LOGITS]) for report in told.reports.values()]
        spreads.append(np.std(thoughts, axis=0).mean() / np.std(thoughts))
    # As measured: 0.53, then 0.35; by themselves they would come to 0.44.
    assert spreads[1] < 0.75 * spreads[0] and spreads[-1] < 0.65 * spreads[0]


def test_another_strategy_is_tried_on_the_recorded_run(commands: Commands, items_shared: Finished) -> None:
    other = ("coordinator.options.selection=random_k", "coordinator.options.selection_options={k: 2}")
    before = (items_shared.run.coordinator / "teacher.npz").read_bytes()
    dry = commands.play("coordinator", items_shared.run.path, "--dry", "-o", *other, cwd=ROOT)
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.count("distill: 2 JOIN, 1 WAIT, 0 FINISH") == 4
    assert (items_shared.run.coordinator / "teacher.npz").read_bytes() == before, "the run's own teacher stays"


@pytest.mark.parametrize("which", ["items_shared", "nothing_shared"])
def test_figures_of_the_test_shards(which: str, request: pytest.FixtureRequest, public_shards: Path) -> None:
    finished: Finished = request.getfixturevalue(which)
    manifest = load_manifest(public_shards)
    assert manifest is not None
    for client, shard in enumerate(manifest.shards):
        for record in finished.records(client):
            # A line is a positive with its negatives; those of the public users are everybody's.
            assert record["rows"] == shard.train.positives + POSITIVES
    for record in finished.records("all"):
        assert record["test_users"] == 600 - PUBLIC_USERS
        assert 0 < record["hr"] < 1 and 0 < record["ndcg"] < record["hr"] and record["test_auc"] > 0.5
    first, *_, last = finished.records("all")
    assert last["hr"] > first["hr"] and last["epoch"] == 4
    assert finished.result["state"] == "done"


def evaluated(commands: Commands, model: Path) -> dict[str, Any]:
    return json.loads(commands.succeed("evaluate", model, "--format", "json"))


@pytest.mark.parametrize("which", ["items_shared", "nothing_shared"])
def test_a_saved_epoch_gives_the_logs_figures(which: str, commands: Commands, request: pytest.FixtureRequest) -> None:
    finished: Finished = request.getfixturevalue(which)
    for epoch in (3, 4) if which == "items_shared" else (4,):
        found, logged = evaluated(commands, finished.run.model / str(epoch)), finished.records("all")[epoch - 1]
        for name in ("test_users", "hr", "ndcg", "test_auc"):
            assert found[name] == pytest.approx(logged[name], abs=1e-9), name


LOAD = """
import sys
from pathlib import Path
from fl_rec.runs import models
from fl_rec.environment import quiet_paddle
from fl_rec.runs.private_parts import NoCommonModel
quiet_paddle()
try:
    net = models.load(Path(sys.argv[1]))
    print("joined", sum(net.parameter("mlp_user_embedding").any(axis=1)))
except NoCommonModel as err:
    print(err)
"""


def loaded(commands: Commands, folder: Path) -> str:
    return commands.program(LOAD, folder).splitlines()[-1]


def test_public_users_do_not_keep_parts_from_being_joined(
    commands: Commands, items_shared: Finished, tmp_path: Path
) -> None:
    folder = items_shared.run.model / "4"
    public = json.loads((folder / "model.json").read_text())["public_users"]
    assert public == proxy_set(items_shared).users.tolist()
    parts = [
        private_parts.load(folder / "private" / f"{worker}.npz")["mlp_user_embedding"] for worker in range(WORKERS)
    ]
    rows = [set(part.rows.tolist()) for part in parts if part.rows is not None]
    assert len(rows) == WORKERS and all(rows[0] & each == set(public) for each in rows[1:]), "all trained them"
    assert len(set.union(*rows)) == 600
    assert loaded(commands, folder) == "joined 600"
    # Not because nobody looks: without them in model.json there is no common model.
    copy = tmp_path / "3"
    shutil.copytree(folder, copy)
    signature = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**signature, "public_users": public[1:]}))
    assert loaded(commands, copy) == (
        "Workers that have each trained their own mlp_user_embedding have no common one. Received: rows of it from 3 "
        "workers. Load one worker's model at a time."
    )


def tables_of(finished: Finished) -> set[str]:
    """The tables that a server lists at its start, as the log has them."""
    return set(
        re.findall(r"idx, name, ctx: \d+ (\S+)@GRAD", log_path(finished.run, "server.0").read_text(errors="replace"))
    )


def test_nothing_is_shared_but_logits(nothing_shared: Finished, items_shared: Finished) -> None:
    # A server would list them, as it does when items are shared.
    assert tables_of(items_shared) == {"mlp_item_embedding", "Dense"} and tables_of(nothing_shared) == set()
    folders = [
        sorted(path.name for path in (each.run.model / "4" / "tables").glob("*"))
        for each in (items_shared, nothing_shared)
    ]
    assert "mlp_item_embedding" in folders[0] and "mlp_user_embedding" not in folders[0] and folders[1] == []

    parts = [
        private_parts.load(nothing_shared.run.model / "4" / "private" / f"{worker}.npz") for worker in range(WORKERS)
    ]
    names = {"mlp_user_embedding", "mlp_item_embedding", "prediction.w", "prediction.b"}
    assert names < set(parts[0]) == set(parts[1]) == set(parts[2]) and len(parts[0]) == 6
    for name in parts[0]:
        for one, other in ((0, 1), (0, 2), (1, 2)):
            ours, theirs = parts[one][name], parts[other][name]
            if ours.rows is None or theirs.rows is None:
                assert ours.rows is None and theirs.rows is None
                assert (ours.values == theirs.values).mean() < 0.1, f"{name} of workers {one} and {other}"
                continue
            _, mine, others = np.intersect1d(ours.rows, theirs.rows, return_indices=True)
            assert len(mine) == (PUBLIC_USERS if name == "mlp_user_embedding" else 400)
            assert not (ours.values[mine] == theirs.values[others]).all(axis=1).any(), f"a row of {name}"
    for told in rounds_of(nothing_shared):
        for report in told.reports.values():
            assert (report.bytes_sent, report.bytes_received) == (0, 0), "to and from the servers"
    shared = rounds_of(items_shared)[2].reports[0].bytes_sent
    assert shared is not None and shared > 20_000, "it would be seen"


def test_students_of_three_kinds_learn_of_one_teacher(commands: Commands, job: DistillJob) -> None:
    job.runner["private_params"] = ["*"]
    job.distillation["students"] = {"0": {"mode": "NCF_GMF"}, "2": {"fc_layers": [32, 16]}}
    finished = job.succeed("--coordinator_num", 1)
    for told in rounds_of(job)[1:3]:
        for report, decision in zip(told.reports.values(), told.decisions.values()):
            assert np.asarray(report.extra[LOGITS]).shape == np.asarray(decision.extra[SOFT_TARGETS]).shape == SHAPE
    folder = finished.run.model / "3"
    parts = [private_parts.load(folder / "private" / f"{worker}.npz") for worker in range(WORKERS)]
    widths = [each.values.shape[1] for part in parts for name, each in part.items() if "user_embedding" in name]
    assert widths == [8, 8, 16]
    assert set(parts[0]) != set(parts[1]) == set(parts[2])
    logged, found = finished.records("all")[2], evaluated(commands, folder)
    for name in ("test_users", "hr", "ndcg", "test_auc"):
        assert found[name] == pytest.approx(logged[name], abs=1e-9), name


# -- what may go wrong -----------------------------------------------------------------------------------------


SELECTION = """
from fl_rec.coordinator import Decision, Strategy

class Mine(Strategy):
    '''Who trains is a user's own decision.'''

    def decide(self, reports, round):
        return {client: Decision(reason="mine") for client in reports}
"""


def test_a_client_whose_logits_are_nan_is_left_out(job: DistillJob) -> None:
    (job.folder / "fl_mine.py").write_text(SELECTION)
    job.options["selection"] = "fl_mine.py:Mine"  # beside the YAML, and not in the run's folder
    script = job.script(
        "if self.role.index == 1 and report.round: fields['proxy_logits'] = fields['proxy_logits'] * np.nan"
    )
    finished = job.succeed("--coordinator_num", 1, "--script", script)
    rounds = rounds_of(job)
    assert np.isnan(np.asarray(rounds[1].reports[1].extra[LOGITS])).all()
    for told in rounds[1:3]:
        reasons = [told.decisions[client].reason for client in range(WORKERS)]
        others = "mine; logits of client 1 not finite, left out"
        assert reasons == [others, "mine; its logits not finite, left out", others]
        assert all(np.isfinite(np.asarray(each.extra[SOFT_TARGETS])).all() for each in told.decisions.values())
    table = finished.output.split("round 1, for epoch 2 of 3, distill: 3 JOIN, 0 WAIT, 0 FINISH")[1].split("round 2,")[
        0
    ]
    assert re.search(r"\n *0, 2 .*logits of client 1 not finite, left out\n", table)
    assert re.search(r"\n *1 .*its logits not finite, left out\n", table)
    assert [job.taught(worker) for worker in range(WORKERS)] == [[False, True, True]] * WORKERS
    assert finished.records("all")[-1]["epoch"] == 3 and finished.records("all")[-1]["hr"] > 0


def test_logits_of_another_shape(job: DistillJob) -> None:
    script = job.script("if report.round: fields['proxy_logits'] = fields['proxy_logits'][:, :2]")
    finished = job.wait(job.start("--coordinator_num", 1, "--script", script), TIMEOUT)
    assert finished.code == 1
    assert "proxy_logits must have its declared shape [600, 5]. Received: [600, 2]." in finished.errors
    assert finished.result["state"] == "failed"


def test_a_client_with_another_proxy_set(job: DistillJob, public_shards: Path) -> None:
    script = job.script("if self.role.index == 2: fields['proxy_set'] += 1")
    finished = job.wait(job.start("--coordinator_num", 1, "--script", script), TIMEOUT)
    assert finished.code == 1
    mine = proxy_set(finished).fingerprint
    assert (
        f"All must hold the same proxy set. Received: {mine + 1} from client 2, and the coordinator's is {mine}. "
        "Compare distillation.proxy_data_dir, runner.seed and distillation.positives of both." in finished.errors
    )
    assert "coordinator.0 failed: " in finished.errors
    assert finished.result["role"] == "coordinator.0"


def test_coordinator_lost_in_a_distillation_round(job: DistillJob) -> None:
    """All go on with labels alone."""
    job.runner["epochs"] = 7
    job.coordinator.update(coordinator_timeout=2, on_coordinator_loss="continue")
    started = job.start("--coordinator_num", 1, "--script", job.script())
    wait_for_round(job, started, 2)
    role_process(job, "coordinator.0").kill()
    finished = job.wait(started)
    assert finished.code == 0, finished.errors
    assert finished.output.count("Going on without it: all train") == 1
    decided = len(rounds_of(job))
    assert 3 <= decided < 8
    for worker in range(WORKERS):
        assert job.taught(worker) == [False] + [True] * (decided - 1) + [False] * (7 - decided)
    records = finished.records("all")
    assert [record["epoch"] for record in records] == list(range(1, 8))
    assert len({record["rows"] for record in records}) == 1, "all train, the public rows too"
    assert all(record["hr"] > 0 for record in records)


def test_coordinator_started_again(job: DistillJob) -> None:
    """Soft targets come again, from the teacher that was saved."""
    job.runner["epochs"] = 7
    started = job.start("--coordinator_num", 1, "--script", job.script())
    wait_for_round(job, started, 2)
    role_process(job, "coordinator.0").kill()
    finished = start_coordinator_again(job, started)
    assert "note: coordinator.0 is back." in finished.output
    rounds = rounds_of(job)
    assert [each.round for each in rounds] == list(range(8)), "each round once"
    for worker in range(WORKERS):
        assert job.taught(worker) == [False] + [True] * 6
    for told in rounds[1:7]:
        means = np.mean([sigmoid(report.extra[LOGITS]) for report in told.reports.values()], axis=0)
        error = np.abs(means - sigmoid(told.decisions[0].extra[SOFT_TARGETS])).mean()
        assert error < 0.03, "it is the one that has learned"


def test_killed_client(job: DistillJob) -> None:
    job.runner["epochs"] = 1000
    started = job.start("--coordinator_num", 1)
    wait_for_round(job, started, 2)
    role_process(job, "worker.1").kill()
    finished = job.wait(started, PROMPT)
    assert finished.code == 1
    assert "worker.1 failed: it ended without a word" in finished.errors
    assert finished.result["role"] == "worker.1"
