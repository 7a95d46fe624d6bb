"""Rooms and arrows as a picture: boxes in rows, each arrow from a row to a lower one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

# Pixels: of a letter, around it, between two boxes, and from row to row.
_LETTER, _PAD, _GAP, _ROW, _HIGH = 8.4, 12, 26, 74, 30
_SWEEPS = 24
_STYLE = (
    "text{font:14px ui-monospace,Menlo,Consolas,monospace;text-anchor:middle;fill:#1d2733}"
    "rect{fill:#eef3fb;stroke:#5b7fb5}path{fill:none;stroke:#7a8796;stroke-width:1.3}marker path{fill:#7a8796}"
    "@media(prefers-color-scheme:dark){text{fill:#e4ebf4}rect{fill:#243449;stroke:#7fa4d8}path{stroke:#97a5b6}"
    "marker path{fill:#97a5b6}}"
)


def svg(arrows: Mapping[str, Sequence[str]]) -> str:
    """A picture of what each box points at; there is no circle."""
    row = dict.fromkeys(sorted({*arrows, *(each for others in arrows.values() for each in others)}), 0)
    for _ in row:  # as low as the longest way to it
        for box, others in arrows.items():
            for each in others:
                row[each] = max(row[each], row[box] + 1)
    for box in row:  # a box that nothing is above stands right above what it points at
        if all(box not in others for others in arrows.values()):
            row[box] = min(row[each] for each in arrows[box]) - 1
    ways = []
    rows: list[list[str]] = [[] for _ in range(max(row.values()) + 1)]
    for box in row:
        rows[row[box]].append(box)
    for box in sorted(arrows):
        for other in arrows[box]:
            between = [f"{box}>{other}>{level}" for level in range(row[box] + 1, row[other])]
            for level, name in enumerate(between, row[box] + 1):
                rows[level].append(name)
            ways.append([box, *between, other])
    place = _placed(rows, ways)
    width = max(place[box] + _half(box) for box in row) + _PAD
    height = _ROW * len(rows) - _ROW + _HIGH + 2 * _PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}">'
        f"<style>{_STYLE}</style><defs>"
        '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>'
    ]
    for way in ways:
        points = [(place[name], _PAD + _ROW * (row[way[0]] + step)) for step, name in enumerate(way)]
        path = f"M{points[0][0]:.0f} {points[0][1] + _HIGH}"
        for step, ((x, y), (to, down)) in enumerate(pairwise(points)):
            path += f"V{y + _HIGH}" if step else ""
            path += f"C{x:.0f} {y + _HIGH + 24} {to:.0f} {down - 24} {to:.0f} {down - (step == len(points) - 2) * 1}"
        parts.append(f'<path d="{path}" marker-end="url(#a)"/>')
    for box in row:
        y = _PAD + _ROW * row[box]
        left, wide = place[box] - _half(box), 2 * _half(box)
        parts.append(f'<rect x="{left:.0f}" y="{y}" width="{wide:.0f}" height="{_HIGH}" rx="5"/>')
        parts.append(f'<text x="{place[box]:.0f}" y="{y + 20}">{box}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _half(name: str) -> float:
    """Half the width that it takes; an arrow that passes by takes little."""
    return 4.0 if ">" in name else len(name) * _LETTER / 2 + _PAD


def _placed(rows: list[list[str]], ways: Sequence[Sequence[str]]) -> dict[str, float]:
    """Where each is in its row: near what it is tied to, in an order by which few arrows cross."""
    tied: dict[str, list[str]] = {name: [] for each in rows for name in each}
    for way in ways:
        for one, other in pairwise(way):
            tied[one].append(other)
            tied[other].append(one)
    place = {name: float(number * 100) for each in rows for number, name in enumerate(each)}
    for sweep in range(_SWEEPS):
        for each in rows if sweep % 2 else rows[::-1]:
            wish = {name: sum(place[other] for other in tied[name]) / len(tied[name]) for name in each}
            each.sort(key=lambda name: (wish[name], name))
            place.update(_apart(each, wish))
    left = min(place[name] - _half(name) for name in place)
    return {name: x - left + _PAD for name, x in place.items()}


def _apart(row: Sequence[str], wish: Mapping[str, float]) -> dict[str, float]:
    """As near to what each wishes as there is room, in this order: blocks that would overlap share their shift."""
    blocks: list[tuple[float, list[str]]] = []  # where its first one is, and who is in it
    for name in row:
        blocks.append((wish[name], [name]))
        while len(blocks) > 1:
            (first, names), (start, others) = blocks[-2:]
            if first + _offsets(names)[-1] + _half(names[-1]) + _GAP + _half(others[0]) <= start:
                break
            together = [*names, *others]
            shift = [wish[each] - offset for each, offset in zip(together, _offsets(together))]
            blocks[-2:] = [(sum(shift) / len(shift), together)]
    return {name: first + offset for first, names in blocks for name, offset in zip(names, _offsets(names))}


def _offsets(names: Sequence[str]) -> list[float]:
    found = [0.0]
    for one, other in pairwise(names):
        found.append(found[-1] + _half(one) + _GAP + _half(other))
    return found
