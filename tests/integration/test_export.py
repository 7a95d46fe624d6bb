"""From a trained job to recommendations: what is exported scores as what was trained, and what is wrong is told.

Each command is a process of its own, without fleet.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.data.manifest import load_manifest
from fl_rec.data.text import parse_multislot
from fl_rec.job.watch import Mark
from fl_rec.runs.directory import ENVIRONMENT_KEY

from .conftest import ROOT, TIMEOUT, WORKERS, Finished, Job, clean_environment, run_script

USERS, ITEMS = 600, 400

# Every pair of a user and an item, under a model.
ALL_SCORES = """
import sys
from pathlib import Path
from fl_rec import environment
environment.quiet_paddle()
import numpy as np
from fl_rec.runs import checkpoint
net = checkpoint.load(Path(sys.argv[1]), *map(int, sys.argv[3:]))
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


def fl_rec(*arguments: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fl_rec.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, env=clean_environment())


def succeed(*arguments: Any) -> str:
    done = fl_rec(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "nothing of Paddle's own"
    return done.stdout


def refusal(*arguments: Any) -> str:
    done = fl_rec(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fl-rec: error: ") and "Traceback" not in done.stderr
    return done.stderr


def python(program: str, *arguments: Any) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def all_scores(model: Path, scratch: Path, *client: int) -> np.ndarray:
    python(ALL_SCORES.format(users=USERS, items=ITEMS), model, scratch / "scores.npy", *client)
    return np.load(scratch / "scores.npy")


@pytest.fixture(scope="module")
def own_shards(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `shards`, but this module's own, whose names of users and items a test may change."""
    folder = tmp_path_factory.mktemp("own shards")
    run_script("datasets/movielens/gen_heter_data.py", "--data", prepared, "--out", folder, "--num_shards", WORKERS)
    return folder


def train(folder: Path, shards: Path, **runner: Any) -> Iterator[Finished]:
    job = Job(folder, shards)
    job.runner.update(runner)
    yield job.succeed()
    Mark(ENVIRONMENT_KEY, str(job.run.path)).end()


@pytest.fixture(scope="module")
def trained(own_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """A job of three workers and two epochs; users are private."""
    yield from train(tmp_path_factory.mktemp("trained"), own_shards, epochs=2)


@pytest.fixture(scope="module")
def exported(trained: Finished) -> Path:
    told = succeed("export", trained.run.path).splitlines()
    hit_rate = trained.result["best"]["hr"]
    assert told == [
        f"model     epoch 1 of run run, all clients, HR@10 {hit_rate:.4f}",
        f"ids       {USERS} users, {ITEMS} items",
        f"exported  {trained.run.path / 'exported'}",
    ]
    return trained.run.path / "exported"


def test_what_is_in_the_folder(exported: Path, trained: Finished, own_shards: Path) -> None:
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
    assert (signature["run"], signature["epoch"], signature["client"]) == ("run", 1, "all")
    assert (signature["private"], signature["metrics"]) == ([], trained.records("all")[1])
    manifest = load_manifest(own_shards)
    assert manifest is not None and signature["mappings"] == manifest.mappings
    assert signature["config"]["hyper_parameters"]["num_users"] == USERS

    with np.load(exported / "history.npz") as file:
        indptr, items = file["indptr"], file["items"]
    positives = set()
    for shard in manifest.shards:
        for part in (shard.train, shard.test):
            user, item, label = parse_multislot((own_shards / part.file).read_bytes(), 3)
            positives |= set(zip(user[label == 1].tolist(), item[label == 1].tolist()))
    assert set(zip(np.repeat(np.arange(USERS), np.diff(indptr)).tolist(), items.tolist())) == positives
    assert len(items) == len(positives)


def test_it_scores_as_the_checkpoint_joined_does(exported: Path, trained: Finished, tmp_path: Path) -> None:
    expected = all_scores(trained.run.model / "1", tmp_path)
    assert expected.std() > 0.01
    np.testing.assert_allclose(all_scores(exported, tmp_path), expected, rtol=0, atol=1e-5)
    assert np.abs(all_scores(trained.run.model / "0", tmp_path) - expected).max() > 1e-3, "another epoch would show"


def test_figures_are_those_of_the_training_log(exported: Path, trained: Finished) -> None:
    """The trainer's own: of each model, of the best epoch and of one client."""
    epoch = trained.run.model / "0"
    lines = succeed("evaluate", trained.run.path, exported, epoch).splitlines()
    figures = [json.loads(line) for line in lines]
    best = trained.run.model / "1"
    assert [each["model"] for each in figures] == [str(best), str(exported), str(epoch)]
    for each, number in zip(figures, (1, 1, 0)):
        assert_logged(each, trained.records("all")[number])
    table = succeed("evaluate", exported, "--format", "table").splitlines()
    assert table[0].split() == ["model", "epoch", "client", "users", "K", "test", "AUC", "HR@K", "NDCG@K"]
    assert table[2].split()[-1] == f"{figures[0]['ndcg']:.4f}"


def assert_logged(figures: dict[str, Any], record: dict[str, Any]) -> None:
    for name in ("test_auc", "hr", "ndcg"):
        assert figures[name] == pytest.approx(record[name], rel=0, abs=1e-9)
    for name in ("epoch", "client", "test_users", "top_k"):
        assert figures[name] == record[name]


def test_one_client(trained: Finished, own_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "client 2"
    succeed("export", trained.run.model / "1", "--client", 2, "--out", out)
    manifest = load_manifest(own_shards)
    assert manifest is not None
    text = (own_shards / manifest.shards[2].train.file).read_bytes()
    users = np.unique(parse_multislot(text, 3)[0])
    with open(out / "users.csv", newline="") as file:
        assert [int(row["user"]) for row in csv.DictReader(file)] == users.tolist()
    scores, expected = all_scores(out, tmp_path), all_scores(trained.run.model / "1", tmp_path)
    np.testing.assert_allclose(scores[users], expected[users], rtol=0, atol=1e-5)
    (line,) = succeed("evaluate", out).splitlines()
    assert_logged(json.loads(line), trained.records(2)[1])
    stranger = next(user for user in range(USERS) if user not in users)
    assert f"Received: {stranger + 1}." in refusal("recommend", "--model", out, "--user", stranger + 1)
    succeed("recommend", "--model", out, "--user", users[0] + 1)


def test_recommendations_are_the_best_scored_items_that_are_new(exported: Path, tmp_path: Path) -> None:
    recommended = json.loads(python(RECOMMENDER, exported))
    scores = all_scores(exported, tmp_path)
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


def test_the_command_has_titles_and_history(exported: Path, trained: Finished) -> None:
    arguments = ("recommend", "--model", exported, "--user", 42, "--top", 3, "--history", 2)
    record = json.loads(succeed(*arguments, "--format", "json"))
    with open(exported / "items.csv", newline="", encoding="utf-8") as file:
        titles = {int(row["original_id"]): row["title"] for row in csv.DictReader(file)}
    assert [(each["rank"], titles[each["item"]]) for each in record["recommendations"]] == [
        (rank, each["title"]) for rank, each in enumerate(record["recommendations"], 1)
    ]
    assert len(record["recommendations"]) == 3 and len(record["history"]) == 2
    text = succeed(*arguments)
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


def test_mistakes_of_a_recommendation(exported: Path, trained: Finished) -> None:
    model = ("--model", exported)
    assert "A user must be one of the 600 that the model serves" in refusal("recommend", *model, "--user", 9999)
    error = refusal("recommend", *model, "--user", 1, "--top", ITEMS)
    assert "As many items can be recommended as the user has not had: 1 to " in error
    checkpoint = trained.run.model / "1"
    assert "which is a checkpoint. Export it" in refusal("recommend", "--model", checkpoint, "--user", 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rec_static.pdiparams", "A saved model must be whole."),
        ("rec_static.pdmodel", "A saved model must be whole."),
        ("users.csv", "An exported folder is used as it was written."),
        ("history.npz", "An exported folder is used as it was written."),
        ("model.json", "A model.json must be readable JSON."),
    ],
)
@pytest.mark.parametrize("size", [0, 0.5], ids=["empty", "half"])
def test_a_file_that_is_cut_off(exported: Path, tmp_path: Path, name: str, message: str, size: float) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(size * len(content))])
    assert message in refusal("recommend", "--model", copy, "--user", 1)


def test_it_moves_without_its_run(exported: Path, tmp_path: Path) -> None:
    """A folder that needs nothing else: other names would show if the data's were read."""
    copy = shutil.copytree(exported, tmp_path / "elsewhere")
    arguments = ("--user", 7, "--format", "json")
    assert succeed("recommend", "--model", copy, *arguments) == succeed("recommend", "--model", exported, *arguments)


def test_a_stale_mapping(trained: Finished, exported: Path, tmp_path: Path) -> None:
    """The data was made again, of other users and items: nothing is exported or evaluated, and what was there stays."""
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    other = tmp_path / "other"
    run_script("datasets/movielens/prepare.py", "--source", "synthetic", "--seed", 7, "--out", other)
    run_script("datasets/movielens/gen_heter_data.py", "--data", other, "--out", other, "--num_shards", WORKERS)
    for command in (("export", trained.run.path), ("evaluate", trained.run.path), ("evaluate", exported)):
        error = refusal(*command, "--data", other)
        assert "A model's ids mean the users and items that it was trained with. Received: " in error
        assert "the data was made again since. Train again, or name the data" in error.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before


def test_users_that_were_dealt_out_anew(trained: Finished, exported: Path, prepared: Path, tmp_path: Path) -> None:
    """Users and items are the same, a client's users are not."""
    dealt = tmp_path / "dealt"
    run_script(
        *("datasets/movielens/gen_heter_data.py", "--data", prepared, "--out", dealt),
        *("--num_shards", WORKERS, "--partitioner", "iid"),
    )
    error = refusal("export", trained.run.path, "--data", dealt, "--client", 0, "--out", tmp_path / "none")
    assert "Client 0 has trained the users of shard 0. Received: user " in error
    succeed("export", trained.run.path, "--data", dealt, "--out", tmp_path / "all")
    assert (tmp_path / "all" / "history.npz").read_bytes() == (exported / "history.npz").read_bytes()


def test_mistakes_of_an_export(trained: Finished, exported: Path, tmp_path: Path) -> None:
    run = trained.run.path
    assert "Received: --out" in refusal("export", run, "--out", run), "it holds the run"
    assert "which is an exported model" in refusal("export", exported)
    assert "needs the private part of client 7" in refusal("export", run, "--client", 7)
    copy = shutil.copytree(trained.run.model / "1", tmp_path / "copy")
    assert "lies in no run. Name a folder: --out DIR" in refusal("export", copy)
    (copy / "private" / "1.npz").unlink()
    error = refusal("export", copy, "--out", tmp_path / "out")
    assert "A model for all users needs the private part of client 1. Received: those of 0, 2 in " in error
    missing = refusal("export", run, "--data", tmp_path)
    assert f"no manifest.json in {tmp_path} or beside it" in missing
    assert not (tmp_path / "out").exists()
    (tmp_path / "a file").touch()
    error = refusal("export", run, "--out", tmp_path / "a file" / "out")
    assert f"The exported model must be written, and {tmp_path / 'a file' / 'out'} can't be (Not a directory)" in error
    assert succeed("export", copy, "--client", 0, "--out", tmp_path / "out").splitlines()[0] == (
        "model     epoch 1, client 0"
    )


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    """What is there stays until all is written, and no draft is left."""
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "old").touch()
    python(BROKEN_OFF, tmp_path / "exported")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["exported", "exported/old"]


def test_parts_that_have_no_common_model(own_shards: Path, tmp_path: Path) -> None:
    """A private layer: each client has its own model, and all are evaluated as they were in training."""
    (finished,) = train(tmp_path, own_shards, private_params=["prediction.*"])
    assert "have no common one" in refusal("export", finished.run.path)
    assert "One client's: --client K" in refusal("export", finished.run.path)
    (line,) = succeed("evaluate", finished.run.path).splitlines()
    assert_logged(json.loads(line), finished.records("all")[0])
    succeed("export", finished.run.path, "--client", 1)
    (line,) = succeed("evaluate", finished.run.path / "exported").splitlines()
    assert_logged(json.loads(line), finished.records(1)[0])


def test_nothing_is_private(own_shards: Path, tmp_path: Path) -> None:
    (finished,) = train(tmp_path, own_shards, private_params=[])
    assert "in which nothing is private. Leave --client out." in refusal("export", finished.run.path, "--client", 0)
    out = tmp_path / "out"
    succeed("export", finished.run.path, "--out", out)
    (line,) = succeed("evaluate", out).splitlines()
    assert_logged(json.loads(line), finished.records("all")[0])
