"""What a job reads: prepared data, shards, manifests, configurations."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fl_rec.config import Config
from fl_rec.data import adopt, check, shards
from fl_rec.data.reader import AS_IS
from fl_rec.data.reader import Reader as ShardReader
from fl_rec.data.rows import Sizes
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.text import read_slots, ungrouped
from fl_rec.distillation.proxy import ProxySet
from tests.fuzzing.base import (
    ITEMS,
    SHARDS,
    USERS,
    given,
    ids_are_below,
    lines,
    multislot,
    of_shard,
    prepared,
    ranked_rows,
    reader,
    rows_of,
    sound,
    trained_rows,
)
from tests.fuzzing.mutations import Files

# -- prepared data, shards --------------------------------------------------------------------------------------


@reader(prepared, 10)
def partition(folder: Path) -> None:
    kind = sum(given(folder / "meta.json")) % 5
    named = ("iid", "dirichlet_activity", "by_column:column=region", "dirichlet_tag", None)[kind]
    out = folder / "out"
    shards.generate(folder, out, None if kind == 2 else SHARDS, named, "multislot", 1)
    manifest = json.loads((out / "manifest.json").read_text())
    shards_are_sound(out, manifest)
    users = list(csv.reader(io.StringIO((out / "users.csv").read_text(errors="replace"), newline="")))
    sound(manifest["num_users"] == len([row for row in users if row]) - 1, "num_users is not the users")


def shards_are_sound(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Every file is as the manifest says, line by line; no user stands in two shards."""
    seen: dict[str, int] = {}
    sizes = manifest["num_users"], manifest["num_items"]
    for number, shard in enumerate(manifest["shards"]):
        for kind in ("train", "test"):
            file = shard[kind]
            content = (folder / file["file"]).read_bytes()
            sound(hashlib.sha256(content).hexdigest() == file["sha256"], f"checksum of {file['file']}")
            rows = list(rows_of(content, 3, sizes))
            sound(len(rows) == file["rows"] > 0, f"{len(rows)} rows, not {file['rows']}")
            sound(sum(map(sum, (row[2] for row in rows))) == file["positives"], "positives")
            for row in rows:
                sound(seen.setdefault(row[0][0], number) == number, f"user {row[0][0]} in two shards")


def foreign() -> Files:
    return {
        **{f"train/part-{k}": multislot(of_shard(trained_rows(), k)) for k in range(SHARDS)},
        **{f"test/part-{k}": multislot(of_shard(ranked_rows(), k)) for k in range(SHARDS)},
        "items.csv": prepared()["items.csv"],
        "manifest.json": b'{"source": {"kind": "shards"}}',
    }


@reader(foreign, 6)
def adopted_shards(folder: Path) -> None:
    items = folder / "items.csv"
    adopt.adopt(folder, {}, items if items.exists() else None, None)
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in (shard[kind] for shard in manifest["shards"] for kind in ("train", "test")):
        content = (folder / file["file"]).read_bytes()
        if content[:2] != b"\x1f\x8b":
            rows = list(rows_of(content, 3, (manifest["num_users"], manifest["num_items"])))
            sound(len(rows) == file["rows"] > 0, "rows")
            sound(sum(map(sum, (row[2] for row in rows))) == file["positives"], "positives")


def a_job() -> Files:
    """Shards with their manifest, and a configuration."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in prepared().items():
            (folder / file).parent.mkdir(exist_ok=True, parents=True)
            (folder / file).write_bytes(content)  # type: ignore[arg-type]
        shards.generate(folder, folder / "data", SHARDS, "iid", "multislot", 1)
        files: Files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("data/**/*.*")}
    files["job.yaml"] = (
        b"runner:\n  train_data_dir: data/fl_train_data\n  test_data_dir: data/fl_test_data\n"
        b"  sync_mode: geo\n  epochs: 2\n  train_batch_size: 32\n"
        b"hyper_parameters:\n  optimizer:\n    class: adam\n    learning_rate: 5.0e-3\n  mode: NCF_GMF\n  mf_dim: 4\n"
    )
    return files


def seal_manifest(files: Files) -> None:
    """Sizes and checksums as the damaged files have them."""
    try:
        manifest = json.loads(files["data/manifest.json"])  # type: ignore[arg-type]
        for shard in manifest["shards"]:
            for kind in ("train", "test"):
                content = files[f"data/{shard[kind]['file']}"]
                assert isinstance(content, bytes)
                shard[kind].update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        files["data/manifest.json"] = json.dumps(manifest).encode()
    except Exception:
        pass  # the manifest is what is damaged


@reader(a_job, 14, seal_manifest)
def job_data(folder: Path) -> None:
    """What a job reads before and when its workers start."""
    config = Config.load(folder / "job.yaml")
    facts = check.Facts.of(config, SHARDS, 0)
    config = check.check(config, facts)
    hyper = config.hyper_parameters
    sizes = (hyper.num_users, hyper.num_items)
    sound(all(isinstance(size, int) and 0 < size <= 10**8 for size in sizes), f"sizes {sizes}")
    train, test = (facts.deal(config, kind) for kind in check.KINDS[:2])
    for worker in range(SHARDS):
        for kind, files in (("train", train[worker]), ("test", test[worker])):
            if not files:
                continue
            expected = facts.deal_rows(config)[worker] if kind == "train" else None
            slots = ShardReader.from_config(config, Path("/dev/null"), facts.stated(config)).rows(
                files, 3, 10, expected
            )
            users, items, labels = slots
            text = b"".join(path.read_bytes() for path in files)
            if text[:2] != b"\x1f\x8b":
                independent = list(rows_of(text, 3, sizes))  # type: ignore[arg-type]
                sound(len(independent) == len(users), "rows")
                sound([row[1] for row in independent] == items.tolist(), "items")
            if facts.manifest is not None and len(files) == 1:
                stated = getattr(facts.manifest.shards[worker], kind)
                sound(stated.positives == int(labels.sum()), "positives are not the manifest's")
                sound(stated.rows == len(users), "rows are not the manifest's")
            if kind == "train":
                pairs = ungrouped(slots)
                fresh = FreshNegatives(pairs, sizes[1] or 0, 2, 1, 1)
                ids_are_below(fresh.epoch(0)[1], sizes[1] or 0, "negatives")


@reader(a_job, 4, seal_manifest)
def verified_shards(folder: Path) -> None:
    """fl-rec partition --verify, and what it prints."""
    manifest = shards.verify(folder / "data")
    shards.describe_shards(manifest, "verified")
    for name in ("users.csv", "items.csv"):
        content = (folder / "data" / name).read_bytes()
        sound(manifest.mappings.get(name) in (None, hashlib.sha256(content).hexdigest()), name)
    files = [getattr(shard, kind) for shard in manifest.shards for kind in ("train", "test")]
    for file in files:
        content = (folder / "data" / file.file).read_bytes()
        sound(hashlib.sha256(content).hexdigest() == file.sha256, file.file)


def wide() -> Files:
    rows = trained_rows()
    return {
        "extra.txt": b"".join(b"1 %d 1 %d 2 0.5 %d 1 %d\n" % (u, i, u, label) for u, i, label in rows),
        "group.txt": b"".join(
            b"1 %d 3 %d %d %d 3 1 0 0\n" % (u, i, (i + 1) % ITEMS, (i + 2) % ITEMS) for u, i, _ in rows
        ),
        "rows.csv": lines(",", rows),
    }


@reader(wide, 8)
def shard_text(folder: Path) -> None:
    sizes = Sizes(USERS, ITEMS)
    *_, labels = ShardReader(AS_IS, AS_IS, sizes).rows([folder / "extra.txt"], 4, 10)
    if (folder / "extra.txt").read_bytes()[:2] != b"\x1f\x8b":
        independent = list(rows_of((folder / "extra.txt").read_bytes(), 4, (USERS, ITEMS)))
        sound([row[3] for row in independent] == labels.tolist(), "labels")
    for name in ("group.txt", "rows.csv"):
        _, slots = read_slots(folder / name, sizes)
        if (folder / name).read_bytes()[:2] != b"\x1f\x8b":
            independent = list(rows_of((folder / name).read_bytes(), 3, (USERS, ITEMS)))
            sound([row[1] for row in independent] == slots[1].tolist(), "items")


@reader(lambda: {"public/part-000.txt": multislot((u, i, 1) for u, i, _ in trained_rows())}, 3)
def proxy_set(folder: Path) -> None:
    config = configured().replace(
        **{
            **{"hyper_parameters.num_users": USERS, "hyper_parameters.num_items": ITEMS},
            **{"runner.resample_negatives": 2, "distillation.proxy_data_dir": str(folder / "public")},
        }
    )
    proxy = ProxySet.from_config(config)
    assert proxy is not None
    for ids, size in ((proxy.users, USERS), (proxy.rows(0).items, ITEMS)):
        ids_are_below(ids, size, "public rows")


@cache
def configured() -> Config:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "job.yaml").write_bytes(a_job()["job.yaml"])  # type: ignore[arg-type]
        return Config.load(Path(name) / "job.yaml")


# -- configurations ---------------------------------------------------------------------------------------------

CONFIG = b"""\
runner:
  train_data_dir: data
  test_data_dir: "test"
  sync_mode: geo
  epochs: 20
  train_batch_size: 32
  exchanges_per_epoch: 5
  resample_negatives: 4
  private_params: ["user_*"]
  seed: 7
hyper_parameters:
  optimizer: {class: adam, learning_rate: 5e-3}
  mode: NCF_MLP
  fc_layers: [32, 16, 8]
  l2: {"*": 0.01}
  extra:
    own: [1, {a: b}]
coordinator:
  strategy: random_k
  options: {k: 2}
  report_fields: {logits: [4, 2]}
  clients: {"0": {type: phone, slow_down: 2}, "*": {}}
privacy: {noise_multiplier: 1.0}
"""
ANY_CONTENT = (
    *("hyper_parameters.extra", "hyper_parameters.loss_options", "coordinator.options"),
    "distillation.students",
)
OVERRIDES = b"""\
runner.epochs=3
hyper_parameters.fc_layers=[4, 2]
hyper_parameters.extra.own.b={a: 1}
coordinator.round_timeout=1e1
runner.rounds_per_epoch=2
privacy.delta=1e-5
"""


@reader(lambda: {"job.yaml": CONFIG, "overrides.txt": OVERRIDES}, 6)
def configuration(folder: Path) -> None:
    overrides = (folder / "overrides.txt").read_bytes().decode("utf-8", "replace").split("\n")
    config = Config.load(folder / "job.yaml", [each for each in overrides if each.strip()])
    for name in config:
        for number in numbers_in(config[name] if name not in ANY_CONTENT else None):
            sound(math.isfinite(number), f"{name} is {number}")
    config.dump(folder / "again.yaml")
    sound(Config.load(folder / "again.yaml") == config, "another one when it is read again")


def numbers_in(value: Any, depth: int = 0) -> Iterator[float]:
    sound(depth < 1000, "without end")
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from numbers_in(each, depth + 1)
    elif isinstance(value, float):
        yield value
