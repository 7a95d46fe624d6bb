"""Who a process is in a fleet job, and where it says how it fares.

`fleetrun` tells each process its part through environment variables. Each part keeps one small status file in
the run directory, from which the launcher judges the job: fleetrun itself exits with 0 when every worker has
crashed. No Paddle is imported here.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

import psutil
from annotated_types import Ge, Lt
from pydantic import Strict

from fl_rec.errors import DataError, RunError
from fl_rec.files import read_json, write_json
from fl_rec.outside import Number, as_typed

KINDS = {"TRAINER": "worker", "PSERVER": "server", "COORDINATOR": "coordinator"}

# What Paddle's launcher and its role makers read beside all that begins with PADDLE_.
_PADDLES = {"POD_IP", "SYS_JOB_ID", "TRAINING_ROLE", "STAGE_ID", "STAGE_NUM", "HETER_DEVICE_TYPE", "FLAGS_START_PORT"}
# What fleetrun gives each role; a worker and a coordinator also get PADDLE_TRAINER_ID.
_GIVEN = {
    "PADDLE_COORDINATOR_ENDPOINTS",
    "PADDLE_COORDINATOR_NUM",
    "PADDLE_GLOO_FS_PATH",
    "PADDLE_GLOO_HTTP_ENDPOINT",
    "PADDLE_GLOO_RENDEZVOUS",
    "PADDLE_PORT",
    "PADDLE_PSERVERS_IP_PORT_LIST",
    "PADDLE_TRAINERS_NUM",
    "PADDLE_TRAINER_ENDPOINTS",
    "PADDLE_WITH_GLOO",
    "POD_IP",
    "TRAINING_ROLE",
}

Port = Annotated[int, Strict(), Ge(0), Lt(1 << 16)]
State = Literal["starting", "running", "done", "failed"]
STARTING: Final = "starting"
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"


@dataclass(frozen=True)
class Role:
    """One process's part in a job.

    Attributes:
        kind: "worker", "server" or "coordinator".
        index: its number among its kind, from 0.
        num_workers: the number of workers in the job.
        server_endpoints: "host:port" of every parameter server, in order.
        rendezvous: "host:port" of gloo's HTTP store, which server 0 opens.
        coordinator_endpoints: "host:port" of every coordinator.
        elsewhere: the workers of other hosts, which share neither its run folder nor its data.
        host: its host's name or address; "" if nobody says.
    """

    kind: str
    index: int
    num_workers: int
    server_endpoints: tuple[str, ...]
    rendezvous: str
    coordinator_endpoints: tuple[str, ...] = ()
    elsewhere: frozenset[int] = frozenset()
    host: str = ""

    @property
    def num_coordinators(self) -> int:
        return len(self.coordinator_endpoints)

    @property
    def name(self) -> str:
        return f"{self.kind}.{self.index}"

    @property
    def is_first_worker(self) -> bool:
        """Of the job: it initialises the servers and stops them."""
        return self.kind == "worker" and self.index == 0

    @property
    def own_workers(self) -> tuple[int, ...]:
        """Those of this host, ascending."""
        return tuple(worker for worker in range(self.num_workers) if worker not in self.elsewhere)

    @property
    def is_first_here(self) -> bool:
        """Of this host's workers: it writes what all of them need, such as the shared part of a model."""
        return self.kind == "worker" and self.index == self.own_workers[0]

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Role:
        """Reads what fleetrun has set.

        Raises:
            RunError: if the process was not started by fleetrun.
        """
        try:
            kind = KINDS[env["TRAINING_ROLE"]]
            servers = tuple(env["PADDLE_PSERVERS_IP_PORT_LIST"].split(","))
            num_workers = int(env["PADDLE_TRAINERS_NUM"])
            if kind == "server":
                index = servers.index(f"{env['POD_IP']}:{env['PADDLE_PORT']}")
            else:
                index = int(env["PADDLE_TRAINER_ID"])
        except (KeyError, ValueError) as err:
            raise RunError(
                f"This script is started by fleetrun, which sets TRAINING_ROLE and its companions. Received: {err!r}. "
                "Use ./fl_run.sh -m CONFIG, or fleetrun --worker_num=10 --server_num=1 SCRIPT -m CONFIG"
            ) from err
        coordinators = tuple(each for each in env.get("PADDLE_COORDINATOR_ENDPOINTS", "").split(",") if each)
        rendezvous = env.get("PADDLE_GLOO_HTTP_ENDPOINT", "")
        workers = [each for each in env.get("PADDLE_TRAINER_ENDPOINTS", "").split(",") if each]
        host = env.get("POD_IP", "")
        others = frozenset(number for number, each in enumerate(workers) if not _of_host(each, host))
        return cls(kind, index, num_workers, servers, rendezvous, coordinators, others, host)

    def is_here(self, endpoint: str) -> bool:
        """Whether a process of this host has an endpoint of the job."""
        return _of_host(endpoint, self.host)

    def left_over(self, env: Iterable[str] = os.environ) -> list[str]:
        """Variables of another Paddle job, by which Paddle would take this role for another; see `of_paddle`."""
        given = _GIVEN if self.kind == "server" else _GIVEN | {"PADDLE_TRAINER_ID"}
        return [name for name in of_paddle(env) if name not in given]


def _of_host(endpoint: str, host: str) -> bool:
    """Whether a process of this host has an endpoint. One on loopback can be nobody else's."""
    other = host_of(endpoint)
    return host in ("", other) or any(each == "localhost" or each.startswith("127.") for each in (host, other))


def host_of(endpoint: str) -> str:
    """The name or address in "host:port"."""
    return endpoint.rpartition(":")[0]


def of_paddle(env: Iterable[str] = os.environ) -> list[str]:
    """The variables by which Paddle's launcher and role makers go, sorted. A shell can have kept some of another job:
    they change what fleetrun does, and whom a role takes itself for."""
    return sorted(name for name in env if name.startswith("PADDLE_") or name in _PADDLES)


@dataclass(frozen=True)
class RoleStatus:
    """What a role has written of itself.

    Attributes:
        role: its name.
        pid, started: its process; see `started`.
        error: why it failed.
        times: when it first came to each state, in seconds since the boot, as `time.monotonic` gives them.
        endpoint: "host:port" where it serves; a parameter server's.
        host: by whose launcher it is told here, if it is on another host. Its process means nothing here then, and
            `times` are those of this host's clock at which it was told.
        lives: whether its process did there, when that was told last.
        ports: on which it listened there.
        signal: which has ended it there; see `killed_by`.
    """

    role: str
    pid: Annotated[int, Strict(), Ge(1)]
    started: str
    state: State
    error: str
    times: Mapping[State, Number]
    endpoint: str = ""
    host: str = ""
    lives: bool = True
    ports: tuple[Port, ...] = ()
    signal: Annotated[int, Strict(), Ge(0), Lt(128)] = 0

    @property
    def time(self) -> float:
        """When it came to its present state."""
        return self.times[self.state]

    @property
    def has_ended(self) -> bool:
        """Whether its process has, here or where it is."""
        return not self.lives if self.host else self.process() is None

    @property
    def killed_by(self) -> int:
        """The number of the signal that has ended its process, here or where it is; 0 if none has, or nobody can say:
        here it is known until the process is reaped."""
        if self.host:
            return self.signal
        found = _stat(self.pid)
        ended = bool(found) and found[0] == "Z" and f"{_boot()} {found[19]}" == self.started
        return int(found[49]) & 0x7F if ended else 0

    def process(self) -> psutil.Process | None:
        """The live process of this role, or None if it has ended (its number may now belong to another) or is not on
        this host."""
        if self.host:
            return None
        try:
            process = psutil.Process(self.pid)
        except psutil.NoSuchProcess:
            return None
        return process if started(self.pid) == self.started and not has_ended(process) else None


def started(pid: int | None = None) -> str:
    """Which of all processes that ever had a number has it now: the boot, and clock ticks from then to its start.

    Seconds since 1970, as psutil's create_time, move when the clock is set.

    Args:
        pid: the number; None for this process.

    Returns:
        "BOOT TICKS"; "" if no process has the number.
    """
    found = _stat(pid or os.getpid())
    return f"{_boot()} {found[19]}" if found else ""


def _stat(pid: int) -> list[str]:
    """What Linux says of a process, from the third field on, its state; empty if no process has the number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # Its name, in parentheses, may hold anything.
    return stat.rpartition(")")[2].split()


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is over, reaped or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.NoSuchProcess:
        return True


def write_status(folder: Path, role: str, state: State, error: str = "", endpoint: str = "") -> None:
    """Writes this process's status as `folder/ROLE.json`, whole or not at all."""
    target = folder / f"{role}.json"
    times = read_json(target)["times"] if target.exists() else {}
    times = {**times, state: times.get(state, time.monotonic())}
    status = RoleStatus(role, os.getpid(), started(), state, error, times, endpoint)
    write_json(target, dataclasses.asdict(status), sync=False)


def read_statuses(folder: Path) -> dict[str, RoleStatus]:
    """The status of every role that has written one, by role name."""
    return {path.stem: _read_status(path) for path in sorted(folder.glob("*.json"))}


def read_status(folder: Path, role: str) -> RoleStatus | None:
    """One role's status, if it has written one."""
    path = folder / f"{role}.json"
    return _read_status(path) if path.exists() else None


def _read_status(path: Path) -> RoleStatus:
    rule = "A role's status is as the role has written it."
    status = as_typed(RoleStatus, read_json(path), rule, path)
    if status.role != path.stem or status.state not in status.times:
        raise DataError(f"{rule} Received: {path}, of {status.role[:80]!r} and without the time of its state.")
    return status


def listens(folder: Path, role: str, port: int) -> bool:
    """Whether a role's process, or one that it has forked, listens on a port."""
    status = read_statuses(folder).get(role)
    return status is not None and port in ports_of(status)


def ports_of(status: RoleStatus) -> tuple[int, ...]:
    """On which a role's process listens, or one that it has forked."""
    process = status.process()
    own: set[int] = set()
    with suppress(psutil.NoSuchProcess):
        for one in () if process is None else (process, *process.children(recursive=True)):
            with suppress(psutil.Error):  # one that has just ended: until it is reaped, its files are root's
                found = one.net_connections("tcp")
                own |= {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}
    return status.ports if status.host else tuple(sorted(own))


def write_told(folder: Path, status: RoleStatus) -> None:
    """Writes the status of a role of another host, as its launcher has told it. OSError."""
    write_json(folder / f"{status.role}.json", dataclasses.asdict(status), sync=False)


def role_names(workers: int, servers: int, coordinators: int = 0) -> list[str]:
    """The names of all roles of a job, servers first, as fleetrun starts them."""
    counts = (("server", servers), ("worker", workers), ("coordinator", coordinators))
    return [f"{kind}.{index}" for kind, count in counts for index in range(count)]
