"""Arguments that several commands share. It imports nothing, so that a command can show at once that it lives."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {text}")
    return int(text)


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
        help="override keys: -o runner.epochs=5; relative paths start at the folder of FILE",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "fl-rec config lists the keys, and explains one: fl-rec config runner.epochs"
