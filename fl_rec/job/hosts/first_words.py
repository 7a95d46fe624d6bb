"""Streams to the hub that have not said yet whose they are. No Paddle is imported here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc

from fl_rec.errors import DataError

# Seconds within which a host says who it is; it does so at once.
_SECONDS = 5.0


class FirstWords:
    """They are waited for, but not for long, nor at the others' cost: each stream takes one of few threads, and without
    TLS anybody may open one.

    Args:
        most: of how many at once; one more, and the one that has said nothing for longest is ended.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._silent: list[Callable[[], object]] = []

    def of(self, words: Iterator[bytes], end: Callable[[], object]) -> bytes:
        """A stream's first word.

        Args:
            words: of the stream.
            end: ends it.

        Raises:
            DataError: it did not come.
        """
        late = threading.Timer(_SECONDS, end)
        late.daemon = True
        late.start()
        with self._lock:
            self._silent.append(end)
            for each in self._silent[: -self._most]:
                each()
        word = b""
        try:
            with suppress(grpc.RpcError):  # of a stream that has been ended, or else it has no words
                word = next(words, b"")
        finally:
            late.cancel()
            with self._lock:
                self._silent.remove(end)
        if not word:
            raise DataError("A host says first who it is, at once. Received: nothing.")
        return word
