"""What every key is, for people, the documentation and editors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fl_rec.config import json_schema, reference
from fl_rec.config.written import KEYS
from fl_rec.errors import ConfigError


def test_every_key_is_explained() -> None:
    found = {each.name: each for each in reference.every_key()}
    assert set(found) == {*KEYS, *(f"coordinator.clients.N.{name}" for name in ("type", "slow_down", "bandwidth"))}
    assert all(each.type and each.meaning for each in found.values())
    assert found["runner.geo_step"] == reference.Key(
        "runner.geo_step",
        "an integer of at least 1",
        "100",
        "batches",
        "geo: at most this many batches between two exchanges",
    )
    assert found["runner.train_data_dir"].default is None
    assert found["runner.exchanges_per_epoch"].renamed == "runner.rounds_per_epoch"


@pytest.mark.parametrize("each", [each for each in reference.every_key() if "seconds" in each.meaning.split()])
def test_what_is_in_seconds_says_so(each: reference.Key) -> None:
    assert each.unit == "seconds"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("runner.epochs", ["runner.epochs"]),
        ("epochs", ["runner.epochs"]),
        ("lr", ["hyper_parameters.optimizer.learning_rate"]),
        ("runner.rounds_per_epoch", ["runner.exchanges_per_epoch"]),
        (
            "hyper_parameters.optimizer",
            [f"hyper_parameters.optimizer.{name}" for name in ("class", "learning_rate", "schedule")],
        ),
        ("distillation", [name for name in KEYS if name.startswith("distillation.")]),
    ],
)
def test_keys_are_found(name: str, found: list[str]) -> None:
    assert [each.name for each in reference.find(name)] == found


def test_a_name_that_is_no_keys() -> None:
    with pytest.raises(ConfigError, match=r"runner\.epoch: unknown key\. Did you mean runner\.epochs\?"):
        reference.find("runner.epoch")


def test_for_a_terminal() -> None:
    text = reference.to_text(reference.find("runner"), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert (
        "runner.geo_step=100  (an integer of at least 1; batches)\n"
        "  geo: at most this many batches between two exchanges\n"
    ) in text
    assert text.startswith("runner.train_data_dir  (a path; required)\n  folder of training shards")


def test_one_at_length() -> None:
    (key,) = reference.find("hyper_parameters.optimizer.learning_rate")
    assert (
        reference.explain(key, 80)
        == """\
hyper_parameters.optimizer.learning_rate
  meaning   step size
  type      a number above 0
  default   0.001
  in YAML   hyper_parameters:
              optimizer: {learning_rate: 0.001}
  or        -o hyper_parameters.optimizer.learning_rate=0.001"""
    )


def test_for_the_documentation() -> None:
    lines = reference.to_markdown("runner").splitlines()
    assert lines[:2] == ["| key | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    assert "| `epochs` | an integer of at least 1 | `1` | epochs | passes over the training data |" in lines
    assert len(lines) == 2 + sum(name.startswith("runner.") for name in KEYS)
    assert reference.meaning_of("runner") == "How a run goes: data in, training, evaluation, files out."


def test_json_schema() -> None:
    schema = json_schema()
    assert schema["required"] == ["runner"] and schema["additionalProperties"] is False
    runner = schema["$defs"]["RunnerConfig"]
    assert runner["required"] == ["train_data_dir"] and runner["additionalProperties"] is False
    epochs: dict[str, Any] = {"default": 1, "description": "passes over the training data", "unit": "epochs"}
    epochs |= {"exclusiveMinimum": 0, "type": "integer"}
    assert {**runner["properties"]["epochs"], **epochs} == runner["properties"]["epochs"]
    assert runner["properties"]["sync_mode"]["enum"] == ["geo", "async", "sync"]
    assert runner["properties"]["rounds_per_epoch"]["deprecated"] is True
    keys = {name.partition(".")[2] for name in KEYS if name.startswith("runner.")}
    assert set(runner["properties"]) == keys | {"rounds_per_epoch"}
    assert "class" in schema["$defs"]["OptimizerConfig"]["properties"]
    json.dumps(schema)
