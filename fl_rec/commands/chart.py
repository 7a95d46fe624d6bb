"""Curves as letters on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# Where several curves meet.
MEET, LEVEL = "*", "."


def chart(
    curves: Mapping[str, Sequence[tuple[int, float]]], width: int, height: int = 8, level: float | None = None
) -> str:
    """Curves over epochs, each drawn with its letter; "" if none has a point.

    Args:
        curves: by letter, epochs and figures; what is not finite is left out.
        width: columns of all of it.
        height: lines of the figures, without the epochs below.
        level: a figure to compare them with, drawn as a line of dots.
    """
    points = [(x, y, letter) for letter, curve in curves.items() for x, y in curve if math.isfinite(y)]
    if not points:
        return ""
    first, last = min(x for x, _, _ in points), max(x for x, _, _ in points)
    figures = [y for _, y, _ in points] + ([] if level is None else [level])
    low, high = min(figures), max(figures)
    columns = min(width - 11, max(1, last - first) * 6 + 1)

    def line_of(y: float) -> int:
        return round((high - y) / ((high - low) or 1) * (height - 1))

    field = [[LEVEL if level is not None and line == line_of(level) else " "] * columns for line in range(height)]
    for x, y, letter in points:
        column, line = round((x - first) / max(1, last - first) * (columns - 1)), line_of(y)
        field[line][column] = letter if field[line][column] in (" ", LEVEL, letter) else MEET
    names = {0: f"{high:.4f}", height - 1: f"{low:.4f}"}
    lines = [f"{names.get(number, ''):>8} | {''.join(line)}".rstrip() for number, line in enumerate(field)]
    ends = f"{first}{last:>{max(1, columns - len(str(first)))}}" if last > first else str(first)
    return "\n".join([*lines, f"{'epoch':>8} | {ends}"])
