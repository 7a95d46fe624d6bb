"""Where interactions come from.

A source of data is a function ``(seed, *, option=default) -> Dataset``: one of those by name in `registry`, or a user's
own, ``file.py:function``. Keyword-only parameters are options, set after a colon; their types are checked.
"""

from fl_rec.data.sources.base import Dataset, Items, Users, from_interactions

__all__ = ["Dataset", "Items", "Users", "from_interactions"]
