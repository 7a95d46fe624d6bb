"""prepare.py, gen_heter_data.py and run.sh as a user runs them: files, messages, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fl_rec.config import Config
from fl_rec.data.manifest import load_manifest
from fl_rec.data.sources.registry import load_source
from fl_rec.data.text import parse_multislot, read_rows
from fl_rec.job.check import check_job
from tests.forks import Forks

ROOT = Path(__file__).resolve().parents[3]
MOVIELENS = ROOT / "datasets" / "movielens"
EXAMPLE = MOVIELENS / "fl_partitioner_example.py"


def run(script: str, *args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A tool in a process of its own."""
    program = ["bash"] if script.endswith(".sh") else [sys.executable]
    return subprocess.run(
        [*program, str(MOVIELENS / script), *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
    )


Play = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """As `run`, in a fork of a process that has imported what the tools do."""
    forks = Forks("fl_rec.data.prepare", "fl_rec.data.shards")
    yield lambda script, *args, cwd=ROOT: forks.play(str(MOVIELENS / script), *args, cwd=cwd)
    forks.close()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared dir")  # a space, as in many a path
    result = run("prepare.py", "--source", "synthetic", "--out", out)
    assert result.returncode == 0, result.stderr
    return out


def test_what_is_read_is_not_written_over(play: Play, tmp_path: Path) -> None:
    """A table of users of one's own is called so more often than not."""
    (tmp_path / "users.csv").write_text("user,region\n1,north\n")
    arguments = ("--source", "synthetic", "--users", "users.csv")
    result = play("prepare.py", *arguments, "--out", ".", cwd=tmp_path)
    assert result.returncode == 2 and list(tree(tmp_path)) == ["users.csv"]
    assert result.stderr.endswith(
        "What is read must not be written over. Received: users.csv, and --out ., where users.csv is written. Name "
        "another folder: --out DIR\n"
    )
    assert play("prepare.py", *arguments, "--out", "other", cwd=tmp_path).returncode == 0


def test_prepare_cuts_too_if_asked_and_leaves_a_job_to_start_from(play: Play, tmp_path: Path) -> None:
    tool = ("prepare.py", "--source", "synthetic", "--out", tmp_path)
    result = play(*tool, "--num_shards", 3, "--partitioner", "taste")
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(tmp_path / "fl_data")
    assert manifest is not None and (manifest.num_shards, manifest.partitioner["name"]) == (3, "taste")
    assert result.stdout.endswith(f"\njob: {tmp_path}/job.yaml\nnext: fl-rec run -m {tmp_path}/job.yaml\n")
    job = tmp_path / "job.yaml"
    config = Config.load(job)
    assert config.runner.train_data_dir == tmp_path / "fl_data" / "fl_train_data"
    assert check_job(config, 3).train_rows == tuple(shard.train.rows for shard in manifest.shards)
    play(*tool, "--client_column", "zip_code", "--num_shards", 2, "--validation")
    assert Config.load(job).runner.validation_data_dir == tmp_path / "fl_data" / "fl_valid_data", (
        "nobody had changed it"
    )
    assert check_job(Config.load(job), 2).validation_shards
    job.write_text(job.read_text() + "# mine\n")
    result = play(*tool, "--num_shards", 2)
    assert f"{job} is kept as it was" in result.stderr and job.read_text().endswith("# mine\n")
    manifest = load_manifest(tmp_path / "fl_data")
    assert manifest is not None and manifest.partitioner["name"] == "zip_first_digit", "what suits the source"


def test_cutting_that_is_refused_before_the_work(play: Play, tmp_path: Path) -> None:
    for options, message in (
        (("--partitioner", "tatse"), "Did you mean taste?"),
        (("--client_column", "zipcode"), "Did you mean zip_code? The columns: zip_code."),
        (("--client_column", "zip_code", "--partitioner", "iid"), "Received: --partitioner iid beside it."),
    ):
        result = play("prepare.py", "--source", "synthetic", "--out", tmp_path / "out", *options)
        assert (result.returncode, result.stdout) == (2, "") and message in result.stderr
        assert not (tmp_path / "out").exists()


def test_prepare_writes_rows_tables_and_meta(prepared: Path) -> None:
    assert list(tree(prepared)) == [
        "big_test/test_data.csv",
        "big_train/train_data.csv",
        "items.csv",
        "meta.json",
        "users.csv",
    ]
    meta = json.loads((prepared / "meta.json").read_text())
    train = read_rows(prepared / "big_train" / "train_data.csv")
    test = read_rows(prepared / "big_test" / "test_data.csv")
    assert meta["source"] == {"kind": "synthetic", "name": "synthetic"}
    assert (meta["num_users"], meta["num_items"], meta["seed"], meta["num_neg"]) == (600, 400, 2022, 4)
    assert meta["train_rows"] == len(train) == 5 * meta["train_positives"]
    assert meta["test_rows"] == len(test) == 60_000 and meta["test_users"] == 600
    groups = test.reshape(600, 100, 3)
    assert (groups[:, :, 0] == np.arange(600)[:, None]).all()
    assert (groups[:, 0, 2] == 1).all() and (groups[:, 1:, 2] == 0).all()


def test_the_shards_come_with_the_names_of_users_and_items(play: Play, prepared: Path, tmp_path: Path) -> None:
    assert play("gen_heter_data.py", "--data", prepared, "--out", tmp_path).returncode == 0
    manifest = load_manifest(tmp_path)
    assert manifest is not None
    for name in ("items.csv", "users.csv"):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes()
        assert manifest.mappings[name] == hashlib.sha256((prepared / name).read_bytes()).hexdigest()
    assert play("gen_heter_data.py", "--out", tmp_path, "--verify").returncode == 0
    with open(tmp_path / "items.csv", "a") as file:
        file.write("400,401,One more,Drama\n")
    changed = play("gen_heter_data.py", "--out", tmp_path, "--verify")
    assert changed.returncode == 2
    assert f"{tmp_path / 'items.csv'} must have the SHA-256 {manifest.mappings['items.csv']}" in changed.stderr


def test_a_manifest_that_is_older_than_the_mappings_is_read(play: Play, prepared: Path, tmp_path: Path) -> None:
    play("gen_heter_data.py", "--data", prepared, "--out", tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    del content["mappings"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    manifest = load_manifest(tmp_path)
    assert manifest is not None and manifest.mappings == {}
    assert play("gen_heter_data.py", "--out", tmp_path, "--verify").returncode == 0


def test_the_same_seed_gives_the_same_bytes_and_progress_goes_to_stderr(prepared: Path, tmp_path: Path) -> None:
    result = run("prepare.py", "--source", "synthetic", "--out", tmp_path / "again", cwd=tmp_path)
    assert tree(tmp_path / "again") == tree(prepared)
    assert result.stdout == ""
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "read synthetic",
        "make the test set",
        f"write {tmp_path / 'again'}",
    ]
    for name in ("one", "two"):
        assert run("gen_heter_data.py", "--data", prepared, "--out", tmp_path / name).returncode == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    run("prepare.py", "--source", "synthetic", "--seed", 7, "--out", tmp_path / "other")
    assert tree(tmp_path / "other")["users.csv"] != tree(prepared)["users.csv"]


def test_shards_hold_every_row_once_by_region(play: Play, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "not" / "there yet"
    result = play("gen_heter_data.py", "--data", prepared, "--out", out)
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(out)
    assert manifest is not None and manifest.num_shards == 10
    assert (manifest.num_users, manifest.num_items, manifest.format) == (600, 400, "multislot")
    assert manifest.partitioner == {"name": "zip_first_digit", "options": {"bad_zip": "spread"}}
    assert manifest.unplaced == {"policy": "spread", "users": 0, "train_rows": 0}
    assert manifest.clients == tuple(f"zip {k}" for k in range(10))
    assert manifest.source["kind"] == "synthetic" and manifest.source["num_neg"] == 4
    train = read_rows(prepared / "big_train" / "train_data.csv")
    zip_codes = [line.split(",")[4] for line in (prepared / "users.csv").read_text().splitlines()[1:]]
    region = np.array([int(code[0]) for code in zip_codes])
    for k, shard in enumerate(manifest.shards):
        rows = np.concatenate(parse_multislot((out / shard.train.file).read_bytes(), 3), axis=1)
        assert (region[rows[:, 0]] == k).all()
        expected = train[region[train[:, 0]] == k]
        assert sorted(rows.tolist()) == sorted(expected.tolist())
        test = np.concatenate(parse_multislot((out / shard.test.file).read_bytes(), 3), axis=1)
        assert (test[::100, 2] == 1).all() and shard.test.rows == 100 * shard.test.users == len(test)
    totals = manifest.totals
    assert (totals["train_rows"], totals["test_rows"], totals["train_users"]) == (len(train), 60_000, 600)
    listed = ", ".join(str(shard.train.rows) for shard in manifest.shards)
    table, written = result.stdout.split("\n\n")
    assert written == f"written: 10 shards, {len(train):,} training rows ({listed})\n"
    lines = [line.split() for line in table.splitlines()]
    assert " ".join(lines[0]) == "shard client users training rows test rows common items tags"
    common, tags = manifest.difference["common_items"], manifest.difference["tags"]
    for k, shard in enumerate(manifest.shards):
        figures = [f"{common['shards'][k]:.3f}", f"{tags['shards'][k]:.3f}"]
        counts = [f"{count:,}" for count in (shard.train.users, shard.train.rows, shard.test.rows)]
        assert lines[2 + k] == [str(k), "zip", str(k), *counts, *figures]
    assert lines[13] == ["all", "600", f"{len(train):,}", "60,000", f"{common['mean']:.3f}", f"{tags['mean']:.3f}"]


def test_four_shards_after_ten_leave_four_and_verify_finds_damage(play: Play, prepared: Path, tmp_path: Path) -> None:
    play("gen_heter_data.py", "--data", prepared, "--out", tmp_path)
    result = play(
        *("gen_heter_data.py", "--data", prepared, "--out", tmp_path, "--num_shards", 4),
        *("--partitioner", "dirichlet_tag:alpha=5", "--format", "csv"),
    )
    assert result.returncode == 0, result.stderr
    assert [name for name in tree(tmp_path) if name.startswith("fl_train_data")] == [
        f"fl_train_data/part-00{k}.csv" for k in range(4)
    ]
    assert (
        play("gen_heter_data.py", "--out", tmp_path, "--verify")
        .stdout.splitlines()[-1]
        .startswith("verified: 4 shards")
    )
    part = tmp_path / "fl_train_data" / "part-002.csv"
    part.write_bytes(part.read_bytes().replace(b"1\n", b"0\n", 1))
    damaged = play("gen_heter_data.py", "--out", tmp_path, "--verify")
    assert damaged.returncode == 2 and "part-002.csv must have the SHA-256" in damaged.stderr


def test_the_example_partitioner_runs_from_the_command_line(play: Play, prepared: Path, tmp_path: Path) -> None:
    result = play(
        *("gen_heter_data.py", "--data", prepared, "--out", tmp_path),
        *("--num_shards", 3, "--partitioner", f"{EXAMPLE}:by_activity"),
    )
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(tmp_path)
    assert manifest is not None
    rows = [shard.train.rows for shard in manifest.shards]
    assert rows == sorted(rows, reverse=True) and [shard.train.users for shard in manifest.shards] == [200] * 3


def test_bad_zip_codes_are_counted_and_warned_of_once(play: Play, prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "data")
    users = tmp_path / "data" / "users.csv"
    lines = users.read_text().splitlines()
    for n, code in ((1, ""), (2, "K1A")):
        fields = lines[n].split(",")
        lines[n] = ",".join([*fields[:4], code])
    users.write_text("\n".join(lines) + "\n")
    for policy, dropped in (("spread", 0), ("drop", 2)):
        result = play(
            *("gen_heter_data.py", "--data", tmp_path / "data", "--out", tmp_path / "out"),
            *("--partitioner", f"zip_first_digit:bad_zip={policy}"),
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("warning:") == 1 and "2 of 600 users have another" in result.stderr
        manifest = load_manifest(tmp_path / "out")
        assert manifest is not None
        assert manifest.unplaced["policy"] == policy and manifest.unplaced["users"] == 2
        assert manifest.dropped_users == dropped
        lost = manifest.unplaced["train_rows"] if dropped else 0
        train = read_rows(prepared / "big_train" / "train_data.csv")
        assert manifest.totals["train_rows"] == len(train) - lost


def test_an_empty_shard_stops_before_anything_is_written(play: Play, prepared: Path, tmp_path: Path) -> None:
    result = play(
        *("gen_heter_data.py", "--data", prepared, "--out", tmp_path / "out"),
        *("--num_shards", 700, "--partitioner", "iid"),
    )
    assert result.returncode == 2
    assert "gen_heter_data.py: error: Every shard must have training rows" in result.stderr
    assert not (tmp_path / "out").exists()


def test_given_negatives_become_the_test_set(play: Play, prepared: Path, tmp_path: Path) -> None:
    test = read_rows(prepared / "big_test" / "test_data.csv").reshape(600, 100, 3)
    lines = [
        f"({group[0, 0]},{group[0, 1]})\t" + "\t".join(map(str, group[:0:-1, 1])) for group in test
    ]  # the negatives, backwards
    (tmp_path / "x.test.negative").write_text("\n".join(lines) + "\n")
    args = (
        "--source",
        "synthetic",
        "--out",
        tmp_path / "out",
        "--test_negative",
        tmp_path / "x.test.negative",
    )
    assert play("prepare.py", *args).returncode == 0
    given = read_rows(tmp_path / "out" / "big_test" / "test_data.csv").reshape(600, 100, 3)
    assert (given[:, 0] == test[:, 0]).all() and (given[:, 1:] == test[:, :0:-1]).all()
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["test_negative"] == "x.test.negative"


@pytest.fixture(scope="module")
def validated(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("validated")
    result = play("prepare.py", "--source", "synthetic", "--validation", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "make the validation set: 600 users, 60,000 rows (" in result.stderr
    return out


def test_validation_holds_out_one_training_positive_of_each_user(prepared: Path, validated: Path) -> None:
    assert tree(validated)["big_test/test_data.csv"] == tree(prepared)["big_test/test_data.csv"]
    trained = set(map(tuple, load_source("synthetic", 2022).train.tolist()))
    valid = read_rows(validated / "big_valid" / "valid_data.csv").reshape(600, 100, 3)
    train = read_rows(validated / "big_train" / "train_data.csv")
    held_out = set(map(tuple, valid[:, 0, :2].tolist()))
    assert held_out < trained
    assert (valid[:, :, 0] == np.arange(600)[:, None]).all()
    assert valid[:, :, 2].tolist() == [[1] + [0] * 99] * 600
    left = sorted(trained - held_out)
    assert sorted(map(tuple, train[train[:, 2] == 1, :2].tolist())) == left
    meta = json.loads((validated / "meta.json").read_text())
    before = json.loads((prepared / "meta.json").read_text())
    assert {key: meta[key] for key in meta if key not in before} == {
        "validation_rows": 60_000,
        "validation_users": 600,
        "validation_users_with_fewer_negatives": 0,
    }
    assert meta["train_positives"] == before["train_positives"] - 600 == len(left)
    assert meta["train_rows"] == len(train) == 5 * len(left)
    users = (validated / "users.csv").read_text().splitlines()[1:]
    assert sum(int(line.split(",")[2]) for line in users) == len(left)


def test_the_seed_says_who_is_held_out(play: Play, tmp_path: Path) -> None:
    """Of one set of ratings, which unlike the synthetic one is the same for all seeds."""
    pairs = [(user, item) for user in range(30) for item in range(user, user + 10)]
    (tmp_path / "x.train.rating").write_text("".join(f"{u}\t{i}\n" for u, i in pairs))  # without times
    (tmp_path / "x.test.rating").write_text("".join(f"{u}\t{u + 150}\n" for u in range(30)))
    valid = []
    for options in ((), ("--num_neg", 7), ("--seed", 7)):
        result = play("prepare.py", "--source", tmp_path / "x", "--validation", "--out", tmp_path / "out", *options)
        assert result.returncode == 0, result.stderr
        valid.append(read_rows(tmp_path / "out" / "big_valid" / "valid_data.csv"))
    assert valid[0].tolist() == valid[1].tolist()
    first, _, other = (rows[rows[:, 2] == 1, :2].tolist() for rows in valid)
    assert [user for user, _ in first] == [user for user, _ in other] == list(range(30))
    assert first != other and set(map(tuple, first + other)) < set(pairs)


def test_who_is_held_out_is_an_item_like_others(validated: Path) -> None:
    """A validation negative can be the test item, and a training negative either, as often as any other item."""
    valid = read_rows(validated / "big_valid" / "valid_data.csv").reshape(600, 100, 3)
    test = read_rows(validated / "big_test" / "test_data.csv").reshape(600, 100, 3)
    train = read_rows(validated / "big_train" / "train_data.csv")
    positives = train[train[:, 2] == 1]
    seen = set(map(tuple, positives[:, :2].tolist()))
    pairs = [tuple(pair) for pair in valid[:, 1:, :2].reshape(-1, 2).tolist()]
    assert len(set(pairs)) == len(pairs) and not set(pairs) & (seen | set(map(tuple, valid[:, 0, :2].tolist())))
    count = np.bincount(positives[:, 0], minlength=600)
    test_items = set(map(tuple, test[:, 0, :2].tolist()))
    expected = (99 / (399 - count)).sum()  # of the items of which 99 are taken
    assert len(test_items & set(pairs)) == pytest.approx(expected, abs=4 * expected**0.5)
    held_out = (test_items, set(map(tuple, valid[:, 0, :2].tolist())))
    expected = (4 * count / (400 - count)).sum()
    for items in held_out:
        drawn = sum(tuple(pair) in items for pair in train[train[:, 2] == 0, :2].tolist())
        assert drawn == pytest.approx(expected, abs=4 * expected**0.5)


def test_an_only_training_item_is_not_held_out(play: Play, tmp_path: Path) -> None:
    # Users of 3, 2 and 1 ratings; the published split makes user 0's first rating the test positive.
    ratings = [(1, 10, 5), (1, 20, 6), (1, 30, 7), (2, 10, 5), (2, 20, 6), (3, 30, 1), (3, 40, 1), (3, 50, 1)]
    (tmp_path / "ratings.dat").write_text("".join(f"{u}::{i}::5::{t}\n" for u, i, t in ratings))
    (tmp_path / "users.dat").write_text("".join(f"{u}::F::1::10::10000\n" for u in (1, 2, 3)))
    (tmp_path / "negatives").write_text("".join(f"({u},{i})" + "\t4" * 99 + "\n" for u, i in ((0, 0), (1, 1), (2, 2))))
    args = ("--source", tmp_path, "--validation", "--test_negative", tmp_path / "negatives", "--out", tmp_path / "out")
    result = play("prepare.py", *args)
    assert result.returncode == 0, result.stderr
    train = read_rows(tmp_path / "out" / "big_train" / "train_data.csv")
    valid = read_rows(tmp_path / "out" / "big_valid" / "valid_data.csv")
    # User 0's latest rating took the place of its first, and user 2's too: either can be held out like the others.
    kept, held_out = (rows[rows[:, 2] == 1, :2].tolist() for rows in (train, valid))
    assert [user for user, _ in kept] == [0, 1, 2] and [user for user, _ in held_out] == [0, 2]
    assert sorted(kept + held_out) == [[0, 1], [0, 2], [1, 0], [2, 3], [2, 4]]
    assert sorted(valid[(valid[:, 0] == 0) & (valid[:, 2] == 0), 1].tolist()) == [0, 3, 4]
    assert "warning: 2 of 2 validation users have fewer than 99 negatives (the smallest number is 3)" in result.stderr
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["validation_users"], meta["validation_users_with_fewer_negatives"]) == (2, 2)
    assert (meta["test_positives_from_file"], meta["train_positives"], meta["test_users"]) == (2, 3, 3)


def test_validation_of_given_training_rows_or_without_enough_items(play: Play, tmp_path: Path) -> None:
    csvs, few = tmp_path / "csvs", tmp_path / "few"
    for folder in (csvs, few):
        folder.mkdir()
    (csvs / "train_data.csv").write_text("0,3,1\n0,1,0\n")
    (csvs / "test_data.csv").write_text("0,2,1\n0,4,0\n")
    (few / "x.train.rating").write_text("0\t1\t5\n0\t1\t4\n1\t2\t3\n")
    (few / "x.test.rating").write_text("0\t3\t5\n")
    for source, message in (
        (
            csvs,
            "--validation holds out one training interaction of each user before training negatives are sampled, so "
            f"the source must leave them to fl-rec prepare. Received: {csvs} (paddlerec), which has training rows of "
            "its own. Leave --validation out, or prepare the interactions themselves.",
        ),
        (
            few,
            f"--validation needs a user with at least two different training items. Received: {few}, where all of 2 "
            "users have fewer. Leave --validation out.",
        ),
    ):
        result = play("prepare.py", "--source", source, "--validation", "--out", tmp_path / "out")
        assert result.returncode == 2 and result.stderr.endswith(f"prepare.py: error: {message}\n")
    assert not (tmp_path / "out").exists()


def test_validation_shards_come_and_go_with_the_validation_set(play: Play, validated: Path, tmp_path: Path) -> None:
    shutil.copytree(validated, tmp_path / "data")
    generate = ("gen_heter_data.py", "--data", tmp_path / "data", "--out", tmp_path / "out", "--num_shards", 4)
    result = play(*generate)
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(tmp_path / "out")
    assert manifest is not None
    valid = read_rows(validated / "big_valid" / "valid_data.csv")
    found = []
    for k, shard in enumerate(manifest.shards):
        file = shard.validation
        assert file is not None and file.file == f"fl_valid_data/part-00{k}.txt"
        rows = np.concatenate(parse_multislot((tmp_path / "out" / file.file).read_bytes(), 3), axis=1)
        np.testing.assert_array_equal(rows, valid[np.isin(valid[:, 0], rows[:, 0])])  # in their order
        assert (file.rows, file.positives, file.users) == (len(rows), len(rows) // 100, len(rows) // 100)
        trained = np.concatenate(parse_multislot((tmp_path / "out" / shard.train.file).read_bytes(), 3), axis=1)
        assert set(trained[:, 0].tolist()) == set(rows[:, 0].tolist())
        found.append(rows)
    assert sorted(np.concatenate(found).tolist()) == sorted(valid.tolist())
    assert manifest.totals["validation_rows"] == 60_000 and manifest.totals["validation_positives"] == 600
    assert play("gen_heter_data.py", "--out", tmp_path / "out", "--verify").returncode == 0
    part = tmp_path / "out" / "fl_valid_data" / "part-002.txt"
    part.write_bytes(part.read_bytes().replace(b"1 1\n", b"1 0\n", 1))
    damaged = play("gen_heter_data.py", "--out", tmp_path / "out", "--verify")
    assert damaged.returncode == 2 and "fl_valid_data/part-002.txt must have the SHA-256" in damaged.stderr

    assert play("prepare.py", "--source", "synthetic", "--out", tmp_path / "data").returncode == 0
    assert not (tmp_path / "data" / "big_valid" / "valid_data.csv").exists()
    assert play(*generate).returncode == 0
    assert not [name for name in tree(tmp_path / "out") if name.startswith("fl_valid_data")]
    manifest = load_manifest(tmp_path / "out")
    assert manifest is not None and [shard.validation for shard in manifest.shards] == [None] * 4
    assert not [name for name in manifest.totals if name.startswith("validation")]


def test_groups_are_the_prepared_rows_by_line(play: Play, prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "data")
    result = play("gen_heter_data.py", "--data", tmp_path / "data", "--out", tmp_path / "out", "--group")
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(tmp_path / "out")
    assert manifest is not None and manifest.group_size == 5
    train_file = tmp_path / "data" / "big_train" / "train_data.csv"
    train = read_rows(train_file).reshape(-1, 5, 3)
    found = []
    for shard in manifest.shards:
        user, items, labels = parse_multislot((tmp_path / "out" / shard.train.file).read_bytes(), 3)
        assert labels.tolist() == [[1, 0, 0, 0, 0]] * len(user) and shard.train.rows == len(user)
        assert (shard.train.positives, shard.train.users) == (len(user), len(np.unique(user)))
        assert shard.train.items == len(np.unique(items))
        test = parse_multislot((tmp_path / "out" / shard.test.file).read_bytes(), 3)
        assert [slot.shape for slot in test] == [(shard.test.rows, 1)] * 3
        found += np.concatenate([user, items], axis=1).tolist()
    assert sorted(found) == sorted(np.concatenate([train[:, 0, :1], train[:, :, 1]], axis=1).tolist())
    assert manifest.totals["train_rows"] == manifest.totals["train_positives"] == len(train)
    assert result.stdout.splitlines()[-1].startswith(f"written: 10 shards, {len(train):,} training rows (")
    again = play("gen_heter_data.py", "--data", tmp_path / "data", "--out", tmp_path / "again", "--group")
    assert again.returncode == 0 and tree(tmp_path / "out") == tree(tmp_path / "again")

    assert play("gen_heter_data.py", "--out", tmp_path / "out", "--verify").returncode == 0
    lines = train_file.read_text().splitlines()
    train_file.write_text("\n".join([*lines[1:6], lines[0], *lines[6:]]) + "\n")
    refused = play("gen_heter_data.py", "--data", tmp_path / "data", "--out", tmp_path / "refused", "--group")
    assert refused.returncode == 2 and "big_train/train_data.csv, line 1: rows can be grouped only if" in refused.stderr
    assert not (tmp_path / "refused").exists()


def test_few_items_are_warned_of_and_counted(play: Play, tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("".join(f"{u}::{u * 3 + i}::5::{i}\n" for u in (1, 2) for i in range(3)))
    (tmp_path / "users.dat").write_text("1::F::1::10::10000\n2::F::1::10::90000\n")
    result = play("prepare.py", "--source", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "2 of 2 test users have fewer than 99 negatives (the smallest number is 3)" in result.stderr
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["test_users_with_fewer_negatives"] == 2


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        ("prepare.py", ("--source", "nowhere"), "prepare.py: error: --source must be 'synthetic'"),
        (
            "prepare.py",
            ("--source", "synthetic", "--num_neg", "-1"),
            "num_neg must be 0 or more. Received: -1",
        ),
        ("prepare.py", ("--source", "synthetic", "--seed", "-1"), "--seed must be 0 or more. Received: -1"),
        ("prepare.py", ("--source", "synthetic", "--test_negative", "no"), "must be readable. Received: no"),
        ("prepare.py", ("--source", "synthetic", "--out", "file/below"), "must be writable. Received: file"),
        ("gen_heter_data.py", ("--data", "."), "--data must be a folder that fl-rec prepare wrote. Received: ."),
        ("gen_heter_data.py", ("--partitioner", "idd"), "Did you mean iid?"),
        (
            "gen_heter_data.py",
            ("--group", "--format", "csv"),
            "--group needs --format multislot, which can hold several items in a row. Received: csv",
        ),
        ("gen_heter_data.py", ("--verify", "--out", "."), "--out must be a folder with a manifest.json"),
        ("run.sh", ("nowhere.zip",), "run.sh: error: SOURCE must be a URL, a file or a folder"),
        ("run.sh", ("--nosuch",), "run.sh: error: an option must be one of"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(
    play: Play, tmp_path: Path, script: str, args: tuple[str, ...], message: str
) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    if script != "run.sh" and "--out" not in args:
        args = (*args, "--out", str(tmp_path / "out"))
    elif script == "run.sh":
        args = ("--out", str(tmp_path / "out"), *args)
    result = (play if script.endswith(".py") else run)(script, *args, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr


def ml1m_folder(folder: Path) -> Path:
    folder.mkdir()
    ratings = [f"{u}::{(u * 7 + i * 3) % 130}::5::{i}\n" for u in range(1, 21) for i in range(5)]
    (folder / "ratings.dat").write_text("".join(ratings))
    (folder / "users.dat").write_text("".join(f"{u}::F::1::10::{u % 10}0000\n" for u in range(1, 21)))
    return folder


def test_run_sh_warns_of_a_local_archive_with_another_checksum_and_refuses_a_download(tmp_path: Path) -> None:
    folder = ml1m_folder(tmp_path / "ml-1m")
    archive = shutil.make_archive(str(tmp_path / "my archive"), "zip", folder)
    local = run("run.sh", "--out", tmp_path / "a b", archive)
    assert local.returncode == 0, local.stderr
    assert "run.sh: warning:" in local.stderr and "written: 10 shards, 400 training rows" in local.stdout
    quiet = run("run.sh", "--out", tmp_path / "a b", "--no-checksum", archive)
    assert quiet.returncode == 0 and "run.sh: warning" not in quiet.stderr
    assert run("run.sh", "--out", tmp_path / "a b", folder).returncode == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="only curl reads file:// URLs; it is not installed")
def test_run_sh_refuses_a_download_with_another_checksum(tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", ml1m_folder(tmp_path / "ml-1m")))
    refused = run("run.sh", "--out", tmp_path / "out", archive.as_uri())
    assert refused.returncode == 2
    assert "must have the MD5 c4d9eecfca2ab87c1945afe126590906. Received: " in refused.stderr
    assert list((tmp_path / "out").iterdir()) == []
    taken = run("run.sh", "--out", tmp_path / "out", "--no-checksum", archive.as_uri())
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "out" / "ml-1m.zip").is_file() and (tmp_path / "out" / "fl_data" / "manifest.json").is_file()
    absent = run("run.sh", "--out", tmp_path / "out2", (tmp_path / "absent.zip").as_uri())
    assert absent.returncode == 2 and "run.sh: error: the archive must be downloadable" in absent.stderr


def test_run_sh_help() -> None:
    result = run("run.sh", "--help")
    assert result.returncode == 0 and result.stdout.startswith(
        "Usage: run.sh [--out DIR] [--public SHARE] [--no-checksum] [SOURCE]"
    )


# -- public users --------------------------------------------------------------------------------------------


def positives_of(folder: Path, *kinds: str) -> set[tuple[int, int]]:
    files = {"train": "big_train/train_data.csv", "test": "big_test/test_data.csv", "valid": "big_valid/valid_data.csv"}
    rows = np.concatenate([read_rows(folder / files[kind]) for kind in kinds])
    return set(map(tuple, rows[rows[:, 2] == 1, :2].tolist()))


@pytest.mark.parametrize("validation", [False, True])
def test_public_users_are_in_the_proxy_set_and_nowhere_else(
    play: Play, prepared: Path, validated: Path, tmp_path: Path, validation: bool
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    options = ("--validation",) if validation else ()
    result = play("prepare.py", "--source", "synthetic", "--public", 0.1, "--out", data, *options)
    assert result.returncode == 0, result.stderr
    public = read_rows(data / "big_public" / "public_data.csv")
    users = set(public[:, 0].tolist())
    assert len(users) == 60 and (public[:, 2] == 1).all()
    # As without --public, but for who is in which file.
    kinds = ("train", "test", "valid") if validation else ("train", "test")
    before, after = validated if validation else prepared, positives_of(data, *kinds)
    everything = positives_of(before, *kinds)
    assert set(map(tuple, public[:, :2].tolist())) == {pair for pair in everything if pair[0] in users}
    assert len(public) == len({tuple(row) for row in public.tolist()}), "each interaction once"
    assert after == {pair for pair in everything if pair[0] not in users}
    for kind in kinds:
        with_test_item = positives_of(before, kind) & set(map(tuple, public[:, :2].tolist()))
        assert {user for user, _ in with_test_item} == users, f"every user's {kind} item is in the proxy set"
    meta = json.loads((data / "meta.json").read_text())
    train = read_rows(data / "big_train" / "train_data.csv")
    assert (meta["public_users"], meta["public_positives"], meta["test_users"]) == (60, len(public), 540)
    assert meta["train_rows"] == len(train) == 5 * meta["train_positives"] and meta["num_users"] == 600

    result = play("gen_heter_data.py", "--data", data, "--out", out)
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(out)
    assert manifest is not None and manifest.public is not None
    folders = ("fl_train_data", "fl_test_data", "fl_valid_data")[: len(kinds)]
    for folder in folders:
        found: set[int] = set()
        for path in sorted((out / folder).iterdir()):
            found |= set(parse_multislot(path.read_bytes(), 3)[0].ravel().tolist())
        assert len(found) == 540 and not found & users
    assert [path.name for path in (out / "fl_public_data").iterdir()] == ["part-000.txt"]
    file = out / "fl_public_data" / "part-000.txt"
    written = np.concatenate(parse_multislot(file.read_bytes(), 3), axis=1)
    assert sorted(written.tolist()) == sorted(public.tolist())
    assert manifest.public.file == "fl_public_data/part-000.txt"
    assert (manifest.public.rows, manifest.public.positives, manifest.public.users) == (len(public), len(public), 60)
    assert (manifest.public.items, manifest.public.bytes) == (len(np.unique(public[:, 1])), file.stat().st_size)
    assert manifest.public.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest.totals["train_users"] == manifest.totals["test_users"] == 540


@pytest.fixture(scope="module")
def public(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare.py --public wrote, in a folder data, and the shards of it, in out."""
    folder = tmp_path_factory.mktemp("public")
    play("prepare.py", "--source", "synthetic", "--public", 0.1, "--out", folder / "data")
    result = play("gen_heter_data.py", "--data", folder / "data", "--out", folder / "out", "--num_shards", 4)
    assert result.returncode == 0, result.stderr
    return folder


def test_verify_looks_at_the_proxy_set_too(play: Play, public: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(public / "out", out)
    assert play("gen_heter_data.py", "--out", out, "--verify").returncode == 0
    part = out / "fl_public_data" / "part-000.txt"
    text = part.read_bytes()
    part.write_bytes(text.replace(b"1 1\n", b"1 0\n", 1))
    damaged = play("gen_heter_data.py", "--out", out, "--verify")
    assert damaged.returncode == 2 and "fl_public_data/part-000.txt must have the SHA-256" in damaged.stderr
    part.write_bytes(text)
    shutil.copy(part, part.with_name("part-001.txt"))
    surplus = play("gen_heter_data.py", "--out", out, "--verify")
    assert surplus.returncode == 2 and "part-001.txt" in surplus.stderr
    shutil.rmtree(part.parent)
    missing = play("gen_heter_data.py", "--out", out, "--verify")
    assert missing.returncode == 2 and "fl_public_data" in missing.stderr


def test_public_users_come_and_go(play: Play, prepared: Path, public: Path, tmp_path: Path) -> None:
    shutil.copytree(public, tmp_path / "again")
    data, out = tmp_path / "again" / "data", tmp_path / "again" / "out"
    assert play("prepare.py", "--source", "synthetic", "--public", 0.1, "--out", data).returncode == 0
    assert tree(data) == tree(public / "data"), "the same seed, the same users"
    assert play("prepare.py", "--source", "synthetic", "--out", data).returncode == 0
    assert tree(data) == tree(prepared), "no public_data.csv, and everybody's rows are back"
    generate = ("gen_heter_data.py", "--data", data, "--out", out, "--num_shards", 4)
    assert play(*generate).returncode == 0
    assert not [name for name in tree(out) if name.startswith("fl_public_data")]
    manifest = load_manifest(out)
    assert manifest is not None and manifest.public is None and manifest.totals["train_users"] == 600
    content = json.loads((out / "manifest.json").read_text())
    content.pop("public", None)
    (out / "manifest.json").write_text(json.dumps(content))
    older = load_manifest(out)
    assert older is not None and older.public is None, "a manifest that is older is read"
    assert play("gen_heter_data.py", "--out", out, "--verify").returncode == 0


def test_who_is_public_depends_on_the_seed(play: Play, tmp_path: Path) -> None:
    """Of one set of ratings, which unlike the synthetic one is the same for all seeds."""
    pairs = [(user, item) for user in range(30) for item in range(user, user + 10)]
    (tmp_path / "x.train.rating").write_text("".join(f"{u}\t{i}\n" for u, i in pairs))
    (tmp_path / "x.test.rating").write_text("".join(f"{u}\t{u + 150}\n" for u in range(30)))
    drawn = []
    for options in ((), ("--num_neg", 7), ("--seed", 7), ("--seed", 8)):
        args = ("--source", tmp_path / "x", "--public", 0.2, "--out", tmp_path / "out", *options)
        result = play("prepare.py", *args)
        assert result.returncode == 0, result.stderr
        rows = read_rows(tmp_path / "out" / "big_public" / "public_data.csv")
        drawn.append(sorted(set(rows[:, 0].tolist())))
        wanted = [[u, i, 1] for u, i in [*pairs, *((u, u + 150) for u in range(30))] if u in drawn[-1]]
        assert sorted(rows.tolist()) == sorted(wanted)
    assert [len(users) for users in drawn] == [6] * 4
    assert drawn[0] == drawn[1] and len({tuple(users) for users in drawn}) == 3


@pytest.mark.parametrize("share", ["0.0001", "0.9999"])
def test_a_share_that_is_nobody_or_leaves_nobody(play: Play, tmp_path: Path, share: str) -> None:
    result = play("prepare.py", "--source", "synthetic", "--public", share, "--out", tmp_path / "out")
    assert result.returncode == 2
    comes_to = {"0.0001": 0, "0.9999": 600}[share]
    assert result.stderr.endswith(
        "prepare.py: error: --public must be a share that some of the 600 users are, and not all. Received: "
        f"{share}, which comes to {comes_to}. Choose another share.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", ["1", "-0.1", "nan", "some"])
def test_what_is_no_share(play: Play, tmp_path: Path, share: str) -> None:
    result = play("prepare.py", "--source", "synthetic", f"--public={share}", "--out", tmp_path / "out")
    assert result.returncode == 2 and "--public" in result.stderr and "Traceback" not in result.stderr
    if share != "some":
        assert f"--public must be 0 or more, and below 1. Received: {float(share)}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_public_users_is_the_same_as_ever(play: Play, prepared: Path, tmp_path: Path) -> None:
    result = play("prepare.py", "--source", "synthetic", "--public", 0, "--out", tmp_path)
    assert result.returncode == 0 and tree(tmp_path) == tree(prepared)


def test_a_users_source_becomes_rows(play: Play, tmp_path: Path) -> None:
    lines = [f"{user}: " + ", ".join(str((user * 7 + k) % 40) for k in range(5)) for user in range(12)]
    (tmp_path / "likes.txt").write_text("\n".join(lines))
    source = f"{MOVIELENS / 'fl_source_example.py'}:likes:path=likes.txt"
    result = play("prepare.py", "--source", source, "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["source"]["kind"], meta["num_users"], meta["num_items"]) == ("likes", 12, 40)
    assert (meta["train_positives"], meta["test_users"]) == (48, 12)
    failed = play("prepare.py", "--source", source + ",sep=1", "--out", "out", cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.endswith("sep: unknown key. Its keys: path, header_lines.\n")


def shop(folder: Path) -> None:
    """Clicks of 20 users with ids such as u-03, half of whom rate 2, customers and products."""
    clicks = [f"u-{u:02x},sku {(3 * u + k) % 30},2024-05-{k + 1:02d},{2 + u % 2}" for u in range(20) for k in range(6)]
    (folder / "clicks.csv").write_text("\n".join(["customer,sku,ts,stars", *clicks]))
    customers = [f"u-{u:02x},{('north', 'south')[u % 4 // 2]}" for u in range(19)]
    (folder / "customers.csv").write_text("\n".join(["customer,region", *customers]))
    products = [f'sku {n},"Thing {n}, red",home; {n % 2}' for n in range(30)]
    (folder / "products.csv").write_text("\n".join(["sku,name,kinds", *products]))


def test_a_shops_tables_with_ids_that_are_texts(play: Play, tmp_path: Path) -> None:
    shop(tmp_path)
    options = ("--min_value", 3, "--users", "customers.csv", "--items", "products.csv", "--columns", "tags=kinds")
    result = play("prepare.py", "--source", "clicks.csv", *options, "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "columns of clicks.csv: user=customer,item=sku,time=ts,value=stars\n" in result.stderr
    assert "60 of 120 interactions have a value below 3: left out\n" in result.stderr
    assert "warning: customers.csv lacks 1 of 10 users, such as u-13\n" in result.stderr
    users, items = ((tmp_path / "out" / name).read_text().splitlines() for name in ("users.csv", "items.csv"))
    assert users[:3] == ["user,original_id,activity,tag,region", "0,u-01,5,home,north", "1,u-03,5,home,south"]
    assert users[-1] == "9,u-13,5,home,"
    assert items[:2] == ["item,original_id,title,tags", '0,sku 3,"Thing 3, red",home|1']
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["source"] == {"kind": "table", "name": "clicks.csv"} and meta["below_min_value"] == 60


def test_a_column_of_the_interactions_may_be_the_client(play: Play, tmp_path: Path) -> None:
    shop(tmp_path)
    options = ("--items", "products.csv", "--client_column", "stars", "--out", "out")
    result = play("prepare.py", "--source", "clicks.csv", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "users.csv").read_text().splitlines()[:3] == [
        "user,original_id,activity,tag,stars",
        "0,u-00,5,,2",
        "1,u-01,5,,3",
    ]
    manifest = load_manifest(tmp_path / "out" / "fl_data")
    assert manifest is not None and [shard.train.users for shard in manifest.shards] == [10, 10]
    assert "several values" not in result.stderr
    result = play("prepare.py", "--source", "clicks.csv", *options[2:3], "ts", *options[4:], cwd=tmp_path)
    assert (
        "warning: 20 of 20 users have several values of ts, such as u-00 with '2024-05-01' and '2024-05-06'; the first"
    ) in result.stderr
    wrong = play("prepare.py", "--source", "clicks.csv", "--client_column", "region", "--out", "out", cwd=tmp_path)
    assert wrong.returncode == 2 and "must have the column client=region. Received: customer, sku" in wrong.stderr
    options = ("--users", "customers.csv", "--client_column", "regoin", "--out", "out")
    wrong = play("prepare.py", "--source", "clicks.csv", *options, cwd=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.endswith(
        "error: A column must be one of the table of users, or of interactions. Received: 'regoin'. "
        "Did you mean region? The columns: region, customer, sku, ts, stars.\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--columns", "usr=customer"),
            "--columns must be role=column,..., of the roles user, item, time, value, title, tags. Received: "
            "'usr=customer'. Did you mean user?",
        ),
        (("--columns", "user"), "title, tags. Received: 'user'."),
        (("--columns", "user=custommer"), "must have the column user=custommer. Received: customer, sku, ts, stars. "),
        (
            ("--min_value", "good"),
            "--source tabular: min_value must be a number, or null. Received: min_value='good' (str).",
        ),
        (("--min_interactions", "0"), "--source tabular: min_interactions must be an integer of at least 1."),
        (
            ("--items", "products.csv", "--columns", "tags=kind"),
            "must have the column tags=kind. Received: sku, name, ki",
        ),
    ],
)
def test_options_of_a_table_that_are_wrong(play: Play, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    shop(tmp_path)
    result = play("prepare.py", "--source", "clicks.csv", *options, "--out", "out", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr, result.stderr


def test_a_table_of_other_users(play: Play, tmp_path: Path) -> None:
    shop(tmp_path)
    (tmp_path / "customers.csv").write_text("customer,region\nn-1,north\n")
    options = ("--users", "customers.csv", "--out", "out")
    result = play("prepare.py", "--source", "clicks.csv", *options, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.endswith(
        "A table of users must have users of the interactions. Received: customers.csv, with none of their 20, such as "
        "u-00. Say which column has their ids: --columns user=NAME\n"
    )


def test_a_users_partitioner_may_take_a_file(play: Play, prepared: Path, tmp_path: Path) -> None:
    """A relative path starts where the command runs, and the manifest has it as text."""
    (tmp_path / "by_table.py").write_text(
        "from pathlib import Path\nimport numpy as np\n"
        "def by_table(users, num_shards, rng, *, table: Path):\n"
        "    return np.resize(np.loadtxt(table, int), len(users))\n"
    )
    (tmp_path / "table.txt").write_text("1\n0\n0\n")
    partitioner = ("--partitioner", "by_table.py:by_table:table=table.txt", "--num_shards", 2)
    result = play("gen_heter_data.py", "--data", prepared, "--out", "out", *partitioner, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(tmp_path / "out")
    assert manifest is not None and [shard.train.users for shard in manifest.shards] == [400, 200]
    assert manifest.partitioner == {"name": "by_table.py:by_table", "options": {"table": str(tmp_path / "table.txt")}}
