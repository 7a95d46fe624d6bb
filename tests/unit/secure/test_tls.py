"""A party's three files: what is taken, and what is said of what is not, before any connection."""

from __future__ import annotations

import shutil
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from fl_rec.commands.certs import create, revoke
from fl_rec.config import TlsConfig
from fl_rec.errors import ConfigError, DataError
from fl_rec.secure import Tls, names_of, refuse_revoked, why_refused
from tests.unit.secure.certificates import make, tls_of


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tls"))


def test_the_files_of_a_party(certs: Path) -> None:
    config = TlsConfig(cert=certs / "{name}.crt", key=certs / "{name}.key", ca=certs / "ca.crt")
    assert Tls.of(config, "client-2") == tls_of(certs, "client-2")
    assert Tls.of(TlsConfig(), "client-2") is None
    assert tls_of(certs, "client-2").check() == {"client-2"}
    assert tls_of(certs, "10.1.2.3").check() == {"10.1.2.3"}
    assert {"coordinator", "localhost", "127.0.0.1", "10.1.2.3"} < tls_of(certs, "coordinator").check()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("expired", "has expired: fl-rec certs DIR --renew makes new ones."),
        ("early", "is not valid yet: look at the clocks of both machines, or wait until it is."),
        ("foreign", "is of another authority than tls.ca: give both sides certificates of one fl-rec certs DIR."),
        ("ca", "is not made for this: a client's can't serve, and an authority's is for signing alone."),
    ],
)
def test_one_that_will_not_do(certs: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tls_of(certs, name).check()
    assert str(caught.value) == f"tls.cert must do. Received: {certs / name}.crt, which {says}"


def test_a_list_of_revoked_certificates(certs: Path, tmp_path: Path) -> None:
    def refused(crl: Path, name: str = "client-0") -> str:
        with pytest.raises(ConfigError) as caught:
            replace(tls_of(certs, name), crl=crl).check()
        return str(caught.value)

    folder, theirs, crl = tmp_path / "certs", tmp_path / "theirs", tmp_path / "certs" / "crl.pem"
    shutil.copytree(certs, folder)
    create(theirs, 1, [])
    revoke(theirs, ["client-0"])
    revoke(folder, ["client-0"])
    # A second one keeps who is in it, and each authority has its own.
    assert revoke(folder, ["client-1"]) == 2
    both = tmp_path / "both"
    both.write_bytes((theirs / "crl.pem").read_bytes() + crl.read_bytes())
    for each in (crl, both):
        assert "client-0.crt, which has been revoked: fl-rec certs DIR --renew, with" in refused(each)
        assert replace(tls_of(certs, "client-2"), crl=each).check() == {"client-2"}
    assert "can't be judged: tls.crl has no list of its authority: fl-rec certs" in refused(theirs / "crl.pem")
    revoke(folder, [], days=-1)
    assert "can't be judged: tls.crl has expired: fl-rec certs DIR --revoke writes a new one." in refused(crl)
    rule = "tls.crl must be a list of revoked certificates, PEM. Received: "
    assert f"{rule}{certs / 'ca.crt'} (certificates, and no list)." in refused(certs / "ca.crt")
    both.write_bytes((theirs / "ca.crt").read_bytes() + (theirs / "crl.pem").read_bytes())
    assert f"{rule}{both} (certificates too)." in refused(both), "an authority's would be trusted"
    both.write_text("nonsense")
    assert f"{rule}{both} (" in refused(both)
    assert f"{rule}{tmp_path / 'none'} (" in refused(tmp_path / "none")


def test_a_list_where_grpc_looks_at_certificates(certs: Path, tmp_path: Path) -> None:
    shown = {"x509_pem_cert": [(certs / "client-0.crt").read_bytes()], "x509_common_name": [b"client-0"]}
    folder, theirs = tmp_path / "certs", tmp_path / "theirs"
    shutil.copytree(certs, folder)
    create(theirs, 1, [])
    for where, names, days, says in (
        (folder, [], 1, ""),
        (folder, [], -1, "tls.crl has expired"),
        (theirs, [], 1, "tls.crl has no list of its authority"),
        (folder, ["client-0"], 1, "which has been revoked"),
    ):
        revoke(where, names, days)
        tls = replace(tls_of(certs, "coordinator"), crl=where / "crl.pem")
        with pytest.raises(DataError, match=f"Received: one of client-0, .*{says}") if says else nullcontext():
            refuse_revoked(tls, shown)


def test_one_that_ends_soon(certs: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert tls_of(certs, "soon").check() == {"client-0"}
    assert "soon.crt expires on " in caplog.text and "fl-rec certs DIR --renew makes a new one." in caplog.text
    caplog.clear()
    tls_of(certs, "soon").check()
    assert caplog.text == "", "it is told once"
    tls_of(certs, "client-0").check()
    assert caplog.text == ""


def test_files_that_are_none(certs: Path, tmp_path: Path) -> None:
    good, nonsense = tls_of(certs, "client-0"), tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    for tls, says in (
        (Tls(certs / "no.crt", good.key, good.ca), f"tls.cert must be a file. Received: {certs / 'no.crt'}. "),
        (Tls(good.cert, certs / "no.key", good.ca), f"tls.key must be a file. Received: {certs / 'no.key'}. "),
        (Tls(good.cert, good.key, certs / "no"), f"tls.ca must be a file. Received: {certs / 'no'}. "),
        (Tls(good.cert, certs / "client-1.key", good.ca), "must be a certificate and its own key, PEM, not encrypted"),
        (Tls(nonsense, good.key, good.ca), "must be a certificate and its own key"),
        (Tls(good.cert, good.key, nonsense), f"tls.ca must be certificates, PEM. Received: {nonsense} ("),
    ):
        with pytest.raises(ConfigError) as caught:
            tls.check()
        assert says in str(caught.value)


def test_a_key_that_others_can_read(certs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "key"
    key.write_bytes((certs / "client-0.key").read_bytes())
    key.chmod(0o640)
    Tls(certs / "client-0.crt", key, certs / "ca.crt").check()
    assert f"{key} can be read by others than its owner: chmod 600 it" in caplog.text
    assert stat.S_IMODE((certs / "client-0.key").stat().st_mode) == 0o600


def test_names_as_grpc_tells_them() -> None:
    found = {"x509_common_name": [b"client-3"], "x509_subject_alternative_name": [b"client-3", b"10.0.0.1"]}
    assert names_of(found) == {"client-3", "10.0.0.1"}
    assert names_of({"transport_security_type": [b"insecure"]}) == set()


def test_nobody_listens(certs: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    assert why_refused(endpoint, tls_of(certs, "client-0")) == why_refused(endpoint, None) == ""
    assert "which has expired" in (why_refused(endpoint, tls_of(certs, "expired")) or "")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        assert [why_refused(endpoint, tls, 0.1) for tls in (None, tls_of(certs, "client-0"))] == [None, None]


def test_who_closes_without_a_word_has_not_refused_a_certificate(certs: Path) -> None:
    """As a door does to an address that comes too often: a true client tries again."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        found = pool.submit(why_refused, f"127.0.0.1:{server.getsockname()[1]}", tls_of(certs, "client-0"))
        connection, _ = server.accept()
        connection.recv(1 << 16)  # or it would be a reset
        connection.close()
        assert found.result(30) == ""
