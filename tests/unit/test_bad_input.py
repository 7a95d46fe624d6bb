"""Outside data is refused in words, or sound: by properties, and as it was once seen; test_fuzz.py has the rest."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_rec import files
from fl_rec.config import Config
from fl_rec.coordinator import wire
from fl_rec.coordinator.messages import ClientReport, MessageError
from fl_rec.data import shards
from fl_rec.data.manifest import load_manifest
from fl_rec.data.reader import AS_IS, Reader
from fl_rec.data.rows import Sizes
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.sources.base import Dataset, Items, from_interactions
from fl_rec.data.sources.registry import load_source
from fl_rec.data.text import multislot_text, parse_multislot, parse_table, read_rows
from fl_rec.errors import ConfigError, DataError, FLRecError
from fl_rec.files import read_arrays, read_bytes, read_json
from fl_rec.nets.tensors import read_tensors
from fl_rec.outside import as_typed
from fl_rec.packed import unpacked
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.listing import KILLED, goes_on, list_runs
from tests.fuzzing import mutations
from tests.fuzzing.readers import READERS

examples = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("name", sorted(READERS))
def test_what_is_not_damaged_is_accepted(name: str, tmp_path: Path) -> None:
    """Or all of the above could be refused for nothing."""
    for file, content in READERS[name].corpus().items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, bytes)
        (tmp_path / file).write_bytes(content)
    READERS[name].read(tmp_path)


# -- properties -------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
tokens = st.sampled_from([b"0", b"1", b"2", b"7", b"nan", b"1.5", b"-1", b" ", b"\n", b"1e9", b",", b"\r\n", b"\xff"])


@examples
@given(st.lists(tokens, max_size=60).map(b" ".join))
def test_any_text_is_rows_or_an_error(text: bytes) -> None:
    try:
        slots = parse_multislot(text, 3)
        parse_table(text, 3, b" ", "a file")
    except DataError as err:
        assert "Received" in str(err)
    else:
        assert len({len(slot) for slot in slots}) == 1


@examples
@given(st.lists(st.lists(st.integers(0, 10**18 - 1), min_size=3, max_size=3), min_size=1, max_size=20))
def test_rows_are_read_back(rows: list[list[int]]) -> None:
    table = np.array(rows, np.int64)
    text = b"".join(part.tobytes() for part in multislot_text(np.hsplit(table, 3)))
    assert np.hstack(parse_multislot(text, 3)).tolist() == rows


@examples
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=20))
def test_ids_of_any_text_stay_apart(pairs: list[tuple[str, str]]) -> None:
    users, items = (np.array(each, np.str_) for each in zip(*pairs))
    found = from_interactions("x", users, items)
    both = np.concatenate([found.train, found.test])
    kept = {(str(found.original_user[u]), str(found.items.original_id[i])) for u, i in both.tolist()}
    assert kept == set(zip(users.tolist(), items.tolist()))


@examples
@given(st.sampled_from(sorted(json.loads(READERS["job_data"].corpus()["data/manifest.json"]))), json_values)
def test_any_value_in_a_manifest(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    content = json.loads(READERS["job_data"].corpus()["data/manifest.json"])  # type: ignore[arg-type]
    (folder / "manifest.json").write_text(json.dumps({**content, key: value}))
    try:
        manifest = load_manifest(folder)
    except DataError as err:
        assert str(folder / "manifest.json") in str(err)
    else:
        assert manifest is not None and manifest.num_shards == len(manifest.shards)
        assert type(manifest.num_users) is type(manifest.num_items) is int


@examples
@given(st.sampled_from([item.name for item in dataclasses.fields(ClientReport)]), json_values)
def test_any_value_in_a_report(field: str, value: Any) -> None:
    message = msgpack.unpackb(wire.encode(ClientReport(1, 2)))
    try:
        packed = msgpack.packb({**message, field: value})
    except (OverflowError, UnicodeEncodeError):
        return  # nobody can send it
    try:
        report = wire.decode_report(packed)
    except MessageError as err:
        assert "Received" in str(err) or "no default" in str(err)
    else:
        assert type(report.client) is type(report.round) is type(report.rows) is int and report.seconds >= 0


@examples
@given(st.binary(max_size=300))
def test_what_is_packed_is_unpacked(content: bytes) -> None:
    assert unpacked(gzip.compress(content)) == content
    assert unpacked(gzip.compress(content) * 3) == content * 3


@examples
@given(st.text(max_size=60))
def test_any_yaml_is_a_configuration_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("yaml") / "job.yaml"
    path.write_text(f"runner:\n  train_data_dir: {text}\n", encoding="utf-8", errors="replace")
    try:
        assert isinstance(Config.load(path).runner.train_data_dir, Path)
    except ConfigError as err:
        assert str(path) in str(err)


# -- what was seen ----------------------------------------------------------------------------------------------


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(FLRecError) as caught:
        call()
    return str(caught.value)


def test_manifest_whose_path_is_a_list_or_leaves_its_folder(tmp_path: Path) -> None:
    content = json.loads(READERS["job_data"].corpus()["data/manifest.json"])  # type: ignore[arg-type]
    for path, says in (
        (["a"], "Input should be a valid string"),
        ("../../x", "a path must stay in its folder, and '../../x' does not"),
        ("/etc/passwd", "a path must stay in its folder, and '/etc/passwd' does not"),
    ):
        content["shards"][1]["test"]["file"] = path
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        text = refusal(lambda: load_manifest(tmp_path))
        assert f"Received: {tmp_path}/manifest.json (shards.1.test.file: " in text and says in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_users": 3 * 10**8}, "num_users: Input should be less than or equal to 50000000, and is 300000000"),
        ({"num_users": float("nan")}, "num_users: Input should be a valid integer, and is nan"),
        ({"num_items": True}, "num_items: Input should be a valid integer, and is True"),
        ({"shards": []}, "num_shards is 2, but 0 shards are listed"),
        ({"mappings": {"../x": "0"}}, "mappings has '../x'"),
        ({"totals": {"train_positives": 7}}, "totals.train_positives is 7, but those of the shards are 24 together"),
    ],
)
def test_manifest_that_claims_what_can_not_be(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    content = json.loads(READERS["job_data"].corpus()["data/manifest.json"])  # type: ignore[arg-type]
    (tmp_path / "manifest.json").write_text(json.dumps({**content, **changes}))
    assert says in refusal(lambda: load_manifest(tmp_path))


def test_rows_for_fresh_negatives_that_are_none() -> None:
    rows = np.array([[0, 1, 1], [0, 1.5, 1]])
    assert refusal(lambda: FreshNegatives(rows, 9, 2, 1, 1)) == (
        "training rows must be whole numbers [rows, 3]. Received: float64 [2, 3]. Correct what makes them."
    )
    assert "a label must be 0 or 1. Received: 2" in refusal(lambda: FreshNegatives(np.array([[0, 1, 2]]), 9, 2, 1, 1))


def dataset(train: list[list[int]], labels: int = 1) -> Dataset:
    rows = np.array([[*pair, labels] for pair in train], np.int64).reshape(-1, 3)
    items = Items(np.arange(4), [""] * 4, [""] * 4)
    return Dataset("made", np.array(train, np.int64).reshape(-1, 2), np.array([[0, 1]]), np.arange(3), items, {}, rows)


def test_data_set_of_a_source_of_ones_own() -> None:
    assert len(dataset([[0, 1], [2, 3]]).train) == 2
    assert "made, line 2: a user's id must be a whole number from 0 to 2, below num_users=3. Received: 3." in refusal(
        lambda: dataset([[0, 1], [3, 3]])
    )
    assert "an item's id must be a whole number from 0 to 3" in refusal(lambda: dataset([[0, -1]]))
    assert "a label must be 0 or 1. Received: 2." in refusal(lambda: dataset([[0, 1]], labels=2))
    assert refusal(lambda: dataset([])) == (
        "A data set must have a training row of label 1. Received: made, without any. Add some."
    )
    whole = dataset([[0, 1]])
    assert "must be whole numbers [rows, 2]. Received: float64 [1, 2]." in refusal(
        lambda: dataclasses.replace(whole, train=np.array([[0.0, 1.5]]))
    )


@pytest.mark.parametrize("bad", ["nan", "NaN", "a\\u0000b", "\\ud800", ""])
def test_ids_that_are_none(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"user": "a", "item": "b"}\n{"user": "BAD", "item": "b"}\n'.replace("BAD", bad))
    assert str(path) in refusal(lambda: load_source(str(path), 1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_items": 10**12}, "num_items: Input should be less than or equal to 50000000"),
        ({"num_users": float("nan")}, "num_users: Input should be a valid integer, and is nan"),
        ({"num_users": 11}, "num_users=11, and 12 in users.csv"),
        ({"num_users": 13}, "num_users=13, and 12 in users.csv"),
        ({"partitioner": "evil.py:run"}, "Code of your own is run when you name it yourself."),
    ],
)
def test_meta_that_claims_what_is_not(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    for name, content in READERS["partition"].corpus().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)  # type: ignore[arg-type]
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps({**meta, **changes}))
    assert says in refusal(lambda: shards.generate(tmp_path, tmp_path / "out", 2, None, "multislot", 1))


def test_shard_that_is_another_than_its_manifest_says(tmp_path: Path) -> None:
    """Of the same size, which all that was looked at."""
    for name, content in READERS["job_data"].corpus().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)  # type: ignore[arg-type]
    manifest = load_manifest(tmp_path / "data")
    assert manifest is not None
    shard = tmp_path / "data" / manifest.shards[1].train.file
    stated = manifest.stated("train", shard.parent)
    reader = Reader(AS_IS, AS_IS, Sizes(12, 40), stated)
    assert len(reader.rows([shard], 3, 10)[0]) == manifest.shards[1].train.rows
    lines = shard.read_text().splitlines()
    shard.write_text("".join(f"{line[:-1]}{1 - int(line[-1])}\n" for line in lines))
    assert refusal(lambda: reader.rows([shard], 3, 10)).startswith(
        f"{shard} must have the SHA-256 {stated[shard].sha256}, says the manifest. Received: "
    )
    said = dataclasses.replace(stated[shard], positives=1, sha256=shards.hashlib.sha256(shard.read_bytes()).hexdigest())
    assert "rows and 1 positives, says the manifest. Received: " in refusal(
        lambda: Reader(AS_IS, AS_IS, Sizes(12, 40), {shard: said}).rows([shard], 3, 10)
    )


@pytest.mark.parametrize(("value", "says"), [("999", "below num_items=400. Received: 999"), ("nan", "Received: nan")])
def test_item_of_a_shard_that_there_is_not(tmp_path: Path, value: str, says: str) -> None:
    (tmp_path / "part").write_text(f"1 0 1 5 1 1\n1 0 1 {value} 1 0\n")
    text = refusal(lambda: Reader(AS_IS, AS_IS, Sizes(6, 400)).rows([tmp_path / "part"], 3, 10))
    assert text.startswith(f"{tmp_path}/part, line 2: an item's id") and says in text
    (tmp_path / "part").write_text("1 0 1 5 1 1\n")
    assert "below num_items=0. Received: 5." in refusal(
        lambda: Reader(AS_IS, AS_IS, Sizes(6, 0)).rows([tmp_path / "part"], 3, 10)
    )


# -- bombs ------------------------------------------------------------------------------------------------------


def test_packed_files_that_fill_the_memory(tmp_path: Path) -> None:
    """Three megabytes of which three gigabytes come."""
    (tmp_path / "bomb").write_bytes(mutations._gzip_bomb())
    grows = "it grows to more than 50 times its size; unpack it yourself, if you trust who made it"
    assert grows in refusal(lambda: read_bytes(tmp_path / "bomb"))
    assert grows in refusal(lambda: read_rows(tmp_path / "bomb"))
    assert grows in refusal(lambda: load_source(str(tmp_path / "bomb"), 1))
    assert grows in refusal(lambda: Reader(AS_IS, AS_IS).rows([tmp_path / "bomb"], 3, 10))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w"):
        pass
    (tmp_path / "bomb.zip").write_bytes(mutations._zip_bomb(out.getvalue(), "t.csv"))
    assert "t.csv grows from 3,1" in refusal(lambda: load_source(str(tmp_path / "bomb.zip"), 1))
    assert "t.csv grows from 3,1" in refusal(lambda: read_arrays(tmp_path / "bomb.zip", "An array."))


def test_array_that_only_claims_its_size(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.savez(out, a=np.zeros(3))
    (tmp_path / "a.npz").write_bytes(mutations._with_member(out.getvalue(), "b.npy", "claim"))
    assert "b.npy must have 16,384,000,000,000 bytes for its shape [1000000000, 4096], and has 0" in refusal(
        lambda: read_arrays(tmp_path / "a.npz", "An array.")
    )


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for read in (read_bytes, read_json):
        assert "Not a regular file" in refusal(lambda read=read: read(tmp_path / "zeros"))  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_of_a_run_or_model(kind: str, tmp_path: Path) -> None:
    """Nobody waits for who writes into a pipe, or for a device's end."""

    def plant(path: Path) -> Path:
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        return path

    files.seal(tmp_path, "seal.json", {"identity": {}})
    content = json.loads((tmp_path / "seal.json").read_text())
    (tmp_path / "seal.json").write_text(json.dumps({**content, "files": {"planted": [0, "0" * 64]}}))
    with within(10):
        path = plant(tmp_path / "planted")
        assert "planted, which can't be read" in refusal(lambda: files.verify(tmp_path, "seal.json", "Whole.", ""))
        with pytest.raises(OSError, match="Not a regular file"):
            read_tensors(path, ["a"])
        run, _ = RunDirectory.claim(tmp_path / "runs" / "a", "0 none 0")
        plant(run.path / "job")
        assert not goes_on(run)
        assert [each.state for each in list_runs(tmp_path)] == [KILLED]
        with pytest.raises(OSError, match="Not a regular file"), run.held():
            pass


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """A wait that has no end is broken off."""

    def over(*_: Any) -> None:
        raise AssertionError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_json_and_yaml_that_go_down_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "it is nested too deeply" in refusal(lambda: read_json(path))
    path.write_text('{"a": ' + "[" * 100 + "]" * 100 + "}")
    assert "it is nested too deeply" in refusal(lambda: read_json(path))
    path.write_text("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)))
    assert "it has more than 100,000 values, or aliases without end" in refusal(lambda: Config.load(path))


def test_typed_records() -> None:
    @dataclasses.dataclass(frozen=True)
    class Kept:
        a: int
        b: str = ""

    assert as_typed(Kept, {"a": 1, "c": 2}, "A rule.", "here") == Kept(1)
    assert refusal(lambda: as_typed(Kept, {"b": 2}, "A rule.", "here", "Do so.")) == (
        "A rule. Received: here (a: Field required; b: Input should be a valid string, and is 2). Do so."
    )
