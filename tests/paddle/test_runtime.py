"""What workers tell each other through gloo."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.errors import RunError
from fl_rec.ps.runtime import PsRuntime
from fl_rec.runs import roles
from fl_rec.runs.roles import RoleStatus

# Gloo holds Python's lock while it waits, so that each worker must be a process; Paddle is imported once for all.
WORKERS = """
import os, sys
import numpy as np
from paddle.base import core
from fl_rec.ps.native import AllGather

folder, workers = sys.argv[1], 3
children = []
for index in range(workers):
    child = os.fork()
    if child:
        children.append(child)
        continue
    gloo = core.Gloo()
    gloo.set_rank(index)
    gloo.set_size(workers)
    gloo.set_prefix("")
    gloo.set_iface("lo")
    gloo.set_timeout_seconds(60, 60)
    gloo.set_hdfs_store(folder + "/store", "", "")
    gloo.init()
    gather = AllGather(gloo, workers)
    told = [gather(values[index]) for values in np.load(folder + "/values.npz").values()]
    np.savez(f"{folder}/{index}.npz", *told)
    os._exit(0)
sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""


def test_a_gather_is_exact_for_all(tmp_path: Path) -> None:
    """NaN, infinities and the last bits too."""
    everyone = []
    for n in (1, 4, 16_402):
        values = np.random.default_rng(n).normal(size=(3, n)) * 10.0 ** np.arange(-100, 200, 100)[:, None]
        values[1, 0], values[2, 0] = np.nan, -np.inf
        everyone.append(values)
    np.savez(tmp_path / "values.npz", *everyone)
    (tmp_path / "store").mkdir()
    done = subprocess.run([sys.executable, "-c", WORKERS, str(tmp_path)], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    for index in range(3):
        told = list(np.load(tmp_path / f"{index}.npz").values())
        assert [each.tobytes() for each in told] == [values.tobytes() for values in everyone]
        assert {each.dtype for each in told} == {np.dtype(np.float64)}


@pytest.mark.parametrize("process", ["ours", "another"])
def test_a_worker_takes_no_other_jobs_server(process: str, tmp_path: Path) -> None:
    """brpc goes on where it can't listen."""
    runtime: Any = PsRuntime.__new__(PsRuntime)
    runtime._statuses = tmp_path
    runtime.config = SimpleNamespace(runner=SimpleNamespace(start_timeout=30.0))
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
            runtime.role = SimpleNamespace(name="worker.3", server_endpoints=(endpoint,), is_here=lambda _: True)
            pid = os.getpid() if process == "ours" else sleeper.pid
            status = RoleStatus("server.0", pid, roles.started(pid), "starting", "", {"starting": 1.0})
            (tmp_path / "server.0.json").write_text(json.dumps(dataclasses.asdict(status)))
            if process == "ours":
                runtime.wait_for_servers()
                return
            with pytest.raises(RunError) as caught:
                runtime.wait_for_servers()
            assert str(caught.value) == (
                f"The parameter server must be this job's own. Received: {endpoint}, where another program answers and "
                "server.0 can't listen. Free the port or, if the system chose it, start again."
            )
    finally:
        sleeper.kill()
        sleeper.wait()
