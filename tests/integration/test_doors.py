"""What a job opens to the network, and whom it lets in."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, JOB_KEY

from .conftest import ROOT, Commands, Job

# A first server that waits for its workers in gloo's store, and a worker 0 who goes there: each plays its role by the
# script, in a fork. Says how the worker ended, what the store answers to others, and where the server listens.
STRANGER = """
import http.client, json, os, runpy, signal, socket, sys, time
import psutil
from fl_rec.trainer.fork_server import fork

script, yaml, log, server, worker, store = sys.argv[1:]

def play(variables):
    child = fork()
    if not child:
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        os.environ.update(json.loads(variables))
        sys.argv = [script, "-m", yaml]
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as err:
            os._exit(err.code)
    return child

host, port = store.split(":")

def ask(method, path):
    connection = http.client.HTTPConnection(host, int(port), timeout=8)
    connection.request(method, path, body=b"x" if method == "PUT" else None)
    return connection.getresponse().status

serving = play(server)
try:
    family = psutil.Process(serving)
    deadline = time.monotonic() + 60
    while not any(each.status == "LISTEN" for one in family.children() for each in one.net_connections("tcp")):
        assert time.monotonic() < deadline and family.status() != "zombie", open(log).read()
        time.sleep(0.05)
    _, code = os.waitpid(play(worker), 0)
    listening = [
        each.laddr[0] for one in (family, *family.children(True)) for each in one.net_connections("tcp")
        if each.status == "LISTEN"
    ]
    idle = socket.create_connection((host, int(port)))  # who asks nothing keeps nobody from being answered
    asked = [("GET", "/"), ("GET", "none"), ("HEAD", "/http.log")]
    asked += [(method, "/_worker/0") for method in ("GET", "PUT", "DELETE")]
    print(json.dumps([os.waitstatus_to_exitcode(code), [ask(*each) for each in asked], listening]))
finally:
    os.killpg(serving, signal.SIGKILL)
    os.waitpid(serving, 0)
"""


@pytest.mark.parametrize("stranger", ["of another run", "who has heard of this one"])
def test_a_worker_of_another_job_is_refused(stranger: str, job: Job, tmp_path: Path, commands: Commands) -> None:
    """Before it trains, and it is told so; its own job's server 0 is another, or it could not tell that it is."""
    endpoint, store = (f"127.0.0.1:{port}" for port in free_ports(2))
    common = {
        "PADDLE_PSERVERS_IP_PORT_LIST": endpoint,
        "PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3",
        "PADDLE_TRAINERS_NUM": "3",
        "PADDLE_GLOO_HTTP_ENDPOINT": store,
        "PADDLE_GLOO_RENDEZVOUS": "3",
        "PADDLE_GLOO_FS_PATH": str(tmp_path),
        "POD_IP": "127.0.0.1",
    }
    runs = [tmp_path / "one", tmp_path / ("two" if stranger == "of another run" else "one")]
    for run in runs:
        for folder in ("roles", "log"):
            (run / folder).mkdir(parents=True, exist_ok=True)
        (run / "job").write_text(f"test\n{run.name}\n")
    server = {**common, "TRAINING_ROLE": "PSERVER", "PADDLE_PORT": endpoint.rpartition(":")[2]}
    worker = {**common, "TRAINING_ROLE": "TRAINER", "PADDLE_PORT": "1", "PADDLE_TRAINER_ID": "0"}
    server |= {ENVIRONMENT_KEY: str(runs[0]), JOB_KEY: "ours"}
    worker |= {ENVIRONMENT_KEY: str(runs[1]), JOB_KEY: "theirs"}
    script, log = ROOT / "tools/static_fl_trainer.py", tmp_path / "log.txt"
    told = commands.program(STRANGER, script, job.yaml, log, json.dumps(server), json.dumps(worker), store)
    assert json.loads(told) == [1, [403] * 6, ["127.0.0.1"]]
    assert roles.read_statuses(runs[1] / "roles")["worker.0"].error == (
        f"Gloo's store must be this job's own. Received: {store}, where another program answers and server.0 can't "
        "listen. Free the port or, if the system chose it, start again."
        if stranger == "of another run"
        else f"Gloo's store must be this job's own. Received: {store}, which serves another job and has refused "
        "worker.0. Give each job addresses of its own, and FL_REC_JOB the same value on all hosts of one."
    )
    said = log.read_text()
    told = [json.loads(line) for line in (runs[0] / "audit.jsonl").read_text().splitlines()]
    refused = ("refused", "127.0.0.1", "gloo's store: it is of another job, or of none")
    assert {(each["what"], each["who"], each["why"]) for each in told} == {refused}
    assert "ours" not in said and "store.prefix" not in said, "a log is no place for what a job is known by"


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()
