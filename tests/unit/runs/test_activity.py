"""What a role says that it does, and the sign of life that it gives whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fl_rec.runs import activity

DEADLINE = 30.0
ROOT = Path(__file__).resolve().parents[3]

Spawn = Callable[..., subprocess.Popen]


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(activity._Own, "file", None)
    monkeypatch.setattr(activity._Own, "activity", activity.Activity("starting", 0.0))
    yield
    if activity._Own.file is not None:
        os.close(activity._Own.file)


def test_nothing_is_written_before_a_role_says_where(tmp_path: Path) -> None:
    activity.doing("training epoch 3")
    assert activity.read(tmp_path, "worker.0") is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_role_does_and_since_when(tmp_path: Path) -> None:
    before = time.monotonic()
    activity.tell(tmp_path, "worker.0")
    first = activity.read(tmp_path, "worker.0")
    assert first is not None and (first.what, first.for_others) == ("starting", False)
    activity.doing("training epoch 3")
    training = activity.read(tmp_path, "worker.0")
    assert training is not None and before <= first.since <= training.since <= time.monotonic()
    with activity.waiting("all flushed"):
        waiting = activity.read(tmp_path, "worker.0")
        assert waiting is not None and (waiting.what, waiting.for_others) == ("all flushed", True)
    assert activity.read(tmp_path, "worker.0") == training, "it goes on with what it did, and since then"
    assert str(activity.Activity("saving", time.monotonic() - 7)) == "saving (for 7 s)"


def test_a_wait_that_fails_is_still_told(tmp_path: Path) -> None:
    activity.tell(tmp_path, "worker.0")
    with pytest.raises(KeyError), activity.waiting("all flushed"):
        raise KeyError("the others")
    told = activity.read(tmp_path, "worker.0")
    assert told is not None and told.what == "all flushed"


def test_a_shorter_text_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    activity.tell(tmp_path, "worker.0")
    activity.doing("é" * 10_000)
    activity.doing("x")
    told = activity.read(tmp_path, "worker.0")
    assert told is not None and told.what == "x"
    activity.doing("é" * 10_000)
    told = activity.read(tmp_path, "worker.0")
    assert told is not None and told.what == "é" * 100
    assert (tmp_path / "worker.0.activity").stat().st_size == 512


@pytest.mark.parametrize("content", [b"", b"\0" * 512, b'["training", 1.0', b'{"a": 1}', b"[]", b"[1,2,3,4]"])
def test_a_torn_record_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "worker.0.activity").write_bytes(content)
    assert activity.read(tmp_path, "worker.0") is None


def test_a_disk_that_is_full_stops_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    activity.tell(tmp_path, "worker.0")
    monkeypatch.setattr(os, "pwrite", full)
    activity.doing("training epoch 1")


# In a process of its own: what it does for ten minutes. PyDLL keeps Python's global lock, as Paddle's barriers do.
ASLEEP = "time.sleep(600)"
STUCK_WITH_THE_LOCK = "import ctypes; ctypes.PyDLL(None).usleep(600_000_000)"


@pytest.mark.parametrize("does", [ASLEEP, STUCK_WITH_THE_LOCK])
def test_processor_time_moves_whatever_is_done_until_the_process_is_stopped(spawn: Spawn, does: str) -> None:
    code = f"import time; from fl_rec.runs import activity; activity.beat(); print('ready', flush=True); {does}"
    child = spawn(sys.executable, "-c", code, PYTHONPATH=str(ROOT))
    assert child.stdout.readline() == b"ready\n"

    def moved(within: float) -> bool:
        before, deadline = activity.processor_time(child.pid), time.monotonic() + within
        while activity.processor_time(child.pid) == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    time.sleep(0.3)  # until it does it
    assert moved(DEADLINE) and moved(DEADLINE)
    child.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    assert not moved(1.5)
    child.send_signal(signal.SIGCONT)
    assert moved(DEADLINE)
    child.kill()
    child.wait(DEADLINE)
    assert activity.processor_time(child.pid) is None


def test_without_the_beat_a_stuck_process_looks_frozen(spawn: Spawn) -> None:
    code = f"import time; print('ready', flush=True); {STUCK_WITH_THE_LOCK}"
    child = spawn(sys.executable, "-S", "-c", code)
    assert child.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    before = activity.processor_time(child.pid)
    time.sleep(1.2)
    assert activity.processor_time(child.pid) == before


# -- how far a worker is ---------------------------------------------------------------------------------------


def test_rows_are_told_as_they_are_trained(tmp_path: Path) -> None:
    activity.tell(tmp_path, "worker.0")
    activity.trained(5)
    assert activity.read(tmp_path, "worker.0").progress is None, "no epoch has begun"
    activity.begin_epoch(3, 1000)
    activity.doing("training epoch 3")
    activity.trained(100)
    activity.trained(50)
    with activity.waiting("all flushed"):
        told = activity.read(tmp_path, "worker.0")
        assert told is not None and told.for_others and told.progress is not None
        assert (told.progress.epoch, told.progress.rows, told.progress.of_rows) == (3, 150, 1000)
        assert 0 <= told.progress.seconds < DEADLINE
    after = activity.read(tmp_path, "worker.0")
    assert after is not None and (after.what, after.progress) == ("training epoch 3", told.progress)
    activity.begin_epoch(4, 7)
    assert activity.read(tmp_path, "worker.0").progress == activity.Progress(4, 0, 7, 0.0)


def test_the_beat_counts_the_rows_of_a_call_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity._Own, "beats", False)
    monkeypatch.setattr(activity, "BEAT", 0.01)
    activity.tell(tmp_path, "worker.0")
    activity.begin_epoch(1, 100)
    activity.trained(10)
    activity.beat()
    rows = [0]
    with activity.counting(lambda: rows[0]):
        for rows[0] in (20, 30):
            deadline = time.monotonic() + DEADLINE
            while activity.read(tmp_path, "worker.0").progress.rows != 10 + rows[0]:
                assert time.monotonic() < deadline, "the beat must have told of them"
                time.sleep(0.01)
        rows[0] = 40
    assert activity.read(tmp_path, "worker.0").progress.rows == 50
    activity.trained(1)
    rows[0] = 90
    time.sleep(0.05)
    assert activity.read(tmp_path, "worker.0").progress.rows == 51, "it is over"


def test_what_the_time_went_to(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(activity.time, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    activity.spent()
    activity.doing("training epoch 1")
    passes(3)
    activity.doing("exchanging in epoch 1")
    passes(1)
    with activity.waiting("everyone's rows"):
        passes(4)
    passes(2)
    activity.doing("training epoch 1")
    passes(5)
    found = {name: seconds for name, seconds in activity.spent().items() if seconds}
    assert found == {"training": 8.0, "exchanging": 3.0, "waiting": 4.0}
    passes(1)
    assert activity.spent() == {"training": 1.0}
