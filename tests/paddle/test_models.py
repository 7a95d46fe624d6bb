"""What is read of a saved model: nothing but what was written with it, and nothing that does more than compute."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.nets import graph
from fl_rec.nets.tensors import persistent, read_tensors, write_tensors
from fl_rec.runs import models, private_parts
from fl_rec.runs.private_parts import Part

ROWS = np.arange(30)[:, None], np.arange(30)[::-1, None]
WHOLE = "A saved model is used as it was written, all of its files from one epoch. Received: "


@pytest.fixture
def net() -> Any:
    """A net with two tables, a matrix and a vector."""
    import paddle

    from fl_rec.nets.inference import InferenceNet

    program, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(program, startup), paddle.utils.unique_name.guard():
        user, item = (paddle.static.data(name, [-1, 1], "int64") for name in ("user", "item"))
        tables = [paddle.nn.Embedding(30, 4, weight_attr=paddle.ParamAttr(name=name)) for name in ("users", "items")]
        both = paddle.concat([table(ids) for table, ids in zip(tables, (user, item))], axis=-1)
        scores = paddle.squeeze(paddle.nn.Linear(8, 1)(both), axis=-1)
    pruned, scope = paddle.static.normalize_program(program, [user, item], [scores]), paddle.static.Scope()
    paddle.static.Executor(paddle.CPUPlace()).run(startup, scope=scope)
    return InferenceNet(pruned, ("user", "item"), pruned.global_block().var(scores.name), scope)


def written(net: Any, folder: Path, epoch: int = 3) -> Path:
    """A model of two workers, each of whom has trained every other user."""
    folder.mkdir()
    users = net.parameter("users") + epoch
    for client in (0, 1):
        rows = np.arange(client, 30, 2)
        private_parts.save(models.private_path(folder, client), {"users": Part(rows, users[rows])})
    identity = {"run": "ab", "epoch": epoch, "data": "cd"}
    models.write(net, folder, {"epoch": epoch, "identity": identity}, ["users"])
    return folder


@pytest.fixture
def model(net: Any, tmp_path: Path) -> Path:
    return written(net, tmp_path / "model")


def refusal(folder: Path, client: int | None = None) -> str:
    with pytest.raises(DataError) as caught:
        models.load(folder, client)
    return str(caught.value)


def test_a_model_says_of_what_it_is(net: Any, model: Path) -> None:
    signature = json.loads((model / "model.json").read_text())
    shapes = {name: list(net.parameter(name).shape) for name in ("users", "items", "linear_0.w_0", "linear_0.b_0")}
    assert signature["identity"] == {"run": "ab", "epoch": 3, "data": "cd", "net": models.digest(shapes)}
    assert sorted(signature["files"]) == [
        "private/0.npz", "private/1.npz", "rec_static.pdiparams", "rec_static.pdmodel",
    ]  # fmt: skip
    loaded = models.load(model)
    assert loaded.parameter("users").tolist() == (net.parameter("users") + 3).tolist()
    assert loaded.parameter("items").tolist() == net.parameter("items").tolist()


@pytest.mark.parametrize("name", ["rec_static.pdiparams", "rec_static.pdmodel", "private/1.npz"])
def test_a_bit_that_flipped(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[-1] ^= 1
    (model / name).write_bytes(content)
    assert refusal(model).startswith(f"{WHOLE}{model / name}, whose content is not that of the checksum in model.json.")
    if name.startswith("private"):
        models.load(model, 0)  # whose part is another
        assert name in refusal(model, 1)


def test_a_part_of_another_epoch(net: Any, model: Path, tmp_path: Path) -> None:
    other = models.private_path(written(net, tmp_path / "other", 4), 1)
    models.private_path(model, 1).write_bytes(other.read_bytes())
    assert refusal(model, 1).startswith(f"{WHOLE}{model}/private/1.npz, whose content is not that of the checksum")
    models.private_path(model, 1).unlink()
    assert "1.npz, which can't be read (No such file or directory), and is listed in model.json." in refusal(model)
    models.private_path(model, 2).write_bytes(other.read_bytes())
    message = f"{WHOLE}{model}/private/2.npz, which is none of them by model.json."
    assert refusal(model, 2).startswith(message) and "private/1.npz" in refusal(model)


def test_a_model_without_its_signature(model: Path) -> None:
    (model / "model.json").unlink()
    assert "A model with private parts has a model.json, which tells what is private. Received: " in refusal(model)


def test_a_model_of_an_earlier_version_is_read_with_a_note(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    signature = json.loads((model / "model.json").read_text())
    for name in ("files", "identity"):
        del signature[name]
    (model / "model.json").write_text(json.dumps(signature))
    with caplog.at_level(logging.WARNING):
        models.load(model)
    assert caplog.messages == [f"note: {model} has no checksums, so nobody can say whether it is as it was written"]


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        (Part(np.array([-1, 2]), np.ones((2, 4), np.float32)), "rows that are not ascending from 0"),
        (Part(np.array([2, 2]), np.ones((2, 4), np.float32)), "rows that are not ascending from 0"),
        (Part(np.array([0.0, 2.0]), np.ones((2, 4), np.float32)), "rows that are no list of int64"),
        (Part(np.array([[0], [2]]), np.ones((2, 4), np.float32)), "rows that are no list of int64"),
        (Part(np.array([0, 2]), np.full((2, 4), np.nan, np.float32)), "values that are no finite float32"),
        (Part(np.array([0, 2]), np.ones((2, 4))), "values that are no finite float32"),
    ],
)
def test_a_part_that_no_worker_can_have(net: Any, tmp_path: Path, part: Part, wrong: str) -> None:
    """Whoever seals it."""
    private_parts.save(models.private_path(tmp_path, 0), {"users": part})
    models.write(net, tmp_path, {}, ["users"])
    assert refusal(tmp_path) == (
        f"A worker's private part must be readable. Received: {tmp_path}/private/0.npz, whose users has {wrong}. Copy "
        "the model again."
    )


# --- What would be run ---------------------------------------------------------------------------------


def writes(block: Any, users: Any, path: Path) -> None:
    block.append_op(type="save", inputs={"X": [users]}, attrs={"file_path": str(path)})


def reads(block: Any, users: Any, path: Path) -> None:
    block.append_op(type="load", outputs={"Out": [users]}, attrs={"file_path": str(path)})


def reads_all(block: Any, users: Any, path: Path) -> None:
    block.append_op(type="load_combine", outputs={"Out": [users]}, attrs={"file_path": str(path)})


def calls_python(_block: Any, users: Any, path: Path) -> None:
    import paddle

    paddle.static.py_func(lambda values: path.touch() or values, x=users, out=users)


def prints(_block: Any, users: Any, _path: Path) -> None:
    import paddle

    paddle.static.Print(users)


@pytest.mark.parametrize("plant", [writes, reads, reads_all, calls_python, prints])
@pytest.mark.parametrize("hidden", [False, True], ids=["", "in a block"])
def test_an_operator_that_does_more_than_compute(
    net: Any, tmp_path: Path, plant: Callable[[Any, Any, Path], None], hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paddle

    monkeypatch.setattr(models, "_shapes", lambda _net: {})
    program = net.program.clone()
    users = program.global_block().var("users")
    with paddle.static.program_guard(program):
        if hidden:
            always = paddle.full([1], True, "bool")
            paddle.static.nn.cond(always, lambda: plant(program.current_block(), users, tmp_path / "planted"))
        else:
            plant(program.global_block(), users, tmp_path / "planted")
    (tmp_path / "rec_static.pdmodel").write_bytes(program.desc.serialize_to_string())
    write_tensors(tmp_path / "rec_static.pdiparams", map(net.parameter, persistent(net.program)))
    models.sign(net, tmp_path, {})
    kind = {"writes": "save", "reads": "load", "reads_all": "load_combine", "calls_python": "py_func"}
    said = refusal(tmp_path)
    assert f"(it has the operator {kind.get(plant.__name__, 'print')}, and a model may only compute" in said
    assert not (tmp_path / "planted").exists()


# --- Parameters ----------------------------------------------------------------------------------------


def test_a_program_that_can_be_read_and_not_run(net: Any, tmp_path: Path) -> None:
    models.write(net, tmp_path, {})
    (tmp_path / "model.json").unlink()
    program = tmp_path / "rec_static.pdmodel"
    whole = program.read_bytes()
    for old, new in ((b"Ids", b"Idz"), (b"concat_0.tmp_0", b"concat_0.tmp_1")):
        program.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(DataError, match="A saved model must give each row a score. Received: .*pdmodel .+ Copy"):
            models.load(tmp_path).predict(ROWS, 8)
    program.write_bytes(whole.replace(b"user", b"usre", 1))
    with pytest.raises(DataError, match="A saved model must be whole. Received: .*pdmodel"):
        models.load(tmp_path)


def test_parameters_are_read_as_paddle_reads_them(net: Any, tmp_path: Path) -> None:
    import paddle

    path = tmp_path / "theirs"
    with paddle.static.scope_guard(net.scope):
        inputs = [net.program.global_block().var(name) for name in net.feeds]
        paddle.static.save_inference_model(str(path), inputs, [net.target], net.executor, program=net.program)
    path.with_suffix(".pdmodel").rename(tmp_path / "rec_static.pdmodel")
    path.with_suffix(".pdiparams").rename(tmp_path / "rec_static.pdiparams")
    loaded = models.load(tmp_path)
    assert loaded.feeds == net.feeds and loaded.predict(ROWS, 30).tolist() == net.predict(ROWS, 30).tolist()


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int64"])
def test_tensors_come_back(tmp_path: Path, dtype: str) -> None:
    values = np.arange(300, dtype=np.int64).astype(dtype).reshape(1, 300)
    write_tensors(tmp_path / "t", [values, values[0, :3], values[0, 0]])
    found = read_tensors(tmp_path / "t", ["a", "b", "c"])
    assert [each.dtype.name for each in found.values()] == [dtype] * 3
    assert (found["a"] == values).all() and (found["b"] == values[0, :3]).all() and found["c"] == values[0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "it is cut off"),
        (lambda content: content[:10], "it is cut off"),
        (lambda content: content + b"\0", "1 bytes belong to no parameter"),
        (lambda content: content[:4] + struct.pack("<Q", 2**63) + content[12:], "it is cut off"),
        (lambda content: content[:16] + struct.pack("<i", -1) + content[20:], "it is cut off"),
        (lambda content: content[:21] + bytes([99]) + content[22:], "a tensor has the dtype 99"),
        (lambda content: content[:20] + bytes([7]) + content[21:], "a tensor is described otherwise than by dtype and"),
        (lambda content: content[:-4] + struct.pack("<f", np.inf), "a has 1 numbers that are not finite"),
    ],
)
def test_parameters_that_are_not_whole(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    write_tensors(tmp_path / "t", [np.ones((2, 3), np.float32)])
    (tmp_path / "t").write_bytes(change((tmp_path / "t").read_bytes()))
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "t", ["a"])


def test_parameters_of_another_net(net: Any, tmp_path: Path) -> None:
    (tmp_path / "rec_static.pdmodel").write_bytes(graph.model_bytes(net.program, net.feeds, net.target, {}))
    values = {name: net.parameter(name) for name in persistent(net.program)}
    values["users"] = values["users"][:-1]
    write_tensors(tmp_path / "rec_static.pdiparams", values.values())
    assert "(users is of shape [29, 4], and [30, 4] in the program)" in refusal(tmp_path)
