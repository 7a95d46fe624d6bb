"""A command on a real terminal: what it writes there, and when."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fl_rec import environment
from fl_rec.tables import text_width
from tests.unit.conftest import FLEETRUN

DEADLINE = 60.0
ROLES = ("server.0", "worker.0", "worker.1")
FIGURES = ("seconds", "rows_per_second", "train_loss", "train_auc", "test_auc", "hr", "ndcg")
COMMAND = """\
import sys, fl_rec.job.launch as launch
from fl_rec import cli, environment, kernels
environment.check = lambda: None
kernels.compile_all = lambda *_: None
launch._start_command = lambda *_: [sys.executable, "-I", "-S", "-c", {code!r}]
sys.exit(cli.main(sys.argv[1:]))
"""
# Of what a terminal is told to do, other than to write.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process on a terminal of 80 columns and 24 lines."""

    def __init__(self, *command: str) -> None:
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(environment.CLONE), "COLUMNS": "80", "LINES": "24"}
        self.process = subprocess.Popen(
            command, env=env, stdin=other, stdout=other, stderr=other, start_new_session=True
        )
        os.close(other)
        self.text = ""

    def read(self, until: str | None = None) -> str:
        """What was written until a text, or the end."""
        deadline = time.monotonic() + DEADLINE
        while until is None or until not in self.text:
            assert time.monotonic() < deadline, f"{until} must have been shown. Received: {self.text}"
            if select.select([self._own], [], [], 0.1)[0]:
                try:
                    data = os.read(self._own, 1 << 16)
                except OSError:  # nobody writes any more
                    data = b""
                if not data:
                    break
                self.text += data.decode("utf-8", "replace")
        return self.text

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._own)


@pytest.fixture
def on_terminal(make_job: Callable[..., Path]) -> Iterator[Callable[..., Terminal]]:
    """`on_terminal(seconds, *options)`: `fl-rec run` there, of a job whose stand-in stays for so long."""
    terminals = []

    def on_terminal(seconds: float, *options: str) -> Terminal:
        line = {**dict.fromkeys(FIGURES, 0.5), "rows": 5, "test_users": 2, "top_k": 10, "epoch": 1}
        metrics = [{**line, "client": client} for client in (0, 1, "all")]
        code = FLEETRUN.format(says=[(role, "done", "") for role in ROLES], seconds=seconds, metrics=metrics)
        command = COMMAND.format(code=code)
        terminals.append(Terminal(sys.executable, "-c", command, "run", "-m", str(make_job()), *options))
        return terminals[0]

    yield on_terminal
    for each in terminals:
        each.close()


def test_a_job_on_a_real_terminal(on_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = on_terminal(0.0)
    first = terminal.read("reading the configuration and the data")
    assert "job " not in first, "there is a sign of life before there is anything to say"
    text = terminal.read()
    assert terminal.process.wait(DEADLINE) == 0, text
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is there again"
    stay = [_CONTROL.sub("", line).rstrip() for line in text.split("\r\n")]
    lines = [line.rpartition("\r")[2] for line in stay]
    assert max(map(text_width, lines)) <= 80
    told = "\n".join(lines)
    assert re.search(r"(?m)^job +job\.yaml: 1 epoch, 2 workers, 1 server, geo$", told)
    assert re.search(r"(?m)^ +1/1  0\.5000  0\.500  0\.500 +0\.500  0\.500  client 0 +[\d.]+ s$", told)
    assert re.search(r"(?m)^result    HR@10 0\.500, ", told) is None, "the stand-in has written no figures"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["state"] == "done"


def test_ctrl_c_gives_the_terminal_back(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(60.0, "-o", "runner.epochs=2")
    terminal.read("0.5000")
    os.kill(terminal.process.pid, signal.SIGINT)
    text = terminal.read()
    assert terminal.process.wait(DEADLINE) == 130, text
    assert "stopped by SIGINT: ending the job's processes" in text and "fl-rec resume" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_mistake_leaves_its_message_alone(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(0.0, "-o", "runner.epoch=2")
    text = terminal.read()
    assert terminal.process.wait(DEADLINE) == 2
    shown = _CONTROL.sub("", text).replace("\r\n", "\n").rpartition("\r")[2]
    assert shown.strip().startswith("fl-rec: error: option -o: runner.epoch: unknown key")
