"""What a role is doing and since when, and a sign that it lives. No Paddle is imported here.

A role writes it into its own small file before it begins, so that it can be read whatever the role is stuck in. The
sign of life is the kernel's: the processor time that it counts for the process. A thread that wakes once a second takes
some whatever the role does or waits for: where C++ holds Python's global lock, it asks for that lock 200 times a
second. A process that is stopped takes none.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from fl_rec.outside import Count, Number

# Seconds between two signs of life.
BEAT = 1.0
# Of a record, which is written over the one before.
_BYTES, _LONGEST_TEXT = 512, 100


@dataclass(frozen=True)
class Progress:
    """How far a worker is in an epoch.

    Attributes:
        epoch: which one.
        rows: trained so far.
        of_rows: rows of the epoch.
        seconds: wall time that it took.
    """

    epoch: Count
    rows: Count
    of_rows: Count
    seconds: Number


@dataclass(frozen=True)
class Activity:
    """What a role is doing.

    Attributes:
        what: in words that go on from "while it was".
        since: when it began, in seconds since the boot (`time.monotonic`).
        for_others: whether it waits for the other workers.
        progress: a worker's in its epoch; None before the first.
    """

    what: str
    since: Number
    for_others: bool = False
    progress: Progress | None = None

    def __str__(self) -> str:
        return f"{self.what} (for {time.monotonic() - self.since:.0f} s)"


class _Own:
    """This process's."""

    file: int | None = None
    activity = Activity("starting", 0.0)
    began = 0.0
    beats = False
    # What the beat asks for the rows that have been trained.
    count: Callable[[], int] | None = None
    lock = threading.RLock()
    # Seconds by the first word of what was done, or "waiting"; and what is being done since when.
    spent: ClassVar[dict[str, float]] = {}
    phase, phase_began = "starting", time.monotonic()


def tell(folder: Path, role: str) -> None:
    """From now on this process writes down what it does, as this role. OSError."""
    if _Own.file is not None:
        os.close(_Own.file)
    _Own.file = os.open(_path(folder, role), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    doing("starting")


def doing(what: str) -> None:
    """Says what is being done from now on: "training epoch 3"."""
    _enter(what.partition(" ")[0])
    _change(what=what, since=time.monotonic(), for_others=False)


def spent() -> dict[str, float]:
    """Seconds since the last call, by the first word of what was done, or "waiting" for others."""
    _enter(_Own.phase)
    found, _Own.spent = _Own.spent, {}
    return found


def _enter(phase: str) -> None:
    now = time.monotonic()
    _Own.spent[_Own.phase] = _Own.spent.get(_Own.phase, 0.0) + now - _Own.phase_began
    _Own.phase, _Own.phase_began = phase, now


def begin_epoch(epoch: int, of_rows: int) -> None:
    """Training begins that will take so many rows."""
    _Own.began = time.monotonic()
    _change(progress=Progress(epoch, 0, of_rows, 0.0))


def trained(rows: int) -> None:
    """So many rows more have been trained. It costs a write of 512 bytes: call it some times a second."""
    before = _Own.activity.progress
    _tell_rows(rows + (0 if before is None else before.rows))


@contextmanager
def counting(rows: Callable[[], int]) -> Iterator[None]:
    """Tells of the rows that are trained within, in one call that gives no word of them.

    Args:
        rows: how many have been so far; called once a second, in another thread.
    """
    before = 0 if _Own.activity.progress is None else _Own.activity.progress.rows
    _Own.count = lambda: before + rows()
    try:
        yield
        _tell_rows(_Own.count())
    finally:
        with _Own.lock:
            _Own.count = None


def _tell_rows(rows: int) -> None:
    if (before := _Own.activity.progress) is not None:
        _change(progress=replace(before, rows=rows, seconds=round(time.monotonic() - _Own.began, 3)))


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Waits for the other workers within; what was done before goes on after it."""
    before, phase = _Own.activity, _Own.phase
    _enter("waiting")
    _change(what=what, since=time.monotonic(), for_others=True)
    yield
    _enter(phase)
    _change(what=before.what, since=before.since, for_others=before.for_others)


def _change(**changes: Any) -> None:
    with _Own.lock:  # the beat may tell of rows
        _Own.activity = activity = replace(_Own.activity, **changes)
        if _Own.file is not None:
            with suppress(OSError):  # on a full disk the work goes on
                os.pwrite(_Own.file, _record(activity), 0)


def _record(activity: Activity) -> bytes:
    told = [activity.what[:_LONGEST_TEXT], *astuple(activity)[1:]]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode().ljust(_BYTES)


def write_told(folder: Path, role: str, activity: Activity) -> None:
    """Writes what a role of another host does, as its launcher has told it. OSError."""
    file = os.open(_path(folder, role), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, _record(activity), 0)
    finally:
        os.close(file)


def read(folder: Path, role: str) -> Activity | None:
    """What a role is doing; None if it hasn't said so."""
    try:
        what, since, for_others, progress = json.loads(_path(folder, role).read_bytes()[:_BYTES])
        return Activity(what, since, for_others, None if progress is None else Progress(*progress))
    except (OSError, ValueError, TypeError):
        return None


def _path(folder: Path, role: str) -> Path:
    return folder / f"{role}.activity"


def beat() -> None:
    """Has this process give a sign of life every `BEAT` seconds, if it doesn't yet. Call it after what forks."""
    if _Own.beats:
        return
    _Own.beats = True

    def beats() -> None:
        while True:
            time.sleep(BEAT)
            with _Own.lock:
                if _Own.count is not None:
                    _tell_rows(_Own.count())

    threading.Thread(target=beats, name="beat", daemon=True).start()


def processor_time(pid: int) -> float | None:
    """Seconds of processor time that a process has taken, to the nanosecond; None if it is over."""
    try:
        # clock_getcpuclockid(3): Linux's number for the clock of another process.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None
