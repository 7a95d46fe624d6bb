"""How different shards are, against values worked out by hand, and how that is shown."""

from __future__ import annotations

import numpy as np
import pytest

from fl_rec.data.difference import difference
from fl_rec.data.tags import ItemTags

# Items 0 and 3 have two tags, 1 none.
TAGS = ["tea|cups", "", "tea", "bikes|tea|tea"]


def test_tags_are_counted_for_each_owner() -> None:
    tags = ItemTags.of(TAGS)
    assert tags.names == ("bikes", "cups", "tea")
    user, item = np.array([0, 0, 2, 2, 2], np.int32), np.array([0, 1, 3, 3, 2], np.int32)
    assert tags.counts(user, item, 3).tolist() == [[0, 1, 1], [0, 0, 0], [2, 0, 3]]
    assert tags.weighted(np.array([[1, 9, 0, 0], [0, 0, 1, 2]])).tolist() == [[0, 1, 1], [2, 0, 3]]
    assert ItemTags.of(["", ""]).counts(user, np.zeros(5, int), 3).shape == (3, 0)


def test_shards_with_everything_and_with_nothing_in_common() -> None:
    alike = difference(np.array([[3, 0, 1, 0], [6, 0, 2, 0]]), ItemTags.of(TAGS))
    assert alike == {
        "train_positives": {"smallest": 4, "largest": 8},
        "common_items": {"mean": 1.0, "shards": [1.0, 1.0]},
        "tags": {"mean": 0.0, "shards": [0.0, 0.0]},
        "tastes": {
            "names": ["tea", "cups", "bikes"],
            "all": [0.5714, 0.4286, 0.0],
            "shards": [[0.5714, 0.4286, 0.0], [0.5714, 0.4286, 0.0]],
        },
    }
    apart = difference(np.array([[3, 0, 0], [0, 1, 1]]), ItemTags.of(["a", "b", "c"]))
    assert apart["common_items"]["mean"] == 0.0 and apart["tags"] == {"mean": 1.0, "shards": [1.0, 1.0]}


def test_each_shard_is_compared_with_each_other() -> None:
    # Tags: a and b half each; a only; b only. Items in common: 1 of 2, 1 of 2, none.
    found = difference(np.array([[1, 1], [4, 0], [0, 2]]), ItemTags.of(["a", "b"]))
    half = -0.75 * np.log2(0.75) - 0.25 * np.log2(0.25) - 0.5  # H(3/4, 1/4) - (H(1/2, 1/2) + H(1, 0)) / 2
    assert found["common_items"] == {"mean": 0.3333, "shards": [0.5, 0.25, 0.25]}
    assert found["tags"]["shards"] == pytest.approx([half, (half + 1) / 2, (half + 1) / 2], abs=1e-4)
    assert found["tags"]["mean"] == pytest.approx((2 * half + 1) / 3, abs=1e-4)
    assert found["train_positives"] == {"smallest": 2, "largest": 4}
    shares = {"names": ["a", "b"], "all": [0.625, 0.375], "shards": [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]}
    assert found["tastes"] == shares


def test_the_commonest_tags_are_told() -> None:
    tags = ItemTags.of([f"t{number:02d}" for number in range(30)])
    found = difference(np.array([range(30), range(30)]), tags)["tastes"]
    assert found["names"] == [f"t{number:02d}" for number in range(29, 5, -1)]
    assert found["all"][0] == pytest.approx(29 / 435, abs=1e-4) and {len(each) for each in found["shards"]} == {24}


def test_what_can_not_be_compared() -> None:
    positives = np.array([[1, 1], [2, 0]])
    assert difference(positives[:1], ItemTags.of(["a", "b"]))["common_items"] is None
    assert difference(positives, ItemTags.of(["", "b"]))["tags"] is None
    assert difference(positives, ItemTags.of(["", ""]))["tags"] is None
    assert difference(positives, ItemTags.of(["", "b"]))["tastes"] is None
