"""A source of data of one's own: a CSV of user,item,time, whole numbers, with a header.

    python datasets/movielens/prepare.py --source datasets/movielens/fl_source_example.py:likes:path=likes.csv

Keyword-only parameters are options, set after one more colon; their types are checked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fl_rec.data.sources import Dataset, from_interactions


def likes(seed: int, *, path: Path, header_lines: int = 1) -> Dataset:
    """Every line is a positive; each user's latest becomes the test item."""
    user, item, time = np.loadtxt(path, np.int64, delimiter=",", skiprows=header_lines, unpack=True, ndmin=2)
    return from_interactions("likes", user, item, time)
