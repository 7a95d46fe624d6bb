"""Measures the coordinator's door under attack: what is refused and written, what a true client's round takes, and what
the coordinator holds in memory; with TLS, and with tokens alone.

python benchmarks/door.py

The coordinator is a process of its own, and so is the attacker, on the same cores as ten true clients, who report, are
told, "train" for --train seconds and report again. An attack is --attempts of one kind, as fast as the attacker can;
connections and streams are held until --seconds have passed. A round is what a true client sees: from one decision to
the next.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import Report, count, new_parser, run_benchmark, say, titled_table

# isort: split
import grpc
import psutil

from fl_rec.commands.certs import Authority, create
from fl_rec.config import CoordinatorConfig
from fl_rec.coordinator.client import CoordinatorClient
from fl_rec.coordinator.messages import FINISH, ClientReport, Decision
from fl_rec.coordinator.reception import Reception, token_for
from fl_rec.coordinator.rounds import RoundLog
from fl_rec.coordinator.service import Coordinator
from fl_rec.coordinator.strategies import Fleet, Strategy
from fl_rec.coordinator.wire import CHUNK, CLIENT_KEY, METHOD, TOKEN_KEY, channel_options, encode
from fl_rec.errors import RunError
from fl_rec.files import parse_json
from fl_rec.runs.audit import Audit
from fl_rec.runs.directory import RunDirectory
from fl_rec.secure import Tls
from fl_rec.tables import figure

CLIENTS, SECRET, LONGEST = 10, "f" * 32, 1 << 20
# One more client, who has finished, and means it ill.
VILLAIN = CLIENTS
AT_A_TIME, CONNECTIONS, STREAMS = 20, 1000, 400
CALLS_OF_A_CONNECTION = dict(channel_options())["grpc.max_concurrent_streams"]
WAIT = 30.0
MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """What is attacked.

    Attributes:
        endpoint: "host:port".
        certs: the folder of certificates; None without TLS.
        attempts: how many.
        seconds: for which what can be held is held.
    """

    endpoint: str
    certs: Path | None
    attempts: int
    seconds: float

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.endpoint.rpartition(":")
        return host, int(port)


def tls_of(certs: Path | None, name: str) -> Tls | None:
    return None if certs is None else Tls(certs / f"{name}.crt", certs / f"{name}.key", certs / "ca.crt")


# --- Attacks: each gives how often it was tried, and how often refused as far as the attacker can see ------------


async def certificate(target: Target, name: str) -> tuple[int, int]:
    """Connections with a certificate that will not do; "" for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tls = tls_of(target.certs, name)
    if name and tls:
        context.load_cert_chain(tls.cert, tls.key)

    async def attempt() -> bool:
        try:
            reader, writer = await asyncio.open_connection(*target.address, ssl=context)
        except (OSError, ssl.SSLError):
            return True
        try:
            return not await asyncio.wait_for(reader.read(1), WAIT)
        except (OSError, ssl.SSLError):
            return True
        finally:
            writer.close()

    return await _many(target.attempts, attempt)


async def garbage(target: Target) -> tuple[int, int]:
    """Connections that speak something else."""

    async def attempt() -> bool:
        try:
            reader, writer = await asyncio.open_connection(*target.address)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            while await asyncio.wait_for(reader.read(CHUNK), WAIT):
                pass
            writer.close()
        except OSError:
            pass
        return True

    return await _many(target.attempts, attempt)


async def reports(target: Target, client: int, by: int | None, data: bytes) -> tuple[int, int]:
    """Reports as one client, shown by another's certificate or token; None: by none."""
    channel = _channel(target, f"client-{VILLAIN if by is None else by}")
    call = channel.stream_stream(METHOD)
    token = "0" * 64 if by is None else token_for(SECRET, by)
    shown = ((CLIENT_KEY, str(client)), (TOKEN_KEY, token))

    async def chunks() -> Any:
        yield data

    async def attempt() -> bool:
        try:
            async for _ in call(chunks(), metadata=shown, timeout=WAIT):
                return False
        except grpc.aio.AioRpcError:
            return True
        return False

    found = await _many(target.attempts, attempt)
    await channel.close()
    return found


async def connections(target: Target) -> tuple[int, int]:
    """Connections that say nothing, all at once, held."""
    opened = await asyncio.gather(
        *(asyncio.open_connection(*target.address) for _ in range(CONNECTIONS)), return_exceptions=True
    )
    await asyncio.sleep(target.seconds)
    refused = 0
    for each in opened:
        if isinstance(each, BaseException):
            refused += 1
            continue
        with suppress(OSError):
            refused += each[0].at_eof()
            each[1].close()
    return len(opened), refused


async def streams(target: Target) -> tuple[int, int]:
    """Calls of one client that begin a message each and never end it, on as many connections as they need."""
    channels = [_channel(target, f"client-{VILLAIN}") for _ in range(-(-STREAMS // CALLS_OF_A_CONNECTION))]
    shown = ((CLIENT_KEY, str(VILLAIN)), (TOKEN_KEY, token_for(SECRET, VILLAIN)))

    async def endless() -> Any:
        for _ in range(LONGEST // CHUNK - 1):
            yield bytes(CHUNK)
        await asyncio.sleep(3600)

    async def attempt(number: int) -> bool:
        call = channels[number % len(channels)].stream_stream(METHOD)
        try:
            async for _ in call(endless(), metadata=shown, timeout=target.seconds):
                return False
        except grpc.aio.AioRpcError as err:
            return bool(err.code() != grpc.StatusCode.DEADLINE_EXCEEDED)
        return False

    refused = sum(await asyncio.gather(*(attempt(number) for number in range(STREAMS))))
    for channel in channels:
        await channel.close()
    return STREAMS, refused


async def _many(attempts: int, attempt: Callable[[], Coroutine[Any, Any, bool]]) -> tuple[int, int]:
    left, refused = iter(range(attempts)), 0

    async def some() -> None:
        nonlocal refused
        for _ in left:
            found = await attempt()  # others add to it meanwhile
            refused += found

    await asyncio.gather(*(some() for _ in range(AT_A_TIME)))
    return attempts, refused


def _channel(target: Target, name: str) -> grpc.aio.Channel:
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    tls = tls_of(target.certs, name)
    if tls is None:
        return grpc.aio.insecure_channel(target.endpoint, options=options)
    parts = (each.read_bytes() for each in (tls.ca, tls.key, tls.cert))
    return grpc.aio.secure_channel(target.endpoint, grpc.ssl_channel_credentials(*parts), options=options)


_OLD, _OTHERS = encode(ClientReport(VILLAIN, 0)), encode(ClientReport(0, 1))
# By name: with TLS, with tokens alone, or with both; and what it does.
ATTACKS: Mapping[str, tuple[str, Callable[[Target], Coroutine[Any, Any, tuple[int, int]]]]] = {
    "a certificate of another authority": ("tls", lambda target: certificate(target, "foreign")),
    "an expired certificate": ("tls", lambda target: certificate(target, "expired")),
    "no certificate": ("tls", lambda target: certificate(target, "")),
    "no token, or a wrong one": ("token", lambda target: reports(target, 0, None, _OTHERS)),
    "another's certificate or token": ("both", lambda target: reports(target, 0, VILLAIN, _OTHERS)),
    "another's report": ("both", lambda target: reports(target, VILLAIN, VILLAIN, _OTHERS)),
    "a replay": ("both", lambda target: reports(target, VILLAIN, VILLAIN, _OLD)),
    "nonsense in a report": ("both", lambda target: reports(target, VILLAIN, VILLAIN, b"\xc1" * 1000)),
    "no gRPC": ("both", garbage),
    f"{CONNECTIONS} connections": ("both", connections),
    f"{STREAMS} open streams": ("both", streams),
}


def attack(name: str, target: Target) -> tuple[int, int]:
    """Plays one, in the attacker's process."""
    return asyncio.run(ATTACKS[name][1](target))


# --- The coordinator's process ---------------------------------------------------------------------------------


class Everyone(Strategy):
    """All train, but for the villain, who has finished."""

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        return {client: Decision(FINISH) if client == VILLAIN else Decision() for client in reports}


@contextmanager
def serve(folder: Path, certs: Path | None) -> Iterator[tuple[str, psutil.Process]]:
    """Has a coordinator run while the block does: its endpoint and process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder, certs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield f"127.0.0.1:{ours.recv()}", psutil.Process(process.pid)
    finally:
        ours.close()
        process.join(WAIT)
        process.kill()


def _serve(connection: Connection, folder: Path, certs: Path | None) -> None:
    asyncio.run(_listen(connection, folder, certs))


async def _listen(connection: Connection, folder: Path, certs: Path | None) -> None:
    run, config = RunDirectory(folder), CoordinatorConfig(round_timeout=WAIT)
    coordinator = Coordinator(lambda: Everyone(Fleet(CLIENTS + 1, 10**6)), "everyone", config, RoundLog(run.rounds))
    await coordinator.start()
    reception = Reception(coordinator, SECRET, LONGEST, Audit(run.audit), tls_of(certs, "coordinator"))
    connection.send(await reception.open("127.0.0.1:0"))
    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_reader(connection.fileno(), hung_up.set)
    await hung_up.wait()
    await reception.stop(None)


# --- True clients ----------------------------------------------------------------------------------------------


class Rounds:
    """Ten true clients, who go on until the block ends.

    Args:
        train: seconds between a decision and the next report.

    Attributes:
        times: when the first client was told, in seconds.
        errors: what any of them was told that is no decision.
    """

    def __init__(self, target: Target, train: float) -> None:
        self._target, self._train, self._over = target, train, threading.Event()
        self._ends: list[CoordinatorClient] = []
        self.times: list[float] = []
        self.errors: list[str] = []

    def __enter__(self) -> Rounds:
        self._threads = [threading.Thread(target=self._play, args=(each,)) for each in (*range(CLIENTS), VILLAIN)]
        for thread in self._threads:
            thread.start()
        self.wait(3)
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for end in self._ends:
            end.close()
        for thread in self._threads:
            thread.join(2 * WAIT)

    def wait(self, rounds: int) -> None:
        """Until so many more are over. RunError if they don't come."""
        wanted, deadline = len(self.times) + rounds, time.monotonic() + 2 * WAIT
        while len(self.times) < wanted:
            if time.monotonic() > deadline or self.errors:
                raise RunError(f"True clients must have their rounds. Received: {self.errors or 'none'}.")
            time.sleep(0.01)

    def between(self, start: float, end: float) -> list[float]:
        """Seconds of the rounds that were going on then."""
        pairs = zip(self.times, self.times[1:])
        return [after - before for before, after in pairs if after > start and before < end]

    def _play(self, client: int) -> None:
        target = self._target
        token, tls = token_for(SECRET, client), tls_of(target.certs, f"client-{client}")
        end = CoordinatorClient(target.endpoint, lambda: token, LONGEST, 2 * WAIT, tls=tls)
        self._ends.append(end)
        round = 0
        try:
            while not self._over.is_set():
                decision = end.report(ClientReport(client, round), WAIT)
                if client == 0:
                    self.times.append(time.monotonic())
                if decision.next_state == FINISH:
                    return
                time.sleep(self._train)
                round += 1
        except Exception as err:
            if not self._over.is_set():
                self.errors.append(f"client {client}: {err}")


# --- What is measured ------------------------------------------------------------------------------------------


def make_certificates(folder: Path) -> Path:
    """Good ones, one of another authority, and one that has expired."""
    certs, now = folder / "certs", datetime.now(timezone.utc)
    create(certs, CLIENTS + 1, [])
    old = Authority.load(certs).issue("client-0", ["client-0"], now - timedelta(days=2), now - timedelta(days=1))
    new = Authority.new().issue("client-0", ["client-0"], now - timedelta(days=1), now + timedelta(days=1))
    for name, pair in (("expired", old), ("foreign", new)):
        for suffix, content in zip(("crt", "key"), pair):
            (certs / f"{name}.{suffix}").write_bytes(content)
    return certs


def refusals(path: Path) -> int:
    """Refusals that were written, and those that a line counts."""
    lines = [parse_json(line) for line in path.read_text().splitlines()]
    return sum(1 + each.get("untold", 0) for each in lines if each["what"] == "refused")


def measure_door(args: argparse.Namespace, folder: Path, certs: Path | None) -> list[dict[str, Any]]:
    """All attacks on one coordinator each, with the certificates or with tokens alone."""
    kind, found = ("tls" if certs else "token"), []
    for number, (name, (needs, _)) in enumerate(ATTACKS.items()):
        if needs not in (kind, "both"):
            continue
        say(f"{kind:<9} {name}")
        run = folder / f"{kind}-{number}"
        run.mkdir()
        with serve(run, certs) as (endpoint, process), ProcessPoolExecutor(1, _SPAWN) as attacker:
            target = Target(endpoint, certs, args.attempts, args.seconds)
            attacker.submit(time.sleep, 0).result(WAIT)
            with Rounds(target, args.train) as rounds:
                start = time.monotonic()
                rounds.wait(max(3, int(args.seconds / (args.train + 0.02))))
                quiet, memory = rounds.between(start, time.monotonic()), [process.memory_info().rss]
                start = time.monotonic()
                attacking = attacker.submit(attack, name, target)
                while not attacking.done():
                    memory.append(process.memory_info().rss)
                    time.sleep(0.05)
                tried, refused = attacking.result()
                seconds = time.monotonic() - start
                rounds.wait(1)
                during = rounds.between(start, start + seconds)
        found.append(
            {
                "door": kind,
                "attack": name,
                "tried": tried,
                "refused": refused,
                "written": refusals(run / "audit.jsonl"),
                "audit_bytes": (run / "audit.jsonl").stat().st_size,
                "seconds": seconds,
                "rounds": len(during),
                "quiet_s": statistics.median(quiet),
                "median_s": statistics.median(during),
                "longest_s": max(during),
                "rss": memory[0],
                "rss_most": max(memory),
            }
        )
    return found


_SPAWN = multiprocessing.get_context("spawn")


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """With TLS, then with tokens alone."""
    found = [*measure_door(args, folder, make_certificates(folder)), *measure_door(args, folder, None)]
    failures = [
        f"{each['door']}, {each['attack']}: a round took {each['median_s'] / each['quiet_s']:.1f} times as long"
        for each in found
        if each["median_s"] > 2 * each["quiet_s"]
    ]
    lines = [
        [
            each["door"],
            each["attack"],
            f"{each['tried']:,}",
            f"{each['refused']:,}",
            f"{each['written']:,}",
            figure(each["audit_bytes"] / 1024, ".1f"),
            figure(each["seconds"], ".1f"),
            str(each["rounds"]),
            *(figure(each[name], ".3f") for name in ("quiet_s", "median_s", "longest_s")),
            figure(each["median_s"] / each["quiet_s"], ".2f"),
            figure((each["rss_most"] - each["rss"]) / MIB, "+.1f"),
        ]
        for each in found
    ]
    header = ["door", "attack", "tried", "refused", "logged", "KiB", "in s", "rounds", "quiet s", "median s", "longest"]
    title = f"Attacks on a coordinator of {CLIENTS} true clients, who train for {args.train:g} s a round"
    table = titled_table(title, [*header, "times", "MiB"], lines)
    return Report(table, {"train": args.train, "attacks": found}, failures)


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--train", type=float, default=0.5, metavar="S", help="seconds that a client trains (default: 0.5)"
    )
    parser.add_argument("--attempts", type=count, default=1000, metavar="N", help="of an attack (default: 1000)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="for which is held what can be (default: 5)"
    )
    return run_benchmark(parser, {"train": 0.1, "attempts": 50, "seconds": 1.0}, measure)


if __name__ == "__main__":
    sys.exit(main())
