"""`fl-rec certs`: what it makes, for how long, who can read it, and that it overwrites nothing."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fl_rec import cli
from fl_rec.commands import certs
from fl_rec.config import TlsConfig
from fl_rec.secure import Tls


def play(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["certs", *map(str, arguments)])
    return (code, *capsys.readouterr())


def loaded(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path: Path) -> list[str]:
    return [
        str(each.value) for each in loaded(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ]


def purposes(path: Path) -> Sequence[x509.ObjectIdentifier]:
    return list(loaded(path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_what_it_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    code, said, _ = play(capsys, folder, "--clients", 2, "--hosts", "10.0.0.2", "train-1.example", "--days", 30)
    assert code == 0
    until = datetime.now(timezone.utc) + timedelta(days=30)
    whose = "coordinator, 10.0.0.2, train-1.example, 2 clients"
    assert said.startswith(f"{folder} has certificates, valid until {until:%Y-%m-%d}, of {whose}.\n")
    assert f"fl-rec certs {folder} --renew renews them all." in said
    owners = ["10.0.0.2", "ca", "client-0", "client-1", "coordinator", "train-1.example"]
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.{end}" for name in owners for end in ("crt", "key")
    ]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert names(folder / "client-1.crt") == ["client-1"]
    assert names(folder / "train-1.example.crt") == ["train-1.example"]
    here = ["localhost", "127.0.0.1", "::1"]
    assert names(folder / "coordinator.crt") == ["coordinator", *here, "10.0.0.2", "train-1.example"]
    assert purposes(folder / "client-1.crt") == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert ExtendedKeyUsageOID.SERVER_AUTH in purposes(folder / "10.0.0.2.crt")
    # The section that it shows is one, with which each party finds its own.
    section = yaml.safe_load(said[said.index("tls:") : said.index("\nGive")])["tls"]
    for name in owners[2:]:
        tls = Tls.of(TlsConfig(**{key: Path(path) for key, path in section.items()}), name)
        assert tls is not None and name in tls.check()


def test_it_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    code, _, said = play(capsys, tmp_path)
    assert code == 2
    assert f"Certificates go to a new folder, for none is overwritten. Received: {tmp_path}. Name another; or" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_new_ones_by_the_same_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    assert play(capsys, folder, "--clients", 1, "--hosts", "10.0.0.2", "--days", 3)[0] == 0
    authority, before = (folder / "ca.crt").read_bytes(), loaded(folder / "client-0.crt")
    (folder / "mine").write_text("mine")
    assert play(capsys, folder, "--renew", "--clients", 2, "--hosts", "10.0.0.3", "--days", 90)[0] == 0
    assert (folder / "ca.crt").read_bytes() == authority and (folder / "mine").read_text() == "mine"
    after = loaded(folder / "client-0.crt")
    assert after.not_valid_after_utc - before.not_valid_after_utc > timedelta(days=80)
    assert after.serial_number != before.serial_number
    assert names(folder / "client-1.crt") == ["client-1"]
    assert names(folder / "coordinator.crt")[-2:] == ["10.0.0.2", "10.0.0.3"]
    assert names(folder / "10.0.0.2.crt") == ["10.0.0.2"]
    tls = Tls(folder / "client-1.crt", folder / "client-1.key", folder / "ca.crt")
    assert tls.check() == {"client-1"}


def test_no_new_one_by_a_name_that_another_has_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certs.create(tmp_path / "certs", 1, [])
    certs.create(tmp_path / "theirs", 2, [])
    planted = tmp_path / "certs" / "client-0.crt"
    planted.write_bytes((tmp_path / "theirs" / "client-1.crt").read_bytes())
    code, _, err = play(capsys, tmp_path / "certs", "--renew")
    assert code == 2 and f"by the authority there. Received: {planted} (of another authority)." in err


def test_certificates_that_are_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    play(capsys, folder, "--clients", 3)
    numbers = {loaded(folder / f"client-{number}.crt").serial_number for number in (1, 2)}
    code, said, _ = play(capsys, folder, "--revoke", "client-1", "client-2", "--days", 30)
    until = datetime.now(timezone.utc) + timedelta(days=30)
    assert (code, said.split("\n")[0]) == (
        0,
        f"{folder}/crl.pem has 2 revoked certificates, and is valid until {until:%Y-%m-%d}.",
    )
    assert f"tls:\n  crl: {folder}/crl.pem\n" in said and (folder / "crl.pem").stat().st_mode & 0o777 == 0o600
    assert sorted(path.stem for path in folder.glob("*.crt")) == ["ca", "client-0", "coordinator"]
    assert not (folder / "client-1.key").exists()
    assert play(capsys, folder, "--renew", "--clients", 2)[0] == 0
    found = x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())
    assert {each.serial_number for each in found} == numbers
    assert found.is_signature_valid(loaded(folder / "ca.crt").public_key())  # type: ignore[arg-type]
    assert (folder / "client-1.crt").exists() and not (folder / "client-2.crt").exists()
    (folder / "foreign.crt").write_bytes(certs.Authority.new().issue("x", ["x"], until, until + timedelta(days=1))[0])
    before = (folder / "crl.pem").read_bytes()
    for name, says in (
        ("client-9", f"by the authority there, are in {folder}. Received: client-9 ("),
        ("foreign", "Received: foreign ("),
        ("coordinator", "Clients don't look whether their coordinator's certificate was revoked. Received: coord"),
    ):
        code, _, told = play(capsys, folder, "--revoke", "client-0", name)
        assert code == 2 and says in told
    assert (folder / "crl.pem").read_bytes() == before and (folder / "client-0.crt").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--renew"], "--renew takes the folder that fl-rec certs made, with ca.crt and ca.key. Received: "),
        (["--days", "4000"], "--days must end before the authority, on "),
        (["--hosts", "a b"], "--hosts takes names and addresses of hosts, without ports. Received: a b."),
        (
            ["--hosts", "10.0.0.1:80"],
            "--hosts takes names and addresses of hosts, without ports. Received: 10.0.0.1:80.",
        ),
        (["--hosts", "../x"], "Received: ../x."),
        (["--hosts", "client-3"], "Received: client-3."),
        (["--hosts", "ca"], "Received: ca."),
    ],
)
def test_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    code, _, said = play(capsys, tmp_path / "certs", *arguments)
    assert code == 2 and says in said
    assert not (tmp_path / "certs").exists()


def test_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    code, _, said = play(capsys, tmp_path / "certs")
    assert code == 2
    assert (
        "fl-rec certs needs the cryptography library. Received: none. Install it: pip install 'cryptography>=42'"
        in said
    )


def test_it_has_no_second_name_for_a_client() -> None:
    assert list(certs._parties(2, ["[::1]"])) == ["coordinator", "::1", "client-0", "client-1"]
