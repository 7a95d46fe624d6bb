"""A job on hosts between which somebody listens, by the commands of docs/tunnel.md: what the tunnel keeps from a
listener, and from a neighbour who has no certificate of the job's."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml

from fl_rec.commands import certs
from fl_rec.nets.tensors import read_tensors
from fl_rec.runs.directory import RunDirectory

from .conftest import PROMPT, ROOT, TIMEOUT, Job, clean_environment
from .namespaces import Host, namespaces, run_in
from .tunnel import FIREWALL, HUB, INSIDE, RUN, SPOKE, Tunnel, require, wait_for

# What is heard at some addresses.
KNOCK = """
import socket, sys, threading
said = {}
def at(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        said[address] = "open"
    except ConnectionRefusedError:
        said[address] = "closed"
    except OSError:
        said[address] = "silent"
threads = [threading.Thread(target=at, args=(address,)) for address in sys.argv[1:]]
for each in threads: each.start()
for each in threads: each.join()
print(*(said[address] for address in sys.argv[1:]))
"""


# A client's report without TLS: the token that is given, and an answer.
REPORT = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from fl_rec.coordinator.client import CoordinatorClient
from fl_rec.coordinator.messages import ClientReport, Decision
from fl_rec.coordinator.wire import CALL, SERVICE, encode
def answer(report, context):
    yield encode(Decision())
calls = {CALL: grpc.unary_stream_rpc_method_handler(answer)}
server = grpc.server(ThreadPoolExecutor(1), [grpc.method_handlers_generic_handler(SERVICE, calls)])
address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()
CoordinatorClient(address, lambda: sys.argv[1], 1 << 20, 20.0).report(ClientReport(client=0, round=0), 20.0)
"""


class Network(Tunnel):
    """A tunnel's hosts, and a neighbour on the same network who is not to come in: the last of some hosts."""

    def __init__(self, hosts: Sequence[Host], folder: Path, opened: ExitStack) -> None:
        super().__init__(hosts[:-1], folder, opened)
        self.neighbour = hosts[-1]
        certs.create(folder / "others", 1, INSIDE)

    def intrude(self, certificate: Path) -> Path:
        """Has the neighbour start openvpn, with some certificate; returns its log."""
        command = f"openvpn --config deploy/tunnel/spoke.conf --remote host-0 --ca {self.folder}/certs/ca.crt"
        own = f" --cert {certificate}.crt --key {certificate}.key"
        return self.start(self.neighbour, (command + own).split(), certificate.name)

    def capture(self, host: Host, device: str) -> Path:
        """Has all that passes a device written to a file."""
        file = self.folder / f"{device}.pcap"
        log = self.start(host, ["tcpdump", "-i", device, "-w", file, "-U", "-s", "0", "-B", "65536"], device)
        wait_for(f"{log} to say so", lambda: "listening on" in log.read_text())
        return file


def heard(host: Host, *addresses: str) -> list[str]:
    """What a host hears at some addresses: "open", "closed" or "silent"."""
    asks = run_in(host, [sys.executable, "-S", "-c", KNOCK, *addresses], stdout=subprocess.PIPE)
    return asks.communicate(timeout=PROMPT)[0].split()


def parts_of_rows(model: Path) -> list[bytes]:
    """The first 32 bytes of 40 rows of a saved embedding."""
    rows = read_tensors(model / "tables" / "mlp_item_embedding", ["rows"])["rows"]
    assert rows.dtype == np.float32 and len(rows) == 400
    return [row[:8].tobytes() for row in rows[::10]]


def seen(secrets: Mapping[str, Sequence[bytes]], capture: Path) -> set[str]:
    """The kinds of secrets of which one is to be read in a capture."""
    data = capture.read_bytes()
    return {kind for kind, texts in secrets.items() if any(text in data for text in texts)}


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require("openvpn", "tcpdump", "nft")
    (tmp_path / "network").mkdir()
    with namespaces(4) as hosts, ExitStack() as opened:
        yield Network(hosts, tmp_path / "network", opened)


@pytest.fixture
def configured(job: Job, network: Network) -> list[Path]:
    """The job's configuration on each host, with the host's own files."""
    job.runner.update(epochs=2)
    configured = []
    for host in network.hosts:
        files = {"cert": "{name}.crt", "key": "{name}.key", "ca": "ca.crt"}
        content = yaml.safe_load(job.yaml.read_text())
        content["tls"] = {key: str(network.etc(host) / name) for key, name in files.items()}
        content["runner"]["run_dir"] = str(network.etc(host) / "run")
        configured.append(network.etc(host) / "job.yaml")
        configured[-1].write_text(yaml.safe_dump(content))
    return configured


def test_a_job_through_the_tunnel(network: Network, configured: list[Path]) -> None:
    """The coordinator's TLS is within it, so that a listener on a host's device of the tunnel sees rows alone."""
    (a, b, c), neighbour = network.hosts, network.neighbour
    (hubs_log,) = network.play(HUB, [a])
    network.play(SPOKE, [b, c])
    # A neighbour who knows the address comes around the tunnel, until the rule is there.
    assert run_in(neighbour, ["ip", "route", "add", "10.88.0.1", "via", a.address]).wait(20) == 0
    inside, around = "10.88.0.1:8900", f"{a.address}:8900"
    assert heard(neighbour, inside, around) == ["closed", "closed"]
    network.play(FIREWALL, [a, b, c])
    strangers = [network.intrude(network.folder / each) for each in ("others/10.88.0.2", "certs/client-0")]
    switch = dataclasses.replace(a, name="switch", namespace=a.switch)
    wire, within, clear = (network.capture(*each) for each in ((switch, "bridge"), (a, "flrec0"), (neighbour, "lo")))

    runs, launched = [RunDirectory(path.parent / "run") for path in configured], []
    for host, path in zip(network.hosts, configured):
        words = [sys.executable, "-m", "fl_rec.cli", *shlex.split(RUN)[1:]]
        words[words.index("job.yaml")] = str(path)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        launched.append(run_in(host, words, cwd=ROOT, env=clean_environment(), **pipes))
    try:
        wait_for("the server to listen", lambda: heard(c, inside) == ["open"])
        assert heard(c, inside, around) == ["open", "closed"]
        assert heard(neighbour, inside, around) == ["silent", "closed"]
    finally:
        ended = [process.communicate(timeout=TIMEOUT)[0] for process in launched]
    assert [process.returncode for process in launched] == [0, 0, 0], "\n".join(ended)
    assert {run.read_result().state for run in runs} == {"done"}
    for log, why in zip(strangers, ("unknown CA", "AUTH_FAILED")):
        assert "Initialization Sequence Completed" not in log.read_text() and why in hubs_log.read_text()

    tokens = [path.read_bytes() for path in runs[0].coordinator.glob("tokens/*")]
    assert run_in(neighbour, [sys.executable, "-c", REPORT, tokens[0].decode()], cwd=ROOT).wait(PROMPT) == 0
    secrets = {"row": parts_of_rows(runs[0].model / "2"), "token": tokens, "report": [b"shard_rows", b"train_loss"]}
    wait_for("tcpdump to write it", lambda: seen(secrets, clear) == {"token", "report"})
    assert seen(secrets, within) == {"row"}
    assert seen(secrets, wire) == set() and wire.stat().st_size > within.stat().st_size
