"""The exchange in which nobody sees what any one client shares: the servers add up masked numbers."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import paddle

from fl_rec.errors import RunError
from fl_rec.nets import graph
from fl_rec.privacy.secure_sum.clients import least_of, noise_part, threshold_of
from fl_rec.privacy.secure_sum.fixed_point import FixedPoint
from fl_rec.privacy.secure_sum.member import DEALT, VIEW, Member, require_enough, unmask
from fl_rec.privacy.secure_sum.primitives import SEED
from fl_rec.ps import changes
from fl_rec.ps.exchange import SynchronousGeo
from fl_rec.ps.model import ServerModel, Tables
from fl_rec.ps.runtime import PsRuntime

_ROWS = 8  # bytes
_NO_SUM = (
    "what the servers add up must be what the clients sent, and is not: somebody sends what it does not tell, or opens "
    "another mask. Look for who reaches the servers, and at the workers' versions of fl_rec."
)


class HeldModel(ServerModel):
    """A model that no server has, and this worker does.

    Args:
        tables: as the servers have them.
        values: float32 by parameter; they are read when asked for.
    """

    def __init__(self, tables: Tables, values: Mapping[str, np.ndarray]) -> None:
        self.tables, self._values = tables, values

    def pull(self, program: paddle.static.Program, scope: Any) -> None:
        for name in {parameter.name for parameter in program.all_parameters()} & self._values.keys():
            graph.live(scope, name)[...] = self._values[name]

    def values(self) -> Iterator[tuple[str, np.ndarray]]:
        yield from self._values.items()

    def pull_dense(self) -> dict[str, np.ndarray]:
        return {name: self._values[name].copy() for names in self.tables.dense.values() for name in sorted(names)}


class SecureGeo(SynchronousGeo):
    """As `SynchronousGeo`, by secure sums (`fl_rec.privacy.secure_sum`), with `runner.secure_aggregation`.

    The servers' tables add up what the clients send, fixed-point numbers under masks, and hold nothing else once all
    workers have the model that they start from. Keys and shares go between the workers, by gloo, so that servers see
    none of them, nor the sum without its mask. Each worker takes that off and has the new model; sums of integers are
    exact in any order, so that all have the same to the bit, also without `runner.reproducible`.

    All workers are told how many rows each has trained and whether its changes can be learning, and nothing of what
    they are; who can't send them is lost to the sum after it has dealt its keys' shares.
    """

    def __init__(self, runtime: PsRuntime) -> None:
        super().__init__(runtime)
        workers = runtime.role.num_workers
        self.noise = noise_part(self.config, workers)
        self._numbers = FixedPoint.of(workers)
        # Of so many workers' noise, that of the least that a sum has must do.
        self._least = least_of(self.config, workers)

    def start(self, program: paddle.static.Program, scope: Any) -> None:
        super().start(program, scope)
        self._model = np.concatenate([base.reshape(-1) for base in self._base.values()])
        self._shapes = {name: base.shape for name, base in self._base.items()}
        self._base = self._by_name(self._model)
        self._sums, self.servers = self.servers, HeldModel(self.tables, self._base)
        if self.runtime.role.is_first_worker:
            self.push(self._by_name(-self._model))
        # What the tables have of this worker.
        self._there: np.ndarray = np.zeros_like(self._model)
        self.runtime.barrier("the servers' tables are empty")

    def merge(self, rows: int, what: str) -> None:
        member = Member(self.runtime.role.index)
        told = self._tell(rows.to_bytes(_ROWS, "big") + member.keys, f"{what}: everyone's rows")
        everyone = np.array([int.from_bytes(each[:_ROWS], "big") for each in told], np.float64)
        keys = {int(worker): told[worker][_ROWS:] for worker in np.flatnonzero(everyone)}
        if keys:
            self._model += self._sum(member, keys, everyone, what)
        for name, base in self._base.items():
            graph.live(self._scope, name)[...] = base
        if self._spoilt:
            self._begin_anew()
        self._spoilt = False

    def _sum(self, member: Member, keys: Mapping[int, bytes], everyone: np.ndarray, what: str) -> np.ndarray:
        """The clients' changes times their shares, added up.

        Args:
            member: this worker's part; see there for the rounds.
            keys: what those told in round 0 that have trained.
            everyone: float64 [workers], the rows that they have trained; set to 0 of who is lost.

        Returns:
            float32 [numbers of all parameters].
        """
        index, workers = member.number, len(everyone)
        threshold = max(threshold_of(len(keys)), self._least)
        if len(keys) < threshold:
            raise RunError(
                f"{what}: a sum that hides what each client has needs {threshold} clients that train. Received: "
                f"{len(keys)}. Have more of them take part, or leave runner.secure_aggregation out."
            )
        dealt = member.deal(keys, threshold) if index in keys else {}
        table = self._tell_each(dealt, workers, DEALT, f"{what}: everyone's shares")
        own = self._own(everyone, what) if index in keys else None
        sends, self._spoilt = own is not None, index in keys and own is None
        masked: np.ndarray = np.zeros(len(self._model), np.uint32)  # who sends none takes back what was there of it
        if own is not None:
            masked = member.masked(own, {other: table[other][index] for other in keys if other != index})

        total = self._added_up(masked, what)
        before = everyone.copy()
        senders = self._senders(sends, everyone, what)
        require_enough(senders, threshold, len(keys))
        view = member.view(senders) if sends else bytes(VIEW)
        views = dict(enumerate(self._tell(view, f"{what}: what all are about to open")))
        opening = member.open({sender: views[sender] for sender in senders}) if sends else {}
        table = self._tell_each(opening, workers, SEED, f"{what}: opened masks")
        unmask(total, keys, threshold, keys, senders, {sender: dict(enumerate(table[sender])) for sender in senders})

        rows = int(before[senders[0]])
        decoded = self._numbers.decoded(total, self.share(rows, everyone) / self.share(rows, before))
        if decoded is None:
            raise RunError(f"{what}: {_NO_SUM}")
        return decoded

    def _own(self, everyone: np.ndarray, what: str) -> np.ndarray | None:
        """This worker's changes times its share, uint32 [numbers]; None if they can't be learning."""
        numbers = np.empty_like(self._model)
        changed = self._by_name(numbers)
        for name, base in self._base.items():
            np.subtract(graph.live(self._scope, name), base, out=changed[name])
        length, runner = changes.norm([numbers]), self.config.runner
        if self._spoilt or not changes.sound(length):
            return None
        share = self.share(int(everyone[self.runtime.role.index]), everyone)
        factor = runner.server_learning_rate * share * changes.clip(length, runner.clip_update)
        # A run that is resumed, or begun again by the same seed, rounds as it did.
        generator = np.random.default_rng([runner.seed, self.runtime.role.index, zlib.crc32(what.encode())])
        return self._numbers.encoded(numbers, factor, generator)

    def _senders(self, sends: bool, everyone: np.ndarray, what: str) -> list[int]:
        """Who has sent. Of those who have trained and have not, see `judge`."""
        sent = np.array([flag == b"\1" for flag in self._tell(bytes([sends]), f"{what}: who has sent")])
        self.judge(everyone, np.where(sent | (everyone == 0), 0.0, np.nan), what)
        return [int(worker) for worker in np.flatnonzero(everyone)]

    def _added_up(self, masked: np.ndarray, what: str) -> np.ndarray:
        """Sums of all workers' masked numbers, uint32 [numbers].

        A worker has the tables hold a limb of its own in the place of what they held of it, from the last sum or limb.
        So they need not be emptied, and never hold more than a limb of each worker, in whatever order these come.
        """
        total = np.zeros_like(masked)
        for place in range(self._numbers.limbs):
            limb = self._numbers.limb(masked, place)
            self.push(self._by_name(limb - self._there), every_row=True)  # how many differ is nobody's business
            self._there = limb
            self.runtime.barrier(f"{what}: all sent, {place + 1} of {self._numbers.limbs}")
            sums = np.empty_like(limb)
            self._sums.read_into(self._by_name(sums))
            if not self._numbers.add_limb(total, sums, place):
                raise RunError(f"{what}: {_NO_SUM}")
            if place + 1 < self._numbers.limbs:  # else all meet before the next one is sent
                self.runtime.barrier(f"{what}: all received, {place + 1} of {self._numbers.limbs}")
        return total

    def _by_name(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Of all numbers each parameter's, in its shape; the same memory."""
        places = np.cumsum([math.prod(shape) for shape in self._shapes.values()])
        parts = np.split(numbers, places[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), parts)}

    def _tell(self, own: bytes, what: str) -> list[bytes]:
        """Every worker's bytes, for every worker; as many of each."""
        padded = np.frombuffer(own + bytes(-len(own) % 8), np.float64)
        return [row.tobytes()[: len(own)] for row in self.runtime.gather(padded, what)]

    def _tell_each(self, own: Mapping[int, bytes], workers: int, size: int, what: str) -> list[list[bytes]]:
        """By worker, what it has for each worker, of so many bytes; zeros where that is nothing."""
        told = self._tell(b"".join(own.get(worker, bytes(size)) for worker in range(workers)), what)
        return [[row[start : start + size] for start in range(0, len(row), size)] for row in told]
