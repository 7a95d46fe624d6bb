"""Private parameters: what a worker trains for itself, and nobody else ever has.

They are neither sent nor pulled; no server has a table for them. A worker writes its own part of them beside the shared
model, and who wants to score joins the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from fl_rec.errors import DataError
from fl_rec.files import read_arrays, write_arrays


class NoCommonModel(DataError):
    """Workers' parts of a parameter that can't be one model."""


class Part(NamedTuple):
    """What one worker has of a private parameter.

    Attributes:
        rows: int64 [n], the rows of an embedding that it has trained; None if the parameter is no embedding.
        values: float32, those rows, or all of the parameter.
    """

    rows: np.ndarray | None
    values: np.ndarray

    @classmethod
    def trained(cls, values: np.ndarray, untrained: np.ndarray, by_row: bool) -> Part:
        """The part that differs from what training began with."""
        if not by_row:
            return cls(None, values)
        rows = np.flatnonzero((values != untrained).reshape(len(values), -1).any(axis=1))
        return cls(rows, values[rows])

    def wrong(self) -> str:
        """What it can't be, of whatever parameter; "" if it can be."""
        if self.values.dtype != np.float32 or not np.isfinite(self.values).all():
            return "values that are no finite float32"
        if self.rows is None:
            return ""
        if self.rows.dtype != np.int64 or self.rows.ndim != 1:
            return "rows that are no list of int64"
        # A difference of two could be more than an int64 holds.
        good = self.rows.min(initial=0) >= 0 and (self.rows[1:] > self.rows[:-1]).all()
        return "" if good else "rows that are not ascending from 0"

    def into(self, values: np.ndarray) -> np.ndarray:
        """A copy of a whole parameter with this part in its place. DataError if it does not fit."""
        shape = values.shape if self.rows is None else (len(self.rows), *values.shape[1:])
        if self.values.shape != shape or (self.rows is not None and self.rows.max(initial=-1) >= len(values)):
            raise DataError(
                f"A private part must fit its parameter of shape {list(values.shape)}. Received: values of shape "
                f"{list(self.values.shape)}. Take the model and its private parts from one and the same epoch."
            )
        if self.rows is None:
            return self.values
        whole: np.ndarray = values.copy()
        whole[self.rows] = self.values
        return whole


def clients(folder: Path) -> list[int]:
    """The workers whose parts are beside a model in its folder."""
    return sorted(int(path.stem) for path in (folder / "private").glob("*.npz") if path.stem.isdecimal())


def save(path: Path, parts: Mapping[str, Part]) -> None:
    """Writes a worker's parts into a model's draft, whole or not at all. OSError if that can't be done."""
    arrays = {f"{name}/values": part.values for name, part in parts.items()}
    arrays.update({f"{name}/rows": part.rows for name, part in parts.items() if part.rows is not None})
    write_arrays(path, arrays, 0o600, sync=False)


def load(path: Path) -> dict[str, Part]:
    """Reads what `save` wrote. DataError if it can't be read, or is no part that a worker can have."""
    rule = "A worker's private part must be readable."
    arrays = read_arrays(path, rule)
    names = [key[: -len("/values")] for key in arrays if key.endswith("/values")]
    parts = {name: Part(arrays.get(f"{name}/rows"), arrays[f"{name}/values"]) for name in names}
    for name, part in parts.items():
        if wrong := part.wrong():
            raise DataError(f"{rule} Received: {path}, whose {name} has {wrong}. Copy the model again.")
    return parts


def join(
    parts: Collection[Mapping[str, Part]],
    values: Mapping[str, np.ndarray],
    everyones: Mapping[str, Collection[int]] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """Puts several workers' parts into the whole parameters, zeros where nobody has trained.

    Args:
        parts: one for each worker.
        values: the parameters, for their shapes.
        everyones: rows of each parameter that every worker has trained for itself, those of public users; the last
            worker's stay.

    Raises:
        NoCommonModel: two workers have trained the same row, or the whole parameter.
        DataError: a part does not fit.
    """
    joined = {name: np.zeros_like(value) for name, value in values.items()}
    taken: dict[str, np.ndarray] = {name: np.zeros(len(value), np.int64) for name, value in values.items()}
    strange = sorted({name for part in parts for name in part} - values.keys())
    if strange:
        raise DataError(
            f"A private part must be of the model's private parameters, {', '.join(values)}. Received: one of "
            f"{strange[0]!r:.80}. Take the model and its private parts from one and the same epoch."
        )
    for part in parts:
        for name, each in part.items():
            joined[name] = each.into(joined[name])
            taken[name][slice(None) if each.rows is None else each.rows] += 1
    for name, times in taken.items():
        times[[row for row in everyones.get(name, ()) if row < len(times)]] = 0
        if times.max(initial=0) > 1:
            raise NoCommonModel(
                f"Workers that have each trained their own {name} have no common one. Received: rows of it from "
                f"{times.max()} workers. Load one worker's model at a time."
            )
    return joined
