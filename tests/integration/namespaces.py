"""Network namespaces as hosts: each has an address, a loopback and names of its own, and a bridge joins them.

The bridge lies in a namespace too, so that nothing is seen outside: other networks may have the same addresses.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import SkipTest

from fl_rec.errors import RunError

# Seconds; each of these commands takes milliseconds.
_TIMEOUT = 20


class CannotHere(RunError, SkipTest):
    """What this machine can't do: a test that needs it is skipped, a benchmark says so."""


@dataclass(frozen=True)
class Host:
    """One of them.

    Attributes:
        name: by which the others' /etc/hosts knows it: "host-0", "host-1", ...
        address: its address.
        namespace: what `ip netns` calls it.
        switch: where the bridge lies.
    """

    name: str
    address: str
    namespace: str
    switch: str


@contextmanager
def namespaces(count: int, *names: str) -> Iterator[list[Host]]:
    """So many hosts, whose processes are ended with them.

    Args:
        names: of the hosts, if others than "host-0", "host-1", ...

    Raises:
        CannotHere: there can be none.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise CannotHere("Network namespaces need root and the command ip. Received: neither or one of them.")
    own = f"fl-rec-{os.getpid()}-{secrets.token_hex(3)}"
    called = names or [f"host-{k}" for k in range(count)]
    hosts = [Host(name, f"10.77.0.{k + 1}", f"{own}-{k}", own) for k, name in enumerate(called)]
    known = "".join(f"{host.address} {host.name}\n" for host in hosts)
    try:
        try:
            _ip("netns", "add", own)
        except subprocess.CalledProcessError as err:
            raise CannotHere(f"No network namespace can be made here: {err.stderr.strip()}") from err
        _ip("-n", own, "link", "add", "bridge", "type", "bridge")
        _ip("-n", own, "link", "set", "bridge", "up")
        for host in hosts:
            _ip("netns", "add", host.namespace)
            # `ip netns exec` puts it over /etc/hosts.
            _etc(host).mkdir(parents=True)
            (_etc(host) / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
            _ip("-n", host.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", host.name, "netns", own)
            _ip("-n", own, "link", "set", host.name, "master", "bridge", "up")
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.namespace, "link", "set", device, "up")
        yield hosts
    finally:
        for host in hosts:
            _end_processes(host)
        for namespace in (*(host.namespace for host in hosts), own):
            with suppress(subprocess.CalledProcessError):  # it was not made
                _ip("netns", "delete", namespace)
        for host in hosts:
            shutil.rmtree(_etc(host), ignore_errors=True)


def run_in(host: Host, command: Sequence[Any], **options: Any) -> subprocess.Popen[str]:
    """Starts a command on a host; its process number is the command's own.

    Args:
        options: of `subprocess.Popen`.
    """
    command = ["ip", "netns", "exec", host.namespace, *map(str, command)]
    return subprocess.Popen(command, **{"text": True, **options})


def cut(host: Host) -> None:
    """Pulls a host's cable: nothing comes or goes, and nobody is told."""
    _ip("-n", host.switch, "link", "set", host.name, "down")


def sent_bytes(host: Host) -> int:
    """What it has sent so far, with headers down to the wire's."""
    (device,) = json.loads(_ip("-n", host.namespace, "-json", "-statistics", "link", "show", "dev", "eth0"))
    sent: int = device["stats64"]["tx"]["bytes"]
    return sent


def heal(host: Host) -> None:
    """Plugs it in again."""
    _ip("-n", host.switch, "link", "set", host.name, "up")


def lose(host: Host, share: float) -> None:
    """Has a host lose this share of what comes to it, at random; 0: nothing any more. CannotHere without iptables."""
    dropped = ("-m", "statistic", "--mode", "random", "--probability", f"{share:g}", "-j", "DROP")
    rules: list[tuple[str, ...]] = [("-F", "INPUT"), *([("-A", "INPUT", "-i", "eth0", *dropped)] if share else [])]
    try:
        for rule in rules:
            _ip("netns", "exec", host.namespace, "iptables", *rule)
    except subprocess.CalledProcessError as err:
        raise CannotHere(f"iptables can't lose packets here: {err.stderr.strip()}") from err


def _ip(*arguments: str) -> str:
    command = ["ip", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT).stdout


def _etc(host: Host) -> Path:
    return Path("/etc/netns") / host.namespace


def _end_processes(host: Host) -> None:
    """A namespace lives as long as a process does."""
    deadline = time.monotonic() + _TIMEOUT
    with suppress(subprocess.CalledProcessError):  # it was not made
        while (pids := _ip("netns", "pids", host.namespace).split()) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)
