"""`fl-rec runs`: a project's runs, and removing some."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fl_rec.arguments import called_as
from fl_rec.commands.words import bytes_in_words, seconds_in_words
from fl_rec.errors import ConfigError, RunError
from fl_rec.runs.directory import RUNS, RunDirectory
from fl_rec.runs.listing import Listed, find_run, goes_on, list_runs, measuring
from fl_rec.tables import cut, figure, format_table, printable, shown_json, text_width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec runs`."""
    parser.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help="whose runs; default: ./runs")
    parser.add_argument("--json", action="store_true", help="print them as JSON, with every figure")
    actions = parser.add_subparsers(dest="action", metavar="remove")
    remove = actions.add_parser("remove", help="remove runs, with their models and checkpoints")
    remove.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or the end of its name")
    remove.add_argument("--yes", action="store_true", help="don't ask")


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec runs`."""
    if options.action == "remove":
        return _remove([find_run(name, options.project) for name in options.runs], options.yes)
    found = list_runs(options.project)
    if options.json:
        print(shown_json([to_plain(each) for each in found], indent=2))
    elif found:
        print(to_table(found, shutil.get_terminal_size().columns, time.time()))
    else:
        print(f"There are no runs in {(options.project / RUNS).resolve()}. {called_as()} run starts one.")
    return 0


def to_plain(each: Listed) -> dict[str, Any]:
    """A run for a program: its figures are those of the epoch that is kept."""
    return {
        "run": each.short,
        "path": str(each.run.path.absolute()),
        "configuration": each.configuration,
        "overrides": list(each.overrides),
        "state": each.state,
        "error": each.error,
        "epochs": len(each.epochs),
        **_figures(each),
        "size_bytes": each.size,
        "started": datetime.fromtimestamp(each.started).astimezone().isoformat(timespec="seconds"),
    }


def to_table(found: Sequence[Listed], width: int, now: float) -> str:
    """Runs for people, `width` columns wide if that will do."""
    tops = {each.kept.top_k for each in found if each.kept is not None}
    top = next(iter(tops)) if len(tops) == 1 else "K"
    lines = [["run", "configuration", "state", "epochs", f"HR@{top}", f"NDCG@{top}", "AUC", "size", "age"]]
    for each in found:
        kept = each.kept
        figures = [math.nan] * 3 if kept is None else [kept.hr, kept.ndcg, kept.test_auc]
        epochs = str(len(each.epochs))
        shown = [figure(value, ".4f") for value in figures]
        age = seconds_in_words(now - each.started)
        lines.append([each.short, each.configuration, each.state, epochs, *shown, bytes_in_words(each.size), age])
    widths = [max(text_width(line[column]) for line in lines) for column in range(len(lines[0]))]
    widths[1] = max(13, min(widths[1], width - sum(widths) + widths[1] - 2 * (len(widths) - 1)))
    head, *rows = format_table(lines, left=(0, 1, 2), widths=widths).splitlines()
    for each, row in zip(found, rows):
        typed = [word for word in each.overrides if not word.startswith("runner.run_dir=")]  # which names the run
        told = [printable(" ".join(typed and ["-o", *typed])), " ".join(each.error.split())]
        head = "\n".join([head, row, *(f"  {cut(line, width - 2)}" for line in told if line)])
    return head


def _figures(each: Listed) -> dict[str, Any]:
    if each.kept is None:
        return {}
    kept = each.kept
    named = {"epoch": kept.epoch, f"hr@{kept.top_k}": kept.hr, f"ndcg@{kept.top_k}": kept.ndcg}
    named |= {"test_auc": kept.test_auc, "train_loss": kept.train_loss}
    return {name: value if value == value else None for name, value in named.items()}


def _remove(paths: Sequence[Path], sure: bool) -> int:
    for path in paths:
        if goes_on(RunDirectory(path)):
            raise RunError(f"A run is removed when its job has ended. Received: {path}, which trains. End it: Ctrl-C")
    with measuring(paths) as sizes:
        for path, size in zip(paths, sizes()):
            print(f"{path}  {bytes_in_words(size)}")
    if not sure:
        if not sys.stdin.isatty():
            raise ConfigError("Removing runs is asked about on a terminal. Received: none. Say so before: --yes")
        answer = input(f"Remove {'this run' if len(paths) == 1 else f'these {len(paths)} runs'} for good? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return 0
    for path in paths:
        shutil.rmtree(path)
    print(f"removed {len(paths)}")
    return 0
