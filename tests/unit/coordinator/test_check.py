"""What a host needs of certificates before a job with a coordinator starts on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from fl_rec.commands import certs
from fl_rec.config import Config
from fl_rec.coordinator.check import check_files
from fl_rec.errors import ConfigError

pytest.importorskip("cryptography")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "job.yaml"
    path.write_text(
        "runner: {train_data_dir: train}\ntls: {cert: 'certs/{name}.crt', key: 'certs/{name}.key', ca: certs/ca.crt}\n"
    )
    return Config.load(path)


def test_a_host_needs_its_own_clients_certificates_alone(config: Config, tmp_path: Path) -> None:
    def refused(clients: Iterable[int], coordinator: bool = False) -> str:
        with pytest.raises(ConfigError) as caught:
            check_files(config, clients, coordinator)
        return str(caught.value).replace(f"{folder}/", "")

    folder = tmp_path / "certs"
    check_files(config, (), False)  # a server's, which has its own name's for the link
    assert "tls.cert must be a file. Received: client-1.crt." in refused([1])
    certs.create(folder, 8, ["server-0"])
    check_files(config, range(8), True)
    (folder / "coordinator.crt").unlink()
    check_files(config, range(8), False)
    assert "tls.cert must be a file. Received: coordinator.crt." in refused([], True)
    (folder / "client-7.key").unlink()  # neither the first nor the second
    assert "tls.key must be a file. Received: client-7.key." in refused(range(8))
    shutil.copy(folder / "client-6.key", folder / "client-7.key")
    assert "must be a certificate and its own key, PEM, not encrypted. Received: client-7.crt, " in refused(range(8))
    shutil.copy(folder / "client-6.crt", folder / "client-7.crt")
    assert refused(range(8)) == (
        "tls.cert of a client must be its own. Received: client-7.crt, of client-6, for client-7. fl-rec certs DIR "
        "makes one for each; {name} in the path stands for the client."
    )
