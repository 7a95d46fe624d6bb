"""The rows of rounds with differential privacy. What needs Paddle is in tests/paddle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fl_rec.data.reader import Reader
from fl_rec.data.rows import FreshRows, ShardRows
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import parse_multislot

PROJECT = Path(__file__).parents[3]


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
