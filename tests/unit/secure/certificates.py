"""Certificates for tests: good ones, and those that will not do."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from fl_rec.commands.certs import Authority, create
from fl_rec.secure import Tls

DAY = timedelta(days=1)


def make(folder: Path) -> Path:
    """`create`s for three clients; and, for client 0: `foreign`, of another authority, `expired` and `early`."""
    certs, now = folder / "certs", datetime.now(timezone.utc)
    create(certs, 3, ["10.1.2.3"])
    ours, other = Authority.load(certs), Authority.new()
    for name, authority, begins, ends in (
        ("foreign", other, now - DAY, now + 30 * DAY),
        ("expired", ours, now - 2 * DAY, now - DAY),
        ("early", ours, now + DAY, now + 30 * DAY),
    ):
        write(certs, name, authority.issue("client-0", ["client-0"], begins, ends))
        write(certs, f"{name}-server", authority.issue("coordinator", ["127.0.0.1"], begins, ends))
    write(certs, "elsewhere", ours.issue("coordinator", ["10.9.9.9"], now - DAY, now + 30 * DAY))
    write(certs, "soon", ours.issue("client-0", ["client-0"], now - DAY, now + DAY))
    return certs


def write(certs: Path, name: str, pair: tuple[bytes, bytes]) -> None:
    for suffix, content in zip(("crt", "key"), pair):
        (certs / f"{name}.{suffix}").write_bytes(content)
        (certs / f"{name}.{suffix}").chmod(0o600)


def tls_of(certs: Path, name: str) -> Tls:
    return Tls(certs / f"{name}.crt", certs / f"{name}.key", certs / "ca.crt")
