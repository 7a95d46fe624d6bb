"""The readers of outside data: for each a small sound input, the way in, and an independent look at what it accepts.

A reader is given a folder. It returns when it has accepted it, raises a FLRecError when it refuses it, and `Wrong` when
it has accepted what is not sound by a look that shares no code with it.
"""

from tests.fuzzing import jobs, runs, sources
from tests.fuzzing.base import READERS, Reader, Wrong

__all__ = ["READERS", "Reader", "Wrong", "jobs", "runs", "sources"]
