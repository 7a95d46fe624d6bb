"""What the data tools say of their work, and how they write its result."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fl_rec.errors import DataError

log = logging.getLogger(__name__)


@contextmanager
def stage(title: str) -> Iterator[dict[str, int]]:
    """Log ``title``, the counts that the caller puts into the yielded dict, and the seconds that it took."""
    counts: dict[str, int] = {}
    start = time.perf_counter()
    yield counts
    text = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    log.info("%s: %s (%.1f s)", title, text or "done", time.perf_counter() - start)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """For what writes a folder; another tool that would, at the same time, waits. DataError if it can't be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
        try:
            _lock(folder, out)
            yield
        finally:
            os.close(folder)
    except OSError as err:
        raise DataError(
            f"An output file must be writable. Received: {err.filename} ({err.strerror or err}). "
            "Check permissions and free space, or choose another --out."
        ) from err


def _lock(folder: int, out: Path) -> None:
    """Locks the folder itself, so that no file tells of it."""
    with suppress(OSError):  # some network's file systems lock none
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another fl-rec writes %s: waiting for it", out)
            fcntl.flock(folder, fcntl.LOCK_EX)
