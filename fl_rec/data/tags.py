"""What items are tagged with, counted for users or shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ItemTags:
    """Every pair of an item and a tag of it, by item.

    Attributes:
        names: of the tags, ascending.
        item, tag: int64 [pairs]; a tag is its place in `names`.
        num_items: how many items there are, tagged or not.
    """

    names: tuple[str, ...]
    item: np.ndarray
    tag: np.ndarray
    num_items: int

    @classmethod
    def of(cls, joined: Sequence[str]) -> ItemTags:
        """From each item's tags, joined with ``|``."""
        split = [[name for name in dict.fromkeys(text.split("|")) if name] for text in joined]
        names = sorted({name for each in split for name in each})
        number = {name: k for k, name in enumerate(names)}
        item = np.repeat(np.arange(len(split)), [len(each) for each in split])
        tag = np.array([number[name] for each in split for name in each], np.int64)
        return cls(tuple(names), item, tag, len(split))

    def counts(self, owner: np.ndarray, item: np.ndarray, owners: int) -> np.ndarray:
        """How often each owner's items have each tag, int64 [owners, tags], of interactions, an int [n] each."""
        counts: np.ndarray = np.zeros(owners * len(self.names), np.int64)
        nth = np.arange(len(self.item)) - np.searchsorted(self.item, self.item)
        for n in range(nth.max(initial=-1) + 1):  # the n-th tag of each item
            tag = np.full(self.num_items, -1)
            tag[self.item[nth == n]] = self.tag[nth == n]
            tagged = tag[item] >= 0
            key = owner[tagged].astype(np.int64) * len(self.names) + tag[item[tagged]]
            counts += np.bincount(key, minlength=len(counts))
        return counts.reshape(owners, len(self.names))

    def weighted(self, weight: np.ndarray) -> np.ndarray:
        """The same of weights of the items [rows, items]: float64 [rows, tags]."""
        size = len(self.names)
        return np.array([np.bincount(self.tag, row[self.item], size) for row in weight]).reshape(len(weight), size)
