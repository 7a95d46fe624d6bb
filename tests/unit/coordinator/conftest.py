"""What tests of services share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

DEADLINE = 30.0


@pytest.fixture(scope="module")
def in_loop() -> Iterator[Callable[..., Any]]:
    """`in_loop(coroutine)`: its result, in the one thread of all services, as in a coordinator's process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(DEADLINE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
