"""Denormal numbers."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from fl_rec.kernels.tiny import tiny_is_zero

SMALL = np.full(16, 2e-38, np.float32)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="nothing is done on other processors")
def test_tiny_numbers_are_zero_within_and_not_after() -> None:
    before = SMALL * np.float32(0.1)
    with pytest.raises(RuntimeError), tiny_is_zero():
        within = SMALL * np.float32(0.1)
        raise RuntimeError
    after = SMALL * np.float32(0.1)
    assert not within.any() and (before > 0).all() and (after == before).all()
