"""That training goes on from a checkpoint as if it had never been broken off."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config
from fl_rec.data.rows import Rows, SameRows, TrainingRows
from fl_rec.distillation.student import Student
from fl_rec.errors import DataError, RunError
from fl_rec.files import draft_of
from fl_rec.nets.program import TrainingProgram
from fl_rec.runs import training_state
from fl_rec.runs.directory import RESUME_KEY, RunDirectory
from fl_rec.runs.roles import Role
from fl_rec.trainer.checkpoints import Beginning, Checkpoints, NoCheckpoints, Resumption, beginning
from fl_rec.trainer.local_training import LocalTraining, local_training

from .conftest import SLOTS, RememberingExchange, built

SHARED = ("mlp_item_embedding", "mlp_fc_0.w")
# A net with dropout, whose coins are Paddle's own.
DROPOUT = """
import paddle
from fl_rec.nets.ncf import NCF

class StaticModel(NCF):
    def net(self, feeds, is_infer=False):
        shown = super().net(feeds, is_infer)
        if not is_infer:
            kept = paddle.nn.functional.dropout(self.inference_target_var, 0.5, training=True)
            self._cost = self._cost + paddle.mean(kept)
        return shown
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.claim(tmp_path / "run", "this test")[0]


ALONE = Role("worker", 0, 1, ("127.0.0.1:1",), "")


class Exchange:
    """The servers' model, which is this worker's."""

    def __init__(self, program: TrainingProgram) -> None:
        self._program = program
        self.servers = SimpleNamespace(tables=SimpleNamespace(names=list(SHARED)))

    def shared(self) -> dict[str, np.ndarray]:
        return {name: self._program.value(name) for name in SHARED}


class Worker:
    """Of a trainer, what a checkpoint has to do with."""

    def __init__(
        self, config: Config, program: TrainingProgram, run: RunDirectory, rows: Rows = SLOTS, role: Role = ALONE
    ) -> None:
        self.config, self.program, self.run_directory = config, program, run
        self.role = role
        self.history: list[dict[str, Any]] = []
        self.saving: Any = SimpleNamespace(best=(1, 0.5), go_on=self._note, worse=lambda: [7], remove=self._note)
        self.noted: list[Any] = []
        self.watch = SimpleNamespace(go_on=lambda totals: None)
        self.local: LocalTraining = local_training(
            config, program, ["mlp_user_embedding"], RememberingExchange(), TrainingRows(SameRows(rows)), Student(),
            run.path / ".rows.0", run.path / "privacy.json",
        )  # fmt: skip
        exchange: Any = Exchange(program)
        identity = {"run": "a", "net": "b", "data": "c"}
        self.checkpoints = Checkpoints(config, self.role, run, identity, self.saving, exchange)

    def _note(self, what: Any) -> None:
        self.noted.append(what)

    def state(self) -> dict[str, np.ndarray]:
        return {"mine": np.array([4.0])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._note(state)

    def train(self, epoch: int, passes: float = 1.0) -> float:
        self.program.begin_epoch()
        self.local.begin_epoch(epoch)
        for part, portion in enumerate(self.local.portions(passes, 2)):
            self.program.begin_portion(epoch - 1 + part / 2, 1.0)
            self.local.train(portion, "test")
        return self.program.counted().loss_sum

    def save(self, epoch: int) -> None:
        self.checkpoints.save_shared(epoch)
        self.checkpoints.save_own(epoch, self)  # type: ignore[arg-type]
        self.checkpoints.complete(epoch)
        self.checkpoints.close()

    def go_on(self) -> None:
        state = training_state.newest(self.run_directory)
        assert state is not None
        resumption = Resumption(state, 0)
        resumption.give_parameters(self.program)
        resumption.give_rest(self)  # type: ignore[arg-type]

    def values(self) -> dict[str, list[Any]]:
        return {name: self.program.value(name).tolist() for name in self.program.kept}


@pytest.mark.parametrize(("step", "optimizer", "net"), [
    ("compiled", "adam", ""),
    ("graph", "adam", ""),
    ("graph", "sgd", ""),
    ("graph", "adam", DROPOUT),
])  # fmt: skip
def test_bit_for_bit(config: Config, run: RunDirectory, tmp_path: Path, step: str, optimizer: str, net: str) -> None:
    changes = {
        "runner.local_step": step,
        "hyper_parameters.optimizer.class": optimizer,
        "hyper_parameters.optimizer.schedule": "linear",
    }
    if net:
        (tmp_path / "fl_net.py").write_text(net)
        changes["runner.model_path"] = str(tmp_path / "fl_net.py")
    config = config.replace(**changes)
    with built(config) as program:
        unbroken = Worker(config, program, run)
        unbroken.train(1, 0.7)
        unbroken.save(1)
        expected = [unbroken.train(epoch, 0.7) for epoch in (2, 3)], unbroken.values()
    with built(config) as program:
        resumed = Worker(config, program, run)
        resumed.train(1, 2.0)  # something else
        resumed.go_on()
        assert ([resumed.train(epoch, 0.7) for epoch in (2, 3)], resumed.values()) == expected
        assert resumed.noted == [(1, 0.5), {"mine": np.array([4.0])}]


def test_what_is_shared_is_in_no_workers_file(config: Config, run: RunDirectory) -> None:
    with built(config.replace(**{"hyper_parameters.optimizer.class": "adam"})) as program:
        worker = Worker(config, program, run)
        worker.save(1)
        assert worker.noted == [[7]], "the models that only the checkpoint before needed"
        state = training_state.newest(run)
        assert state is not None and sorted(state.shared()) == sorted(SHARED)
        kept = set(state.own(0)["program"])
        assert kept == set(program.kept) - set(SHARED)
        assert any("moment" in name for name in kept) and any("beta1_pow" in name for name in kept)
        assert "mlp_user_embedding" in kept
        assert not kept & set(program.statistics) and not any("learning_rate" in name for name in kept)


def test_every_so_many_epochs_and_the_last(config: Config, run: RunDirectory) -> None:
    config = config.replace(**{"runner.save_interval": 3, "runner.epochs": 8, "runner.keep_checkpoints": 9})
    with built(config) as program:
        worker = Worker(config, program, run)
        for epoch in range(1, 9):
            worker.save(epoch)
    assert training_state.epochs(run) == [3, 6, 8] and len(worker.noted) == 3


def test_the_first_of_a_hosts_workers_writes_and_keeps_one_more(config: Config, run: RunDirectory) -> None:
    config = config.replace(**{"runner.keep_checkpoints": 1, "runner.epochs": 9})
    with built(config) as program:
        worker = Worker(config, program, run, role=Role("worker", 3, 5, (), "", elsewhere=frozenset({0, 1, 2})))
        for epoch in (1, 2, 3):
            worker.save(epoch)
        assert training_state.whole(run) == [2, 3], "another host's newest may be the one before"
        assert sorted(path.name for path in (run.checkpoint / "3").rglob("*.npz")) == ["3.npz", "shared.npz"]
        other = Worker(config, program, run, role=Role("worker", 4, 5, (), "", elsewhere=frozenset({0, 1, 2})))
        other.checkpoints.save_shared(4)
        assert not draft_of(run.checkpoint / "4").exists()


def test_no_checkpoints(run: RunDirectory) -> None:
    noted: list[Any] = []
    saving: Any = SimpleNamespace(worse=lambda: [3], remove=noted.append)
    none = NoCheckpoints(saving)
    none.save_shared(0)
    none.save_own(0, None)  # type: ignore[arg-type]
    none.complete(0)
    none.close()
    assert noted == [[3]] and not run.checkpoint.exists()


@pytest.mark.parametrize(("changes", "received"), [
    ({"hyper_parameters.fc_layers": [8, 6]}, r"mlp_fc_0.b, of which the checkpoint has one of shape \[4\]"),
    ({"hyper_parameters.optimizer.class": "sgd"}, "beta1_pow.*, and the net no such variable"),
    ({"hyper_parameters.num_items": 9}, r"mlp_item_embedding.*shape \[6, 4\], and the net one of shape \[9, 4\]"),
])  # fmt: skip
def test_another_net(config: Config, run: RunDirectory, changes: dict[str, Any], received: str) -> None:
    adam = config.replace(**{"hyper_parameters.optimizer.class": "adam"})
    with built(adam) as program:
        Worker(adam, program, run).save(1)
    with built(adam.replace(**changes)) as program:
        before = {name: program.value(name).tolist() for name in program.kept}
        with pytest.raises(DataError, match=f"A run goes on with the net .* Received: .*{received}"):
            Worker(adam, program, run).go_on()
        assert {name: program.value(name).tolist() for name in program.kept} == before


def test_other_rows(config: Config, run: RunDirectory) -> None:
    with built(config) as program:
        Worker(config, program, run).save(1)
        other = Worker(config, program, run, tuple(slot[:4] for slot in SLOTS))
        with pytest.raises(DataError, match="Received: 4 of a pass over .*, and they were 5"):
            other.go_on()


def test_epochs_that_were_trained_before(config: Config, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    role = Role("worker", 0, 1, ("127.0.0.1:1",), "")
    monkeypatch.delenv(RESUME_KEY, raising=False)
    fresh = beginning(run, role)
    assert type(fresh) is Beginning and fresh.epoch == 1
    fresh.require(1)
    with pytest.raises(RunError, match=r"A run begins with epoch 1. Received: train_epoch\(0\). Have run_worker train"):
        fresh.require(0)
    with built(config) as program:
        Worker(config, program, run).save(2)
    monkeypatch.setenv(RESUME_KEY, "2")
    resumed = beginning(run, role)
    resumed.require(3)
    with pytest.raises(RunError, match=r"goes on with epoch 3. Received: train_epoch\(1\). Have run_worker train self"):
        resumed.require(1)


def test_a_full_disk(config: Config, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    with built(config) as program:
        worker = Worker(config, program, run)
        worker.save(1)
        monkeypatch.setattr(training_state, "write_arrays", full)
        with pytest.raises(RunError, match=r"can't be written \(No space left on device\). Free some space, or set"):
            worker.save(2)
    assert training_state.epochs(run) == [1]
