"""How what the workers learn comes together: one class for each way, chosen by `new_exchange`.

A user's own is a subclass, named in `runner.exchange` as `module:Class` or `file.py:Class`; see
tools/fl_exchange_example.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle.base import core

from fl_rec.errors import ConfigError, Diverged
from fl_rec.nets import graph
from fl_rec.ps import changes
from fl_rec.ps.base import ROBUST, Exchange, NoExchange, Shared
from fl_rec.ps.model import GRADIENT, ServerModel, Tables
from fl_rec.ps.push import Push
from fl_rec.ps.registry import EXCHANGES, exchange_name
from fl_rec.ps.runtime import PsRuntime
from fl_rec.ps.workarounds import let_geo_forget

__all__ = ["Async", "Exchange", "Geo", "NoExchange", "Shared", "SynchronousGeo", "new_exchange"]


class Async(Exchange):
    """Paddle's asynchronous mode: every gradient goes to the servers, whose optimizers take the steps.

    What those gather stays in the servers, which take no embeddings but by gradients (2.6.2, 3.0.0).
    """

    k_steps, goes_on = 0, False

    def __init__(self, runtime: PsRuntime) -> None:
        super().__init__(runtime)
        self._exchanging = False

    def start(self, program: paddle.static.Program, scope: Any) -> None:
        handle = self.runtime.handle
        self.runtime.wait_for_servers()
        self.runtime.fleet.init_worker()
        self.servers = ServerModel(handle._worker, Tables.of(handle.context, handle._send_ctx), program)

    def begin(self) -> None:
        self._exchanging = True

    def flush(self) -> None:
        if self._exchanging:
            self.runtime.handle._worker.client_flush()
        self._exchanging = False


# What a worker of GEO has seen of its parameters: they are sound, have become unsound by its own doing, or by others'.
_SOUND, _OWN, _RECEIVED = 0.0, 1.0, 2.0


class Geo(Shared):
    """Paddle's GEO: a worker sends what it has changed every `runner.geo_step` batches, divided by the workers.

    A worker that trained nothing the time before starts from what the servers hold, as a client of FedAvg
    (arXiv:1602.05629) does.
    """

    def __init__(self, runtime: PsRuntime) -> None:
        super().__init__(runtime)
        self.k_steps = self.send_every = self.config.runner.geo_step
        self.divisor = runtime.role.num_workers
        self._exchanging = self._behind = False
        self._seen = (_SOUND, 0.0)

    def start(self, program: paddle.static.Program, scope: Any) -> None:
        super().start(program, scope)
        self._build_sends(program)
        self._since = time.monotonic()

    def require_exchangeable(self) -> None:
        if not self.tables.sparse:
            raise ConfigError(
                "GEO needs a net with at least one paddle.nn.Embedding(..., sparse=True): Paddle begins to exchange "
                "when the first sparse gradient is sent, so that workers of an all-dense net would never do so. "
                "Received: a net with no sparse embedding to share. Make its embeddings sparse, let all exchange "
                "together (runner.exchanges_per_epoch), or name fewer of them in runner.private_params, or all "
                'parameters: ["*"].'
            )

    def take_over(self) -> None:
        """Copies the servers' model into this worker's, and has the communicator forget what was not sent."""
        # For any trainer_id but 0 that is what it does.
        self.communicator.init_params({table: list(names) for table, names in self.tables.dense.items()})

    def begin(self) -> None:
        # A worker that trains nothing must not exchange: even an idle communicator goes on to push what GEO's division
        # has left over of the dense part, until the servers have the sum of all workers' steps and not their mean.
        if not self._exchanging:
            if self._behind:
                # What GEO's division has left over of its last steps was meant for the model of that time: pushed now,
                # on top of what the others did meanwhile, it has an NCF-MLP collapse within a few epochs.
                self.take_over()
            if not self._sound():
                raise Diverged("A worker must train from parameters that are finite and within sense.")
            self.communicator.start()
        self._exchanging, self._behind = True, False

    def spoilt(self, err: Diverged) -> None:
        """Sends no more, and notes whether it was this worker's own doing, for the epoch's end."""
        print(f"{self.runtime.role.name}: {err}", flush=True)
        if self._seen[0] == _SOUND:
            own = changes.sound(changes.norm(values for _, values in self.servers.values()))
            self._seen = (_OWN if own else _RECEIVED, time.monotonic() - self._since)
        self.hang_up()
        self._exchanging = False

    def flush(self) -> None:
        if self._exchanging and not self._sound():
            self.spoilt(Diverged("A worker must send parameters that are finite and within sense."))
        if self._exchanging:
            self.flush_queue()
            self.communicator.stop()
        self._exchanging, self._behind = False, not self._exchanging

    def meet(self, what: str) -> None:
        """Waits until all workers have come this far.

        Paddle's communicator sends by itself, so that one worker's numbers are everybody's before it can be asked.

        Raises:
            Diverged: a worker's parameters are no learning; it names the one that they came from.
        """
        seen, seconds = self.runtime.gather(np.array(self._seen), what).T
        self._since = time.monotonic()
        if not seen.any():
            return
        first = int(np.where(seen == seen[seen > _SOUND].min(), seconds, np.inf).argmin())
        others = ", ".join(f"worker.{k}" for k in np.flatnonzero(seen == _OWN) if k != first)
        how = (
            f"worker.{first}'s own training gave others" + (f" (later that of {others} too)" if others else "")
            if seen[first] == _OWN
            else f"others came from the servers, to worker.{first} first, and no worker says that they were its own"
        )
        raise Diverged(
            f"{what.partition(':')[0]}: training must keep a net's parameters finite and within sense, and diverged. "
            f"Received: {how}. Look at that worker's rows and settings, or lower the learning rate "
            f"(hyper_parameters.optimizer.learning_rate). {ROBUST}"
        )

    def _sound(self, rows: Mapping[str, np.ndarray] | None = None) -> Any:
        """Whether these rows of tables are learning; None: everything that is shared."""
        live = {name: graph.live(self._scope, name) for name in (self.tables.names if rows is None else rows)}
        return changes.sound(changes.norm(each if rows is None else each[rows[name]] for name, each in live.items()))

    def hang_up(self) -> None:
        if self._exchanging:
            self.communicator.stop()

    def _build_sends(self, program: paddle.static.Program) -> None:
        """Programs of the training program's `send` operators, which queue rows of embeddings for the communicator."""
        ops = [
            op
            for op in program.global_block().ops
            if op.type == "send" and op.input_arg_names[0][: -len(GRADIENT)] in self.tables.sparse
        ]
        # Not the training scope: train_from_dataset drops its children, which the executor has cached.
        self._batch, self._batch_scope = _sends(ops, 1), core.Scope()
        self._no_rows, self._no_rows_scope = _sends(ops, self.k_steps - 1), core.Scope()
        self._executor = paddle.static.Executor(paddle.CPUPlace())

    def changed(self, rows: Mapping[str, np.ndarray]) -> None:
        """As `Exchange.changed`. Raises Diverged, and sends none, if one of them is no learning."""
        if not self._sound({name: rows[name] for name in self.tables.sparse if name in rows}):
            raise Diverged("A worker must send rows that are finite and within sense.")
        for name in self.tables.sparse:
            changed = self._batch_scope.var(name + GRADIENT).get_selected_rows()
            changed.set_rows(rows[name].tolist() if name in rows else [])
        self._executor.run(self._batch, scope=self._batch_scope)
        # A round merges k_steps batches, and waits for more if there are fewer: these have no rows.
        self._executor.run(self._no_rows, scope=self._no_rows_scope)

    def flush_queue(self) -> None:
        """Returns when every id that was queued is on the servers.

        The communicator shows neither its queue nor its rounds. But the queue of a table holds `k_steps` batches at
        most and a round merges as many at most, so that after twice as many empty batches have found room, and one
        more, one of them has been taken up in a round after the last real batch's, which is therefore over.
        """
        for _ in range(3):
            self.changed({})


def _sends(ops: Sequence[Any], times: int) -> paddle.static.Program:
    """A program of `send` operators of embeddings' gradients, each so many times."""
    program = paddle.static.Program()
    block = program.global_block()
    for op in [*ops] * times:
        (name,), kept = op.input_arg_names, ("send_varnames", "is_sparse", "table_id")
        # Persistable, else each run makes another one.
        rows = block.create_var(name=name, type=core.VarDesc.VarType.SELECTED_ROWS, dtype="float32", persistable=True)
        block.append_op(
            type="send", inputs={"X": [rows]}, outputs={"Out": []}, attrs={key: op.attr(key) for key in kept}
        )
    return program


class SynchronousGeo(Shared):
    """All workers exchange together, `runner.exchanges_per_epoch` times an epoch.

    The servers' model takes in each worker's changes times its `share`. With shares that add up to 1 it becomes the
    weighted mean of the workers', as in FedAvg (arXiv:1602.05629), exact but for the rounding of float32. Override
    `share` for another rule.

    Who has changed what is no learning, or more than float32 holds, sends nothing, is named to all, and by
    `runner.on_divergence` the run ends, or it begins anew from the common model.
    """

    def __init__(self, runtime: PsRuntime) -> None:
        super().__init__(runtime)
        let_geo_forget()
        self._spoilt = False
        self._remarks: dict[str, None] = {}  # in order, each once

    @property
    def portions(self) -> int:
        return self.config.runner.exchanges_per_epoch

    def share(self, rows: int, everyone: np.ndarray) -> float:
        """The factor of this worker's changes, by `runner.aggregation`.

        Args:
            rows: that it has trained since the last exchange, above 0.
            everyone: float64 [workers], the same of all of them.
        """
        shares = {"sum": 1.0, "mean": 1 / np.count_nonzero(everyone), "weighted": rows / everyone.sum()}
        return float(shares[self.config.runner.aggregation])

    def start(self, program: paddle.static.Program, scope: Any) -> None:
        super().start(program, scope)
        # The operators that queue each batch's rows for the communicator are not wanted.
        block = program.global_block()
        for index in reversed([index for index, op in enumerate(block.ops) if op.type == "send"]):
            block._remove_op(index)
        self.push = Push(self.communicator.communicator_, self._contexts, self.tables)
        self._base = self.shared_parameters()
        states = {name for one in graph.optimizers(program).values() for name in one.state.values()}
        # Of moments nothing is kept: they begin at 0. The powers of Adam's betas are one number each.
        self._states = {name: value if value.size == 1 else 0.0 for name, value in self._copies(states).items()}
        self._private = {each.name for each in program.all_parameters()} - set(self._base)

    def spoilt(self, err: Diverged) -> None:
        """Notes it for `merge`."""
        print(f"{self.runtime.role.name}: {err}", flush=True)
        self._spoilt = True

    def remarks(self) -> list[str]:
        told, self._remarks = list(self._remarks), {}
        return told

    def merge(self, rows: int, what: str) -> None:
        if rows:
            for name, base in self._base.items():  # in its place: a large table is not to be there once more
                np.subtract(graph.live(self._scope, name), base, out=base)
        length = np.nan if self._spoilt else changes.norm(self._base.values()) if rows else 0.0
        told = self.runtime.gather(np.array([rows, length], np.float64), f"{what}: everyone's rows")
        everyone, lengths = told.T
        self.judge(everyone, lengths, what)
        self.send(everyone, lengths, what)
        self.runtime.barrier(f"{what}: all sent")
        self.take_over()
        for name, base in self._base.items():
            base[...] = graph.live(self._scope, name)
        self.look_at_pulled(what)
        if not changes.sound(lengths[self.runtime.role.index]):
            self._begin_anew()
        self._spoilt = False

    def judge(self, everyone: np.ndarray, lengths: np.ndarray, what: str) -> None:
        """Leaves out who has changed what is no learning, and names who is far from all others.

        Args:
            everyone: float64 [workers], the rows that they have trained; set to 0 of those who are left out.
            lengths: float64 [workers], the norms of their changes.

        Raises:
            Diverged: there is one to leave out, and runner.on_divergence is stop.
        """
        refused = ~changes.sound(lengths)
        everyone[refused] = 0
        self.name_outliers("changes", lengths, everyone)
        if not refused.any():
            return
        named = ", ".join(f"worker.{worker}" for worker in np.flatnonzero(refused))
        text = (
            f"{what}: changes must be finite, and shorter than {changes.LARGEST:g}. Received: others from {named}, "
            "which reached nobody."
        )
        if self.config.runner.on_divergence == "stop":
            raise Diverged(
                f"{text} Look at the rows and settings there, lower the learning rate "
                "(hyper_parameters.optimizer.learning_rate), or go on without: runner.on_divergence=warn."
            )
        self._remarks[f"{text} It begins anew from the common model."] = None

    def look_at_pulled(self, what: str) -> None:
        """Raises Diverged if what the servers hold, now in `_base`, is no learning."""
        if not changes.sound(changes.norm(self._base.values())):
            raise Diverged(
                f"{what}: what the servers hold must be finite and within sense, and is not, though every worker says "
                f"that its changes are: one of them sends what it does not tell. {ROBUST}"
            )

    def name_outliers(self, what: str, lengths: np.ndarray, everyone: np.ndarray) -> None:
        """Names who is far from all others, once an epoch.

        Args:
            what: something of each client's whose `lengths`, float64 [workers], are compared.
            everyone: see `judge`.
        """
        for worker in np.flatnonzero(changes.outliers(lengths, everyone > 0)):
            far = f"more than {changes.OUTLIER:g} times as long as the others' median"
            self._remarks[f"worker.{worker}'s {what} were {far}."] = None

    def send(self, everyone: np.ndarray, lengths: np.ndarray, what: str) -> None:
        """Has the servers take in what this worker has changed, which is in `_base`; for the arguments see `judge`."""
        index, runner = self.runtime.role.index, self.config.runner
        if rows := int(everyone[index]):
            clipped = changes.clip(lengths[index], runner.clip_update)
            factor = runner.server_learning_rate * self.share(rows, everyone) * clipped
            for base in self._base.values():
                base *= np.float32(factor)
        if not runner.reproducible:
            if rows:
                self.push(self._base)
            return
        # One after another: a server adds up what comes as it comes, and a sum of float32 depends on the order.
        for worker in np.flatnonzero(everyone):
            if worker == index:
                self.push(self._base)
            self.runtime.barrier(f"{what}: worker.{worker} has sent")

    def _begin_anew(self) -> None:
        """Optimizers as at the start, and private numbers that are no numbers 0."""
        for name, value in self._states.items():
            graph.live(self._scope, name)[...] = value
        for name in self._private:
            values = graph.live(self._scope, name)
            values[~(np.abs(values) <= changes.LARGEST)] = 0

    def _copies(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        return {name: graph.live(self._scope, name).copy() for name in names}

    def pull(self, program: paddle.static.Program, scope: Any) -> None:
        """Copies what the last exchange has brought, which is the servers' model."""
        for name in {parameter.name for parameter in program.all_parameters()} & set(self._base):
            graph.live(scope, name)[...] = self._base[name]

    def shared(self) -> Mapping[str, np.ndarray]:
        return self._base

    def shared_parameters(self) -> dict[str, np.ndarray]:
        """A copy of what this worker has of every parameter that the servers hold."""
        return self._copies(self.tables.names)


def new_exchange(runtime: PsRuntime, shares: bool) -> Exchange:
    """The exchange of a configuration.

    Args:
        runtime: this process's end of the parameter server.
        shares: whether the net has a parameter that is not private.

    Raises:
        ConfigError: `runner.exchange` names none.
    """
    if not shares:
        return NoExchange(runtime)
    exchange: Exchange = EXCHANGES.find(exchange_name(runtime.config), runtime.config.yaml_path.parent)(runtime)
    return exchange
