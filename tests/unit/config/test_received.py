"""What a run or a model brings along has nothing run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fl_rec import environment
from fl_rec.config import received
from fl_rec.config.written import KEYS
from fl_rec.errors import ConfigError

PLANTED = [
    ("runner.pipe_command", "touch planted; cat"),
    ("runner.model_path", "net.py"),
    ("runner.exchange", "fl_exchange.py:Planted"),
    ("runner.dump_fields_path", "a; touch planted"),
    ("hyper_parameters.loss", "os:system"),
    ("coordinator.strategy", "fl_strategy.py:Planted"),
    ("coordinator.options", {"selection": "fl_strategy.py:Planted"}),
    ("distillation.students", {"0": {"loss": "os:system"}}),
]


def tree_with(name: str, value: Any) -> dict[str, Any]:
    section, key = name.split(".")
    tree: dict[str, Any] = {"runner": {"train_data_dir": "data"}} | ({} if section == "runner" else {section: {}})
    tree[section][key] = value
    return tree


@pytest.mark.parametrize(("name", "value"), PLANTED)
def test_code_and_commands_are_the_users_own(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError) as caught:
        received.from_tree(tree_with(name, value), path)
    assert str(caught.value).startswith(
        f"{path}: {name} has code or a command run, and a run or a model may be somebody else's: that is taken from "
        "your own -m and -o only. Received: "
    )
    assert str(caught.value).endswith(f"-o {name}=..., or -m FILE with your configuration.")


@pytest.mark.parametrize(("name", "value"), PLANTED)
def test_what_nobody_asks_for_is_as_if_it_were_left_out(name: str, value: Any, tmp_path: Path) -> None:
    config = received.from_tree(tree_with(name, value), tmp_path / "config.yaml", used=())
    default = environment.shipped("models/ncf/static_model.py") if name == "runner.model_path" else KEYS[name].default
    assert config[name] == (str(default) if isinstance(default, Path) else default)


def test_what_is_built_in_is_taken(tmp_path: Path) -> None:
    net = environment.shipped("models/ncf/fl_mf.py")
    tree = {
        "runner": {"train_data_dir": "data", "pipe_command": "cat", "model_path": str(net)},
        "hyper_parameters": {"loss": "focal", "loss_options": {"gamma": 3}},
        "coordinator": {"strategy": "random_k", "options": {"k": 2}},
        "distillation": {"students": {"0": {"mf_dim": 4}}},
    }
    config = received.from_tree(tree, tmp_path / "config.yaml")
    assert config.runner.model_path == net and config.coordinator.options == {"k": 2}


def test_the_users_own_words_are_taken_from_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, here = tmp_path / "run", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    tree = tree_with("coordinator.strategy", "planted.py:Planted")
    tree["coordinator"]["options"] = {"selection": "planted.py:Planted"}
    config = received.from_tree(tree, run / "config.yaml", ["coordinator.strategy=mine.py:Mine"])
    assert config.yaml_path.parent == here, "where mine.py is looked for"
    assert config.coordinator.strategy == "mine.py:Mine" and not config.coordinator.options
    with pytest.raises(ConfigError, match=r"coordinator\.options has code"):
        received.from_tree(tree_with("coordinator.options", {"a": "x:y"}), run / "c", ["coordinator.options={k: 2}"])
    config = received.from_tree(tree_with("runner.model_path", "net.py"), run / "c", ["runner.model_path=net.py"])
    assert config.runner.model_path == here / "net.py"


def test_a_net_beside_what_was_received_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "static_model.py").touch()
    config = received.from_tree({"runner": {"train_data_dir": "data"}}, tmp_path / "model.json")
    assert config.runner.model_path == environment.shipped("models/ncf/static_model.py")


def test_what_goes_with_a_model_names_no_path_of_this_machine() -> None:
    values = {
        "runner": {
            "train_data_dir": "/data/me/data",
            "epochs": 3,
            "pipe_command": "/bin/python /data/me/r.py | tr a/b c",
        },
        "loss": "/data/me/my own/loss.py:Loss",
        "files": ["/data/me/a", "b", {"c": "/d"}],
        "text": "sh '/home/my own/reader.sh'",
        "none": None,
    }
    assert received.portable(values) == {
        "runner": {"epochs": 3, "pipe_command": "python r.py | tr a/b c"},
        "loss": "loss.py:Loss",
        "files": ["b", {}],
        "text": "sh 'reader.sh'",
        "none": None,
    }
