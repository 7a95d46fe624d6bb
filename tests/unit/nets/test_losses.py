"""Losses by name and by file, and their options. What needs Paddle is in tests/paddle/test_nets.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.nets.losses import LOSSES, NamedLoss, find_loss

PROJECT = Path(__file__).parents[3]
DEADLINE = 30.0

MINE = """\
def hinge(logits, labels, *, margin: float = 1.0, power=2, strict=False, kind="mean", cuts=(0.5,), from_=None):
    return logits, margin, power, strict, kind, cuts, from_

def needs(logits, labels, *, weight=1.0, classes):
    return classes

def ranks(logits, labels):
    return None

ranks.grouped = True
CONSTANT = 3
"""

Find = Callable[..., NamedLoss]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """`find(loss, options, **hyper_parameters)`, with losses of a user's own in `losses/mine.py` beside the YAML."""
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "mine.py").write_text(MINE, encoding="utf-8")
    path = tmp_path / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")

    def find(loss: str, options: Mapping[str, Any] | None = None, **more: Any) -> NamedLoss:
        keys = {"loss": loss, "loss_options": options or {}, **more}
        return find_loss(Config.load(path).replace(**{f"hyper_parameters.{name}": each for name, each in keys.items()}))

    return find


def refusal(find: Find, *arguments: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        find(*arguments, **more)
    return str(caught.value)


def test_module_needs_no_paddle() -> None:
    code = "import sys, fl_rec.nets.losses\nsys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, timeout=DEADLINE).returncode == 0


def test_default_is_the_log_loss(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")
    assert find_loss(Config.load(path)) == NamedLoss("log_loss", {}, LOSSES.find("log_loss"), False)


@pytest.mark.parametrize(
    ("name", "options", "grouped"),
    [
        ("log_loss", {}, False),
        ("focal", {"gamma": 2.0, "alpha": 0.25}, False),
        ("label_smoothing", {"smoothing": 0.1}, False),
        ("bpr", {}, True),
        ("sampled_softmax", {"temperature": 1.0}, True),
    ],
)
def test_losses_and_their_options(find: Find, name: str, options: Mapping[str, float], grouped: bool) -> None:
    assert find(name) == NamedLoss(name, options, LOSSES.find(name), grouped)
    assert find(name, dict.fromkeys(options, 1)).options == dict.fromkeys(options, 1.0)


def test_options_are_converted(find: Find) -> None:
    options = find("focal", {"gamma": "1e-1"}).options
    assert options == {"gamma": 0.1, "alpha": 0.25} and isinstance(options["gamma"], float)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("bprr",),
            "hyper_parameters.loss must be one of log_loss, focal, label_smoothing, bpr, sampled_softmax, or "
            "module:function. Received: 'bprr'. Did you mean bpr?",
        ),
        (
            ("contrastive",),
            "hyper_parameters.loss must be one of log_loss, focal, label_smoothing, bpr, sampled_softmax, or "
            "module:function. Received: 'contrastive'. Your own is named module:function or file.py:function.",
        ),
        (
            ("focal", {"gama": 1}),
            "hyper_parameters.loss_options of focal: gama: unknown key. Did you mean gamma?",
        ),
        (
            ("log_loss", {"smoothing": 0.1}),
            "hyper_parameters.loss_options of log_loss: smoothing: unknown key. Its keys: none.",
        ),
        (
            ("focal", {"gamma": -1}),
            "hyper_parameters.loss_options of focal: gamma must be a number of at least 0. Received: gamma=-1 (int). "
            "Set it to a finite number of at least 0.",
        ),
        (
            ("sampled_softmax", {"temperature": 0}),
            "hyper_parameters.loss_options of sampled_softmax: temperature must be a number above 0. "
            "Received: temperature=0 (int). Set it to a finite number above 0.",
        ),
        (
            ("label_smoothing", {"smoothing": "much"}),
            "hyper_parameters.loss_options of label_smoothing: smoothing must be a number from 0 to 1. "
            "Received: smoothing='much' (str). Set it to 0, 1 or something between.",
        ),
    ],
)
def test_what_is_refused(find: Find, arguments: tuple[Any, ...], text: str) -> None:
    assert refusal(find, *arguments) == text


@pytest.mark.parametrize("name", ["bpr", "sampled_softmax", "losses/mine.py:ranks"])
def test_grouped_losses_need_grouped_rows(find: Find, name: str) -> None:
    assert refusal(find, name, group_size=1) == (
        f"hyper_parameters.loss={name} compares a positive with the negatives of its own row, which must hold several "
        "items. Received: group_size=1. Set runner.resample_negatives=8, make grouped shards with fl-rec partition "
        "--group, or choose log_loss."
    )
    assert find(name, group_size=2).grouped and find(name, group_size=None).grouped


def test_pointwise_losses_take_grouped_rows(find: Find) -> None:
    for name in ("log_loss", "focal", "label_smoothing", "losses/mine.py:hinge"):
        assert not find(name, group_size=9).grouped


def test_a_users_loss(find: Find) -> None:
    """Its path starts at the YAML's folder, and the types of its options are those of their defaults."""
    defaults = {"margin": 1.0, "power": 2, "strict": False, "kind": "mean", "cuts": (0.5,), "from_": None}
    loss = find("losses/mine.py:hinge")
    assert (loss.name, loss.options, loss.grouped) == ("losses/mine.py:hinge", defaults, False)
    given = {"margin": "2e0", "power": "-3", "strict": "true", "kind": "sum", "cuts": [1], "from": "here"}
    assert list(find("losses/mine.py:hinge", given).options.values()) == [2.0, -3, True, "sum", [1], "here"]
    assert find("losses/mine.py:needs", {"classes": [2]}).options == {"weight": 1.0, "classes": [2]}


@pytest.mark.parametrize(
    ("option", "accepts"),
    [
        ({"power": 2.5}, "power must be an integer. Received: power=2.5 (float). Write it as 2."),
        ({"margin": True}, "margin must be a number. Received: margin=True (bool). Write it as 1.0."),
        ({"strict": 2}, "strict must be true or false. Received: strict=2 (int). Set it to true or false."),
        ({"kind": 3}, "kind must be a text that is not empty. Received: kind=3 (int). Write some text in quotes."),
        ({"margins": 3}, "margins: unknown key. Did you mean margin?"),
    ],
)
def test_options_of_a_users_loss(find: Find, option: Mapping[str, Any], accepts: str) -> None:
    name = "losses/mine.py:hinge"
    text = refusal(find, name, option)
    assert text.startswith(f"hyper_parameters.loss_options of {name}: ") and text.endswith(accepts)


def test_a_users_loss_that_is_none(find: Find, tmp_path: Path) -> None:
    path = tmp_path / "losses" / "none.py"
    text = refusal(find, "losses/none.py:hinge")
    assert text.startswith(f"A loss must be importable. Received: 'losses/none.py:hinge'; there is no file {path}. ")
    assert "has no attribute 'hing'" in refusal(find, "losses/mine.py:hing")
    assert refusal(find, "losses/mine.py:CONSTANT") == (
        "A loss must be a function. Received: 'losses/mine.py:CONSTANT', int."
    )
    assert refusal(find, "losses/mine.py:needs") == (
        "hyper_parameters.loss_options of losses/mine.py:needs: classes is missing. "
        "Set it to the classes that losses/mine.py:needs takes."
    )


@pytest.mark.parametrize(
    ("name", "received"), [("losses/mine.py:ranks", "NoneType"), ("losses/mine.py:hinge", "tuple")]
)
def test_a_users_loss_that_returns_no_cost(find: Find, name: str, received: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(name)(None, None)
    assert str(caught.value) == (
        f"hyper_parameters.loss: {name} must return a scalar variable. Received: {received}. Return paddle.mean(...) "
        "of it."
    )
