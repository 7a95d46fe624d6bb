"""The readers of outside data: for each a small sound input, the way in, and an independent look at what it accepts.

A reader is given a folder. It returns when it has accepted it, raises a FLRecError when it refuses it, and `Wrong` when
it has accepted what is not sound by a look that shares no code with it.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fl_rec import environment
from fl_rec.api import Run
from fl_rec.config import Config
from fl_rec.coordinator import rounds, simulation, wire
from fl_rec.coordinator.messages import ClientReport, Decision, Device, check_fields
from fl_rec.coordinator.process import Address
from fl_rec.coordinator.strategies import ddpg_agent
from fl_rec.data import adopt, catalogue, check, shards
from fl_rec.data.reader import AS_IS
from fl_rec.data.reader import Reader as ShardReader
from fl_rec.data.rows import Sizes
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.sources.archive import table_file
from fl_rec.data.sources.base import Dataset, from_interactions, with_items, with_users
from fl_rec.data.sources.movielens import read_movielens_users
from fl_rec.data.sources.registry import load_source
from fl_rec.data.sources.tables import Table
from fl_rec.data.sources.tabular import read_items, read_users
from fl_rec.data.text import read_slots, ungrouped
from fl_rec.distillation.proxy import ProxySet
from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.nets.structure import Structure
from fl_rec.runs import private_parts, roles, training_state
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.saved import SavedModel
from tests.fuzzing.mutations import Files

USERS, ITEMS, SHARDS = 12, 40, 2


class Wrong(AssertionError):
    """Accepted, and not sound."""


def sound(holds: Any, what: str) -> None:
    if not holds:
        raise Wrong(what)


class Reader(NamedTuple):
    """Attributes: corpus, which gives sound files; read; weight, its share of the inputs; seal, which makes checksums
    right again after the damage, as who means harm would; files, those that are damaged, None for all."""

    corpus: Callable[[], Files]
    read: Callable[[Path], None]
    weight: int
    seal: Callable[[Files], None] | None = None


READERS: dict[str, Reader] = {}


def reader(
    corpus: Callable[[], Mapping[str, Any]],
    weight: int = 4,
    seal: Callable[[Files], None] | None = None,
    name: str = "",
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(read: Callable[[Path], None]) -> Callable[[Path], None]:
        READERS[name or read.__name__] = Reader(cache(corpus), read, weight, seal)
        return read

    return register


def given(path: Path) -> bytes:
    """A file's content; what is in the way of it is no matter of the reader's."""
    return path.read_bytes() if path.is_file() else b""


# -- sources ----------------------------------------------------------------------------------------------------


def interactions() -> list[tuple[int, int, int, int]]:
    """user, item, rating, time"""
    rng = random.Random(1)
    pairs = [(user, item) for user in range(1, USERS + 1) for item in rng.sample(range(1, ITEMS + 1), 6)]
    rng.shuffle(pairs)
    return [(user, item, rng.randint(1, 5), 978300000 + n) for n, (user, item) in enumerate(pairs)]


def lines(separator: str, rows: Any, header: str = "") -> bytes:
    return (header + "".join(separator.join(map(str, row)) + "\n" for row in rows)).encode()


def text_rows(user: str = "u", item: str = "it") -> list[tuple[str, str, float, str]]:
    return [(f"{user}{u}", f"{item} {i}é", r + 0.5, f"2024-05-01 12:{t % 60:02d}:00") for u, i, r, t in interactions()]


def json_lines() -> bytes:
    rows = (
        {"user_id": f"u{u}", "parent_asin": i, "rating": r, "timestamp": t, "n": {}} for u, i, r, t in interactions()
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def archive(files: Files) -> bytes:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


def movielens() -> Files:
    users = [(u, "MF"[u % 2], 25, u, f"{u % 10}1234") for u in range(1, USERS + 1)]
    movies = [(i, f"Movie {i} (1999)", "Drama|War" if i % 2 else "Comedy") for i in range(1, ITEMS + 1)]
    return {
        "ratings.dat": lines("::", interactions()),
        "users.dat": lines("::", users),
        "movies.dat": lines("::", movies),
    }


def movielens_100k() -> Files:
    users = [(u, 24, "M", "artist", f"8{u:04d}") for u in range(1, USERS + 1)]
    movies = [(i, f"Movie {i}", "1-Jan-95", "", "", i % 2, 1) for i in range(1, ITEMS + 1)]
    return {
        "u.data": lines("\t", interactions()),
        "u.user": lines("|", users),
        "u.item": lines("|", movies),
        "u.genre": b"Drama|0\nWar|1\n",
    }


def movielens_csv() -> Files:
    movies = [(i, f'"Movie, {i}"', "Drama|War") for i in range(1, ITEMS + 1)]
    return {
        "ratings.csv": lines(",", interactions(), "userId,movieId,rating,timestamp\n"),
        "movies.csv": lines(",", movies, "movieId,title,genres\n"),
    }


def recbole() -> Files:
    return {
        "x.inter": lines("\t", interactions(), "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"),
        "x.user": lines("\t", ((u, 20) for u in range(1, USERS)), "user_id:token\tage:float\n"),
        "x.item": lines("\t", ((i, "a b") for i in range(1, ITEMS)), "item_id:token\tclass:token_seq\n"),
    }


def ranked_rows() -> list[tuple[int, int, int]]:
    """Test rows: of each user a positive and negatives."""
    return [(u, (u + 7 * n) % ITEMS, int(n == 0)) for u in range(USERS) for n in range(5)]


def trained_rows() -> list[tuple[int, int, int]]:
    return [(u - 1, i - 1, int(n % 3 == 0)) for n, (u, i, _, _) in enumerate(interactions())]


def paddlerec() -> Files:
    return {"train_data.csv": lines(",", trained_rows()), "test_data.csv": lines(",", ranked_rows())}


def ncf() -> Files:
    negatives = [(f"({u},{u})", *((u + 1 + n) % 200 for n in range(99))) for u in range(USERS)]
    return {
        "ml.train.rating": lines("\t", ((u, i, 4, 1) for u, i, label in trained_rows() if label)),
        "ml.test.rating": lines("\t", ((u, u, 4, 1) for u in range(USERS))),
        "ml.test.negative": lines("\t", negatives),
    }


def dataset_is_sound(dataset: Dataset, folder: Path) -> None:
    """Ids within sizes, no two users or items the same, and all of it written and read back."""
    users, items = len(dataset.original_user), len(dataset.items.original_id)
    for name in ("train", "test"):
        pairs = getattr(dataset, name)
        sound(pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype.kind == "i", f"{name} is {pairs.dtype}")
        ids_are_below(pairs[:, 0], users, f"{name} users")
        ids_are_below(pairs[:, 1], items, f"{name} items")
    for rows in filter(lambda rows: rows is not None, (dataset.train_rows, dataset.test_rows)):
        ids_are_below(rows[:, 0], users, "users of rows")
        ids_are_below(rows[:, 1], items, "items of rows")
        sound(np.isin(rows[:, 2], (0, 1)).all(), "labels of rows")
    sound(len(dataset.train) > 0, "no training row")
    for ids in (dataset.original_user, dataset.items.original_id):
        texts = [str(each) for each in ids.tolist()]
        sound(len(set(texts)) == len(texts), "two of one id")
        sound("" not in texts, "an id without text")
        sound("nan" not in (each.lower() for each in texts), "NaN is an id")
    sound(len(dataset.items.title) == len(dataset.items.tags) == items, "titles of items")
    catalogue.write_users(folder / "out" / "users.csv", dataset)
    catalogue.write_items(folder / "out" / "items.csv", dataset.items)
    sound(
        list(map(str, catalogue.read_original_users(folder / "out" / "users.csv")[1]))
        == list(map(str, dataset.original_user)),
        "users' ids are not what is read back",
    )
    sound(catalogue.read_items(folder / "out" / "items.csv").title == list(dataset.items.title), "titles read back")


def ids_are_below(ids: np.ndarray, size: int, what: str) -> None:
    for each in np.asarray(ids).ravel().tolist():
        sound(isinstance(each, int) and 0 <= each < size, f"{what}: {each} of {size}")


def same_pairs(dataset: Dataset, text: bytes, separator: str, header: bool, at: tuple[int, int]) -> None:
    """Of a plain file every pair is there; `csv` does not see it so, or nothing is odd about it."""
    try:
        decoded = text.decode("ascii")
    except UnicodeDecodeError:
        return
    if re.search(r'["\r\x00-\x08\x0b-\x1f]', decoded):
        return
    rows = [line.split(separator) for line in decoded.split("\n") if line.strip()]
    width = len(rows[0])
    for row in rows:
        sound(len(row) == width, f"a line of {len(row)} fields, not {width}")
    found = {(row[at[0]].strip(), row[at[1]].strip()) for row in rows[header:]}
    users, items = dataset.original_user, dataset.items.original_id
    pairs = np.concatenate([dataset.train, dataset.test])
    sound({(str(users[u]), str(items[i])) for u, i in pairs.tolist()} == found, "other pairs than in the file")


def of_source(folder: Path, name: str = "", **options: str) -> Dataset:
    dataset = load_source(str(folder / name) if name else str(folder), 1, options)
    dataset_is_sound(dataset, folder)
    return dataset


@reader(lambda: {"t.csv": lines(",", interactions(), "user_id,item_id,rating,timestamp\n")}, 8)
def table_csv(folder: Path) -> None:
    dataset = of_source(folder, "t.csv")
    if (folder / "t.csv").read_bytes()[:2] != b"\x1f\x8b":
        same_pairs(dataset, (folder / "t.csv").read_bytes(), ",", True, (0, 1))


@reader(lambda: {"t.tsv": lines("\t", text_rows(), "user\titem\tscore\tdate\n")}, 8)
def table_tsv(folder: Path) -> None:
    of_source(folder, "t.tsv", min_value="2", min_interactions="2")


@reader(lambda: {"t.jsonl": json_lines()}, 8)
def table_json(folder: Path) -> None:
    of_source(folder, "t.jsonl", min_value="1")


@reader(lambda: {"t.zip": archive({"a/t.csv": lines(",", interactions(), "user,item,rating,time\n")})})
def table_zip(folder: Path) -> None:
    of_source(folder, "t.zip")


def parquet() -> Files:
    import pyarrow as pa
    from pyarrow import parquet

    user, item, rating, time = zip(*interactions())
    files: Files = {}
    for name, users in (
        ("n.parquet", list(user)),
        ("t.parquet", [f"u{u}" for u in user]),
        ("f.parquet", [u / 1 for u in user]),
    ):
        out = io.BytesIO()
        parquet.write_table(
            pa.table({"user": users, "item": list(item), "rating": list(rating), "time": list(time)}), out
        )
        files[name] = out.getvalue()
    return files


def table_parquet(folder: Path) -> None:
    for path in sorted(folder.glob("*.parquet")):
        of_source(folder, path.name, min_value="1")


try:
    import pyarrow  # noqa: F401
except ImportError:
    pass
else:
    reader(parquet)(table_parquet)

for _name, _corpus in (
    ("movielens_1m", movielens),
    ("movielens_100k", movielens_100k),
    ("movielens_csv", movielens_csv),
    ("recbole", recbole),
    ("paddlerec", paddlerec),
    ("ncf", ncf),
):
    reader(_corpus, 3, name=_name)(lambda folder: of_source(folder) and None)


def tables() -> Files:
    return {
        "users.csv": lines(",", ((u, 20 + u, f'"a, {u}"') for u in range(1, USERS + 1)), "user,age,city\n"),
        "users.dat": movielens()["users.dat"],
        "items.json": "".join(
            json.dumps({"item": i, "title": f"T {i}", "tags": ["a", "b"]}) + "\n" for i in range(1, ITEMS + 1)
        ).encode(),
    }


@reader(tables, 6)
def tables_of_users_and_items(folder: Path) -> None:
    pairs = np.array([(u, i) for u, i, _, _ in interactions()])
    dataset = from_interactions("x", pairs[:, 0], pairs[:, 1])
    for name in ("users.csv", "users.dat"):
        file = folder / name
        users = read_movielens_users(file) or read_users(Table(table_file(file)))
        sound(all(len(column) == len(users.original_id) for column in users.columns.values()), "columns of users")
        dataset_is_sound(with_users(dataset, users), folder)
    dataset_is_sound(with_items(dataset, read_items(Table(table_file(folder / "items.json")))), folder)


# -- prepared data, shards --------------------------------------------------------------------------------------


def prepared() -> Files:
    meta = {
        "source": {"kind": "made", "name": "x"},
        **{"partitioner": "iid", "seed": 1, "num_neg": 4, "test_negative": "sampled"},
        **{"num_users": USERS, "num_items": ITEMS, "train_rows": len(trained_rows())},
    }
    users = ((u, u + 1, 3, "a", u % 3) for u in range(USERS))
    items = ((i, i + 1, f"T {i}", "a|b" if i % 2 else "c") for i in range(ITEMS))
    return {
        "big_train/train_data.csv": lines(",", sorted(trained_rows())),
        "big_test/test_data.csv": lines(",", ranked_rows()),
        "users.csv": lines(",", users, "user,original_id,activity,tag,region\n"),
        "items.csv": lines(",", items, "item,original_id,title,tags\n"),
        "meta.json": json.dumps(meta).encode(),
    }


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


def rows_of(content: bytes, slots: int, sizes: tuple[int, int]) -> Iterator[list[list[float]]]:
    """The rows of MultiSlot text or CSV, by `split` and `float`; `Wrong` if one is not sound."""
    for line in (each.decode("latin-1") for each in content.splitlines()):
        if not line.strip():
            continue
        if "," in line:
            row = [[float(each)] for each in line.split(",")]
        else:
            tokens, row = line.split(), []
            while tokens:
                width = int(tokens[0])
                row.append([float(each) for each in tokens[1 : 1 + width]])
                sound(len(row[-1]) == width > 0, f"a slot of {width}: {line[:60]}")
                tokens = tokens[1 + width :]
        sound(len(row) == slots and len(row[0]) == 1, f"{len(row)} slots: {line[:60]}")
        for number, slot in enumerate(row):
            for each in slot:
                sound(math.isfinite(each), f"{each} in a row")
                if number == 0:
                    sound(each == int(each) and 0 <= each < sizes[0], f"user {each} of {sizes[0]}")
                elif number == slots - 1:
                    sound(each in (0, 1), f"label {each}")
                elif slots == 3:
                    sound(each == int(each) and 0 <= each < sizes[1], f"item {each} of {sizes[1]}")
        yield row


def multislot(rows: Any) -> bytes:
    return b"".join(b"1 %d 1 %d 1 %d\n" % tuple(row) for row in rows)


def of_shard(rows: Any, shard: int) -> list[tuple[int, int, int]]:
    return [row for row in rows if row[0] % SHARDS == shard]


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
    config = _config().replace(
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
def _config() -> Config:
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


# -- runs -------------------------------------------------------------------------------------------------------


def record(client: Any, epoch: int) -> dict[str, Any]:
    return {
        **{"epoch": epoch, "client": client, "rows": 40, "seconds": 0.5, "rows_per_second": 80.0, "train_loss": 0.5},
        **{"train_auc": 0.7, "test_auc": 0.7, "test_users": 6, "test_tied": 0, "hr": 0.5, "ndcg": 0.25, "top_k": 10},
    }


def messages() -> tuple[ClientReport, Decision]:
    logits = np.arange(8, dtype=np.float16).reshape(4, 2)
    report = ClientReport(1, 2, 40, 40, 0.5, 0.5, 0.7, 0.7, 0.5, 0.2, 6, Device("phone", 0.5, 1e6), 10, 20)
    report = ClientReport(**{**vars(report), "extra": {"logits": logits, "x": 0.5}})
    return report, Decision("JOIN", 0.5, 1.0, "because", {"soft": np.ones((3, 2), np.float32)})


def a_run() -> Files:
    report, decision = messages()
    records = [record(client, epoch) for epoch in range(3) for client in (0, 1, ALL)]
    said = [rounds.Round(n, "join_all", {1: report}, {0: decision, 1: decision}, (0,), 0.5) for n in range(2)]
    status = {"role": "worker.0", "pid": 1, "state": "done", "error": "", "times": {"starting": 1.0, "done": 2.0}}
    with tempfile.TemporaryDirectory() as name:
        roles.write_status(Path(name), "worker.0", "done")
        status = json.loads((Path(name) / "worker.0.json").read_text())
    address = {"endpoint": "127.0.0.1:1", "workers": 2, "token": "ab"}
    return {
        "metrics.jsonl": "".join(json.dumps(each) + "\n" for each in records).encode(),
        "rounds.jsonl": "".join(each.to_json() + "\n" for each in said).encode(),
        "result.json": json.dumps({"state": "done", "model": "model/2", "epochs": 3, "metrics": records[-1]}).encode(),
        "roles/worker.0.json": json.dumps(status).encode(),
        "coordinator/address.json": json.dumps(address).encode(),
        "config.yaml": a_job()["job.yaml"],
        "model/2/rec_static.pdmodel": b"model",
        "model/2/model.json": json.dumps(signature()).encode(),
        "model/2/private/0.npz": b"none",
    }


def signature() -> dict[str, Any]:
    return {
        **{"feeds": ["user_input", "item_input"], "private": ["user_emb"], "paddle": "3.0.0", "epoch": 2, "client": 0},
        **{"config": _config().to_dict(), "public_users": [1, 2], "mappings": {"users.csv": "0" * 64}},
        "structure": Structure.from_record(
            {"product": ["u", "i"], "mlp": None, "layers": [], "prediction": ["w", "b"], "bias": "c"}
        ).to_record(),
        "ids": {"users": USERS, "items": ITEMS, "sha256": {}},
    }


@reader(a_run, 12)
def run(folder: Path) -> None:
    whole = Run(folder)
    for each in whole.metrics:
        sound(isinstance(each.epoch, int) and each.epoch >= 0, f"epoch {each.epoch!r}")
        sound(each.client == ALL or (type(each.client) is int and each.client >= 0), f"client {each.client!r}")
        for name in ("rows", "test_users", "top_k", "test_tied"):
            sound(type(getattr(each, name)) is int and getattr(each, name) >= 0, f"{name} {getattr(each, name)!r}")
        for name in ("seconds", "train_loss", "train_auc", "test_auc", "hr", "ndcg", "validation_hr", "epsilon"):
            sound(type(getattr(each, name)) in (int, float), f"{name} {getattr(each, name)!r}")
        for name in ("train_auc", "test_auc", "hr", "ndcg"):
            sound(math.isnan(getattr(each, name)) or 0 <= getattr(each, name) <= 1, f"{name} {getattr(each, name)!r}")
    sound(isinstance(whole.result, dict) and isinstance(whole.result.get("state"), str), "result")


@reader(a_run, 8)
def run_of_coordinator(folder: Path) -> None:
    directory = RunDirectory(folder)
    for each in rounds.RoundLog(directory.rounds):
        sound(type(each.round) is int and each.round >= 0 and isinstance(each.strategy, str), "round")
        sound(all(type(client) is int for client in (*each.missing, *each.reports, *each.decisions)), "clients")
        sound(type(each.seconds) in (int, float) and each.seconds >= 0, "seconds")
        each.table(3)
    for reports in rounds.recorded_reports(directory):
        for client, report in reports.items():
            sound(type(client) is int and report.rows >= 0 and report.seconds >= 0, "report")
    address = Address.read(directory)
    if address is not None:
        sound(isinstance(address.token, str) and isinstance(address.endpoint, str), "address")
        sound(type(address.workers) is int and 0 < address.workers < 10**6, "workers")
    for name, status in roles.read_statuses(directory.roles).items():
        sound(name == status.role and type(status.pid) is int and status.pid > 0, "pid")
        sound(isinstance(status.state, str) and isinstance(status.error, str), "state")
        sound(math.isfinite(status.time), "time")
        status.process()


@reader(
    lambda: {"metrics.jsonl": b"".join(json.dumps(record(c, e)).encode() + b"\n" for e in range(3) for c in range(2))}
)
def recording(folder: Path) -> None:
    found = simulation.Recording.read(folder / "metrics.jsonl")
    sound(all(np.isfinite(curve).all() for curve in found.curves.values()), "curves")
    sound(math.isfinite(found.seconds_per_row) and found.seconds_per_row >= 0, "seconds")
    sound((found.rows > 0).all() and (found.test_users >= 0).all(), "rows")


@reader(a_run, 8)
def saved_model(folder: Path) -> None:
    saved = SavedModel.open(folder / "model" / "2")
    sound(saved.epoch is None or (type(saved.epoch) is int and saved.epoch >= 0), f"epoch {saved.epoch!r}")
    sound(saved.client is None or (type(saved.client) is int and saved.client >= 0), f"client {saved.client!r}")
    sound(all(type(each) is int and each >= 0 for each in saved.clients), "clients")
    if "structure" in saved.signature:
        structure = Structure.from_record(saved.signature["structure"])
        sound(all(isinstance(name, str) for name in structure.names), "structure")
    saved.config()
    saved.metrics()
    SavedModel.open(folder)


# -- parts and exports ------------------------------------------------------------------------------------------


def npz(arrays: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def parts() -> Files:
    rng = np.random.default_rng(1)
    return {
        f"{k}.npz": npz(
            {
                "user_emb/rows": np.arange(k, USERS, SHARDS),
                "user_emb/values": rng.normal(size=(USERS // SHARDS, 4)).astype("f4"),
                **({"bias/values": rng.normal(size=4).astype("f4")} if k == 0 else {}),
            }
        )
        for k in range(SHARDS)
    }


@reader(parts, 6)
def private_part(folder: Path) -> None:
    files = sorted(folder.rglob("*.npz"))
    loaded = [private_parts.load(path) for path in files]
    whole = {"user_emb": np.zeros((USERS, 4), np.float32), "bias": np.zeros(4, np.float32)}
    joined = private_parts.join(loaded, whole)
    for name, values in joined.items():
        sound(values.shape == whole[name].shape and values.dtype == np.float32, f"{name} {values.shape} {values.dtype}")
        sound(np.isfinite(values).all(), f"{name} is not finite")


def exported() -> Files:
    users, positives = (
        np.arange(USERS),
        [sorted({i for u, i, _ in trained_rows() if u == user}) for user in range(USERS)],
    )
    arrays = {
        "indptr": np.cumsum([0, *map(len, positives)]),
        "items": np.concatenate(positives).astype(np.int32),
    }
    files: Files = {
        "items.csv": prepared()["items.csv"],
        "users.csv": lines(",", ((u, u + 1) for u in users), "user,original_id\n"),
        "history.npz": npz(arrays),
    }
    return {**files, "model.json": json.dumps({**signature(), "ids": checksums(files)}).encode()}


def checksums(files: Files) -> dict[str, Any]:
    names = ("items.csv", "users.csv", "history.npz")
    found = {name: hashlib.sha256(files[name]).hexdigest() for name in names if isinstance(files.get(name), bytes)}  # type: ignore[arg-type]
    return {"users": USERS, "items": ITEMS, "sha256": found}


def seal_export(files: Files) -> None:
    try:
        content = json.loads(files["model.json"])  # type: ignore[arg-type]
        content["ids"] = checksums(files)
        files["model.json"] = json.dumps(content).encode()
    except Exception:
        pass


@reader(exported, 10, seal_export)
def export(folder: Path) -> None:
    (folder / "rec_static.pdmodel").write_bytes(b"model")
    saved = SavedModel.open(folder)
    if not saved.exported:
        return
    found = catalogue.Catalogue.read(saved.folder, saved.signature["ids"].get("sha256", {}))
    items = len(found.items.title)
    ids_are_below(found.users, 10**8, "users")
    sound(len(set(found.users.tolist())) == len(found.users) == len(found.original_users), "users")
    sound(len(found.items.tags) == len(found.items.original_id) == items, "items")
    for position, original in enumerate(found.original_users.tolist()[:USERS]):
        seen = found.seen(position).tolist()
        ids_are_below(np.array(seen), items, "history")
        sound(seen == sorted(set(seen)), "history is not in order")
        found.position(original)


@reader(lambda: {"policy.npz": (environment.shipped("configs/ddpg_policy.npz")).read_bytes()}, 2)
def policy(folder: Path) -> None:
    for name, weights in ddpg_agent.read_policy(folder / "policy.npz").items():
        sound(weights.dtype == np.float32 and np.isfinite(weights).all(), name)


def a_checkpoint() -> Files:
    with tempfile.TemporaryDirectory() as name:
        run, _ = RunDirectory.claim(Path(name) / "run", "me")
        run.append_metrics([record(ALL, 0)])
        training_state.write_shared(run, 3, {"items": np.ones((ITEMS, 4), np.float32)})
        for worker in range(SHARDS):
            parts_of = {"program": {"users": np.ones(4, np.float32)}, "local": {"rows": np.array([9, 1, 0])}}
            training_state.write_own(run, 3, worker, parts_of)
        training_state.complete(run, 3, (2, 0.5), {"run": "a", "net": "b", "data": "c"}, 2)
        return {
            path.relative_to(run.path).as_posix(): path.read_bytes()
            for path in (run.metrics, *run.checkpoint.rglob("*"))
            if path.is_file()
        }


def seal_checkpoint(files: Files) -> None:
    with contextlib.suppress(Exception):
        content = json.loads(files["checkpoint/3/checkpoint.json"])
        for name in content["files"]:
            kept = files[f"checkpoint/3/{name}"]
            content["files"][name] = [len(kept), hashlib.sha256(kept).hexdigest()]  # type: ignore[arg-type]
        files["checkpoint/3/checkpoint.json"] = json.dumps(content).encode()


@reader(a_checkpoint, 6, seal_checkpoint)
def checkpoint(folder: Path) -> None:
    run = RunDirectory(folder)
    epochs = training_state.epochs(run)
    state = training_state.newest(run)
    if state is None:
        raise DataError("There is no checkpoint that is whole.")
    sound(state.epoch in epochs and type(state.best[0]) is int, "epoch")
    for name, values in {**state.shared(), **state.own(0).get("program", {})}.items():
        sound(isinstance(values, np.ndarray), name)
    before = run.metrics.read_bytes() if run.metrics.is_file() else b""
    run.log.mkdir(exist_ok=True)
    training_state.go_back(run, state)
    if run.metrics.is_file():
        sound(before.startswith(run.metrics.read_bytes()), "records")


# -- messages ---------------------------------------------------------------------------------------------------


@reader(lambda: {"m.msgpack": wire.encode(messages()[0], "int8")}, 8)
def report_message(folder: Path) -> None:
    report = wire.decode_report(given(folder / "m.msgpack"))
    check_fields(report, {"logits": (4, 2), "x": ()})
    for name in ("client", "round", "shard_rows", "rows", "test_users"):
        sound(type(getattr(report, name)) is int and getattr(report, name) >= 0, name)
    sound(math.isfinite(report.seconds) and report.seconds >= 0, "seconds")
    sound(0 < report.device.capacity < math.inf, "capacity")


@reader(lambda: {"m.msgpack": wire.encode(messages()[1], "float16")}, 6)
def decision_message(folder: Path) -> None:
    decision = wire.decode_decision(given(folder / "m.msgpack"))
    sound(decision.next_state in ("JOIN", "WAIT", "FINISH"), "state")
    sound(0 < decision.local_epochs < math.inf and isinstance(decision.reason, str), "epochs")
