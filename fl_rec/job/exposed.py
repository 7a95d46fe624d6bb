"""What a job opens to others than this machine, and nobody guards. No Paddle is imported here."""

from __future__ import annotations

from fl_rec.secure import is_loopback


def notes_of(*addresses: str | None) -> list[str]:
    """What the user should know of the addresses of servers and workers.

    Args:
        addresses: "host:port,..." of each kind; None or "" if the system chooses, which takes loopback ones.
    """
    hosts = sorted({each.rpartition(":")[0] for kind in addresses for each in (kind or "").split(",")} - {""})
    found = [host for host in hosts if not is_loopback(host)]
    if not found:
        return []
    return [
        "Paddle's servers and gloo ask nobody who they are, and encrypt nothing: who is on the network of "
        f"{', '.join(found)} can read and change the model. Let that be a tunnel's, as docs/tunnel.md has it."
    ]
