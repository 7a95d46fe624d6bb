"""`fl-rec run`: a job from start to end, shown on the terminal. No Paddle is imported here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fl_rec.config import add_config_arguments
from fl_rec.config.loading import count
from fl_rec.errors import JobFailed
from fl_rec.job.built_in import built_in
from fl_rec.job.launch import LaunchOptions, launch
from fl_rec.job.observers import Observer
from fl_rec.job.signals import Stopped
from fl_rec.page import serve
from fl_rec.runs.directory import RunDirectory
from fl_rec.terminal.plain import Plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec run`."""
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "--worker_num", type=count, metavar="N", help="workers, one per shard; default: the number of shards"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with a run, as fl-rec resume does; -m: its own configuration"
    )
    add_launch_arguments(parser)
    parser.add_argument("--server_num", type=count, metavar="N", help="parameter servers; default: 1, or as it had")
    parser.add_argument("--coordinator_num", type=int, choices=(0, 1), default=0, help="coordinators; default: 0")


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what a run that is resumed may be given anew."""
    parser.add_argument(
        "--servers",
        metavar="HOST:PORT,...",
        help="the servers' addresses; default: free ports of this machine",
    )
    parser.add_argument(
        "--script",
        type=Path,
        help="training script; default: the one in tools/ with or without a coordinator",
    )
    parser.add_argument(
        "--max_restarts",
        type=int,
        default=0,
        metavar="N",
        help="how often to go on from the last checkpoint when a process was lost; default: 0",
    )
    serve.add_arguments(parser)


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec run`: 0 if every role did its part, 1 if not; 128 + the signal if one ended it."""
    served = serve.observers(options)
    if options.resume:
        return play(resumed(options.resume, options), served)
    return play(
        LaunchOptions(
            config_yaml=Path(options.config_yaml) if options.config_yaml else built_in(),
            overrides=tuple(options.opt),
            worker_num=options.worker_num,
            server_num=options.server_num or 1,
            coordinator_num=options.coordinator_num,
            servers=options.servers,
            script=options.script,
            max_restarts=options.max_restarts,
        ),
        served,
    )


def resumed(run: Path, options: argparse.Namespace) -> LaunchOptions:
    """To go on with a run, by the arguments of `fl-rec run` or `fl-rec resume`."""
    run = run.absolute()
    return LaunchOptions(
        config_yaml=Path(options.config_yaml) if options.config_yaml else RunDirectory(run).config,
        overrides=tuple(options.opt),
        worker_num=options.worker_num,
        server_num=options.server_num or 0,
        servers=options.servers,
        script=options.script,
        resume=run,
        max_restarts=options.max_restarts,
    )


def play(job: LaunchOptions, others: Sequence[Observer] = ()) -> int:
    """As `command`, with others that look at the job."""
    try:
        launch(job, [*others, Plain(sys.stdout)])
    except JobFailed as err:
        print(f"fl_rec: {err}", file=sys.stderr, flush=True)
        return 1
    except Stopped as err:
        return 128 + err.number
    return 0
