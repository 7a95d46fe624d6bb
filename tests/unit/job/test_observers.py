"""Who is told of a job, and what of its files they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fl_rec.job.observers import Observer, Observers, OnEpoch, RoleView
from fl_rec.job.tails import EpochTail, TableTail
from fl_rec.runs.activity import Activity, Progress
from fl_rec.runs.directory import RunDirectory

FIGURES = ("rows", "seconds", "rows_per_second", "train_loss", "train_auc", "test_auc", "hr", "ndcg", "test_users")


def lines(epochs: int) -> list[dict[str, Any]]:
    figures = {**dict.fromkeys(FIGURES, 0.5), "rows": 5, "test_users": 2, "top_k": 10}
    return [{"epoch": epoch, "client": client, **figures} for epoch in range(1, epochs + 1) for client in (0, "all", 1)]


class Listener(Observer):
    """Keeps what it is told; `fails` raises that at the first of them."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.told: list[tuple[str, Any]] = []
        self._fails = fails

    def _keep(self, what: str, value: Any) -> None:
        self.told.append((what, value))
        if self._fails is not None:
            raise self._fails

    def epoch(self, record: Any) -> None:
        self._keep("epoch", record)

    def table(self, text: str) -> None:
        self._keep("table", text)

    def note(self, text: str) -> None:
        self._keep("note", text)


def test_tables_and_notes_are_told_once(run: RunDirectory) -> None:
    run.append_table("of the attempt before")
    listener = Listener()
    tail = TableTail(run, listener)
    tail.look()
    assert listener.told == []
    run.append_table("epoch 1: AUC 0.71 é\nnote: a client is left out")
    tail.look()
    tail.look()
    run.append_table("note: the coordinator is back")
    run.append_table("epoch 3 of 20\nwhat `epoch` is told\nnote: a tie")
    run.append_table("epoch 2")
    with open(run.tables, "a") as file:
        file.write("half a table\n")
    tail.look()
    assert listener.told == [
        ("table", "epoch 1: AUC 0.71 é"),
        ("note", "a client is left out"),
        ("note", "the coordinator is back"),
        ("note", "a tie"),
        ("table", "epoch 2"),
    ]


def test_an_epoch_is_told_when_all_have_written_theirs(run: RunDirectory) -> None:
    told: list[Any] = []
    tail = EpochTail(run, 2, OnEpoch(lambda record: told.append((record.epoch, len(record.clients)))))

    def append(text: str) -> None:
        with open(run.metrics, "a") as file:
            file.write(text)
        tail.look()

    first, *others = (json.dumps(each) + "\n" for each in lines(2))
    append(first + others[0])
    assert told == []
    append(others[1][:50])
    assert told == [], "half a line is none"
    append(others[1][50:])
    assert told == [(1, 2)]
    append("".join(others[2:4]))
    assert told == [(1, 2)]
    tail.look(over=True)
    tail.look(over=True)
    assert told == [(1, 2), (2, 1)], "a worker that has not written its own will not"


def test_an_observer_whose_disk_is_full_is_told_no_more() -> None:
    broken, other = Listener(OSError(28, "No space left on device")), Listener()
    both = Observers([broken, other])
    both.table("one")
    both.table("two")
    assert broken.told == [("table", "one")]
    note = ("note", "Listener is told no more: [Errno 28] No space left on device")
    assert other.told == [note, ("table", "one"), ("table", "two")]


def raises(error: Exception) -> Callable[[Any], None]:
    def fail(_record: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "observer", [OnEpoch(raises(OSError("the user's own"))), Listener(ValueError("a mistake in an observer"))]
)
def test_what_ends_a_job(observer: Observer) -> None:
    with pytest.raises((OSError, ValueError)):
        Observers([observer]).epoch(None)  # type: ignore[arg-type]


def test_progress_of_a_role() -> None:
    progress = Progress(3, 100, 1000, 0.5)
    assert RoleView("running", Activity("training", 1.0, progress=progress)).progress == progress
    assert RoleView("", None).progress is None and RoleView("", Activity("starting", 1.0)).progress is None
