"""A process's end of Paddle's parameter server (PS): coming up, meeting the others, and leaving."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from fl_rec.errors import RunError
from fl_rec.ps import doors
from fl_rec.ps.native import AllGather
from fl_rec.ps.workarounds import (
    CLOCK_STEP,
    allow_long_answers,
    allow_long_messages,
    end_at_once_when_asked,
    have_gloo_listen_at,
    keep_gloos_flag_in_memory,
    leave_out,
    look_often_at_gloos_store,
    patch_barrier_table,
    raise_brpc_concurrency,
    tune_malloc,
)
from fl_rec.runs import activity, roles
from fl_rec.runs.audit import Audit
from fl_rec.runs.directory import JOB_KEY, RunDirectory
from fl_rec.runs.hosts import split
from fl_rec.runs.roles import Role

if TYPE_CHECKING:
    from fl_rec.config import Config


log = logging.getLogger(__name__)


# linux/tcp.h: struct tcp_info has tcpi_bytes_acked and tcpi_bytes_received at 120, since Linux 4.1.
_TCP_INFO_BYTES_ACKED, _TCP_INFO_SIZE = 120, 136


class PsRuntime:
    """A process's end of Paddle's parameter server.

    Both call `keep_private` and `strategy` while they build the training program. A server then calls `run_server`. A
    worker has an `Exchange` start and stop it, and calls `barrier` and `gather` between.

    Args:
        role: this process's part.
        config: the two deadlines are read.
        run: where the roles write their statuses, and by what they know each other.

    Attributes:
        fleet: Paddle's.

    Raises:
        RunError: if a port that this role must open is taken, or a peer does not come up in time.
    """

    def __init__(self, role: Role, config: Config, run: RunDirectory) -> None:
        from paddle.distributed import fleet
        from paddle.distributed.fleet.base.role_maker import PaddleCloudRoleMaker

        self.role = role
        self.config = config
        self._statuses = run.roles
        # As Paddle makes it of its own name for a job.
        job = run.job()
        self._scope = f"{job}_worker"
        self.fleet = fleet
        self._servers: set[tuple[str, int]] = set()
        self._bytes: dict[tuple[Any, Any], tuple[int, int]] = {}
        os.environ["PADDLE_WITH_GLOO"] = "1"
        # The last is Paddle's own channel to a coordinator, which can't be made reliable; see fl_rec.coordinator.
        for name in (*role.left_over(), "PADDLE_COORDINATOR_ENDPOINTS"):
            os.environ.pop(name, None)
        os.environ["SYS_JOB_ID"] = job
        tune_malloc()
        end_at_once_when_asked()
        paddle.enable_static()
        if role.kind == "server":
            self._require_free_ports()
            doors.leave_out_brpcs_pages()
            if role.rendezvous:
                doors.guard_gloos_store(split(role.rendezvous)[0], self._scope, Audit(run.audit))
        else:
            doors.leave_out_the_workers_service()
        doors.keep_the_job_out_of_logs()
        look_often_at_gloos_store()
        keep_gloos_flag_in_memory()
        have_gloo_listen_at(os.environ["POD_IP"])
        role_maker = PaddleCloudRoleMaker()
        # Gloo's own limits are an hour for the start and 115 days for a barrier. It goes by the clock on the wall, so
        # that whoever watches the job is to be the first to say that one has not come.
        role_maker._gloo._init_timeout_seconds = math.ceil(config.runner.start_timeout) + CLOCK_STEP
        role_maker._gloo._run_timeout_seconds = math.ceil(config.runner.barrier_timeout) + CLOCK_STEP
        if role.kind == "worker" and role.rendezvous:
            self._wait_for(role.rendezvous, "gloo's store", 0, self._require_own_store)
        fleet.init(role_maker)
        if role.kind == "worker":
            self._all_gather = AllGather(role_maker._gloo._worker_comm, role.num_workers)
        # Only after fleet.init, which forks: a child forked beside brpc's threads dies of SIGSEGV (3.0.0).
        if role.kind == "server":
            raise_brpc_concurrency()
        allow_long_messages()
        allow_long_answers()
        activity.beat()
        patch_barrier_table()

    @property
    def handle(self) -> Any:
        """Paddle's own runtime, once the optimizer is made."""
        return self.fleet.fleet._runtime_handle

    def keep_private(self, names: Collection[str]) -> None:
        """Before the optimizer is made: these parameters stay with their worker, and no server has a table for them."""
        leave_out(frozenset(names))

    def strategy(self, k_steps: int) -> Any:
        """The `DistributedStrategy` for a model's `create_optimizer`.

        Args:
            k_steps: see `Exchange.k_steps`.
        """
        strategy = self.fleet.DistributedStrategy()
        strategy.a_sync = True
        # launch_barrier would call wait_server_ready, which 3.0.0 has emptied and 2.6.2 lets wait for ever.
        strategy.a_sync_configs = {"k_steps": k_steps, "launch_barrier": False}
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
        self.fleet.init_server()
        self.fleet.run_server()

    def _require_free_ports(self) -> None:
        endpoints = [self.role.server_endpoints[self.role.index]]
        if self.role.index == 0 and self.role.rendezvous:
            endpoints.append(self.role.rendezvous)
        for endpoint in endpoints:
            host, port = split(endpoint)
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

    def connect(self, scope: Any) -> tuple[Any, Any, Any]:
        """Connects to every server, as Paddle's `_init_worker` does before it makes a communicator.

        Args:
            scope: the parameters.

        Returns:
            what a communicator is made of: the contexts of what is sent and of what is received, and the description.
        """
        from paddle.distributed.ps import the_one_ps

        self.wait_for_servers()
        handle = self.handle
        # GEO's row k is on server k % servers; whoever asks by shards finds it there, if there are as many.
        shards = f"shard_num: {len(self.role.server_endpoints)}"
        description = re.sub(r"shard_num: \d+", shards, handle.ps_desc_builder.build_worker_desc())
        dense = the_one_ps.get_the_one_recv_context(handle.context, split_dense_table=False)
        sends = the_one_ps.get_the_one_send_context(handle.context, split_dense_table=False, ep_list=handle.endpoints)
        handle._send_ctx, handle.scopes = sends, [scope]
        handle._worker.init_worker(description, handle.string_hosts, handle.role_id)
        return sends, dense, description

    def wait_for_servers(self) -> None:
        """Returns when every server answers."""
        for index, endpoint in enumerate(self.role.server_endpoints):
            self._wait_for(endpoint, "the parameter server", index)
        # Now, since a name server may not answer later.
        self._servers = {(socket.gethostbyname(host), port) for host, port in map(split, self.role.server_endpoints)}

    def stop_worker(self) -> None:
        """Takes leave; the first worker stops the servers."""
        if self.role.is_first_worker:
            self.handle._worker.stop_server()
        self.handle._worker.stop_worker()

    def _wait_for(self, endpoint: str, what: str, server: int, proof: Callable[[], None] = lambda: None) -> None:
        """3.0.0's `wait_server_ready` is empty: workers race those they need, and die, or wait in gloo for ever.

        Args:
            what: of the server of this number answers there.
            proof: asked of who answers; OSError has it asked again.
        """
        deadline = time.monotonic() + self.config.runner.start_timeout
        while True:
            try:
                with socket.create_connection(split(endpoint), timeout=1) as connection:
                    # A port that nobody listens on yet can be given to the very socket that asks for it.
                    if connection.getsockname() == connection.getpeername():
                        raise OSError("nobody listens")
                # brpc goes on where it can't listen, and the workers would train with whoever does.
                if not roles.listens(self._statuses, f"server.{server}", split(endpoint)[1]):
                    if not self.role.is_here(endpoint):  # another host's launcher may take a moment to tell
                        raise OSError(f"its host has not said that server.{server} listens there")
                    raise RunError(
                        f"{what[0].upper()}{what[1:]} must be this job's own. Received: {endpoint}, where another "
                        f"program answers and server.{server} can't listen. Free the port or, if the system chose it, "
                        "start again."
                    )
                proof()
                return
            except OSError as err:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"{self.role.name} waited {self.config.runner.start_timeout:g} s for {what} at {endpoint}, "
                        f"which does not answer ({err}). Look at server.0's log, or raise runner.start_timeout."
                    ) from err
                time.sleep(0.05)

    def _require_own_store(self) -> None:
        """Whoever it does not know would wait there for workers that never come, or take one's place."""
        if not doors.knows(split(self.role.rendezvous), self._scope):
            raise RunError(
                f"Gloo's store must be this job's own. Received: {self.role.rendezvous}, which serves another job and "
                f"has refused {self.role.name}. Give each job addresses of its own, and {JOB_KEY} the same value on "
                "all hosts of one."
            )

    def barrier(self, what: str) -> None:
        """Waits for every worker.

        Args:
            what: what is waited for, for the error's text.
        """
        with activity.waiting(what), self._within_deadline(what):
            self.fleet.util.barrier("worker")

    def gather(self, values: np.ndarray, what: str) -> np.ndarray:
        """Every worker's values, for every worker.

        Args:
            values: float64 [n], n the same in all workers.
            what: what is waited for, for the error's text.

        Returns:
            float64 [workers, n], bit for bit.
        """
        self.barrier(what)  # which misses whoever does not come, with an error
        return self._all_gather(values)

    @contextlib.contextmanager
    def _within_deadline(self, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as err:
            raise RunError(
                f"{self.role.name} waited for the other workers ({what}), and one did not come within "
                f"runner.barrier_timeout={self.config.runner.barrier_timeout:g} s or has ended."
            ) from err

    def bytes_exchanged(self) -> tuple[int, int]:
        """Bytes sent to and received from the parameter servers since the start, as the kernel has counted them.

        A connection that was closed counts with what it had when last looked at.
        """
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                if not stat.S_ISSOCK(os.stat(int(descriptor)).st_mode):
                    continue
                with socket.socket(fileno=os.dup(int(descriptor))) as connection:
                    if connection.getpeername() in self._servers:
                        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
                        name = (connection.getsockname(), connection.getpeername())
                        self._bytes[name] = struct.unpack_from("QQ", info, _TCP_INFO_BYTES_ACKED)
            except (OSError, struct.error):  # closed by now, without a peer, or an old kernel
                continue
        return sum(sent for sent, _ in self._bytes.values()), sum(received for _, received in self._bytes.values())
