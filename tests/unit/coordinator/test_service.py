"""The coordinator's service over real sockets: who is answered what, who is refused, and what a restart changes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import msgpack
import numpy as np
import pytest

from fl_rec.config import CoordinatorConfig
from fl_rec.coordinator import reception, service
from fl_rec.coordinator.claims import Limits
from fl_rec.coordinator.client import CoordinatorClient, CoordinatorLost
from fl_rec.coordinator.messages import FINISH, JOIN, WAIT, ClientReport, Decision, MessageError
from fl_rec.coordinator.reception import LONGEST_REASON, Reception, token_for
from fl_rec.coordinator.rounds import Round, RoundLog
from fl_rec.coordinator.service import Coordinator
from fl_rec.coordinator.strategies import Fleet, Strategy, new_strategy
from fl_rec.coordinator.strategies.join_all import JoinAll
from fl_rec.coordinator.wire import CHUNK, CLIENT_KEY, METHOD, TOKEN_KEY, decode_decision, encode, split
from fl_rec.errors import RunError
from fl_rec.runs.audit import Audit
from tests.unit.coordinator.scripted import Decide, Scripted

DEADLINE = 30.0
SECRET = "the secret of this run"
TOKEN = token_for(SECRET, 0)
LIMIT = 1 << 15


def everyone_joins(reports: Mapping[int, ClientReport], round: int) -> dict[int, Decision]:
    return {client: Decision(JOIN, reason=f"round {round}") for client in reports}


class Served:
    """A coordinator that listens, in the thread of `run`."""

    def __init__(
        self, run: Callable[..., Any], coordinator: Coordinator, endpoint: str, rounds: RoundLog, limit: int
    ) -> None:
        self._run, self.coordinator, self.rounds, self._limit = run, coordinator, rounds, limit
        self.audit = rounds._path.with_name("audit.jsonl")
        self._server, self.port = run(self._start(endpoint))
        self.endpoint = f"127.0.0.1:{self.port}"

    async def _start(self, endpoint: str) -> tuple[Reception, int]:
        await self.coordinator.start()
        server = Reception(self.coordinator, SECRET, self._limit, Audit(self.audit))
        return server, await server.open(endpoint)

    def stop(self, grace: float = 0) -> None:
        self._run(self._server.stop(grace))

    def heard(self, reports: int) -> None:
        """Waits until so many reports of the present round are there."""
        wait_until(f"{reports} reports", lambda: len(self.coordinator._reports) == reports)

    @property
    def failure(self) -> str:
        """What the strategy failed with, once it has."""

        async def failed() -> str:
            await asyncio.wait([self.coordinator.failure], timeout=DEADLINE)
            return str(self.coordinator.failure.exception())

        return str(self._run(failed()))


Serve = Callable[..., Served]
Ask = Callable[..., "Future[Decision]"]


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, f"{what} should have come within {DEADLINE:g} s"
        time.sleep(0.005)


@pytest.fixture
def serve(in_loop: Callable[..., Any], tmp_path: Path) -> Iterator[Serve]:
    """`serve(decide or the name of a strategy, clients=, epochs=, ...)`; all end with the test."""
    started: list[Served] = []

    def serve(
        strategy: Decide | str = everyone_joins,
        clients: int = 2,
        epochs: int = 9,
        endpoint: str = "127.0.0.1:0",
        on_round: Callable[[Round], None] = lambda _: None,
        options: Mapping[str, Any] = {},
        limit: int = LIMIT,
        compression: str = "none",
        limits: Sequence[Limits] = (),
        doubted: Callable[[int, str], None] | None = None,
        **settings: Any,
    ) -> Served:
        def make() -> Strategy:
            fleet = Fleet(clients, epochs)
            return new_strategy(strategy, options, fleet) if isinstance(strategy, str) else Scripted(fleet, strategy)

        config = CoordinatorConfig(**{"round_timeout": DEADLINE, **settings})
        rounds = RoundLog(tmp_path / "rounds.jsonl")
        coordinator = Coordinator(
            make, "a test's", config, rounds, on_round, compression=compression, limits=limits, doubted=doubted
        )
        started.append(Served(in_loop, coordinator, endpoint, rounds, limit))
        return started[-1]

    yield serve
    for each in started:
        each.stop()


@pytest.fixture
def ask() -> Iterator[Ask]:
    """`ask(served or endpoint, client, round, ...)` reports in a thread: a future of the decision."""
    clients: list[CoordinatorClient] = []
    pool = ThreadPoolExecutor(16)

    def ask(
        to: Served | str,
        client: int,
        round: int,
        timeout: float = 0,
        answer_timeout: float = DEADLINE,
        token: str | None = None,
        limit: int = LIMIT,
        compression: str = "none",
        **fields: Any,
    ) -> Future[Decision]:
        endpoint = to if isinstance(to, str) else to.endpoint
        shown = token_for(SECRET, client) if token is None else token
        clients.append(CoordinatorClient(endpoint, lambda: shown, limit, answer_timeout, compression))
        return pool.submit(clients[-1].report, ClientReport(client, round, **fields), timeout)

    yield ask
    for each in clients:
        each.close()
    pool.shutdown()


@pytest.fixture
def play(ask: Ask) -> Callable[..., dict[int, Decision]]:
    """`play(served, round, clients)`: all report at once; what each is told."""

    def play(served: Served, round: int, clients: int = 2, **fields: Any) -> dict[int, Decision]:
        futures = [ask(served, client, round, **fields) for client in range(clients)]
        return {client: future.result(DEADLINE) for client, future in enumerate(futures)}

    return play


def text_of(future: Future[Decision], error: type[Exception] = RunError) -> str:
    with pytest.raises(error) as caught:
        future.result(DEADLINE)
    return str(caught.value)


def told(decisions: Mapping[int, Decision]) -> list[tuple[str, float, str]]:
    return [(each.next_state, each.local_epochs, each.reason) for _, each in sorted(decisions.items())]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Raw:
    """A peer that sends what it likes, and never looks at the answer."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self._call = self._channel.stream_stream(METHOD)

    def send(self, data: bytes, token: str | None = TOKEN, timeout: float = DEADLINE, client: int = 0) -> Any:
        return self.send_chunks(iter([data]), token, timeout, client)

    def send_chunks(
        self, chunks: Iterator[bytes], token: str | None = TOKEN, timeout: float = DEADLINE, client: int = 0
    ) -> Any:
        token = token_for(SECRET, client) if client else token
        shown = ((CLIENT_KEY, str(client)), (TOKEN_KEY, token)) if token is not None else ()
        return self._call(chunks, timeout=timeout, metadata=shown)

    def refused(self, data: bytes, token: str | None = TOKEN) -> tuple[str, str]:
        return status_of(self.send(data, token))


def status_of(call: Any) -> tuple[str, str]:
    return call.code().name, call.details()


@pytest.fixture
def raw() -> Iterator[Callable[[Served], Raw]]:
    made: list[Raw] = []

    def raw(served: Served) -> Raw:
        made.append(Raw(served.endpoint))
        return made[-1]

    yield raw
    for each in made:
        each._channel.close()


# -- a round -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [1, 2, 10])
def test_all_report_at_once(serve: Serve, play: Any, clients: int) -> None:
    shown: list[Round] = []
    served = serve(clients=clients, on_round=shown.append)
    for round in range(3):
        assert told(play(served, round, clients)) == [("JOIN", 1.0, f"round {round}")] * clients
    assert [each.round for each in served.rounds] == [each.round for each in shown] == [0, 1, 2]
    for each in served.rounds:
        assert sorted(each.reports) == sorted(each.decisions) == list(range(clients))
        assert (each.missing, each.strategy) == ((), "a test's")
        assert 0 <= each.seconds < DEADLINE


def test_each_client_is_told_its_own(serve: Serve, play: Any) -> None:
    mask = np.array([1, 2], np.float16)
    served = serve(lambda *_: {0: Decision(JOIN, 0.5, 2.0, "a"), 1: Decision(WAIT, extra={"mask": mask})}, clients=3)
    first, second, third = play(served, 0, 3).values()
    assert (first.next_state, first.local_epochs, first.learning_rate_factor, first.reason) == ("JOIN", 0.5, 2.0, "a")
    assert (second.next_state, second.extra["mask"].tobytes()) == ("WAIT", mask.tobytes())
    assert (third.next_state, third.reason) == ("WAIT", "not chosen")


def test_strategy_is_shown_what_was_reported(serve: Serve, ask: Ask) -> None:
    seen: dict[int, Mapping[int, ClientReport]] = {}
    served = serve(lambda reports, round: seen.update({round: reports}) or {}, report_fields={"x": (2,)})
    futures = [ask(served, client, 0, hr=client / 2, extra={"x": np.arange(2.0)}) for client in range(2)]
    for future in futures:
        future.result(DEADLINE)
    assert {client: report.hr for client, report in seen[0].items()} == {0: 0.0, 1: 0.5}
    np.testing.assert_array_equal(seen[0][1].extra["x"], np.arange(2.0))


def test_nobody_is_answered_before_the_last_report(serve: Serve, ask: Ask) -> None:
    served = serve()
    first = ask(served, 0, 0)
    served.heard(1)
    time.sleep(0.1)
    assert not first.done() and list(served.rounds) == []
    assert ask(served, 1, 0).result(DEADLINE).next_state == JOIN
    assert first.result(DEADLINE).next_state == JOIN


def test_repeated_report_is_told_the_same(serve: Serve, ask: Ask, play: Any) -> None:
    counts: list[int] = []
    served = serve(lambda reports, round: counts.append(round) or {0: Decision(JOIN, 1 / (1 + len(counts)))})
    waiting = [ask(served, 0, 0) for _ in range(3)]
    served.heard(1)
    last = ask(served, 1, 0)
    later = [ask(served, 0, 0, hr=0.5) for _ in range(3)]
    assert {each.result(DEADLINE).local_epochs for each in [*waiting, *later]} == {0.5}
    assert last.result(DEADLINE).next_state == ask(served, 1, 0).result(DEADLINE).next_state == WAIT
    assert counts == [0]
    play(served, 1)
    assert counts == [0, 1]
    assert len(list(served.rounds)) == 2


def test_answer_that_takes_longer_than_an_attempt(serve: Serve, ask: Ask) -> None:
    served = serve()
    impatient = ask(served, 0, 0, timeout=DEADLINE, answer_timeout=0.2)
    time.sleep(0.7)
    assert not impatient.done()
    ask(served, 1, 0).result(DEADLINE)
    assert impatient.result(DEADLINE).reason == "round 0"


# -- who is refused ----------------------------------------------------------------------------------------


def test_past_and_future_rounds_are_refused(serve: Serve, ask: Ask, play: Any) -> None:
    served = serve()
    play(served, 0)
    play(served, 1)
    head = (
        "The coordinator refused the report of client 1 for round {0} (FAILED_PRECONDITION): Reports are of round 2. "
    )
    text = "Received: one of round {0} from client 1, which {1}."
    assert text_of(ask(served, 1, 0)) == (head + text).format(0, "is over")
    assert text_of(ask(served, 1, 3)) == (head + text).format(3, "has not begun")
    waiting = ask(served, 0, 2)
    served.heard(1)
    assert text_of(ask(served, 1, 3)) == (head + text).format(3, "has not begun")
    ask(served, 1, 2).result(DEADLINE)
    waiting.result(DEADLINE)


def test_finished_client_reports_no_more(serve: Serve, ask: Ask) -> None:
    served = serve(lambda reports, round: {0: Decision(FINISH), 1: Decision(JOIN)})
    first, _ = ask(served, 0, 0), ask(served, 1, 0)
    assert first.result(DEADLINE).next_state == FINISH
    assert ask(served, 0, 0).result(DEADLINE).next_state == FINISH
    assert text_of(ask(served, 0, 1)) == (
        "The coordinator refused the report of client 0 for round 1 (FAILED_PRECONDITION): "
        "Client 0 was told to FINISH before round 1, and reports no more."
    )
    assert ask(served, 1, 1).result(DEADLINE).next_state == JOIN, "the other is not waited for in vain"


def test_all_finish_after_the_last_epoch(serve: Serve, ask: Ask, play: Any) -> None:
    served = serve(epochs=1)
    play(served, 0)
    assert told(play(served, 1)) == [("FINISH", 1.0, "that was the last epoch")] * 2
    assert ask(served, 0, 1).result(DEADLINE).next_state == FINISH
    assert "(FAILED_PRECONDITION): Reports are of round 2. " in text_of(ask(served, 0, 3))


def test_unknown_client(serve: Serve, ask: Ask) -> None:
    assert text_of(ask(serve(), 2, 0)) == (
        "The coordinator refused the report of client 2 for round 0 (INVALID_ARGUMENT): "
        "Clients are 0 to 1. Received: a report of 2."
    )


@pytest.mark.parametrize("token", ["", "another", TOKEN + "x"])
def test_wrong_token(serve: Serve, ask: Ask, token: str) -> None:
    served = serve()
    assert text_of(ask(served, 0, 0, token=token)) == (
        "The coordinator refused the report of client 0 for round 0 (UNAUTHENTICATED): "
        "A client shows its own token of its run. Received: another, or none, as client 0."
    )
    assert served.coordinator._reports == {}


def test_no_token_is_told_before_what_is_wrong_with_the_message(serve: Serve, raw: Any) -> None:
    assert raw(serve()).refused(b"nonsense", None)[0] == "UNAUTHENTICATED"


def test_fields_that_are_not_declared(serve: Serve, ask: Ask) -> None:
    served = serve(report_fields={"energy": ()})
    assert text_of(ask(served, 0, 0, extra={"energi": 1.0})).endswith(
        "(INVALID_ARGUMENT): A report's own fields are declared. Received: energi, which is not. Did you mean energy?"
    )


def test_report_that_is_too_long(serve: Serve, ask: Ask, raw: Any) -> None:
    served = serve(report_fields={"x": (LIMIT,)})
    text = text_of(ask(served, 0, 0, extra={"x": np.zeros(LIMIT, np.uint8)}))
    assert text.startswith(f"A report must be at most coordinator.max_message_bytes={LIMIT} long. Received: 3")
    assert text.endswith(" bytes. Make the fields of report_fields() smaller, or raise the limit.")
    # A client whose own limit is higher is told, and does not try again.
    long = {"x": np.zeros(LIMIT, np.uint8)}
    text = text_of(ask(served, 0, 0, timeout=DEADLINE, limit=2 * LIMIT, extra=long))
    assert text == (
        "The coordinator refused the report of client 0 for round 0 (RESOURCE_EXHAUSTED): "
        f"A report must be at most coordinator.max_message_bytes={LIMIT} long. Received: "
        f"{len(encode(ClientReport(0, 0, extra=long)))} bytes or more. Make the fields of report_fields() smaller, or "
        "raise the limit."
    )


def test_decision_that_is_too_long(serve: Serve, ask: Ask) -> None:
    served = serve(lambda *_: {0: Decision(extra={"x": np.zeros(LIMIT, np.uint8)}), 1: Decision()})
    first, second = ask(served, 0, 0), ask(served, 1, 0)
    text = text_of(first)
    assert text.startswith(
        "The coordinator refused the report of client 0 for round 0 (RESOURCE_EXHAUSTED): "
        f"A decision must be at most coordinator.max_message_bytes={LIMIT} long. Received: 3"
    )
    assert text.endswith(" bytes from the strategy.")
    assert second.result(DEADLINE).next_state == JOIN


def test_malformed_message(serve: Serve, raw: Any, play: Any) -> None:
    served = serve()
    peer = raw(served)
    for data in (b"\xc1", b""):
        status, details = peer.refused(data)
        assert status == "INVALID_ARGUMENT"
        assert details.startswith(f"A message must be msgpack. Received: {len(data)} bytes that are not (")
    assert peer.refused(encode(Decision()))[1].startswith("A report has the fields ")
    assert told(play(served, 0)) == [("JOIN", 1.0, "round 0")] * 2


def test_reasons_fit_a_status(serve: Serve, raw: Any) -> None:
    # A longer one is not told at all: "received metadata size exceeds hard limit".
    message = {"version": 1, "client": 0, "round": 0, "é" * 12000: 1}
    status, details = raw(serve(limit=1 << 17)).refused(bytes(msgpack.packb(message)))
    assert status == "INVALID_ARGUMENT"
    assert details.startswith("A report has the fields ") and details.endswith("ééé ...")
    assert len(details) == LONGEST_REASON + len(" ...")


def test_no_bytes_bring_it_down(serve: Serve, raw: Any, play: Any) -> None:
    # In round 0, the last one, a message that happens to be in order does no harm.
    served = serve(epochs=0, clients=3)
    peer, chance = raw(served), random.Random(1)
    valid = encode(ClientReport(0, 0, rows=5, seconds=1.0, train_loss=0.5, extra={"x": np.zeros(3)}))
    messages = [bytes(chance.randrange(256) for _ in range(chance.randrange(200))) for _ in range(200)]
    for _ in range(200):
        mutated = bytearray(valid)
        for _ in range(chance.randint(1, 5)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        messages.append(bytes(mutated[: chance.choice([len(mutated), chance.randrange(len(mutated))])]))
    calls = [peer.send(message, timeout=5) for message in messages]
    statuses = {call.code().name for call in calls}
    assert statuses <= {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED", "UNAVAILABLE"}, statuses
    # Client 0 has asked too often, and asks again.
    last = told(play(served, 0, 3, timeout=DEADLINE))
    assert last == [("FINISH", 1.0, "that was the last epoch")] * 3


# -- long messages -----------------------------------------------------------------------------------------


def long(message: type, size: int, **fields: Any) -> Any:
    """A report or decision of so many bytes."""
    length = size
    while True:
        made = message(**fields, extra={"x": np.arange(length, dtype=np.uint8) % 251})
        excess = len(encode(made)) - size
        if not excess:
            return made
        length -= excess


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
def test_messages_of_any_number_of_chunks(serve: Serve, ask: Ask, raw: Any, size: int) -> None:
    told, seen = long(Decision, size), []
    report = long(ClientReport, size, client=0, round=0)
    served = serve(
        lambda reports, _: seen.append(reports[0].extra["x"]) or {0: told},
        clients=1,
        limit=size,
        report_fields={"x": report.extra["x"].shape},
    )
    found = ask(served, 0, 0, limit=size, extra=report.extra).result(DEADLINE)
    assert found.extra["x"].tobytes() == told.extra["x"].tobytes()
    assert seen[0].tobytes() == report.extra["x"].tobytes()
    (done,) = served.rounds
    assert (done.report_bytes, done.decision_bytes) == ({0: size}, {0: size})
    chunks = [len(chunk) for chunk in raw(served).send_chunks(split(encode(report)))]
    assert max(chunks) <= CHUNK and len(chunks) == -(-size // CHUNK) and sum(chunks) == size


def test_report_of_the_longest_and_one_byte_more(serve: Serve, ask: Ask, raw: Any) -> None:
    served = serve(clients=1, report_fields={"x": long(ClientReport, LIMIT, client=0, round=0).extra["x"].shape})
    more = long(ClientReport, LIMIT + 1, client=0, round=0)
    assert text_of(ask(served, 0, 0, extra=more.extra)) == (
        f"A report must be at most coordinator.max_message_bytes={LIMIT} long. Received: {LIMIT + 1} bytes. "
        "Make the fields of report_fields() smaller, or raise the limit."
    )
    status, details = raw(served).refused(encode(more))
    assert status == "RESOURCE_EXHAUSTED"
    assert f"max_message_bytes={LIMIT} long. Received: {LIMIT + 1} bytes or more. " in details
    longest = long(ClientReport, LIMIT, client=0, round=0)
    assert ask(served, 0, 0, extra=longest.extra).result(DEADLINE).next_state == JOIN


def test_decision_of_the_longest_and_one_byte_more(serve: Serve, ask: Ask) -> None:
    served = serve(lambda *_: {client: long(Decision, LIMIT + client) for client in range(2)})
    longest, more = ask(served, 0, 0), ask(served, 1, 0)
    assert longest.result(DEADLINE).next_state == JOIN
    assert text_of(more).endswith(f"long. Received: {LIMIT + 1} bytes from the strategy.")
    assert text_of(ask(served, 0, 0, limit=LIMIT - 1, timeout=DEADLINE)) == (
        f"A decision must be at most coordinator.max_message_bytes={LIMIT - 1} long. Received: {LIMIT} bytes or more. "
        "Configure both sides alike."
    )


def test_chunks_of_any_size(serve: Serve, raw: Any) -> None:
    peer, data = raw(serve(clients=1)), encode(ClientReport(0, 0))
    for chunks in ([data[:1], b"", data[1:], b""], [data[place : place + 1] for place in range(len(data))]):
        assert decode_decision(b"".join(peer.send_chunks(iter(chunks)))).reason == "round 0"


def test_chunk_that_is_too_large(serve: Serve, raw: Any, play: Any) -> None:
    # gRPC's own limit: no peer has it hold more than a chunk before the coordinator sees it.
    served = serve(limit=4 * CHUNK)
    report = encode(long(ClientReport, CHUNK + 1, client=0, round=0))
    assert raw(served).refused(report)[0] == "RESOURCE_EXHAUSTED"
    assert served.coordinator._reports == {}
    play(served, 0)


def endless(stop: threading.Event, sent: list[int]) -> Iterator[bytes]:
    while not stop.is_set():
        sent.append(1024)
        yield b"\x00" * 1024


@pytest.mark.parametrize(("token", "status"), [(TOKEN, "RESOURCE_EXHAUSTED"), ("another", "UNAUTHENTICATED")])
def test_report_without_end_is_refused_on_the_way(serve: Serve, raw: Any, play: Any, token: str, status: str) -> None:
    served, stop, sent = serve(), threading.Event(), []
    call = raw(served).send_chunks(endless(stop, sent), token)
    assert call.code().name == status
    stop.set()
    if token != TOKEN:
        # Its chunks are not read, so that it sends only what gRPC and the system take off its hands.
        assert sum(sent) < 8 << 20
    play(served, 0)


@pytest.mark.parametrize("part", [1, CHUNK, CHUNK + 100])
def test_client_that_breaks_off_its_report(serve: Serve, ask: Ask, raw: Any, part: int) -> None:
    report = long(ClientReport, 2 * CHUNK, client=0, round=0)
    served = serve(limit=2 * CHUNK, report_fields={"x": report.extra["x"].shape}, round_timeout=3.0)
    for end in ("hangs up", "says that this was all"):
        sent, go_on = threading.Event(), threading.Event()

        def halfway(sent: threading.Event = sent, go_on: threading.Event = go_on) -> Iterator[bytes]:
            yield from split(encode(report)[:part])
            sent.set()
            go_on.wait(DEADLINE)

        call = raw(served).send_chunks(halfway())
        assert sent.wait(DEADLINE)
        if end == "hangs up":
            call.cancel()
        go_on.set()
        expected = ("CANCELLED", "INVALID_ARGUMENT")[end != "hangs up"]
        status, details = status_of(call)
        assert status == expected
        assert end == "hangs up" or details.startswith(
            f"A message must be msgpack. Received: {part} bytes that are not"
        )
    time.sleep(0.1)
    assert served.coordinator._reports == {} and list(served.rounds) == []
    second = ask(served, 1, 0)
    served.heard(1)
    assert not second.done(), "the round waits for a whole report"
    assert ask(served, 0, 0, limit=2 * CHUNK, extra=report.extra).result(DEADLINE).reason == "round 0"
    assert second.result(DEADLINE).reason == "round 0"


KILLED = """
import sys, time
import grpc

def halfway():
    yield b"\\xde" * 1000
    print("sent", flush=True)
    time.sleep(600)

endpoint, method, *shown = sys.argv[1:]
grpc.insecure_channel(endpoint).stream_stream(method)(halfway(), metadata=tuple(zip(shown[::2], shown[1::2]))).code()
"""


def test_client_that_is_killed_halfway(serve: Serve, ask: Ask) -> None:
    served = serve(round_timeout=1.0)
    command = [sys.executable, "-c", KILLED, served.endpoint, METHOD, CLIENT_KEY, "0", TOKEN_KEY, TOKEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"sent\n"
        time.sleep(1.2)
        killed.kill()
    assert list(served.rounds) == [], "the round's time has not begun"
    first, second = ask(served, 0, 0), ask(served, 1, 0)
    assert first.result(DEADLINE).reason == second.result(DEADLINE).reason == "round 0"
    assert [each.missing for each in served.rounds] == [()]


def test_decision_is_encoded_once(serve: Serve, ask: Ask, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Decision] = []

    def watched(message: Decision, compression: str) -> bytes:
        encoded.append(message)
        return encode(message, compression)

    monkeypatch.setattr(service, "encode", watched)
    served = serve(clients=1)
    peer, report = raw(served), encode(ClientReport(0, 0))
    answers = {b"".join(peer.send(report)) for _ in range(3)}
    assert answers == {encode(Decision(JOIN, reason="round 0"))}
    assert len(encoded) == 1


def test_sizes_are_those_that_travelled(serve: Serve, raw: Any) -> None:
    x = np.linspace(0, 1, 1000, dtype=np.float32)
    served = serve(
        lambda *_: {0: Decision(extra={"x": x}), 2: Decision()},
        clients=3,
        compression="int8",
        report_fields={"x": (1000,)},
        round_timeout=0.5,
    )
    reports = {client: encode(ClientReport(client, 0, hr=0.5, extra={"x": x}), "float16") for client in (0, 1)}
    calls = {client: raw(served).send(report, client=client) for client, report in reports.items()}
    answers = {client: b"".join(call) for client, call in calls.items()}
    (done,) = served.rounds
    assert done.report_bytes == {client: len(report) for client, report in reports.items()}
    assert min(done.report_bytes.values()) > 2000
    assert {client: done.decision_bytes[client] for client in (0, 1)} == {
        client: len(answer) for client, answer in answers.items()
    }
    assert 1000 < done.decision_bytes[0] < 1200
    assert sorted(done.decision_bytes) == [0, 1, 2]


@pytest.mark.parametrize("compression", ["float16", "int8"])
def test_compressed_both_ways(serve: Serve, ask: Ask, compression: str) -> None:
    x = np.linspace(-1, 1, 100, dtype=np.float32).reshape(2, 50)
    seen: list[Any] = []
    served = serve(
        lambda reports, _: seen.append(reports[0].extra["x"]) or {0: Decision(extra={"x": reports[0].extra["x"]})},
        clients=1,
        compression=compression,
        report_fields={"x": (2, 50)},
    )
    found = ask(served, 0, 0, compression=compression, extra={"x": x}).result(DEADLINE).extra["x"]
    assert seen[0].dtype == found.dtype == np.float32
    assert 0 < np.abs(seen[0] - x).max() < 0.005
    np.testing.assert_allclose(found, seen[0], atol=1e-6)


@pytest.mark.parametrize("compression", ["none", "float16", "int8"])
def test_strategy_sees_what_is_not_a_number(serve: Serve, ask: Ask, compression: str) -> None:
    x, seen = np.ones((2, 50), np.float16), []
    x[1, 3] = np.nan
    served = serve(lambda reports, _: seen.append(reports[0].extra["x"]) or {}, clients=1, report_fields={"x": (2, 50)})
    ask(served, 0, 0, compression=compression, extra={"x": x}).result(DEADLINE)
    assert np.argwhere(np.isnan(seen[0])).tolist() == [[1, 3]]


def test_what_can_not_be_compressed(serve: Serve, ask: Ask) -> None:
    x = np.array([1e6, 1.0])
    served = serve(lambda *_: {0: Decision(extra={"x": x})}, compression="float16", report_fields={"x": (2,)})
    text = (
        "extra x must be within 65504 to travel as runner.compress_report=float16. Received: 1e+06. "
        "Scale it down, or set runner.compress_report to int8 or none."
    )
    assert text_of(ask(served, 0, 0, compression="float16", extra={"x": x}), MessageError) == text
    first, second = ask(served, 0, 0), ask(served, 1, 0)
    assert text_of(first).endswith(f"(ABORTED): {text}") and text_of(second).endswith(f"(ABORTED): {text}")
    assert served.failure == text
    assert list(served.rounds) == []


# -- who comes late ----------------------------------------------------------------------------------------


def test_missing_clients_wait(serve: Serve, ask: Ask, play: Any) -> None:
    served = serve(clients=4, round_timeout=1.5)
    start = time.monotonic()
    futures = [ask(served, client, 0) for client in (0, 2)]
    assert [each.result(DEADLINE).next_state for each in futures] == [JOIN, JOIN]
    assert 1.4 < time.monotonic() - start < DEADLINE / 2
    (recorded,) = served.rounds
    assert (recorded.missing, sorted(recorded.reports)) == ((1, 3), [0, 2])
    assert recorded.table(9).split("\n")[0].endswith("; no report in time from 1, 3")
    late = ask(served, 3, 0).result(DEADLINE)
    assert (late.next_state, late.reason) == (WAIT, "no report in time")
    assert told(play(served, 1, 4)) == [("JOIN", 1.0, "round 1")] * 4


def test_time_runs_from_the_first_report(serve: Serve, ask: Ask) -> None:
    served = serve(round_timeout=1.0)
    time.sleep(1.2)
    first = ask(served, 0, 0)
    served.heard(1)
    time.sleep(0.4)
    assert not first.done()
    assert ask(served, 1, 0).result(DEADLINE).reason == "round 0"
    # The next round has a time of its own.
    first = ask(served, 0, 1)
    time.sleep(0.7)
    assert not first.done()
    ask(served, 1, 1).result(DEADLINE)
    assert [each.missing for each in served.rounds] == [(), ()]


def test_report_while_it_is_being_decided(serve: Serve, ask: Ask) -> None:
    deciding, decide = threading.Event(), threading.Event()

    def slowly(reports: Mapping[int, ClientReport], round: int) -> dict[int, Decision]:
        deciding.set()
        decide.wait(DEADLINE)
        return {client: Decision() for client in reports}

    served = serve(slowly, round_timeout=5.0)
    first = ask(served, 0, 0)
    assert deciding.wait(DEADLINE)
    second = ask(served, 1, 0)
    served.heard(2)
    decide.set()
    assert first.result(DEADLINE).next_state == JOIN
    assert second.result(DEADLINE).reason == "no report in time"
    assert [(each.missing, sorted(each.reports)) for each in served.rounds] == [((1,), [0])]


def test_client_that_hangs_up(serve: Serve, ask: Ask, raw: Any, play: Any) -> None:
    served = serve(clients=3)
    call = raw(served).send(encode(ClientReport(0, 0)))
    served.heard(1)
    second = ask(served, 1, 0)
    served.heard(2)
    call.cancel()
    time.sleep(0.1)
    assert ask(served, 2, 0).result(DEADLINE).next_state == JOIN
    assert second.result(DEADLINE).next_state == JOIN
    assert ask(served, 0, 0).result(DEADLINE).reason == "round 0", "it is told when it is back"
    play(served, 1, 3)


def test_nobody_is_left_to_hear(serve: Serve, raw: Any, play: Any) -> None:
    served = serve(round_timeout=0.3)
    call = raw(served).send(encode(ClientReport(0, 0)))
    served.heard(1)
    call.cancel()
    wait_until("the round", lambda: len(list(served.rounds)) == 1)
    assert told(play(served, 0))[1] == ("WAIT", 1.0, "no report in time")
    play(served, 1)


# -- strategies that fail ----------------------------------------------------------------------------------


def fails(reports: Mapping[int, ClientReport], round: int) -> Any:
    if round == 1:
        raise ValueError("no idea")
    return {}


def test_strategy_that_raises(serve: Serve, ask: Ask, play: Any) -> None:
    served = serve(fails)
    play(served, 0)
    futures = [ask(served, client, 1, timeout=DEADLINE) for client in range(2)]
    assert re.fullmatch(
        r"the strategy Scripted failed in round 1: ValueError: no idea \(test_service\.py, line \d+\)",
        served.failure,
    )
    reason = served.failure
    for client, future in enumerate(futures):
        assert text_of(future) == (
            f"The coordinator refused the report of client {client} for round 1 (ABORTED): {reason}"
        )
    assert text_of(ask(served, 0, 1)).endswith(f"(ABORTED): {reason}")
    assert [each.round for each in served.rounds] == [0]


@pytest.mark.parametrize("length", [3000, 10_000, 100_000])
def test_strategy_that_raises_at_length(serve: Serve, ask: Ask, length: int) -> None:
    def decide(*_: Any) -> Any:
        raise ValueError("é" * length)

    served = serve(decide, clients=1)
    text = text_of(ask(served, 0, 0))
    assert "(ABORTED): the strategy Scripted failed in round 0: ValueError: éé" in text
    assert text.endswith("éé ...")
    assert "é" * length in served.failure


def test_strategy_that_returns_nonsense(serve: Serve, ask: Ask) -> None:
    served = serve(lambda *_: "JOIN", clients=1)
    reason = "the strategy Scripted must return a mapping of clients to Decision from decide. Received: 'JOIN'."
    assert text_of(ask(served, 0, 0)).endswith(f"(ABORTED): {reason}")
    assert served.failure == reason


def test_strategy_that_is_too_slow(serve: Serve, ask: Ask) -> None:
    release = threading.Event()
    served = serve(lambda *_: release.wait(DEADLINE) and {}, clients=1, round_timeout=0.3)
    start = time.monotonic()
    reason = "the strategy Scripted must decide within coordinator.round_timeout=0.3 s, and did not in round 0."
    assert text_of(ask(served, 0, 0)).endswith(f"(ABORTED): {reason}")
    assert time.monotonic() - start < DEADLINE / 2
    assert served.failure == reason
    release.set()
    assert text_of(ask(served, 0, 0)).endswith(f"(ABORTED): {reason}"), "what it says afterwards does not count"
    assert list(served.rounds) == []


def test_round_that_can_not_be_written(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    served = serve(clients=1)
    (tmp_path / "rounds.jsonl").mkdir()
    reason = "Round 0 must be written to the run directory, and was not: Is a directory."
    assert text_of(ask(served, 0, 0)).endswith(f"(ABORTED): {reason}")
    assert served.failure == reason


def test_others_are_answered_while_a_round_is_written(serve: Serve, ask: Ask) -> None:
    """Or no ping would be, and with many clients connections break."""
    release = threading.Event()
    served = serve(clients=1, on_round=lambda _: release.wait(DEADLINE) and None)
    told = ask(served, 0, 0)
    wait_until("the round", lambda: len(list(served.rounds)) == 1)
    assert "which has not begun" in text_of(ask(served, 0, 7)) and not told.done()
    release.set()
    assert told.result(DEADLINE).next_state == JOIN


def test_thousands_of_calls_wait_to_be_looked_at(in_loop: Callable[..., Any], serve: Serve) -> None:
    served, channels = serve(clients=1000), 100
    held, release = threading.Event(), threading.Event()

    async def hold() -> None:
        held.set()
        release.wait(DEADLINE)

    async def call_all() -> list[grpc.StatusCode]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        # Behind the door, which is held too.
        opened = [grpc.aio.insecure_channel(served._server._door.inside, options=options) for _ in range(channels)]
        asyncio.get_running_loop().call_later(2.0, release.set)
        calls = [channel.unary_unary(METHOD)(b"", timeout=DEADLINE) for channel in opened for _ in range(16)]
        codes = await asyncio.gather(*(call.code() for call in calls))
        for channel in opened:
            await channel.close()
        return codes

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(in_loop, hold())
        assert held.wait(DEADLINE)
        codes = asyncio.run(call_all())
        holding.result(DEADLINE)
    assert set(codes) == {grpc.StatusCode.UNAVAILABLE}, "all are refused by ours, and none is cancelled by gRPC"


def test_decision_with_numbers_of_numpy(serve: Serve, ask: Ask) -> None:
    served = serve(lambda *_: {0: Decision(JOIN, np.float32(0.5), extra={"x": np.float32(2)})}, clients=1)  # type: ignore[arg-type]
    found = ask(served, 0, 0).result(DEADLINE)
    assert (found.local_epochs, found.extra["x"]) == (0.5, 2.0)


# -- restarts ----------------------------------------------------------------------------------------------


def test_restart_says_the_same_and_goes_on(serve: Serve, ask: Ask, play: Any) -> None:
    served = serve("random_k", clients=5, options={"k": 2})
    for round in range(3):
        last = told(play(served, round, 5))
    served.stop()
    again = serve("random_k", clients=5, options={"k": 2})
    assert told(play(again, 2, 5)) == last
    assert "Reports are of round 3. Received: one of round 1 " in text_of(ask(again, 0, 1))
    play(again, 3, 5)
    assert [each.round for each in again.rounds] == [0, 1, 2, 3]


@pytest.mark.parametrize("compression", ["none", "float16", "int8"])
def test_restart_answers_the_same_bytes(serve: Serve, raw: Any, compression: str) -> None:
    x = np.random.default_rng(0).normal(size=(60, 100)).astype(np.float32)
    decisions = {
        0: Decision(JOIN, np.float32(0.1), 0.3, "é", {"x": x, "n": 3, "f": np.float32(0.1), "i": np.int64(7)}),  # type: ignore[arg-type]
        1: Decision(
            WAIT,
            extra={
                "x": x,
                "none": float("nan"),
                "small": np.arange(3),
                "empty": np.zeros((0, 2)),
                "one": np.array(2.5),
            },
        ),
    }
    reports = [encode(ClientReport(client, 0)) for client in range(2)]

    def answers(served: Served) -> list[bytes]:
        return [b"".join(call) for call in [raw(served).send(each, client=k) for k, each in enumerate(reports)]]

    served = serve(lambda *_: decisions, compression=compression)
    before = answers(served)
    served.stop()
    again = serve(compression=compression)
    assert answers(again) == before == [encode(decisions[client], compression) for client in range(2)]
    assert [each.round for each in again.rounds] == [0]


def test_restart_draws_as_if_nothing_had_happened(
    serve: Serve, play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decisions(*stops: int) -> list[Any]:
        served = serve("random_k", clients=5, options={"k": 2})
        found = []
        for round in range(6):
            if round in stops:
                served.stop()
                served = serve("random_k", clients=5, options={"k": 2})
            found.append(told(play(served, round, 5)))
        served.stop()
        (tmp_path / "rounds.jsonl").unlink()
        return found

    assert decisions() == decisions(1, 4)


def test_restart_shows_the_strategy_what_it_saw(serve: Serve, ask: Ask, play: Any) -> None:
    def learner() -> Decide:
        seen: list[float] = []

        def decide(reports: Mapping[int, ClientReport], round: int) -> dict[int, Decision]:
            seen.append(reports[0].train_loss + reports[0].extra["x"])
            return {0: Decision(local_epochs=sum(seen))}

        return decide

    served = serve(learner(), clients=1, report_fields={"x": ()})
    for round in range(3):
        ask(served, 0, round, train_loss=0.1 * (round + 1), extra={"x": 0.3}).result(DEADLINE)
    served.stop()
    again = serve(learner(), clients=1, report_fields={"x": ()})
    found = ask(again, 0, 3, train_loss=0.4, extra={"x": 0.3}).result(DEADLINE)
    assert found.local_epochs == pytest.approx(0.1 + 0.2 + 0.3 + 0.4 + 4 * 0.3)


def test_restart_with_a_line_that_was_cut_off(serve: Serve, play: Any, tmp_path: Path) -> None:
    served = serve()
    play(served, 0)
    play(served, 1)
    served.stop()
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = serve()
    assert told(play(again, 1)) == [("JOIN", 1.0, "round 1")] * 2
    assert [each.round for each in again.rounds] == [0, 1]


def test_restart_knows_who_has_finished(serve: Serve, ask: Ask, play: Any) -> None:
    # The new strategy would not have let client 0 finish; what it was told stands.
    served = serve(lambda reports, round: {0: Decision(FINISH), 1: Decision()})
    play(served, 0)
    served.stop()
    again = serve()
    assert ask(again, 0, 0).result(DEADLINE).next_state == FINISH
    assert ask(again, 1, 1).result(DEADLINE).reason == "round 1"
    assert "was told to FINISH before round 2" in text_of(ask(again, 0, 2))


def test_restart_after_the_end(serve: Serve, play: Any) -> None:
    served = serve(epochs=1)
    play(served, 0)
    play(served, 1)
    served.stop()
    assert told(play(serve(epochs=1), 1)) == [("FINISH", 1.0, "that was the last epoch")] * 2


@pytest.mark.parametrize("before", [0, 2])
def test_clients_that_went_on_without_it(serve: Serve, ask: Ask, play: Any, before: int) -> None:
    served = serve(clients=3)
    for round in range(before):
        play(served, round, clients=3)
    served.stop()
    again = serve(clients=3)
    first, second = ask(again, 0, 5), ask(again, 2, 5)
    again.heard(2)
    # What was decided before is no answer to the round before this one.
    assert text_of(ask(again, 1, 4)).endswith(
        "(FAILED_PRECONDITION): Reports are of round 5. Received: one of round 4 from client 1, which is over."
    )
    assert "one of round 6 from client 1, which has not begun" in text_of(ask(again, 1, 6))
    answers = ask(again, 1, 5), first, second
    assert [answer.result(DEADLINE).reason for answer in answers] == ["round 5"] * 3
    assert "which has not begun" in text_of(ask(again, 1, 8)), "only at the start"
    play(again, 6, clients=3)
    assert [each.round for each in again.rounds] == [*range(before), 5, 6]


def test_one_alone_is_not_ahead(serve: Serve, ask: Ask, play: Any) -> None:
    served = serve(clients=3)
    alone = ask(served, 1, 7)
    wait_until("its report", lambda: served.coordinator._ahead == {1: 7})
    others = [ask(served, client, 0) for client in (0, 2)]
    assert "of round 0. Received: one of round 7 from client 1, which has not begun" in text_of(alone)
    assert ask(served, 1, 0).result(DEADLINE).reason == "round 0"
    assert [other.result(DEADLINE).reason for other in others] == ["round 0"] * 2


def test_who_has_finished_is_not_ahead(serve: Serve, ask: Ask, play: Any) -> None:
    served = serve(lambda reports, round: {0: Decision(FINISH), 1: Decision()})
    play(served, 0)
    served.stop()
    again = serve(lambda reports, round: {1: Decision()})
    assert "one of round 7 from client 0, which has not begun" in text_of(ask(again, 0, 7))
    assert ask(again, 1, 1).result(DEADLINE).next_state == JOIN


def test_who_is_ahead_is_counted_and_woken_once(in_loop: Any, tmp_path: Path) -> None:
    """Neither looks at all the others for each, nor looks again and again: 100,000 come at once after a restart."""

    class Unread(dict[int, int]):
        def __iter__(self) -> Any:
            raise AssertionError("all are looked at")

        keys = values = items = __iter__

    async def come() -> list[bytes]:
        fleet = Fleet(60, 9)
        made = Coordinator(
            lambda: Scripted(fleet, lambda reports, round: {client: Decision() for client in reports}),
            "a test's",
            CoordinatorConfig(round_timeout=DEADLINE),
            RoundLog(tmp_path / "rounds.jsonl"),
        )
        await made.start()
        made._ahead = Unread()
        calls = [asyncio.ensure_future(made.answer(encode(ClientReport(client, 5)))) for client in range(30)]
        looks, wait = 0, made._check_round

        def check(report: ClientReport) -> None:
            nonlocal looks
            looks += 1
            wait(report)

        made._check_round = check
        while len(made._calls_ahead) < 30:
            await asyncio.sleep(0.01)
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        assert len(made._calls_ahead) == 29 and looks == 0
        calls += [asyncio.ensure_future(made.answer(encode(ClientReport(client, 5)))) for client in [*range(30, 60), 0]]
        answers = await asyncio.wait_for(asyncio.gather(*calls[1:]), DEADLINE)
        assert looks == 60 and made._calls_ahead == set()
        return answers

    assert len(in_loop(come())) == 60


def test_a_report_that_cannot_be_ends_its_client(serve: Serve, ask: Ask) -> None:
    served = serve(limits=[Limits(100, 10), Limits(100, 10)])
    for fields, received in (
        ({"shard_rows": 2**53}, "shard_rows=9,007,199,254,740,992 of a shard of 100"),
        ({"test_users": 11}, "test_users=11 of a test shard of 10"),
        ({"rows": 5}, "train_loss=nan of 5 rows"),
    ):
        text = text_of(ask(served, 1, 0, **fields))
        assert f"(INVALID_ARGUMENT): A report must be what can be. Received from client 1: {received}. Look" in text
    futures = [ask(served, client, 0, shard_rows=100) for client in range(2)]
    assert [future.result(DEADLINE).reason for future in futures] == ["round 0"] * 2
    assert "shard_rows=99, after 100 before" in text_of(ask(served, 0, 1, shard_rows=99))


def test_or_counts_as_none(serve: Serve, ask: Ask) -> None:
    doubts: list[str] = []
    served = serve(limits=[Limits(100, 10)] * 3, clients=3, doubted=lambda _, text: doubts.append(text))
    futures = [ask(served, client, 0, shard_rows=rows) for client, rows in enumerate([100, 101, 7])]
    decisions = [future.result(DEADLINE) for future in futures]
    assert [each.next_state for each in decisions] == [JOIN, WAIT, JOIN]
    assert decisions[1].reason == "its report can't be: shard_rows=101 of a shard of 100"
    assert doubts == [
        "round 0: A report must be what can be. Received from client 1: shard_rows=101 of a shard of 100. It waits."
    ]
    futures = [
        ask(served, client, 1, shard_rows=rows, rows=rows, train_loss=0.5) for client, rows in enumerate([100, 99, 7])
    ]
    assert "rows=99 of a round in which it had to wait" in futures[1].result(DEADLINE).reason
    assert [(each.missing, sorted(each.reports)) for each in served.rounds] == [((), [0, 2])] * 2


@pytest.mark.parametrize("round", [0, 2], ids=["its own round", "ahead"])
def test_a_client_waits_in_few_calls(serve: Serve, ask: Ask, round: int) -> None:
    served = serve()
    calls = []
    for _ in range(service.CALLS_OF_A_CLIENT):  # one by one: of messages that come in at once two are taken
        calls.append(ask(served, 0, round))
        wait_until("a call", lambda: len(served.coordinator._waiting[0]) == len(calls))
    calls.append(ask(served, 0, round))
    wait_until("a refusal", lambda: any(call.done() for call in calls))
    (refused,) = [call for call in calls if call.done()]
    assert "A client waits in one call. Received: 9 of client 0." in text_of(refused, CoordinatorLost)
    assert ask(served, 1, round).result(DEADLINE).reason == f"round {round}"
    assert [call.result(DEADLINE).reason for call in calls if call is not refused] == [f"round {round}"] * 8


def test_nobody_is_ahead_of_the_last_round(serve: Serve, ask: Ask) -> None:
    served = serve(epochs=3)
    assert "which has not begun" in text_of(ask(served, 0, 4))
    first, _ = ask(served, 0, 3), ask(served, 1, 3)
    assert first.result(DEADLINE).next_state == FINISH


def test_client_waits_through_a_restart(serve: Serve, ask: Ask) -> None:
    served = serve()
    waiting = ask(served, 0, 0, timeout=DEADLINE)
    served.heard(1)
    served.stop()
    again = serve(endpoint=served.endpoint)
    assert ask(again, 1, 0, timeout=DEADLINE).result(DEADLINE).reason == "round 0"
    assert waiting.result(DEADLINE).reason == "round 0"


# -- a coordinator that is not there -----------------------------------------------------------------------


def test_coordinator_that_starts_late(serve: Serve, ask: Ask) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    futures = [ask(endpoint, client, 0, timeout=DEADLINE) for client in range(2)]
    time.sleep(0.8)
    assert not any(future.done() for future in futures)
    serve(endpoint=endpoint)
    assert [future.result(DEADLINE).reason for future in futures] == ["round 0"] * 2


def test_token_is_asked_for_at_each_attempt(serve: Serve) -> None:
    port, tokens = free_port(), []

    def token() -> str:
        tokens.append(TOKEN if served else "")
        return tokens[-1]

    served: list[Served] = []
    client = CoordinatorClient(f"127.0.0.1:{port}", token, LIMIT, DEADLINE)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.report, ClientReport(0, 0), DEADLINE)
        wait_until("the first attempt", lambda: bool(tokens))
        served.append(serve(clients=1, endpoint=f"127.0.0.1:{port}"))
        assert future.result(DEADLINE).next_state == JOIN
    client.close()
    assert tokens[0] == "" and tokens[-1] == TOKEN


@pytest.mark.parametrize("timeout", [0, 0.5])
def test_nobody_listens(ask: Ask, timeout: float) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    start = time.monotonic()
    text = text_of(ask(endpoint, 0, 0, timeout=timeout), CoordinatorLost)
    assert time.monotonic() - start < DEADLINE / 2
    assert text.startswith(f"The coordinator at {endpoint} could not be reached for {timeout:g} s (UNAVAILABLE: ")


@pytest.mark.parametrize("said", [[None, None, "It asks for TLS."], ["", ""]])
def test_why_there_is_no_connection_is_asked_until_it_is_known(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, said: list[str | None]
) -> None:
    """By connections that the coordinator sees."""
    answers = iter(said)
    monkeypatch.setattr("fl_rec.coordinator.client.why_refused", lambda *_: next(answers))
    known = bool(said[-1])
    text = text_of(ask(f"127.0.0.1:{free_port()}", 0, 0, timeout=DEADLINE if known else 2.0), CoordinatorLost)
    assert ("could not be reached. It asks for TLS." in text) == known
    assert next(answers, "no more") == "no more"


def test_clock_that_is_set_back_while_a_client_waits(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    # gRPC's own future would wait an hour more.
    hours, true_time = itertools.chain([0], itertools.repeat(1)), time.time
    monkeypatch.setattr(time, "time", lambda: true_time() - 3600 * next(hours))
    asked = ask(f"127.0.0.1:{free_port()}", 0, 0, timeout=0.5)
    assert "could not be reached for 0.5 s" in text_of(asked, CoordinatorLost)


def test_client_that_gave_up_finds_it_again(serve: Serve) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    client = CoordinatorClient(endpoint, lambda: TOKEN, LIMIT, DEADLINE)
    for _ in range(3):
        with pytest.raises(CoordinatorLost):
            client.report(ClientReport(0, 0), 0)
    serve(clients=1, endpoint=endpoint)
    time.sleep(1.1)
    assert client.report(ClientReport(0, 0), 0).next_state == JOIN, "one attempt is enough"
    client.close()


def test_no_thread_finds_the_channel_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: found.append(told.exc_value))
    client = CoordinatorClient(serve(clients=1).endpoint, lambda: TOKEN, LIMIT, DEADLINE)
    state: Any = vars(client._channel)["_connectivity_state"]
    channel, before = state.channel, threading.active_count()
    watched = threading.Event()

    class Slow:
        """gRPC's own channel, in a thread that does not come about."""

        check_connectivity_state = channel.check_connectivity_state

        def watch_connectivity_state(self, *arguments: Any) -> Any:
            watched.wait(0.2)
            return channel.watch_connectivity_state(*arguments)

    state.channel = Slow()
    assert client.report(ClientReport(0, 0), DEADLINE).next_state == JOIN
    client.close()
    watched.set()
    wait_until("the end of gRPC's threads", lambda: not state.polling or bool(found))
    wait_until("the end of gRPC's threads", lambda: threading.active_count() <= before or bool(found))
    assert found == []


def test_peer_that_is_slow_to_answer_at_all(serve: Serve, ask: Ask) -> None:
    # As on a long way, or on a machine whose cores are all taken: gRPC's own greeting takes a second or two.
    served = serve(clients=1)
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, to: socket.socket, delay: float) -> None:
        data = source.recv(1 << 16)
        while data:
            time.sleep(delay)
            to.sendall(data)
            data = source.recv(1 << 16)

    def forward() -> None:
        for _ in range(10):
            near = listener.accept()[0]
            far = socket.create_connection(("127.0.0.1", served.port), DEADLINE)
            for way in ((near, far, 0.0), (far, near, 1.2)):
                threading.Thread(target=suppressed, args=(pump, *way), daemon=True).start()

    def suppressed(function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(OSError):  # the listener or a connection was closed
            function(*arguments)

    threading.Thread(target=suppressed, args=(forward,), daemon=True).start()
    endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
    assert ask(endpoint, 0, 0, timeout=10).result(DEADLINE).next_state == JOIN
    listener.close()


def test_answer_that_is_no_decision(in_loop: Callable[..., Any], ask: Ask) -> None:
    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        service, _, call = METHOD[1:].partition("/")

        async def answer(data: bytes, context: Any) -> bytes:
            return b"nonsense"

        handler = grpc.method_handlers_generic_handler(service, {call: grpc.unary_unary_rpc_method_handler(answer)})
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = in_loop(start())
    text = text_of(ask(f"127.0.0.1:{port}", 0, 0, timeout=DEADLINE))
    assert text.startswith("The coordinator must answer with a decision. A message must be ")
    in_loop(server.stop(0))


# -- ports -------------------------------------------------------------------------------------------------


def test_port_that_is_taken(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(RunError) as caught:
            serve(endpoint=endpoint)
    assert str(caught.value) == (
        f"The coordinator must be able to listen on its port. Received: {endpoint}, which can't be bound. "
        "Free the port or, if the system chose it, start again."
    )


def test_two_coordinators_do_not_share_a_port(serve: Serve, play: Any) -> None:
    served = serve()
    with pytest.raises(RunError, match="which can't be bound"):
        serve(endpoint=served.endpoint)
    play(served, 0)


def test_rounds_leave_nothing_behind(in_loop: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = Coordinator(
        lambda: Scripted(Fleet(2, 10_000), everyone_joins),
        "a test's",
        CoordinatorConfig(),
        RoundLog(tmp_path / "rounds.jsonl"),
    )

    async def rounds(first: int, last: int) -> int:
        for round in range(first, last):
            await asyncio.gather(*(coordinator.answer(encode(ClientReport(client, round))) for client in range(2)))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    in_loop(coordinator.start())
    tracemalloc.start()
    try:
        before = in_loop(rounds(0, 200))
        assert in_loop(rounds(200, 800)) - before < 50_000
    finally:
        tracemalloc.stop()


def test_strategy_lives_in_one_thread(in_loop: Callable[..., Any], tmp_path: Path) -> None:
    # What it makes may belong to its thread, as Paddle's do.
    threads: list[threading.Thread] = []

    class Watched(JoinAll):
        def __init__(self, fleet: Fleet) -> None:
            super().__init__(fleet)
            threads.append(threading.current_thread())

        def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
            threads.append(threading.current_thread())
            return super().decide(reports, round)

    async def play() -> None:
        coordinator = Coordinator(
            lambda: Watched(Fleet(1, 9)), "watched", CoordinatorConfig(), RoundLog(tmp_path / "rounds.jsonl")
        )
        await coordinator.start()
        for round in range(3):
            await coordinator.answer(encode(ClientReport(0, round)))

    in_loop(play())
    assert len(threads) == 4 and len(set(threads)) == 1
    assert threads[0].daemon


def test_a_report_that_takes_too_long(serve: Serve, ask: Ask, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RECEIVE_SECONDS", 0.2)
    served, over = serve(clients=1), threading.Event()

    def slow() -> Iterator[bytes]:
        yield bytes(3)
        over.wait(DEADLINE)

    call = raw(served).send_chunks(slow())
    assert call.code().name == "UNAVAILABLE"
    assert call.details() == (
        "A report must be told within 0.2 s, and sooner while others tell as much. Received: 3 bytes and no end, "
        "from client 0."
    )
    over.set()
    assert ask(served, 0, 0).result(DEADLINE).reason == "round 0"
