"""From a trained job to recommendations: what is exported scores as what was trained, and what is wrong is told.

Each command is a process without fleet: its own, or a fork.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.data.manifest import load_manifest
from fl_rec.data.text import parse_multislot
from fl_rec.runs.directory import RunDirectory

from .conftest import ROOT, TIMEOUT, WORKERS, Commands, Finished, Job, clean_environment, run_script

USERS, ITEMS = 600, 400
# The last epoch of the usual job, and its best.
LAST = 3

# Every pair of a user and an item, under a model.
ALL_SCORES = """
import sys
from pathlib import Path
from fl_rec import environment
environment.quiet_paddle()
import numpy as np
from fl_rec.runs import models
net = models.load(Path(sys.argv[1]), *map(int, sys.argv[3:]))
pairs = np.indices(({users}, {items})).reshape(2, -1, 1)
np.save(sys.argv[2], net.predict(list(pairs), 1 << 16).reshape({users}, {items}))
from paddle.distributed import fleet
assert fleet.fleet._role_maker is None, "no fleet"
"""

RECOMMENDER = """
import json, sys
from pathlib import Path
from fl_rec.serving.recommend import Recommender
model = Recommender(Path(sys.argv[1]))
users = model.catalogue.original_users.tolist()
print(json.dumps({user: [[each.item, each.score] for each in model.recommend(user, 20)] for user in users}))
"""

BROKEN_OFF = """
import sys
from pathlib import Path
from fl_rec.files import drafted
try:
    with drafted(Path(sys.argv[1])) as draft:
        (draft / "new").touch()
        raise OSError("no space left")
except OSError:
    pass
"""


def succeed(*arguments: Any) -> str:
    """What a command prints, in a process of its own."""
    command = [sys.executable, "-m", "fl_rec.cli", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, env=clean_environment()
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "nothing of Paddle's own"
    return done.stdout


def all_scores(commands: Commands, model: Path, scratch: Path, *client: int) -> np.ndarray:
    commands.program(ALL_SCORES.format(users=USERS, items=ITEMS), model, scratch / "scores.npy", *client)
    return np.load(scratch / "scores.npy")


@pytest.fixture(scope="module")
def trained(trained: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The usual job of three epochs, moved to a folder of its own, in which a test may write; users are private."""
    run = RunDirectory(tmp_path_factory.mktemp("moved") / "run")
    shutil.copytree(trained.run.path, run.path)
    return dataclasses.replace(trained, run=run)


@pytest.fixture(scope="module")
def exported(trained: Finished) -> Path:
    told = succeed("export", trained.run.path).splitlines()
    hit_rate = trained.result["last"]["hr@10"]
    assert told == [
        f"model     {trained.run.model / str(LAST)}: epoch {LAST}, all clients, HR@10 {hit_rate:.4f}",
        f"ids       {USERS} users, {ITEMS} items",
        f"exported  {trained.run.path / 'exported'}",
    ]
    return trained.run.path / "exported"


def test_what_is_in_the_folder(exported: Path, trained: Finished, shards: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {
        *("rec_static.pdmodel", "rec_static.pdiparams", "model.json", "items.csv", "users.csv", "history.npz")
    }
    signature = json.loads((exported / "model.json").read_text())
    assert signature["inputs"] == [
        {"name": name, "dtype": "int64", "shape": [-1, 1]} for name in ("user_input", "item_input")
    ]
    assert (signature["output"]["dtype"], signature["output"]["shape"]) == ("float32", [-1, 1])
    assert (signature["ids"]["users"], signature["ids"]["items"]) == (USERS, ITEMS)
    assert (signature["run"], signature["epoch"], signature["client"]) == ("run", LAST, "all")
    assert (signature["private"], signature["metrics"]) == ([], trained.records("all")[LAST - 1])
    manifest = load_manifest(shards)
    assert manifest is not None and signature["mappings"] == manifest.mappings
    assert signature["config"]["hyper_parameters"]["num_users"] == USERS

    with np.load(exported / "history.npz") as file:
        indptr, items = file["indptr"], file["items"]
    positives = set()
    for shard in manifest.shards:
        for part in (shard.train, shard.test):
            user, item, label = parse_multislot((shards / part.file).read_bytes(), 3)
            positives |= set(zip(user[label == 1].tolist(), item[label == 1].tolist()))
    assert set(zip(np.repeat(np.arange(USERS), np.diff(indptr)).tolist(), items.tolist())) == positives
    assert len(items) == len(positives)


def test_it_scores_as_the_epochs_model_joined_does(
    commands: Commands, exported: Path, trained: Finished, tmp_path: Path
) -> None:
    expected = all_scores(commands, trained.run.model / str(LAST), tmp_path)
    assert expected.std() > 0.01
    np.testing.assert_allclose(all_scores(commands, exported, tmp_path), expected, rtol=0, atol=1e-5)
    assert np.abs(all_scores(commands, trained.run.model / "1", tmp_path) - expected).max() > 1e-3, (
        "another epoch would show"
    )


def test_figures_are_those_of_the_training_log(exported: Path, trained: Finished) -> None:
    """The trainer's own: of each model, of the best epoch and of one client."""
    epoch = trained.run.model / "1"
    lines = succeed("evaluate", trained.run.path, exported, epoch).splitlines()
    figures = [json.loads(line) for line in lines]
    best = trained.run.model / str(LAST)
    assert [each["model"] for each in figures] == [str(best), str(exported), str(epoch)]
    for each, number in zip(figures, (LAST, LAST, 1)):
        assert_logged(each, trained.records("all")[number - 1])
    table = succeed("evaluate", exported, "--format", "table").splitlines()
    assert table[0].split() == ["model", "epoch", "client", "users", "K", "test", "AUC", "HR@K", "NDCG@K"]
    assert table[2].split()[-1] == f"{figures[0]['ndcg']:.4f}"


def assert_logged(figures: dict[str, Any], record: dict[str, Any]) -> None:
    for name in ("test_auc", "hr", "ndcg"):
        assert figures[name] == pytest.approx(record[name], rel=0, abs=1e-9)
    for name in ("epoch", "client", "test_users", "top_k"):
        assert figures[name] == record[name]


def test_one_client(commands: Commands, trained: Finished, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "client 2"
    commands.succeed("export", trained.run.model / str(LAST), "--client", 2, "--out", out)
    manifest = load_manifest(shards)
    assert manifest is not None
    text = (shards / manifest.shards[2].train.file).read_bytes()
    users = np.unique(parse_multislot(text, 3)[0])
    with open(out / "users.csv", newline="") as file:
        assert [int(row["user"]) for row in csv.DictReader(file)] == users.tolist()
    scores, expected = (
        all_scores(commands, out, tmp_path),
        all_scores(commands, trained.run.model / str(LAST), tmp_path),
    )
    np.testing.assert_allclose(scores[users], expected[users], rtol=0, atol=1e-5)
    (line,) = commands.succeed("evaluate", out).splitlines()
    assert_logged(json.loads(line), trained.records(2)[LAST - 1])
    stranger = next(user for user in range(USERS) if user not in users)
    assert f"Received: {stranger + 1}." in commands.refusal("recommend", "--model", out, "--user", stranger + 1)
    commands.succeed("recommend", "--model", out, "--user", users[0] + 1)


def test_recommendations_are_the_best_scored_items_that_are_new(
    commands: Commands, exported: Path, tmp_path: Path
) -> None:
    recommended = json.loads(commands.program(RECOMMENDER, exported))
    scores = all_scores(commands, exported, tmp_path)
    with np.load(exported / "history.npz") as file:
        indptr, items = file["indptr"], file["items"]
    with open(exported / "items.csv", newline="", encoding="utf-8") as file:
        numbers = {int(row["original_id"]): int(row["item"]) for row in csv.DictReader(file)}
    assert len(recommended) == USERS
    for user in range(USERS):
        chosen = [numbers[item] for item, _ in recommended[str(user + 1)]]
        seen = items[indptr[user] : indptr[user + 1]]
        assert not set(chosen) & set(seen.tolist())
        told = [score for _, score in recommended[str(user + 1)]]
        np.testing.assert_allclose(told, scores[user, chosen], rtol=0, atol=1e-5)
        best = np.sort(np.delete(scores[user], seen))[::-1][:20]
        np.testing.assert_allclose(told, best, rtol=0, atol=1e-5)


def test_the_command_has_titles_and_history(commands: Commands, exported: Path, trained: Finished) -> None:
    arguments = ("recommend", "--model", exported, "--user", 42, "--top", 3, "--history", 2)
    record = json.loads(commands.succeed(*arguments, "--format", "json"))
    with open(exported / "items.csv", newline="", encoding="utf-8") as file:
        titles = {int(row["original_id"]): row["title"] for row in csv.DictReader(file)}
    assert [(each["rank"], titles[each["item"]]) for each in record["recommendations"]] == [
        (rank, each["title"]) for rank, each in enumerate(record["recommendations"], 1)
    ]
    assert len(record["recommendations"]) == 3 and len(record["history"]) == 2
    text = commands.succeed(*arguments)
    assert all(each["title"] in text for each in (*record["recommendations"], *record["history"]))
    assert "user 42, " in text.splitlines()[0]


def test_a_reader_that_has_had_enough(exported: Path) -> None:
    """A batch without end, of which somebody takes a line: the exit code is that of SIGPIPE, and nobody complains."""
    batch = (
        f"yes 42 | {sys.executable} -m fl_rec.cli recommend --model '{exported}' --users - --format json | head -n 1"
    )
    done = subprocess.run(
        ["bash", "-c", f"{batch}; echo ${{PIPESTATUS[1]}}"], capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT
    )
    first, code = done.stdout.splitlines()
    assert (json.loads(first)["user"], code, done.stderr) == (42, "141", "")


def test_mistakes_of_a_recommendation(commands: Commands, exported: Path, trained: Finished) -> None:
    model = ("--model", exported)
    assert "A user must be one of the 600 that the model serves" in commands.refusal(
        "recommend", *model, "--user", 9999
    )
    error = commands.refusal("recommend", *model, "--user", 1, "--top", ITEMS)
    assert "As many items can be recommended as the user has not had: 1 to " in error
    saved = trained.run.model / str(LAST)
    assert "which is a run's own. Export it" in commands.refusal("recommend", "--model", saved, "--user", 1)


CUT_OFF = {
    "rec_static.pdiparams": "A saved model is used as it was written, all of its files from one epoch.",
    "rec_static.pdmodel": "A saved model is used as it was written, all of its files from one epoch.",
    "users.csv": "An exported folder is used as it was written.",
    "history.npz": "An exported folder is used as it was written.",
    "model.json": "A model.json must be readable JSON.",
}


@pytest.mark.parametrize("size", [0, 0.5], ids=["empty", "half"])
def test_a_file_that_is_cut_off(commands: Commands, exported: Path, tmp_path: Path, size: float) -> None:
    for name in CUT_OFF:
        copy = shutil.copytree(exported, tmp_path / name)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: int(size * len(content))])
        assert CUT_OFF[name] in commands.refusal("recommend", "--model", copy, "--user", 1), name


def test_it_moves_without_its_run(commands: Commands, exported: Path, tmp_path: Path) -> None:
    """A folder that needs nothing else: other names would show if the data's were read."""
    copy = shutil.copytree(exported, tmp_path / "elsewhere")
    arguments = ("--user", 7, "--format", "json")
    assert commands.succeed("recommend", "--model", copy, *arguments) == commands.succeed(
        "recommend", "--model", exported, *arguments
    )


def test_a_stale_mapping(commands: Commands, trained: Finished, exported: Path, tmp_path: Path) -> None:
    """The data was made again, of other users and items: nothing is exported or evaluated, and what was there stays."""
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    other = tmp_path / "other"
    run_script("datasets/movielens/prepare.py", "--source", "synthetic", "--seed", 7, "--out", other)
    run_script("datasets/movielens/gen_heter_data.py", "--data", other, "--out", other, "--num_shards", WORKERS)
    for command in (("export", trained.run.path), ("evaluate", trained.run.path), ("evaluate", exported)):
        error = commands.refusal(*command, "--data", other)
        assert "A model's ids mean the users and items that it was trained with. Received: " in error
        assert "the data was made again since. Train again, or name the data" in error.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before


def test_users_that_were_dealt_out_anew(
    commands: Commands, trained: Finished, exported: Path, prepared: Path, tmp_path: Path
) -> None:
    """Users and items are the same, a client's users are not."""
    dealt = tmp_path / "dealt"
    run_script(
        *("datasets/movielens/gen_heter_data.py", "--data", prepared, "--out", dealt),
        *("--num_shards", WORKERS, "--partitioner", "iid"),
    )
    error = commands.refusal("export", trained.run.path, "--data", dealt, "--client", 0, "--out", tmp_path / "none")
    assert "Client 0 has trained the users of shard 0. Received: user " in error
    commands.succeed("export", trained.run.path, "--data", dealt, "--out", tmp_path / "all")
    assert (tmp_path / "all" / "history.npz").read_bytes() == (exported / "history.npz").read_bytes()


def test_mistakes_of_an_export(
    commands: Commands, trained: Finished, exported: Path, shards: Path, tmp_path: Path
) -> None:
    run = trained.run.path
    assert "Received: --out" in commands.refusal("export", run, "--out", run), "it holds the run"
    assert "which is an exported model" in commands.refusal("export", exported)
    assert "needs the private part of client 7" in commands.refusal("export", run, "--client", 7)
    copy = shutil.copytree(trained.run.model / str(LAST), tmp_path / "copy")
    assert "lies in no run. Name a folder: --out DIR" in commands.refusal("export", copy)
    (copy / "private" / "1.npz").unlink()
    assert "that fl-rec partition wrote: --data FOLDER" in commands.refusal("export", copy, "--out", tmp_path / "out")
    error = commands.refusal("export", copy, "--out", tmp_path / "out", "--data", shards)
    assert "A model for all users needs the private part of client 1. Received: those of 0, 2 in " in error
    missing = commands.refusal("export", run, "--data", tmp_path)
    assert f"no manifest.json in {tmp_path} or beside it" in missing
    assert not (tmp_path / "out").exists()
    (tmp_path / "a file").touch()
    error = commands.refusal("export", run, "--out", tmp_path / "a file" / "out")
    assert f"The exported model must be written, and {tmp_path / 'a file' / 'out'} can't be (Not a directory)" in error
    said = commands.succeed("export", copy, "--client", 0, "--out", tmp_path / "out", "--data", shards)
    assert said.splitlines()[0] == f"model     {copy}: epoch {LAST}, client 0"


def test_whole_or_not_at_all(commands: Commands, tmp_path: Path) -> None:
    """What is there stays until all is written, and no draft is left."""
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "old").touch()
    commands.program(BROKEN_OFF, tmp_path / "exported")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["exported", "exported/old"]


def test_parts_that_have_no_common_model(commands: Commands, private_layer: Finished, tmp_path: Path) -> None:
    """Each client has its own model, and all are evaluated as they were in training."""
    finished = private_layer
    assert "have no common one" in commands.refusal("export", finished.run.path)
    assert "One client's: --client K" in commands.refusal("export", finished.run.path)
    (line,) = commands.succeed("evaluate", finished.run.path).splitlines()
    best = finished.result["last"]["epoch"]
    assert_logged(json.loads(line), finished.records("all")[best - 1])
    commands.succeed("export", finished.run.path, "--client", 1, "--out", tmp_path / "one")
    (line,) = commands.succeed("evaluate", tmp_path / "one").splitlines()
    assert_logged(json.loads(line), finished.records(1)[best - 1])


def test_nothing_is_private(commands: Commands, job: Job, tmp_path: Path) -> None:
    job.runner["private_params"] = []
    finished = job.succeed()
    assert "in which nothing is private. Leave --client out." in commands.refusal(
        "export", finished.run.path, "--client", 0
    )
    out = tmp_path / "out"
    commands.succeed("export", finished.run.path, "--out", out)
    (line,) = commands.succeed("evaluate", out).splitlines()
    assert_logged(json.loads(line), finished.records("all")[0])
