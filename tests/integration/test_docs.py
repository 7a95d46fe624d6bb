"""The documentation's commands, as they stand there: played on three shards, or why not."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from fl_rec import cli
from fl_rec.config import Config
from fl_rec.data.manifest import list_shards
from fl_rec.job.check import check_job
from tests.documented import ROOT, Command, blocks, pages, snippet
from tests.documented import commands as commands_of

from .conftest import Commands

# Why a command isn't played here, by what it is; the first that fits.
NOT_PLAYED = {
    r"datasets/movielens/run\.sh|.* PATH/": "it needs MovieLens, which may not be redistributed",
    r"(pip|pre-commit|source) ": "it changes the reader's environment",
    r"(fl_run\.sh (test|lint|docs)|python -m pytest)": "CI runs it",
    r".*10\.88\.|(mkdir|nft) ": "test_tunnel.py plays them",
    r"sysctl ": "it changes the whole machine",
    r"(tar|scp) |.*\bsouth\b|.* (--source synthetic --out data|--num_shards 4 --out .*)$": "test_hosts.py plays them",
    r"fl-rec (evaluate|export) run$": "test_hosts.py plays them",
    r"(docker|kubectl|mv) |.*fl-rec-worker": ".ci/image builds and plays it; tests/unit/deploy looks at it",
    r"fleetrun ": "test_job.py starts a job so",
    r"docs/": "fl_run.sh lint runs them",
    r"(benchmarks|tests)/": "it takes minutes; its options are looked at in tests/unit",
    r"tools/pretrain_ddpg\.py": "it takes minutes; test_ddpg.py teaches a policy",
    r"python -m unittest": "test_wheel.py plays the test of a new project",
    r".* (goods\.csv --out data|--data data --out|-m job\.yaml --script|c07)\b": "test_a_new_project_plays plays them",
    r".*--source clicks\.csv.*|.* shop\b.*|.*u-006e": "test_own_data.py plays them",
    r"fl-rec doctor": "what it says is the machine's; test_doctor.py",
    r"fl-rec runs remove": "it asks; test_runs.py answers",
    r"fl-rec resume \S+$": "it is for a run that was broken; test_resume.py breaks some",
    r"fl-rec export": "it is played before all others",
    r"fl-rec compress runs/NEW": "its job is played after all that isn't one",
    r"fl-rec run .*-o .*=squared_error": "it needs the loss that is written there, step by step",
}


def why_not(command: Command) -> str:
    text = f"{command.name} {' '.join(command.arguments)}"
    return next((why for form, why in NOT_PLAYED.items() if re.match(form, text)), "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shards: Path, prepared: Path, public_shards: Path) -> Path:
    """A folder with what a clone has, its data being made-up, and with the files that the pages show."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("models", "tools"):
        (folder / name).symlink_to(ROOT / name)
    movielens = folder / "datasets" / "movielens"
    shutil.copytree(prepared, movielens)
    for script in ROOT.glob("datasets/movielens/*.py"):
        shutil.copy(script, movielens)
    for data in (movielens / "fl_data", folder / "fl_rec_data" / "synthetic" / "fl_data"):
        shutil.copytree(shards, data)
    shutil.copytree(public_shards, movielens / "public" / "fl_data")
    built_in = (ROOT / "configs" / "config_synthetic.yaml").read_text()
    data = "../datasets/movielens/synthetic"
    short = built_in.replace(data, "fl_rec_data/synthetic").replace("epochs: 12", "epochs: 1")
    (folder / "config_synthetic.yaml").write_text(short)
    (folder / "likes.txt").write_text("".join(f"{user}: {user % 7}, {user % 5 + 7}, milk\n" for user in range(40)))
    for name in ("fl_hinge.py", "fl_worst_served.py", "my_trainer.py", "stop_early.py"):
        (folder / name).write_text(snippet(name))
    return folder


@pytest.fixture(scope="module")
def said(place: Path, commands: Commands) -> dict[Command, str]:
    """What is wrong with each command that is played, in the order of the pages, after the built-in job; "": nothing.

    The pages call its run runs/NAME.
    """

    def played(words: Sequence[str]) -> str:
        done = commands.play(*words, cwd=place)
        return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}"

    assert played(["run"]) == played(["export"]) == ""
    (run,) = (place / "runs").iterdir()
    run.rename(place / "runs" / "NAME")
    shutil.copytree(place / "runs" / "NAME", place / "runs" / "OTHER")
    found = {}
    for command in documented(jobs=False):
        words = command.name.split()[1:] if command.name.startswith("fl-rec ") else [command.name]
        found[command] = played([*words, *command.arguments])
    return found


JOBS = ("fl-rec run", "fl-rec resume")


def documented(jobs: bool) -> list[Command]:
    """The commands that are not listed above, each once, in the order of the pages: jobs, or the others."""
    found: dict[tuple[str, ...], Command] = {}
    for command in (each for page in pages() for each in commands_of(page)):
        if command.name != "cd" and not why_not(command):
            found.setdefault((command.name, *command.arguments), command)
    return [each for each in found.values() if (each.name in JOBS) == jobs]


JOBS_OF = {page: [each for each in documented(jobs=True) if each.page == page] for page in pages()}
JOBS_OF = {page: jobs for page, jobs in JOBS_OF.items() if jobs}


def test_every_reason_is_of_use() -> None:
    texts = [f"{each.name} {' '.join(each.arguments)}" for page in pages() for each in commands_of(page)]
    for form in NOT_PLAYED:
        assert any(re.match(form, text) for text in texts), form


@pytest.mark.parametrize("command", documented(jobs=False), ids=str)
def test_commands_do_what_the_pages_say(command: Command, said: dict[Command, str]) -> None:
    assert said[command] == ""


@pytest.mark.parametrize("command", [each for each in documented(jobs=True) if each.name == "fl-rec run"], ids=str)
@pytest.mark.usefixtures("said")
def test_jobs_could_be_started(command: Command, place: Path) -> None:
    """All that is checked before the first process starts; the built-in one is started above."""
    parser, _ = cli.parsers(["run"])
    options = parser.parse_args(["run", *command.arguments])
    script = options.script
    assert script is None or (place / script).is_file()
    config = Config.load(place / (options.config_yaml or "config_synthetic.yaml"), options.opt)
    workers = len(list_shards(config.runner.train_data_dir, "train_data_dir"))
    job = check_job(config, workers, options.coordinator_num)
    assert job.config.runner.epochs >= 1


@pytest.mark.skipif("FL_REC_EVERY_COMMAND" not in os.environ, reason="minutes: FL_REC_EVERY_COMMAND=1 starts each job")
@pytest.mark.parametrize("page", [each for each in pages() if each in JOBS_OF], ids=lambda page: page.name)
@pytest.mark.usefixtures("said")
def test_jobs_play(page: Path, place: Path, commands: Commands) -> None:
    """A page's jobs one after the other, of as few epochs as there can be, after what the page has them start from."""

    def play(*words: str) -> None:
        done = commands.play(*words, cwd=place)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"

    for command in JOBS_OF[page]:
        if "runner.warmup_model_path=../pruned" in command.arguments:
            play("run", "-m", "configs/config_fl.yaml", "-o", "runner.epochs=1", "runner.run_dir=../runs/whole")
            shutil.rmtree(place / "pruned", ignore_errors=True)  # of the built-in job, whose clients are others
            play("compress", "runs/whole", "--prune", "0.5", "--out", "pruned")
        for saved in (place / "runs").glob("*/model/1"):
            shutil.copytree(saved, saved.with_name("20"), dirs_exist_ok=True)
        epochs = 2 if command.name == "fl-rec resume" else 1
        play(command.name.split()[1], *command.arguments, "-o", f"runner.epochs={epochs}")


@pytest.mark.skipif("FL_REC_EVERY_COMMAND" not in os.environ, reason="as above")
def test_a_new_project_plays(tmp_path: Path, commands: Commands) -> None:
    project = tmp_path / "project"
    assert commands.play("new", project, cwd=tmp_path).returncode == 0
    played = commands_of(project / "README.md")
    assert [each.name for each in played] == ["fl-rec prepare", "fl-rec partition", "fl-rec run", "fl-rec recommend"]
    for command in played:
        done = commands.play(*command.words[1:], cwd=project)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
@pytest.mark.usefixtures("said")
def test_snippets_play(page: Path, place: Path, commands: Commands) -> None:
    """What a page's Python does by itself; a part of a file, which CONTRIBUTING has, is none."""
    for text in blocks(page, "python"):
        if page.name not in ("CONTRIBUTING.md", "python.md"):  # test_own_data.py plays the latter
            (place / "snippet.py").write_text(text.replace("class StaticModel(...)", "class StaticModel"))
            done = commands.play(str(place / "snippet.py"), cwd=place) if "main(" not in text else None
            assert done is None or done.returncode == 0, f"{text}\n{done.stderr}"
            compile(text, page.name, "exec")
