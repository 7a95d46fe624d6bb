"""What every way is to the trainer, by which what the workers learn comes together, and what those of GEO share."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import paddle

from fl_rec.errors import Diverged
from fl_rec.nets import graph
from fl_rec.privacy.noise import ALL_OF_IT
from fl_rec.ps import changes
from fl_rec.ps.model import ServerModel, Tables
from fl_rec.ps.runtime import PsRuntime

ROBUST = (
    "With runner.exchanges_per_epoch and runner.aggregation=median all see what each client sends, before it reaches "
    "the servers."
)


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
        goes_on: whether a checkpoint can have all that training goes on from.
        noise: what each worker adds of differential privacy's.
        servers: the servers' model, after `start`.
    """

    k_steps, send_every, goes_on, noise = 1, 0, True, ALL_OF_IT
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

    def spoilt(self, err: Diverged) -> None:
        """What this worker has trained since `begin` is no learning. Here it ends at once.

        Raises:
            Diverged: `err`.
        """
        raise err

    def remarks(self) -> list[str]:
        """What people should know of the exchanges since the last call; the same in all workers."""
        return []

    @contextlib.contextmanager
    def settled(self, what: str) -> Iterator[None]:
        """Everything that any worker has learned is on the servers, and nothing moves until the block ends.

        Raises:
            Diverged: a worker's parameters are no learning.
        """
        self.flush()
        self.meet(f"{what}: all flushed")
        yield
        self.runtime.barrier(f"{what}: all evaluated")

    def flush(self) -> None:
        """Returns when all that this worker has sent has arrived."""
        return

    def meet(self, what: str) -> None:
        """Waits until all workers have come this far."""
        self.runtime.barrier(what)

    def pull(self, program: paddle.static.Program, scope: Any) -> None:
        """Copies the servers' model into the parameters of a program; see `ServerModel.pull`.

        Raises:
            Diverged: what the servers hold is no learning.
        """
        self.servers.pull(program, scope)
        shared = {parameter.name for parameter in program.all_parameters()} & set(self.servers.tables.names)
        if not changes.sound(changes.norm(graph.live(scope, name) for name in shared)):
            raise Diverged(
                "What the servers hold must be finite and within sense, and is not, though every worker says that its "
                f"own is: one of them sends what it does not tell. {ROBUST}"
            )

    def shared(self) -> Mapping[str, np.ndarray]:
        """The servers' model, float32 by parameter; call it within `settled`."""
        return dict(self.servers.values())

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
