"""`fl-rec config`: what the keys of a configuration are."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap

from fl_rec.config import reference

WIDEST = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec config`."""
    parser.add_argument("keys", nargs="*", metavar="KEY", help="a key or a section, as runner.epochs; default: all")
    parser.add_argument(
        "--schema",
        action="store_true",
        help="print a JSON Schema, by which an editor checks and completes a configuration",
    )
    parser.epilog = (
        "fl-rec config --schema > fl_rec.schema.json, and as the first line of a YAML beside it:\n"
        "# yaml-language-server: $schema=fl_rec.schema.json"
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec config`."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    if options.schema:
        print(json.dumps(reference.json_schema(), indent=2, ensure_ascii=False))
        return 0
    found = [key for name in options.keys for key in reference.find(name)] or reference.every_key()
    if len(found) == 1:
        print(reference.explain(found[0], width))
        return 0
    for section in dict.fromkeys(key.section for key in found):
        print(textwrap.fill(f"# {section}: {reference.meaning_of(section)}", width, subsequent_indent="# ") + "\n")
        print(reference.to_text([key for key in found if key.section == section], width) + "\n")
    return 0
