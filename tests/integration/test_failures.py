"""What goes wrong, each as a user would meet it: a non-zero end, a message that names it, no process left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from fl_rec.job.watch import FLEETRUN_MARK, Mark
from fl_rec.runs import roles

from .conftest import PROMPT, ROOT, WORKERS, Job, clean_environment, role_process


def long_job(job: Job) -> Job:
    job.runner["epochs"] = 1000
    return job


def wait_for_end(mark: Mark) -> None:
    """Returns when a job has no process left; it must come to that within `PROMPT`."""
    deadline = time.monotonic() + PROMPT
    while mark.processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert mark.processes() == []


@pytest.mark.parametrize(("role", "start"), [("worker.1", "fork"), ("server.0", "fork"), ("worker.1", "spawn")])
def test_killed_role(job: Job, role: str, start: str) -> None:
    job.anew, job.environment["FL_REC_START"] = True, start
    started = long_job(job).start()
    role_process(job, "worker.2")
    role_process(job, role).kill()
    finished = job.wait(started, PROMPT)
    assert finished.code == 1
    how = "killed by SIGKILL, as by kill -9" if start == "fork" else "killed"  # fleetrun may have reaped it
    assert f"{role} failed: it ended without a word: {how}" in finished.errors
    assert str(job.run.log) in finished.errors
    assert finished.result["role"] == role


def assert_shut(job: Job) -> None:
    """A job that trains listens where its server's tables are, and there is none of brpc's pages."""
    role_process(job, "worker.0")
    listening = {
        each.laddr
        for status in roles.read_statuses(job.run.roles).values()
        for each in psutil.Process(status.pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }
    host, _, port = roles.read_statuses(job.run.roles)["server.0"].endpoint.partition(":")
    assert listening == {(host, int(port))} and host == "127.0.0.1"
    for page in (
        "",
        "flags",
        "flags/max_body_size?setvalue=1",
        "vars",
        "status",
        "connections",
        "rpcz",
        "dir",
        "pprof",
    ):
        with pytest.raises(urllib.error.HTTPError, match="HTTP Error 404") as refused:
            urllib.request.urlopen(f"http://{host}:{port}/{page}", timeout=PROMPT)
        assert b"Fail to find method on `/" in refused.value.read()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_interrupt_ends_the_job_and_nothing_else(job: Job, start: str) -> None:
    job.anew, job.environment["FL_REC_START"] = True, start
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        started = long_job(job).start()
        assert_shut(job)
        started.send_signal(signal.SIGINT)
        finished = job.wait(started, PROMPT)
        assert finished.code == 128 + signal.SIGINT
        assert "stopped by SIGINT" in finished.output
        assert (finished.result["state"], finished.result["error"]) == ("interrupted", "stopped by SIGINT")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_killed_launcher(job: Job, start: str) -> None:
    job.anew = True
    # In pytest's folder the sockets' paths would be too long.
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        job.environment.update(FL_REC_START=start, TMPDIR=temporary)
        started = long_job(job).start()
        role_process(job, "worker.0")
        assert os.listdir(temporary)
        started.kill()
        started.communicate(timeout=PROMPT)
        wait_for_end(job.mark)
        assert os.listdir(temporary) == []
    result = json.loads(job.run.result.read_text())
    assert (result["state"], result["error"]) == ("interrupted", "the launcher was killed")


def test_missing_data_folder(job: Job) -> None:
    job.runner["train_data_dir"] = "nowhere"
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 2
    assert str(job.folder / "nowhere") in finished.errors
    assert not job.run.path.exists(), "nothing was started"


def test_misspelt_key(job: Job) -> None:
    finished = job.wait(job.start("-o", "runner.epoch=3"), PROMPT)
    assert finished.code == 2
    assert "runner.epoch" in finished.errors
    assert "runner.epochs" in finished.errors
    assert "Traceback" not in finished.errors


def test_sizes_that_the_data_contradicts(job: Job) -> None:
    job.hyper_parameters["num_users"] = 10
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 2
    assert "num_users must be at least 600" in finished.errors
    assert not job.run.path.exists()


def test_reader_that_fails(job: Job, tmp_path: Path) -> None:
    (tmp_path / "bad_reader.py").write_text("import sys\nsys.exit('no such column: zip')\n")
    job.runner.update(pipe_command="python bad_reader.py", test_data_dir=None)
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 1
    assert "The reader must exit with 0. Received: 1 on " in finished.errors
    assert "runner.pipe_command='python bad_reader.py'" in finished.errors
    assert "no such column: zip" in finished.errors
    assert finished.records("all") == [], "nothing was trained"


def test_reader_that_loses_rows(job: Job) -> None:
    job.runner.update(pipe_command="head -n 100", test_data_dir=None)
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 1
    assert "Received: 100 rows from " in finished.errors
    assert finished.records("all") == []


def test_port_in_use(job: Job) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        finished = job.wait(job.start("--servers", endpoint), PROMPT)
    assert finished.code == 1
    assert f"server.0 failed: server.0 must be able to listen on its port. Received: {endpoint}" in finished.errors


def test_run_directory_that_has_had_its_run(job: Job) -> None:
    (job.run.path).mkdir()
    (job.run.path / "job").write_text("another")
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 2
    assert "A run directory holds one run" in finished.errors


@pytest.fixture
def mount(tmp_path: Path):
    """A file system of a few pages, to fill or to lock."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"a full disk needs the right to mount one: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk(job: Job, mount: Path) -> None:
    job.runner["model_save_path"] = str(mount)
    (mount / "filler").write_bytes(b"x" * 200_000)
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 1
    assert "worker.0 failed: The model must be saved" in finished.errors
    assert str(mount) in finished.errors


def test_full_run_directory(job: Job, mount: Path) -> None:
    job.run = type(job.run)(mount / "run")
    job.runner["run_dir"] = str(job.run.path)
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 1
    assert "No space left on device" in finished.errors


def test_read_only_run_directory(job: Job, mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    job.runner["run_dir"] = str(mount / "run")
    finished = job.wait(job.start(), PROMPT)
    assert finished.code == 2
    assert "The run directory must be writable" in finished.errors
    assert str(mount) in finished.errors


def test_killed_worker_under_a_bare_fleetrun(job: Job, tmp_path: Path) -> None:
    """fleetrun itself would wait for ever; the watch that the first role starts ends the job, and fleetrun."""
    long_job(job)
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--worker_num={WORKERS}", "--server_num=1"]
    command += [f"--log_dir={tmp_path / 'log'}", str(ROOT / "tools" / "static_fl_trainer.py"), "-m", str(job.yaml)]
    with open(tmp_path / "fleetrun", "wb") as log:
        fleetrun = subprocess.Popen(command, stdout=log, stderr=log, env=clean_environment())
    try:
        victim = role_process(job, "worker.1")
        mark = Mark(FLEETRUN_MARK, victim.environ()[FLEETRUN_MARK])
        assert len(mark.processes()) > WORKERS
        victim.kill()
        assert fleetrun.wait(PROMPT) != 0
        wait_for_end(mark)
        assert "worker.1 failed: it ended without a word" in (job.run.log / "watch").read_text()
    finally:
        if fleetrun.poll() is None:
            fleetrun.kill()
        fleetrun.wait()
