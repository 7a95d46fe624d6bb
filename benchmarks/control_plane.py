"""The control plane with very many clients: the real service, told by all of them after the delays of a recorded run.

python benchmarks/control_plane.py --clients 100000

The service is that of coordinator.py, a process of its own behind real sockets. Its clients are simulated in two
processes, --share of them on a connection, which may be as many as the service lets one have calls. Each takes as long
as some client did in some epoch of recorded/metrics_join_all.jsonl, on a device that is 1 to 3 times slower, reports,
and waits for its decision, as a real one does. So a round takes as long as its slowest client, and what the service
adds to that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Report, count, new_parser, run_benchmark, say, titled_table

# isort: split
import grpc
import numpy as np
import psutil
from coordinator import (
    MIB,
    SIMULATING_PROCESSES,
    Service,
    new_report,
    pool,
    require_join,
    results,
    serve,
    shown_by,
)

from fl_rec.coordinator.client import PAUSE
from fl_rec.coordinator.wire import METHOD, channel_options, decode_decision, encode
from fl_rec.errors import RunError
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import read_lines
from fl_rec.tables import figure

RECORDED = Path(__file__).with_name("recorded") / "metrics_join_all.jsonl"
MOST_ON_A_CONNECTION = dict(channel_options())["grpc.max_concurrent_streams"]
ROUND_TIMEOUT = 600.0
LOOK_SECONDS = 0.25
SLOWEST = 3.0
# The connection broke; where a call just begins, asyncio's have other words for it.
BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class Play:
    """How clients are simulated: rounds, clients on a connection, what delays are multiplied with, and their seed."""

    rounds: int
    share: int
    stretch: float
    seed: int

    def connections(self, clients: int) -> int:
        return -(-clients // self.share)


def recorded_delays(path: Path = RECORDED) -> np.ndarray:
    """float64 [clients * epochs], seconds for which a client of a recorded run trained in an epoch."""
    return np.array([each["seconds"] for each in read_lines(path) if each["client"] != ALL])


def simulate(service: Service, clients: Sequence[int], how: Play) -> tuple[np.ndarray, np.ndarray]:
    """Plays many clients in one process.

    Returns:
        float64 [clients, rounds, 2], when a report was sent and its decision there, in seconds; int64 [rounds], how
        often one's connection broke, and it told again as a real client does.
    """
    return asyncio.run(_simulate(service, clients, how))


async def _simulate(service: Service, clients: Sequence[int], how: Play) -> tuple[np.ndarray, np.ndarray]:
    # Channels with the same options would share one connection.
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    connections = range(how.connections(len(clients)))
    channels = [grpc.aio.insecure_channel(service.endpoint, options=options) for _ in connections]
    # As a client does that has little to say; it is a stream all the same.
    calls = [channel.unary_stream(METHOD) for channel in channels]
    random = np.random.default_rng([how.seed, clients[0]])
    slow_downs = how.stretch * random.uniform(1, SLOWEST, len(clients))
    times, again = np.zeros((len(clients), how.rounds, 2)), np.zeros(how.rounds, np.int64)

    async def play(position: int, number: int, delay: float) -> None:
        client, call = clients[position], calls[position // how.share]
        await asyncio.sleep(delay)
        data = encode(new_report(client, number, False))
        sent = time.monotonic()
        while True:
            try:
                answer = call(data, timeout=ROUND_TIMEOUT, metadata=shown_by(client))
                decision = decode_decision(b"".join([chunk async for chunk in answer]))
                break
            except grpc.aio.AioRpcError as err:
                if err.code() not in BROKEN or time.monotonic() - sent > ROUND_TIMEOUT:
                    text = f"{err.code().name}, {err.details()}"
                    raise RunError(f"Simulated client {client} must get an answer. Received: {text}") from None
                again[number] += 1
                await asyncio.sleep(PAUSE)
        require_join(decision.next_state)
        times[position, number] = sent, time.monotonic()

    for number in range(how.rounds):
        delays = slow_downs * random.choice(recorded_delays(), len(clients))
        await asyncio.gather(*(play(position, number, delay) for position, delay in enumerate(delays)))
    for channel in channels:
        await channel.close()
    return times, again


def look(service: Service, running: Sequence[Any]) -> dict[str, float]:
    """Watches the service until the simulating is over: bytes at the start, at most, and seconds of processor."""
    process = psutil.Process(service.pid)
    start = most = process.memory_info().rss
    before = process.cpu_times()
    while not all(each.done() for each in running):
        most = max(most, process.memory_info().rss)
        time.sleep(LOOK_SECONDS)
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return {"memory_start": start, "memory_most": most, "cpu": cpu}


def measure_size(folder: Path, clients: int, how: Play) -> dict[str, Any]:
    """One fleet: what the service needs, and by how much it makes a round of the last one longer; seconds and bytes."""
    shares = [range(clients)[part::SIMULATING_PROCESSES] for part in range(SIMULATING_PROCESSES)]
    with pool(SIMULATING_PROCESSES) as processes, serve(folder, clients, how.rounds, False, ROUND_TIMEOUT) as service:
        running = [processes.submit(simulate, service, share, how) for share in shares]
        found = look(service, running)
        played = results(running)
    times, again = np.concatenate([each for each, _ in played]), sum(each for _, each in played)
    sent, decided = times[:, -1, 0], times[:, -1, 1]
    after = decided - sent.max()
    return {
        "clients": clients,
        "connections": sum(how.connections(len(share)) for share in shares),
        **found,
        "training": float(sent.max() - sent.min()),
        "reports_per_second": clients / float(sent.max() - sent.min()),
        "median": float(np.median(after)),
        "p99": float(np.percentile(after, 99)),
        "longest": float(after.max()),
        "round": float(decided.max() - (times[:, -2, 1].max() if how.rounds > 1 else sent.min())),
        "again": again.tolist(),
    }


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All sizes, one after the other."""
    found, how = [], Play(args.rounds, min(args.share, MOST_ON_A_CONNECTION), args.stretch, args.seed)
    for clients in args.clients:
        say(f"clients   {clients:,}, {how}")
        found.append(measure_size(folder / str(clients), clients, how))
    lines = [
        [
            f"{each['clients']:,}",
            f"{each['connections']:,}",
            figure(each["training"], ".0f"),
            figure(each["reports_per_second"], ",.0f"),
            *(figure(each[name], ".2f") for name in ("median", "p99", "longest")),
            figure(each["round"], ".1f"),
            f"{each['again'][-1]:,}",
            figure(each["cpu"] / how.rounds / each["clients"] * 1000, ".2f"),
            figure(each["memory_most"] / MIB, ",.0f"),
            figure((each["memory_most"] - each["memory_start"]) / each["clients"] / 1024, ".1f"),
        ]
        for each in found
    ]
    header = [
        "clients",
        "connections",
        "reports in s",
        "a second",
        "decided s: median",
        "99 %",
        "longest",
        "round s",
        "again",
    ]
    shortest, longest = args.stretch * recorded_delays().min(), args.stretch * SLOWEST * recorded_delays().max()
    table = titled_table(
        f"Round {how.rounds}: reports {shortest:.1f} to {longest:.1f} s after the one before, decisions after the last",
        [*header, "CPU ms a report", "MiB", "KiB a client"],
        lines,
    )
    return Report(table, {"sizes": found}, [])


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--clients", type=count, nargs="+", default=[1000, 10_000], metavar="N", help="fleets (default: 1000 10000)"
    )
    parser.add_argument("--stretch", type=float, default=1.0, metavar="X", help="the delays times so much (default: 1)")
    parser.add_argument("--rounds", type=count, default=2, metavar="N", help="the last is measured (default: 2)")
    parser.add_argument(
        "--share", type=count, default=MOST_ON_A_CONNECTION, metavar="N", help="clients on a connection (default: most)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the delays (default: 0)")
    return run_benchmark(parser, {"clients": [200], "stretch": 0.05}, measure)


if __name__ == "__main__":
    sys.exit(main())
