"""A partitioner of one's own: the most active users share the first shard, and so on down.

    cd datasets/movielens && python gen_heter_data.py --partitioner fl_partitioner_example.py:by_activity

Keyword-only parameters are options, set after one more colon: ``...:by_activity:ascending=1``.
"""

from __future__ import annotations

import numpy as np

from fl_rec.data.partition import UserTable


def by_activity(users: UserTable, num_shards: int, rng: np.random.Generator, *, ascending: int = 0) -> np.ndarray:
    """Return int64 [users]: shards of equally many users, from the most to the least active."""
    rank = np.argsort(np.argsort(users.activity if ascending else -users.activity, kind="stable"))
    return rank * num_shards // len(users)
