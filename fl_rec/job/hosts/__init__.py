"""A job on several hosts: their addresses, and the link between their launchers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fl_rec.job.attempts import Restarts
from fl_rec.job.check import Job
from fl_rec.job.hosts.company import Alone, Linked, hello
from fl_rec.job.judge import Patience
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.secure import Tls


def company_of(
    hosts: Hosts | None, expected: Sequence[str], job: Job, run: RunDirectory, resumed: bool, restarts: Restarts
) -> Alone:
    """Those with whom a launcher plays a job.

    Args:
        hosts: where the roles are; None if all are here.
        expected: the roles' names, if all are here.
        resumed: whether the run is gone on with.
    """
    patience = Patience.of(job.config)
    if hosts is None:
        return Alone(run, expected, patience, restarts)
    own = partial(hello, hosts, job.config, job.checksum, run)
    return linked(hosts, own, resumed, Tls.of(job.config.tls, hosts.here), run, patience, restarts)


def linked(hosts: Hosts, *arguments: Any) -> Linked:
    """This host among others; arguments as of `Linked`."""
    # gRPC takes a while to import.
    from fl_rec.job.hosts.branch import Branch
    from fl_rec.job.hosts.hub import Hub

    return Hub(hosts, *arguments) if hosts.is_hub else Branch(hosts, *arguments)
