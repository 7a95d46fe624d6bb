"""What a role finds that the fork server has started, and when that ends; no Paddle."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fl_rec import environment
from fl_rec.job.watch import Mark, log_path
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory
from fl_rec.trainer import fork_server

DEADLINE = 30.0
NAMES = roles.role_names(3, 1, 1)
# The fork server without what takes long to import; what starts it stands in for the launcher.
SERVER = """
import sys
from fl_rec.trainer import fork_server
fork_server.IMPORTED = fork_server.IMPORTED_WITH_A_COORDINATOR = ("numpy", "fl_rec.trainer")
fork_server.kernels.load_all = lambda: None
fork_server.SEEN_SECONDS = 60.0
sys.exit(fork_server.main())
"""
LAUNCHER = """
import os, subprocess, sys
os.environ["FL_REC_LAUNCHER"] = str(os.getpid())
sys.exit(subprocess.run([sys.executable, "-u", "-c", *sys.argv[1:]]).returncode)
"""
# Each role writes what it finds; a worker stays until all have.
SCRIPT = """\
import atexit, json, os, random, socket, subprocess, sys, time
import numpy as np
from fl_rec.runs.roles import Role
role = Role.from_environment()
with socket.socket() as port:
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port.bind((os.environ["POD_IP"], int(os.environ["PADDLE_PORT"])))
    port.listen()
    listens = port.getsockname()[1]
found = dict(
    role=role.name, workers=role.num_workers, servers=role.server_endpoints, coordinators=role.coordinator_endpoints,
    store=role.rendezvous, listens=listens, name=__name__, argv=sys.argv, cwd=os.getcwd(), path=sys.path[0],
    number=os.environ.get("PADDLE_TRAINER_ID"),
    leads=os.getpid() == os.getsid(0), proxy=os.environ.get("http_proxy"), random=[random.random(), np.random.rand()],
    files=[int(each) for each in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + each)],
)
with open("draft." + role.name, "w") as file:
    json.dump(found, file)
os.rename("draft." + role.name, "found." + role.name)
while role.kind == "worker" and sum(name.startswith("found") for name in os.listdir()) < 5:
    time.sleep(0.05)
class Last:
    def __del__(self, write=os.write):
        write(1, b"and is taken down")
json.last = Last()
atexit.register(print, "and says goodbye")
print(role.name, "speaks")
subprocess.run(["sh", "-c", "echo and complains >&2"])
sys.exit(3)
"""
SLEEP = "import subprocess; subprocess.run(['sleep', '60'])"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    run, _ = RunDirectory.claim(tmp_path / "run", "a job")
    yield run
    mark(run).end()


def mark(run: RunDirectory) -> Mark:
    return Mark(ENVIRONMENT_KEY, str(run.path))


@pytest.fixture
def start(run: RunDirectory, tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """`start(text, *arguments)` has three workers, a server and a coordinator play a script."""

    def start(text: str, *arguments: str) -> subprocess.Popen:
        script = tmp_path / "a script.py"
        script.write_text(text)
        counts = ("--worker_num=3", "--server_num=1", "--coordinator_num=1")
        paths = os.pathsep.join(filter(None, [str(environment.PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, SERVER, f"--log_dir={run.log}", *counts, str(script), *arguments],
            env={**os.environ, ENVIRONMENT_KEY: str(run.path), "http_proxy": "a:1", "PYTHONPATH": paths},
            cwd=run.log,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_what_a_role_finds(run: RunDirectory, start: Callable[..., subprocess.Popen], tmp_path: Path) -> None:
    started = start(SCRIPT, "-m", "a.yaml", "-o", "x=1")
    said, _ = started.communicate(timeout=DEADLINE)
    assert (started.returncode, said) == (0, ""), "it judges no more than fleetrun does"
    found = {name: json.loads((run.log / f"found.{name}").read_text()) for name in NAMES}
    for name, each in found.items():
        assert each["role"] == name
        assert (each["workers"], each["leads"], each["proxy"], each["name"]) == (3, True, None, "__main__")
        assert each["argv"] == [str(tmp_path / "a script.py"), "-m", "a.yaml", "-o", "x=1"]
        # The last is where it tells what it does.
        assert (each["cwd"], each["path"], each["files"]) == (str(run.log), str(tmp_path), [0, 1, 2, 3])
        if name.startswith("worker"):
            assert log_path(run, name).read_text() == f"{name} speaks\nand complains\nand says goodbye\n"
    # A server that had one would be taken for a worker of that number, of whom there may be fewer than servers.
    assert [each["number"] for each in found.values()] == [None, "0", "1", "2", "0"]
    first, *others = found.values()
    for key in ("servers", "coordinators", "store"):
        assert all(each[key] == first[key] for each in others)
    ports = [each["listens"] for each in found.values()] + [int(first["store"].split(":")[1])]
    assert len(set(ports)) == len(ports)
    assert first["servers"] == [f"127.0.0.1:{found['server.0']['listens']}"]
    assert first["coordinators"] == [f"127.0.0.1:{found['coordinator.0']['listens']}"]
    assert len({value for each in found.values() for value in each["random"]}) == 2 * len(NAMES)


def test_log_that_cannot_be_written(run: RunDirectory, start: Callable[..., subprocess.Popen]) -> None:
    log_path(run, "worker.1").mkdir()
    started = start(SLEEP)
    said, _ = started.communicate(timeout=DEADLINE)
    assert started.returncode == 1
    assert said.strip().endswith(f"Is a directory: '{log_path(run, 'worker.1')}'")


def test_by_what_workers_were_killed_can_be_seen_though_none_is_left(
    run: RunDirectory, start: Callable[..., subprocess.Popen]
) -> None:
    started = start("import os, sys, time; time.sleep(60) if 'TRAINER' != os.environ['TRAINING_ROLE'] else os.abort()")
    workers, deadline = dict.fromkeys(("worker.0", "worker.1", "worker.2"), signal.SIGABRT), time.monotonic() + DEADLINE

    def seen() -> dict[str, int]:
        return {name: each.killed_by for name, each in roles.read_statuses(run.roles).items() if each.killed_by}

    while seen() != workers:
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(5 * fork_server.POLL_SECONDS)  # in which it has looked, too
    assert seen() == workers


@pytest.mark.parametrize("when", ["server", "sleep"])
def test_the_launcher_is_killed(run: RunDirectory, start: Callable[..., subprocess.Popen], when: str) -> None:
    launcher = start(SLEEP)
    deadline = time.monotonic() + DEADLINE
    # As soon as there is a fork server, or when it has forked all.
    count, program = {"server": (2, "python"), "sleep": (len(NAMES), "sleep")}[when]
    while sum(program in each.name() for each in mark(run).processes()) < count:
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    launcher.kill()
    launcher.communicate(timeout=DEADLINE)
    _, alive = psutil.wait_procs(mark(run).processes(), timeout=DEADLINE)
    assert alive == [] == mark(run).processes()
    result = run.read_result()
    assert (result.state, result.error) == ("interrupted", "the launcher was killed")


@pytest.mark.parametrize("begins", ["before", "while it forks"])
def test_no_other_thread_holds_a_lock_in_a_fork(begins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, asked, held, over = threading.Lock(), threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(fork_server, "FORK_SECONDS", DEADLINE)
    plain = os.fork

    def work() -> None:
        asked.wait()
        with lock:
            held.set()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)
        over.wait()

    def begin() -> None:
        asked.set()
        held.wait()

    def fork() -> int:
        if not held.is_set():
            begin()
        return plain()

    monkeypatch.setattr(os, "fork", fork)
    worker = threading.Thread(target=work)
    worker.start()
    if begins == "before":
        begin()
    if not (child := fork_server.fork()):
        os._exit(0 if lock.acquire(blocking=False) else 1)
    over.set()
    worker.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "FORK_SECONDS", 0.05)
    monkeypatch.setattr(fork_server, "_naps", lambda: None)  # another thread never sleeps
    if not (child := fork_server.fork()):
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_fork_that_is_killed_is_its_parents_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.fork

    def fork() -> int:
        if child := plain():
            os.kill(child, signal.SIGKILL)
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        return child

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(fork_server, "_naps", list)
    child = fork_server.fork()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
