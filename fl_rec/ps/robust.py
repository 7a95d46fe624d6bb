"""The exchange in which everybody sees what each client shares, so that few can't move the common model far."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fl_rec.errors import Diverged
from fl_rec.ps import changes
from fl_rec.ps.exchange import SynchronousGeo
from fl_rec.ps.model import slices

# What a client says of the norm of its changes may be off by so much, for the order in which squares are added.
_TOLERANCE = 1e-3


class RobustGeo(SynchronousGeo):
    """As `SynchronousGeo`, by `runner.aggregation` trimmed_mean or median (arXiv:1803.01498).

    Every worker gets every worker's changes, a block at a time, clips them (`runner.clip_update`), and works out the
    same aggregate of those that have trained; the first worker sends it to the servers. So nothing depends on what a
    client does with its own changes, or says of them: one whose norm is not what it says is refused, and what the
    servers hold afterwards must be what this worker has worked out itself.

    A row of an embedding that some clients have not trained counts as not changed by them: who alone trains an item
    does not decide what it becomes.
    """

    def merge(self, rows: int, what: str) -> None:
        self._wanted = {name: base.copy() for name, base in self._base.items()}
        super().merge(rows, what)

    def send(self, everyone: np.ndarray, lengths: np.ndarray, what: str) -> None:
        index, runner = self.runtime.role.index, self.config.runner
        total = {name: np.zeros_like(base) for name, base in self._base.items()}
        longest = {name: np.zeros(len(everyone)) for name in total}
        while everyone.any():
            squares = np.zeros(len(everyone))
            who = np.flatnonzero(everyone)
            factors = np.array([changes.clip(lengths[worker], runner.clip_update) for worker in who], np.float32)
            trim = 0.5 if runner.aggregation == "median" else runner.trim
            for name, rows in self._blocks():
                own = self._base[name].reshape(len(self._base[name]), -1)[rows]
                gathered = self._gather(own if everyone[index] else np.zeros_like(own), what)
                squares += [changes.norm([each]) ** 2 for each in gathered]
                by_row = gathered.reshape(len(everyone), len(own), -1)
                longest_now = np.sqrt(np.einsum("cij,cij->ci", by_row, by_row).max(axis=1))
                np.maximum(longest[name], longest_now, out=longest[name])
                block = gathered[who]
                block *= factors[:, None]
                total[name].reshape(len(total[name]), -1)[rows] = changes.trimmed(block, trim).reshape(own.shape)
            lying = (everyone > 0) & ~(np.abs(np.sqrt(squares) - lengths) <= _TOLERANCE * lengths)
            if not lying.any():
                break
            lengths[lying] = np.nan
            self.judge(everyone, lengths, what)
        for name, each in longest.items():
            self.name_outliers(f"changes of a row of {name}", each, everyone)
        for values in total.values():
            values *= np.float32(runner.server_learning_rate)
        if self.runtime.role.is_first_worker:
            self.push(total)
        for name, values in total.items():
            self._wanted[name] += values

    def look_at_pulled(self, what: str) -> None:
        """Raises Diverged if the servers hold anything else than what this worker has worked out."""
        # To the bit, but for what a processor may take for 0: what is let pass would add up, exchange by exchange.
        far = [name for name, wanted in self._wanted.items() if not np.allclose(self._base[name], wanted, 0, 1e-30)]
        if far:
            raise Diverged(
                f"{what}: the servers must hold what all have worked out of everyone's changes. Received: another "
                f"{', '.join(far)}, which somebody has sent there beside. Look for who reaches the servers, and who is "
                "the first worker, which sends for all."
            )

    def _blocks(self) -> Iterator[tuple[str, slice]]:
        for name, base in self._base.items():
            for rows in slices(len(base), base[0].size):
                yield name, rows

    def _gather(self, own: np.ndarray, what: str) -> np.ndarray:
        """float32 [workers, numbers] of every worker's float32 block."""
        flat = np.zeros(own.size + own.size % 2, np.float32)
        flat[: own.size] = own.reshape(-1)
        everyone = self.runtime.gather(flat.view(np.float64), f"{what}: everyone's changes")
        return everyone.view(np.float32)[:, : own.size]
