"""What a job says of what it opens to others."""

from __future__ import annotations

import pytest

from fl_rec.job.exposed import notes_of


@pytest.mark.parametrize(
    ("servers", "open_to_others"),
    [
        ("", ""),
        ("127.0.0.1:6000,127.0.0.2:6000,localhost:6001", ""),
        ("127.0.0.1:6000,192.0.2.7:6000,192.0.2.5:6000,192.0.2.7:6001", "192.0.2.5, 192.0.2.7"),
        ("0.0.0.0:6000", "0.0.0.0"),
        ("host.invalid:6000", "host.invalid"),
    ],
)
def test_addresses_that_others_reach_are_named_once(servers: str, open_to_others: str) -> None:
    said = (
        "Paddle's servers and gloo ask nobody who they are, and encrypt nothing: whoever reaches "
        f"{open_to_others} can read and change the model. Keep others away by a tunnel (docs/tunnel.md), or from the "
        "network."
    )
    assert notes_of(servers) == ([said] if open_to_others else [])
