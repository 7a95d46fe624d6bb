"""The order in which an exchange speaks to Paddle's communicator, and what it sends. The servers are real in
tests/integration/test_private.py."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from fl_rec.errors import ConfigError, Diverged, RunError
from fl_rec.ps.exchange import Async, Exchange, Geo, NoExchange, SynchronousGeo, new_exchange
from fl_rec.ps.model import Tables
from fl_rec.ps.push import Push
from fl_rec.ps.registry import check, exchange_name
from fl_rec.ps.robust import RobustGeo
from fl_rec.trainer import FLTrainer

EXAMPLE = Path(__file__).parents[2] / "tools" / "fl_exchange_example.py"


class Runtime:
    """A worker's end of the parameter server, which only says what it was asked."""

    def __init__(self, everyone: Any = None, **runner: Any) -> None:
        self.calls: list[Any] = []
        settings = {
            "sync_mode": "geo",
            "geo_step": 7,
            "exchanges_per_epoch": 0,
            "exchange": None,
            "aggregation": "mean",
            "server_learning_rate": 1.0,
            "clip_update": None,
            "trim": 0.1,
            "on_divergence": "stop",
            "reproducible": False,
            "secure_aggregation": False,
            **runner,
        }
        self.config: Any = SimpleNamespace(runner=SimpleNamespace(**settings), yaml_path=Path("/nowhere/job.yaml"))
        self.role = SimpleNamespace(num_workers=3, index=0, is_first_worker=True, name="worker.0")
        self.handle = SimpleNamespace(_worker=SimpleNamespace(client_flush=lambda: self.calls.append("client flush")))
        # What the others tell, each time.
        self._others: list[Any] = list(everyone or [])

    def barrier(self, what: str) -> None:
        self.calls.append(what)

    def gather(self, values: np.ndarray, what: str) -> np.ndarray:
        self.calls.append(f"gather {what}")
        others = self._others.pop(0) if self._others else [[0.0] * len(values)] * 2
        return np.array([values, *others], np.float64)

    def stop_worker(self) -> None:
        self.calls.append("stop worker")


class Communicator:
    """Paddle's, which only says what it was asked."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def init_params(self, dense: dict[int, list[str]]) -> None:
        self.calls.append(f"pull {dense}")


def joined(kind: type[Geo], runtime: Runtime) -> Any:
    """A worker's exchange after its start, with an embedding `items` and a layer `w`."""
    exchange: Any = kind(runtime)  # type: ignore[arg-type]
    exchange.communicator = Communicator(runtime.calls)
    exchange.tables = Tables({"items": 1}, {2: ("w",)})
    exchange.servers = SimpleNamespace(pull=lambda program, scope: runtime.calls.append("pull"))
    exchange.push = lambda changes: runtime.calls.append({name: each.tolist() for name, each in changes.items()})
    exchange._program = None
    scope = paddle.static.Scope()
    for name, value in {"items": np.ones((4, 2)), "w": np.array([1.0, 2.0])}.items():
        scope.var(name).get_tensor().set(value.astype(np.float32), paddle.CPUPlace())
    exchange._scope = scope
    if issubclass(kind, SynchronousGeo):
        exchange._base, exchange._states, exchange._private = exchange.shared_parameters(), {}, set()
        return exchange
    exchange.servers.values, exchange._since = lambda: iter([("table", np.ones(2, np.float32))]), 0.0
    exchange._batch, exchange._no_rows = "batch", "no rows"
    exchange._batch_scope, exchange._no_rows_scope = paddle.static.Scope(), paddle.static.Scope()
    queued = exchange._batch_scope.var("items@GRAD").get_selected_rows()
    exchange._executor = SimpleNamespace(
        run=lambda program, scope: runtime.calls.append(queued.rows() if program == "batch" else program)
    )
    return exchange


def value(exchange: Any, name: str) -> np.ndarray:
    return np.array(exchange._scope.find_var(name).get_tensor())


def change(exchange: Any, name: str, place: int | tuple[int, int], by: float) -> None:
    values = value(exchange, name)
    values[place] += by
    exchange._scope.find_var(name).get_tensor().set(values, paddle.CPUPlace())


# --- Which one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runner", "shares", "kind", "k_steps", "send_every", "portions"),
    [
        ({}, True, Geo, 7, 7, 0),
        ({"exchanges_per_epoch": 4}, True, SynchronousGeo, 1, 0, 4),
        ({"exchanges_per_epoch": 4, "aggregation": "median"}, True, RobustGeo, 1, 0, 4),
        ({"sync_mode": "async"}, True, Async, 0, 0, 0),
        ({"exchange": "geo", "exchanges_per_epoch": 4}, True, Geo, 7, 7, 0),
        ({"exchanges_per_epoch": 4}, False, NoExchange, 1, 0, 0),
    ],
)
def test_it_is_chosen_once(
    runner: dict[str, Any], shares: bool, kind: type[Exchange], k_steps: int, send_every: int, portions: int
) -> None:
    exchange = new_exchange(Runtime(**runner), shares)  # type: ignore[arg-type]
    assert type(exchange) is kind and exchange.k_steps == k_steps and exchange.portions == portions
    assert exchange.send_every == send_every


def test_what_a_worker_sends_is_divided_once() -> None:
    assert Geo(Runtime()).divisor == 3, "by Paddle, since each comes when it likes"  # type: ignore[arg-type]
    assert SynchronousGeo(Runtime()).divisor == 1, "by the worker's own share"  # type: ignore[arg-type]


def test_one_of_ones_own() -> None:
    runtime = Runtime(exchange=f"{EXAMPLE}:RootOfRows", exchanges_per_epoch=2)
    exchange: Any = new_exchange(runtime, True)  # type: ignore[arg-type]
    assert type(exchange).__name__ == "RootOfRows" and exchange.portions == 2
    assert exchange.share(4, np.array([4.0, 16.0, 0.0])) == pytest.approx(1 / 3)
    assert len(EXAMPLE.read_text().splitlines()) < 40


def test_one_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"runner.exchange must be one of .*synchronous_geo.* Did you mean geo\?"):
        check(Runtime(exchange="gep").config, None)
    with pytest.raises(ConfigError, match="there is no file /nowhere/fl_none.py"):
        check(Runtime(exchange="fl_none.py:Mine").config, None)
    with pytest.raises(ConfigError, match="must be a subclass of fl_rec.ps.exchange.Exchange"):
        new_exchange(Runtime(exchange="fl_rec.trainer:FLTrainer"), True)  # type: ignore[arg-type]
    assert exchange_name(Runtime(sync_mode="async").config) == "async" and FLTrainer


# --- Plain GEO -----------------------------------------------------------------------------------------


def test_a_worker_sends_while_it_trains_and_stops_before_all_meet() -> None:
    runtime = Runtime()
    exchange = joined(Geo, runtime)
    exchange.begin()
    exchange.begin()
    assert runtime.calls == ["start"], "a second portion goes on"
    runtime.calls.clear()
    exchange.merge(5, "a portion")
    assert runtime.calls == [], "each exchanges when it comes to it"
    with exchange.settled("epoch 0"):
        runtime.calls.append("inside")
    # Each is one empty batch and then as many as make a round of it; so the queue has been emptied twice, and more.
    flushed = [[], "no rows"] * 3
    assert runtime.calls == [*flushed, "stop", "gather epoch 0: all flushed", "inside", "epoch 0: all evaluated"]
    runtime.calls.clear()
    exchange.begin()
    assert runtime.calls == ["start"], "it has missed nothing"


def test_what_was_trained_outside_of_paddles_program() -> None:
    runtime = Runtime()
    exchange = joined(Geo, runtime)
    exchange.changed({"items": np.array([3, 1], np.int32)})
    exchange.changed({})
    assert runtime.calls == [[3, 1], "no rows", [], "no rows"]


def test_who_waited_starts_from_the_servers_model() -> None:
    runtime = Runtime()
    exchange = joined(Geo, runtime)
    with exchange.settled("epoch 0"):
        pass
    assert "stop" not in runtime.calls and "start" not in runtime.calls, "who waits must not exchange"
    runtime.calls.clear()
    exchange.begin()
    assert runtime.calls == ["pull {2: ['w']}", "start"]


@pytest.mark.parametrize("training", [True, False])
def test_taking_leave(training: bool) -> None:
    runtime = Runtime()
    exchange = joined(Geo, runtime)
    if training:
        exchange.begin()
    runtime.calls.clear()
    exchange.stop()
    stops = ["stop"] if training else []
    assert runtime.calls == ["the end of training", *stops, "the last communicator's end", "stop worker"]


# --- Synchronous ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregation", "rows", "share"),
    [
        ("mean", 30, 1 / 2),
        ("weighted", 30, 30 / 40),
        ("weighted", 10, 10 / 40),
        ("sum", 30, 1.0),
    ],
)
def test_shares(aggregation: str, rows: int, share: float) -> None:
    exchange: Any = SynchronousGeo(Runtime(aggregation=aggregation))  # type: ignore[arg-type]
    assert exchange.share(rows, np.array([30.0, 0.0, 10.0])) == pytest.approx(share), "who waited does not count"


def test_the_servers_take_in_the_share_of_what_was_changed() -> None:
    others = [[0.0, 0.0], [10.0, 7.0]]
    runtime = Runtime(everyone=[others], aggregation="weighted", server_learning_rate=0.5)
    exchange = joined(SynchronousGeo, runtime)
    exchange.begin()
    change(exchange, "items", 2, 8.0)
    change(exchange, "w", 1, 16.0)
    exchange.merge(30, "epoch 0")
    factor = 0.5 * 30 / 40
    assert runtime.calls == [
        "gather epoch 0: everyone's rows",
        {"items": [[0, 0], [0, 0], [8 * factor] * 2, [0, 0]], "w": [0, 16 * factor]},
        "epoch 0: all sent",
        "pull",
    ]
    assert exchange._base["w"].tolist() == value(exchange, "w").tolist(), "the next difference is to what was pulled"


@pytest.mark.parametrize("others", [[[0.0, 0.0], [10.0, 7.0]], [[10.0, 7.0], [10.0, 7.0]]])
def test_one_after_another(others: list[list[float]]) -> None:
    runtime = Runtime(everyone=[others], reproducible=True)
    exchange = joined(SynchronousGeo, runtime)
    exchange.begin()
    change(exchange, "w", 1, 16.0)
    exchange.merge(30, "epoch 0")
    told = [call if isinstance(call, str) else "sends" for call in runtime.calls]
    senders = [0, 2] if not others[0][0] else [0, 1, 2]
    turns = [f"epoch 0: worker.{worker} has sent" for worker in senders]
    assert told == ["gather epoch 0: everyone's rows", "sends", *turns, "epoch 0: all sent", "pull"]


def test_what_the_last_exchange_has_pulled_is_the_servers_model() -> None:
    exchange = joined(SynchronousGeo, Runtime())
    change(exchange, "w", 0, 1.0)
    program, scope = training_program(), paddle.static.Scope()
    program.global_block().create_parameter(name="private", shape=[2], dtype="float32")
    scope.var("items").get_tensor().set(np.zeros((4, 2), np.float32), paddle.CPUPlace())
    scope.var("w").get_tensor().set(np.zeros(2, np.float32), paddle.CPUPlace())
    exchange.pull(program, scope)
    assert np.array(scope.find_var("items").get_tensor()).tolist() == [[1, 1]] * 4
    assert np.array(scope.find_var("w").get_tensor()).tolist() == [1, 2], "without what was trained since"


def test_who_waited_sends_nothing_and_takes_over_what_the_others_learned() -> None:
    runtime = Runtime(everyone=[[[5.0, 1.0], [5.0, 1.0]]])
    exchange = joined(SynchronousGeo, runtime)
    change(exchange, "items", 0, 1.0)
    exchange.merge(0, "epoch 0")
    assert runtime.calls == ["gather epoch 0: everyone's rows", "epoch 0: all sent", "pull"]
    assert value(exchange, "items")[0].tolist() == [2, 2]


def test_between_exchanges_nothing_is_sent() -> None:
    runtime = Runtime()
    exchange = joined(SynchronousGeo, runtime)
    exchange.begin()
    with exchange.settled("epoch 0"):
        pass
    exchange.stop()
    assert runtime.calls == [
        "epoch 0: all flushed",
        "epoch 0: all evaluated",
        "the end of training",
        "the last communicator's end",
        "stop worker",
    ]


# --- What is no learning -------------------------------------------------------------------------------


STOPS = "changes must be finite, and shorter than 1e[+]12. Received: others from worker.0, which reached nobody."


@pytest.mark.parametrize("poison", [math.nan, math.inf, -1e30, 1e13])
def test_changes_that_are_no_learning_reach_nobody(poison: float) -> None:
    runtime = Runtime(everyone=[[[5.0, 1.0], [5.0, 1.0]]] * 2)
    exchange = joined(SynchronousGeo, runtime)
    change(exchange, "items", (2, 1), poison)
    with pytest.raises(Diverged, match=f"epoch 0: {STOPS} .*runner.on_divergence=warn"):
        exchange.merge(30, "epoch 0")
    assert runtime.calls == ["gather epoch 0: everyone's rows"], "nothing was sent"


def test_or_the_others_go_on() -> None:
    runtime = Runtime(everyone=[[[5.0, 1.0], [5.0, 1.0]]], on_divergence="warn")
    exchange = joined(SynchronousGeo, runtime)
    adam = {
        "items_moment": np.full((4, 2), np.nan),
        "items_power": np.array([0.1]),
        "users": np.array([np.nan, 3, 1e30]),
    }
    for name, values in adam.items():
        exchange._scope.var(name).get_tensor().set(values.astype(np.float32), paddle.CPUPlace())
    exchange._states, exchange._private = {"items_moment": 0.0, "items_power": np.float32([0.9])}, {"users"}
    exchange.spoilt(Diverged("a loss of nan"))
    exchange.servers.pull = lambda *_: change(exchange, "w", 0, 1.0)  # what the others learned
    exchange.merge(30, "epoch 0, exchange 1 of 2")
    assert [call for call in runtime.calls if isinstance(call, dict)] == []
    assert exchange._base["w"].tolist() == value(exchange, "w").tolist() == [2, 2]
    assert value(exchange, "items_moment").tolist() == [[0, 0]] * 4, "its optimizer begins anew"
    assert value(exchange, "items_power").tolist() == pytest.approx([0.9])
    assert value(exchange, "users").tolist() == [0, 3, 0]
    (remark,) = exchange.remarks()
    assert re.fullmatch(f"epoch 0, exchange 1 of 2: {STOPS} It begins anew from the common model.", remark)
    assert exchange.remarks() == []
    runtime._others = [[[5.0, 1.0], [5.0, 1.0]]]
    change(exchange, "w", 1, 3.0)
    exchange.merge(30, "epoch 0, exchange 2 of 2")
    sent = [call for call in runtime.calls if isinstance(call, dict)]
    assert sent == [{"items": [[0, 0]] * 4, "w": [0, 1]}], "it is one of three again"


def test_the_share_of_who_is_refused_goes_to_the_others() -> None:
    runtime = Runtime(everyone=[[[5.0, math.nan], [5.0, 1.0]]], on_divergence="warn")
    exchange = joined(SynchronousGeo, runtime)
    change(exchange, "w", 0, 8.0)
    exchange.merge(30, "epoch 0")
    assert runtime.calls[1] == {"items": [[0, 0]] * 4, "w": [4, 0]}


def test_who_does_not_tell_is_noticed_by_what_is_pulled() -> None:
    exchange = joined(SynchronousGeo, Runtime(everyone=[[[5.0, 1.0], [5.0, 1.0]]], on_divergence="warn"))
    exchange.servers.pull = lambda *_: change(exchange, "items", (0, 0), math.nan)
    with pytest.raises(Diverged, match="one of them sends what it does not tell. With .*runner.aggregation=median"):
        exchange.merge(30, "epoch 0")


def test_a_clients_changes_are_clipped() -> None:
    runtime = Runtime(everyone=[[[5.0, 9.0], [0.0, 0.0]]], clip_update=2.0)
    exchange = joined(SynchronousGeo, runtime)
    change(exchange, "w", 0, 8.0)
    exchange.merge(30, "epoch 0")
    assert runtime.calls[1] == {"items": [[0, 0]] * 4, "w": [1, 0]}, "8 is scaled to 2, of which half"


def test_who_is_far_from_all_others_is_named_once() -> None:
    others = [[5.0, 1.0], [5.0, 2.0], [5.0, 26.0], [0.0, 99.0]]
    exchange = joined(SynchronousGeo, Runtime(everyone=[others] * 2))
    for _ in range(2):
        change(exchange, "w", 0, 8.0)
        exchange.merge(30, "epoch 0")
    assert exchange.remarks() == ["worker.3's changes were more than 5 times as long as the others' median."]


@pytest.mark.parametrize(
    ("servers", "others", "told"),
    [
        (1.0, [[0, 0], [2, 0.5]], "worker.0's own training gave others. Look"),
        (1.0, [[0, 0], [1, 0.5]], r"worker.2's own training gave others \(later that of worker.0 too\). Look"),
        (math.nan, [[0, 0], [2, 0.5]], "others came from the servers, to worker.2 first, and no worker says"),
    ],
)
def test_geo_ends_the_epoch_and_names_whose_doing_it_was(servers: float, others: list[Any], told: str) -> None:
    runtime = Runtime(everyone=[others])
    exchange = joined(Geo, runtime)
    exchange._since = time.monotonic() - 10
    exchange.servers.values = lambda: iter([("table", np.full(3, servers, np.float32))])
    exchange.begin()
    change(exchange, "items", 1, math.nan)
    runtime.calls.clear()
    with pytest.raises(Diverged, match=f"^epoch 0: training must keep .* and diverged. Received: {told}"):
        with exchange.settled("epoch 0"):
            pass
    assert runtime.calls == ["stop", "gather epoch 0: all flushed"], "what was queued is not waited for"


def test_geo_does_not_begin_with_what_is_no_learning() -> None:
    runtime = Runtime()
    exchange = joined(Geo, runtime)
    change(exchange, "w", 1, 1e30)
    with pytest.raises(Diverged, match="A worker must train from parameters that are finite"):
        exchange.begin()
    assert runtime.calls == []


def test_what_the_servers_hold_is_looked_at() -> None:
    exchange = joined(Geo, Runtime())
    exchange.servers.tables = exchange.tables
    program = training_program()
    exchange.servers.pull = (
        lambda _, scope: scope.var("w").get_tensor().set(np.full((4, 2), np.nan, np.float32), paddle.CPUPlace())
    )
    with pytest.raises(Diverged, match="What the servers hold must be finite"):
        exchange.pull(program, exchange._scope)


def test_others_end_at_once() -> None:
    with pytest.raises(Diverged, match="a loss of nan"):
        NoExchange(Runtime()).spoilt(Diverged("a loss of nan"))  # type: ignore[arg-type]


# --- Robust --------------------------------------------------------------------------------------------


def pull_what_is_wanted(exchange: Any, beside: float = 0.0) -> None:
    """The servers have what the first worker has sent, and what somebody else has."""

    def pull(_program: Any, scope: Any) -> None:
        for name, values in exchange._wanted.items():
            scope.var(name).get_tensor().set(values + np.float32(beside), paddle.CPUPlace())

    exchange.servers.pull = pull


class Together(Runtime):
    """Of workers whose exchanges are played one after another: what each of them tells is known beforehand."""

    def __init__(self, index: int, told: list[np.ndarray], **runner: Any) -> None:
        super().__init__(**runner)
        self.role = SimpleNamespace(num_workers=len(told[0]), index=index, is_first_worker=index == 0, name="")
        self._told = list(told)

    def gather(self, values: np.ndarray, what: str) -> np.ndarray:
        told = self._told.pop(0).copy()
        assert told[self.role.index].tobytes() == values.tobytes(), what
        return told


def test_the_extremes_of_a_number_do_not_count() -> None:
    by = [1.0, 2.0, 3.0, 4.0, 500.0]
    packed = np.zeros((5, 2), np.float32)
    packed[:, 0] = by
    told = [
        np.array([[10, each] for each in by], np.float64),
        np.zeros((5, 4)),
        packed.view(np.float64),
    ]
    for index, aggregation, wanted in ((0, "median", 3.0), (0, "trimmed_mean", 3.0), (2, "median", None)):
        runtime = Together(index, told, aggregation=aggregation, exchanges_per_epoch=1, server_learning_rate=2.0)
        exchange = joined(RobustGeo, runtime)
        pull_what_is_wanted(exchange)
        change(exchange, "w", 0, by[index])
        exchange.merge(10, "epoch 0")
        assert value(exchange, "w").tolist() == [1 + 2 * 3, 2]
        pushed = [call for call in runtime.calls if isinstance(call, dict)]
        expected = [{"items": [[0, 0]] * 4, "w": [2 * wanted, 0]}] if wanted else []
        assert pushed == expected, "the first sends for all"
        far = "more than 5 times as long as the others' median."
        assert exchange.remarks() == [f"worker.4's changes were {far}", f"worker.4's changes of a row of w were {far}"]


@pytest.mark.parametrize("beside", [0.01, 1e-6])
def test_what_is_sent_beside_is_noticed(beside: float) -> None:
    packed = np.float32([[1, 0], [2, 0], [3, 0]])
    told = [np.array([[10, each] for each in (1, 2, 3)], np.float64), np.zeros((3, 4)), packed.view(np.float64)]
    exchange = joined(RobustGeo, Together(0, told, aggregation="median", exchanges_per_epoch=1))
    pull_what_is_wanted(exchange, beside)
    change(exchange, "w", 0, 1.0)
    with pytest.raises(Diverged, match="Received: another items, w, which somebody has sent there beside"):
        exchange.merge(10, "epoch 0")


def test_who_says_another_norm_than_it_sends_is_refused() -> None:
    by = [1.0, 2.0, 3.0]
    packed = np.zeros((3, 2), np.float32)
    packed[:, 0] = by
    refused = packed.copy()
    refused[1, 0] = 2.0
    told = [np.array([[10, 1], [10, 0.5], [10, 3]], np.float64), *[np.zeros((3, 4)), packed.view(np.float64)] * 2]
    runtime = Together(0, told, aggregation="trimmed_mean", exchanges_per_epoch=1, on_divergence="warn")
    exchange = joined(RobustGeo, runtime)
    pull_what_is_wanted(exchange)
    change(exchange, "w", 0, by[0])
    exchange.merge(10, "epoch 0")
    assert runtime.calls[0] == {"items": [[0, 0]] * 4, "w": [2, 0]}, "of 1 and 3"
    assert "from worker.1, which reached nobody" in exchange.remarks()[0]


# --- The others ----------------------------------------------------------------------------------------


def test_async_waits_for_what_it_has_sent() -> None:
    runtime = Runtime(sync_mode="async")
    exchange = Async(runtime)  # type: ignore[arg-type]
    with exchange.settled("epoch 0"):
        pass
    assert runtime.calls == ["epoch 0: all flushed", "epoch 0: all evaluated"]
    runtime.calls.clear()
    exchange.begin()
    for _ in range(2):
        with exchange.settled("epoch 1"):
            pass
    assert runtime.calls.count("client flush") == 1 and runtime.calls[0] == "client flush"


def test_who_shares_nothing_only_meets() -> None:
    runtime = Runtime()
    exchange = NoExchange(runtime)  # type: ignore[arg-type]
    exchange.begin()
    exchange.merge(5, "a portion")
    with exchange.settled("epoch 0"):
        pass
    exchange.stop()
    assert [call for call in runtime.calls if not call.startswith("epoch")] == [
        "the end of training",
        "the last communicator's end",
        "stop worker",
    ]


def test_what_the_servers_hold() -> None:
    assert Tables({"items": 1, "more": 4}, {2: ("w", "b")}).names == ["items", "more", "w", "b"]


# --- Coming up -----------------------------------------------------------------------------------------


def training_program() -> Any:
    """A program with the `send` operators that fleet gives it, for the embedding's gradient and the layer's."""
    program = paddle.static.Program()
    block = program.global_block()
    for name in ("items", "w"):
        block.create_parameter(name=name, shape=[4, 2], dtype="float32")
        gradient = block.create_var(name=f"{name}@GRAD", shape=[4, 2], dtype="float32")
        attributes = {"send_varnames": [gradient.name], "is_sparse": int(name == "items"), "table_id": 1}
        block.append_op(type="send", inputs={"X": [gradient]}, outputs={"Out": []}, attrs=attributes)
    return program


def sends(program: Any) -> list[str]:
    return [op.input_arg_names[0] for op in program.global_block().ops if op.type == "send"]


def started(
    monkeypatch: pytest.MonkeyPatch, kind: type[Geo], first: bool, sparse: dict[str, int]
) -> tuple[Any, Runtime, Any]:
    """An exchange after `start`, its runtime with what was asked, and the training program."""
    runtime = Runtime()
    runtime.role.is_first_worker = first

    class Started(Communicator):
        def __init__(self, _mode: str, options: dict[str, Any], _flags: Any) -> None:
            super().__init__(runtime.calls)
            runtime.calls.append(f"divided by {options['trainers']}, as {options['trainer_id']}")
            pushed = runtime.calls.append
            self.communicator_ = SimpleNamespace(push_sparse_param=lambda name, table, _: pushed(f"{name} to {table}"))

        def init_with_ctx(self, *_: Any) -> None:
            self.calls.append("connected")

    monkeypatch.setattr("paddle.distributed.communicator.Communicator", Started)
    monkeypatch.setattr("fl_rec.ps.exchange.Tables.of", lambda *_: Tables(sparse, {2: ("w",)}))
    pulled = SimpleNamespace(pull=lambda *_: runtime.calls.append("pull"))
    monkeypatch.setattr("fl_rec.ps.base.ServerModel", lambda *_: pulled)
    monkeypatch.setattr("fl_rec.ps.exchange.Push", lambda *_: runtime.calls.append("pushes by itself"))
    trainer = SimpleNamespace(mode="GEO", get_communicator_flags=dict)
    runtime.handle = SimpleNamespace(
        context={"trainer": trainer},
        ps_desc_builder=SimpleNamespace(barrier_table_id=9),
        string_hosts=[],
        _worker=None,
        _init_all_params=lambda *_: runtime.calls.append("all dense pushed"),
    )
    runtime.connect = lambda _: ({}, {}, "")  # type: ignore[attr-defined]
    program, scope = training_program(), paddle.static.Scope()
    for name in ("items", "w"):
        scope.var(name).get_tensor().set(np.ones((4, 2), np.float32), paddle.CPUPlace())
    exchange = kind(runtime)  # type: ignore[arg-type]
    exchange.start(program, scope)
    return exchange, runtime, program


@pytest.mark.parametrize("first", [True, False])
def test_the_first_workers_parameters_are_everybodys(monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    exchange, runtime, program = started(monkeypatch, Geo, first, {"items": 1})
    pushed = ["all dense pushed", "items to 1"] if first else []
    assert runtime.calls == [
        "divided by 3, as 1",
        "connected",
        *pushed,
        "the first worker's initial parameters",
        "pull {2: ['w']}",
        "every worker's start",
    ]
    assert runtime.handle._communicator is exchange.communicator, "the send operators ask the handle for it"
    assert sends(exchange._batch) == ["items@GRAD"], "rows of embeddings are queued, and nothing else"
    assert sends(exchange._no_rows) == ["items@GRAD"] * 6, "with the first as many as make a round, of geo_step=7"
    assert sends(program) == ["items@GRAD", "w@GRAD"]


def test_of_synchronous_workers_no_batch_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, runtime, program = started(monkeypatch, SynchronousGeo, False, {"items": 1})
    assert runtime.calls[0] == "divided by 1, as 1"
    assert runtime.calls[-3:] == ["pull", "every worker's start", "pushes by itself"]
    assert sends(program) == []
    assert sorted(exchange._base) == ["items", "w"] and (exchange._base["items"] == 1).all()


def test_geo_needs_a_sparse_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="GEO needs a net with at least one paddle.nn.Embedding"):
        started(monkeypatch, Geo, True, {})


def test_async_comes_up_as_paddle_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = Runtime(sync_mode="async")
    monkeypatch.setattr("fl_rec.ps.exchange.Tables.of", lambda context, sends: Tables({context: 1}, {2: (sends,)}))
    runtime.wait_for_servers = lambda: runtime.calls.append("servers answer")
    runtime.fleet = SimpleNamespace(init_worker=lambda: runtime.calls.append("init worker"))
    runtime.handle = SimpleNamespace(context="items", _send_ctx="w", _worker=None)
    exchange = Async(runtime)
    exchange.start(training_program(), paddle.static.Scope())
    assert runtime.calls == ["servers answer", "init worker"]
    assert exchange.servers.tables.names == ["items", "w"]


# --- What is pushed ------------------------------------------------------------------------------------


def test_what_is_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.ps.model._MESSAGE", 16)  # two rows
    push: Any = Push.__new__(Push)
    push._communicator, push._scope = None, paddle.static.Scope()
    push._tables, push._dense = Tables({"items": 7, "more": 8}, {2: ("w",)}), [SimpleNamespace()]
    sent: list[Any] = []

    def send_sparse(_communicator: Any, name: Any, table: int, _scope: Any) -> None:
        variable = name._obj
        assert variable.size == len(variable.data)
        rows = push._scope.find_var(variable.data.decode()).get_selected_rows()
        sent.append((table, rows.rows(), np.array(rows.get_tensor()).tolist()))

    def send_dense(_communicator: Any, _context: Any, _scope: Any) -> None:
        sent.append(np.array(push._scope.find_var("w@GRAD").get_tensor()).tolist())

    push._send_sparse, push._send_dense = send_sparse, send_dense
    items = np.zeros((5, 2), np.float32)
    items[[0, 2, 4], [0, 1, 0]] = 1, 2, 3
    push({"items": items, "more": np.zeros((5, 2), np.float32), "w": np.array([4, 0], np.float32)})
    assert sent == [(7, [0, 2], [[1, 0], [0, 2]]), (7, [4], [[3, 0]]), [4, 0]], "no row of zeros, and two at once"


def test_it_is_known_where_paddles_functions_are() -> None:
    """Without a communicator there is none to be found, and a scope is no communicator."""
    with pytest.raises(RunError, match=r"as the wheels 2.6.2 and 3.0.0 have them\. Received: Paddle \d.*, built other"):
        Push(paddle.static.Scope(), {}, Tables({}, {}))
