"""Flower as it is deployed: a SuperLink, a SuperNode for each client, and `flwr run`, all on loopback, without TLS.

Ends when the run has ended; whoever has started this ends the other processes, which all have its environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from task import PROJECT, Task

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
START_SECONDS = 60.0


def free_ports(number: int) -> list[int]:
    """Ports that the system has just given, and nobody holds now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def environment(home: Path) -> dict[str, str]:
    """What keeps Flower in a folder of its own, and from telling or asking anyone anything."""
    tools = Path(sys.executable).parent
    return {
        **os.environ,
        "HOME": str(home),
        "FLWR_HOME": str(home / ".flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(PROJECT)]),
        "OMP_NUM_THREADS": "1",
    }


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Until somebody listens at the port."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with {process.returncode} before it listened.")
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"{process.args[0]} does not listen after {START_SECONDS:g} s.")


def start(command: Sequence[object], env: dict[str, str], log: Path) -> subprocess.Popen:
    with open(log, "wb") as file:
        return subprocess.Popen(
            [str(part) for part in command], env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )


def deploy(task_path: Path, clients: int, home: Path, launch: Callable[..., subprocess.Popen] = start) -> int:
    """Starts everything, and waits until the run is over; returns the exit code of `flwr run`."""
    env = environment(home)
    port, *node_ports = free_ports(1 + clients)
    (home / ".flwr").mkdir()
    connection = f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{HOST}:{port}"\ninsecure = true\n'
    (home / ".flwr" / "config.toml").write_text(connection, encoding="utf-8")
    link = launch(
        ["flower-superlink", "--insecure", "--host", HOST, "--port", port, "--disable-runtime-dependency-installation"],
        env,
        home / "superlink.log",
    )
    wait_for(port, link)
    for client, node_port in enumerate(node_ports):
        launch(
            [
                *("flower-supernode", "--insecure", "--superlink", f"{HOST}:{port}", "--host", HOST),
                *("--port", node_port, "--node-config", f"partition-id={client}"),
            ],
            env,
            home / f"supernode-{client}.log",
        )
    app = HERE / "flower_app"
    run = launch(["flwr", "run", app, "here", "--stream", "-c", f'task="{task_path}"'], env, home / "run.log")
    return run.wait()


def main() -> int:
    path = Path(sys.argv[1]).resolve()
    task = Task.read(path)
    home = Path(tempfile.mkdtemp(prefix="flower-", dir=path.parent))
    code = deploy(path, len(task.train), home)
    epochs = Path(task.record).read_text(encoding="utf-8").count("\n") if Path(task.record).exists() else 0
    if code or epochs < task.epochs:
        print((home / "run.log").read_text(encoding="utf-8", errors="replace")[-3000:], file=sys.stderr)
        return code or 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
