"""`fl-rec compare`: in what runs differ, of their configurations, figures and curves."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rec.commands.chart import LEVEL, chart
from fl_rec.config.schema import RENAMED
from fl_rec.config.written import KEYS, read
from fl_rec.errors import ConfigError
from fl_rec.evaluation.records import EpochRecord
from fl_rec.page.content import content_of
from fl_rec.page.render import comparison_page
from fl_rec.page.report import write_page
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.listing import Listed, find_run, open_run
from fl_rec.tables import RULE, figure, format_table
from fl_rec.typed import to_plain

# A letter for each.
_MOST = len(string.ascii_uppercase)
PAGE = Path("compare.html")
# They name the run itself.
_OWN = ("runner.run_dir",)


@dataclass(frozen=True)
class Figure:
    """One of a run's figures.

    Attributes:
        name: for people; @K stands for the run's own K.
        of: a record's value.
        spec: its format.
    """

    name: str
    of: Callable[[EpochRecord], float]
    spec: str = ".4f"


FIGURES = (
    Figure("HR@K", lambda each: each.hr),
    Figure("NDCG@K", lambda each: each.ndcg),
    Figure("test AUC", lambda each: each.test_auc),
    Figure("train loss", lambda each: each.train_loss),
    Figure("seconds", lambda each: each.seconds, ".1f"),
)
CURVES = (FIGURES[0], FIGURES[3])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec compare`."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or the end of its name in runs/")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the differences as JSON")
    shown.add_argument("--html", action="store_true", help="write them as one HTML page, which works offline")
    parser.add_argument(
        "--out", type=Path, default=PAGE, metavar="FILE", help=f"with --html: the file; default: {PAGE}"
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec compare`."""
    paths = [find_run(name) for name in options.runs]
    if not 2 <= len(set(paths)) == len(paths) <= _MOST:
        raise ConfigError(
            f"Two to {_MOST} different runs are compared. Received: {len(paths)}, {len(set(paths))} of them different. "
            "fl-rec runs lists what there is."
        )
    if options.html:
        print(
            f"page      {write_page(comparison_page([content_of(RunDirectory(path)) for path in paths]), options.out)}"
        )
        return 0
    found = [open_run(path) for path in paths]
    trees = [keys_of(path / "config.yaml") for path in paths]
    if options.json:
        print(json.dumps({"configuration": differences(trees), "figures": [_plain(each) for each in found]}, indent=2))
    else:
        print(to_text(found, differences(trees), shutil.get_terminal_size().columns))
    return 0


def keys_of(path: Path) -> dict[str, Any]:
    """Every key of a run's configuration, by its dotted name; nothing in it is run."""
    tree, _ = read(path)
    renamed = {new: old for old, new in RENAMED.items()}
    return {name: _value(tree, name, _value(tree, renamed.get(name, ""), item.default)) for name, item in KEYS.items()}


def differences(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which configurations differ, with each one's value."""
    values = {name: [to_plain(tree[name]) for tree in trees] for name in KEYS if name not in _OWN}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def to_text(found: Sequence[Listed], differ: Mapping[str, Sequence[Any]], width: int) -> str:
    """A comparison for a terminal."""
    letters = string.ascii_uppercase[: len(found)]
    parts = [
        format_table(
            [
                [letter, each.run.path.name, each.state, f"{len(each.epochs)} epochs"]
                for letter, each in zip(letters, found)
            ],
            left=(0, 1, 2),
        ),
        _configurations(letters, differ, width),
        _figures(letters, found),
    ]
    for each in CURVES:
        curves = {
            letter: [(record.epoch, each.of(record)) for record in run.epochs] for letter, run in zip(letters, found)
        }
        level = _popularity(each, found[0])
        if drawn := chart(curves, width, level=level):
            dots = "" if level is None else f"   ({LEVEL * 3} popularity, {level:.4f})"
            parts.append(f"{_name(each, found)}{dots}\n{drawn}")
    return "\n\n".join(parts)


def _configurations(letters: str, differ: Mapping[str, Sequence[Any]], width: int) -> str:
    if not differ:
        return "The configurations are alike."
    lines = [["key", *letters], RULE]
    lines += [[name, *(json.dumps(each, ensure_ascii=False) for each in values)] for name, values in differ.items()]
    each = max(8, (width - max(len(name) for name in differ)) // len(letters) - 2)
    widths = [max(len(line[column]) for line in lines if line) for column in range(len(letters) + 1)]
    table = format_table(lines, left=(0,), widths=[widths[0], *(min(each, width) for width in widths[1:])])
    return f"{table}\nThe other {len(KEYS) - len(_OWN) - len(differ)} keys are alike."


def _figures(letters: str, found: Sequence[Listed]) -> str:
    """The figures of the epoch that each keeps, and by how much they differ from the first one's."""
    kept = [run.kept for run in found]
    lines = [["figure", *letters, *(f"{letter} - A" for letter in letters[1:])], RULE]
    lines.append(["epoch", *("-" if each is None else str(each.epoch) for each in kept), *[""] * (len(kept) - 1)])
    for each in FIGURES:
        values = [math.nan if record is None else each.of(record) for record in kept]
        changes = [figure(value - values[0], f"+{each.spec}") for value in values[1:]]
        lines.append([_name(each, found), *(figure(value, each.spec) for value in values), *changes])
        popular = [_popularity(each, run) for run in found]
        if any(value is not None for value in popular):
            told = [figure(value, each.spec) for value in popular]
            lines.append(["  popularity", *told, *[""] * (len(found) - 1)])
    return format_table(lines, left=(0,))


def _name(each: Figure, found: Sequence[Listed]) -> str:
    tops = {run.kept.top_k for run in found if run.kept is not None}
    return each.name.replace("@K", f"@{tops.pop()}") if len(tops) == 1 else each.name


def _popularity(each: Figure, run: Listed) -> float | None:
    """What ranking by popularity comes to on a run's data, if that is known."""
    return None if run.kept is None else run.popularity.get(each.name.lower().replace("@k", f"@{run.kept.top_k}"))


def _plain(run: Listed) -> dict[str, Any]:
    kept = run.kept
    figures = {} if kept is None else {each.name: each.of(kept) for each in FIGURES}
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {"run": str(run.run.path), "state": run.state, "epochs": len(run.epochs), **finite}


def _value(tree: Any, name: str, default: Any) -> Any:
    for part in name.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return default
        tree = tree[part]
    return tree
