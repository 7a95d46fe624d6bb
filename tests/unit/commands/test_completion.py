"""`fl-rec completion` and `fl-rec config`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from fl_rec import cli, environment
from fl_rec.commands import completion
from fl_rec.config import reference

ASK = """
source {script}
compopt() {{ :; }}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_fl_rec
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """`completed("fl-rec ru")`: what bash proposes for the last word."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "runs" / "main-1").mkdir(parents=True)
    script = folder / "completion.bash"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", said.append)
        assert cli.main(["completion", "bash"]) == 0
    script.write_text("\n".join(said))

    def completed(line: str) -> list[str]:
        words = " ".join(f"'{word}'" for word in line.split(" "))
        command = ["bash", "--norc", "-c", ASK.format(script=script, words=words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
        assert done.stderr == ""
        return done.stdout.split()

    return completed


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        ("fl-rec pa", ["partition"]),
        ("fl-rec run -o runner.ep", ["runner.epochs="]),
        ("fl-rec run --worker", ["--worker_num"]),
        ("fl-rec run -o hyper_parameters.optimizer.l", ["hyper_parameters.optimizer.learning_rate="]),
        ("fl-rec compare ma", ["main-1"]),
        ("fl-rec runs remove ma", ["main-1"]),
        ("fl-rec run -m comp", ["completion.bash"]),
        ("fl-rec completion f", ["fish"]),
    ],
)
def test_bash_completes(completed: Callable[..., list[str]], line: str, proposed: list[str]) -> None:
    assert completed(line) == proposed


@pytest.mark.parametrize("shell", completion._OWN)
def test_every_shell_has_every_command_and_key(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in cli.COMMANDS)
    assert "hyper_parameters.optimizer.learning_rate=" in said


def test_every_key_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["config"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert said.startswith("# runner: How a run goes: data in, training, evaluation, files out.\n\nrunner.train_data")
    # A line breaks between a value and what it must be.
    assert all(f"\n{key.name}" in said for key in reference.every_key())
    assert cli.main(["config", "privacy", "runner.seed"]) == 0
    said = capsys.readouterr().out
    assert "privacy.delta=1e-05  (a number above 0, up to 1)\n" in said and "\nrunner.seed=2022  (" in said


def test_one_key_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "epochs"]) == 0
    assert "  type      an integer of at least 1\n  default   1\n  unit      epochs\n" in capsys.readouterr().out
    assert cli.main(["config", "runner.epoch"]) == 2
    assert "Did you mean runner.epochs?" in capsys.readouterr().err


def test_the_schema_takes_every_configuration_that_comes_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted(Path(environment.shipped("configs")).glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        problems = [each.message for each in validator.iter_errors(content)]
        assert problems == [], path.name
    wrong = {"runner": {"train_data_dir": "data", "epochs": 0, "epoch": 3}}
    assert len(list(validator.iter_errors(wrong))) == 2
