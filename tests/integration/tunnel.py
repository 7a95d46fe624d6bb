"""The tunnel of docs/tunnel.md between network namespaces, by the page's own commands."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fl_rec.commands import certs
from tests.documented import ROOT, blocks
from tests.integration.namespaces import CannotHere, Host, run_in

INSIDE = ("10.88.0.1", "10.88.0.2", "10.88.0.3")
# What the page has for the first host, for every other one, for all of them, and the job's command.
HUB, SPOKE, FIREWALL, RUN = blocks(ROOT / "docs" / "tunnel.md", "bash")[1:5]
_PROMPT = 60


class Tunnel:
    """Three hosts of a job.

    Attributes:
        hosts: their namespaces.
        folder: where each has a folder of its own, in place of /etc/fl_rec.
        options: what every openvpn is told beside the page's.
        openvpn: those that were started.
    """

    def __init__(self, hosts: Sequence[Host], folder: Path, opened: ExitStack, options: Sequence[str] = ()) -> None:
        self.hosts, self.folder, self.options, self._opened = hosts, folder, options, opened
        self.openvpn: list[subprocess.Popen[str]] = []
        certs.create(folder / "certs", len(INSIDE), INSIDE)
        for host, address in zip(hosts, INSIDE):
            self.etc(host).mkdir()
            own = (address, f"client-{INSIDE.index(address)}", *(("coordinator",) if host is hosts[0] else ()))
            for name in ("ca.crt", *(f"{name}.{suffix}" for name in own for suffix in ("crt", "key"))):
                shutil.copy(folder / "certs" / name, self.etc(host))

    def etc(self, host: Host) -> Path:
        return self.folder / host.name

    def start(self, host: Host, command: Sequence[Any], name: str) -> Path:
        """Starts a program that is ended with the network; returns what it says."""
        log = self.folder / f"{name}.{host.name}"
        process = self._opened.enter_context(_started(host, command, log))
        if name == "openvpn":
            self.openvpn.append(process)
        return log

    def play(self, block: str, hosts: Sequence[Host]) -> list[Path]:
        """A block of the page, on each of some hosts; returns the logs of openvpn, which stays."""
        logs = []
        for host in hosts:
            own = block.replace("/etc/fl_rec", str(self.etc(host))).replace("train-1", self.hosts[0].name)
            for line in own.replace("10.88.0.2.", f"{INSIDE[self.hosts.index(host)]}.").splitlines():
                if line.startswith("openvpn "):
                    logs.append(self.start(host, [*shlex.split(line), *self.options], "openvpn"))
                else:
                    assert run_in(host, ["sh", "-c", line], cwd=ROOT).wait(20) == 0, line
        wait_for(
            f"{logs} to say so", lambda: all("Initialization Sequence Completed" in log.read_text() for log in logs)
        )
        return logs


def require(*programs: str) -> None:
    """CannotHere if one of some programs is not there."""
    if missing := [each for each in programs if shutil.which(each) is None]:
        raise CannotHere(f"The tunnel needs {', '.join(programs)}. Received: a machine without {', '.join(missing)}.")


def wait_for(what: str, holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _PROMPT
    while not holds():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.02)


@contextmanager
def _started(host: Host, command: Sequence[Any], log: Path) -> Iterator[subprocess.Popen[str]]:
    with open(log, "w") as file:
        process = run_in(host, command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
