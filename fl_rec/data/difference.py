"""How different shards are: in size, in the items that they have, in what these are tagged with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fl_rec.data.manifest import Manifest
from fl_rec.data.tags import ItemTags
from fl_rec.tables import RULE, cut, format_table

_LONGEST_NAME, _MOST_LINES = 32, 30
# Tags of which each shard's share is told.
_MOST_TAGS = 24
# Title, which of a shard's files, and what of it.
_COUNTS = (
    ("users", "train", "users"),
    ("training rows", "train", "rows"),
    ("test rows", "test", "rows"),
)
_EXPLAINED = {
    "common_items": "common items: the part of two shards' items that both have, on average over the other shards",
    "tags": "tags: how far two shards' tags diverge, from 0, alike, to 1, none in common; likewise",
}


def difference(positives: np.ndarray, tags: ItemTags) -> dict[str, Any]:
    """What a manifest says of it.

    ``common_items`` of two shards is the number of items that both have over the number that either has (Jaccard).
    ``tags`` of two shards is the Jensen-Shannon divergence of P and Q, their training positives' distributions over
    tags, in bits: H((P + Q) / 2) - (H(P) + H(Q)) / 2, from 0, alike, to 1, nothing in common. ``shards`` has each
    shard's mean over the others, ``mean`` the mean over all pairs; null with one shard, or a shard without any tag.

    Args:
        positives: int64 [shards, items], how many training positives a shard has of an item.
        tags: what the items are tagged with.
    """
    has = (positives > 0).astype(np.float32)
    both = has @ has.T
    each = has.sum(axis=1)
    counts = tags.weighted(positives)
    total = counts.sum(axis=1, keepdims=True)
    rows = positives.sum(axis=1)
    return {
        "train_positives": {"smallest": int(rows.min()), "largest": int(rows.max())},
        "common_items": _means(both / np.maximum(each[:, None] + each - both, 1)),
        "tags": _means(_divergence(counts / total)) if (total > 0).all() else None,
        "tastes": _tastes(counts, tags.names) if (total > 0).all() else None,
    }


def _tastes(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Of counts [shards, tags]."""
    together = counts.sum(axis=0)
    top = np.argsort(-together, kind="stable")[:_MOST_TAGS]
    shares = (counts / counts.sum(axis=1, keepdims=True))[:, top]
    return {
        "names": [names[tag] for tag in top],
        "all": np.round(together[top] / together.sum(), 4).tolist(),
        "shards": np.round(shares, 4).tolist(),
    }


def to_table(manifest: Manifest) -> str:
    """The shards, and how different they are, for people."""
    columns = {"shard": [*map(str, range(manifest.num_shards)), "all"]}
    if manifest.clients:
        columns["client"] = [*(cut(name, _LONGEST_NAME) for name in manifest.clients), ""]
    for title, kind, what in _COUNTS:
        counts = [getattr(getattr(shard, kind), what) for shard in manifest.shards]
        total = manifest.totals.get(f"{kind}_{what}")
        columns[title] = [*(f"{count:,}" for count in counts), "-" if total is None else f"{total:,}"]
    explained = [name for name in _EXPLAINED if manifest.difference.get(name)]
    for name in explained:
        found = manifest.difference[name]
        columns[name.replace("_", " ")] = [f"{each:.3f}" for each in (*found["shards"], found["mean"])]
    *lines, last = zip(*columns.values())
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [("...", *[""] * (len(columns) - 1))]
    table = format_table([tuple(columns), RULE, *lines, RULE, last], left=(1,) if manifest.clients else ())
    return "\n".join([table, *(_EXPLAINED[name] for name in explained)])


def _means(pairs: np.ndarray) -> dict[str, Any] | None:
    """Means of [shards, shards] over each shard's others, and over all pairs."""
    others = len(pairs) - 1
    if not others:
        return None
    means = (pairs.sum(axis=1) - pairs.diagonal()) / others
    return {"mean": round(float(means.mean()), 4), "shards": [round(float(each), 4) for each in means]}


def _divergence(share: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits of each pair of distributions [shards, tags]."""
    entropy = _entropy(share)
    return np.array([_entropy((share + one) / 2) - (entropy + own) / 2 for one, own in zip(share, entropy)])


def _entropy(share: np.ndarray) -> np.ndarray:
    logarithm = np.log2(share, out=np.zeros_like(share), where=share > 0)
    entropy: np.ndarray = -(share * logarithm).sum(axis=-1)
    return entropy
