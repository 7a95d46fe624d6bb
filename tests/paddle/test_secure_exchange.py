"""The exchange that adds up what nobody sees: workers in threads, over tables that stand in for the servers'. The
servers are real in tests/integration/test_secure.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from fl_rec.errors import Diverged, RunError
from fl_rec.privacy.secure_sum.fixed_point import FixedPoint
from fl_rec.ps.exchange import SynchronousGeo
from fl_rec.ps.model import Tables
from fl_rec.ps.secure import SecureGeo

SHAPES = {"w": (3,), "items": (40, 8)}
START = {name: np.random.default_rng(1).normal(0, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}


class Servers:
    """What all workers reach: tables that add up float32, and a place to meet."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.tables = {name: values.copy() for name, values in START.items()}
        self.lock, self.barrier = threading.Lock(), threading.Barrier(workers, timeout=30)
        self.told: list[Any] = [None] * workers
        self.pushed: list[tuple[int, dict[str, np.ndarray]]] = []

    def push(self, worker: int, changes: Mapping[str, np.ndarray], every_row: bool = False) -> None:
        with self.lock:
            self.pushed.append((worker, {name: each.copy() for name, each in changes.items()}))
            for name, each in changes.items():
                self.tables[name] += each

    def read_into(self, values: Mapping[str, np.ndarray]) -> None:
        for name, each in values.items():
            each[...] = self.tables[name]


class Runtime:
    def __init__(self, servers: Servers, index: int, **runner: Any) -> None:
        self.servers = servers
        self.role = SimpleNamespace(
            num_workers=servers.workers, index=index, is_first_worker=not index, name=f"worker.{index}"
        )
        settings = {"aggregation": "mean", "server_learning_rate": 1.0, "clip_update": None, "seed": 1}
        runner = {**settings, "on_divergence": "warn", "exchanges_per_epoch": 1, **runner}
        privacy = SimpleNamespace(clip=runner.pop("dp", None), noise_multiplier=1.0)
        self.config: Any = SimpleNamespace(runner=SimpleNamespace(**runner), privacy=privacy)
        self.gathers: list[str] = []

    def barrier(self, what: str) -> None:
        self.servers.barrier.wait()

    def gather(self, values: np.ndarray, what: str) -> np.ndarray:
        self.gathers.append(what)
        self.servers.told[self.role.index] = values.copy()
        self.servers.barrier.wait()
        everyone = np.array(self.servers.told)
        self.servers.barrier.wait()
        return everyone


class Workers:
    """Workers whose exchange has started."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch, **runner: Any) -> None:
        self.servers = Servers(count)

        def start(exchange: Any, program: Any, scope: Any) -> None:
            exchange._scope, exchange.tables = scope, Tables({"items": 1}, {2: ("w",)})
            exchange.push = lambda changes, every_row=False: self.servers.push(
                exchange.runtime.role.index, changes, every_row
            )
            exchange.servers = SimpleNamespace(read_into=self.servers.read_into)
            exchange._base = exchange.shared_parameters()
            exchange._states, exchange._private = {}, set()
            exchange.runtime.barrier("every worker's start")

        monkeypatch.setattr(SynchronousGeo, "start", start)
        self.exchanges: list[Any] = [
            SecureGeo(Runtime(self.servers, index, **runner))  # type: ignore[arg-type]
            for index in range(count)
        ]
        self.scopes = [paddle.static.Scope() for _ in range(count)]
        for scope in self.scopes:
            for name, values in START.items():
                scope.var(name).get_tensor().set(values, paddle.CPUPlace())
        self.all(lambda index, each: each.start(None, self.scopes[index]))

    def all(self, do: Callable[[int, Any], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(self.exchanges)) as threads:
            done = [threads.submit(do, index, each) for index, each in enumerate(self.exchanges)]
            return [each.exception() or each.result() for each in done]

    def value(self, worker: int, name: str) -> np.ndarray:
        return np.array(self.scopes[worker].find_var(name).get_tensor())

    def change(self, changes: Mapping[int, np.ndarray]) -> None:
        """Adds to all numbers of some workers."""
        for worker, each in changes.items():
            start = 0
            for name, shape in SHAPES.items():
                size = int(np.prod(shape))
                values = self.value(worker, name) + each[start : start + size].reshape(shape)
                self.scopes[worker].find_var(name).get_tensor().set(values.astype(np.float32), paddle.CPUPlace())
                start += size

    def merge(self, rows: list[int], what: str = "epoch 1, exchange 1 of 1") -> list[Any]:
        return self.all(lambda index, each: each.merge(rows[index], what))

    def model(self, worker: int = 0) -> np.ndarray:
        return np.concatenate([self.value(worker, name).reshape(-1) for name in SHAPES])


NUMBERS = sum(int(np.prod(shape)) for shape in SHAPES.values())
MODEL = np.concatenate([START[name].reshape(-1) for name in SHAPES])


def drawn(*workers: int, deviation: float = 0.1) -> dict[int, np.ndarray]:
    return {each: np.random.default_rng(each + 10).normal(0, deviation, NUMBERS) for each in workers}


@pytest.mark.parametrize(
    ("runner", "factors"),
    [
        ({}, (1 / 3, 1 / 3, 0, 1 / 3)),
        ({"aggregation": "sum", "server_learning_rate": 0.5}, (0.5, 0.5, 0, 0.5)),
        ({"aggregation": "weighted"}, (10 / 60, 20 / 60, 0, 30 / 60)),
        ({"clip_update": 0.3}, (0.1, 0.1, 0, 0.1)),
    ],
    ids=str,
)
def test_the_sum_is_the_plain_one_exchange_after_exchange(
    monkeypatch: pytest.MonkeyPatch, runner: dict[str, Any], factors: tuple[float, ...]
) -> None:
    workers = Workers(4, monkeypatch, **runner)
    assert all(not each.any() for each in workers.servers.tables.values()), "the servers have no model any more"
    model, step = MODEL.astype(np.float64), FixedPoint.of(4).step
    for exchange in range(1, 4):
        changes = drawn(0, 1, 3, deviation=0.1 * exchange)
        if "clip_update" in runner:
            factors = tuple(0.3 / 3 / max(np.linalg.norm(changes.get(k, np.ones(1))), 0.3) * (k != 2) for k in range(4))
        workers.change(changes)
        assert workers.merge([10, 20, 0, 30], f"epoch {exchange}, exchange 1 of 1") == [None] * 4
        model += sum(factors[worker] * each for worker, each in changes.items())
        error = np.abs(workers.model() - model).max()
        assert 0 < error < 4 * step + 1e-6, "less than a step for each client"
        model = workers.model().astype(np.float64)
        for worker in range(4):
            np.testing.assert_array_equal(workers.model(worker), workers.model(), "all have the same to the bit")
    held = np.concatenate([each.reshape(-1) for each in workers.servers.tables.values()])
    assert np.abs(held).max() <= 2**24 and np.array_equal(held, np.rint(held)) and np.abs(held).min() > 10
    values = dict(workers.exchanges[1].servers.values())
    np.testing.assert_array_equal(values["items"], workers.value(1, "items"))
    np.testing.assert_array_equal(workers.exchanges[1].servers.pull_dense()["w"], values["w"])


def test_what_reaches_the_servers_is_uniform_in_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(3, monkeypatch)
    held = [np.zeros(NUMBERS) for _ in range(3)]
    seen: list[np.ndarray] = []
    for exchange in range(60):
        workers.servers.pushed.clear()
        only = np.zeros(NUMBERS)
        only[3:11] = 0.01  # one row of 40, always the same
        workers.change(dict.fromkeys(range(3), only))
        workers.merge([5, 5, 5], f"epoch 1, exchange {exchange} of 60")
        for worker, changes in workers.servers.pushed:
            held[worker] += np.concatenate([changes[name].reshape(-1) for name in SHAPES])
        seen.append(held[0].copy())
    limbs = np.array(seen) / 2**20  # from -1 to 1
    assert np.abs(limbs).max() <= 1 and limbs.std() == pytest.approx(3**-0.5, rel=0.02)
    for row in (limbs[:, 3:11], limbs[:, 11:19]):  # the one that it trains, and another
        counts, _ = np.histogram(row, bins=8, range=(-1, 1))
        assert ((counts - row.size / 8) ** 2 / (row.size / 8)).sum() < 7 + 5 * 14**0.5
    assert abs(np.corrcoef(limbs[:-1].reshape(-1), limbs[1:].reshape(-1))[0, 1]) < 5 / np.sqrt(limbs.size)


def test_who_cannot_send_is_lost_after_it_has_dealt_and_the_rest_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(6, monkeypatch, aggregation="weighted")
    changes = drawn(*range(6))
    changes[4][7] = np.nan
    workers.change(changes)
    workers.exchanges[1].spoilt(Diverged("a loss of nan"))
    assert workers.merge([10, 20, 10, 10, 20, 10]) == [None] * 6
    wanted = MODEL + sum(changes[each] for each in (0, 2, 3, 5)) / 4
    for worker in range(6):
        np.testing.assert_array_equal(workers.model(worker), workers.model())
    assert np.abs(workers.model() - wanted).max() < 4 * 1.75 * FixedPoint.of(6).step + 1e-6, "of those who are left"
    (remark,) = workers.exchanges[0].remarks()
    assert "Received: others from worker.1, worker.4, which reached nobody. It begins anew" in remark
    # They go on from the common model, and their old limbs are in no later sum.
    changes = drawn(*range(6))
    before = workers.model().astype(np.float64)
    workers.change(changes)
    assert workers.merge([1] * 6, "epoch 2, exchange 1 of 1") == [None] * 6
    assert np.abs(workers.model() - before - sum(changes.values()) / 6).max() < 6 * FixedPoint.of(6).step + 1e-6


@pytest.mark.parametrize(
    ("count", "spoilt", "runner", "error", "says"),
    [
        (6, (1,), {"on_divergence": "stop"}, Diverged, "Received: others from worker.1, which reached nobody"),
        (6, (0, 1, 4), {}, RunError, "A secure sum needs 4 of the 6 clients that began it. Received: 3"),
        (6, range(6), {}, RunError, "A secure sum needs 4 of the 6 clients that began it. Received: 0"),
        # Of a sum of two, each would know the other's.
        (3, (1,), {}, RunError, "A secure sum needs 3 of the 3 clients that began it. Received: 2"),
    ],
    ids=str,
)
def test_or_all_end_and_nothing_is_opened(
    monkeypatch: pytest.MonkeyPatch, count: int, spoilt: Any, runner: dict[str, Any], error: Any, says: str
) -> None:
    workers = Workers(count, monkeypatch, **runner)
    workers.change(drawn(*range(count)))
    for worker in spoilt:
        workers.exchanges[worker].spoilt(Diverged("a loss of nan"))
    ended = workers.merge([1] * count)
    assert {type(each) for each in ended} == {error} and all(says in str(each) for each in ended)
    for each in workers.exchanges:
        assert not any("opened" in what for what in each.runtime.gathers)


@pytest.mark.parametrize(
    ("rows", "runner", "needs"),
    [
        ([1, 1, 0, 0], {}, 3),
        ([1, 1, 1, 0], {}, None),
        ([1, 1, 1, 0, 0, 0], {}, None),
        ([1, 1, 1, 0, 0, 0], {"dp": 1.0}, 4),
        ([1, 1, 1, 1, 0, 0], {"dp": 1.0}, None),
    ],
    ids=str,
)
def test_how_many_must_train(
    monkeypatch: pytest.MonkeyPatch, rows: list[int], runner: dict[str, Any], needs: int | None
) -> None:
    ended = Workers(len(rows), monkeypatch, **runner).merge(rows)
    says = f"needs {needs} clients that train. Received: {sum(rows)}."
    assert all(says in str(each) for each in ended) if needs else ended == [None] * len(rows)


def test_nothing_moves_when_all_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(3, monkeypatch)
    assert workers.merge([0, 0, 0]) == [None] * 3
    np.testing.assert_array_equal(workers.model(), MODEL)


def test_what_somebody_else_adds_to_the_tables_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(3, monkeypatch)
    workers.change(drawn(0, 1, 2))
    workers.servers.tables["w"] += 2**23
    ended = workers.merge([1, 1, 1])
    assert {type(each) for each in ended} == {RunError}
    assert "what the servers add up must be what the clients sent, and is not" in str(ended[0])


def test_seventeen_send_two_limbs(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(17, monkeypatch, aggregation="sum")
    changes = drawn(*range(17))
    workers.change(changes)
    assert workers.merge([1] * 17) == [None] * 17
    assert np.abs(workers.model() - MODEL - sum(changes.values())).max() < 17 * 2.0**-22 + 1e-6
    assert len(workers.servers.pushed) == 1 + 2 * 17


def test_no_model_is_on_a_server_but_what_is_held_is_read_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(3, monkeypatch)
    workers.change(drawn(0, 1, 2))
    workers.merge([1, 1, 1])
    held = workers.exchanges[0].servers
    scope, program = paddle.static.Scope(), paddle.static.Program()
    program.global_block().create_parameter(name="w", shape=[3], dtype="float32")
    scope.var("w").get_tensor().set(np.zeros(3, np.float32), paddle.CPUPlace())
    held.pull(program, scope)
    np.testing.assert_array_equal(np.array(scope.find_var("w").get_tensor()), workers.value(0, "w"))
    held.save(tmp_path / "model")
    assert sorted(each.name for each in (tmp_path / "model").iterdir()) == ["items", "w"]
