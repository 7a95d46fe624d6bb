"""fleetrun's part under our own launcher: imports Paddle once, and forks every role of a job.

Ten processes that import Paddle at once take six to nine seconds on two cores. A fork finds what fleetrun would give
it: an environment, a log, a working directory, its script as `__main__`. Its `/proc/PID/environ` is the fork server's,
and so has the job's mark.
"""

from __future__ import annotations

import argparse
import atexit
import os
import re
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path

from fl_rec import environment, kernels
from fl_rec.job.watch import end_with_the_launcher, log_path
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory

POLL_SECONDS = 0.1
# So long the dead are there to be looked at, if a signal has killed one and no worker is left.
SEEN_SECONDS = 1.0
# After so long a fork is taken as it is, if other threads never sleep.
FORK_SECONDS = 10.0


# What a role imports, in its order: Paddle 2.6.2 brings a zlib with which Python's own crashes unless it came first.
IMPORTED = (
    "fl_rec.trainer",
    "fl_rec.ps.exchange",
    "fl_rec.nets.inference",
    "fl_rec.trainer.away",
    "fl_rec.trainer.checkpoints",
    "fl_rec.trainer.local_training",
    "fl_rec.trainer.private_params",
    "fl_rec.trainer.saving",
    "fl_rec.trainer.warm_start",
)
IMPORTED_WITH_A_COORDINATOR = (
    "fl_rec.trainer.coordinated",
    "fl_rec.coordinator.client",
    "fl_rec.coordinator.process",
    *IMPORTED,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Takes fleetrun's arguments, and ends when the last worker has, or the launcher.

    Returns:
        0; in a fork, 0 after its script.
    """
    end_with_the_launcher()
    leaving = _Leaving()
    options = _parse(arguments)
    run = RunDirectory(Path(os.environ[ENVIRONMENT_KEY]))
    with environment.importing():
        for module in IMPORTED_WITH_A_COORDINATOR if options.coordinator_num else IMPORTED:
            import_module(module)
    alive, killed = dict[int, str](), False
    with ExitStack() as reserved:
        for role, variables in _environments(options, reserved).items():
            if role.startswith("worker") and not any(each.startswith("worker") for each in alive.values()):
                # Servers need none, and come up meanwhile. Whoever misses them says so.
                with suppress(ImportError):
                    kernels.load_all()
            with open(log_path(run, role), "wb") as log:
                child = fork()
                if not child:
                    reserved.close()
                    _become(run, role, variables, log.fileno(), [options.script, *options.arguments])
            if not child:
                with leaving:
                    runpy.run_path(options.script, run_name="__main__")
                return 0
            alive[child] = role
        # A server is needed by workers on other hosts; the last of them stops it, or the launcher.
        waited_for = "" if options.workers else "worker"
        while any(role.startswith(waited_for) for role in alive.values()):
            time.sleep(POLL_SECONDS)
            # None is reaped: whoever judges reads of the dead what has killed them.
            ended = {each: os.waitid(os.P_PID, each, os.WEXITED | os.WNOHANG | os.WNOWAIT) for each in alive}
            killed |= any(each is not None and each.si_code != os.CLD_EXITED for each in ended.values())
            alive = {each: role for each, role in alive.items() if ended[each] is None}
    if killed:
        time.sleep(SEEN_SECONDS)
    for process in alive:
        os.kill(process, signal.SIGTERM)
    leaving.code = 0
    return 0


def fork() -> int:
    """As `os.fork`, with the other threads asleep from before until after.

    One of libpaddle's (3.0.0) takes a lock of brpc's once a second, the first time 10 ms after its process began. A
    child that is forked meanwhile has a copy that nobody gives back, and none of its connections ever answers.
    """
    deadline = time.monotonic() + FORK_SECONDS
    while True:
        naps, late = _naps(), time.monotonic() > deadline
        if naps is None and not late:
            time.sleep(0.001)
            continue
        verdict, told = os.pipe()
        child = os.fork()
        if not child:
            os.close(told)
            if not os.read(verdict, 1):
                os._exit(0)
            os.close(verdict)
            return 0
        if good := late or _naps() == naps:
            os.write(told, b".")
        os.close(told)
        os.close(verdict)  # not before, or a child that has been killed could not be told, and its parent would end
        if good:
            return child
        os.waitpid(child, 0)


def _naps() -> list[str] | None:
    """How often each other thread has gone to sleep, and was put to it; None while one is awake."""
    found = list[str]()
    for thread in Path("/proc/self/task").iterdir():
        if int(thread.name) != threading.get_native_id():
            with suppress(OSError):  # it has ended
                found += re.findall(r"^(State:\s*\S|\w*ctxt_switches:\s*\d+)", (thread / "status").read_text(), re.M)
    return None if any(each.startswith("State") and not each.endswith("S") for each in found) else found


class _Leaving:
    """Ends a process when all that is to be called at its end has been.

    Python and Paddle would then take down what the kernel frees anyway: 0.2 s and more of each of ten workers.
    """

    def __init__(self) -> None:
        self.code = 1  # as after an exception
        atexit.register(self)  # before all others, so that it is called after them

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, err: BaseException | None, _traceback: object) -> None:
        if err is None or isinstance(err, SystemExit):
            code = getattr(err, "code", None)
            self.code = code if isinstance(code, int) else int(code is not None)

    def __call__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(self.code)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log_dir", help="not read: the run directory says it")
    parser.add_argument("--worker_num", type=int, required=True)
    parser.add_argument("--server_num", type=int, required=True)
    parser.add_argument("--coordinator_num", type=int, default=0)
    parser.add_argument("--servers")
    parser.add_argument("--workers", help="of several hosts, of which POD_IP is this one, as fleetrun has it")
    parser.add_argument("--coordinators")
    parser.add_argument("--http_port", type=int)
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def _environments(options: argparse.Namespace, reserved: ExitStack) -> dict[str, dict[str, str]]:
    """What fleetrun sets for each role, by the role's name and in fleetrun's order."""

    def endpoints(count: int, host: str = "127.0.0.1") -> list[str]:
        return [f"{host}:{_reserve_port(reserved)}" for _ in range(count)]

    peers = {
        "server": options.servers.split(",") if options.servers else endpoints(options.server_num),
        "worker": options.workers.split(",") if options.workers else endpoints(options.worker_num),
        "coordinator": options.coordinators.split(",") if options.coordinators else endpoints(options.coordinator_num),
    }
    first = peers["server"][0].rpartition(":")[0]
    common = {
        "PADDLE_PSERVERS_IP_PORT_LIST": ",".join(peers["server"]),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(peers["worker"]),
        "PADDLE_COORDINATOR_ENDPOINTS": ",".join(peers["coordinator"]),
        "PADDLE_COORDINATOR_NUM": str(options.coordinator_num),
        "PADDLE_TRAINERS_NUM": str(options.worker_num),
        "PADDLE_WITH_GLOO": "0",
        "PADDLE_GLOO_RENDEZVOUS": "3",
        "PADDLE_GLOO_FS_PATH": tempfile.mkdtemp(),
        "PADDLE_GLOO_HTTP_ENDPOINT": f"{first}:{options.http_port}" if options.http_port else endpoints(1, first)[0],
    }
    training_roles = {kind: name for name, kind in roles.KINDS.items()}
    found = {}
    for kind, addresses in peers.items():
        for index, address in enumerate(addresses):
            host, _, port = address.rpartition(":")
            if options.workers:  # of several hosts; the coordinator's may be a name, which is in its certificate
                if socket.gethostbyname(host) != os.environ["POD_IP"]:
                    continue
                host = os.environ["POD_IP"]
            own = {"TRAINING_ROLE": training_roles[kind], "POD_IP": host, "PADDLE_PORT": port}
            if kind != "server":  # for Paddle it is a number among the workers, of which there may be fewer
                own["PADDLE_TRAINER_ID"] = str(index)
            found[f"{kind}.{index}"] = {**common, **own}
    return found


def _reserve_port(reserved: ExitStack) -> int:
    """A free port. As long as `reserved` is open the system gives it to nobody, but the role can listen there."""
    held = reserved.enter_context(socket.socket())
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("", 0))
    port: int = held.getsockname()[1]
    return port


def _become(run: RunDirectory, role: str, variables: Mapping[str, str], log: int, command: Sequence[str]) -> None:
    """Makes of a fork what fleetrun makes of a new process."""
    import numpy as np

    activity.tell(run.roles, role)  # so that whoever has a status has told what it does
    roles.write_status(run.roles, role, roles.STARTING)
    if not role.startswith("server"):  # the first one forks gloo's store
        activity.beat()  # whatever the script takes its time for
    os.setsid()
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # of end_with_the_launcher
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    with suppress(OSError):
        Path("/proc/self/comm").write_text(role)  # for ps and top
    for name in ("http_proxy", "https_proxy"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    np.random.seed()
    sys.argv = list(command)
    sys.path[:2] = [str(Path(command[0]).parent)]  # before: tools/ and the clone, as of tools/fork_server.py
