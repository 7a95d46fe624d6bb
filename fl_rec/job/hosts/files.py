"""What workers need to reach the coordinator, from its host to theirs. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from fl_rec.files import atomic_write
from fl_rec.runs.directory import RunDirectory

_ADDRESS = "address.json"


def read(run: RunDirectory, workers: Sequence[str]) -> dict[str, bytes]:
    """By its path in RUN/coordinator, what these workers need; nothing before the coordinator has written it."""
    found = {}
    for name in (_ADDRESS,):
        with suppress(OSError):
            found[name] = (run.coordinator / name).read_bytes()
    return found if workers else {}


def write(run: RunDirectory, given: Mapping[str, bytes]) -> None:
    """Writes what another host has told, unless it is there. OSError."""
    for name, content in given.items():
        path = run.coordinator / name
        if name == _ADDRESS and not (path.is_file() and path.read_bytes() == content):
            with atomic_write(path, 0o600) as file:
                file.write(content)
