"""The command `fl-rec`: one name per module, which is imported only when it is asked for."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from fl_rec import one_thread_each
from fl_rec.errors import FLRecError

one_thread_each()  # before a command's module loads numpy

# Each module has add_arguments(parser), and command(options), which returns the exit code.
COMMANDS = {
    "prepare": ("fl_rec.data.prepare", "make training and test rows from a table of interactions, and shards of them"),
    "partition": ("fl_rec.data.shards", "cut prepared rows into one shard per worker"),
    "shards": ("fl_rec.data.adopt", "count and check shards that somebody else wrote, and write their manifest"),
    "run": (
        "fl_rec.terminal.run",
        "start a job's servers and workers, watch them, and judge the run; without -m, the built-in job",
    ),
    "resume": ("fl_rec.terminal.resume", "go on with a run that has ended too early, or that is to have more epochs"),
    "report": ("fl_rec.page.report", "write a run as one HTML page, which works offline"),
    "coordinator": (
        "fl_rec.coordinator.process",
        "start a run's lost coordinator again, or try a strategy on a recorded run",
    ),
    "export": ("fl_rec.serving.export", "write a saved model as a folder that needs nothing else"),
    "recommend": ("fl_rec.serving.recommend", "show what an exported model would recommend to a user"),
    "evaluate": ("fl_rec.serving.evaluate", "measure saved models on test shards, as the training log does"),
    "compress": ("fl_rec.serving.compress", "make a saved model smaller"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 if it could not start."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="fl-rec", description="Federated training of recommenders on Paddle's parameter server."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    asked = next((each for each in arguments if not each.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == asked:
            import_module(module).add_arguments(command)
    options = parser.parse_args(arguments)
    return _play(import_module(COMMANDS[options.command][0]), options, parser.prog)


def run_script(command: ModuleType, **defaults: Any) -> int:
    """Runs a command's module as a script of its own; `defaults` are for its add_arguments."""
    parser = argparse.ArgumentParser(description=command.__doc__)
    command.add_arguments(parser, **defaults)
    return _play(command, parser.parse_args(), parser.prog)


def _play(command: ModuleType, options: argparse.Namespace, program: str) -> int:
    try:
        code: int = command.command(options)
        return code
    except BrokenPipeError:  # as in `fl-rec ... | head`; Python would complain of it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (FLRecError, OSError) as err:
        print(f"{program}: error: {err}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
