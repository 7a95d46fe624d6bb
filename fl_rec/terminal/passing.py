"""What goes on in a job's processes, as it is seen from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fl_rec.job.observers import RoleView
from fl_rec.runs import roles


@dataclass(frozen=True)
class Client:
    """A client in its epoch.

    Attributes:
        name: what it is called.
        rows, of_rows: trained so far, and in the epoch; 0 of 0 of one that sits it out.
        rate: rows in a second; 0 before the first.
        doing: in a word: "training", "waiting".
    """

    name: str
    rows: int
    of_rows: int
    rate: float
    doing: str

    @property
    def share(self) -> float:
        """Of its rows, those that are trained."""
        return self.rows / self.of_rows if self.of_rows else 1.0

    @property
    def left(self) -> float:
        """Seconds until all are; NaN if nobody knows."""
        rest = self.of_rows - self.rows
        return rest / self.rate if self.rate else math.nan if rest else 0.0


@dataclass(frozen=True)
class Pass:
    """An epoch that goes on."""

    epoch: int
    clients: Sequence[Client]

    @property
    def of_rows(self) -> int:
        """Rows of the epoch, of all together."""
        return sum(each.of_rows for each in self.clients)

    @property
    def share(self) -> float:
        """Of them, those that are trained."""
        return sum(each.rows for each in self.clients) / self.of_rows if self.of_rows else 1.0

    @property
    def rate(self) -> float:
        """Rows in a second, of those together who train."""
        return sum(each.rate for each in self.clients if each.share < 1)

    @property
    def left(self) -> float:
        """Seconds until the last has trained its rows; NaN if nobody knows."""
        return max((each.left for each in self.clients if not math.isnan(each.left)), default=math.nan)

    @property
    def doing(self) -> str:
        """What most clients do."""
        words = [each.doing for each in self.clients]
        return max(words, key=words.count)


def passing(views: Mapping[str, RoleView], name_of: Callable[[int], str]) -> Pass | None:
    """How far the workers are; None before the first epoch.

    Args:
        name_of: what a client is called, by its number.
    """
    found = {name: (view.activity, view.progress) for name, view in views.items()}
    epoch = max((progress.epoch for _, progress in found.values() if progress is not None), default=None)
    if epoch is None:
        return None
    clients = []
    for name, (activity, progress) in found.items():
        if activity is not None and progress is not None and progress.epoch == epoch:
            clients.append(
                Client(
                    name_of(int(name.rpartition(".")[2])),
                    progress.rows,
                    progress.of_rows,
                    progress.rows / progress.seconds if progress.seconds else 0.0,
                    "waiting" if activity.for_others else activity.what.partition(" ")[0],
                )
            )
    return Pass(epoch, clients)


def start_up(views: Mapping[str, RoleView]) -> str:
    """How far the roles have come: "servers 1/1, workers 7/10, building the network"; "" when all run."""
    late = [view for view in views.values() if view.state in ("", roles.STARTING)]
    if not late:
        return ""
    counts = []
    for kind in ("server", "worker", "coordinator"):
        of_kind = [view for name, view in views.items() if name.startswith(kind)]
        there = sum(view not in late for view in of_kind)
        counts += [f"{kind}s {there}/{len(of_kind)}"] if of_kind else []
    doing = [view.activity.what for view in late if view.activity is not None]
    what = max(doing, key=doing.count) if doing else "importing Paddle"
    return ", ".join([*counts, "coming up" if what == "starting" else what])
