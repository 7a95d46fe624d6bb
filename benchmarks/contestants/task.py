"""What a contestant is told, and how it tells its figures: a file of JSON each way. Numpy only.

A contestant is started as `python CONTESTANT.py TASK`. It trains the task's shards, and adds a line to the task's
record for each epoch as soon as its ranking is known, so that one that is stopped has told what it came to.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import numpy as np

from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import parse_multislot
from fl_rec.evaluation.metrics import Evaluation
from fl_rec.evaluation.ranking import rank_metrics

TOP_K = 10


@dataclass(frozen=True)
class Task:
    """What to train, in terms that need no fl_rec.

    Attributes:
        net: mlp, NCF's of `fc_layers`; or mf, the dot product of embeddings of `width`, and an item's bias.
        train, test: files of MultiSlot text, one for each client, in order.
        train_rows: of each client, as the shards have them.
        num_items: ids are below it.
        record: where the epochs' figures go.
        epochs: how many.
        exchanges: in an epoch.
        aggregation: sum, weighted or mean of the clients' changes.
        batch: rows of a step.
        negatives: drawn anew in every epoch for each positive, in one row with it; None trains the shards' own rows.
        adam: or else SGD.
        learning_rate: of the first step.
        falls: whether it falls to 0 at the end.
        l2: of the users' and the items' embeddings that a batch looks up.
        std: of the first embeddings.
        fc_layers, width: of the net.
        seed: of all that is random.
        processes: that share the clients, of one thread each.
        by_hand: mf's gradient is written out, not left to autograd.
    """

    net: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    train_rows: tuple[int, ...]
    num_items: int
    record: str
    epochs: int
    exchanges: int
    aggregation: str
    batch: int
    negatives: int | None
    adam: bool
    learning_rate: float
    falls: bool
    l2: tuple[float, float]
    std: float
    fc_layers: tuple[int, ...]
    width: int
    seed: int
    processes: int
    by_hand: bool = False

    @classmethod
    def read(cls, path: str | Path) -> Task:
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """What each client's change counts in an exchange."""
        clients, total = len(self.train), sum(self.train_rows)
        return {
            "sum": (1.0,) * clients,
            "mean": (1.0 / clients,) * clients,
            "weighted": tuple(rows / total for rows in self.train_rows),
        }[self.aggregation]

    def deal(self) -> list[list[int]]:
        """The clients of each process: the longest is dealt first, each to whoever has least."""
        hands: list[list[int]] = [[] for _ in range(min(self.processes, len(self.train)))]
        for client in sorted(range(len(self.train)), key=lambda client: -self.train_rows[client]):
            min(hands, key=lambda hand: sum(self.train_rows[each] for each in hand)).append(client)
        return hands

    def rate(self, epoch: int, part: int) -> float:
        """The learning rate of a part of an epoch, of which there are `exchanges`: that of its middle."""
        done = (epoch + (part + 0.5) / self.exchanges) / self.epochs
        return self.learning_rate * (1 - done) if self.falls else self.learning_rate

    def tell(self, epoch: int, rows: int, items: int, seconds: float, ranked: Evaluation | None) -> None:
        """Adds an epoch's line to the record.

        Args:
            rows, items: trained by all clients.
            seconds: of the training and its exchanges, without the evaluation.
            ranked: all test users; None if nothing is evaluated.
        """
        line: dict[str, Any] = {"epoch": epoch, "rows": rows, "seconds": seconds, "rows_per_second": rows / seconds}
        line["items_per_second"] = items / seconds
        if ranked is not None:
            line.update(hr=ranked.hit_rate, ndcg=ranked.ndcg)
        with open(self.record, "a", encoding="utf-8") as record:
            record.write(json.dumps({**line, "time": time.time()}) + "\n")


def read_shard(path: str, cache: Path | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A shard's users, items and labels, int64 [rows].

    Args:
        cache: a folder in which arrays are kept for the next process; None keeps nothing.
    """
    kept = cache / f"{Path(path).parent.name}-{Path(path).stem}.npy" if cache else None
    if kept is not None and kept.exists():
        table = np.load(kept)
    else:
        table = np.hstack(parse_multislot(Path(path).read_bytes(), 3, path)).T.copy()
        if kept is not None:
            np.save(kept, table)
    users, items, labels = table.astype(np.int64)
    return users, items, labels


class ClientRows:
    """A client's training rows. Users go by local ids, 0 and up.

    Args:
        number: the client.
        cache: see `read_shard`.

    Attributes:
        ids: of each user among all, in order.
    """

    def __init__(self, task: Task, number: int, cache: Path | None = None) -> None:
        users, items, labels = read_shard(task.train[number], cache)
        self.ids, users = np.unique(users, return_inverse=True)
        self._rows = users[:, None], items[:, None], labels[:, None]
        self._fresh = None
        if task.negatives is not None:
            sizes = task.num_items, task.negatives, 1 + task.negatives
            self._fresh = FreshNegatives(np.hstack(self._rows), *sizes, seed=task.seed + number)

    def epoch(self, number: int) -> tuple[np.ndarray, ...]:
        """Users [rows, 1], items and labels [rows, group]; drawn as our own are, where they are drawn anew."""
        return self._rows if self._fresh is None else self._fresh.epoch(number)


def rank(users: np.ndarray, items: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Evaluation:
    """As our own jobs are ranked."""
    return rank_metrics(users, labels, scores, TOP_K, items)
