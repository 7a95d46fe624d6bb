"""`fl-rec run`: a job from start to end, shown on the terminal. What it needs is imported after a sign of life."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fl_rec.arguments import add_config_arguments, count
from fl_rec.terminal.first_sign import first_sign, is_live

if TYPE_CHECKING:
    from fl_rec.job.launch import LaunchOptions

LOG_LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec run`."""
    parser.usage = "%(prog)s [-m FILE] [-o KEY=VALUE ...] [option ...]"
    add_config_arguments(parser, required=False)
    parser.add_argument("--worker_num", type=count, metavar="N", help="workers; default: one per shard")
    parser.add_argument("--server_num", type=count, metavar="N", help="parameter servers; default: 1, or as it had")
    parser.add_argument("--coordinator_num", type=int, choices=(0, 1), help="coordinators; default: 0")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run, as fl-rec resume does")
    add_launch_arguments(parser)


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what a run that is resumed may be given anew."""
    parser.add_argument("--servers", metavar="HOST:PORT,...", help="addresses; with --workers of several hosts")
    # Of several hosts, as the documentation tells; --help is one screen.
    for option in ("--workers", "--coordinators", "--host"):
        parser.add_argument(option, help=argparse.SUPPRESS)
    parser.add_argument("--script", type=Path, metavar="FILE", help="training script; default: one of those in tools/")
    parser.add_argument(
        "--max_restarts", type=int, default=0, metavar="N", help="how often to go on when a process was lost; or 0"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="show the result alone")
    shown.add_argument("--verbose", action="store_true", help="show every epoch's and every round's table too")
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        metavar="LEVEL",
        help="of the roles' logs: debug, info, warning, error",
    )
    parser.add_argument(
        "--ui",
        nargs="?",
        const="127.0.0.1:0",
        metavar="HOST:PORT",
        help="serve the job's page; default: here, at a free port",
    )
    parser.add_argument("--insecure", action="store_true", help="let --ui, coordinator and link be open, without TLS")


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec run`: 0 if every role did its part, 1 if not; 128 + the signal if one ended it."""
    if options.resume:
        return resume(options.resume, options)
    with first_sign(options, "reading the configuration and the data"):
        from fl_rec.job.built_in import built_in
        from fl_rec.job.launch import LaunchOptions

        job = LaunchOptions(
            config_yaml=Path(options.config_yaml) if options.config_yaml else built_in(),
            overrides=tuple(options.opt),
            worker_num=options.worker_num,
            server_num=options.server_num or 0,
            coordinator_num=options.coordinator_num or 0,
            servers=options.servers,
            workers=options.workers,
            coordinators=options.coordinators,
            host=options.host,
            script=options.script,
            max_restarts=options.max_restarts,
            log_level=options.log_level,
            insecure=options.insecure,
        )
    return play(job, options)


def resume(run: Path, options: argparse.Namespace) -> int:
    """As `command`, to go on with a run, by the arguments of `fl-rec run` or `fl-rec resume`."""
    with first_sign(options, "reading the run and its checkpoint"):
        from fl_rec.job.launch import LaunchOptions
        from fl_rec.runs.directory import RunDirectory
        from fl_rec.runs.listing import named

        run = named(run).absolute()
        job = LaunchOptions(
            config_yaml=Path(options.config_yaml) if options.config_yaml else RunDirectory(run).config,
            overrides=tuple(options.opt),
            worker_num=options.worker_num,
            server_num=options.server_num or 0,
            servers=options.servers,
            workers=options.workers,
            coordinators=options.coordinators,
            host=options.host,
            script=options.script,
            resume=run,
            max_restarts=options.max_restarts,
            log_level=options.log_level,
            insecure=options.insecure,
        )
    return play(job, options)


def play(job: LaunchOptions, options: argparse.Namespace) -> int:
    """Plays a job, and shows it."""
    from fl_rec.errors import JobFailed
    from fl_rec.job.launch import launch
    from fl_rec.job.signals import Stopped
    from fl_rec.page.serve import pages
    from fl_rec.terminal.live import Live
    from fl_rec.terminal.plain import Plain
    from fl_rec.terminal.screen import NORMAL, QUIET, VERBOSE

    logging.getLogger("fl_rec").setLevel(job.log_level.upper())
    level = QUIET if options.quiet else VERBOSE if options.verbose else NORMAL
    try:
        with (Live if is_live(sys.stdout) else Plain)(sys.stdout, level) as screen:
            served = pages(options.ui, options.insecure, lambda url: screen.lines([("page", url)]))
            launch(job, [screen, *served])
    except JobFailed as err:
        print(f"fl_rec: {err}", file=sys.stderr, flush=True)
        return 1
    except Stopped as err:
        return 128 + err.number
    sys.stdout.flush()  # where nobody reads any more, the job has gone on, and this raises
    return 0
