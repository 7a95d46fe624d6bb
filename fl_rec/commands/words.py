"""Sizes and times as people say them."""

from __future__ import annotations


def bytes_in_words(size: float) -> str:
    """As "12 MB", in thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_in_words(seconds: float) -> str:
    """As "3 h", of the largest unit that it has two of, or one."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
