"""Which addresses others can reach, and what is asked of those who listen there."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from fl_rec.errors import ConfigError

if TYPE_CHECKING:
    from fl_rec.secure.tls import Tls

log = logging.getLogger(__name__)

# Set by `--insecure` in every process of a job; with a bare fleetrun by the user.
INSECURE_KEY = "FL_REC_INSECURE"


def is_insecure() -> bool:
    """Whether the user has said that what others could read may pass."""
    return os.environ.get(INSECURE_KEY, "") not in ("", "0")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own alone: each address that it stands for."""
    host = host.strip("[]")
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in found)


def require_safe(address: str, tls: Tls | None, insecure: bool, what: str) -> None:
    """Has those who listen or connect where others may listen too do so with TLS; without, it is said aloud.

    Args:
        address: "host:port".
        tls: None without.
        insecure: whether the user has said so, by `--insecure` or FL_REC_INSECURE=1.
        what: what listens there, such as "the coordinator".

    Raises:
        ConfigError: others could read it, and nobody said that they may.
    """
    if tls is not None or is_loopback(address.rpartition(":")[0]):
        return
    if not insecure:
        raise ConfigError(
            f"{what[0].upper()}{what[1:]} needs TLS where others than this machine come to it. Received: {address}, "
            "and no tls.cert. Make certificates with fl-rec certs DIR and set tls.cert, tls.key and tls.ca; or say "
            f"--insecure, with a bare fleetrun {INSECURE_KEY}=1, and let the network read and change what passes."
        )
    log.warning(
        "INSECURE: %s at %s is without TLS: who is on the network reads reports and tokens, and can change them. "
        "fl-rec certs DIR makes what tls.cert, tls.key and tls.ca name.",
        what,
        address,
    )
