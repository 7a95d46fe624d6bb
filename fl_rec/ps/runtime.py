"""The one module that knows the inside of Paddle's parameter server (PS).

Each workaround names its cause and the Paddle versions in which it was seen. Everything else in the project
speaks to `PsRuntime` and to plain Paddle.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle.base import core

from fl_rec.errors import ConfigError, RunError
from fl_rec.ps.workarounds import (
    leave_out,
    look_often_at_gloos_store,
    patch_barrier_table,
    raise_brpc_concurrency,
    tune_malloc,
)
from fl_rec.runs.roles import Role

if TYPE_CHECKING:
    from fl_rec.config import Config


log = logging.getLogger(__name__)


# linux/tcp.h: struct tcp_info has tcpi_bytes_acked and tcpi_bytes_received at 120, since Linux 4.1.
_TCP_INFO_BYTES_ACKED, _TCP_INFO_SIZE = 120, 136


class PsRuntime:
    """A process's end of Paddle's parameter server.

    Both call `keep_private` and `strategy` while they build the training program. A server then calls `run_server`. A
    worker calls, in this order, `start_worker`, any number of `barrier`, `gather`, `exchange`, `settled` and `pull`,
    and at the end `stop_worker`.

    Args:
        role: this process's part.
        config: `runner.sync_mode`, `geo_step`, `exchanges_per_epoch` and the two deadlines are read.

    Raises:
        RunError: if a port that this role must open is taken, or a peer does not come up in time.
    """

    def __init__(self, role: Role, config: Config) -> None:
        from paddle.distributed import fleet
        from paddle.distributed.fleet.base.role_maker import PaddleCloudRoleMaker

        self.role = role
        self.config = config
        self._fleet = fleet
        self._exchanging = self._behind = False
        self._shares = True
        # In rounds nobody exchanges between two `exchange`, which sends each row once.
        self._geo_step = 1 if self.synchronised else config.runner.geo_step
        self._bytes: dict[tuple[Any, Any], tuple[int, int]] = {}
        os.environ["PADDLE_WITH_GLOO"] = "1"
        # Paddle's own channel to a coordinator, which can't be made reliable; see fl_rec.coordinator.
        os.environ.pop("PADDLE_COORDINATOR_ENDPOINTS", None)
        tune_malloc()
        paddle.enable_static()
        if role.kind == "server":
            self._require_free_ports()
        look_often_at_gloos_store()
        role_maker = PaddleCloudRoleMaker()
        # Gloo's own limits are an hour for the start and 115 days for a barrier.
        role_maker._gloo._init_timeout_seconds = math.ceil(config.runner.start_timeout)
        role_maker._gloo._run_timeout_seconds = math.ceil(config.runner.barrier_timeout)
        if role.kind == "worker" and role.rendezvous:
            self._wait_for(role.rendezvous, "gloo's store")
        fleet.init(role_maker)
        # Only after fleet.init, which forks: a child forked beside brpc's threads dies of SIGSEGV (3.0.0).
        raise_brpc_concurrency()
        patch_barrier_table()

    @property
    def geo(self) -> bool:
        return self.config.runner.sync_mode == "geo"

    @property
    def synchronised(self) -> bool:
        """Whether the workers exchange in rounds, by `exchange`, and not each when it comes to it."""
        return self.config.runner.exchanges_per_epoch > 0

    def keep_private(self, names: Collection[str], shares: bool) -> None:
        """Before the optimizer is made: these parameters stay with their worker, and no server has a table for them.

        Args:
            names: parameters of the training program.
            shares: whether it has others. Without any, workers only meet in barriers and sums.
        """
        self._shares = shares
        leave_out(frozenset(names))

    def strategy(self) -> Any:
        """The `DistributedStrategy` for a model's `create_optimizer`."""
        strategy = self._fleet.DistributedStrategy()
        strategy.a_sync = True
        # launch_barrier would call wait_server_ready, which 3.0.0 has emptied and 2.6.2 lets wait for ever.
        strategy.a_sync_configs = {"k_steps": self._geo_step if self.geo else 0, "launch_barrier": False}
        strategy.trainer_desc_configs = {
            "dump_fields_path": "",
            "dump_fields": [],
            "dump_param": [],
            "stat_var_names": [],
            "local_sparse": [],
            "remote_sparse": [],
        }
        return strategy

    # -- server ------------------------------------------------------------------------------------------------

    def run_server(self) -> None:
        """Serves until the first worker stops this server."""
        # The launcher ends a server with SIGTERM; Paddle's handler would write that to the log as a fatal error.
        paddle.disable_signal_handler()
        self._fleet.init_server()
        self._fleet.run_server()

    def _require_free_ports(self) -> None:
        endpoints = [self.role.server_endpoints[self.role.index]]
        if self.role.index == 0 and self.role.rendezvous:
            endpoints.append(self.role.rendezvous)
        for endpoint in endpoints:
            host, port = _split(endpoint)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as err:
                    raise RunError(
                        f"{self.role.name} must be able to listen on its port. Received: {endpoint}, which can't be "
                        f"bound ({err.strerror}). Free the port or, if the system chose it, start again."
                    ) from err

    # -- worker ------------------------------------------------------------------------------------------------

    def start_worker(self, main_program: paddle.static.Program, scope: Any) -> None:
        """Connects to every server and starts from one common model.

        Args:
            main_program: the training program, after `create_optimizer`.
            scope: the initialised parameters. The first worker's go to the servers, all other workers' are replaced.
        """
        self._main_program = main_program
        self._scope = scope
        self._handle = self._fleet.fleet._runtime_handle
        for endpoint in self.role.server_endpoints:
            self._wait_for(endpoint, "the parameter server")
        if self.geo:
            self._start_geo_worker()
        else:
            self._fleet.init_worker()
            context = self._handle.context
            self._set_tables(context, self._handle._send_ctx)

    def _start_geo_worker(self) -> None:
        """Paddle's own `_init_worker` for GEO, without its two ways to hang.

        There every worker calls `init_params`, which waits in the server's barrier table; a worker that wakes late
        misses its release and waits for ever (5 of 6 starts with ten workers on two cores). Here the first worker
        pushes, gloo's barrier tells the others, and `init_params` only pulls: that is what it does for any
        `trainer_id` but 0.
        """
        from paddle.distributed.communicator import Communicator
        from paddle.distributed.ps import the_one_ps

        handle, context = self._handle, self._handle.context
        description = handle.ps_desc_builder.build_worker_desc()
        dense = the_one_ps.get_the_one_recv_context(context, split_dense_table=False)
        send = the_one_ps.get_the_one_send_context(context, split_dense_table=False, ep_list=handle.endpoints)
        handle._send_ctx, handle.scopes = send, [self._scope]
        handle._worker.init_worker(description, handle.string_hosts, handle.role_id)
        trainer = context["trainer"]
        options = {
            "need_global_step": "0",
            "trainer_id": 1,
            # What a worker sends is divided by this. In rounds, the worker has taken its share by itself.
            "trainers": 1 if self.synchronised else self.role.num_workers,
            "barrier_table_id": handle.ps_desc_builder.barrier_table_id,
        }
        self._set_tables(context, send)
        if not self._shares:
            self.barrier("every worker's start")
            return
        handle._communicator = Communicator(trainer.mode, options, trainer.get_communicator_flags())
        handle._communicator.init_with_ctx(send, dense, description, handle.string_hosts, self._scope)
        if not self._sparse_tables:
            raise ConfigError(
                "GEO needs a net with at least one paddle.nn.Embedding(..., sparse=True): Paddle begins to exchange "
                "when the first sparse gradient is sent, so that workers of an all-dense net would never do so. "
                "Received: a net with no sparse embedding to share. Make its embeddings sparse, or name fewer of them "
                'in runner.private_params, or all parameters: ["*"].'
            )
        if self.role.is_first_worker:
            handle._init_all_params([self._scope], send, dense)
            for name, table in self._sparse_tables.items():
                handle._communicator.communicator_.push_sparse_param(name, table, self._scope)
        self.barrier("the first worker's initial parameters")
        handle._communicator.init_params(dense)
        self.barrier("every worker's start")
        self._build_flush_program()
        if self.synchronised:
            self._remove_sends()
            self._base = self._shared_parameters()

    def _set_tables(self, context: Any, send: Any) -> None:
        from paddle.distributed.ps import the_one_ps

        gradient = len("@GRAD")
        self._sparse_tables = {name[:-gradient]: ctx.table_id() for name, ctx in send.items() if ctx.is_sparse()}
        self._dense_tables = dict(the_one_ps.get_the_one_recv_context(context, split_dense_table=False))

    def _wait_for(self, endpoint: str, what: str) -> None:
        """3.0.0's `wait_server_ready` is empty: workers race whom they need, and die, or wait in gloo for ever."""
        deadline = time.monotonic() + self.config.runner.start_timeout
        while True:
            try:
                with socket.create_connection(_split(endpoint), timeout=1) as connection:
                    # A port that nobody listens on yet can be given to the very socket that asks for it.
                    if connection.getsockname() != connection.getpeername():
                        return
                    raise OSError("nobody listens")
            except OSError as err:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"{self.role.name} waited {self.config.runner.start_timeout:g} s for {what} at {endpoint}, "
                        f"which does not answer ({err}). Look at server.0's log, or raise runner.start_timeout."
                    ) from err
                time.sleep(0.05)

    def barrier(self, what: str) -> None:
        """Waits for every worker.

        Args:
            what: what is waited for, for the error's text.
        """
        with self._within_deadline(what):
            self._fleet.util.barrier("worker")

    def gather(self, values: np.ndarray, what: str) -> np.ndarray:
        """Every worker's values, for every worker.

        Args:
            values: float64 [n], n the same in all workers.
            what: what is waited for, for the error's text.

        Returns:
            float64 [workers, n], bit for bit.
        """
        # Paddle's gloo rounds numbers to float32 (3.0.0), but adds whole numbers exactly: so the bits travel.
        bits: np.ndarray = np.zeros((self.role.num_workers, len(values)), np.int64)
        bits[self.role.index] = np.asarray(values, np.float64).view(np.int64)
        with self._within_deadline(what):
            gathered = self._fleet.util.all_reduce(bits, "sum", "worker")
        return np.asarray(gathered, np.int64).view(np.float64)

    @contextlib.contextmanager
    def _within_deadline(self, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as err:
            raise RunError(
                f"{self.role.name} waited for the other workers ({what}), and one did not come within "
                f"runner.barrier_timeout={self.config.runner.barrier_timeout:g} s or has ended."
            ) from err

    def begin_exchange(self) -> None:
        """What is trained from now on goes to the servers, until `settled`.

        A worker that trained nothing the time before starts from what the servers hold, as a client of FedAvg
        (arXiv:1602.05629) does.

        A worker that trains nothing must not exchange: even an idle communicator goes on to push what GEO's division
        has left over of the dense part, until the servers have the sum of all workers' steps and not their mean.
        """
        if self.synchronised or not self._shares:
            return
        if self.geo and not self._exchanging:
            if self._behind:
                # What GEO's division has left over of its last steps was meant for the model of that time: pushed now,
                # on top of what the others did meanwhile, it has an NCF-MLP collapse within a few rounds.
                self._handle._communicator.init_params(self._dense_tables)
            self._handle._communicator.start()
        self._exchanging, self._behind = True, False

    def exchange(self, share: float, what: str) -> None:
        """Adds a share of what this worker has learned since the last time to the servers' model, and takes that over.

        All workers call it together. With shares that add up to 1 the model becomes the weighted mean of theirs, as in
        FedAvg (arXiv:1602.05629), exact but for the rounding of float32.

        Args:
            share: factor of this worker's changes; 0 if it has trained nothing.
            what: what is waited for, for the error's text.
        """
        if not self._shares:
            return
        if share:
            self._push(share)
        self.barrier(f"{what}: all sent")
        # For any trainer_id but 0 this only pulls, and forgets what was not sent.
        self._handle._communicator.init_params(self._dense_tables)
        self._base = self._shared_parameters()

    def _push(self, share: float) -> None:
        """GEO's communicator sends the difference to what it has last pulled, and so that becomes the share of it."""
        for name, base in self._base.items():
            tensor = self._scope.find_var(name).get_tensor()
            change = np.array(tensor) - base
            tensor.set(base + np.float32(share) * change, paddle.CPUPlace())
            if name in self._sparse_tables:
                rows = self._flush_scope.var(f"{name}@GRAD").get_selected_rows()
                rows.set_height(len(base))
                rows.set_rows(np.flatnonzero(change.any(axis=1)).tolist())
        self._handle._communicator.start()
        self._executor.run(self._flush_program, scope=self._flush_scope)
        for name in self._sparse_tables:
            self._flush_scope.var(f"{name}@GRAD").get_selected_rows().set_rows([])
        self._flush()
        self._handle._communicator.stop()

    def _shared_parameters(self) -> dict[str, np.ndarray]:
        """A copy of what this worker has of every parameter that the servers hold."""
        dense = (name for names in self._dense_tables.values() for name in names)
        return {name: np.array(self._scope.find_var(name).get_tensor()) for name in (*self._sparse_tables, *dense)}

    def _remove_sends(self) -> None:
        """Takes the operators that queue each batch's rows for the communicator out of the training program."""
        block = self._main_program.global_block()
        for index in reversed([index for index, op in enumerate(block.ops) if op.type == "send"]):
            block._remove_op(index)

    @contextlib.contextmanager
    def settled(self, what: str) -> Iterator[None]:
        """Everything that any worker has learned is on the servers, and nothing moves until the block ends."""
        if self._exchanging:
            if self.geo:
                self._flush()
                self._handle._communicator.stop()
            else:
                self._handle._worker.client_flush()
        self._exchanging, self._behind = False, not self._exchanging
        self.barrier(f"{what}: all flushed")
        yield
        self.barrier(f"{what}: all evaluated")

    def _build_flush_program(self) -> None:
        """A program of the training program's `send` operators, with no rows to send but those that are set."""
        block_of = self._main_program.global_block()
        self._flush_program = paddle.static.Program()
        block = self._flush_program.global_block()
        for op in block_of.ops:
            if op.type == "send" and op.input_arg_names[0][: -len("@GRAD")] in self._sparse_tables:
                rows = block.create_var(
                    name=op.input_arg_names[0],
                    type=core.VarDesc.VarType.SELECTED_ROWS,
                    dtype="float32",
                    persistable=True,  # else each run makes another one
                )
                kept = ("send_varnames", "is_sparse", "table_id")
                block.append_op(
                    type="send",
                    inputs={"X": [rows]},
                    outputs={"Out": []},
                    attrs={key: op.attr(key) for key in kept},
                )
        # Not the training scope: train_from_dataset drops its children, which the executor has cached.
        self._flush_scope = core.Scope()
        self._executor = paddle.static.Executor(paddle.CPUPlace())

    def _flush(self) -> None:
        """Returns when every id that training has queued is on the servers.

        The communicator shows neither its queue nor its rounds. But the queue of a table holds `geo_step` batches at
        most and a round merges as many at most, so that after twice as many empty batches have found room, one of them
        has been taken up in a round after the last real batch's, which is therefore over.
        """
        for _ in range(2 * self._geo_step + 1):
            self._executor.run(self._flush_program, scope=self._flush_scope)

    def pull(self, executor: paddle.static.Executor, program: paddle.static.Program, scope: Any) -> None:
        """Copies the model as the servers hold it, which does not hold private parameters.

        Args:
            executor: any CPU executor.
            program: a program whose parameters carry the training program's names.
            scope: where they go; the startup program of `program` has been run in it.
        """
        names = {parameter.name for parameter in program.all_parameters()}
        self._pull_dense(scope, names)
        with tempfile.TemporaryDirectory() as folder, paddle.static.scope_guard(scope):
            for table in self._sparse_tables.values():
                # The only call of Paddle's Python that reads a sparse table: it writes a file.
                self._handle._worker.recv_and_save_model(table, folder)
            wanted = [program.global_block().var(name) for name in self._sparse_tables if name in names]
            paddle.static.load_vars(executor, folder, program, vars=wanted)

    def _pull_dense(self, scope: Any, there: set[str]) -> list[str]:
        """The dense parameters into a scope, which has those that are `there`; returns all their names."""
        shapes = {parameter.name: parameter.shape for parameter in self._main_program.all_parameters()}
        for table, variables in self._dense_tables.items():
            for name in set(variables) - there:  # what only training needs still has a place in the table
                scope.var(name).get_tensor().set(np.zeros(shapes[name], np.float32), paddle.CPUPlace())
            self._handle._worker.pull_dense_params(scope, table, variables)
        return sorted(name for variables in self._dense_tables.values() for name in variables)

    def pull_dense(self) -> dict[str, np.ndarray]:
        """The dense parameters as the servers hold them: name -> float32 array."""
        scope = core.Scope()
        return {name: np.array(scope.find_var(name).get_tensor()) for name in self._pull_dense(scope, set())}

    def bytes_exchanged(self) -> tuple[int, int]:
        """Bytes sent to and received from the parameter servers since the start, as the kernel has counted them.

        A connection that was closed counts with what it had when last looked at.
        """
        servers = {_split(endpoint) for endpoint in self.role.server_endpoints}
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                if not stat.S_ISSOCK(os.stat(int(descriptor)).st_mode):
                    continue
                with socket.socket(fileno=os.dup(int(descriptor))) as connection:
                    if connection.getpeername() in servers:
                        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
                        name = (connection.getsockname(), connection.getpeername())
                        self._bytes[name] = struct.unpack_from("QQ", info, _TCP_INFO_BYTES_ACKED)
            except (OSError, struct.error):  # closed by now, without a peer, or an old kernel
                continue
        return sum(sent for sent, _ in self._bytes.values()), sum(received for _, received in self._bytes.values())

    def save_tables(self, folder: Path) -> None:
        """Writes the servers' tables: dense ones as the servers dump them, sparse ones as one tensor file each.

        `save_all_model` alone would not do: a GEO server's sparse tables write nothing.
        """
        # Paddle makes the folder through a shell, unquoted: a space in the path would lose the table without an error.
        with tempfile.TemporaryDirectory(prefix="fl_rec_tables_") as plain:
            for table in self._dense_tables:
                self._handle._worker.save_one_model(table, plain, 0)
                if not any(Path(plain, f"{table:03d}").glob("part-*")):
                    raise RunError(
                        f"The servers must write their dense table {table}. Received: nothing in {plain}. Its path "
                        "must be free of spaces and other characters that a shell would read: set TMPDIR."
                    )
            for table in self._sparse_tables.values():
                self._handle._worker.recv_and_save_model(table, plain)
            shutil.copytree(plain, folder)

    def stop_worker(self) -> None:
        """Takes leave; the first worker stops the servers when all have come this far."""
        self.barrier("the end of training")
        if self.geo and self._exchanging:
            self._handle._communicator.stop()
        self.barrier("the last communicator's end")
        if self.role.is_first_worker:
            self._handle._worker.stop_server()
        self._handle._worker.stop_worker()


def _split(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)
