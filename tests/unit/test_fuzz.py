"""Thousands of damaged and hostile inputs to every reader of outside data, two at a time; see tests/fuzz.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "fuzz.py"


def test_damaged_inputs() -> None:
    """No traceback, no wrong acceptance, no input over a GiB or 5 seconds."""
    command = [sys.executable, str(FUZZ), "--inputs", "6000"]  # CI has 20,000, before the tests
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert " inputs, 0 failed" in done.stdout
