"""Measures the coordinator: how soon a round's decisions follow its reports, and what it holds in memory; and Paddle's.

python benchmarks/coordinator.py --rounds 1000 --fleet 1000

Ours is the real service (`fl_rec.coordinator.service`) in a process of its own, over real sockets, with the strategy
join_all, rounds.jsonl and the table of every round on disk. First ten real clients, each in a process of its own as in
a job, so that no lock of Python is shared; all of them and the coordinator share the machine's cores. They report as
soon as they have their decision, all at once, which is the coordinator's hardest case. Then many simulated clients,
each with a connection of its own, from two processes.

Paddle's is a fleet job (`paddle_coordinator.py`) that trains nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import (
    Report,
    count,
    median,
    new_parser,
    run_benchmark,
    say,
    titled_table,
)

# isort: split
import grpc
import numpy as np
import psutil

from fl_rec.config import CoordinatorConfig
from fl_rec.coordinator.client import PAUSE, CoordinatorClient
from fl_rec.coordinator.messages import JOIN, ClientReport, Device
from fl_rec.coordinator.reception import Reception, token_for
from fl_rec.coordinator.rounds import Round, RoundLog
from fl_rec.coordinator.service import Coordinator
from fl_rec.coordinator.strategies import Fleet, new_strategy
from fl_rec.coordinator.wire import CLIENT_KEY, METHOD, TOKEN_KEY, channel_options, decode_decision, encode, split
from fl_rec.errors import RunError
from fl_rec.job.watch import Mark
from fl_rec.runs.audit import Audit
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import figure

STRATEGY, SECRET, MAX_MESSAGE = "join_all", "f" * 32, 1 << 20
# A declared field of a report: its name and length.
FIELD, FIELD_LENGTH = "weights", 64
# Seconds; a client that fails must not hold up the others for longer.
ROUND_TIMEOUT = 30.0
# Seconds that a client tries to reach the coordinator.
CONNECT_TIMEOUT = 10.0
SIMULATING_PROCESSES = 2
MARK = "FL_REC_BENCHMARK_COORDINATOR"
PADDLE_SCRIPT = Path(__file__).with_name("paddle_coordinator.py")
MIB = 1 << 20


# --- The coordinator's process ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Service:
    """A coordinator that is listening.

    Attributes:
        endpoint: "host:port".
        pid: its process.
    """

    endpoint: str
    pid: int


@contextmanager
def serve(
    folder: Path, clients: int, rounds: int, field: bool, round_timeout: float = ROUND_TIMEOUT
) -> Iterator[Service]:
    """Has a coordinator run while the block does, and sees that it has written every round with every report.

    Args:
        folder: where it keeps its rounds; made here.
        field: whether reports have a field of their own.
        round_timeout: seconds from a round's first report to its last.
    """
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder, clients, rounds, field, round_timeout), daemon=True)
    process.start()
    theirs.close()
    try:
        try:
            port = ours.recv()
        except EOFError as err:
            raise RunError("The coordinator must come to listen. It has ended; see above.") from err
        yield Service(f"127.0.0.1:{port}", process.pid or 0)
    finally:
        ours.close()
        process.join(ROUND_TIMEOUT)
        process.kill()
    written = list(RoundLog(RunDirectory(folder).rounds))
    if [each.round for each in written] != list(range(rounds)) or any(each.missing for each in written):
        raise RunError(f"Every round must be written, with every report. Received: {len(written)} of {rounds} rounds.")


def _serve(connection: Connection, folder: Path, clients: int, rounds: int, field: bool, round_timeout: float) -> None:
    _start_process()
    asyncio.run(_listen(connection, folder, clients, rounds, field, round_timeout))


async def _listen(
    connection: Connection, folder: Path, clients: int, rounds: int, field: bool, round_timeout: float
) -> None:
    run, fleet = RunDirectory(folder), Fleet(clients, rounds, folder=folder)
    settings = CoordinatorConfig(
        strategy=STRATEGY, round_timeout=round_timeout, report_fields={FIELD: (FIELD_LENGTH,)} if field else {}
    )

    def show(done: Round) -> None:
        run.append_table(done.table(rounds))

    coordinator = Coordinator(
        lambda: new_strategy(STRATEGY, {}, fleet, folder), STRATEGY, settings, RoundLog(run.rounds), show
    )
    await coordinator.start()
    reception = Reception(coordinator, SECRET, MAX_MESSAGE, Audit(run.audit))
    connection.send(await reception.open("127.0.0.1:0"))
    # It can be read when the other side hangs up.
    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_reader(connection.fileno(), hung_up.set)
    await hung_up.wait()
    await reception.stop(None)


def shown_by(client: int) -> tuple[tuple[str, str], ...]:
    """What a client shows to be who it is."""
    return (CLIENT_KEY, str(client)), (TOKEN_KEY, token_for(SECRET, client))


# --- Clients ----------------------------------------------------------------------------------------------


def new_report(client: int, number: int, field: bool) -> ClientReport:
    """One with every figure set."""
    random = np.random.default_rng([client, number])
    figures = {name: float(random.random()) for name in ("train_loss", "train_auc", "test_auc", "hr", "ndcg")}
    return ClientReport(
        client=client,
        round=number,
        shard_rows=400_000,
        rows=400_000,
        seconds=float(random.uniform(5, 15)),
        test_users=604,
        device=Device("phone", 0.5, 1e6),
        bytes_sent=30_000_000,
        bytes_received=40_000_000,
        extra={FIELD: random.random(FIELD_LENGTH)} if field else {},
        **figures,
    )


def _play_client(
    service: Service, client: int, rounds: int, field: bool, rounds_per_sample: int
) -> tuple[np.ndarray, dict[int, int]]:
    """A real client from round to round.

    Returns:
        float64 [rounds, 2], when a report was sent and its decision there, in seconds; and, if `rounds_per_sample` is
        not 0, by rounds done the coordinator's resident bytes.
    """
    times, memory = np.zeros((rounds, 2)), {}
    coordinator = psutil.Process(service.pid)
    end = CoordinatorClient(service.endpoint, lambda: token_for(SECRET, client), MAX_MESSAGE, 2 * ROUND_TIMEOUT)
    for number in range(rounds):
        report = new_report(client, number, field)
        sent = time.monotonic()
        decision = end.report(report, CONNECT_TIMEOUT)
        times[number] = sent, time.monotonic()
        require_join(decision.next_state)
        if rounds_per_sample and (number + 1) % rounds_per_sample == 0:
            memory[number + 1] = coordinator.memory_info().rss
    end.close()
    return times, memory


def _simulate(service: Service, clients: Sequence[int], rounds: int) -> tuple[np.ndarray, int]:
    """Many clients in one process, each with its own connection.

    Returns:
        float64 [clients, rounds, 2], as of `_play_client`; and how often one could not reach the coordinator, and tried
        again as a real client does.
    """
    return asyncio.run(_ask_all(service, clients, rounds))


async def _ask_all(service: Service, clients: Sequence[int], rounds: int) -> tuple[np.ndarray, int]:
    # Channels with the same options would share one connection.
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(service.endpoint, options=options) for _ in clients]
    calls = [channel.stream_stream(METHOD) for channel in channels]
    retries = 0

    async def ask(call: Callable[..., Any], client: int, number: int) -> tuple[float, float]:
        nonlocal retries
        data = encode(new_report(client, number, False))
        sent = time.monotonic()
        while True:
            try:
                chunks = call(split(data), timeout=2 * ROUND_TIMEOUT, metadata=shown_by(client))
                answer = b"".join([chunk async for chunk in chunks])
                break
            except grpc.aio.AioRpcError as err:
                if err.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() - sent > CONNECT_TIMEOUT:
                    raise RunError(f"Simulated client {client} must get an answer. Received: {err.details()}") from err
            retries += 1
            await asyncio.sleep(PAUSE)
        decision = decode_decision(answer)
        received = time.monotonic()
        require_join(decision.next_state)
        return sent, received

    times = [
        await asyncio.gather(*(ask(call, client, number) for call, client in zip(calls, clients)))
        for number in range(rounds)
    ]
    connections = psutil.Process().num_fds()
    if connections < len(clients):
        raise RunError(f"{len(clients)} clients must have as many connections. Received: {connections} at most.")
    for channel in channels:
        await channel.close()
    return np.array(times).swapaxes(0, 1), retries


def require_join(state: str) -> None:
    if state != JOIN:
        raise RunError(f"{STRATEGY} must tell all to {JOIN}. Received: {state}.")


def pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_process)


def results(jobs: Sequence[Future[Any]]) -> list[Any]:
    try:
        # The first that fails is to be heard of first; the others wait for it.
        for job in as_completed(jobs):
            job.result()
        return [job.result() for job in jobs]
    except BrokenProcessPool as err:
        raise RunError("The clients' processes must come to their end. One has ended before; see above.") from err


def _start_process() -> None:
    # Ctrl-C is for the benchmark alone, whose end ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wanted, (soft, hard) = 16_384, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


# --- What is measured -------------------------------------------------------------------------------------


def measure_clients(folder: Path, clients: int, rounds: int, field: bool) -> dict[str, Any]:
    """Real clients: from the last report of a round to its last decision delivered, and the coordinator's memory.

    Returns:
        milliseconds; the first round, in which connections are made, apart. Decisions of the later rounds that came too
        early to be theirs: before the last report was sent. Bytes of the coordinator's resident memory
        after a tenth of the rounds and after all, and its growth per round between, by least squares.
    """
    sample = max(1, rounds // 100)
    # When a client fails, the service ends before the pool is waited for, so that nobody waits for a round.
    with pool(clients) as processes, serve(folder, clients, rounds, field) as service:
        played = results(
            [
                processes.submit(_play_client, service, client, rounds, field, 0 if client else sample)
                for client in range(clients)
            ]
        )
    times, memory = np.array([times for times, _ in played]), played[0][1]
    delays = 1000 * (times[:, :, 1].max(0) - times[:, :, 0].max(0))
    later = {done: size for done, size in memory.items() if done >= rounds // 10}
    return {
        "report_bytes": len(encode(new_report(0, 1, field))),
        "first_round_ms": float(delays[0]),
        "median_ms": float(np.median(delays[1:])),
        "p99_ms": float(np.percentile(delays[1:], 99)),
        "longest_ms": float(delays[1:].max()),
        "too_early": int((times[:, 1:, 1] < times[:, 1:, 0].max(0)).sum()),
        "rounds_per_second": (rounds - 1) / float(times[:, -1, 1].max() - times[:, 0, 1].max()),
        "rss_early": later[min(later)],
        "rss_early_rounds": min(later),
        "rss_end": later[max(later)],
        "rss_growth_per_round": float(np.polyfit(list(later), list(later.values()), 1)[0]),
    }


def measure_fleet(folder: Path, clients: int, rounds: int) -> dict[str, Any]:
    """Simulated clients: from the first report of a round to its last decision delivered.

    Returns:
        seconds; the first round, in which connections are made, apart. How often a client had to try again.
    """
    shares = [range(clients)[part::SIMULATING_PROCESSES] for part in range(SIMULATING_PROCESSES)]
    with pool(SIMULATING_PROCESSES) as processes, serve(folder, clients, rounds, False) as service:
        simulated = results([processes.submit(_simulate, service, share, rounds) for share in shares])
    times = np.concatenate([times for times, _ in simulated])
    seconds = times[:, :, 1].max(0) - times[:, :, 0].min(0)
    return {
        "first_round_s": float(seconds[0]),
        "median_s": float(np.median(seconds[1:])),
        "longest_s": float(seconds[1:].max()),
        "retries": sum(retries for _, retries in simulated),
    }


def measure_paddle(folder: Path, workers: int, rounds: int, timeout: float) -> tuple[dict[str, Any], str | None]:
    """Paddle's channel: from the last worker's call of a round to the last strategy delivered.

    Args:
        timeout: seconds from the start, after which all is ended.

    Returns:
        the same as `measure_clients` of its delays, as far as rounds were done; and what went wrong.
    """
    folder.mkdir()
    mark = Mark(MARK, str(folder))
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--log_dir={folder / 'log'}"]
    command += [f"--worker_num={workers}", "--server_num=1", "--coordinator_num=1"]
    command += [str(PADDLE_SCRIPT), str(folder), str(rounds)]
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory(prefix="fl_rec_") as scratch, open(folder / "fleetrun", "wb") as log:
        launcher = subprocess.Popen(
            command,
            # Gloo's store and fleetrun leave temporary files behind when they are ended.
            env={**os.environ, mark.name: mark.value, "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            # Ctrl-C is for the benchmark alone, which ends all.
            start_new_session=True,
        )
        try:
            while True:
                over = launcher.poll() is not None or time.monotonic() > deadline
                times = _read_times(folder, workers)
                done = [number for number in range(rounds) if len(times.get((number, "decided"), [])) == workers]
                if over or len(done) == rounds:
                    break
                time.sleep(0.5)
        finally:
            mark.end()
            launcher.wait()
    delays = [1000 * (max(times[number, "decided"]) - max(times[number, "reporting"])) for number in done]
    failure = None
    if len(done) < rounds:
        events = ("reporting", "reported", "decided")
        reached = ", ".join(f"{len(times.get((len(done), event), []))} {event}" for event in events)
        failure = (
            f"Paddle's channel: {len(done)} of {rounds} rounds within {timeout:g} s; of {workers} workers in the next: "
            f"{reached}. The logs are in {folder / 'log'}"
        )
    return {
        "workers": workers,
        "rounds": len(done),
        "first_round_ms": delays[0] if delays else None,
        "median_ms": median(delays[1:]),
        "longest_ms": max(delays[1:]) if delays[1:] else None,
        "too_early": sum(
            time < max(times[number, "reporting"]) for number in done if number for time in times[number, "decided"]
        ),
    }, failure


def _read_times(folder: Path, workers: int) -> dict[tuple[int, str], list[float]]:
    """When each event of each round came, for the workers that have come to it."""
    times: dict[tuple[int, str], list[float]] = {}
    for path in (folder / f"worker.{index}" for index in range(workers)):
        for line in path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []:
            if line.endswith("\n"):
                record = json.loads(line)
                times.setdefault((record["round"], record["event"]), []).append(record["time"])
    return times


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All of it, one after the other."""
    clients, rounds = args.clients, args.rounds
    say(f"ours      {clients} clients, {rounds} rounds")
    plain = measure_clients(folder / "plain", clients, rounds, field=False)
    say(f"ours      the same, with {FIELD_LENGTH} numbers in every report")
    field = measure_clients(folder / "field", clients, rounds, field=True)
    say(f"ours      {args.fleet} clients, {args.fleet_rounds} rounds")
    fleet = measure_fleet(folder / "fleet", args.fleet, args.fleet_rounds)
    paddle: Mapping[str, Any] = {}
    failure = None
    if not args.no_paddle:
        say(f"paddle    {args.paddle_workers} workers, {args.paddle_rounds} rounds, at most {args.timeout} s")
        paddle, failure = measure_paddle(folder / "paddle", args.paddle_workers, args.paddle_rounds, args.timeout)

    def ms(value: float | None) -> str:
        return figure(value, ",.1f")

    early, end = plain["rss_early"] / MIB, plain["rss_end"] / MIB
    last = f"{clients} clients, last report to last decision, ms"
    whole = f"{args.fleet:,} clients, first report to last decision, s"
    lines = [
        [f"{last}: median", "20", ms(plain["median_ms"]), ms(paddle.get("median_ms"))],
        ["99th percentile", "100", ms(plain["p99_ms"]), "-"],
        ["longest", "", ms(plain["longest_ms"]), ms(paddle.get("longest_ms"))],
        ["first round", "", ms(plain["first_round_ms"]), ms(paddle.get("first_round_ms"))],
        ["decisions before the last report", "0", *(figure(each.get("too_early"), "d") for each in (plain, paddle))],
        [f"with {FIELD_LENGTH} numbers in every report: median", "20", ms(field["median_ms"]), "-"],
        ["99th percentile", "100", ms(field["p99_ms"]), "-"],
        [f"{whole}: median", "2", figure(fleet["median_s"], ".2f"), "-"],
        ["longest", "2", figure(fleet["longest_s"], ".2f"), "-"],
        ["first round, with connecting", "", figure(fleet["first_round_s"], ".2f"), "-"],
        ["connections tried again", "0", figure(fleet["retries"], "d"), "-"],
        [f"{clients} clients, RSS after {plain['rss_early_rounds']:,} rounds, MiB", "", f"{early:.2f}", "-"],
        [f"after {rounds:,} rounds", "flat", f"{end:.2f}", "-"],
        ["growth, bytes a round", "0", figure(plain["rss_growth_per_round"], ",.0f"), "-"],
    ]
    table = titled_table(
        f"ours: reports of {plain['report_bytes']} and {field['report_bytes']} bytes, {rounds - 1:,} rounds after the "
        f"first; {args.fleet_rounds - 1} of {args.fleet:,} clients\n"
        + (
            "paddle: {workers} workers, {rounds} rounds, the first apart; no figures of training in a report".format(
                **paddle
            )
            if paddle
            else "paddle: not measured"
        ),
        ["", "target", "ours", "paddle's"],
        lines,
    )
    figures = {
        "clients": {"number": clients, "rounds": rounds, "plain": plain, "field": field},
        "fleet": {"number": args.fleet, "rounds": args.fleet_rounds, **fleet},
        "paddle_channel": paddle or None,
    }
    return Report(table, figures, [failure] if failure else [])


def main() -> int:
    parser = new_parser(__doc__)
    numbers: Sequence[tuple[str, int, str]] = (
        ("--clients", 10, "real clients (default: 10)"),
        ("--rounds", 1000, "rounds of them (default: 1000; --quick: 20)"),
        ("--fleet", 1000, "simulated clients (default: 1000; --quick: 100)"),
        ("--fleet-rounds", 6, "rounds of them (default: 6; --quick: 3)"),
        ("--paddle-workers", 10, "(default: 10; --quick: 2)"),
        ("--paddle-rounds", 4, "(default: 4; --quick: 2)"),
    )
    for name, default, text in numbers:
        parser.add_argument(name, type=at_least_two, default=default, metavar="N", help=text)
    parser.add_argument("--no-paddle", action="store_true", help="leave Paddle's channel out")
    parser.add_argument(
        "--timeout", type=count, default=300, metavar="S", help="seconds until Paddle's channel is ended (default: 300)"
    )
    quick = {"rounds": 20, "fleet": 100, "fleet_rounds": 3, "paddle_workers": 2, "paddle_rounds": 2}
    return run_benchmark(parser, quick, measure)


def at_least_two(text: str) -> int:
    """An argument that is a whole number of at least 2: the first round is counted apart."""
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2. Received: {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
