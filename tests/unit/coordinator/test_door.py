"""The coordinator's door over real sockets: who comes in, who is refused, what both sides are told and is written."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest

pytest.importorskip("cryptography")

from fl_rec.commands.certs import Authority, revoke
from fl_rec.config import CoordinatorConfig
from fl_rec.coordinator import door, guest, reception
from fl_rec.coordinator.client import CoordinatorClient, CoordinatorLost
from fl_rec.coordinator.messages import ClientReport, Decision
from fl_rec.coordinator.reception import Reception, token_for
from fl_rec.coordinator.rounds import RoundLog
from fl_rec.coordinator.service import Coordinator
from fl_rec.coordinator.strategies import Fleet
from fl_rec.coordinator.wire import CLIENT_KEY, METHOD, TOKEN_KEY, encode
from fl_rec.errors import ConfigError, RunError
from fl_rec.files import parse_json
from fl_rec.runs.audit import Audit
from fl_rec.secure import Tls, why_refused
from tests.unit.coordinator.scripted import Scripted
from tests.unit.secure.certificates import DAY, make, tls_of, write

DEADLINE, CLIENTS, SECRET, LIMIT = 30.0, 3, "the secret of this run", 1 << 16
OWN = object()


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("door"))


class Served:
    """A coordinator of three clients, and what came to its door."""

    def __init__(self, run: Callable[..., Any], folder: Path, certs: Path | None, crl: Path | None) -> None:
        self._run, self._certs, self._crl, self._audit = run, certs, crl, folder / "audit.jsonl"
        self._ends: list[Any] = []
        self.rounds = 0
        self.reception, self.port = run(self._open(folder))
        self.endpoint = f"127.0.0.1:{self.port}"

    async def _open(self, folder: Path) -> tuple[Reception, int]:
        fleet, config = Fleet(CLIENTS, 99), CoordinatorConfig(round_timeout=DEADLINE)
        self.coordinator = Coordinator(
            lambda: Scripted(fleet, lambda reports, round: {client: Decision() for client in reports}),
            "a test's",
            config,
            RoundLog(folder / "rounds.jsonl"),
        )
        await self.coordinator.start()
        tls = self.tls("coordinator")
        tls = tls and replace(tls, crl=self._crl)
        served = Reception(self.coordinator, SECRET, LIMIT, Audit(self._audit), tls)
        return served, await served.open("127.0.0.1:0")

    def tls(self, name: str) -> Tls | None:
        return tls_of(self._certs, name) if self._certs else None

    def client(self, number: int, tls: Any = OWN, token: str | None = None) -> CoordinatorClient:
        tls = self.tls(f"client-{number}") if tls is OWN else tls
        shown = token_for(SECRET, number) if token is None else token
        self._ends.append(CoordinatorClient(self.endpoint, lambda: shown, LIMIT, DEADLINE, tls=tls))
        return self._ends[-1]

    def report(self, number: int, round: int, timeout: float = 0, **shown: Any) -> Decision:
        return self.client(number, **shown).report(ClientReport(number, round), timeout)

    def refused(self, number: int, round: int, error: type[Exception] = RunError, **shown: Any) -> str:
        with pytest.raises(error) as caught:
            self.report(number, round, **shown)
        return str(caught.value)

    def play(self) -> None:
        """A round of the true clients, in which all are told to go on."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            told = pool.map(lambda client: self.report(client, self.rounds, DEADLINE), range(CLIENTS), timeout=DEADLINE)
            assert [each.next_state for each in told] == ["JOIN"] * CLIENTS
        self.rounds += 1

    def send(self, data: bytes, client: int, token: str, tls: Tls | None = None) -> tuple[str, str]:
        """What gRPC says to bytes that a peer sends as it likes."""
        if tls is None:
            channel = grpc.insecure_channel(self.endpoint)
        else:
            parts = (each.read_bytes() for each in (tls.ca, tls.key, tls.cert))
            channel = grpc.secure_channel(self.endpoint, grpc.ssl_channel_credentials(*parts))
        with channel:
            shown = ((CLIENT_KEY, str(client)), (TOKEN_KEY, token))
            call = channel.stream_stream(METHOD)(iter([data]), metadata=shown, timeout=DEADLINE)
            with contextlib.suppress(grpc.RpcError):
                list(call)
            return call.code().name, call.details()

    def written(self, what: str = "refused", count: int = 1) -> list[tuple[str, str]]:
        """Who and why, in so many lines or more of that kind, which are waited for."""
        deadline = time.monotonic() + DEADLINE
        while True:
            lines = self._audit.read_text().splitlines() if self._audit.exists() else []
            found = [(each["who"], each["why"]) for each in map(parse_json, lines) if each["what"] == what]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{count} lines of {what} should have been written, not {found}"
            time.sleep(0.01)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE)

    def close(self) -> None:
        for each in self._ends:
            each.close()
        self._run(self.reception.stop(0))


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


Serve = Callable[..., Served]


@pytest.fixture
def serve(in_loop: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`serve(certs or None, list of revoked certificates or None, **bounds)`."""
    started: list[Served] = []

    def serve(certs: Path | None = None, crl: Path | None = None, **bounds: Any) -> Served:
        usual = door.Bounds.of
        monkeypatch.setattr(door.Bounds, "of", lambda *sizes: replace(usual(*sizes), **bounds))
        started.append(Served(in_loop, tmp_path, certs, crl))
        return started[-1]

    yield serve
    for each in started:
        each.close()


# What somebody says who writes HTTP/2 by hand.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def frame(kind: int, stream: int, content: bytes, flags: int = 0) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def call(stream: int, token: bytes) -> bytes:
    """Headers of a call."""
    headers = {":method": b"POST", ":scheme": b"http", ":path": METHOD.encode(), ":authority": b"x"}
    headers |= {"te": b"trailers", "content-type": b"application/grpc", CLIENT_KEY: b"0", TOKEN_KEY: token}
    parts = (bytes([0, len(name)]) + name.encode() + bytes([len(each)]) + each for name, each in headers.items())
    return frame(1, stream, b"".join(parts), flags=4)


# -- certificates --------------------------------------------------------------------------------------------------


def test_a_round_with_certificates(serve: Serve, certs: Path) -> None:
    served = serve(certs)
    served.play()
    served.play()
    joined = served.written("joined")
    assert sorted(who for who, _ in joined) == ["client-0", "client-1", "client-2"]
    assert all(f"({who})" in why for who, why in joined)
    # The certificate is enough where no token has come.
    assert served.client(0, token="").report(ClientReport(0, 1), 0).next_state == "JOIN"


@pytest.mark.parametrize(
    ("name", "alert", "says"),
    [
        ("expired", "CERTIFICATE_EXPIRED", "has expired: fl-rec certs DIR --renew makes new ones"),
        ("early", "BAD_CERTIFICATE", "is not valid yet: look at the clocks of both machines, or wait until it is"),
        ("foreign", "UNKNOWN_CA", "is of another authority than tls.ca: give both sides certificates of one fl-rec"),
    ],
)
def test_a_certificate_that_will_not_do(serve: Serve, certs: Path, name: str, alert: str, says: str) -> None:
    served = serve(certs)
    # Its own side says so before it connects,
    assert f"{name}.crt, which {says}" in served.refused(0, 0, ConfigError, tls=tls_of(certs, name))
    # and one that connects all the same is told on the way.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certs / f"{name}.crt", certs / f"{name}.key")
    with pytest.raises(ssl.SSLError) as caught, context.wrap_socket(served.connect()) as peer:
        peer.recv(1)
    assert alert in str(caught.value.reason)
    ((who, why),) = served.written()
    assert who.startswith("127.0.0.1:") and f"its certificate {says}" in why
    served.play()


def test_a_certificate_that_is_revoked_while_it_is_in(
    serve: Serve, certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "LOOK_SECONDS", 0.01)
    folder = tmp_path / "certs"
    shutil.copytree(certs, folder)
    assert revoke(folder, []) == 0
    crl = folder / "crl.pem"
    served = serve(certs, crl)
    clients = [served.client(number) for number in range(CLIENTS)]

    def change(*names: str) -> None:
        before = served.reception._door.context
        assert revoke(folder, names) == len(names)
        until(lambda: served.reception._door.context is not before)

    with ThreadPoolExecutor(CLIENTS) as pool:
        told = [pool.submit(clients[number].report, ClientReport(number, 0), DEADLINE) for number in range(2)]
        until(lambda: len(served.coordinator._reports) == 2)
        change()
        told.append(pool.submit(clients[2].report, ClientReport(2, 0), DEADLINE))
        assert [each.result(DEADLINE).next_state for each in told] == ["JOIN"] * CLIENTS, "who may, comes again"
    change("client-1")
    assert clients[0].report(ClientReport(0, 0), DEADLINE).next_state == "JOIN"
    with pytest.raises(CoordinatorLost) as caught:
        clients[1].report(ClientReport(1, 0), 0)
    says = "has been revoked: fl-rec certs DIR --renew, with --clients or --hosts, makes a new one"
    assert f"the certificate {certs / 'client-1.crt'} {says}." in str(caught.value)
    who, why = served.written()[0]
    assert who.startswith("127.0.0.1:") and why == f"its certificate {says}"
    crl.write_text("not yet whole")
    until(lambda: "the list of revoked certificates stays as it was: tls.crl must be a list" in caplog.text)
    assert "has been revoked" in served.refused(1, 0, CoordinatorLost)


def test_no_certificate(serve: Serve, certs: Path) -> None:
    served = serve(certs)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certs / "ca.crt")
    with (
        pytest.raises(ssl.SSLError) as caught,
        context.wrap_socket(served.connect(), server_hostname="127.0.0.1") as peer,
    ):
        peer.recv(1)
    assert "CERTIFICATE_REQUIRED" in str(caught.value.reason)
    assert served.written()[0][1] == "it shows no certificate: set tls.cert and tls.key there"


def test_a_client_of_another_authority(serve: Serve, certs: Path, tmp_path: Path) -> None:
    """Which takes the coordinator's, so that only the coordinator can say no."""
    served, both = serve(certs), tmp_path / "both"
    other = make(tmp_path / "other")
    both.write_bytes((certs / "ca.crt").read_bytes() + (other / "ca.crt").read_bytes())
    text = served.refused(0, 0, CoordinatorLost, tls=Tls(other / "client-0.crt", other / "client-0.key", both))
    assert text == (
        f"The coordinator at {served.endpoint} could not be reached. For {served.endpoint} the certificate "
        f"{other / 'client-0.crt'} is of another authority than tls.ca: give both sides certificates of one fl-rec "
        "certs DIR."
    )
    assert "its certificate is of another authority than tls.ca" in served.written()[0][1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("expired-server", "has expired: fl-rec certs DIR --renew makes new ones."),
        ("early-server", "is not valid yet: look at the clocks of both machines, or wait until it is."),
        (
            "foreign-server",
            "is of another authority than tls.ca: give both sides certificates of one fl-rec certs DIR.",
        ),
        ("elsewhere", "is of another address: fl-rec certs DIR --hosts ADDRESS ... makes one of that address."),
        ("client-1", "is not made for this: a client's can't serve, and an authority's is for signing alone."),
    ],
)
def test_a_coordinator_whose_certificate_will_not_do(certs: Path, name: str, says: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / f"{name}.crt", certs / f"{name}.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"

        def greet() -> None:
            while True:
                try:
                    with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
                        peer.recv(1)
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        client = CoordinatorClient(endpoint, lambda: "", LIMIT, DEADLINE, tls=tls_of(certs, "client-0"))
        with pytest.raises(CoordinatorLost) as caught:
            client.report(ClientReport(0, 0), DEADLINE)
        client.close()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(DEADLINE)
    text = f"The coordinator at {endpoint} could not be reached. The certificate of {endpoint} {says}"
    assert str(caught.value).startswith(text)


def test_without_tls_where_it_is_asked_for_and_the_reverse(serve: Serve, certs: Path) -> None:
    served = serve(certs)
    text = served.refused(0, 0, CoordinatorLost, tls=None, timeout=DEADLINE)
    assert text.endswith(f"could not be reached. {served.endpoint} asks for TLS: set tls.cert, tls.key and tls.ca.")
    assert {why for _, why in served.written()} <= {
        "it speaks no TLS: set tls.cert, tls.key and tls.ca there",
        "it shows no certificate: set tls.cert and tls.key there",
    }
    plain = serve()
    text = plain.refused(0, 0, CoordinatorLost, tls=tls_of(certs, "client-0"), timeout=DEADLINE)
    assert f"{plain.endpoint} speaks no TLS: set tls.cert, tls.key and tls.ca there, or leave them out here." in text
    assert "it speaks no gRPC, or TLS where there is none" in [why for _, why in plain.written(count=2)]
    plain.play()


def test_who_finds_out_why_there_is_no_connection_is_not_refused(serve: Serve) -> None:
    served = serve()
    assert why_refused(served.endpoint, None) == ""
    served.play()
    assert served.written(count=0) == []


# -- who it is -------------------------------------------------------------------------------------------------------


def test_anothers_certificate(serve: Serve, certs: Path) -> None:
    served = serve(certs)
    # Not even with the other's token.
    text = served.refused(0, 0, tls=tls_of(certs, "client-1"))
    why = (
        "A client reports as itself. Received: one as client 0, by the certificate of client-1. Give each client "
        "tls.cert and tls.key of its own number."
    )
    assert text == f"The coordinator refused the report of client 0 for round 0 (PERMISSION_DENIED): {why}"
    ((who, written),) = served.written()
    assert written == why and who.endswith(" (client-1)")
    served.play()


def test_a_host_whose_certificate_names_no_client_shows_tokens(serve: Serve, certs: Path) -> None:
    served = serve(certs)
    host = tls_of(certs, "10.1.2.3")
    assert "(UNAUTHENTICATED)" in served.refused(0, 0, tls=host, token="")
    assert "(UNAUTHENTICATED)" in served.refused(0, 0, tls=host, token=token_for(SECRET, 1))
    with ThreadPoolExecutor(CLIENTS) as pool:
        told = pool.map(lambda client: served.report(client, 0, tls=host), range(CLIENTS), timeout=DEADLINE)
        assert [each.next_state for each in told] == ["JOIN"] * CLIENTS


@pytest.mark.parametrize(
    "name", ["client-\u0660", "client-0\n", "client-00", "CLIENT-0", "client-0.x", "client-*", "*"]
)
def test_a_name_that_is_nearly_a_clients(serve: Serve, certs: Path, tmp_path: Path, name: str) -> None:
    served, now = serve(certs), datetime.now(timezone.utc)
    write(tmp_path, "nearly", Authority.load(certs).issue(name, ["x"], now - DAY, now + 30 * DAY))
    shown = Tls(tmp_path / "nearly.crt", tmp_path / "nearly.key", certs / "ca.crt")
    assert "(UNAUTHENTICATED)" in served.refused(0, 0, tls=shown, token="")
    assert served.coordinator._reports == {}


@pytest.mark.parametrize("token", ["", "wrong", token_for(SECRET, 1), token_for("another run's", 0)])
def test_a_wrong_token_or_anothers(serve: Serve, token: str) -> None:
    served = serve()
    why = "A client shows its own token of its run. Received: another, or none, as client 0."
    assert served.send(encode(ClientReport(0, 0)), 0, token) == ("UNAUTHENTICATED", why)
    assert [each for _, each in served.written()] == [why]
    assert served.coordinator._reports == {}
    served.play()


def test_no_name_writes_lines_of_its_own(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve()
    report = ClientReport(0, 0, extra={"x\njoined: client-1: fine\x1b[2J": 1.0})
    assert served.send(encode(report), 0, token_for(SECRET, 0))[0] == "INVALID_ARGUMENT"
    assert "Received: x\njoined: client-1" in served.written()[0][1], "as it was"
    (line,) = (each.getMessage() for each in caplog.records if each.name == "fl_rec.runs.audit")
    assert "Received: x?joined: client-1: fine?[2J, which" in line and line.isprintable()


def test_headers_that_are_no_text_fill_no_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve()
    with served.connect() as peer:
        peer.sendall(PREFACE + call(1, token=b"\xff\xfe"))
        assert "own token of its run" in served.written()[0][1]
    assert [each.name for each in caplog.records] == ["fl_rec.runs.audit"]


def test_pings_are_answered(serve: Serve) -> None:
    """To complain of them costs more."""
    served = serve()
    ping, answered = frame(6, 0, b"thisping"), frame(6, 0, b"thisping", flags=1)
    with served.connect() as peer:
        peer.sendall(PREFACE)
        for _ in range(10):
            peer.sendall(10 * ping)
            answer = b""
            while answer.count(answered) < 10:
                block = peer.recv(1 << 16)
                assert block, "hung up"
                answer += block


@pytest.mark.parametrize("client", ["", "-1", "x", "1e1", "9" * 30])
def test_who_is_no_client(serve: Serve, client: Any) -> None:
    served = serve()
    assert served.send(encode(ClientReport(0, 0)), client, token_for(SECRET, 0))[0] == "UNAUTHENTICATED"


def test_a_report_as_another(serve: Serve, certs: Path) -> None:
    for served, tls in ((serve(), None), (serve(certs), tls_of(certs, "client-1"))):
        status, text = served.send(encode(ClientReport(0, 0)), 1, token_for(SECRET, 1), tls)
        why = "A client reports as itself. Received: a report of client 0 from client 1."
        assert (status, text) == ("PERMISSION_DENIED", why)
        assert served.written()[-1][1] == why
        assert served.coordinator._reports == {}


def test_a_replay_and_a_report_of_another_round_or_run(serve: Serve, certs: Path) -> None:
    served = serve(certs)
    first = encode(ClientReport(1, 0))
    served.play()
    served.play()
    tls, token = tls_of(certs, "client-1"), token_for(SECRET, 1)
    for data, text in (
        (first, "one of round 0 from client 1, which is over."),
        (encode(ClientReport(1, 3)), "one of round 3 from client 1, which has not begun."),
    ):
        text = f"Reports are of round 2. Received: {text}"
        assert served.send(data, 1, token, tls) == ("FAILED_PRECONDITION", text)
        assert served.written()[-1][1] == text
    # A certificate is good for many runs, and a token for one.
    now = encode(ClientReport(1, 2))
    assert served.send(now, 1, token_for("another run's", 1), tls)[0] == "UNAUTHENTICATED"
    assert "own token of its run" in served.written(count=3)[-1][1]
    served.play()


# -- how much -------------------------------------------------------------------------------------------------------


def ended(peer: socket.socket) -> bool:
    """Whether the other side hangs up."""
    try:
        while peer.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


def test_connections_that_do_not_show_whose_they_are(serve: Serve) -> None:
    served = serve(strangers=5)
    held = [served.connect() for _ in range(8)]
    assert [ended(each) for each in held[:3]] == [True] * 3
    assert {why for _, why in served.written(count=3)} == {"5 later connections have not shown whose they are either"}
    served.play()
    for each in held:
        each.close()


def test_a_connection_that_takes_too_long(serve: Serve) -> None:
    served = serve(shown_within=0.2)
    with served.connect() as peer:
        assert ended(peer)
    assert served.written()[0][1] == "it has not shown whose it is within 0.2 s"


def test_a_stranger_who_says_much(serve: Serve) -> None:
    served = serve(unshown=1 << 12)
    with served.connect() as peer:
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(1 << 13))
        assert ended(peer)
    assert "bytes before it shows whose they are" in served.written()[0][1]


def test_many_connections_of_an_address(serve: Serve) -> None:
    served = serve(of_an_address=4, seconds=3600.0)
    held = [served.connect() for _ in range(5)]
    assert ended(held[4])
    assert served.written()[0][1] == "it opens more than 4 connections in 3600 s"
    for each in held:
        each.close()


def test_many_connections_of_a_client(serve: Serve, certs: Path) -> None:
    served = serve(certs, of_a_client=2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certs / "ca.crt")
    context.load_cert_chain(certs / "client-2.crt", certs / "client-2.key")
    held = []
    for _ in range(3):
        held.append(context.wrap_socket(served.connect(), server_hostname="127.0.0.1"))
        held[-1].recv(1)
    assert ended(held[0])
    ((who, why),) = served.written()
    assert why == "client 2 has 2 later connections" and who.endswith(" (client-2)")
    for each in held:
        each.close()


def test_a_connection_that_is_refused_too_often(serve: Serve) -> None:
    served = serve(refusals=3)
    inside: Mapping[str, Any] = vars(served.reception._door)["_all"]
    with grpc.insecure_channel(served.endpoint) as channel:
        call = channel.stream_stream(METHOD)
        for refusals in range(1, 4):
            assert call(iter([b"x"])).code() == grpc.StatusCode.UNAUTHENTICATED
            assert [each.refusals for each in inside] == [refusals]
        deadline = time.monotonic() + DEADLINE
        while inside:
            assert time.monotonic() < deadline, "the connection should have been closed"
            time.sleep(0.01)
    served.play()


def test_a_client_that_asks_too_often(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "CALLS", 3)
    served = serve()
    served.play()
    for _ in range(6):  # a decision that is new is free, and told again it is not
        served.play()
    again = [served.report(0, served.rounds - 1).next_state for _ in range(2)]
    assert again == ["JOIN"] * 2
    sent = [served.send(encode(ClientReport(0, served.rounds - 1)), 0, token_for(SECRET, 0)) for _ in range(20)]
    assert ("UNAVAILABLE", "A client asks 10 times a second at most. Received: more from client 0.") in sent
    served.play()


def test_more_bytes_than_a_client_may_send_wait(serve: Serve, in_loop: Callable[..., Any]) -> None:
    served = serve(bytes=60_000)
    served.play()
    held: list[str] = []
    usual = guest.Guest.hold

    def hold(self: guest.Guest, why: str) -> None:
        held.append(why)
        usual(self, why)

    guest.Guest.hold = hold  # type: ignore[method-assign]
    try:
        data = bytes(LIMIT)
        assert served.send(data, 0, token_for(SECRET, 0))[0] == "INVALID_ARGUMENT"
    finally:
        guest.Guest.hold = usual  # type: ignore[method-assign]
    assert "rate" in held
    served.play()


def test_what_grpc_has_compressed_is_not_unpacked(serve: Serve) -> None:
    served = serve()
    shown = ((CLIENT_KEY, "0"), (TOKEN_KEY, token_for(SECRET, 0)))
    with grpc.insecure_channel(served.endpoint, [("grpc.max_send_message_length", -1)]) as channel:
        parts = iter([bytes(1 << 24)])  # some 16 KiB on the way
        call = channel.stream_stream(METHOD)(parts, DEADLINE, shown, compression=grpc.Compression.Gzip)
        with pytest.raises(grpc.RpcError):
            list(call)
    assert call.code() == grpc.StatusCode.UNIMPLEMENTED
    served.play()


def test_nothing_is_left_of_those_who_went(serve: Serve, certs: Path) -> None:
    served = serve(certs)
    served.play()
    inside: Mapping[str, Any] = vars(served.reception._door)
    for each in served._ends:
        each.close()
    deadline = time.monotonic() + DEADLINE
    while inside["_all"] or inside["_by_name"] or len(inside["_strangers"]) or any(inside["_by_client"].values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    folder = inside["_folder"]
    assert folder.stat().st_mode & 0o777 == 0o700
    served.close()
    served.close()
    assert not folder.exists()
