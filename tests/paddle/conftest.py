"""Tests that import Paddle, in the process of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import fl_rec  # noqa: F401 - sets flags that Paddle reads once


@pytest.fixture(autouse=True)
def graph_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Static programs, unless the module says EAGER = True; and what a test leaves behind is not the next one's."""
    import paddle

    eager = getattr(request.module, "EAGER", False)
    paddle.disable_static() if eager else paddle.enable_static()
    with paddle.utils.unique_name.guard():
        yield
    paddle.disable_static()


@contextlib.contextmanager
def new_program() -> Iterator[Any]:
    """Programs, names and a scope of their own; gives the executor."""
    import paddle

    with contextlib.ExitStack() as stack:
        stack.enter_context(paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()))
        stack.enter_context(paddle.utils.unique_name.guard())
        stack.enter_context(paddle.static.scope_guard(paddle.static.Scope()))
        yield paddle.static.Executor(paddle.CPUPlace())
