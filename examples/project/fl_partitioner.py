"""Which client a user belongs to, named by `fl-rec partition --partitioner`; options come after one more colon."""

import numpy as np

from fl_rec.data.partition import Dealt


def by_region(users, num_shards, rng, *, column: str = "region"):
    """A shard for each value of a column of customers.csv, named after it; `by_column` is the built-in one.

    Returns a number from 0 for each user, or -1 to leave one out.
    """
    names, shard = np.unique(users.column(column), return_inverse=True)
    return Dealt(shard % num_shards, clients=names[:num_shards].tolist())
