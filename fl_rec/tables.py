"""Tables for people: columns in line on a terminal, also where letters are two columns wide. And what steers none."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any

GAP = "  "
RULE: Sequence[str] = ()  # in the place of a line of cells: a line of dashes as wide as the table


def printable(text: str, but: str = "") -> str:
    """A text with "?" for what would steer a terminal, or begin a line that seems to be somebody else's.

    Args:
        but: characters that stay. Spaces of any width do, and what joins letters of some scripts or parts them.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in but or _is_shown(each) else "?" for each in text)


def _is_shown(letter: str) -> bool:
    return letter in "\u200c\u200d" or unicodedata.category(letter) == "Zs"


def shown_json(content: Any, indent: int | None = None) -> str:
    """JSON in which letters are as they are, for a program or a terminal: what would steer one, or is no letter, is
    written as an escape."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return "".join(each if printable(each, but="\n") == each else json.dumps(each)[1:-1] for each in text)


def figure(value: float | None, spec: str) -> str:
    """A number as text; `-` is no figure: None, NaN or infinite."""
    return "-" if value is None or not math.isfinite(value) else format(value, spec)


def format_table(
    lines: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    left: Collection[int] = (),
    widths: Sequence[int] | None = None,
) -> str:
    """Lines of cells as text, without spaces at their ends.

    Args:
        title: a line of its own before them.
        lines: one cell per column, the header's too; and `RULE`s. Of somebody else's text nothing steers a terminal.
        left: numbers of the columns that are aligned left; the others are aligned right.
        widths: of the columns, cells that are too long being cut; None for as wide as they need.
    """
    lines = [[printable(cell) for cell in line] for line in lines]
    titles = [] if title is None else [title]
    widths = column_widths(lines) if widths is None else widths
    rule = "-" * (sum(widths) + len(GAP) * (len(widths) - 1))
    return "\n".join([*titles, *(_line(cells, left, widths) if cells else rule for cells in lines)])


def column_widths(lines: Iterable[Sequence[str]]) -> list[int]:
    """What each column needs."""
    return [max(map(text_width, column)) for column in zip(*filter(None, lines))]


def text_width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def cut(text: str, width: int) -> str:
    """A text, with an ellipsis for what does not fit."""
    text = printable(text, but="\n")
    if text_width(text) <= width:
        return text
    while text_width(text) > width - 1:
        text = text[:-1]
    return text.rstrip(" ,") + "…"


def _line(cells: Sequence[str], left: Collection[int], widths: Sequence[int]) -> str:
    shown = []
    for column, (text, width) in enumerate(zip(cells, widths)):
        text = cut(text, width)
        space = " " * (width - text_width(text))
        shown.append(text + space if column in left else space + text)
    return GAP.join(shown).rstrip()
