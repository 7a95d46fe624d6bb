"""Blocks of rows: data that is gone through, and may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def ahead(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the same, the next one being made meanwhile, in a thread: most of numpy lets go of Python's lock."""
    iterator = iter(blocks)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, None)
        while (block := coming.result()) is not None:
            coming = pool.submit(next, iterator, None)
            yield block
