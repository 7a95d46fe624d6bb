"""The steps of a worker, with parts that only say what they were asked."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.errors import ConfigError, Diverged
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.claims import Known
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation, Times
from fl_rec.runs import activity
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.roles import Role
from fl_rec.trainer import FLTrainer
from fl_rec.trainer.watch import Watch


class Parts:
    """Everything that a worker is made of; `calls` is what was asked, in order."""

    def __init__(self, portions: list[int]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._portions = portions
        # as an exchange
        self.portions_of_exchange = len(portions)

    def noted(self, name: str, gives: Any = None) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            return gives

        return call


def worker(parts: Parts, index: int = 0, workers: int = 2, epochs: int = 4, run: RunDirectory | None = None) -> Any:
    trainer = FLTrainer.__new__(FLTrainer)
    role = Role("worker", index, workers, ("127.0.0.1:1",), "127.0.0.1:2")
    counted = SimpleNamespace(rows=7, loss_sum=3.5, positives=np.array([0, 2, 1]), negatives=np.array([4, 0, 0]))
    config = SimpleNamespace(runner=SimpleNamespace(epochs=epochs, top_k=5))
    vars(trainer).update(
        config=config,
        job=SimpleNamespace(clients=("north", "south")),
        role=role,
        run_directory=run,
        history=[],
        learning_rate_factor=0.5,
        beginning=SimpleNamespace(epoch=1, require=lambda epoch: None),
        saving=SimpleNamespace(patience_is_over=lambda epoch: False),
        checkpoints=SimpleNamespace(
            save_shared=parts.noted("checkpoint"),
            save_own=parts.noted("own part"),
            complete=parts.noted("complete"),
        ),
        program=SimpleNamespace(
            begin_epoch=parts.noted("count anew"),
            begin_portion=parts.noted("begin portion"),
            counted=parts.noted("count", counted),
        ),
        local=SimpleNamespace(
            begin_epoch=parts.noted("open rows"),
            portions=parts.noted("portions", parts._portions),
            train=parts.noted("train"),
        ),
        exchange=SimpleNamespace(portions=3, begin=parts.noted("begin"), merge=parts.noted("merge")),
    )
    return trainer


def test_an_epoch_is_portions_each_ended_by_an_exchange() -> None:
    parts = Parts([4, 3])
    metrics = worker(parts, index=1).train_epoch(2, local_epochs=1.5)
    assert parts.calls == [
        ("count anew",),
        ("open rows", 2),
        ("portions", 1.5, 3),
        # The learning rate is that of a portion's middle.
        ("begin portion", 1.25, 0.5),
        ("begin",),
        ("train", 4, "epoch 2"),
        ("merge", 4, "epoch 2, exchange 1 of 2"),
        ("begin portion", 1.75, 0.5),
        ("begin",),
        ("train", 3, "epoch 2"),
        ("merge", 3, "epoch 2, exchange 2 of 2"),
        ("count",),
    ]
    assert (metrics.client, metrics.epoch, metrics.rows, metrics.loss_sum, metrics.top_k) == (1, 2, 7, 3.5, 5)
    assert metrics.train.positives.tolist() == [0, 2, 1] and metrics.train.negatives.tolist() == [4, 0, 0]
    assert 0 <= metrics.seconds < 5


def test_who_waits_does_not_begin_and_still_meets_the_others() -> None:
    parts = Parts([0])
    worker(parts).train_epoch(1, local_epochs=0)
    names = [call[0] for call in parts.calls]
    assert "begin" not in names and names.count("merge") == 1


def test_a_model_is_saved_while_nothing_moves() -> None:
    parts = Parts([])
    trainer = worker(parts)
    test, validation = Evaluation(10, 5, 2.5), Evaluation(4, 1, 0.5)

    class Settled:
        def __enter__(self) -> None:
            parts.calls.append(("settled",))

        def __exit__(self, *_: object) -> None:
            parts.calls.append(("on again",))

    trainer.exchange.settled = lambda what: parts.calls.append((what,)) or Settled()
    trainer.exchange.pull = parts.noted("pull")
    trainer.net = SimpleNamespace(program="the net's", scope="its own")
    trainer.private_params = SimpleNamespace(put_into=parts.noted("put private"))
    trainer.evaluator = SimpleNamespace(evaluate=parts.noted("evaluate", (test, validation)))
    trainer.saving = SimpleNamespace(save_shared=parts.noted("save"), save_private=parts.noted("save private"))
    before = EpochMetrics(0, 3, 1, 1.0, 1.0, AucBuckets.empty(2))
    metrics = trainer.evaluate(before)
    assert parts.calls == [
        ("epoch 3",),
        ("settled",),
        ("pull", "the net's", "its own"),
        ("put private", trainer.net, trainer.program),
        ("evaluate", trainer.net),
        ("save", 3),
        ("checkpoint", 3),
        ("on again",),
        ("save private", 3),
    ]
    assert metrics.test is test and metrics.validation is validation and metrics.rows == before.rows


class Local:
    """How a worker trains, with figures of its own."""

    def figures(self) -> dict[str, float]:
        return {"epsilon": 1.5}

    def __str__(self) -> str:
        return ": epsilon 1.5"


def watch(workers: int, on_divergence: str = "stop") -> Watch:
    runner = SimpleNamespace(on_divergence=on_divergence)
    job: Any = SimpleNamespace(known=(Known(9, None, 9),) * workers, config=SimpleNamespace(runner=runner))
    return Watch(job)


@pytest.mark.parametrize("on_divergence", ["stop", "warn"])
def test_an_epoch_that_diverged(tmp_path: Path, on_divergence: str) -> None:
    run, _ = RunDirectory.claim(tmp_path / "run", "this test")
    parts = Parts([])
    trainer = worker(parts, workers=1, run=run)
    metrics = EpochMetrics(0, 1, 10, 2.0, 4e33, AucBuckets.empty(2), Evaluation(4, 1, 1.0))
    trainer.runtime = SimpleNamespace(gather=lambda values, what: values[None])
    trainer.saving = SimpleNamespace(keep_the_best=parts.noted("keep"))
    trainer.evaluator, trainer.local = SimpleNamespace(validates=False), Local()
    trainer.exchange, trainer.watch = SimpleNamespace(remarks=list), watch(1, on_divergence)
    sign = "a training loss of 4e+32, of worker 0"
    if on_divergence == "warn":
        trainer.report(metrics)
    else:
        with pytest.raises(
            Diverged, match="diverged in epoch 1. Received: a training loss of 4e[+]32, of worker 0. Lower"
        ):
            trainer.report(metrics)
    assert run.tables.read_text().endswith(f"\nnote: training has diverged: {sign}\n\n"), "told in either case"
    assert [call[0] for call in parts.calls] == ["own part", *["keep", "complete"] * (on_divergence == "warn")]


def test_a_portion_that_diverged_counts_for_nothing_and_its_exchange_is_told() -> None:
    parts = Parts([5])
    trainer = worker(parts)
    error = Diverged("a loss of nan")

    def train(portion: int, title: str) -> None:
        raise error

    trainer.local.train = train
    trainer.program.uncount_portion = parts.noted("uncount")
    trainer.exchange.spoilt = parts.noted("spoilt")
    trainer.train_epoch(1)
    assert [call for call in parts.calls if call[0] in ("uncount", "spoilt", "merge")][:2] == [
        ("uncount",), ("spoilt", error),
    ]  # fmt: skip
    assert parts.calls[-2][0] == "merge", "the others wait for it there"


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_worker_writes_what_all_have(tmp_path: Path, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "spent", lambda: {"saving": 1.0, "reporting": 0.5, "ending": 0.25, "mine": 2.0})
    run, _ = RunDirectory.claim(tmp_path / "run", "this test")
    parts = Parts([])
    trainer = worker(parts, index=index, run=run)
    everyone = [
        EpochMetrics(client, 1, 10 * (client + 1), 2.0, 5.0, AucBuckets.empty(2), Evaluation(4, client + 1, 1.0))
        for client in range(2)
    ]
    trainer.runtime = SimpleNamespace(gather=parts.noted("gather", np.stack([each.to_vector() for each in everyone])))
    trainer.saving = SimpleNamespace(keep_the_best=parts.noted("keep"))
    trainer.watch = SimpleNamespace(look=lambda gathered, own, total: (everyone, ["a note"], None))
    trainer.exchange.remarks = lambda: ["a remark"]
    trainer.evaluator = SimpleNamespace(validates=True)
    trainer.local = Local()
    told = trainer.report(everyone[index])
    assert [each.rows for each in told] == [10, 20]
    own, gathered, kept, complete = parts.calls
    assert own == ("own part", 1, trainer) and complete == ("complete", 1)
    told_of = dataclasses.replace(everyone[index], times=Times(train=2.0, exchange=0.25, save=1.5))
    np.testing.assert_array_equal(gathered[1], told_of.to_vector())
    assert gathered[2] == "figures of epoch 1"
    assert kept[1].hit_rate == 3 / 8 and kept[2] is True
    records = run.read_metrics()
    assert [record["client"] for record in records] == ([0, "all"] if index == 0 else [1])
    if index == 0:
        assert trainer.history == [records[1]] and records[1]["epsilon"] == 1.5 and records[1]["rows"] == 30
        assert run.tables.read_text().startswith("epoch 1 of 4: epsilon 1.5\n")
        assert run.tables.read_text().endswith("\nnote: a remark\nnote: a note\n\n")
    else:
        assert trainer.history == [] and run.tables.read_text() == ""


def test_a_run_ends_when_apply_says_so() -> None:
    trainer = worker(Parts([]))
    steps: list[tuple[Any, ...]] = []
    for name in ("train_epoch", "evaluate", "report"):
        setattr(trainer, name, lambda given, name=name: steps.append((name, given)) or f"{name} {len(steps)}")
    trainer.apply = lambda everyone: len(steps) < 6
    trainer.run_worker()
    assert steps == [
        ("train_epoch", 1),
        ("evaluate", "train_epoch 1"),
        ("report", "evaluate 2"),
        ("train_epoch", 2),
        ("evaluate", "train_epoch 4"),
        ("report", "evaluate 5"),
    ]


def test_all_epochs_if_nobody_says_otherwise() -> None:
    trainer = worker(Parts([]), epochs=3)
    epochs: list[int] = []
    trainer.train_epoch = epochs.append
    trainer.evaluate = trainer.report = lambda given: given
    trainer.apply = lambda everyone: True
    trainer.run_worker()
    assert epochs == [1, 2, 3]


def test_a_run_that_is_resumed_trains_what_is_left() -> None:
    trainer = worker(Parts([]))
    trainer.beginning = SimpleNamespace(epoch=2)
    assert trainer.epochs == range(2, 5)
    trainer.saving = SimpleNamespace(patience_is_over=lambda epoch: epoch == 1)
    assert list(trainer.epochs) == []


@pytest.mark.parametrize("over", [True, False])
def test_it_goes_on_unless_patience_is_over(over: bool) -> None:
    parts = Parts([])
    trainer = worker(parts)
    trainer.saving = SimpleNamespace(patience_is_over=parts.noted("patience", over))
    assert trainer.apply([EpochMetrics(0, 5, 1, 1.0, 1.0, AucBuckets.empty(2))]) is not over
    assert parts.calls == [("patience", 5)]


def test_it_has_no_part_for_a_coordinator() -> None:
    role = Role("coordinator", 0, 2, ("127.0.0.1:1",), "", ("127.0.0.1:3",))
    with pytest.raises(ConfigError, match="FLTrainer has no part for a coordinator. Leave --coordinator_num out"):
        FLTrainer.play(None, role, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "asked"), [("worker", [3]), ("server", [])])
def test_a_workers_net_may_be_its_own_and_a_servers_is_the_jobs(
    monkeypatch: pytest.MonkeyPatch, kind: str, asked: list[int]
) -> None:
    clients: list[int] = []
    config: Any = SimpleNamespace(for_client=lambda number: clients.append(number) or "the client's")
    runtime = SimpleNamespace(PsRuntime=lambda role, config, run: (role, config))
    monkeypatch.setitem(sys.modules, "fl_rec.ps.runtime", runtime)
    monkeypatch.setattr("fl_rec.trainer.fl_trainer.new_student", lambda config: "a student")
    monkeypatch.setattr("fl_rec.trainer.fl_trainer.Watch", lambda job: "a watch")
    role = Role(kind, 3, 4, ("127.0.0.1:1",), "127.0.0.1:2")
    trainer: Any = FLTrainer(SimpleNamespace(config=config), role, RunDirectory(Path("run")))  # type: ignore[arg-type]
    assert clients == asked and trainer.config == ("the client's" if asked else config)
    assert trainer.runtime == (role, config) and trainer.student == "a student"
