"""What every test stands on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_rec import one_thread_each

# Of processes that run tests there are as many as cores.
one_thread_each()
# Or else each process of each job compiles fl_rec anew, a fifth of what a short job takes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def heeded_signals() -> Iterator[None]:
    """Signals mean the same wherever the tests are started: a shell has what it starts with & ignore SIGINT."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# The longest files, longest first, and those that wait most, beside which jobs have the cores; what comes last is
# short, so that all processes end together.
LONGEST = (
    "test_coordinator.py",
    "test_distill.py",
    "test_service.py",
    "test_job.py",
    "test_failures.py",
    "test_hosts.py",
    "test_export.py",
    "test_wheel.py",
    "test_alive.py",
    "test_link.py",
    "test_private.py",
    "test_process.py",
    "test_door.py",
    "test_fuzz.py",
    "test_judge.py",
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # the files with the most tests are not the longest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first of all, then jobs, then what imports Paddle."""
    order = {room: place for place, room in enumerate(("integration", "paddle", "unit"))}

    def place(item: pytest.Item) -> tuple[int, int]:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        longest = LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        return longest, order[room]

    items.sort(key=place)
