"""The addresses of a job on several hosts: what is refused before any process starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.job.hosts import addresses
from fl_rec.job.launch import LaunchOptions
from fl_rec.runs.hosts import Hosts, said

# Of the documentation; resolved as here.
NUMBERS = {"north": "192.0.2.1", "south": "192.0.2.2", "alias": "192.0.2.1", "here": "127.0.0.1"}
NUMBERS |= {each: each for each in ("0.0.0.0", "224.0.0.1", "255.255.255.255")}
SERVERS, WORKERS = "north:8900,south:8900", "north:8800,south:8800,south:8801"


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names as of NUMBERS, of which `north` is this machine."""

    def resolve(name: str, *_arguments: object) -> list[tuple]:
        if name not in NUMBERS:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (NUMBERS[name], 0))]

    def bind(host: str, port: int) -> OSError | None:
        return None if NUMBERS.get(host, host) == NUMBERS["north"] else OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(addresses, "_bind", bind)


def found(
    servers: str | None = SERVERS, workers: str | None = WORKERS, coordinators: str | None = None,
    host: str | None = None, **counts: int,
) -> Hosts | None:  # fmt: skip
    return addresses.hosts_of(servers, workers, coordinators, host, {f"--{name}": n for name, n in counts.items()})


def test_who_is_where() -> None:
    hosts = found(coordinators="south:8700")
    assert hosts is not None and (hosts.here, hosts.hub, hosts.is_hub) == ("north", "north", True)
    assert hosts.names == ["north", "south"]
    assert hosts.roles_of("south") == ["server.1", "worker.1", "worker.2", "coordinator.0"]
    assert (hosts.workers_of(), hosts.workers_of("south"), hosts.has_coordinator) == ([0], [1, 2], False)
    assert hosts.number_here("worker.0") == "worker.0"
    assert Hosts(hosts.servers, hosts.workers, hosts.coordinators, "south").number_here("worker.2") == "worker.1"
    assert hosts.rendezvous == "north:8901"
    assert list(hosts.listened.values()) == ["north:8900", "north:8800", "north:8901"]
    numbers = addresses.numeric(hosts)
    assert (numbers.servers, numbers.here) == (("192.0.2.1:8900", "192.0.2.2:8900"), "192.0.2.1")
    assert numbers.coordinators == ("south:8700",), "whose certificate has its name"


def test_the_store_is_at_a_port_that_is_no_others() -> None:
    hosts = found("north:8900,north:8901", "north:8800,south:8800", "north:8902")
    assert hosts is not None and hosts.rendezvous == "north:8903"


def test_without_workers_all_is_on_one_host() -> None:
    assert found(servers="north:8900", workers=None) is None and found(servers=None, workers=None) is None


def test_roles_in_words() -> None:
    names = [*(f"worker.{k}" for k in (0, 1, 2, 3, 5, 7, 8)), "server.1", "coordinator.0"]
    assert said(names) == "server.1, worker.0 to worker.3, worker.5, worker.7, worker.8, coordinator.0"


def test_as_fleetrun_tells_a_role() -> None:
    env = {"PADDLE_PSERVERS_IP_PORT_LIST": "192.0.2.1:8900", "PADDLE_TRAINER_ENDPOINTS": "192.0.2.1:1,192.0.2.2:1"}
    env |= {"PADDLE_COORDINATOR_ENDPOINTS": "", "POD_IP": "192.0.2.2"}
    hosts = Hosts.from_environment(env)
    assert hosts is not None and (hosts.here, hosts.coordinators) == ("192.0.2.2", ())
    alone = {"PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:1,127.0.0.1:2"}  # with servers at this machine's other address
    assert Hosts.from_environment({**env, **alone}) is None
    assert Hosts.from_environment({**env, "PADDLE_TRAINER_ENDPOINTS": "192.0.2.1:1,192.0.2.1:2"}) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": None, "host": "north"}, "--host is of a job on several hosts, .* Received: north without --work"),
        ({"workers": None, "coordinators": "a:1"}, "--coordinators is of a job .* Received: a:1 without --workers"),
        ({"servers": None}, "has its servers' addresses too. Received: --workers north:8800,.* without --servers"),
        ({"workers": "3"}, "Received: 3. How many workers there are is --worker_num."),
        ({"workers": "north:8800,south"}, "--workers must be addresses HOST:PORT .* Received: south in north:8800,s"),
        ({"workers": "north:8800,"}, "Received: an empty one in north:8800,"),
        ({"servers": "north:70000"}, "ports from 1 to 65535. Received: north:70000"),
        ({"worker_num": 2}, "--workers must name one address for each. Received: 3 of --worker_num 2"),
        ({"coordinators": "north:1,south:1"}, "one coordinator, or none. Received: --coordinators north:1,south:1"),
        ({"workers": "north:8900,south:8800"}, "an address of its own, .* Received: north:8900 twice"),
        ({"workers": "north:8800,west:8800"}, "known to every other .* Received: west, which does not resolve here"),
        ({"workers": "north:8800,alias:8801"}, "named in one way .* Received: north and alias, which both are 192.0.2"),
        ({"workers": "north:8800,here:8800"}, "reached by its address .* Received: here, which is 127.0.0.1 here"),
        (
            {"servers": "0.0.0.0:1"},
            "of its own, .* Received: 0.0.0.0, which is 0.0.0.0 and no single host's",
        ),
        ({"servers": "224.0.0.1:1"}, "Received: 224.0.0.1, which is"),
        ({"servers": "255.255.255.255:1"}, "Received: 255.255.255.255, which is"),
        ({"servers": "north:08900"}, "ports from 1 to 65535. Received: north:08900"),
        ({"servers": "north:٨٩٠٠"}, "ports from 1 to 65535. Received: north:٨٩٠٠"),
        ({"host": "west"}, "--host must be one of the hosts .*: north, south. Received: west"),
        ({"host": "south"}, "--host must be this machine. Received: south, which is 192.0.2.2, while this machine has"),
        ({"servers": "south:1", "workers": "south:2"}, "One of the hosts must be this machine. Received: south, while"),
    ],
)
def test_what_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        found(**given)


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = found()
    assert hosts is not None
    addresses.require_usable(hosts)
    taken = OSError(98, "Address already in use")
    monkeypatch.setattr(addresses, "_bind", lambda _host, port: taken if port == 8800 else None)
    with pytest.raises(ConfigError, match=r"must be free .*: the link .*Received: north:8800, which can't be bound"):
        addresses.require_usable(hosts)


def test_a_job_is_placed() -> None:
    options = LaunchOptions(Path("job.yaml"), servers=SERVERS, workers=WORKERS)
    placed = options.placed()
    assert placed.hosts == found()
    assert (placed.worker_num, placed.server_num, placed.coordinator_num) == (3, 2, 0)
    alone = LaunchOptions(Path("job.yaml"), servers="north:1,south:1", server_num=2).placed()
    assert (alone.hosts, alone.worker_num, alone.server_num) == (None, None, 2)


def test_the_link_is_safe_or_said_not_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("runner: {train_data_dir: .}")
    hosts = found()
    assert hosts is not None
    with pytest.raises(ConfigError, match="The link between the hosts needs TLS .* Received: north:8800, and no tls"):
        addresses.require_safe_link(hosts, Config.load(path), insecure=False)
    addresses.require_safe_link(hosts, Config.load(path), insecure=True)
    assert "INSECURE: the link between the hosts at north:8800 is without TLS" in caplog.text
