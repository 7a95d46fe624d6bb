"""What a job says of what it opens to others."""

from __future__ import annotations

import pytest

from fl_rec.job.exposed import notes_of


@pytest.mark.parametrize(
    ("servers", "open_to_others"),
    [
        (None, ""),
        ("", ""),
        ("127.0.0.1:6000,127.0.0.2:6000,localhost:6001", ""),
        ("127.0.0.1:6000,192.0.2.7:6000,192.0.2.5:6000,192.0.2.7:6001", "192.0.2.5, 192.0.2.7"),
        ("0.0.0.0:6000", "0.0.0.0"),
        ("host.invalid:6000", "host.invalid"),
    ],
)
def test_addresses_that_others_reach_are_named_once(servers: str | None, open_to_others: str) -> None:
    said = (
        "Paddle's servers and gloo ask nobody who they are, and encrypt nothing: who is on the network of "
        f"{open_to_others} can read and change the model. Let that be a tunnel's, as docs/tunnel.md has it."
    )
    for given in ((servers, None), ("127.0.0.1:1", servers), (servers, servers)):
        assert notes_of(*given) == ([said] if open_to_others else [])
