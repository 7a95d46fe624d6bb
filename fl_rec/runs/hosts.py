"""Where the roles of a job are that goes on on several hosts. No Paddle is imported here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fl_rec.runs.roles import host_of


@dataclass(frozen=True)
class Hosts:
    """The addresses of a job's roles, each "host:port", in the order of their numbers.

    A worker's port is but a part of its name: the first one's is where the launchers talk to each other.

    Attributes:
        here: this host, as the addresses name it.
    """

    servers: tuple[str, ...]
    workers: tuple[str, ...]
    coordinators: tuple[str, ...]
    here: str

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Hosts | None:
        """As fleetrun has told a role of them; None of one host, whose workers have addresses of the loopback one."""
        names = ("PADDLE_PSERVERS_IP_PORT_LIST", "PADDLE_TRAINER_ENDPOINTS", "PADDLE_COORDINATOR_ENDPOINTS")
        servers, workers, coordinators = (tuple(filter(None, env.get(name, "").split(","))) for name in names)
        found = cls(servers, workers, coordinators, env.get("POD_IP", ""))
        alone = not (workers and servers) or any(each.startswith("127.") for each in workers)
        return None if alone or len(found.names) == 1 else found

    @property
    def names(self) -> list[str]:
        """Of all hosts, the hub first."""
        return list(dict.fromkeys(map(host_of, (*self.workers, *self.servers, *self.coordinators))))

    @property
    def hub(self) -> str:
        """The first worker's host, whose launcher judges the whole job."""
        return host_of(self.workers[0])

    @property
    def is_hub(self) -> bool:
        return self.here == self.hub

    @property
    def rendezvous(self) -> str:
        """Where the workers meet, gloo's store: at the first server's host, the first port after its own that is no
        other's. It is not the system's choice, since every host must come to the same."""
        host, port = split(self.servers[0])
        given = {*self.servers, *self.workers, *self.coordinators}
        while f"{host}:{port}" in given:
            port = port % 65535 + 1
        return f"{host}:{port}"

    @property
    def roles(self) -> dict[str, str]:
        """Every role's address by its name, servers first."""
        kinds = (("server", self.servers), ("worker", self.workers), ("coordinator", self.coordinators))
        return {f"{kind}.{index}": each for kind, addresses in kinds for index, each in enumerate(addresses)}

    def roles_of(self, host: str) -> list[str]:
        """The names of a host's roles."""
        return [name for name, address in self.roles.items() if host_of(address) == host]

    def workers_of(self, host: str | None = None) -> list[int]:
        """The numbers of a host's workers; None: of this one's."""
        return [number for number, address in enumerate(self.workers) if host_of(address) == (host or self.here)]

    @property
    def has_coordinator(self) -> bool:
        """Whether the coordinator is on this host."""
        return any(host_of(address) == self.here for address in self.coordinators)

    def number_here(self, role: str) -> str:
        """A role's name as if there were no others than this host's: so fleetrun names its log."""
        kind = role.partition(".")[0]
        return f"{kind}.{[each for each in self.roles_of(self.here) if each.startswith(kind)].index(role)}"

    @property
    def listened(self) -> dict[str, str]:
        """What is listened at on this host, by what does so."""
        found = {name: each for name, each in self.roles.items() if not name.startswith("worker")}
        found |= {"the link between the hosts, at the first worker's address": self.workers[0]}
        found |= {"the store in which workers find each other": self.rendezvous}
        return {name: each for name, each in found.items() if host_of(each) == self.here}


def split(address: str) -> tuple[str, int]:
    """ "host:port" as both."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def said(roles: Sequence[str]) -> str:
    """A host's roles: "server.1, worker.4 to worker.9"."""
    parts = []
    for kind in ("server", "worker", "coordinator"):
        numbers = [int(name.rpartition(".")[2]) for name in roles if name.startswith(kind)]
        while numbers:
            count = next((k for k in range(1, len(numbers)) if numbers[k] != numbers[0] + k), len(numbers))
            first, last = f"{kind}.{numbers[0]}", f"{kind}.{numbers[count - 1]}"
            parts += [f"{first} to {last}"] if count > 2 else [first, last][:count]
            numbers = numbers[count:]
    return ", ".join(parts)
