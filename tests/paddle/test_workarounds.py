"""What is done about Paddle's parameter server, where it can be seen without a job."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

DEADLINE = 30


# A server that holds gloo's store, and a worker that says it has done with it; Paddle itself takes 5 s.
STORE = """
import encodings.idna  # or else the thread may be importing it when Paddle forks, and the child waits for it for ever
import http.client, socket, threading, time
from paddle.distributed.fleet.base import role_maker
from fl_rec.ps.workarounds import keep_gloos_flag_in_memory, look_often_at_gloos_store

look_often_at_gloos_store()
keep_gloos_flag_in_memory()
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

def meet():
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("DELETE", "/store_worker/0")
            assert connection.getresponse().status == 200
            return
        except OSError:
            time.sleep(0.05)

gloo = role_maker.Gloo()
gloo._role, gloo._worker_num = role_maker.Role.SERVER, 1
threading.Thread(target=meet, daemon=True).start()
start = time.perf_counter()
gloo._init_http("127.0.0.1", port, "store", True, role_maker.Manager().dict())
assert time.perf_counter() - start < 4
"""


def test_the_start_goes_on_as_soon_as_all_workers_have_met(tmp_path: Path) -> None:
    """In a process of its own, since Paddle forks the store, and other tests' threads are none of a server's."""
    # Paddle's store leaves a log where it stands.
    subprocess.run([sys.executable, "-c", STORE], check=True, timeout=2 * DEADLINE, cwd=tmp_path)


def test_gloo_listens_at_the_address_and_not_where_the_machines_name_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine whose name has no address, Paddle itself dies of SIGSEGV."""
    from paddle.distributed.fleet.base.role_maker import Gloo

    from fl_rec.ps.workarounds import have_gloo_listen_at

    monkeypatch.setattr(Gloo, "_iface", "as it was", raising=False)
    for host in ("192.0.2.1", "no-such-host.invalid"):
        have_gloo_listen_at(host)
        assert Gloo._iface == "as it was"
    have_gloo_listen_at("127.0.0.1")
    gloo = Gloo()
    gloo._iface = ""  # as Paddle has it
    assert "127.0.0.1" in [each.address for each in psutil.net_if_addrs()[gloo._iface]]


def test_no_role_needs_a_socket_in_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path may have 107 bytes, and a batch system's TMPDIR is soon as long."""
    from paddle.distributed.fleet.base import role_maker

    from fl_rec.ps.workarounds import keep_gloos_flag_in_memory

    monkeypatch.setattr(role_maker, "Manager", role_maker.Manager)
    keep_gloos_flag_in_memory()
    flag = role_maker.Manager().dict()
    flag["running"] = False
    assert flag.get("running", True) is False
    child = os.fork()
    if not child:
        flag["running"] = True
        os._exit(0)
    os.waitpid(child, 0)
    assert flag.get("running", False) is True


def test_messages_may_be_as_long_as_protobuf_takes() -> None:
    import paddle

    from fl_rec.ps.workarounds import allow_long_messages

    library = ctypes.CDLL(paddle.base.libpaddle.__file__)
    names = ("_ZN4brpc5fLU6419FLAGS_max_body_sizeE", "_ZN4brpc5fLI6432FLAGS_socket_max_unwritten_bytesE")
    flags = [ctypes.c_int64.in_dll(library, name) for name in names]
    before = [flag.value for flag in flags]
    try:
        allow_long_messages()
        assert [flag.value for flag in flags] == [2**31 - 1, 2**31 - 1]
    finally:
        for flag, value in zip(flags, before):
            flag.value = value


def test_many_workers_reach_gloos_store_at_once() -> None:
    """Those that the store has not yet taken wait there. Paddle itself lets five, and the next comes a second later."""
    from paddle.distributed.fleet.utils.http_server import KVHandler, KVHTTPServer

    from fl_rec.ps.workarounds import look_often_at_gloos_store

    look_often_at_gloos_store()
    workers = [socket.socket() for _ in range(40)]
    store = KVHTTPServer(0, KVHandler)
    try:
        for worker in workers:
            worker.settimeout(DEADLINE)
            worker.connect(("127.0.0.1", store.server_address[1]))
    finally:
        for each in (*workers, store.socket):
            each.close()
