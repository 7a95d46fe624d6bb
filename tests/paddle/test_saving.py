"""Which models are saved, which is kept, and what is started from."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.errors import DataError, RunError
from fl_rec.evaluation.auc import AucBuckets
from fl_rec.evaluation.metrics import EpochMetrics, Evaluation
from fl_rec.files import begin_draft
from fl_rec.nets.own_users import ALL_USERS
from fl_rec.runs import models, private_parts
from fl_rec.runs.private_parts import Part
from fl_rec.runs.roles import Role
from fl_rec.trainer import saving, warm_start
from fl_rec.trainer.saving import Saving


def saver(folder: Path, index: int = 0, patience: int = 0, private: Any = None, **parts: Any) -> Saving:
    config: Any = SimpleNamespace(
        runner=SimpleNamespace(early_stopping=patience, train_data_dir=folder / "data", test_data_dir=None),
        distillation=SimpleNamespace(students=parts.pop("students", {})),
        to_dict=lambda: {"runner": {"seed": 3, "train_data_dir": "/data"}},
    )
    role = Role("worker", index, 4, (), "", elsewhere=frozenset(parts.pop("elsewhere", ())))
    exchange: Any = SimpleNamespace(servers=SimpleNamespace(save="the servers' tables"))
    student: Any = SimpleNamespace(signature=lambda: {"public_users": [3]})
    net, program = parts.pop("net", None), parts.pop("program", None)
    data = ({"users.csv": "12"}, {"run": "ab", "data": "cd"})
    return Saving(config, role, folder, *data, net, program, private or {}, exchange, student)


def figures(epoch: int, ndcg: float | None) -> EpochMetrics:
    validation = Evaluation() if ndcg is None else Evaluation(1, 1, ndcg)
    return EpochMetrics(None, epoch, 1, 1.0, 1.0, AucBuckets.empty(2), validation=validation)


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What models are signed with, in place of signing them."""
    signed: list[Any] = []
    monkeypatch.setattr(saving.models, "sign", lambda *arguments: signed.append(arguments))
    return signed


def made(folder: Path, epochs: int) -> Path:
    """Models of which all parts are written."""
    for epoch in range(1, epochs + 1):
        begin_draft(folder / str(epoch))
    return folder


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("signed")
def test_without_validation_all_stay_and_the_last_counts(tmp_path: Path) -> None:
    mine = saver(made(tmp_path, 3))
    for epoch in (1, 2, 3):
        mine.keep_the_best(figures(epoch, None), validated=False)
    mine.remove(mine.worse())
    assert mine.best_epoch == 3 and mine.best_model == tmp_path / "3" and kept(tmp_path) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("ndcgs", "best"),
    [([0.1, 0.3, 0.2], 2), ([0.3, 0.2, 0.1], 1), ([0.1, 0.2, 0.3], 3), ([0.2, 0.2, 0.2], 1)],
)
@pytest.mark.usefixtures("signed")
def test_with_validation_the_best_stays(tmp_path: Path, ndcgs: list[float], best: int) -> None:
    mine = saver(made(tmp_path, 3))
    for epoch, ndcg in enumerate(ndcgs, 1):
        mine.keep_the_best(figures(epoch, ndcg), validated=True)
    assert kept(tmp_path) == ["1", "2", "3"], "a checkpoint may still need one"
    mine.remove(mine.worse())
    assert mine.best_epoch == best and kept(tmp_path) == [str(best)]


def test_only_the_first_worker_publishes_and_removes(tmp_path: Path) -> None:
    mine = saver(made(tmp_path, 2), index=1)
    for epoch, ndcg in enumerate((0.1, 0.2), 1):
        mine.keep_the_best(figures(epoch, ndcg), validated=True)
    mine.remove(mine.worse())
    assert mine.best_epoch == 2 and kept(tmp_path) == [".1.tmp", ".2.tmp"]


@pytest.mark.usefixtures("signed")
def test_a_first_epoch_without_a_figure_is_kept_until_there_is_one(tmp_path: Path) -> None:
    mine = saver(made(tmp_path, 1))
    mine.keep_the_best(figures(1, math.nan), validated=True)
    mine.remove(mine.worse())
    assert mine.best_epoch == 1 and kept(tmp_path) == ["1"]


@pytest.mark.parametrize(
    ("patience", "epoch", "over"), [(0, 9, False), (2, 1, False), (2, 2, False), (2, 3, True), (1, 2, True)]
)
def test_patience(tmp_path: Path, patience: int, epoch: int, over: bool) -> None:
    mine = saver(tmp_path, patience=patience)
    mine.best_epoch = 1
    assert mine.patience_is_over(epoch) is over


def test_the_first_worker_writes_what_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(saving.models, "begin", lambda *arguments: saved.append(arguments))
    saver(tmp_path, index=1, net="a net").save_shared(4)
    assert saved == []
    saver(tmp_path, net="a net", private={"users": True}).save_shared(4)
    ((net, folder, tables, private),) = saved
    assert (net, folder, tables, list(private)) == ("a net", tmp_path / "4", "the servers' tables", ["users"])


def test_the_first_worker_of_each_host_writes_and_says_whose_parts_are_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signed: list[Any]
) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(saving.models, "begin", lambda *arguments: saved.append(arguments))
    saver(tmp_path, index=3, elsewhere=(0, 1)).save_shared(1)
    assert saved == [], "worker 2 is the first there"
    saver(tmp_path, index=2, elsewhere=(0, 1)).save_shared(1)
    assert len(saved) == 1
    saver(made(tmp_path, 1), index=2, elsewhere=(0, 1)).keep_the_best(figures(1, None), validated=False)
    assert [each[2]["elsewhere"] for each in signed] == [[0, 1]]


def test_the_first_worker_signs_when_all_have_written(tmp_path: Path, signed: list[Any]) -> None:
    saver(made(tmp_path, 1), net="a net", private={"users": True}).keep_the_best(figures(1, None), validated=False)
    ((net, folder, signature, private),) = signed
    assert (net, folder, list(private)) == ("a net", tmp_path / ".1.tmp", ["users"])
    assert signature["epoch"] == 1 and signature["mappings"] == {"users.csv": "12"}
    assert signature["identity"] == {"run": "ab", "data": "cd", "epoch": 1}
    assert signature["config"] == {"runner": {"seed": 3}}, "without paths of this machine"
    assert "elsewhere" not in signature
    assert signature["public_users"] == [3] and signature["data"] == {"train_data_dir": tmp_path / "data"}


class Private(dict[str, bool]):
    """Private parameters with a part of one."""

    def parts(self, program: Any) -> dict[str, Part]:
        return {"users": Part(np.array([1]), np.array([[2.0]], np.float32))}


def test_every_worker_writes_its_private_part(tmp_path: Path) -> None:
    made(tmp_path, 4)
    saver(tmp_path, index=2).save_private(3)
    draft = tmp_path / ".3.tmp"
    assert kept(draft) == [], "nothing is private"
    saver(tmp_path, index=2, private=Private(users=True)).save_private(3)
    path = models.private_path(draft, 2)
    assert private_parts.load(path)["users"].values.tolist() == [[2.0]] and kept(path.parent) == ["2.npz"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_worker_with_a_net_of_its_own_writes_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, 1)
    written: list[Any] = []
    monkeypatch.setattr(saving.models, "write_own", lambda *arguments: written.append(arguments))
    saver(tmp_path, index=1, net="mine", private=Private(users=True), students={"1": {}}).save_private(0)
    assert written == [("mine", tmp_path / ".0.tmp" / "private" / "1.npz", {"users": True})]


def test_a_part_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / ".0.tmp").write_text("in the way")
    with pytest.raises(RunError, match=r"private part must be saved, and .*1.npz can't be written .* Free some space"):
        saver(tmp_path, index=1, private=Private(users=True)).save_private(0)


# --- What is written -----------------------------------------------------------------------------------


@pytest.fixture()
def net() -> Any:
    """A net with a table, a matrix and a vector."""
    import paddle

    from fl_rec.nets.inference import InferenceNet

    program, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(program, startup), paddle.utils.unique_name.guard():
        user, item = (paddle.static.data(name, [-1, 1], "int64") for name in ("user", "item"))
        tables = [paddle.nn.Embedding(300, 4, weight_attr=paddle.ParamAttr(name=name)) for name in ("users", "items")]
        both = paddle.concat([table(ids) for table, ids in zip(tables, (user, item))], axis=-1)
        scores = paddle.squeeze(paddle.nn.Linear(8, 1)(both), axis=-1)
    pruned, scope = paddle.static.normalize_program(program, [user, item], [scores]), paddle.static.Scope()
    paddle.static.Executor(paddle.CPUPlace()).run(startup, scope=scope)
    return InferenceNet(pruned, ("user", "item"), pruned.global_block().var(scores.name), scope)


def test_a_model_is_written_as_paddle_writes_it(net: Any, tmp_path: Path) -> None:
    import paddle

    models.write(net, tmp_path, {"epoch": 3})
    block, theirs = net.program.global_block(), tmp_path / "theirs"
    with paddle.static.scope_guard(net.scope):
        inputs = [block.var(name) for name in net.feeds]
        paddle.static.save_inference_model(str(theirs), inputs, [net.target], net.executor, program=net.program)
    written = tmp_path / "rec_static.pdiparams"
    assert written.read_bytes() == theirs.with_suffix(".pdiparams").read_bytes()
    assert str(Path(__file__).parent).encode() not in (tmp_path / "rec_static.pdmodel").read_bytes()
    loaded, rows = models.load(tmp_path), (np.arange(300)[:, None], np.arange(300)[::-1, None])
    assert loaded.feeds == net.feeds and loaded.predict(rows, 128).tolist() == net.predict(rows, 300).tolist()


def test_what_is_withheld_is_zero_in_the_file_and_stays_in_the_net(net: Any, tmp_path: Path) -> None:
    before = net.parameter("users")
    private_parts.save(models.private_path(tmp_path, 0), {"users": Part(np.array([7]), before[[7]])})
    models.write(net, tmp_path, {}, ["users"])
    loaded = models.load(tmp_path)
    users = loaded.parameter("users")
    assert users[7].tolist() == before[7].tolist() and np.flatnonzero(users.any(axis=1)).tolist() == [7]
    assert loaded.parameter("items").tolist() == net.parameter("items").tolist()
    assert net.parameter("users").tolist() == before.tolist() and before.all()


# --- Starting from saved models ------------------------------------------------------------------------


class Program:
    """Parameters that are set and not trained."""

    def __init__(self) -> None:
        self.values = {"items": np.zeros((2, 2)), "users": np.zeros((3, 2))}
        self.names = list(self.values)

    def value(self, name: str) -> np.ndarray:
        return self.values[name]

    def set_value(self, name: str, values: np.ndarray) -> None:
        self.values[name] = values


class TakesOver(dict[str, bool]):
    users = ALL_USERS

    def take_over(self, name: str, values: np.ndarray) -> np.ndarray:
        return values + 10


def settings(warm: Path | None = None, gmf: Path | None = None, mlp: Path | None = None) -> Any:
    hyper = SimpleNamespace(pretrained_gmf=gmf, pretrained_mlp=mlp, pretrain_alpha=0.25)
    return SimpleNamespace(runner=SimpleNamespace(warmup_model_path=warm), hyper_parameters=hyper)


def test_a_warm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {"items": np.ones((2, 2)), "users": np.ones((3, 2)), "unused": np.ones(1)}
    asked: list[Any] = []
    monkeypatch.setattr(warm_start, "load_parameters", lambda *arguments: asked.append(arguments) or saved)
    program: Any = Program()
    warm_start.warm_start(settings(Path("model")), 3, program, TakesOver(users=True))  # type: ignore[arg-type]
    assert asked == [(Path("model"), 3)]
    assert (program.values["items"] == 1).all() and (program.values["users"] == 11).all()


def test_no_warm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "load_parameters", lambda *_: pytest.fail("there is nothing to load"))
    program: Any = Program()
    warm_start.warm_start(settings(), 0, program, TakesOver())  # type: ignore[arg-type]
    assert not program.values["items"].any()


def test_pretrained_nets_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "load_parameters", lambda path, client: f"{path} of {client}")
    joined: list[Any] = []
    values = {"items": np.full((2, 2), 4.0), "users": np.full((3, 2), 5.0)}
    monkeypatch.setattr(warm_start, "neumf_parameters", lambda *arguments: joined.append(arguments) or values)
    program: Any = Program()
    warm_start.warm_start(settings(gmf=Path("gmf"), mlp=Path("mlp")), 2, program, TakesOver())  # type: ignore[arg-type]
    assert joined == [("gmf of 2", "mlp of 2", 0.25)]
    assert (program.values["users"] == 5).all()


@pytest.mark.parametrize(
    ("users", "found"), [(None, "users missing"), (np.ones((2, 2)), r"users of shape \[2, 2\], and the net's is of")]
)
def test_a_model_of_another_net(monkeypatch: pytest.MonkeyPatch, users: np.ndarray | None, found: str) -> None:
    saved = {"items": np.ones((2, 2)), **({} if users is None else {"users": users})}
    monkeypatch.setattr(warm_start, "load_parameters", lambda *_: saved)
    program: Any = Program()
    with pytest.raises(DataError, match=f"Received from the warm start: {found}"):
        warm_start.warm_start(settings(Path("model")), 0, program, TakesOver())  # type: ignore[arg-type]
    assert not program.values["items"].any(), "nothing is taken over of a model that does not fit"
