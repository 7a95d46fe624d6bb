"""Tests that import Paddle, in the process of the tests."""

from __future__ import annotations

from collections.abc import Iterator

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
