"""`fl-rec doctor`: what it finds, what it advises, and its exit code."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fl_rec import cli, environment
from fl_rec.commands import doctor
from fl_rec.commands.doctor import Found

Check = Callable[[], Found]


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with all that a job needs; Paddle is not imported."""
    monkeypatch.setattr(environment, "probe", lambda: None)
    for name in (*doctor._PROXIES, *(each.upper() for each in doctor._PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("sound")
def test_a_machine_that_can_train(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines if not line.startswith(" ")][:-2] == list(doctor.CHECKS)
    assert lines[-1].startswith("This machine can train: fl-rec run")
    assert max(len(line) for line in lines if "/" not in line) <= 80, "a path stays whole"


@pytest.mark.usefixtures("sound")
def test_a_machine_that_can_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "probe", lambda: "ImportError: no core")
    monkeypatch.setitem(doctor.CHECKS, "disk", lambda: Found("1 kB in /", "Free some.", True))
    monkeypatch.setitem(doctor.CHECKS, "proxies", lambda: Found("some", "Do this."))
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "PS core     FAILS  " in said and "ImportError: no core" in said
    assert "disk        FAILS  1 kB in /\n" + " " * 19 + "-> Free some.\n" in said
    assert "proxies     note   some\n" in said
    assert said.endswith("A job would fail here: 2 things to mend, marked FAILS.\n")


def found(monkeypatch: pytest.MonkeyPatch, check: Check, **replaced: Any) -> Found:
    for name, value in replaced.items():
        monkeypatch.setattr(f"fl_rec.commands.doctor.{name.replace('__', '.')}", value)
    return check()


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("check", "replaced", "fatal", "says", "remedy"),
    [
        (doctor.python, {"sys": SimpleNamespace(version="3.9.1 x", version_info=(3, 9, 1), executable="/py")}, True,
         "3.9.1, /py", "Install Python 3.10 to 3.13"),
        (doctor.python, {"sys": SimpleNamespace(version="3.12.1 x", version_info=(3, 12, 1), executable="/py",
                                                platform="darwin")}, True, "on darwin", "Use Linux"),
        (doctor.paddle, {"_version": lambda _: None}, True, "not installed", "pip install paddlepaddle==3.0.0"),
        (doctor.paddle, {"_version": lambda _: "3.2.0"}, False, "3.2.0", "pip install paddlepaddle==3.0.0"),
        (doctor.paddle, {"_version": lambda _: "2.6.2"}, False, "2.6.2", ""),
        (doctor.ps_core, {"environment__probe": lambda: "Illegal instruction", "_processor": lambda: "flags: sse"},
         True, "Illegal instruction", "a processor with AVX"),
        (doctor.packages, {"_requirements": lambda: [("protobuf", ">=4.21,<7"), ("numpy", ">=1.23")],
                           "_version": {"protobuf": "7.1.0", "numpy": "1.23"}.get}, True,
         "not as fl_rec needs them: 'protobuf>=4.21,<7'", "pip install 'protobuf>=4.21,<7'"),
        (doctor.packages, {"_requirements": lambda: [("protobuf", ">=4.21,<7"), ("numpy", ">=1.23")],
                           "_version": {"protobuf": "4.21.12", "numpy": "1.23"}.get}, False,
         "protobuf 4.21.12, and 1 others", ""),
        (doctor.packages, {"_requirements": lambda: [("psutil", ">=6")], "_version": {}.get}, True, "'psutil>=6'",
         "pip install"),
        (doctor.compiled, {"kernels__cache_folder": lambda: None}, False, "can't be kept", "export NUMBA_CACHE_DIR="),
        (doctor.ports, {"socket": SimpleNamespace(create_server=refuse)}, True, "No space left",
         "allow 127.0.0.1"),
        (doctor.ports, {"_read": lambda *_: "32768\t33000\n"}, False, "ports 32768 to 33000", "sysctl -w net.ipv4"),
        (doctor.memory, {"_left_to_the_group": lambda: 5 << 20}, True, "5 MB available", "fewer workers"),
        (doctor.memory, {"_left_to_the_group": lambda: 2 << 30}, False, "2 GB available", "fewer workers"),
        (doctor.disk, {"tempfile__TemporaryFile": refuse}, True, "No space left on device", "$TMPDIR"),
        (doctor.disk, {"shutil__disk_usage": lambda _: SimpleNamespace(free=50 << 20)}, True, "52 MB in", "fl-rec ru"),
        (doctor.disk, {"shutil__disk_usage": lambda _: SimpleNamespace(free=1 << 30)}, False, "1 GB in", "fl-rec ru"),
        (doctor.files, {"resource__getrlimit": lambda _: (256, 4096)}, False, "256 open files", "ulimit -n 1024"),
        (doctor.words, {"locale__getpreferredencoding": lambda _: "ANSI_X3.4-1968"}, False, "ANSI_X3.4-1968",
         "export PYTHONUTF8=1"),
        (doctor.variables, {"roles__of_paddle": lambda: ["PADDLE_PORT", "POD_IP"]}, False, "PADDLE_PORT, POD_IP",
         "unset PADDLE_PORT POD_IP"),
    ],
)  # fmt: skip
def test_what_is_found(
    check: Check,
    replaced: dict[str, Any],
    fatal: bool,
    says: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = found(monkeypatch, check, **replaced)
    assert told.fatal == fatal and says in told.what
    assert remedy in told.remedy and bool(remedy) == bool(told.remedy)


def test_proxies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert "HTTP_PROXY" in doctor.proxies().what


def test_a_kernel_that_was_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_all() -> None:
        raise RuntimeError("no object file")

    monkeypatch.setattr("fl_rec.kernels.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("fl_rec.kernels.is_compiled", lambda: True)
    monkeypatch.setattr("fl_rec.kernels.load_all", load_all)
    assert doctor.compiled() == Found(
        "RuntimeError: no object file", f"rm -r {tmp_path}, and the next job compiles it anew.", True
    )


def test_the_packages_that_setup_names_are_looked_at() -> None:
    found = dict(doctor._requirements())
    assert {"protobuf", "numpy", "grpcio"} <= set(found)
    assert "pytest" not in found, "an extra"


@pytest.mark.parametrize(
    ("version", "rule", "holds"),
    [
        ("6.33.1", "<7", True),
        ("7.0.0", "<7", False),
        ("3.0.0", "<3.1", True),
        ("2.6.2", ">=2.6.2", True),
        ("0.9", ">=0.62", False),
        ("1.0+cpu", "==1.0", True),
        ("2", "!=2", False),
    ],
)
def test_rules_of_versions(version: str, rule: str, holds: bool) -> None:
    assert doctor._holds(version, rule) == holds


def test_a_server_of_this_machine_is_reached() -> None:
    assert socket.gethostbyname("localhost").startswith("127.")
    assert doctor.ports().fatal is False
