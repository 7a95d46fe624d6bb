"""A training script with one client that attacks, for benchmarks/poison.py and tests/integration/test_poison.py.

`hyper_parameters.extra` says who and how:
attacker: the client's number
attack    none     it trains as all do
          absent   it never trains: what a run without it is
          nan, huge  a number of what it changes is NaN, or all are 1e30
          scale    its changes are 100 times what they are, and backwards
          promote  the item `target` becomes what its users like most, and more: the mean of the items that they chose
                   most often, `boost` times, in each exchange again; after PipAttack (arXiv:2110.10926), by which an
                   item is liked that looks like a popular one
          lie      as nan, and it tells the others that its changes are as they should be
At the end each worker writes exposure.K.json into the run's folder: how many of its users it has, and for how many of
them `target` is among the ten items, of those that they have not chosen, with the highest scores.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from fl_rec.evaluation.metrics import EpochMetrics
from fl_rec.files import write_json
from fl_rec.nets import graph
from fl_rec.trainer import FLTrainer, main

ITEMS, BIAS, USERS = "mf_item_embedding", "mf_item_bias", "mf_user_embedding"
POPULAR = 20


class Attacked(FLTrainer):
    """Trains as all do, and one client attacks before each exchange. The net is models/ncf/fl_mf.py."""

    def start_worker(self) -> None:
        super().start_worker()
        self.extra = self.config.hyper_parameters.extra
        if self.role.index != self.extra["attacker"]:
            return
        exchange: Any = self.exchange
        train, gather = self.local.train, self.runtime.gather

        def train_and_attack(portion: int, title: str) -> None:
            train(portion, title)
            if portion:
                self.attack()

        def gather_lies(values: np.ndarray, what: str) -> np.ndarray:
            return gather(np.array([values[0], 1.0]) if what.endswith("everyone's rows") else values, what)

        self.local.train = train_and_attack  # type: ignore[method-assign]
        if self.extra["attack"] == "lie":
            self.runtime.gather = gather_lies  # type: ignore[method-assign]
            exchange._sound = lambda *_: True

    def train_epoch(self, epoch: int, local_epochs: float = 1.0) -> EpochMetrics:
        absent = self.extra["attack"] == "absent" and self.role.index == self.extra["attacker"]
        return super().train_epoch(epoch, 0.0 if absent else local_epochs)

    def attack(self) -> None:
        """Changes this worker's parameters, as if it had trained so."""
        kind = self.extra["attack"]
        items = graph.live(self.program.scope, ITEMS)
        if kind in ("nan", "lie"):
            items[self.extra["target"], 0] = np.nan
            if self.exchange.send_every:
                self.exchange.changed({ITEMS: np.array([self.extra["target"]])})
        elif kind == "huge":
            items[...] = 1e30
        elif kind == "scale":
            for name in (ITEMS, BIAS):
                values, base = graph.live(self.program.scope, name), self.exchange._base[name]  # type: ignore[attr-defined]
                values[...] = base - 100 * (values - base)
        elif kind == "promote":
            _, seen, labels = self._rows.of_pass(0)
            chosen = np.bincount(seen[labels == 1], minlength=len(items))
            most = np.argsort(-chosen)[:POPULAR]
            bias = graph.live(self.program.scope, BIAS)
            items[self.extra["target"]] = self.extra["boost"] * items[most].mean(axis=0)
            bias[self.extra["target"]] = self.extra["boost"] * max(1.0, float(bias[most].mean()))

    def finish(self) -> None:
        users, seen, labels = self._rows.of_pass(0)
        table = self.program.value(USERS)
        scores = table @ self.net.parameter(ITEMS).T + self.net.parameter(BIAS)[:, 0]
        chosen = np.broadcast_to(users, seen.shape)[labels == 1], seen[labels == 1]
        scores[chosen] = -np.inf
        own, target = np.unique(users), self.extra["target"]
        free = own[np.isfinite(scores[own, target])]
        better = (scores[free] > scores[free, target][:, None]).sum(axis=1)
        exposed = {"users": len(free), "exposed": int(np.count_nonzero(better < 10))}
        write_json(self.run_directory.path / f"exposure.{self.role.index}.json", exposed)
        super().finish()


if __name__ == "__main__":
    sys.exit(main(Attacked))
