"""Signals that end a job in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A signal has ended the job. No error, or an on_epoch that catches errors would go on."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def signals_as_exceptions() -> Iterator[Callable[[], None]]:
    """Yields what has them ignored from then on: clearing up must not be interrupted.

    Only the main thread can change what signals do; in another one they stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def ignore() -> None:
        for each in kept:
            signal.signal(each, signal.SIG_IGN)

    def stop(number: int, _frame: object) -> None:
        ignore()
        raise Stopped(number)

    # What is ignored stays so: nohup has the job outlive its terminal. And None is a handler that is not Python's.
    kept = {
        each: handler
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for handler in [signal.getsignal(each)]
        if handler not in (signal.SIG_IGN, None)
    }
    for each in kept:
        signal.signal(each, stop)
    try:
        yield ignore
    finally:
        for each, handler in kept.items():
            signal.signal(each, handler)
