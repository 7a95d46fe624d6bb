"""A small model of what a job costs: few coefficients for each quantity, fitted to measured points.

A quantity is a sum of terms, such as "for each row that is trained" or "for each worker, exchange and item". The terms
are what the code does, and their coefficients, none below 0, come from the measured points by least squares of the
relative errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Point:
    """A job.

    Attributes:
        workers, servers: how many.
        users, items: of all workers together; the items' embeddings are shared, each worker has its own users'.
        rows: of each worker's shard.
        width: floats of an embedding's row.
        exchanges: synchronous ones in an epoch; 0 is plain GEO.
        geo_step: of plain GEO.
        checks: it is predicted, and nothing is fitted to it.
    """

    workers: int = 4
    servers: int = 1
    users: int = 20_000
    items: int = 4_000
    rows: int = 50_000
    width: int = 32
    exchanges: int = 0
    geo_step: int = 200
    checks: bool = False

    @property
    def mode(self) -> str:
        return "synchronous" if self.exchanges else "geo"

    @property
    def times(self) -> float:
        """Exchanges of a worker in an epoch; of plain GEO, the portions of geo_step batches."""
        return self.exchanges or math.ceil(self.rows / BATCH / self.geo_step)

    @property
    def row_bytes(self) -> int:
        """Of an item on its way: its id and its floats."""
        return 8 + 4 * self.width

    def touched(self, workers: int = 1) -> float:
        """Items that so many workers train between two exchanges."""
        return self.items * -math.expm1(-workers * self.rows / self.times / self.items)

    def __str__(self) -> str:
        how = f"{self.exchanges} exchanges" if self.exchanges else f"geo_step {self.geo_step}"
        items = f"{short(self.items)} items of {self.width}"
        return f"{self.workers} w, {self.servers} s, {short(self.users)} users, {items}, {how}"


BATCH = 512
# Of all workers in a synchronous exchange: they gather their rows, and wait until all have sent.
MEETINGS = 2

Terms = Mapping[str, Callable[[Point], float]]

ROW: Terms = {"row": lambda p: p.workers * p.rows}
EXCHANGE: Terms = {"worker and exchange": lambda p: p.workers * p.times}
TRAINED: Terms = {"item trained, by byte": lambda p: p.workers * p.times * p.touched() * p.row_bytes}
BY_ANY: Terms = {
    "item that any has trained, by byte": lambda p: p.workers * p.times * p.touched(p.workers) * p.row_bytes
}
EVERY_ID: Terms = {"item": lambda p: p.workers * p.times * p.items}
EVERY_ITEM: Terms = {"item, by byte": lambda p: p.workers * p.times * p.items * 4 * p.width}

SERVER: Terms = {
    "server": lambda p: 1,
    "item of its own": lambda p: p.items / p.servers,
    "byte of such an item": lambda p: p.items / p.servers * 4 * p.width,
}

# Of an epoch, and of all workers or all servers together; memory is one server's. A worker of plain GEO is sent what
# any has changed, and sends when it has waited long enough too, so that it goes by its rows; one of a synchronous
# exchange asks for every item by its id, and is sent its floats.
BY_MODE: Mapping[tuple[str, str], Terms] = {
    ("worker_cpu", "geo"): {**ROW, **EXCHANGE, **TRAINED, **BY_ANY},
    ("server_cpu", "geo"): {**ROW, **EXCHANGE, **TRAINED, **BY_ANY},
    ("sent", "geo"): {**ROW, **EXCHANGE, **TRAINED},
    ("received", "geo"): {**ROW, **EXCHANGE, **BY_ANY},
    ("worker_cpu", "synchronous"): {**ROW, **EXCHANGE, **TRAINED, **EVERY_ITEM},
    ("server_cpu", "synchronous"): {**EXCHANGE, **TRAINED, **EVERY_ITEM},
    ("sent", "synchronous"): {**EXCHANGE, **TRAINED, **EVERY_ID},
    ("received", "synchronous"): {**EXCHANGE, **EVERY_ITEM},
    # For each worker of plain GEO a server keeps which items it has yet to be sent.
    ("server_memory", "geo"): SERVER,
    ("server_memory", "synchronous"): SERVER,
}
# Of one worker, and of the whole job.
OF_ALL: Mapping[tuple[str, str], Terms] = {
    ("worker_memory", ""): {
        "worker": lambda p: 1,
        "row": lambda p: p.rows,
        "user of its own": lambda p: p.users / p.workers,
        "item": lambda p: p.items,
        "byte of an item": lambda p: p.items * 4 * p.width,
    },
    ("start", ""): {
        "job": lambda p: 1,
        "process": lambda p: p.workers + p.servers,
        "row": lambda p: p.workers * p.rows,
        "worker and item": lambda p: p.workers * p.items,
    },
    ("gather", ""): {"gather": lambda p: 1, "worker": lambda p: p.workers, "pair of workers": lambda p: p.workers**2},
}
# Seconds of a synchronous exchange in which no processor works.
WAITING: Terms = {"exchange": lambda p: p.times, "exchange and worker": lambda p: p.times * p.workers}


@dataclass(frozen=True)
class Model:
    """Coefficients: (quantity, mode) -> term -> coefficient; the mode is "" where it makes no difference.

    Attributes:
        cores: of the machine that was measured.
    """

    coefficients: Mapping[tuple[str, str], Mapping[str, float]]
    cores: int

    def __call__(self, quantity: str, point: Point) -> float:
        """The predicted quantity."""
        if quantity == "seconds":
            return self.busy(point) + self("waiting", point)
        return sum(self.parts(quantity, point).values())

    def parts(self, quantity: str, point: Point) -> dict[str, float]:
        """The same, term by term; NaN if nothing like it was measured."""
        if quantity == "waiting":
            terms, mode = WAITING if point.exchanges else {}, "synchronous"
        else:
            mode = "" if (quantity, "") in OF_ALL else point.mode
            terms = {**OF_ALL, **BY_MODE}[quantity, mode]
        of = self.coefficients.get((quantity, mode), {})
        return {name: of.get(name, math.nan) * term(point) for name, term in terms.items()}

    def busy(self, point: Point) -> float:
        """Seconds that the processors of the machine that was measured need, which all roles share.

        A worker of a synchronous exchange waits while a server works for it.
        """
        worker, server = self("worker_cpu", point), self("server_cpu", point)
        alone = worker + server if point.exchanges else worker
        return max(alone / point.workers, (worker + server) / self.cores)

    def cluster(self, point: Point, server_cores: int, bandwidth: float, latency: float) -> dict[str, float]:
        """Seconds of an epoch's training where each worker has a core, by what they are spent on.

        Args:
            server_cores: of each server's machine.
            bandwidth: bytes per second of its network, each way.
            latency: seconds of a message. Those who wait are told in a ring; what was measured of it is of processes
                that share two cores, and is left out.
        """
        worker = self.parts("worker_cpu", point)
        training = worker.pop("row") / point.workers
        return {
            "training": training,
            "workers' exchange": sum(worker.values()) / point.workers,
            "servers' processors": self("server_cpu", point) / point.servers / server_cores,
            "servers' network": max(self("sent", point), self("received", point)) / point.servers / bandwidth,
            "waiting": point.exchanges * MEETINGS * point.workers * latency,
        }


def cluster_seconds(spent: Mapping[str, float], mode: str) -> float:
    """Of an epoch: GEO exchanges while it trains, so that the slowest counts; else one thing follows another."""
    exchange = max(spent["servers' processors"], spent["servers' network"])
    worker = spent["training"] + spent["workers' exchange"]
    return max(worker, exchange) if mode == "geo" else worker + exchange + spent["waiting"]


def fit(measured: Sequence[tuple[Point, Mapping[str, float]]], cores: int) -> Model:
    """The model of the points that are no checks."""
    known = [(point, figures) for point, figures in measured if not point.checks]
    coefficients = {}
    for (quantity, mode), terms in {**OF_ALL, **BY_MODE}.items():
        pairs = [(point, figures[quantity]) for point, figures in known if mode in ("", point.mode)]
        coefficients[quantity, mode] = _fit(terms, pairs)
    busy = Model(coefficients, cores).busy
    waits = [(point, figures["seconds"] - busy(point)) for point, figures in known if point.exchanges]
    return Model({**coefficients, ("waiting", "synchronous"): _fit(WAITING, waits)}, cores)


def _fit(terms: Terms, pairs: Sequence[tuple[Point, float]]) -> dict[str, float]:
    pairs = [(point, value) for point, value in pairs if value > 0]
    if not pairs:
        return {}
    # Divided by what was measured, an error is a relative one.
    matrix = np.array([[term(point) / value for term in terms.values()] for point, value in pairs])
    return dict(zip(terms, non_negative_least_squares(matrix, np.ones(len(pairs))).tolist()))


def non_negative_least_squares(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """x >= 0 with the least |matrix x - wanted|, of all sets of terms the best: there are few terms."""
    size = matrix.shape[1]
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1
    best, least = np.zeros(size), math.inf
    for bits in range(1, 1 << size):
        chosen = [term for term in range(size) if bits >> term & 1]
        solution, *_ = np.linalg.lstsq(matrix[:, chosen] / scale[chosen], wanted, rcond=None)
        error = float(np.linalg.norm(matrix[:, chosen] / scale[chosen] @ solution - wanted))
        if (solution >= 0).all() and error < least - 1e-9:
            best, least = np.zeros(size), error
            best[chosen] = solution / scale[chosen]
    return best


def short(number: float) -> str:
    """4,000 as 4k, 10,000,000 as 10M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
