"""The real MovieLens 1M, from zip to shards: the published counts, split and negatives.

Looked for in the folder that FL_REC_ML1M names, else in ../shared/ml-1m beside the repository.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.manifest import check_shards, load_manifest
from fl_rec.data.text import parse_multislot

ROOT = Path(__file__).resolve().parents[2]
ML1M = Path(os.environ.get("FL_REC_ML1M") or ROOT.parent / "shared" / "ml-1m")
SHARD_ROWS = [518095, 520165, 373605, 315550, 483780, 495635, 402810, 354590, 262710, 1243905]
FILES = ("ml-1m.zip", "ml-1m.test.rating", "ml-1m.test.negative.gz")

pytestmark = pytest.mark.skipif(
    not all((ML1M / name).is_file() for name in FILES),
    reason=f"MovieLens 1M is not at {ML1M} (wanted: {', '.join(FILES)}); set FL_REC_ML1M to its folder",
)


def run(script: str, *args: object) -> None:
    command = [sys.executable, str(ROOT / "datasets" / "movielens" / script), *map(str, args)]
    subprocess.run(command, check=True, timeout=120)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ml1m")
    negatives = ("--test_negative", ML1M / "ml-1m.test.negative.gz")
    run("prepare.py", "--source", ML1M / "ml-1m.zip", "--out", out, *negatives)
    run("gen_heter_data.py", "--data", out, "--out", out / "fl_data")

    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit < 2 << 30
    return out / "fl_data"


def read_test_rows(shards: Path) -> np.ndarray:
    paths = sorted((shards / "fl_test_data").iterdir())
    rows = np.concatenate([np.concatenate(parse_multislot(p.read_bytes(), 3), axis=1) for p in paths])
    groups = rows.reshape(-1, 100, 3)
    return groups[np.argsort(groups[:, 0, 0])]


def test_shard_rows_are_the_published_ones(shards: Path) -> None:
    manifest = load_manifest(shards)
    assert manifest is not None
    assert [shard.train.rows for shard in manifest.shards] == SHARD_ROWS
    assert manifest.totals["train_rows"] == sum(SHARD_ROWS) == 4_970_845
    assert manifest.totals["train_positives"] == 994_169
    assert (manifest.num_users, manifest.num_items) == (6040, 3706)
    assert manifest.unplaced["users"] == 0
    lines = [(shards / shard.train.file).read_bytes().count(b"\n") for shard in manifest.shards]
    assert lines == SHARD_ROWS
    check_shards(manifest, shards / "fl_train_data", shards / "fl_test_data", verify=True)


def test_test_positives_are_the_published_ones(shards: Path) -> None:
    meta = json.loads((shards.parent / "meta.json").read_text())
    assert meta["test_positives_from_file"] == 0, "the split by time finds them all"
    expected = np.loadtxt(ML1M / "ml-1m.test.rating", dtype=np.int64)[:, :2]
    groups = read_test_rows(shards)
    assert len(expected) == 6040
    np.testing.assert_array_equal(groups[:, 0], np.column_stack([expected, np.ones(6040, np.int64)]))


def test_test_negatives_are_exactly_the_published_ones(shards: Path) -> None:
    with gzip.open(ML1M / "ml-1m.test.negative.gz", "rt") as file:
        expected = [[int(item) for item in line.split("\t")[1:]] for line in file]
    groups = read_test_rows(shards)
    np.testing.assert_array_equal(groups[:, 1:, 1], expected)
    assert (groups[:, 1:, 2] == 0).all()
