"""The tests of compression that need Paddle."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from fl_rec import cli
from fl_rec.config import Config
from fl_rec.errors import DataError
from fl_rec.nets import inference
from fl_rec.nets.contract import load_model_class
from fl_rec.nets.graph import MASK, keep_zeros
from fl_rec.nets.inference import parameters
from fl_rec.runs import models, private_parts
from fl_rec.serving.quantise import Sparse, prune, quantise, quantise_net, split

PROJECT = Path(__file__).parents[2]
NETS = PROJECT / "models" / "ncf"
USERS, ITEMS = 60, 90

# What a process does that knows nothing of this project.
OUTSIDER = """
import os, sys
os.environ["FLAGS_enable_pir_api"] = "0"
import numpy as np
import paddle
paddle.enable_static()
executor = paddle.static.Executor(paddle.CPUPlace())
for folder in sys.argv[2:]:
    program, feeds, fetches = paddle.static.load_inference_model(folder + "/rec_static", executor)
    inputs = np.load(sys.argv[1])
    (scores,) = executor.run(program, feed=dict(zip(feeds, inputs)), fetch_list=fetches)
    np.save(folder + "/scores.npy", scores)
"""


def configured(folder: Path, net: str, **hyper_parameters: Any) -> Config:
    path = folder / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")
    sizes = {"num_users": USERS, "num_items": ITEMS, "fc_layers": [14, 6, 4], "mf_dim": 5, "group_size": 1}
    mode = {} if net == "fl_mf" else {"mode": net}
    changes = {f"hyper_parameters.{name}": value for name, value in {**sizes, **mode, **hyper_parameters}.items()}
    file = "fl_mf.py" if net == "fl_mf" else "static_model.py"
    return Config.load(path).replace(**changes, **{"runner.model_path": str(NETS / file)})


def infer_net(build: Callable[[], tuple[list[Any], Any]], seed: int = 0) -> inference.InferenceNet:
    """A net for inference as a worker has it, with drawn parameters, biases too."""
    program, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.base.core.Scope()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, startup):
        feeds, target = build()
    pruned = paddle.static.normalize_program(program, feeds, [target])
    paddle.static.Executor(paddle.CPUPlace()).run(startup, scope=scope)
    net = inference.InferenceNet(
        pruned, tuple(feed.name for feed in feeds), pruned.global_block().var(target.name), scope
    )
    generator = np.random.default_rng(seed)
    for name, values in parameters(net).items():
        net.set_parameter(name, generator.normal(scale=0.7, size=values.shape))
    return net


def ncf(config: Config) -> inference.InferenceNet:
    def build() -> tuple[list[Any], Any]:
        model = load_model_class(config.runner.model_path)(config)
        feeds = model.create_feeds(is_infer=True)
        model.infer_net(feeds)
        return feeds[:2], model.inference_target_var

    return infer_net(build)


def every_pair() -> list[np.ndarray]:
    return [each.reshape(-1, 1) for each in np.meshgrid(np.arange(USERS), np.arange(ITEMS))]


def scores(net: inference.InferenceNet) -> np.ndarray:
    return net.predict(every_pair(), 1000)


def with_parameters(net: inference.InferenceNet, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The scores of a net with other values for some parameters; it keeps its own."""
    own = {name: net.parameter(name) for name in values}
    for name, each in values.items():
        net.set_parameter(name, each)
    changed = scores(net)
    for name, each in own.items():
        net.set_parameter(name, each)
    return changed


# --- Programs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("fl_mf", {"mf_user_embedding": 5, "mf_item_embedding": 5}),
        ("NCF_MLP", {"mlp_user_embedding": 7, "mlp_item_embedding": 7}),
        (
            "NCF_NeuMF",
            {"mlp_user_embedding": 7, "mlp_item_embedding": 7, "gmf_user_embedding": 5, "gmf_item_embedding": 5},
        ),
    ],
)
def test_a_program_computes_what_numpy_does(tmp_path: Path, name: str, tables: dict[str, int]) -> None:
    """All users and items, of odd widths; saved, and scored by a process that knows nothing of it."""
    net = ncf(configured(tmp_path, name))
    original = {name: net.parameter(name) for name in tables}
    wanted = {}
    for bits in (8, 4):
        small = quantise_net(net, bits)
        restored = {name: quantise(values, bits).restore() for name, values in original.items()}
        wanted[bits] = with_parameters(net, restored)
        assert scores(small) == pytest.approx(wanted[bits], abs=1e-5)
        difference = np.abs(scores(net) - wanted[bits]).max()
        assert difference > 1e-4, "the float32 tables are not what it computes with"
        assert {name: net.parameter(name).tolist() for name in tables} == {
            name: values.tolist() for name, values in original.items()
        }, "the net is as it was"

        held = parameters(small)
        widths = {f"{name}.codes": width if bits == 8 else (width + 1) // 2 for name, width in tables.items()}
        assert {name: each.shape[1] for name, each in held.items() if each.dtype == np.int8} == widths
        assert not set(tables) & set(held)
        if name == "fl_mf":
            assert held["mf_item_bias"].dtype == np.float32, "of one number a row, 8 bits and a scale would be more"
        for table in tables:
            assert small.scope.find_var(table) is None, "nothing of the table is in memory"

        folder = tmp_path / str(bits)
        folder.mkdir()
        models.write(small, folder, {})
        again = models.load(folder)
        assert {name: (each.dtype, each.shape) for name, each in parameters(again).items()} == {
            name: (each.dtype, each.shape) for name, each in held.items()
        }
    np.save(tmp_path / "rows.npy", np.stack(every_pair()))
    files = [str(tmp_path / name) for name in ("rows.npy", *map(str, wanted))]
    subprocess.run([sys.executable, "-c", OUTSIDER, *files], check=True, timeout=120)
    for bits, expected in wanted.items():
        assert np.load(tmp_path / str(bits) / "scores.npy").reshape(-1) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_a_matrix_of_few_weights_is_restored_by_the_program(tmp_path: Path, share: float) -> None:
    net = ncf(configured(tmp_path, "NCF_MLP", fc_layers=[100, 60, 4]))
    matrix = prune(net.parameter("mlp_fc_0.w"), share)
    net.set_parameter("mlp_fc_0.w", matrix)
    small = quantise_net(net, 8)
    held = parameters(small)
    assert held["mlp_fc_0.w.steps"].dtype == np.uint8
    assert held["mlp_fc_0.w.steps"].nbytes + held["mlp_fc_0.w.weights"].nbytes == Sparse.of(matrix).nbytes
    assert Sparse.of(matrix).nbytes < 0.3 * matrix.nbytes
    assert "mlp_fc_0.w" not in held
    assert "mlp_fc_1.w" in held, "which has no zeros"
    tables = {name: quantise(net.parameter(name), 8).restore() for name in ("mlp_user_embedding", "mlp_item_embedding")}
    assert scores(small) == pytest.approx(with_parameters(net, tables), abs=1e-5)
    folder = tmp_path / "model"
    folder.mkdir()
    models.write(small, folder, {})
    assert scores(models.load(folder)) == pytest.approx(scores(small), abs=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
def test_padding_is_zero_and_a_shared_table_is_quantised_once(bits: int) -> None:
    def build() -> tuple[list[Any], Any]:
        user, item = (paddle.static.data(name, [-1, 1], "int64") for name in ("user", "item"))
        ids = paddle.nn.Embedding(ITEMS, 6, padding_idx=3, weight_attr=paddle.ParamAttr(name="ids"))
        whole = paddle.create_parameter([4, 6], "float32", attr=paddle.ParamAttr(name="whole"))
        rows = paddle.nn.functional.embedding(paddle.zeros_like(user), whole)
        both = paddle.sum(ids(user) * 2 + ids(item) + rows, axis=-1)
        return [user, item], both + paddle.sum(whole)

    net = infer_net(build)
    tables, matrices = split(net)
    assert (set(tables), set(matrices)) == ({"ids"}, set()), "of `whole` not only rows are used"
    small = quantise_net(net, bits)
    assert {name for name in parameters(small) if name.startswith("ids")} == {"ids.codes", "ids.scales"}
    wanted = with_parameters(net, {"ids": quantise(tables["ids"], bits).restore()})
    assert scores(small) == pytest.approx(wanted, abs=1e-5)
    both = small.predict([np.array([[3]]), np.array([[3]])], 1)
    assert both[0] == pytest.approx(net.parameter("whole")[0].sum() + net.parameter("whole").sum(), abs=1e-5)


@pytest.mark.parametrize("optimizer", [paddle.optimizer.SGD, paddle.optimizer.Adam])
def test_masked_weights_do_not_move(tmp_path: Path, optimizer: Any) -> None:
    config = configured(tmp_path, "NCF_NeuMF")
    model = load_model_class(config.runner.model_path)(config)
    program, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.base.core.Scope()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, startup):
        model.net(model.create_feeds())
        masks = keep_zeros(program)
        optimizer(learning_rate=0.1).minimize(model._cost)
    matrices = {"mlp_fc_0.w": (14, 6), "mlp_fc_1.w": (6, 4), "prediction.w": (9, 1)}
    assert masks == {name: name + MASK for name in matrices}
    executor = paddle.static.Executor(paddle.CPUPlace())
    generator = np.random.default_rng(0)

    def value(name: str) -> np.ndarray:
        return np.array(scope.find_var(name).get_tensor())

    executor.run(startup, scope=scope)
    kept = {name: generator.random(shape) < 0.5 for name, shape in matrices.items()}
    for name, mask in kept.items():
        drawn = generator.normal(size=mask.shape)
        scope.find_var(name).get_tensor().set((mask * drawn).astype(np.float32), paddle.CPUPlace())
        scope.find_var(masks[name]).get_tensor().set(mask.astype(np.float32), paddle.CPUPlace())
    names = [each.name for each in program.all_parameters()]
    before = {name: value(name) for name in names}
    for _ in range(5):
        rows = {"user_input": USERS, "item_input": ITEMS, "label": 2}
        feed = {name: generator.integers(0, end, (200, 1)) for name, end in rows.items()}
        executor.run(program, feed=feed, scope=scope)
    for name, mask in kept.items():
        assert not value(name)[~mask].any()
        assert (value(name) != before[name])[mask].mean() > 0.3
    assert all((value(name) != before[name]).any() for name in names)


# --- The command ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A saved NCF-MLP with private users of two workers, and a file beside it."""
    net = ncf(configured(tmp_path, "NCF_MLP"))
    folder = tmp_path / "model"
    users = net.parameter("mlp_user_embedding")

    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "table").write_text("the servers'")
    for client in (0, 1):
        rows = np.arange(client, USERS, 2)
        private_parts.save(
            models.private_path(folder, client), {"mlp_user_embedding": private_parts.Part(rows, users[rows])}
        )
    (folder / "items.csv").write_text("0,A title\n")
    signature = {"epoch": 3, "metrics": {"hr": 0.7}, "identity": {"run": "ab", "epoch": 3, "data": "cd"}}
    models.write(net, folder, signature, ["mlp_user_embedding"])
    return folder


def run(*arguments: Any) -> int:
    return cli.main(["compress", *map(str, arguments)])


def signature(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model.json").read_text())


def test_a_saved_model_becomes_a_model_for_scoring(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scores(models.load(model))
    assert run(model, "--out", tmp_path / "new", "--bits", 8) == 0
    new = tmp_path / "new"
    assert sorted(path.name for path in new.iterdir()) == [
        "items.csv",
        "model.json",
        "rec_static.pdiparams",
        "rec_static.pdmodel",
    ]
    after = scores(models.load(new))
    assert 0 < np.abs(after - before).max() < 0.1
    told = signature(new)
    assert (told["private"], told["epoch"], told["feeds"]) == ([], 3, ["user_input", "item_input"])
    assert "metrics" not in told, "they were another model's"
    record = told["compression"]
    assert (record["bits"], record["prune"]) == (8, None)
    size = (new / "rec_static.pdmodel").stat().st_size + (new / "rec_static.pdiparams").stat().st_size
    assert record["after"]["bytes"] == size
    assert record["before"]["memory"] == sum(each.nbytes for each in parameters(models.load(model)).values())
    assert record["after"]["memory"] == sum(each.nbytes for each in parameters(models.load(new)).values())
    assert record["after"]["memory"] < record["before"]["memory"]
    assert record["after"]["milliseconds"] > 0
    assert record["after"]["hr"] is None
    out = capsys.readouterr().out
    assert "not evaluated: A saved model tells its configuration in model.json." in out
    assert f"Received: {model}, without one" in out and "Received: model, without one" in record["not_tested"]
    assert f"{size:,}" in out


def test_the_users_own_reader_is_named_on_the_command_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards").mkdir()
    rows = "".join(f"1;{user};1;{item};1;{int(item == user)}\n" for user in range(9) for item in range(12))
    (tmp_path / "shards" / "part-000.txt").write_text(rows)
    told = signature(model)
    told["config"] = {"runner": {"pipe_command": "tr ';' ' '", "top_k": 5}, "hyper_parameters": {"num_items": ITEMS}}
    (model / "model.json").write_text(json.dumps(told))
    data = ("--data", tmp_path / "shards")
    assert run(model, "--out", tmp_path / "new", "--bits", 8, *data) == 2
    assert "runner.pipe_command has code or a command run" in capsys.readouterr().err
    assert run(model, "--out", tmp_path / "new", "--bits", 8, *data, "-o", "runner.pipe_command=tr ';' ' '") == 0
    record = signature(tmp_path / "new")["compression"]
    assert record["not_tested"] is None and 0 <= record["after"]["hr"] <= 1
    assert "not evaluated" not in capsys.readouterr().out


def test_a_pruned_model_is_one_to_start_from(tmp_path: Path, model: Path) -> None:
    assert run(model, "--out", tmp_path / "new", "--prune", 0.5) == 0
    new = tmp_path / "new"
    assert sorted(path.name for path in (new / "private").iterdir()) == ["0.npz", "1.npz"]
    assert not (new / "tables").exists(), "they hold what was pruned"
    assert signature(new)["private"] == ["mlp_user_embedding"]
    assert signature(new)["compression"]["zeros"] == {"mlp_fc_0.w": 42, "mlp_fc_1.w": 12}
    for client in (0, 1):
        old, pruned = (models.load_parameters(folder, client) for folder in (model, new))
        assert old.keys() == pruned.keys()
        for name, values in old.items():
            if name in ("mlp_fc_0.w", "mlp_fc_1.w"):
                assert (pruned[name] == prune(values, 0.5)).all()
            else:
                assert (pruned[name] == values).all(), name
    assert not models.load(new, 1).parameter("mlp_user_embedding")[::2].any(), "each worker has its own part only"
    assert run(new, "--out", tmp_path / "both", "--bits", 4) == 0
    assert run(model, "--out", tmp_path / "at once", "--bits", 4, "--prune", 0.5) == 0
    one, other = (scores(models.load(tmp_path / name)) for name in ("both", "at once"))
    assert (one == other).all()


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: Any) -> str:
    """The one message of a compression that leaves nothing."""
    assert run(*arguments, "--out", out) == 2
    said = capsys.readouterr().err
    assert said.startswith("fl-rec: error: ")
    assert "Traceback" not in said
    assert not out.exists()
    assert not list(out.parent.glob(".*.tmp")), "no draft stays"
    return said


def test_what_is_compressed_already(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "--out", tmp_path / "small", "--bits", 4) == 0
    for options in (["--bits", 8], ["--prune", 0.5]):
        said = refused(capsys, tmp_path / "new", tmp_path / "small", *options)
        assert "A model is compressed once, from float32. Received: one with embeddings of 8 or 4 bits." in said


def test_a_link_to_what_is_none_of_the_models(tmp_path: Path, model: Path) -> None:
    """One that is listed, as a store of large files has them, is followed."""
    (tmp_path / "secret").write_text("of the user's own")
    (model / "README.txt").symlink_to(tmp_path / "secret")
    (model / "private" / "notes.txt").symlink_to(tmp_path / "secret")
    for stored in (model / "items.csv", model / "private" / "1.npz"):
        stored.rename(tmp_path / stored.name)
        stored.symlink_to(tmp_path / stored.name)
    assert run(model, "--out", tmp_path / "pruned", "--prune", 0.5) == 0
    made = {str(path.relative_to(tmp_path / "pruned")) for path in (tmp_path / "pruned").rglob("*") if path.is_file()}
    assert {"items.csv", "private/0.npz", "private/1.npz"} < made
    assert not made & {"README.txt", "private/notes.txt"}
    assert not any(path.is_symlink() for path in (tmp_path / "pruned").rglob("*"))


def test_weights_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = ncf(configured(tmp_path, "fl_mf"))
    bad = net.parameter("mf_item_embedding")
    bad[4, 2], bad[7, 0] = np.nan, np.inf
    net.set_parameter("mf_item_embedding", bad)
    (tmp_path / "bad").mkdir()
    models.write(net, tmp_path / "bad", {})
    said = refused(capsys, tmp_path / "new", tmp_path / "bad", "--bits", 8)
    assert "(mf_item_embedding has 2 numbers that are not finite; a training that diverges ends so)" in said


def test_nothing_to_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fl_mf", "NCF_GMF"):
        (tmp_path / name).mkdir()
        models.write(ncf(configured(tmp_path, name)), tmp_path / name, {})
        said = refused(capsys, tmp_path / "new", tmp_path / name, "--bits", 8, "--prune", 0.5)
        assert "--prune sets weights of hidden layers to 0. Received: 0.5, and a net that shares none." in said


def test_a_full_disk(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(models, "write", full)
    said = refused(capsys, tmp_path / "new", model, "--bits", 8)
    assert f"{tmp_path / 'new'} can't be written (No space left on device). Free some space or name another" in said


def test_a_file_that_is_cut_off(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle says nothing if the disk is full: what was written is read again before it counts."""
    write = models.write

    def short(net: Any, folder: Path, *others: Any) -> None:
        write(net, folder, *others)
        with open(folder / "rec_static.pdiparams", "r+b") as file:
            file.truncate(500)

    monkeypatch.setattr(models, "write", short)
    assert run(model, "--out", tmp_path / "new", "--bits", 8) == 2
    assert not (tmp_path / "new").exists()


def test_a_private_part_is_missing(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for client in (0, 1):
        models.private_path(model, client).unlink()
    for options in (["--bits", 8], ["--prune", 0.5]):
        said = refused(capsys, tmp_path / "new", model, *options)
        assert "private/0.npz, which can't be read (No such file or directory), and is listed in model.json." in said


def test_a_compressed_model_is_none_to_start_from(tmp_path: Path, model: Path) -> None:
    assert run(model, "--out", tmp_path / "new", "--bits", 8) == 0
    assert "mlp_item_embedding" not in models.load_parameters(tmp_path / "new", 0)
    with pytest.raises(DataError, match="compressed once"):
        split(models.load(tmp_path / "new"))
