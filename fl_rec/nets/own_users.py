"""Where users have their rows in a process's tables. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from fl_rec.errors import DataError


class AllUsers:
    """Every user has a row, at its id.

    Attributes:
        tables: of a worker's own users alone, by name, and how many rows each has where all users have one.
    """

    tables: Mapping[str, int] = MappingProxyType({})

    def places(self, users: np.ndarray) -> np.ndarray:
        """The users' rows, of the ids' shape. DataError if one has none."""
        return users

    def ids(self, places: np.ndarray) -> np.ndarray:
        """Whose rows these are."""
        return places

    def own(self, name: str, table: np.ndarray) -> np.ndarray:
        """The rows, of a table of all users, that are here."""
        return table

    def whole(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a table has where all users have a row."""
        return shape


class OwnUsers(AllUsers):
    """A worker's own users have rows, one behind another by their ids; what leaves the worker goes by the data's ids.

    Args:
        users: ids, in arrays of any shape.
        tables: see `AllUsers`; one at least.

    Attributes:
        all: their ids, int64 [users], ascending.

    Raises:
        DataError: a user is too large for a table.
    """

    def __init__(self, users: Iterable[np.ndarray], tables: Mapping[str, int]) -> None:
        self.tables = tables
        # Of each array first: together they are as long as the data.
        self.all = np.unique(np.concatenate([np.unique(each) for each in users]).astype(np.int64))
        smallest = min(tables, key=lambda name: tables[name])
        if self.all.size and not 0 <= self.all[0] <= self.all[-1] < tables[smallest]:
            raise DataError(
                f"Users' ids must be from 0 to {tables[smallest] - 1:,}, the rows of {smallest}. Received: from "
                f"{self.all[0]:,} to {self.all[-1]:,}. Set hyper_parameters.num_users to what the data has."
            )

    def places(self, users: np.ndarray) -> np.ndarray:
        # Test rows have a user's rows together: only the first of each is looked for.
        flat = users.reshape(-1)
        first = np.concatenate([np.arange(min(1, len(flat))), np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        found = np.searchsorted(self.all, flat[first])
        strange = flat[first][self.all.take(found, mode="clip") != flat[first]] if self.all.size else flat
        if strange.size:
            raise DataError(
                "A worker's net knows the users of the worker's own rows. Received: user "
                f"{strange[0]:,}. Ask the worker whose user it is, or set runner.private_params: []."
            )
        return np.repeat(found.astype(np.int32), np.diff(first, append=len(flat))).reshape(users.shape)

    def ids(self, places: np.ndarray) -> np.ndarray:
        ids: np.ndarray = self.all[places]
        return ids

    def own(self, name: str, table: np.ndarray) -> np.ndarray:
        return table[self.all] if name in self.tables else table

    def whole(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.tables[name], *shape[1:]) if name in self.tables else shape


ALL_USERS = AllUsers()
