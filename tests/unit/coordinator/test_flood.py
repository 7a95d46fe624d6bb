"""A coordinator in a process of its own, and somebody who has the run's token and means it ill."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from fl_rec.coordinator.client import CoordinatorClient
from fl_rec.coordinator.messages import ClientReport
from fl_rec.coordinator.reception import token_for
from fl_rec.coordinator.wire import CHUNK, CLIENT_KEY, METHOD, TOKEN_KEY

ROOT = Path(__file__).resolve().parents[3]
SECRET, LIMIT = "the secret of this run", 1 << 20
STREAMS = 400
MIB = 1 << 20

SERVER = """
import asyncio, pathlib, sys
from fl_rec.config import CoordinatorConfig
from fl_rec.coordinator import reception, service
from fl_rec.runs.audit import Audit
from fl_rec.coordinator.rounds import RoundLog
from fl_rec.coordinator.strategies import Fleet, new_strategy

reception.RECEIVE_SECONDS = 3600  # none goes by itself

async def main():
    rounds = RoundLog(pathlib.Path(sys.argv[1]) / "rounds.jsonl")
    strategy = lambda: new_strategy("join_all", {}, Fleet(3, 9))
    coordinator = service.Coordinator(strategy, "join_all", CoordinatorConfig(), rounds)
    await coordinator.start()
    audit = Audit(pathlib.Path(sys.argv[1]) / "audit.jsonl")
    server = reception.Reception(coordinator, sys.argv[2], int(sys.argv[3]), audit)
    print(await server.open("127.0.0.1:0"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-c", SERVER, str(tmp_path), SECRET, str(LIMIT)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield psutil.Process(process.pid), f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_open_streams_take_no_memory_and_nobodys_place(server: tuple[psutil.Process, str]) -> None:
    process, endpoint = server
    before, over = process.memory_info().rss, threading.Event()

    def unfinished() -> Iterator[bytes]:
        for _ in range(LIMIT // CHUNK - 1):
            yield bytes(CHUNK)
        over.wait(60)

    channel = grpc.insecure_channel(endpoint)
    call = channel.stream_stream(METHOD)
    streams = [
        call(unfinished(), timeout=60, metadata=((CLIENT_KEY, "0"), (TOKEN_KEY, token_for(SECRET, 0))))
        for _ in range(STREAMS)
    ]
    deadline = time.monotonic() + 60
    # Ten are open at most, of seven places; those on their way are not in the coordinator's hands.
    while sum(stream.done() for stream in streams) < STREAMS - 10:
        assert time.monotonic() < deadline, "streams that can't all be taken in should have ended"
        time.sleep(0.05)
    assert process.memory_info().rss - before < 100 * MIB
    clients = [CoordinatorClient(endpoint, lambda k=k: token_for(SECRET, k), LIMIT, 30) for k in range(3)]
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda k=k: answers.append(clients[k].report(ClientReport(k, 0), 30).next_state))
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == ["JOIN"] * 3
    over.set()
    for each in (channel, *clients):
        each.close()
