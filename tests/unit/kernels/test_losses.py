"""The functions that losses are made of, as written, against numpy's in float64."""

from __future__ import annotations

import numpy as np
import pytest

from fl_rec.kernels import losses


def relative(found: list[np.float32], expected: np.ndarray) -> float:
    return float(np.abs(np.array(found, np.float64) / expected - 1).max())


def test_exp_and_log() -> None:
    x = np.concatenate([-np.logspace(-9, np.log10(87), 3000), [0]]).astype(np.float32)
    values = [losses.exp.py_func(each) for each in x]
    assert {each.dtype for each in values} == {np.dtype(np.float32)}
    assert relative(values, np.exp(x.astype(np.float64))) < 2.5e-7
    small = np.linspace(1e-3, 1, 2000).astype(np.float32)
    values = [losses.log1p.py_func(each) for each in small]
    assert {each.dtype for each in values} == {np.dtype(np.float32)}
    assert relative(values, np.log1p(small.astype(np.float64))) < 2.5e-7


def test_what_is_too_small_for_a_float32() -> None:
    assert (
        losses.exp.py_func(np.float32(-1e30)) == losses.exp.py_func(np.float32(-87)) == pytest.approx(1.6e-38, rel=0.05)
    )
    assert losses.log1p.py_func(np.float32(0)) == 0
    assert losses.log1p.py_func(np.float32(1e-30)) == pytest.approx(1e-30)
