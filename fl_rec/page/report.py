"""`fl-rec report`: a run as one HTML file, which needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path

from fl_rec.errors import RunError
from fl_rec.files import atomic_write
from fl_rec.page.content import content_of
from fl_rec.page.render import run_page
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.listing import find_run, newest

NAME = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec report`."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="a run's folder, or the end of its name in runs/, also of one that still trains; default: the newest",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"file to write; default: {NAME} in the run's folder")


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec report`: writes the page, and says where."""
    path = report(find_run(options.run) if options.run else newest(), options.out)
    print(f"page      {path} ({path.stat().st_size / 1000:,.0f} kB)")
    return 0


def report(run: Path, out: Path | None = None) -> Path:
    """Writes the page of a run, and returns where.

    Raises:
        DataError: it is no run's folder, or its figures can't be read.
        RunError: the file can't be written.
    """
    return write_page(run_page(content_of(RunDirectory(run))), run / NAME if out is None else out)


def write_page(page: str, path: Path) -> Path:
    """Writes a page, whole or not at all. RunError."""
    try:
        with atomic_write(path) as file:
            file.write(page.encode("utf-8", "replace"))
    except OSError as err:
        raise RunError(f"A page must be writable. Received: {path} ({err.strerror}). Name another: --out FILE") from err
    return path
