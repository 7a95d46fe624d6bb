"""From a shop's tables to recommendations in three commands, with no word of other data on the screen."""

from __future__ import annotations

import csv
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl_rec as package
from fl_rec.data.manifest import load_manifest
from fl_rec.runs.directory import RunDirectory
from tests.documented import blocks
from tests.documented import commands as commands_of

from .conftest import ROOT, TIMEOUT, Commands, clean_environment

REGIONS = ("north", "south", "west")
KINDS = ("bikes", "cups", "tea")
USERS, ITEMS = 60, 120
# The page's three commands, for this shop: its folder and one of its users.
HERE = {"shop": "data", "shop/job.yaml": "data/job.yaml", "u-006e": "u-00a"}
DOCUMENTED = [
    [HERE.get(word, word) for word in command.words[1:]] for command in commands_of(ROOT / "docs" / "own-data.md")[:3]
]
FOREIGN = re.compile(r"movie|film|zip|genre|rating", re.IGNORECASE)


def write(path: Path, header: str, rows: list[tuple[Any, ...]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables: who bought what, where who lives, and what goods are called. Regions differ in taste."""
    folder = tmp_path_factory.mktemp("my shop")
    rng = np.random.default_rng(3)
    users = [(f"u-{n:03x}", REGIONS[n % 3] if n else "") for n in range(USERS)]
    goods = [(f"sku/{n:03d}", f"Thing {n}, “fine”", KINDS[n % 3] + "; gift" * (n % 2)) for n in range(ITEMS)]
    bought = []
    for n, (user, _) in enumerate(users):
        liking = rng.random(ITEMS) + [(k % 3 == n % 3) - k / ITEMS for k in range(ITEMS)]
        for k in np.argsort(-liking)[:15]:
            when = f"2024-03-{rng.integers(1, 29):02d}T10:{rng.integers(60):02d}:00"
            bought.append((when, user, goods[k][0], int(rng.integers(1, 6))))
    write(folder / "clicks.csv", "ts,customer,sku,stars", [bought[k] for k in rng.permutation(len(bought))])
    write(folder / "customers.csv", "customer,region", users)
    write(folder / "goods.csv", "sku,title,tags", goods)
    return folder


Play = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def fl_rec(commands: Commands) -> Play:
    """Plays a command in a folder; what it says is of the shop alone."""

    def play(here: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
        done = commands.play(*arguments, cwd=here)
        said = done.stdout + done.stderr
        assert not FOREIGN.search(said), said
        return done

    return play


@pytest.fixture(scope="module")
def trained(fl_rec: Play, here: Path) -> str:
    """What the first two commands print."""
    prepare, run, _ = DOCUMENTED
    prepared = fl_rec(here, *prepare)
    assert prepared.returncode == 0, prepared.stderr
    assert "1 of 60 users have none; they are spread over all shards by user id" in prepared.stderr
    ran = fl_rec(here, *run, "-o", "runner.epochs=8")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return prepared.stdout + ran.stdout


def test_shards_are_the_regions(here: Path, trained: str) -> None:
    manifest = load_manifest(here / "data" / "fl_data")
    assert manifest is not None and manifest.clients == REGIONS and manifest.num_users == USERS
    assert manifest.partitioner == {"name": "by_column", "options": {"column": "region", "missing": "spread"}}
    assert manifest.unplaced["users"] == 1 and manifest.source["kind"] != "ml-1m"
    assert [shard.train.users for shard in manifest.shards] == [20, 20, 20]
    assert manifest.difference["tags"]["mean"] > 0.05, "regions differ in taste"
    for k, region in enumerate(REGIONS):
        assert re.search(rf"^ +{k}  {region} +20 ", trained, re.MULTILINE)
    assert len(re.findall(r" epoch \d/8 .* worst: (?:0 north|1 south|2 west) [01]\.\d{3} ", trained)) == 8
    assert "\njob: data/job.yaml\nnext: fl-rec run -m data/job.yaml\n" in trained


def test_recommendations_are_of_what_was_liked(fl_rec: Play, here: Path, trained: str) -> None:
    first = fl_rec(here, *DOCUMENTED[2], "--format", "json")
    assert first.returncode == 0, first.stderr
    exporting, model = first.stderr.splitlines()
    assert re.fullmatch(r"exporting the best model of data/runs/job-[-\d]+", exporting)
    assert model == f"model {exporting.removeprefix('exporting the best model of ')}/exported"
    told = json.loads(first.stdout)
    assert told["user"] == "u-00a" and [each["rank"] for each in told["recommendations"]] == [1, 2, 3, 4, 5]
    titles = {row[0]: row for row in csv.reader((here / "goods.csv").read_text(encoding="utf-8").splitlines())}
    for each in told["recommendations"]:
        assert each["title"] == titles[each["item"]][1] and set(each["tags"]) == set(
            titles[each["item"]][2].split("; ")
        )
    shown = fl_rec(here / "data", "recommend", "--user", "u-00a", "--history", 2)
    assert shown.returncode == 0 and shown.stderr == f"model {model.removeprefix('model data/')}\n", (
        "it is exported once"
    )
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("user u-00a, 15 items in the history: ") and lines[2].split() == [
        "rank",
        "score",
        "history",
        "tags",
    ]
    assert lines[7].split() == ["rank", "score", "recommended", "tags"] and len(lines) == 19


def test_what_was_learnt_is_better_than_chance(here: Path, trained: str) -> None:
    """Of a user's 86 items and fewer, ten at random would be right once in eight."""
    (run,) = (here / "data" / "runs").iterdir()
    assert RunDirectory(run).read_result().kept["hr@10"] > 0.3


def test_a_user_who_is_not_there(fl_rec: Play, here: Path, trained: str) -> None:
    refused = fl_rec(here, "recommend", "--model", "data", "--user", "u-0a")
    assert refused.returncode == 2
    assert "--user: A user must be one of the 60 that the model serves, by the data set's own id" in refused.stderr
    assert re.search(r"Received: u-0a. Did you mean u-0\w+\? ", refused.stderr)


def test_what_is_wrong_is_told_before_the_work(fl_rec: Play, here: Path) -> None:
    tables = ("prepare", "--source", "clicks.csv", "--columns", "user=customer,item=sku,time=ts", "--out", "other")
    refused = fl_rec(here, *tables, "--users", "customers.csv", "--client_column", "regoin")
    assert (refused.returncode, refused.stdout) == (2, "") and not (here / "other").exists()
    assert "Received: 'regoin'. Did you mean region? The columns: region, ts, customer, sku, stars.\n" in refused.stderr
    refused = fl_rec(here, *tables, "--client_column", "region", "--partitioner", "iid")
    assert "--client_column is the partitioner by_column. Received: --partitioner iid beside it." in refused.stderr


def test_the_same_from_python_in_ten_lines(here: Path) -> None:
    """The example of fl_rec's own text, which the documentation has too."""
    example = inspect.getdoc(package).split("\n\n", 1)[1].split("\n\nWhat a program needs")[0]
    program = textwrap.dedent(example)
    assert len(program.splitlines()) == 10
    assert blocks(ROOT / "docs" / "python.md", "python") == [f"{program}\n"]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT, cwd=here,
        env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not FOREIGN.search(done.stdout + done.stderr)
    lines = done.stdout.splitlines()
    (run,) = (here / "shop" / "runs").iterdir()
    figures = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if re.fullmatch(r"\d [\d.]+", line)] == [
        f"{each['epoch']} {each['hr']}" for each in figures if each["client"] == "all"
    ]
    assert lines[-6].startswith("EpochRecord(epoch=8, client='all', rows=")
    goods = {row[0]: row[1] for row in csv.reader((here / "goods.csv").read_text(encoding="utf-8").splitlines())}
    for rank, line in enumerate(lines[-5:], 1):
        number, item, title = line.rsplit(" ", 1)[0].split(" ", 2)
        assert (int(number), goods[item]) == (rank, title)
