"""The hosts that other tests play on: what they can and can't reach."""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

import pytest

from tests.integration.namespaces import CannotHere, Host, cut, heal, lose, namespaces, run_in, sent_bytes

SERVE = """
import socket
listening = socket.create_server(("0.0.0.0", 4000))
print("ready", flush=True)
while True:
    connection, peer = listening.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 4000), timeout=float(sys.argv[2])) as connection:
        print(connection.recv(100).decode(), end="")
except OSError:
    print("nobody", end="")
"""


def ask(host: Host, whom: str, seconds: float = 0.5) -> str:
    """By which address a host is known to the one that it asks; "nobody" if none answers."""
    asks = run_in(host, [sys.executable, "-c", ASK, whom, seconds], stdout=subprocess.PIPE)
    return asks.communicate(timeout=30)[0]


def test_hosts_reach_each_other_by_name_until_one_is_cut_off():
    with namespaces(3) as hosts, namespaces(1) as others:
        serves = run_in(hosts[0], [sys.executable, "-c", SERVE], stdout=subprocess.PIPE)
        assert serves.stdout is not None
        assert serves.stdout.readline() == "ready\n"
        before = sent_bytes(hosts[1])
        assert ask(hosts[1], "host-0", 10) == hosts[1].address
        assert sent_bytes(hosts[1]) > before
        # Another network has the same addresses, and its own hosts only.
        assert others[0].address == hosts[0].address
        assert ask(others[0], hosts[0].address) == "nobody"

        cut(hosts[1])
        assert ask(hosts[1], "host-0") == "nobody"
        assert ask(hosts[2], "host-0", 10) == hosts[2].address
        heal(hosts[1])
        assert ask(hosts[1], "host-0", 10) == hosts[1].address

        lose(hosts[1], 1)
        assert ask(hosts[1], "host-0") == "nobody"
        lose(hosts[1], 0)
        assert ask(hosts[1], "host-0", 10) == hosts[1].address
    assert serves.wait(timeout=10) == -9
    made = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=20, check=True).stdout
    for host in (*hosts, *others):
        assert host.namespace not in made
        assert not (Path("/etc/netns") / host.namespace).exists()


def test_without_root_the_test_is_skipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert issubclass(CannotHere, unittest.SkipTest)
    with pytest.raises(CannotHere, match="need root and the command ip"), namespaces(1):
        pass
