"""How what the workers learn comes together: one class for each way, chosen by `new_exchange`.

A user's own is a subclass, named in `runner.exchange` as `module:Class` or `file.py:Class`; see
tools/fl_exchange_example.py.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle.base import core

from fl_rec.errors import ConfigError
from fl_rec.nets import graph
from fl_rec.ps.model import GRADIENT, ServerModel, Tables
from fl_rec.ps.push import Push
from fl_rec.ps.registry import EXCHANGES, exchange_name
from fl_rec.ps.runtime import PsRuntime
from fl_rec.ps.workarounds import let_geo_forget


class Exchange(ABC):
    """A worker's side of the exchange.

    A worker calls `start`; in each epoch, for each portion of its rows, `begin` before it trains and `merge` after it;
    at the epoch's end `settled`, within which `pull` and `servers` give the model that all have made; and at the end
    `stop`. All workers call all of these in the same order, but for `begin`, which a worker that trains nothing leaves
    out. A server only reads `k_steps`.

    Args:
        runtime: this process's end of the parameter server.

    Attributes:
        k_steps: what Paddle's `a_sync_configs` calls so; above 0 is GEO.
        send_every: batches after which those who train outside of Paddle's program call `changed`; 0: never.
        servers: the servers' model, after `start`.
    """

    k_steps, send_every = 1, 0
    servers: ServerModel

    def __init__(self, runtime: PsRuntime) -> None:
        self.runtime = runtime
        self.config = runtime.config

    @property
    def portions(self) -> int:
        """Portions of an epoch, each ended by `merge`; 0: an epoch is one, and `merge` does nothing."""
        return 0

    @abstractmethod
    def start(self, program: paddle.static.Program, scope: Any) -> None:
        """Connects to every server, and starts from one common model.

        Args:
            program: the training program, after `create_optimizer`.
            scope: the initialised parameters. The first worker's go to the servers, all other workers' are replaced.
        """

    def begin(self) -> None:
        """What is trained from now on is for the servers' model."""
        return

    def changed(self, rows: Mapping[str, np.ndarray]) -> None:
        """What was trained since the last call; see `send_every`.

        Args:
            rows: of each shared embedding, by its name: their numbers, int [n], none twice.
        """
        return

    def merge(self, rows: int, what: str) -> None:
        """The end of a portion, which all workers reach together.

        Args:
            rows: how many this worker has trained since the last time; 0 if it waited.
            what: what ends, for an error's text.
        """
        return

    @contextlib.contextmanager
    def settled(self, what: str) -> Iterator[None]:
        """Everything that any worker has learned is on the servers, and nothing moves until the block ends."""
        self.flush()
        self.runtime.barrier(f"{what}: all flushed")
        yield
        self.runtime.barrier(f"{what}: all evaluated")

    def flush(self) -> None:
        """Returns when all that this worker has sent has arrived."""
        return

    def pull(self, program: paddle.static.Program, scope: Any) -> None:
        """Copies the servers' model into the parameters of a program; see `ServerModel.pull`."""
        self.servers.pull(program, scope)

    def stop(self) -> None:
        """Takes leave; the first worker stops the servers when all have come this far."""
        self.runtime.barrier("the end of training")
        self.hang_up()
        self.runtime.barrier("the last communicator's end")
        self.runtime.stop_worker()

    def hang_up(self) -> None:
        """Ends what still sends."""
        return


class NoExchange(Exchange):
    """Nothing is shared: workers only meet in barriers and sums."""

    def start(self, program: paddle.static.Program, scope: Any) -> None:
        handle = self.runtime.handle
        sends, _, _ = self.runtime.connect(scope)
        self.servers = ServerModel(handle._worker, Tables.of(handle.context, sends), program)
        self.runtime.barrier("every worker's start")


class Async(Exchange):
    """Paddle's asynchronous mode: every gradient goes to the servers, whose optimizers take the steps."""

    k_steps = 0

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


class Shared(Exchange):
    """By the servers' tables of GEO, which add up what they are sent."""

    # What GEO's communicator sends is divided by this.
    divisor = 1

    def start(self, program: paddle.static.Program, scope: Any) -> None:
        """Paddle's own `_init_worker` for GEO, without its two ways to hang.

        There every worker calls `init_params`, which waits in the server's barrier table; a worker that wakes late
        misses its release and waits for ever (5 of 6 starts with ten workers on two cores). Here the first worker
        pushes, gloo's barrier tells the others, and all pull.
        """
        from paddle.distributed.communicator import Communicator

        self._program, self._scope, handle = program, scope, self.runtime.handle
        self._contexts, dense, description = self.runtime.connect(scope)
        trainer = handle.context["trainer"]
        options = {
            "need_global_step": "0",
            "trainer_id": 1,
            "trainers": self.divisor,
            "barrier_table_id": handle.ps_desc_builder.barrier_table_id,
        }
        self.tables = Tables.of(handle.context, self._contexts)
        self.servers = ServerModel(handle._worker, self.tables, program)
        # Of the handle too: the `send` operators ask it for the communicator.
        self.communicator = handle._communicator = Communicator(trainer.mode, options, trainer.get_communicator_flags())
        self.communicator.init_with_ctx(self._contexts, dense, description, handle.string_hosts, scope)
        self.require_exchangeable()
        if self.runtime.role.is_first_worker:
            handle._init_all_params([scope], self._contexts, dense)
            for name, table in self.tables.sparse.items():
                self.communicator.communicator_.push_sparse_param(name, table, scope)
        self.runtime.barrier("the first worker's initial parameters")
        self.take_over()
        self.runtime.barrier("every worker's start")

    def require_exchangeable(self) -> None:
        """Raises ConfigError if these tables can't be exchanged so."""
        return

    def take_over(self) -> None:
        """Copies the servers' model into this worker's."""
        self.servers.pull(self._program, self._scope)


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

    def start(self, program: paddle.static.Program, scope: Any) -> None:
        super().start(program, scope)
        self._build_sends(program)

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
            self.communicator.start()
        self._exchanging, self._behind = True, False

    def flush(self) -> None:
        if self._exchanging:
            self.flush_queue()
            self.communicator.stop()
        self._exchanging, self._behind = False, not self._exchanging

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
    """

    def __init__(self, runtime: PsRuntime) -> None:
        super().__init__(runtime)
        let_geo_forget()

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

    def merge(self, rows: int, what: str) -> None:
        everyone = self.runtime.gather(np.array([rows], np.float64), f"{what}: everyone's rows")[:, 0]
        if rows:
            share = np.float32(self.config.runner.server_learning_rate * self.share(rows, everyone))
            for name, base in self._base.items():  # in its place: a large table is not to be there once more
                np.subtract(graph.live(self._scope, name), base, out=base)
                base *= share
            self.push(self._base)
        self.runtime.barrier(f"{what}: all sent")
        self.take_over()
        for name, base in self._base.items():
            base[...] = graph.live(self._scope, name)

    def pull(self, program: paddle.static.Program, scope: Any) -> None:
        """Copies what the last exchange has brought, which is the servers' model."""
        for name in {parameter.name for parameter in program.all_parameters()} & set(self._base):
            graph.live(scope, name)[...] = self._base[name]

    def shared_parameters(self) -> dict[str, np.ndarray]:
        """A copy of what this worker has of every parameter that the servers hold."""
        return {name: graph.live(self._scope, name).copy() for name in self.tables.names}


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
