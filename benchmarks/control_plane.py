"""The control plane with very many clients: the real service, told by all of them after the delays of a recorded run.

python benchmarks/control_plane.py --clients 100000

The service is that of coordinator.py, a process of its own behind real sockets. Its clients are simulated in two
processes, as many on a connection as the service lets one have calls. Each takes as long as some client did in some
epoch of recorded/metrics_join_all.jsonl, on a device that is 1 to 3 times slower, reports, and waits for its decision,
as a real one does. So a round takes as long as its slowest client, and what the service adds to that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
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
from fl_rec.coordinator.wire import METHOD, channel_options, decode_decision, encode, split
from fl_rec.errors import RunError
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import read_lines
from fl_rec.tables import figure

RECORDED = Path(__file__).with_name("recorded") / "metrics_join_all.jsonl"
CALLS_OF_A_CONNECTION = dict(channel_options())["grpc.max_concurrent_streams"]
ROUND_TIMEOUT = 600.0
LOOK_SECONDS = 0.25
ROUNDS, SLOWEST = 2, 3.0
# The connection broke; asyncio's calls have another word for it where a call just begins.
BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)


def recorded_delays(path: Path = RECORDED) -> np.ndarray:
    """float64 [clients * epochs], seconds for which a client of a recorded run trained in an epoch."""
    return np.array([each["seconds"] for each in read_lines(path) if each["client"] != ALL])


def simulate(service: Service, clients: Sequence[int], seed: int, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Plays many clients in one process.

    Returns:
        float64 [clients, ROUNDS, 2], when a report was sent and its decision there, in seconds; int64 [ROUNDS], how
        often one's connection broke, and it told again as a real client does.
    """
    return asyncio.run(_simulate(service, clients, seed, stretch))


async def _simulate(
    service: Service, clients: Sequence[int], seed: int, stretch: float
) -> tuple[np.ndarray, np.ndarray]:
    # Channels with the same options would share one connection.
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    connections = -(-len(clients) // CALLS_OF_A_CONNECTION)
    channels = [grpc.aio.insecure_channel(service.endpoint, options=options) for _ in range(connections)]
    calls = [channel.stream_stream(METHOD) for channel in channels]
    random = np.random.default_rng([seed, clients[0]])
    slow_downs = random.uniform(stretch, SLOWEST * stretch, len(clients))
    times, again = np.zeros((len(clients), ROUNDS, 2)), np.zeros(ROUNDS, np.int64)

    async def play(position: int, number: int, delay: float) -> None:
        client, call = clients[position], calls[position // CALLS_OF_A_CONNECTION]
        await asyncio.sleep(delay)
        data = encode(new_report(client, number, False))
        sent = time.monotonic()
        while True:
            try:
                answer = call(split(data), timeout=ROUND_TIMEOUT, metadata=shown_by(client))
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

    for number in range(ROUNDS):
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


def measure_size(folder: Path, clients: int, seed: int, stretch: float) -> dict[str, Any]:
    """One fleet: what the service needs, and by how much it makes a round of the last one longer; seconds and bytes."""
    shares = [range(clients)[part::SIMULATING_PROCESSES] for part in range(SIMULATING_PROCESSES)]
    with pool(SIMULATING_PROCESSES) as processes, serve(folder, clients, ROUNDS, False, ROUND_TIMEOUT) as service:
        running = [processes.submit(simulate, service, share, seed, stretch) for share in shares]
        found = look(service, running)
        played = results(running)
    times, again = np.concatenate([each for each, _ in played]), sum(each for _, each in played)
    sent, decided = times[:, -1, 0], times[:, -1, 1]
    after = decided - sent.max()
    return {
        "clients": clients,
        "connections": sum(-(-len(share) // CALLS_OF_A_CONNECTION) for share in shares),
        **found,
        "training": float(sent.max() - sent.min()),
        "reports_per_second": clients / float(sent.max() - sent.min()),
        "median": float(np.median(after)),
        "p99": float(np.percentile(after, 99)),
        "longest": float(after.max()),
        "round": float(decided.max() - times[:, 0, 1].max()),
        "again": again.tolist(),
    }


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All sizes, one after the other."""
    found = []
    for clients in args.clients:
        say(f"clients   {clients:,}, {ROUNDS} rounds")
        found.append(measure_size(folder / str(clients), clients, args.seed, args.stretch))
    lines = [
        [
            f"{each['clients']:,}",
            f"{each['connections']:,}",
            figure(each["training"], ".0f"),
            figure(each["reports_per_second"], ",.0f"),
            *(figure(each[name], ".2f") for name in ("median", "p99", "longest")),
            figure(each["round"], ".1f"),
            f"{each['again'][-1]:,}",
            figure(each["cpu"] / ROUNDS / each["clients"] * 1000, ".2f"),
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
    table = titled_table(
        f"The second round: reports {args.stretch * recorded_delays().min():.1f} to "
        f"{args.stretch * SLOWEST * recorded_delays().max():.1f} s after the first's end, decisions after the last",
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
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the delays (default: 0)")
    return run_benchmark(parser, {"clients": [200], "stretch": 0.05}, measure)


if __name__ == "__main__":
    sys.exit(main())
