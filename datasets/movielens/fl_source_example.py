"""A source of data of one's own: lines of a user and what they like, ``ann: tea, milk``, the latest last.

    python datasets/movielens/prepare.py --source datasets/movielens/fl_source_example.py:likes:path=likes.txt

A CSV needs none: `--source likes.csv`. Keyword-only parameters are options, set after one more colon; their types are
checked, and --min_value and others of the command are options too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fl_rec.data.sources import Dataset, from_interactions


def likes(seed: int, *, path: Path, header_lines: int = 0) -> Dataset:
    """Every like is a positive; each user's last becomes the test item."""
    lines = path.read_text(encoding="utf-8").splitlines()[header_lines:]
    pairs = [(line.split(":")[0], item.strip()) for line in lines for item in line.split(":")[1].split(",")]
    user, item = np.array(pairs).T
    return from_interactions("likes", user, item)
