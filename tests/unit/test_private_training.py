"""Rounds with differential privacy, by private_training_with_paddle.py in a process of its own; and their rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fl_rec.data import parse_multislot
from fl_rec.reader import Reader
from fl_rec.rows import FreshRows, ShardRows
from fl_rec.sampling import FreshNegatives

PROJECT = Path(__file__).parents[2]
PADDLE_TESTS = Path(__file__).with_name("private_training_with_paddle.py")
DEADLINE = 600  # seconds; a tenth of it is enough unless the machine is busy


def test_with_paddle() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PADDLE_TESTS)]
    # Paddle 3.0.0 has two kinds of static programs, and fleet works with the older one.
    environment = {**os.environ, "FLAGS_enable_pir_api": "0"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_text_of_a_reading_is_what_is_trained(tmp_path: Path) -> None:
    shards = [tmp_path / "a", tmp_path / "b"]
    for number, shard in enumerate(shards):
        shard.write_text(f"1 {number} 1 2 1 1\n")
    reader = Reader("cat", "cat", tmp_path / "log")
    assert ShardRows(shards, reader, None, 1.0).text(3) == b"1 0 1 2 1 1\n1 1 1 2 1 1\n"

    source = FreshNegatives(np.array([[0, 1, 1], [1, 2, 1]]), 9, 3, 4, 7)
    rows = FreshRows(source, tmp_path / "rows")
    texts = [rows.text(reading) for reading in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert sorted(parse_multislot(texts[2], 3)[0].tolist()) == [[0], [1]]
    (file,), _ = next(rows.take(None))
    assert file.read_bytes() == texts[0]
