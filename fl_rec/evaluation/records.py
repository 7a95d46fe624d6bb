"""The figures of a run as it has written them: the lines of metrics.jsonl, typed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from fl_rec.evaluation.metrics import ALL


@dataclass(frozen=True)
class EpochRecord:
    """Figures of one epoch, of one client or of all of them together; NaN where there is no figure.

    Attributes:
        epoch: from 0.
        client: its number; "all" for all together.
        rows: rows trained on.
        seconds: wall time of the training, without evaluation; of all together, that of the slowest.
        rows_per_second: rows / seconds.
        train_loss, train_auc: of the training rows.
        test_auc, hr, ndcg: of the test shards, HR@K and NDCG@K.
        test_users, test_tied: users tested; those without a hit only because scores are equal.
        top_k: K of HR@K and NDCG@K.
        validation_hr, validation_ndcg: of the validation shards.
        epsilon: what differential privacy has spent so far.
        extra: what a trainer of one's own has added.
        clients: of all together, each client's record, by number.
    """

    epoch: int
    client: int | str
    rows: int
    seconds: float
    rows_per_second: float
    train_loss: float
    train_auc: float
    test_auc: float
    hr: float
    ndcg: float
    test_users: int
    top_k: int
    test_tied: int = 0
    validation_hr: float = math.nan
    validation_ndcg: float = math.nan
    epsilon: float = math.nan
    extra: Mapping[str, Any] = field(default_factory=dict)
    clients: tuple[EpochRecord, ...] = field(default=(), repr=False)

    def figures(self) -> dict[str, Any]:
        """Every figure by its name, `extra` among them."""
        return {**{name: getattr(self, name) for name in _NAMES}, **self.extra}


_NAMES = tuple(each.name for each in dataclasses.fields(EpochRecord) if each.name not in ("extra", "clients"))


def records_of(lines: Iterable[Mapping[str, Any]]) -> list[EpochRecord]:
    """Typed records of what `RunDirectory.read_metrics` gives, in its order.

    Args:
        lines: by epoch, all clients together last.
    """
    records: list[EpochRecord] = []
    for _, together in groupby(lines, key=itemgetter("epoch")):
        of_epoch: list[EpochRecord] = []
        for line in together:
            known: dict[str, Any] = {
                name: math.nan if line[name] is None else line[name] for name in _NAMES if name in line
            }
            extra = {name: value for name, value in line.items() if name not in _NAMES}
            clients = tuple(of_epoch) if line["client"] == ALL else ()
            of_epoch.append(EpochRecord(**known, extra=extra, clients=clients))
        records += of_epoch
    return records
