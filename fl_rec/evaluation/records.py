"""The figures of a run as it has written them: the lines of metrics.jsonl, typed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Lt

from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.files import whole_line
from fl_rec.outside import Count, Number, Share, as_typed
from fl_rec.packed import open_regular

Epoch = Annotated[Count, Lt(1_000_000)]
Client = Annotated[Count, Lt(1_000_000)] | Literal["all"]


@dataclass(frozen=True)
class Groups:
    """Test users with 0 to 19 training positives, 20 to 49, 50 to 99, 100 to 199, 200 and more, in this order.

    Attributes:
        users: how many there are.
        hits: how many have a hit.
        ndcg_sum: sum of their NDCG.
    """

    users: tuple[Count, ...]
    hits: tuple[Count, ...]
    ndcg_sum: tuple[Number, ...]


@dataclass(frozen=True)
class EpochRecord:
    """Figures of one epoch, of one client or of all of them together; NaN where there is no figure.

    Attributes:
        epoch: from 1.
        client: its number; "all" for all together.
        rows: rows trained on.
        seconds: wall time of the training, without evaluation; of all together, that of the slowest.
        rows_per_second: rows / seconds.
        train_loss, train_auc: of the training rows.
        test_auc, hr, ndcg: of the test shards, HR@K and NDCG@K.
        test_users, test_tied: users tested; those without a hit only because scores are equal.
        top_k: K of HR@K and NDCG@K.
        validation_hr, validation_ndcg: of the validation shards.
        train_seconds, exchange_seconds, wait_seconds, evaluation_seconds, save_seconds: what the time since the figures
            of the epoch before went to, the last exchange with its flushing, and waiting for others and the
            coordinator, apart; of all together, the mean.
        epsilon: what differential privacy has spent so far.
        groups: the test users by how much history they have; None where nobody knows.
        extra: what a trainer of one's own has added.
        clients: of all together, each client's record, by number.
    """

    epoch: Epoch
    client: Client
    rows: Count
    seconds: Number
    rows_per_second: Number
    train_loss: Number
    train_auc: Share
    test_auc: Share
    hr: Share
    ndcg: Share
    test_users: Count
    top_k: Count
    test_tied: Count = 0
    validation_hr: Share = math.nan
    validation_ndcg: Share = math.nan
    epsilon: Number = math.nan
    train_seconds: Number = math.nan
    exchange_seconds: Number = math.nan
    wait_seconds: Number = math.nan
    evaluation_seconds: Number = math.nan
    save_seconds: Number = math.nan
    groups: Groups | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    clients: tuple[EpochRecord, ...] = field(default=(), repr=False)

    def figures(self) -> dict[str, Any]:
        """Every figure by its name, `extra` among them."""
        return {**{name: getattr(self, name) for name in _NAMES}, **self.extra}


_FIELDS = [each for each in dataclasses.fields(EpochRecord) if each.name not in ("extra", "clients", "groups")]
_NAMES = tuple(each.name for each in _FIELDS)
_NEEDED = tuple(each.name for each in _FIELDS if each.default is dataclasses.MISSING)


@dataclass(frozen=True)
class _Whose:
    """What every line has."""

    epoch: Epoch
    client: Client


def parse_line(text: str, where: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None, which is told, if it was torn: it is no JSON object.

    Args:
        where: the file and the line's number.

    Raises:
        DataError: it does not tell its epoch and client, or a figure is none.
    """
    rule = "A line of metrics.jsonl has the figures of an epoch and a client."
    line = whole_line(text, where)
    if line is None:
        return None
    as_typed(_Whose, line, rule, where)
    as_typed(_known(), {name: value for name, value in line.items() if value is not None}, rule, where)
    return line


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics.jsonl that are whole, as they come, epochs counted from 1.

    Raises:
        DataError: it can't be read; or see `parse_line`.
    """
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8", "replace").split("\n")
    except OSError as err:
        raise DataError(f"A metrics.jsonl must be readable. Received: {path} ({err}).") from err
    found = (parse_line(line, f"{path}, line {number}") for number, line in enumerate(text, 1) if line.strip())
    return from_one([line for line in found if line is not None])


def from_one(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of one run, their epochs counted from 1."""
    return [from_one_on(line) for line in lines] if counts_from_zero(lines) else lines


def counts_from_zero(lines: Iterable[Mapping[str, Any]]) -> bool:
    """Whether an earlier version wrote them, whose first epoch was 0."""
    return any(line.get("epoch") == 0 for line in lines)


def from_one_on(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line of an earlier version, as it is counted now."""
    return {**line, "epoch": line["epoch"] + 1}


@cache
def _known() -> type[Any]:
    """The figures that there may be, each of which may be missing."""
    hints = get_type_hints(EpochRecord, include_extras=True)
    return make_dataclass("Figures", [(name, hints[name] | None, field(default=None)) for name in (*_NAMES, "groups")])


def records_of(lines: Iterable[Mapping[str, Any]]) -> list[EpochRecord]:
    """Typed records of what `RunDirectory.read_metrics` gives, in its order.

    Args:
        lines: by epoch, all clients together last.

    Raises:
        DataError: a line lacks a figure.
    """
    records: list[EpochRecord] = []
    for _, together in groupby(lines, key=itemgetter("epoch")):
        of_epoch: list[EpochRecord] = []
        for line in together:
            known: dict[str, Any] = {
                name: math.nan if line[name] is None else line[name] for name in _NAMES if name in line
            }
            extra = {name: value for name, value in line.items() if name not in (*_NAMES, "groups")}
            groups = line.get("groups")
            clients = tuple(of_epoch) if line["client"] == ALL else ()
            missing = [name for name in _NEEDED if name not in known]
            if missing:
                raise DataError(
                    "A line of metrics.jsonl has the figures of an epoch and a client. Received: one of epoch "
                    f"{line['epoch']} without {', '.join(missing)}."
                )
            of_epoch.append(EpochRecord(**known, groups=groups and Groups(**groups), extra=extra, clients=clients))
        records += of_epoch
    return records
