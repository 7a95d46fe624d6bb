"""What processes use of a machine, seen from outside; and a command that is watched so until it ends."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import psutil

from fl_rec.job.watch import Mark

POLL_SECONDS = 0.1
POLLS_PER_SAMPLE = 5
STOP_SECONDS = 30.0


class Usage:
    """Memory and CPU of a process and of all that bear a mark.

    Args:
        root: need not bear it.
        mark: see `Mark`.

    Attributes:
        peak_pss: bytes of memory of all processes together at the worst moment seen. PSS counts a page that n processes
            share as 1/n of a page for each.
    """

    def __init__(self, root: psutil.Process, mark: Mark) -> None:
        self._root, self._mark = root, mark
        self._cpu: dict[psutil.Process, float] = {}
        self._samples: list[tuple[float, float]] = []
        self.peak_pss = 0

    def look(self) -> None:
        """Takes a sample. What a process has used since the last one before it ended is not seen."""
        pss = 0
        for process in {self._root, *self._mark.processes()}:
            with suppress(psutil.Error, OSError):
                times = process.cpu_times()
                self._cpu[process] = times.user + times.system
                pss += process.memory_full_info().pss
        self._samples.append((time.time(), sum(self._cpu.values())))
        self.peak_pss = max(self.peak_pss, pss)

    def cpu_seconds(self, start: float, end: float) -> float:
        """Seconds of all processes together between two times of the clock, by the samples next to them."""
        times, seconds = zip(*self._samples)
        return float(np.diff(np.interp([start, end], times, seconds))[0])


class Known:
    """Epochs whose figures are known, and since when.

    Attributes:
        epochs: their records, of which `rows` and, if it is there, `time` are read.
        times: of the clock.
    """

    def __init__(self) -> None:
        self.epochs: list[Mapping[str, Any]] = []
        self.times: list[float] = []

    def look(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Takes those that are new."""
        new = epochs[len(self.epochs) :]
        self.times += [each.get("time", time.time()) for each in new]
        self.epochs += new

    def cpu_per_million(self, usage: Usage) -> float | None:
        """CPU seconds per million rows between the first and the last epoch's figures; None with fewer than two."""
        rows = sum(each["rows"] for each in self.epochs[1:])
        return usage.cpu_seconds(self.times[0], self.times[-1]) / rows * 1e6 if rows else None


def watch(root: psutil.Popen, deadline: float, stop: threading.Event, usage: Usage, look: Callable[[], None]) -> None:
    """Waits for the end, the deadline of `time.monotonic`, or the event; calls `look` at every look."""
    for poll in itertools.count():
        if root.poll() is not None or time.monotonic() > deadline or stop.is_set():
            return
        look()
        if poll % POLLS_PER_SAMPLE == 0:
            usage.look()
        stop.wait(POLL_SECONDS)


def end(root: psutil.Popen) -> None:
    """Has a process that is still there end, in order if it can."""
    if root.poll() is None:
        root.terminate()
        try:
            root.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            root.kill()
            root.wait()


def run_watched(
    command: Sequence[str], env: Mapping[str, str], mark: Mark, timeout: float, look: Callable[[], None]
) -> tuple[int | None, str, Usage]:
    """Runs a command, and ends every process that bears its mark.

    Args:
        command: what to run.
        env: what the environment has beside this process's own, and the mark.
        timeout: seconds after which it is ended.
        look: called at every look.

    Returns:
        its exit code, None if it was ended; what it said; what it used.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        root = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env, mark.name: mark.value},
            start_new_session=True,
        )
        usage = Usage(root, mark)
        try:
            watch(root, time.monotonic() + timeout, threading.Event(), usage, look)
            exit_code = root.poll()
        finally:
            end(root)
            mark.end()
        said.seek(0)
        return exit_code, said.read().strip(), usage
