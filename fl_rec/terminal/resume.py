"""`fl-rec resume`: a run goes on after its last checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from fl_rec.arguments import add_config_arguments, count
from fl_rec.terminal import run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec resume`."""
    parser.usage = "%(prog)s RUN [-o KEY=VALUE ...] [option ...]"
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    add_config_arguments(parser, required=False)
    parser.add_argument("--worker_num", type=count, metavar="N", help="workers, as many as it had")
    parser.add_argument("--server_num", type=count, metavar="N", help="parameter servers; default: as many as it had")
    run.add_launch_arguments(parser)


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec resume`, as `fl-rec run`."""
    return run.resume(options.run, options)
