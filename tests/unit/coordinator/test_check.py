"""What a host needs of certificates before a job with a coordinator starts on it."""

from __future__ import annotations

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
    check_files(config, ())  # a server's, which has its own name's for the link
    with pytest.raises(ConfigError, match=r"tls\.cert must be a file. Received: .*/certs/client-1\.crt"):
        check_files(config, (1,))
    certs.create(tmp_path / "certs", 2, ["server-0"])
    for each in ("coordinator", "client-0"):
        (tmp_path / "certs" / f"{each}.crt").unlink()
    check_files(config, (1,))
    check_files(config, (0, 1, 2))  # a worker without one says so itself
    (tmp_path / "certs" / "client-1.key").write_text("none")
    with pytest.raises(ConfigError, match=r"must be a certificate and its own key"):
        check_files(config, (1,))
