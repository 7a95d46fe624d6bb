"""The first sign of life of a command: before it is imported, and within the twinkling of an eye."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper


def is_live(file: object) -> bool:
    """Whether lines can be changed in place there."""
    return bool(getattr(file, "isatty", bool)()) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


@contextmanager
def first_sign(options: argparse.Namespace, text: str) -> Iterator[None]:
    """Shows on a terminal that something goes on within.

    Args:
        options: `quiet`: nothing is shown.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a client's name may have letters that this terminal has not
    if options.quiet or not is_live(sys.stdout):
        yield
        return
    from rich.console import Console

    with Console(highlight=False).status(text, spinner="dots"):
        yield
