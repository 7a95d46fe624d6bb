"""Arguments that several commands share. It imports nothing, so that a command can show at once that it lives."""

from __future__ import annotations

import argparse
import os

# Set by fl_run.sh, which then is what the commands are called with.
PROGRAM_KEY = "FL_REC_PROGRAM"


def called_as() -> str:
    """How this user calls fl-rec."""
    return os.environ.get(PROGRAM_KEY, "fl-rec")


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return int(text)


class Help(argparse.RawDescriptionHelpFormatter):
    """Help with an option a line: as Python 3.13 writes it, and beside it what it does."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=27)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, (action.dest or "").upper())
        return f"{', '.join(action.option_strings)} {value}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+" and isinstance(action.metavar, str):
            return f"{action.metavar} ..."
        return super()._format_args(action, default_metavar)


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `-m FILE` and `-o key=value ...`, which all tools share."""
    parser.add_argument("-m", "--config_yaml", metavar="FILE", required=required, help="configuration (YAML)")
    parser.add_argument(
        "-o",
        "--opt",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="set keys: -o runner.epochs=5; paths start at FILE's",
    )
    parser.formatter_class = Help
    parser.epilog = "fl-rec config lists the keys, and explains one: fl-rec config runner.epochs"
