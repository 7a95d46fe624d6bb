"""Which addresses need TLS, and what is said where there is none."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fl_rec.errors import ConfigError
from fl_rec.secure import INSECURE_KEY, Tls, is_insecure, is_loopback, require_safe

TLS = Tls(Path("c"), Path("k"), Path("a"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_this_machines_own(host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert is_loopback(host)
    require_safe(f"{host}:80", None, False, "the coordinator")
    assert caplog.text == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "[::]", "unknown.example", "train-1.example"])
def test_where_others_come_to(host: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str, *_: object) -> list[tuple[object, ...]]:
        if name == "unknown.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.1", "10.0.0.7")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert not is_loopback(host)
    with pytest.raises(ConfigError) as caught:
        require_safe(f"{host}:80", None, False, "the coordinator")
    assert str(caught.value) == (
        f"The coordinator needs TLS where others than this machine come to it. Received: {host}:80, and no tls.cert. "
        "Make certificates with fl-rec certs DIR and set tls.cert, tls.key and tls.ca; or say --insecure, with a bare "
        "fleetrun FL_REC_INSECURE=1, and let the network read and change what passes."
    )
    require_safe(f"{host}:80", TLS, False, "the coordinator")
    assert caplog.text == ""
    require_safe(f"{host}:80", None, True, "the coordinator")
    assert f"INSECURE: the coordinator at {host}:80 is without TLS: who is on the network reads" in caplog.text


@pytest.mark.parametrize(("value", "insecure"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, value: str | None, insecure: bool) -> None:
    monkeypatch.delenv(INSECURE_KEY, raising=False)
    if value is not None:
        monkeypatch.setenv(INSECURE_KEY, value)
    assert is_insecure() is insecure
