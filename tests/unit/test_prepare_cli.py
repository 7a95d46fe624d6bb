"""prepare.py, gen_heter_data.py and run.sh as a user runs them: files, messages, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data import load_manifest, parse_multislot, read_csv_rows

MOVIELENS = Path(__file__).resolve().parents[2] / "datasets" / "movielens"
EXAMPLE = MOVIELENS / "fl_partitioner_example.py"


def run(script: str, *args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = ["bash"] if script.endswith(".sh") else [sys.executable]
    return subprocess.run(
        [*program, str(MOVIELENS / script), *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared dir")  # a space, as in many a path
    result = run("prepare.py", "--source", "synthetic", "--out", out)
    assert result.returncode == 0, result.stderr
    return out


def test_prepare_writes_rows_tables_and_meta(prepared: Path) -> None:
    assert list(tree(prepared)) == [
        "big_test/test_data.csv",
        "big_train/train_data.csv",
        "items.csv",
        "meta.json",
        "users.csv",
    ]
    meta = json.loads((prepared / "meta.json").read_text())
    train = read_csv_rows(prepared / "big_train" / "train_data.csv")
    test = read_csv_rows(prepared / "big_test" / "test_data.csv")
    assert meta["source"] == {"kind": "synthetic", "name": "synthetic"}
    assert (meta["num_users"], meta["num_items"], meta["seed"], meta["num_neg"]) == (600, 400, 2022, 4)
    assert meta["train_rows"] == len(train) == 5 * meta["train_positives"]
    assert meta["test_rows"] == len(test) == 60_000 and meta["test_users"] == 600
    groups = test.reshape(600, 100, 3)
    assert (groups[:, :, 0] == np.arange(600)[:, None]).all()
    assert (groups[:, 0, 2] == 1).all() and (groups[:, 1:, 2] == 0).all()


def test_the_same_seed_gives_the_same_bytes_and_progress_goes_to_stderr(prepared: Path, tmp_path: Path) -> None:
    result = run("prepare.py", "--source", "synthetic", "--out", tmp_path / "again", cwd=tmp_path)
    assert tree(tmp_path / "again") == tree(prepared)
    assert result.stdout == ""
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "read synthetic",
        "sample training negatives",
        "make the test set",
        f"write {tmp_path / 'again'}",
    ]
    for name in ("one", "two"):
        assert run("gen_heter_data.py", "--data", prepared, "--out", tmp_path / name).returncode == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    run("prepare.py", "--source", "synthetic", "--seed", 7, "--out", tmp_path / "other")
    assert tree(tmp_path / "other")["users.csv"] != tree(prepared)["users.csv"]


def test_shards_hold_every_row_once_by_region(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "not" / "there yet"
    result = run("gen_heter_data.py", "--data", prepared, "--out", out)
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(out)
    assert manifest is not None and manifest.num_shards == 10
    assert (manifest.num_users, manifest.num_items, manifest.format) == (600, 400, "multislot")
    assert manifest.partitioner == {"name": "zip_first_digit", "options": {"bad_zip": "spread"}}
    assert manifest.bad_zip == {"policy": "spread", "users": 0, "train_rows": 0}
    assert manifest.source["kind"] == "synthetic" and manifest.source["num_neg"] == 4
    train = read_csv_rows(prepared / "big_train" / "train_data.csv")
    zip_codes = [line.split(",")[2] for line in (prepared / "users.csv").read_text().splitlines()[1:]]
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
    assert result.stdout == f"written: 10 shards, {len(train):,} training rows ({listed})\n"


def test_four_shards_after_ten_leave_four_and_verify_finds_damage(prepared: Path, tmp_path: Path) -> None:
    run("gen_heter_data.py", "--data", prepared, "--out", tmp_path)
    result = run(
        *("gen_heter_data.py", "--data", prepared, "--out", tmp_path, "--num_shards", 4),
        *("--partitioner", "dirichlet_genre:alpha=5", "--format", "csv"),
    )
    assert result.returncode == 0, result.stderr
    assert [name for name in tree(tmp_path) if name.startswith("fl_train_data")] == [
        f"fl_train_data/part-00{k}.csv" for k in range(4)
    ]
    assert run("gen_heter_data.py", "--out", tmp_path, "--verify").stdout.startswith("verified: 4 shards")
    part = tmp_path / "fl_train_data" / "part-002.csv"
    part.write_bytes(part.read_bytes().replace(b"1\n", b"0\n", 1))
    damaged = run("gen_heter_data.py", "--out", tmp_path, "--verify")
    assert damaged.returncode == 2 and "part-002.csv must have the SHA-256" in damaged.stderr


def test_the_example_partitioner_runs_from_the_command_line(prepared: Path, tmp_path: Path) -> None:
    result = run(
        *("gen_heter_data.py", "--data", prepared, "--out", tmp_path),
        *("--num_shards", 3, "--partitioner", f"{EXAMPLE}:by_activity"),
    )
    assert result.returncode == 0, result.stderr
    manifest = load_manifest(tmp_path)
    assert manifest is not None
    rows = [shard.train.rows for shard in manifest.shards]
    assert rows == sorted(rows, reverse=True) and [shard.train.users for shard in manifest.shards] == [200] * 3


def test_bad_zip_codes_are_counted_and_warned_of_once(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "data")
    users = tmp_path / "data" / "users.csv"
    lines = users.read_text().splitlines()
    for n, code in ((1, ""), (2, "K1A")):
        fields = lines[n].split(",")
        lines[n] = ",".join([*fields[:2], code, *fields[3:]])
    users.write_text("\n".join(lines) + "\n")
    for policy, dropped in (("spread", 0), ("drop", 2)):
        result = run(
            *("gen_heter_data.py", "--data", tmp_path / "data", "--out", tmp_path / "out"),
            *("--partitioner", f"zip_first_digit:bad_zip={policy}"),
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("warning:") == 1 and "2 of 600 users have another" in result.stderr
        manifest = load_manifest(tmp_path / "out")
        assert manifest is not None
        assert manifest.bad_zip["policy"] == policy and manifest.bad_zip["users"] == 2
        assert manifest.dropped_users == dropped
        lost = manifest.bad_zip["train_rows"] if dropped else 0
        train = read_csv_rows(prepared / "big_train" / "train_data.csv")
        assert manifest.totals["train_rows"] == len(train) - lost


def test_an_empty_shard_stops_before_anything_is_written(prepared: Path, tmp_path: Path) -> None:
    result = run(
        *("gen_heter_data.py", "--data", prepared, "--out", tmp_path / "out"),
        *("--num_shards", 700, "--partitioner", "iid"),
    )
    assert result.returncode == 2
    assert "gen_heter_data.py: error: Every shard must have training rows" in result.stderr
    assert not (tmp_path / "out").exists()


def test_given_negatives_become_the_test_set(prepared: Path, tmp_path: Path) -> None:
    test = read_csv_rows(prepared / "big_test" / "test_data.csv").reshape(600, 100, 3)
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
    assert run("prepare.py", *args).returncode == 0
    given = read_csv_rows(tmp_path / "out" / "big_test" / "test_data.csv").reshape(600, 100, 3)
    assert (given[:, 0] == test[:, 0]).all() and (given[:, 1:] == test[:, :0:-1]).all()
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["test_negative"] == "x.test.negative"


def test_few_items_are_warned_of_and_counted(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("".join(f"{u}::{u * 3 + i}::5::{i}\n" for u in (1, 2) for i in range(3)))
    (tmp_path / "users.dat").write_text("1::F::1::10::10000\n2::F::1::10::90000\n")
    result = run("prepare.py", "--source", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "2 of 2 test users have fewer than 99 negatives (the smallest number is 3)" in result.stderr
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["test_users_with_fewer_negatives"] == 2


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        ("prepare.py", ("--source", "nowhere"), "prepare.py: error: --source must be 'synthetic'"),
        (
            "prepare.py",
            ("--source", "synthetic", "--num_neg", "0"),
            "num_neg must be at least 1. Received: 0",
        ),
        ("prepare.py", ("--source", "synthetic", "--seed", "-1"), "--seed must be 0 or more. Received: -1"),
        ("prepare.py", ("--source", "synthetic", "--test_negative", "no"), "must be readable. Received: no"),
        ("prepare.py", ("--source", "synthetic", "--out", "file/below"), "must be writable. Received: file"),
        ("gen_heter_data.py", ("--data", "."), "--data must be a folder that prepare.py wrote. Received: ."),
        ("gen_heter_data.py", ("--partitioner", "idd"), "Did you mean 'iid'?"),
        ("gen_heter_data.py", ("--verify", "--out", "."), "--out must be a folder with a manifest.json"),
        ("run.sh", ("nowhere.zip",), "run.sh: error: SOURCE must be a URL, a file or a folder"),
        ("run.sh", ("--nosuch",), "run.sh: error: an option must be one of"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(
    tmp_path: Path, script: str, args: tuple[str, ...], message: str
) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    if script != "run.sh" and "--out" not in args:
        args = (*args, "--out", str(tmp_path / "out"))
    elif script == "run.sh":
        args = ("--out", str(tmp_path / "out"), *args)
    result = run(script, *args, cwd=tmp_path)
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
    assert result.returncode == 0 and result.stdout.startswith("Usage: run.sh [--out DIR] [--no-checksum] [SOURCE]")
