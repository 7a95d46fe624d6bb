"""A coordinator in a process of its own, somebody on the network and a client who mean it ill."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from fl_rec.coordinator.client import CoordinatorClient
from fl_rec.coordinator.messages import ClientReport
from fl_rec.coordinator.reception import token_for
from fl_rec.coordinator.wire import CHUNK, CLIENT_KEY, METHOD, TOKEN_KEY
from fl_rec.runs.audit import REFUSALS
from fl_rec.secure import Tls

ROOT = Path(__file__).resolve().parents[3]
SECRET, LIMIT = "the secret of this run", 1 << 20
STREAMS, CONNECTIONS = 400, 1000
MIB = 1 << 20

SERVER = """
import asyncio, pathlib, sys
from fl_rec.config import CoordinatorConfig
from fl_rec.coordinator import reception, service
from fl_rec.runs.audit import Audit
from fl_rec.secure import Tls
from fl_rec.coordinator.rounds import RoundLog
from fl_rec.coordinator.strategies import Fleet, new_strategy

reception.RECEIVE_SECONDS = 3600  # none goes by itself

async def main():
    rounds = RoundLog(pathlib.Path(sys.argv[1]) / "rounds.jsonl")
    strategy = lambda: new_strategy("join_all", {}, Fleet(3, 9))
    coordinator = service.Coordinator(strategy, "join_all", CoordinatorConfig(), rounds)
    await coordinator.start()
    audit = Audit(pathlib.Path(sys.argv[1]) / "audit.jsonl")
    tls = Tls(*map(pathlib.Path, sys.argv[4:])) if sys.argv[4:] else None
    server = reception.Reception(coordinator, sys.argv[2], int(sys.argv[3]), audit, tls)
    print(await server.open("127.0.0.1:0"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path: Path, certs: Path | None) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-c", SERVER, str(tmp_path), SECRET, str(LIMIT)]
    if certs is not None:
        command += [str(certs / name) for name in ("coordinator.crt", "coordinator.key", "ca.crt")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield psutil.Process(process.pid), f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.fixture(params=["tokens", "certificates"])
def certs(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    if request.param == "tokens":
        return None
    pytest.importorskip("cryptography")
    from tests.unit.secure.certificates import make

    return make(tmp_path)


def refused(folder: Path) -> tuple[Counter[str], int]:
    """How many lines there are of each reason, and bytes of the file; those that a line counts are not in it."""
    text = (folder / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return Counter(each["why"] for each in lines if each["what"] == "refused"), len(text)


def test_a_flood_takes_no_memory_and_nobodys_place(
    server: tuple[psutil.Process, str], certs: Path | None, tmp_path: Path
) -> None:
    process, endpoint = server
    before, over = process.memory_info().rss, threading.Event()
    host, _, port = endpoint.rpartition(":")

    def unfinished() -> Iterator[bytes]:
        for _ in range(LIMIT // CHUNK - 1):
            yield bytes(CHUNK)
        over.wait(60)

    def channel(options: Sequence[tuple[str, int]] = ()) -> grpc.Channel:
        if certs is None:
            return grpc.insecure_channel(endpoint, options)
        parts = (certs / name for name in ("ca.crt", "client-0.key", "client-0.crt"))
        return grpc.secure_channel(
            endpoint, grpc.ssl_channel_credentials(*(each.read_bytes() for each in parts)), options
        )

    # As many connections as there are calls for, each with 16 of them.
    channels = [channel([("grpc.use_local_subchannel_pool", 1)]) for _ in range(STREAMS // 16)]
    shown = ((CLIENT_KEY, "0"), (TOKEN_KEY, token_for(SECRET, 0)))
    calls = [each.stream_stream(METHOD) for each in channels]
    streams = [calls[number % len(calls)](unfinished(), timeout=60, metadata=shown) for number in range(STREAMS)]
    deadline = time.monotonic() + 60
    # Two are open at most; those on their way are not in the coordinator's hands.
    while sum(stream.done() for stream in streams) < STREAMS - 10:
        assert time.monotonic() < deadline, "streams that can't all be taken in should have ended"
        time.sleep(0.05)
    connections = [socket.create_connection((host, int(port)), 30) for _ in range(CONNECTIONS)]
    assert process.memory_info().rss - before < 100 * MIB
    clients = [
        CoordinatorClient(endpoint, lambda k=k: token_for(SECRET, k), LIMIT, 30, tls=certs and tls_of(certs, k))
        for k in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:
        told = pool.map(lambda k: clients[k].report(ClientReport(k, 0), 30).next_state, range(3), timeout=60)
        assert list(told) == ["JOIN"] * 3
    over.set()
    for each in (*channels, *clients, *connections):
        each.close()
    lines, size = refused(tmp_path)
    assert sum(count for why, count in lines.items() if "connections" in why) == REFUSALS
    # Of which kind is chance: calls that are refused, or connections that go before a call of theirs is in.
    assert any("client 0" in why for why in lines)
    assert size < 40_000


def tls_of(certs: Path, client: int) -> Tls:
    return Tls(certs / f"client-{client}.crt", certs / f"client-{client}.key", certs / "ca.crt")
