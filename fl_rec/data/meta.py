"""meta.json: what `fl-rec prepare` says of the rows that it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rec.data.partition import PARTITIONERS
from fl_rec.data.rows import Size
from fl_rec.errors import DataError
from fl_rec.files import read_json
from fl_rec.outside import Count, as_typed
from fl_rec.packed import open_regular
from fl_rec.plugins import split_options

# Bytes of it that are compared.
_LARGEST = 1 << 20
_RULE, _REMEDY = "meta.json must be as fl-rec prepare writes it.", "Run it again."


@dataclass(frozen=True)
class Meta:
    """What of it cutting the rows into shards needs; see `fl_rec.data.prepare.describe`."""

    source: Mapping[str, Any]
    partitioner: str
    seed: Count
    num_neg: Count | None
    test_negative: str
    num_users: Size
    num_items: Size

    @property
    def origin(self) -> dict[str, Any]:
        """The source, and how negatives were drawn, as a manifest has them."""
        return {**self.source, "seed": self.seed, "num_neg": self.num_neg, "test_negative": self.test_negative}


@contextmanager
def unchanged(data: Path) -> Iterator[None]:
    """For what reads a folder. DataError if it has no meta.json, as while it is written, or another one at the end."""
    before = _content(data)
    yield
    if _content(data) != before:
        raise DataError(
            f"What is read must not be written meanwhile. Received: {data}, which another fl-rec prepare has made "
            f"anew. {_REMEDY}"
        )


def _content(data: Path) -> bytes:
    try:
        with open_regular(data / "meta.json") as file:
            return file.read(_LARGEST)
    except OSError as err:
        remedy = " Let the one end that writes there now, or run it again." if (data / "big_train").is_dir() else ""
        raise DataError(
            f"--data must be a folder that fl-rec prepare wrote. Received: {data}, without meta.json.{remedy}"
        ) from err


def read_meta(data: Path, num_users: int, num_items: int) -> Meta:
    """What a folder's meta.json says.

    Args:
        num_users, num_items: lines of its users.csv and items.csv.

    Raises:
        DataError: it is not as it is written, says another number, or names code of somebody's own.
    """
    path = data / "meta.json"
    meta = as_typed(Meta, read_json(path, _RULE, _REMEDY), _RULE, path, _REMEDY)
    for name, said, there in (("users", meta.num_users, num_users), ("items", meta.num_items, num_items)):
        if said != there:
            raise DataError(f"{_RULE} Received: {path}, num_{name}={said}, and {there} in {name}.csv. {_REMEDY}")
    if split_options(meta.partitioner)[0] not in PARTITIONERS:
        raise DataError(
            f"Code of your own is run when you name it yourself. Received: {path}, with partitioner "
            f"{meta.partitioner!r:.80}. If it is yours: --partitioner file.py:function"
        )
    return meta
