"""Those who play a job together: one launcher on one host, or one on each of several. No Paddle is imported here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from fl_rec import __version__
from fl_rec.config import Config
from fl_rec.config.written import KEYS
from fl_rec.coordinator.wire import channel_options
from fl_rec.job.attempts import Restarts
from fl_rec.job.hosts.messages import BEAT, LARGEST, Begin, Hello
from fl_rec.job.judge import Failure, Judge, Patience
from fl_rec.job.watch import write_failure
from fl_rec.nets.contract import locate_net
from fl_rec.plugins import path_from, told_apart
from fl_rec.runs import training_state
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.secure import Tls


class NotMet(Exception):
    """A host did not come, or could not come."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Alone:
    """All roles of a job are on this host.

    Args:
        run: its folder.
        expected: the names of the roles that are started here.
        patience: see `Patience`.
        restarts: how often the job may go on by itself; None under a bare fleetrun, where it never does.
    """

    def __init__(
        self, run: RunDirectory, expected: Sequence[str], patience: Patience, restarts: Restarts | None
    ) -> None:
        self._run, self._expected, self._patience, self._restarts = run, expected, patience, restarts

    @property
    def is_new(self) -> bool:
        """Whether the hosts of a new run have not met, so that nothing of it has begun."""
        return False

    def meet(self, epoch: int | None, note: Callable[[str], None]) -> Begin:
        """Returns when all hosts have come, with what the roles begin with.

        Args:
            epoch: of this host's newest checkpoint; None if it has none.
            note: is told of what is waited for.

        Raises:
            NotMet: not all have.
        """
        return Begin(self._run.identity, epoch, self._restarts.away if self._restarts else "")

    def judge(self, leader: psutil.Process, logs: Callable[[str], Path]) -> Judge:
        """Who judges the roles that have been started; arguments as of `watch`."""
        return Judge(self._run, self._expected, leader, self._patience, logs)

    def tell(self, failure: Failure | None) -> None:
        """Tells the others how it ended, before this host's processes have."""
        return

    def leave(self, reason: str) -> None:
        """Tells the others that this launcher ends by itself."""
        return

    def write(self, failure: Failure) -> None:
        """Writes the result of a job that has failed."""
        write_failure(self._run, failure)

    def part(self) -> None:
        """Gathers the logs when this host's processes have ended, and waits for the other hosts' end."""
        return

    def goes_on(self, failure: Failure) -> bool:
        """Whether there is to be another attempt."""
        return self._restarts is not None and self._restarts.are_left(failure)


class Linked(Alone):
    """This host and others.

    Args:
        hosts: all of them.
        hello: what this one says of itself, by whether it goes on with a run.
        resumed: whether it does at first.
        tls: of the link; None without.
    """

    def __init__(
        self,
        hosts: Hosts,
        hello: Callable[[bool], Hello],
        resumed: bool,
        tls: Tls | None,
        run: RunDirectory,
        patience: Patience,
        restarts: Restarts | None,
    ) -> None:
        super().__init__(run, hosts.roles_of(hosts.here), patience, restarts)
        self._hosts, self._hello, self._resumed, self._tls = hosts, hello, resumed, tls

    @property
    def is_new(self) -> bool:
        return not self._resumed

    @property
    def _limit(self) -> float:
        """Seconds of silence after which a host is lost: it is told within the heartbeat's time, although the last word
        was on its way, and whoever listens looks up only now and then."""
        return max(1.0, self._patience.heartbeat - 2 * BEAT)


def channel_options_of(limit: float) -> list[tuple[str, int]]:
    """gRPC's, of both sides of the link: a peer that stands still is this package's to notice, within `limit` s."""
    changed = {"grpc.max_receive_message_length": LARGEST, "grpc.max_send_message_length": LARGEST}
    changed |= dict.fromkeys(("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"), int(2000 * limit))
    return [*{**dict(channel_options()), **changed}.items()]


def hello(hosts: Hosts, config: Config, data: str, run: RunDirectory, resumed: bool) -> Hello:
    """What this host says of itself."""
    return Hello(
        __version__,
        hosts.here,
        (hosts.servers, hosts.workers, hosts.coordinators),
        settings_of(config),
        data,
        run.identity if resumed else "",
        tuple(training_state.whole(run)),
    )


def difference(hub: Hello, other: Hello) -> str:
    """What keeps a host from the hub's job; "" if nothing does."""
    if other.version != hub.version:
        return f"All hosts have one version of fl_rec. Received: {hub.version} and {other.version}. Install the same."
    if other.addresses != hub.addresses:
        return (
            "All hosts are given the same addresses, in the same order. Received: "
            f"{' '.join(map(','.join, hub.addresses))} and {' '.join(map(','.join, other.addresses))}."
        )
    names = sorted({*hub.settings, *other.settings})
    for name in names:
        ours, theirs = (each.settings.get(name, "none")[:200] for each in (hub, other))
        if ours != theirs:
            return f"All hosts have the same configuration and code, at any path. Received: {name}={ours} and {theirs}."
    if other.data != hub.data:
        return (
            "All hosts have shards of one data set, and the manifest.json that goes with them. Received: checksums "
            f"{hub.data[:12] or 'none'} and {other.data[:12] or 'none'}. Take all from the same fl-rec partition."
        )
    if bool(other.identity) != bool(hub.identity):
        which = [f"{each.host} {'resumes' if each.identity else 'begins'} one" for each in (hub, other)]
        return f"All hosts begin a run, or resume it. Received: {' and '.join(which)}."
    if other.identity != hub.identity:
        return f"All hosts resume their part of one run. Received: runs {hub.identity[:8]} and {other.identity[:8]}."
    return ""


def settings_of(config: Config) -> dict[str, str]:
    """The keys that all hosts have alike, as JSON: paths are a host's own, and of a file in another value its name; but
    code is the same, the net's and what else is named as `file.py:Name`."""
    found = {name: config[name] for name, key in KEYS.items() if "Path" not in str(key.annotation)}
    found["runner.model_path"] = ":".join(map(str, locate_net(config.runner.model_path)))
    folder = config.yaml_path.parent
    return {name: json.dumps(_placeless(value, folder), sort_keys=True) for name, value in found.items()}


def _placeless(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {name: _placeless(each, folder) for name, each in value.items()}
    if isinstance(value, list):
        return [_placeless(each, folder) for each in value]
    if not isinstance(value, str):
        return value
    source, _, name = value.rpartition(":")
    if source.endswith(".py") and (path := path_from(folder, source)).is_file():
        return f"{told_apart(path)}:{name}"
    return Path(value).name if os.sep in value else value


def first_of(names: Sequence[str]) -> str:
    """Who stands for a host's roles: a worker if there is one."""
    return next((name for name in names if name.startswith("worker")), names[0])
