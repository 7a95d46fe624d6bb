"""What the tunnel between hosts costs: deploy/tunnel, as docs/tunnel.md sets it up.

python benchmarks/tunnel.py --data datasets/movielens/fl_data

The same job runs on three hosts without the tunnel and through it, in pairs, by the same seed. The hosts are network
namespaces of this machine, which share its cores; a server is on each of the first two, and the workers in turn on all.
An epoch's seconds are those of its training and exchanges, the median of all epochs; bytes are what the hosts have
sent to each other, with all headers, and processor's seconds those of the three openvpn, both for an epoch with its
evaluation: from when the first one's figures are known until the last one's. It needs root, ip, nft and openvpn.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from common import (
    BEST_CONFIG,
    METRICS,
    PROJECT,
    Report,
    add_config_argument,
    add_data_argument,
    all_of,
    count,
    describe_data,
    fl_rec_run,
    job_keys,
    median,
    new_parser,
    open_data,
    ratio,
    run_benchmark,
    say,
    titled_table,
)

from fl_rec.config import Config
from fl_rec.data.manifest import Manifest
from fl_rec.errors import RunError
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import figure
from tests.integration.namespaces import Host, namespaces, run_in, sent_bytes
from tests.integration.tunnel import FIREWALL, HUB, INSIDE, SPOKE, Tunnel, require

LOOK_SECONDS = 0.05
END_SECONDS = 30.0  # of a launcher that is told to end
ROWS = {
    "seconds": ("seconds of an epoch", ".2f"),
    "exchange_seconds": ("of which it exchanges, mean of the workers", ".2f"),
    "wire_bytes": ("bytes between the hosts", ",.0f"),
    "tunnel_seconds": ("processor's seconds of the tunnel", ".2f"),
    **{name: (f"{title} of the last epoch", ".4f") for name, title in METRICS.items()},
}


@dataclass(frozen=True)
class Spent:
    """What was used when an epoch's figures became known.

    Attributes:
        wire_bytes: sent by the hosts, each to others.
        tunnel_seconds: of processor, by openvpn.
    """

    wire_bytes: int
    tunnel_seconds: float


class Hosts:
    """Three hosts, with the tunnel between them open.

    Args:
        folder: for what they are told and say.
    """

    def __init__(self, hosts: Sequence[Host], tunnel: Tunnel, folder: Path) -> None:
        self._hosts, self._folder = hosts, folder
        self._openvpn = [psutil.Process(process.pid) for process in tunnel.openvpn]
        self.addresses = {"direct": [host.address for host in hosts], "tunnel": list(INSIDE)}

    def run(self, name: str, command: Sequence[str], keys: Mapping[Path, Sequence[str]], timeout: float) -> list[Spent]:
        """The same command on each host, until all have ended.

        Args:
            name: of the job.
            keys: of each host's run directory, the further arguments.
            timeout: seconds.

        Returns:
            one for each epoch.

        Raises:
            RunError: it did not end well.
        """
        logs = [self._folder / f"{name}.{host.name}.log" for host in self._hosts]
        run, launched = RunDirectory(next(iter(keys))), []
        spent: list[Spent] = []
        deadline = time.monotonic() + timeout
        try:
            for host, log, further in zip(self._hosts, logs, keys.values()):
                with open(log, "w") as said:
                    pipes = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
                    launched.append(run_in(host, [*command, *further], cwd=PROJECT, **pipes))
            while any(each.poll() is None for each in launched) and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
                spent += [self._spent()] * (len(all_of(run)) - len(spent))
            codes = [each.poll() for each in launched]
        finally:
            for each in launched:
                each.terminate()
            for each in launched:
                try:
                    each.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    each.kill()  # its roles see that it has gone, and end
        if any(code != 0 for code in codes):
            failed = next(k for k, code in enumerate(codes) if code != 0)
            raise RunError(
                f"A job must end well to be measured. Received: {name} with the exit codes {codes}, None for what was "
                f"stopped after {timeout:g} s; {self._hosts[failed].name} said:\n{logs[failed].read_text()[-2000:]}"
            )
        return spent

    def _spent(self) -> Spent:
        times = [process.cpu_times() for process in self._openvpn]
        return Spent(sum(map(sent_bytes, self._hosts)), sum(each.user + each.system for each in times))


def several(text: str) -> int:
    """A number of epochs, the first of which is the start of what is measured."""
    value = count(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2. Received: {text}")
    return value


def layout(addresses: Sequence[str], workers: int) -> list[str]:
    """The options that say which host has which roles."""
    servers = ",".join(f"{address}:8900" for address in addresses[:2])
    of_workers = ",".join(f"{addresses[worker % len(addresses)]}:{8800 + worker}" for worker in range(workers))
    # What the tunnel does for the launchers' link as well.
    return [f"--servers={servers}", f"--workers={of_workers}", "--insecure"]


def cost_of(epochs: Sequence[Mapping[str, Any]], spent: Sequence[Spent]) -> dict[str, Any]:
    """What an epoch of a run has taken, and its last one's figures."""
    between = len(spent) - 1
    return {
        "seconds": median(each["seconds"] for each in epochs),
        "exchange_seconds": median(each["exchange_seconds"] for each in epochs),
        "wire_bytes": (spent[-1].wire_bytes - spent[0].wire_bytes) / between,
        "tunnel_seconds": (spent[-1].tunnel_seconds - spent[0].tunnel_seconds) / between,
        **{name: epochs[-1][name] for name in METRICS},
    }


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """Both ways, in pairs, of which each begins with the other one."""
    require("openvpn", "nft")
    with namespaces(len(INSIDE)) as made, ExitStack() as opened:
        data = open_data(None if args.quick else args.data, folder, config=args.config)
        tunnel = Tunnel(made, folder, opened, args.openvpn.split())
        tunnel.play(HUB, made[:1])
        tunnel.play(SPOKE, made[1:])
        tunnel.play(FIREWALL, made)
        hosts = Hosts(made, tunnel, folder)
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in hosts.addresses}
        for pair in range(args.pairs):
            for way in sorted(found, reverse=bool(pair % 2)):
                found[way].append(_run(args, folder, data, hosts, f"{pair}-{way}"))
    return report(args, data, found)


def _run(args: argparse.Namespace, folder: Path, data: Manifest, hosts: Hosts, name: str) -> dict[str, Any]:
    _, way = name.split("-")
    overrides = {"runner.epochs": args.epochs, "runner.save_interval": 0}
    paths = [folder / name / address for address in hosts.addresses[way]]
    keys = {path: job_keys(RunDirectory(path), data, overrides, args.config) for path in paths}
    command = [*fl_rec_run(args.config), *layout(hosts.addresses[way], data.num_shards)]
    spent = hosts.run(name, command, keys, args.timeout)
    cost = cost_of(all_of(RunDirectory(paths[0])), spent)
    say(f"{way:8} {cost['seconds']:.2f} s an epoch, {cost['wire_bytes'] / 1e6:,.0f} MB between the hosts")
    return cost


def report(args: argparse.Namespace, data: Manifest, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Report:
    """Medians of the runs of each way, side by side."""
    summary = {way: {name: median(run[name] for run in runs) for name in ROWS} for way, runs in found.items()}
    # Without a job's packets openvpn still says that it is there.
    compared = [name for name in ROWS if name != "tunnel_seconds"]
    ratios = {name: ratio(summary["tunnel"][name], summary["direct"][name]) for name in compared}
    exchanges = Config.load(args.config).runner.exchanges_per_epoch
    what = f"{args.config.name}, {data.num_shards} workers on {len(INSIDE)} hosts, {exchanges} exchanges an epoch"
    text = titled_table(
        f"{what}: one epoch",
        ["", *summary, "times"],
        [
            [title, *(figure(summary[way][name], kind) for way in summary), figure(ratios.get(name), ".2f")]
            for name, (title, kind) in ROWS.items()
        ],
    )
    figures = {"config": args.config.name, **describe_data(data), "hosts": len(INSIDE), "exchanges": exchanges}
    figures |= {"epochs": args.epochs, "pairs": args.pairs, "openvpn": args.openvpn}
    return Report(text, {**figures, **summary, "ratio": ratios}, [])


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser, BEST_CONFIG)
    parser.add_argument("--epochs", type=several, default=5, metavar="N", help="of a job (default: 5; --quick: 2)")
    parser.add_argument("--pairs", type=count, default=2, metavar="N", help="of jobs (default: 2; --quick: 1)")
    parser.add_argument(
        "--openvpn",
        default="",
        metavar="OPTIONS",
        help='what every openvpn is told beside the page\'s: --openvpn="--tun-mtu 1500" (default: nothing)',
    )
    parser.add_argument("--timeout", type=count, default=400, metavar="S", help="seconds of a job (default: 400)")
    return run_benchmark(parser, {"epochs": 2, "pairs": 1, "timeout": 120}, measure)


if __name__ == "__main__":
    sys.exit(main())
