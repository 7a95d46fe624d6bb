"""The command `fl-rec`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Sequence

from fl_rec.config import Config, add_config_arguments
from fl_rec.errors import FLRecError, RunError
from fl_rec.history import RunDirectory
from fl_rec.launch import LaunchOptions, launch


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 if it could not start."""
    parser = argparse.ArgumentParser(
        prog="fl-rec", description="Federated training of recommenders on Paddle's parameter server."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="start a job's servers and workers, watch them, and judge the run")
    add_config_arguments(run)
    run.add_argument(
        "--worker_num", type=_count, metavar="N", help="workers, one per shard; default: the number of shards"
    )
    run.add_argument("--server_num", type=_count, default=1, metavar="N", help="parameter servers; default: 1")
    run.add_argument("--coordinator_num", type=int, choices=(0, 1), default=0, help="coordinators; default: 0")
    run.add_argument(
        "--servers",
        metavar="HOST:PORT,...",
        help="the servers' addresses; default: free ports of this machine",
    )
    run.add_argument(
        "--script",
        type=Path,
        help="training script; default: the one in tools/ with or without a coordinator",
    )
    again = commands.add_parser(
        "coordinator",
        help="start a run's lost coordinator again, or try a strategy on a recorded run",
    )
    again.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    again.add_argument("--dry", action="store_true", help="show what a strategy would decide on the recorded run")
    add_config_arguments(again, required=False)
    options = parser.parse_args(arguments)
    try:
        if options.command == "coordinator":
            return _coordinator(options)
        return launch(
            LaunchOptions(
                config_yaml=Path(options.config_yaml),
                overrides=tuple(options.opt),
                worker_num=options.worker_num,
                server_num=options.server_num,
                coordinator_num=options.coordinator_num,
                servers=options.servers,
                script=options.script,
            ),
            say=lambda text: print(text, flush=True),
        )
    except (FLRecError, OSError) as err:
        print(f"fl-rec: error: {err}", file=sys.stderr)
        return 2


def _coordinator(options: argparse.Namespace) -> int:
    # Not for every command: gRPC takes a moment to import.
    from fl_rec.coordinator import process

    run = RunDirectory(options.run.resolve())
    if not run.metrics.is_file():
        raise RunError(f"RUN must be a run's folder. Received: {run.path}, which has no metrics.jsonl.")
    config = Config.load(options.config_yaml or run.config, options.opt)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.dry:
        process.replay(config, run, print)
    else:
        process.coordinate_again(config, run)
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
