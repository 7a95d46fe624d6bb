"""The nets of models/ncf, the losses' values and the penalties: nets_with_paddle.py, run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PADDLE_TESTS = Path(__file__).with_name("nets_with_paddle.py")
DEADLINE = 600  # seconds; a tenth of it is enough unless the machine is busy


def test_with_paddle() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PADDLE_TESTS)]
    # Paddle 3.0.0 has two kinds of static programs, and fleet works with the older one.
    environment = {**os.environ, "FLAGS_enable_pir_api": "0"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
