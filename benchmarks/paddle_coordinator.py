"""One process of the fleet job in which coordinator.py measures Paddle's own channel to a coordinator.

    fleetrun --worker_num=10 --server_num=1 --coordinator_num=1 benchmarks/paddle_coordinator.py FOLDER ROUNDS

The channel is Paddle's, untouched: `push_fl_client_info_sync` and `pull_fl_strategy` of its FLClient, and its
Coordinator. So is the order of a round, that of its `train_loop`: a barrier, a report, a wait for the strategy; only
that nothing is trained. Server and workers come up as in this project (`fl_rec.ps`), since ten workers that start
as Paddle has it hang more often than not (2.6.2).

Each worker adds lines to FOLDER/worker.K: {"round": from 0, "event": "reporting", "reported" or "decided", "time": in
seconds, of a clock that all processes of the machine share}. Nothing here ends by itself: Paddle's coordinator never
does, and a client's wait can't be interrupted. Whoever starts it ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))  # so that it runs from a clone without installing

import fl_rec  # noqa: F401 - sets flags that Paddle reads once

# isort: split
import paddle
from paddle.distributed import fleet

from fl_rec.config import Config
from fl_rec.ps.exchange import Geo
from fl_rec.ps.runtime import PsRuntime
from fl_rec.runs import roles
from fl_rec.runs.directory import JOB_KEY, RunDirectory
from fl_rec.runs.roles import Role

CONFIG = PROJECT / "configs" / "config_fl.yaml"


def build_net(strategy: fleet.DistributedStrategy) -> paddle.static.Program:
    """About the smallest net that GEO takes: one sparse embedding, one layer."""
    ids = paddle.static.data("ids", [-1, 1], "int64")
    embedded = paddle.flatten(paddle.nn.Embedding(8, 4, sparse=True)(ids), start_axis=1)
    cost = paddle.mean(paddle.nn.Linear(4, 1)(embedded))
    fleet.distributed_optimizer(paddle.optimizer.SGD(0.1), strategy).minimize(cost)
    return cost.block.program


def coordinate() -> None:
    """The coordinator, as Paddle has it."""
    # It waits for nobody through gloo, and the store is not up yet.
    os.environ["PADDLE_WITH_GLOO"] = "0"
    paddle.enable_static()
    fleet.init()
    strategy = fleet.DistributedStrategy()
    strategy.a_sync = True
    strategy.a_sync_configs = {"k_steps": 200, "launch_barrier": False}
    build_net(strategy)
    fleet.init_coordinator()
    fleet.make_fl_strategy()


def work(runtime: PsRuntime, program: paddle.static.Program, path: Path, rounds: int) -> None:
    """A worker: reports and waits, round by round, and writes down when."""
    from paddle.distributed.ps.coordinator import FLClient

    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(paddle.static.default_startup_program())
    Geo(runtime).start(program, paddle.static.global_scope())
    handle = fleet.fleet._runtime_handle
    # What Paddle's `_init_worker` does for a coordinator.
    handle._worker.init_fl_worker(handle.coordinator_hosts, handle.role_id, handle.role_maker._get_trainer_endpoint())
    client = FLClient()
    client._client_ptr = fleet.get_fl_client()
    with open(path, "a", buffering=1, encoding="utf-8") as file:

        def note(number: int, event: str) -> None:
            file.write(json.dumps({"round": number, "event": event, "time": time.monotonic()}) + "\n")

        for number in range(rounds):
            runtime.barrier(f"round {number}")
            note(number, "reporting")
            client.push_fl_client_info_sync({})
            note(number, "reported")
            client.pull_fl_strategy()
            note(number, "decided")
    runtime.barrier("the end")


def main() -> None:
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    role = Role.from_environment()
    if role.kind == "coordinator":
        coordinate()
        return
    roles.write_status(folder / "roles", role.name, roles.STARTING)
    os.environ[JOB_KEY] = str(folder)
    runtime = PsRuntime(role, Config.load(CONFIG), RunDirectory(folder))
    # PsRuntime hides the coordinator from Paddle; here it is wanted.
    role_maker = fleet.fleet._role_maker
    role_maker._with_coordinator, role_maker._coordinator_endpoints = True, list(role.coordinator_endpoints)
    program = build_net(runtime.strategy(Geo(runtime).k_steps))
    if role.kind == "server":
        runtime.run_server()
    else:
        work(runtime, program, folder / role.name, rounds)


if __name__ == "__main__":
    main()
