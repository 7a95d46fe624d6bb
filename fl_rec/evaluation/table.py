"""An epoch's figures as a table for people, no wider than where it is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import EpochRecord
from fl_rec.tables import GAP, RULE, column_widths, figure, format_table, text_width

WIDTH = 80  # of a file's lines
_NAME = 16  # columns of a client's name, before another column is left out for it
# The share of users above which a note says that a net has collapsed. One that has not has none.
_MANY_TIED = 0.1


class _Column(NamedTuple):
    """A column; `rank`: the highest is the first to be left out where there is no room, and 0 never is."""

    of: str
    title: str
    cell: Callable[[EpochRecord], str]
    rank: int = 0


def epoch_table(record: EpochRecord, title: str, names: Sequence[str] = (), width: int = WIDTH) -> str:
    """`title`, one line per client in order, one for all together; `-` is no figure.

    Args:
        record: of all clients together.
        names: the clients' own, by number; there may be none.
        width: columns of the terminal. What has no room is in metrics.jsonl.
    """

    def name(each: EpochRecord) -> str:
        known = each.client != ALL and int(each.client) < len(names)
        return f"{each.client} {names[int(each.client)]}" if known else str(each.client)

    lines = [*record.clients, record]
    whose = ["", "client", *map(name, lines)]
    needed = max(map(text_width, whose))
    columns = _columns(record)
    while True:
        shown = [[each.of, each.title, *map(each.cell, lines)] for each in columns]
        others = column_widths(zip(*shown))
        room = width - sum(others) - len(GAP) * len(others)
        if room >= min(needed, _NAME) or not any(each.rank for each in columns):
            break
        columns.remove(max(columns, key=lambda each: each.rank))
    head_of_all, head, *rest = zip(whose, *shown)
    table = [head_of_all, head, RULE, *rest[:-1], RULE, rest[-1]]
    widths = [max(len("client"), min(needed, room)), *others]
    return format_table(table, title=title, left=[0] if names else (), widths=widths)


def note_of_ties(record: EpochRecord) -> list[str]:
    """What to say if many users have no hit only because scores are equal."""
    if record.test_tied <= _MANY_TIED * record.test_users:
        return []
    return [
        f"{record.test_tied:,} of {record.test_users:,} test users have no hit in HR@{record.top_k} only because many "
        "items have one and the same score, and a tie counts as a miss: the net has collapsed, as one of ReLUs does "
        "when what workers learn alike adds up. Set runner.exchanges_per_epoch=5, by which they take the mean of it; a "
        "fifth of hyper_parameters.optimizer.learning_rate helps too, but less."
    ]


def _columns(record: EpochRecord) -> list[_Column]:
    def share(of: str, title: str, name: str, rank: int = 0) -> _Column:
        return _Column(of, title, lambda each: figure(getattr(each, name), ".3f"), rank)

    at = f"@{record.top_k}"
    validated = math.isfinite(record.validation_ndcg)
    return [
        _Column("train", "rows", lambda each: f"{each.rows:,}", 1),
        _Column("train", "s", lambda each: figure(each.seconds, ",.1f"), 5),
        _Column("train", "rows/s", lambda each: figure(each.rows_per_second, ",.0f"), 6),
        _Column("train", "loss", lambda each: figure(each.train_loss, ".4f")),
        share("train", "AUC", "train_auc", 4),
        share("test", "AUC", "test_auc"),
        _Column("test", "users", lambda each: figure(each.test_users or None, ",d"), 3),
        share("test", f"HR{at}", "hr"),
        share("test", f"NDCG{at}", "ndcg"),
        *([share("valid.", f"HR{at}", "validation_hr", 2)] if validated else ()),
        *([share("valid.", f"NDCG{at}", "validation_ndcg")] if validated else ()),
    ]
