"""The addresses of a job's roles as they are given, checked before any process starts. No Paddle is imported here."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import psutil

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.runs.hosts import Hosts, split
from fl_rec.secure import Tls, is_insecure, require_safe

_ADDRESS = re.compile(r"([A-Za-z0-9._-]+):([1-9][0-9]{0,4})")
_EXAMPLE = "--servers 10.0.0.1:8900 --workers 10.0.0.1:8800,10.0.0.2:8800"


def hosts_of(
    servers: str | None,
    workers: str | None,
    coordinators: str | None,
    host: str | None,
    counts: Mapping[str, int | None],
) -> Hosts | None:
    """Where the roles are; None if no addresses of workers say that they are on several hosts.

    Args:
        servers, workers, coordinators, host: of the command line.
        counts: how many of a kind there are to be, by its option: `--worker_num`; None where that is not known.

    Raises:
        ConfigError: they can't be a job's addresses.
    """
    if workers is None:
        for name, value in (("--coordinators", coordinators), ("--host", host)):
            if value is not None:
                raise ConfigError(
                    f"{name} is of a job on several hosts, whose workers have addresses too. Received: {value} without "
                    f"--workers. Name them all, as in {_EXAMPLE}, or leave it out."
                )
        return None
    if workers.isdecimal():
        raise ConfigError(
            f"--workers must be addresses, as in {_EXAMPLE}. Received: {workers}. How many workers there are is "
            "--worker_num."
        )
    if servers is None:
        raise ConfigError(
            f"A job on several hosts has its servers' addresses too. Received: --workers {workers} without --servers. "
            f"Name them, as in {_EXAMPLE}."
        )
    given = {"--servers": _addresses("--servers", servers), "--workers": _addresses("--workers", workers)}
    given["--coordinators"] = _addresses("--coordinators", coordinators) if coordinators else ()
    for option, addresses in given.items():
        wanted = counts.get(f"{option[:-1]}_num")
        if wanted not in (None, len(addresses)):
            raise ConfigError(
                f"{option} must name one address for each. Received: {len(addresses)} of {option[:-1]}_num {wanted}. "
                "The number may be left out."
            )
    if len(given["--coordinators"]) > 1:
        raise ConfigError(f"A job has one coordinator, or none. Received: --coordinators {coordinators}.")
    everyone = [each for addresses in given.values() for each in addresses]
    twice = [address for address, count in Counter(everyone).items() if count > 1]
    if twice:
        raise ConfigError(
            f"Every role has an address of its own, and so each worker a port of its own. Received: {twice[0]} twice."
        )
    found = Hosts(given["--servers"], given["--workers"], given["--coordinators"], host or "")
    return Hosts(found.servers, found.workers, found.coordinators, _here(found, host, _resolved(found)))


def numeric(hosts: Hosts) -> Hosts:
    """The same by the hosts' numbers, which is all that Paddle's servers take; but for the coordinators, whose
    certificates may have their names."""
    found = _resolved(hosts)

    def each(addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{found[host]}:{port}" for host, port in map(split, addresses))

    return Hosts(each(hosts.servers), each(hosts.workers), hosts.coordinators, found[hosts.here])


def require_usable(hosts: Hosts) -> None:
    """ConfigError if a role of this host can't listen at its address."""
    for what, address in hosts.listened.items():
        error = _bind(*split(address))
        if error is not None:
            raise ConfigError(
                f"Where something of this host listens must be free before the job starts: {what}. Received: "
                f"{address}, which can't be bound ({error.strerror}). Name another port, on every host, or end who has "
                "it."
            )


def require_safe_link(hosts: Hosts, config: Config, insecure: bool) -> None:
    """ConfigError if what the launchers tell each other could be read by others, and nobody has said that it may."""
    tls = Tls.of(config.tls, hosts.here)
    if tls is not None and hosts.here not in (names := tls.check()):
        raise ConfigError(
            f"tls.cert of a host must be of its name. Received: {tls.cert}, of {', '.join(sorted(names))}, for --host "
            f"{hosts.here}. fl-rec certs DIR --hosts NAME ... makes them; {{name}} in the path stands for the host."
        )
    require_safe(hosts.workers[0], tls, insecure or is_insecure(), "the link between the hosts")


def _addresses(option: str, text: str) -> tuple[str, ...]:
    addresses = tuple(each.strip() for each in text.split(","))
    for each in addresses:
        found = _ADDRESS.fullmatch(each)
        if not (found and int(found[2]) < 65536):
            raise ConfigError(
                f"{option} must be addresses HOST:PORT with commas between them, a host's name or its IPv4 address, "
                f"and ports from 1 to 65535. Received: {each or 'an empty one'} in {text}. Write it as in {_EXAMPLE}."
            )
    return addresses


def _resolved(hosts: Hosts) -> dict[str, str]:
    """Every host's IPv4 address."""
    found: dict[str, str] = {}
    for name in hosts.names:
        try:
            found[name] = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]  # type: ignore[assignment]
        except OSError as err:
            raise ConfigError(
                f"Every host must be known to every other by its name. Received: {name}, which does not resolve here "
                f"({err.strerror}). Add it to /etc/hosts, or name its address."
            ) from err
    twice = [address for address, count in Counter(found.values()).items() if count > 1]
    if twice:
        names = " and ".join(name for name, address in found.items() if address == twice[0])
        raise ConfigError(
            f"A host is named in one way in all addresses. Received: {names}, which both are {twice[0]}. Take one."
        )
    for name, address in found.items():
        number = ipaddress.ip_address(address)
        if number.is_unspecified or number.is_multicast or address == "255.255.255.255":
            raise ConfigError(
                f"A host is named by an address of its own, at which alone it listens. Received: {name}, which is "
                f"{address} and no single host's. Name the address by which the others reach it."
            )
    loopback = [name for name, address in found.items() if address.startswith("127.")]
    if loopback and len(found) > 1:
        raise ConfigError(
            "A host must be reached by its address from all others, and a loopback one is each host's own. Received: "
            f"{loopback[0]}, which is {found[loopback[0]]} here. Name the address by which the others reach it."
        )
    return found


def _here(hosts: Hosts, host: str | None, resolved: Mapping[str, str]) -> str:
    """Which of the hosts this is."""
    mine = [name for name in hosts.names if _bind(resolved[name], 0) is None]
    if host is None:
        if len(mine) == 1:
            return mine[0]
        if not mine:
            raise ConfigError(
                f"One of the hosts must be this machine. Received: {', '.join(hosts.names)}, while this machine has "
                f"{_own_addresses()}. Mend the address that is to be this one's, on every host."
            )
        raise ConfigError(
            f"Each host must be told which one it is, unless one address alone is its own. Received: no --host, and "
            f"{' and '.join(mine)} are this machine's, which has {_own_addresses()}. Name it: --host {mine[0]}"
        )
    if host not in hosts.names:
        raise ConfigError(
            f"--host must be one of the hosts that the addresses name: {', '.join(hosts.names)}. Received: "
            f"{host or 'an empty one'}. Name the one that is this machine, or leave it out."
        )
    if host not in mine:
        raise ConfigError(
            f"--host must be this machine. Received: {host}, which is {resolved[host]}, while this machine has "
            f"{_own_addresses()}. Name the host whose command this is, or mend the address."
        )
    return host


def _bind(host: str, port: int) -> OSError | None:
    """Why nobody can listen there now; None if one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as err:
            return err
    return None


def _own_addresses() -> str:
    found: list[str] = []
    with suppress(OSError):
        for addresses in psutil.net_if_addrs().values():
            found += [each.address for each in addresses if each.family == socket.AF_INET]
    return ", ".join(found) or "none"
