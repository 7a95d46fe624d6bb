"""Numbers of a few bits, and zeros. What needs Paddle is in tests/paddle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fl_rec import cli
from fl_rec.serving.compress import Figures, format_figures
from fl_rec.serving.quantise import Sparse, prune, quantise

PROJECT = Path(__file__).parents[3]
SHAPES = [(1, 1), (1, 7), (50, 2), (50, 5), (50, 8), (50, 129)]


def table(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Rows of very different sizes."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=shape) * 10.0 ** generator.uniform(-6, 3, (shape[0], 1))
    return rows.astype(np.float32)


# --- Numbers of a few bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_8_bits(shape: tuple[int, int]) -> None:
    """Every number is off by half a step at most, and a row's largest by no more than rounding."""
    values = table(shape)
    small = quantise(values, 8)
    assert (small.codes.dtype, small.codes.shape) == (np.int8, shape)
    assert (small.scales.dtype, small.scales.shape) == (np.float32, (shape[0], 1))
    assert np.abs(small.codes.astype(int)).max() == 127
    error = np.abs(small.restore() - values)
    assert (error <= small.scales * 0.5001).all()
    largest = np.abs(values).argmax(axis=1)[:, None]
    relative = np.take_along_axis(error, largest, 1) / np.abs(np.take_along_axis(values, largest, 1))
    assert relative.max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_4_bits(shape: tuple[int, int]) -> None:
    """The squared error of a row is no more than with the range up to its largest value, where it is half a step."""
    values = table(shape)
    small = quantise(values, 4)
    assert (small.codes.dtype, small.codes.shape) == (np.int8, (shape[0], (shape[1] + 1) // 2))
    restored = small.restore()
    assert (restored.dtype, restored.shape) == (np.float32, shape)
    levels = restored / small.scales
    assert np.abs(levels).max() <= 7.5001
    assert np.abs(levels - np.floor(levels) - 0.5).max() < 1e-3, "levels are halves of odd numbers"
    whole = np.abs(values).max(axis=1) / 7.5
    nearest = (np.clip(np.floor(values / whole[:, None]), -8, 7) + 0.5) * whole[:, None]
    errors, reference = (np.square(each - values).sum(axis=1) for each in (restored, nearest))
    assert (errors <= reference * 1.0001).all()
    assert (np.abs(nearest - values) <= whole[:, None] * 0.5001).all()


def test_4_bits_clip_what_is_rare() -> None:
    values = np.random.default_rng(0).normal(size=(100, 128)).astype(np.float32)
    small = quantise(values, 4)
    assert np.mean(7.5 * small.scales < np.abs(values).max(axis=1, keepdims=True)) > 0.9
    assert np.square(small.restore() - values).mean() < 0.0115, (
        "below the best evenly spaced 16 levels' without clipping"
    )


def test_two_numbers_share_a_byte() -> None:
    # Levels -7.5, 7.5, 0.5 of scale 1: low halves 0 and 15, high ones 0 and, where no column is, 0.
    small = quantise(np.array([[-7.5, 7.5, 0.5]], np.float32), 4)
    assert small.scales.tolist() == [[1.0]]
    assert small.codes.tolist() == [[0 + 16 * 0, 15 + 16 * 0]]
    assert small.restore().tolist() == [[-7.5, 7.5, 0.5]]
    lowest = quantise(np.array([[7.5, -7.5]], np.float32), 4)
    assert lowest.codes.tolist() == [[15 - 128]]
    assert lowest.restore().tolist() == [[7.5, -7.5]]


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_of_zeros_stay_so(bits: int) -> None:
    values = table((6, 5))
    values[[0, 3]] = 0
    small = quantise(values, bits)
    assert not small.restore()[[0, 3]].any()
    assert small.scales[[0, 3]].tolist() == [[0], [0]]
    assert small.restore()[[1, 2, 4, 5]].any(axis=1).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_numbers_next_to_nothing(bits: int) -> None:
    values = np.array([[1e-45, -1e-45, 0.0], [3e38, -3e38, 1e38]], np.float32)
    restored = quantise(values, bits).restore()
    assert np.isfinite(restored).all()
    assert np.abs(restored[0]).max() <= 1e-44
    assert restored[1] == pytest.approx(values[1], rel=0.2)


@pytest.mark.parametrize(("bits", "share"), [(8, (128 + 4) / 512), (4, (64 + 4) / 512)])
def test_bytes(bits: int, share: float) -> None:
    values = table((10, 128))
    assert quantise(values, bits).nbytes == pytest.approx(share * values.nbytes)


# --- Zeros ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.001, 0.5, 0.8, 0.999])
def test_pruning_takes_the_smallest(share: float) -> None:
    before = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    untouched = before.copy()
    after = prune(before, share)
    assert (after.shape, after.dtype) == ((64, 32), np.float32)
    assert np.count_nonzero(after == 0) == round(share * 2048)
    assert (after[after != 0] == before[after != 0]).all()
    assert np.abs(before[after == 0]).max() <= np.abs(after[after != 0]).min()
    assert (before == untouched).all()


def test_pruning_of_equal_weights_is_exact() -> None:
    assert np.count_nonzero(prune(np.ones((10, 10), np.float32), 0.3)) == 70


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 0.9999, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (40, 300), (3, 1000)])
def test_a_matrix_comes_back_from_its_weights(shape: tuple[int, int], share: float) -> None:
    """Also over gaps that a byte can't tell, and from its very first and last place."""
    generator = np.random.default_rng(0)
    matrix = np.where(generator.random(shape) < share, 0, generator.normal(size=shape)).astype(np.float32)
    for ends in (0.0, 1.0):
        matrix[0, 0] = matrix[-1, -1] = ends
        sparse = Sparse.of(matrix)
        assert (sparse.steps.dtype, sparse.weights.dtype) == (np.uint8, np.float32)
        assert (sparse.restore() == matrix).all()
        assert sparse.nbytes == 5 * len(sparse.steps)
    if share == 0.95:
        assert sparse.nbytes < 0.1 * matrix.nbytes or matrix.size == 1


# --- What is told ---------------------------------------------------------------------------------------


def test_figures() -> None:
    before = Figures(bytes=5_000_000, memory=4_000_000, milliseconds=2.0, hr=0.72, ndcg=0.44, auc=None)
    after = Figures(bytes=1_300_000, memory=1_000_000, milliseconds=3.0, hr=0.719, ndcg=0.4405, auc=None)
    lines = [line.split() for line in format_figures(before, after).splitlines()]
    assert lines[1] == ["bytes", "on", "disk", "5,000,000", "1,300,000", "26.0%"]
    assert lines[3][-3:] == ["2.0", "3.0", "150.0%"]
    assert lines[4][-3:] == ["0.7200", "0.7190", "-0.0010"]
    assert lines[6][-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "A model is compressed to so many bits, or pruned. Received: neither. Add --bits 8."),
        (["--bits", "5"], "--bits must be one of 8, 4. Received: 5. Take 8 if unsure."),
        (["--prune", "1"], "--prune must be a share above 0, below 1. Received: 1. For a half write 0.5."),
        (["--prune", "nan"], "--prune must be a share above 0, below 1. Received: nan. For a half write 0.5."),
        (["--bits", "8"], "A saved model is a run's folder that has a result.json, a folder RUN/model/EPOCH, or an"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["compress", str(tmp_path), "--out", str(tmp_path / "new"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compress", str(tmp_path), "--out", str(tmp_path), "--bits", "8"]) == 2
    assert f"--out must be a folder that is not there yet. Received: {tmp_path}." in capsys.readouterr().err
