"""Who a process is by fleetrun's variables, and the status that it keeps."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fl_rec.errors import RunError
from fl_rec.runs import roles
from fl_rec.runs.roles import Role, RoleStatus

DEADLINE = 30.0
FLEETRUN = {
    "TRAINING_ROLE": "TRAINER",
    "PADDLE_PSERVERS_IP_PORT_LIST": "127.0.0.1:7001,127.0.0.1:7002",
    "PADDLE_TRAINERS_NUM": "3",
    "PADDLE_TRAINER_ID": "2",
    "PADDLE_GLOO_HTTP_ENDPOINT": "127.0.0.1:7003",
}


def role_of(without: str = "", **changes: str) -> Role:
    return Role.from_environment({key: value for key, value in {**FLEETRUN, **changes}.items() if key != without})


def status_of(pid: int, started: str) -> RoleStatus:
    return RoleStatus("worker.0", pid, started, roles.RUNNING, "", {roles.RUNNING: 1.0})


def test_worker() -> None:
    role = role_of()
    assert role == Role("worker", 2, 3, ("127.0.0.1:7001", "127.0.0.1:7002"), "127.0.0.1:7003", ())
    assert role.name == "worker.2"
    assert not role.is_first_worker
    assert role_of(PADDLE_TRAINER_ID="0").is_first_worker


def test_server_is_found_by_its_address() -> None:
    role = role_of(TRAINING_ROLE="PSERVER", POD_IP="127.0.0.1", PADDLE_PORT="7002")
    assert (role.name, role.is_first_worker) == ("server.1", False)
    first = role_of(TRAINING_ROLE="PSERVER", POD_IP="127.0.0.1", PADDLE_PORT="7001")
    assert (first.name, first.is_first_worker) == ("server.0", False)


def test_coordinator_and_their_number() -> None:
    role = role_of(TRAINING_ROLE="COORDINATOR", PADDLE_TRAINER_ID="0", PADDLE_COORDINATOR_ENDPOINTS="127.0.0.1:7004")
    assert (role.name, role.num_coordinators, role.is_first_worker) == ("coordinator.0", 1, False)
    assert role_of(PADDLE_COORDINATOR_ENDPOINTS="").num_coordinators == 0


@pytest.mark.parametrize(
    ("workers", "own_host", "own"),
    [
        ("10.0.0.1:1,10.0.0.1:2,10.0.0.2:1", "10.0.0.1", (0, 1)),
        ("10.0.0.1:1,10.0.0.1:2,10.0.0.2:1", "10.0.0.2", (2,)),
        ("north:1,south:1,north:2", "north", (0, 2)),
        ("10.0.0.1:1,10.0.0.10:1,10.0.0.1:2", "10.0.0.10", (1,)),
        ("10.0.0.1:1,10.0.0.10:1,10.0.0.1:2", "10.0.0.1", (0, 2)),
        ("10.0.0.1:1,10.0.0.2:1,10.0.0.2:2", "10.0.0.3", ()),  # of a coordinator or a server
        ("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", "10.0.0.3", (0, 1, 2)),  # which is this host's other name
        ("localhost:1,localhost:2,localhost:3", "127.0.0.1", (0, 1, 2)),
        ("", "10.0.0.1", (0, 1, 2)),
    ],
)
def test_who_shares_a_host(workers: str, own_host: str, own: tuple[int, ...]) -> None:
    def role(worker: int) -> Role:
        return role_of(PADDLE_TRAINER_ID=str(worker), PADDLE_TRAINER_ENDPOINTS=workers, POD_IP=own_host)

    coordinator = role_of(TRAINING_ROLE="COORDINATOR", PADDLE_TRAINER_ENDPOINTS=workers, POD_IP=own_host)
    assert coordinator.own_workers == own
    assert coordinator.elsewhere == {0, 1, 2} - set(own)
    assert not coordinator.is_first_here
    assert [worker for worker in own if role(worker).is_first_here] == list(own[:1])
    assert [worker for worker in own if role(worker).is_first_worker] == [0] * (0 in own)


def test_role_of_another_host_is_known_by_what_its_launcher_tells(tmp_path: Path) -> None:
    told = RoleStatus("server.0", os.getpid(), roles.started(), roles.RUNNING, "", {roles.RUNNING: 1.0}, "b:7", "b")
    told = dataclasses.replace(told, ports=(7, 9))
    roles.write_told(tmp_path, told)
    assert roles.read_statuses(tmp_path) == {"server.0": told}
    assert told.process() is None, "though a process here has its number"
    assert not told.has_ended
    assert dataclasses.replace(told, lives=False).has_ended
    assert [port for port in range(10) if roles.listens(tmp_path, "server.0", port)] == [7, 9]
    roles.write_status(tmp_path, "worker.0", roles.RUNNING)
    assert not roles.read_statuses(tmp_path)["worker.0"].has_ended


def test_what_of_another_job_a_role_must_not_see() -> None:
    left_over = {"PADDLE_MASTER": "a:1", "PADDLE_BACKUP_ENV_PATH": "x", "SYS_JOB_ID": "7", "FLAGS_START_PORT": "1"}
    env = {**FLEETRUN, **left_over, "HOME": "/", "FLAGS_call_stack_level": "2", "POD_IP": "127.0.0.1"}
    assert role_of().left_over(env) == sorted(left_over)
    server = role_of(TRAINING_ROLE="PSERVER", POD_IP="127.0.0.1", PADDLE_PORT="7001")
    # fleetrun gives a server none, and Paddle would take it for the number of a worker.
    assert server.left_over(env) == sorted([*left_over, "PADDLE_TRAINER_ID"])
    assert roles.of_paddle(env) == sorted({*FLEETRUN, *left_over, "POD_IP"})


def test_who_listens(tmp_path: Path, spawn: Callable[..., subprocess.Popen]) -> None:
    """A role's port is answered by the role itself, or by what it has forked."""
    roles.write_status(tmp_path, "server.0", roles.STARTING)
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        port = ours.getsockname()[1]
        assert not roles.listens(tmp_path, "server.0", port)
        ours.listen()
        assert roles.listens(tmp_path, "server.0", port)
        assert not roles.listens(tmp_path, "server.1", port), "of which there is no status"
    code = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
    child = spawn(sys.executable, "-u", "-c", code + "print(s.getsockname()[1]); time.sleep(60)")
    port = int(child.stdout.readline())
    assert roles.listens(tmp_path, "server.0", port)
    other = spawn("sleep", "60")
    status = roles.RoleStatus("server.1", other.pid, roles.started(other.pid), "running", "", {"running": 0.0})
    (tmp_path / "server.1.json").write_text(json.dumps(dataclasses.asdict(status)))
    assert not roles.listens(tmp_path, "server.1", port)


def test_a_child_that_has_just_ended_hides_nobody(
    tmp_path: Path, spawn: Callable[..., subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is reaped nobody but root may look at it."""
    child, look = spawn("sleep", "60"), psutil.Process.net_connections

    def only_roots(process: psutil.Process, kind: str) -> Any:
        if process.pid == child.pid:
            raise psutil.AccessDenied(process.pid)
        return look(process, kind)

    monkeypatch.setattr(psutil.Process, "net_connections", only_roots)
    roles.write_status(tmp_path, "server.0", roles.RUNNING)
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert roles.listens(tmp_path, "server.0", ours.getsockname()[1])


@pytest.mark.parametrize("missing", ["TRAINING_ROLE", "PADDLE_PSERVERS_IP_PORT_LIST", "PADDLE_TRAINERS_NUM"])
def test_process_that_fleetrun_did_not_start(missing: str) -> None:
    with pytest.raises(RunError) as caught:
        role_of(without=missing)
    text = str(caught.value)
    assert text.startswith(
        "This script is started by fleetrun, which sets TRAINING_ROLE and its companions. Received: "
    )
    assert missing in text
    assert text.endswith("fleetrun --worker_num=10 --server_num=1 SCRIPT -m CONFIG")


@pytest.mark.parametrize(
    "changes",
    [
        {"TRAINING_ROLE": "HETER_TRAINER"},
        {"PADDLE_TRAINERS_NUM": "three"},
        {"TRAINING_ROLE": "PSERVER", "POD_IP": "127.0.0.1", "PADDLE_PORT": "9999"},
    ],
)
def test_variables_that_make_no_sense(changes: dict[str, str]) -> None:
    with pytest.raises(RunError, match="is started by fleetrun"):
        role_of(**changes)


def test_status_is_read_back_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "roles"
    before = time.monotonic()
    roles.write_status(folder, "worker.1", roles.STARTING)
    roles.write_status(folder, "server.0", roles.RUNNING)
    roles.write_status(folder, "worker.1", roles.FAILED, 'a "reason",\nin two lines: é')
    statuses = roles.read_statuses(folder)
    assert list(statuses) == ["server.0", "worker.1"]
    worker = statuses["worker.1"]
    assert (worker.role, worker.state, worker.error) == ("worker.1", "failed", 'a "reason",\nin two lines: é')
    assert worker.pid == os.getpid()
    assert list(worker.times) == ["starting", "failed"], "a role keeps when it came to each of its states"
    assert before <= worker.times["starting"] <= worker.times["failed"] <= time.monotonic()
    assert worker.time == worker.times["failed"]
    assert (statuses["server.0"].error, list(statuses["server.0"].times)) == ("", ["running"])
    assert sorted(path.name for path in folder.iterdir()) == ["server.0.json", "worker.1.json"]


def test_half_written_status_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roles.write_status(tmp_path, "worker.0", roles.RUNNING)
    whole = (tmp_path / "worker.0.json").read_bytes()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        roles.write_status(tmp_path, "worker.0", roles.DONE)
    assert (tmp_path / "worker.0.json").read_bytes() == whole
    assert roles.read_statuses(tmp_path)["worker.0"].state == "running"


def test_no_statuses(tmp_path: Path) -> None:
    assert roles.read_statuses(tmp_path / "none") == {}


def test_status_file_is_plain_json(tmp_path: Path) -> None:
    roles.write_status(tmp_path, "worker.0", roles.DONE)
    content = json.loads((tmp_path / "worker.0.json").read_text(encoding="utf-8"))
    assert sorted(content) == [
        "endpoint",
        "error",
        "host",
        "lives",
        "pid",
        "ports",
        "role",
        "signal",
        "started",
        "state",
        "times",
    ]
    assert list(content["times"]) == ["done"]


def test_live_process() -> None:
    found = status_of(os.getpid(), roles.started()).process()
    assert found is not None and found.pid == os.getpid()


def test_number_that_belongs_to_another_process(spawn: Callable[..., subprocess.Popen]) -> None:
    boot, ticks = roles.started().split()
    assert int(ticks) < time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    assert status_of(os.getpid(), f"{boot} {int(ticks) - 1}").process() is None
    assert status_of(os.getpid(), f"another-boot {ticks}").process() is None


def test_process_whose_name_is_hard_to_read(spawn: Callable[..., subprocess.Popen]) -> None:
    code = "open('/proc/self/comm', 'w').write(') R 1 2 ('); print('ready', flush=True); import time; time.sleep(60)"
    child = spawn(sys.executable, "-S", "-c", code)
    assert child.stdout.readline() == b"ready\n"
    ticks = int(roles.started(child.pid).split()[1])
    assert 0 <= ticks - int(roles.started().split()[1]) < DEADLINE * os.sysconf("SC_CLK_TCK") * 1000
    assert roles.started(child.pid) == roles.started(child.pid) != roles.started()


def test_no_process_has_the_number() -> None:
    assert roles.started(2**22 + 1) == "", "above the most that Linux gives"


def test_ended_process(spawn: Callable[..., subprocess.Popen]) -> None:
    child = spawn("sleep", "60")
    status = status_of(child.pid, roles.started(child.pid))
    assert status.process() is not None
    child.kill()
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None
    assert status.process() is None, "a zombie is not alive"
    child.wait(DEADLINE)
    assert status.process() is None


@pytest.mark.parametrize("hours", [1, -1])
def test_clock_that_was_set(hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forth or back: processes are known all the same, and what came first stays first."""
    roles.write_status(tmp_path, "worker.0", roles.RUNNING)
    roles.write_status(tmp_path, "worker.1", roles.FAILED)
    true_time, true_start = time.time, psutil.Process.create_time
    # As after the step: psutil adds the boot time, which the kernel takes from the clock.
    monkeypatch.setattr(time, "time", lambda: true_time() + 3600 * hours)
    monkeypatch.setattr(psutil.Process, "create_time", lambda *args: true_start(*args) + 3600 * hours)
    roles.write_status(tmp_path, "worker.2", roles.FAILED)
    statuses = roles.read_statuses(tmp_path)
    assert all(status.process() is not None for status in statuses.values())
    assert min(statuses.values(), key=lambda each: each.time).role == "worker.0"
    assert statuses["worker.1"].time < statuses["worker.2"].time < statuses["worker.1"].time + DEADLINE


def test_names_are_in_fleetruns_order() -> None:
    assert roles.role_names(2, 1) == ["server.0", "worker.0", "worker.1"]
    assert roles.role_names(1, 2, 1) == ["server.0", "server.1", "worker.0", "coordinator.0"]
