"""Ids of users and items as the data has them: whole numbers, or texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from fl_rec.errors import DataError

MAX_DIGITS = 18  # 10**18 - 1 is the longest run of nines that an int64 holds


def ids_of(texts: Sequence[str]) -> np.ndarray:
    """Int64 if every text is a whole number as Python writes it, of at most 18 digits and without a sign; else str."""
    if all(map(_is_number, texts)):
        return np.array([int(text) for text in texts], np.int64)
    return np.array(texts, np.str_)


def checked_ids(texts: Sequence[str], name: str) -> np.ndarray:
    """As `ids_of`, of texts that are to tell users or items apart.

    Raises:
        DataError: one is empty, has a character that no file of texts holds, or is NaN, which stands for a missing one.
    """
    joined = "".join(texts)  # one look at millions
    sound = "\0" not in joined and not _SURROGATE.search(joined)
    if not sound or any(len(text) in (0, 3) and text.lower() in ("", "nan") for text in texts):
        bad = next(text for text in texts if _SURROGATE.search(text) or "\0" in text or text.lower() in ("", "nan"))
        raise DataError(
            f"{name}: an id of a user or an item must be a text that can be written, and not NaN. Received: "
            f"{bad[:60]!r}. Correct or remove the line."
        )
    return ids_of(texts)


_SURROGATE = re.compile("[\ud800-\udfff]")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and (text[0] != "0" or text == "0")


def position_of(wanted: int | str, ids: np.ndarray) -> int | None:
    """Where an id, or its text, is first among ids [n], int64 or str; None if it is not."""
    same: np.ndarray = ids == str(wanted) if ids.dtype.kind == "U" else np.zeros(len(ids), bool)
    if ids.dtype.kind == "i" and _is_number(str(wanted)):
        same = ids == int(wanted)
    return int(np.argmax(same)) if same.any() else None


def rows_of(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each wanted id [n] is first among ids [m], or -1; int64 [n]. Either may be numbers or texts."""
    if not len(ids):
        return np.full(len(wanted), -1)
    if wanted.dtype.kind != ids.dtype.kind:
        wanted, ids = wanted.astype(np.str_), ids.astype(np.str_)
    known, first = np.unique(ids, return_index=True)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, first[at], -1)
