"""What a job opens to others than this machine, and nobody guards. No Paddle is imported here."""

from __future__ import annotations

from fl_rec.secure import is_loopback


def notes_of(servers: str) -> list[str]:
    """What the user should know of the servers' addresses.

    Args:
        servers: "host:port,..."; "" if the system chooses, which takes loopback ones.
    """
    hosts = sorted({each.rpartition(":")[0] for each in servers.split(",")} - {""})
    found = [host for host in hosts if not is_loopback(host)]
    if not found:
        return []
    return [
        f"Paddle's servers and gloo ask nobody who they are, and encrypt nothing: whoever reaches {', '.join(found)} "
        "can read and change the model. Keep others away by a tunnel (docs/tunnel.md), or from the network."
    ]
