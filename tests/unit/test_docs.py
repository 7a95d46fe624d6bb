"""The documentation: both languages alike, and nothing in it that the program has not."""

from __future__ import annotations

import dataclasses
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fl_rec import cli
from fl_rec.config import Config
from fl_rec.config.schema import ALSO_AT, RENAMED
from fl_rec.config.written import KEYS, SECTIONS
from fl_rec.errors import ConfigError
from fl_rec.evaluation.records import EpochRecord
from fl_rec.runs.result import RunResult
from tests.documented import ROOT, Command, blocks, commands, pages, split

CHECK = ROOT / "docs" / "check_languages.py"
ALL = [command for page in pages() for command in commands(page)]
CODE = "".join(re.sub(r'"\s*\n\s*r?f?"', "", path.read_text()) for path in sorted(ROOT.rglob("fl_rec/**/*.py")))
# Programs that are not this project's, and what a reader's shell has.
OTHERS = {
    "cd",
    "source",
    "pip",
    "pre-commit",
    "mkdir",
    "echo",
    "openvpn",
    "nft",
    "sysctl",
    "tar",
    "scp",
    "docker",
    "kubectl",
    "mv",
}


@pytest.fixture
def check() -> dict:
    return runpy.run_path(str(CHECK))


def test_both_languages_are_equal() -> None:
    done = subprocess.run([sys.executable, CHECK], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


PAGE = """\
# Title

[a page](other.md#a-heading), 1,000 rows, `runner.trim`

```bash
command   # a comment
```

## Two

2.5 s
"""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("## Two", "### Two"), "the headings must have the same levels in both"),
        (("command ", "command --all "), "the code blocks must be the same, comments left out"),
        (("1,000 rows", "100 rows"), "the figures must be the same. Received: ['1000'] and ['100'] beside"),
        (("other.md#a", "nowhere.md#a"), "a link must lead to a file of docs/. Received: nowhere.md#a-heading"),
        (("other.md#a-", "other.md#b-"), "a link must lead to a heading of other.md. Received: other.md#b-heading"),
        (("other.md#a-heading", "../README.md"), "a link must lead to a file of docs/. Received: ../README.md"),
        (("# a comment", "# 注释"), ""),
        (("2.5 s", "2.5 秒"), ""),
    ],
)
def test_a_difference_is_told(tmp_path: Path, check: dict, change: tuple[str, str], problem: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("page.md", "page.zh.md", "other.md", "other.zh.md", "../README.md", "../README.zh-CN.md"):
        (docs / name).write_text(PAGE if "page" in name else "# A heading\n", encoding="utf-8")
    assert check["problems"](tmp_path) == []
    assert change[0] in PAGE
    (docs / "page.zh.md").write_text(PAGE.replace(*change), encoding="utf-8")
    told = check["problems"](tmp_path)
    assert [problem in each for each in told] == [True] * bool(problem), told
    (docs / "page.zh.md").unlink()
    assert check["problems"](tmp_path) == ["docs/page.zh.md must be there, in both languages."]


def test_the_keys_of_the_configuration_page_are_those_there_are(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "configuration_pages.py"))
    for name in script["TITLES"]:
        shutil.copy(ROOT / "docs" / name, tmp_path)
    assert script["main"]([], tmp_path) == 0, "python docs/configuration_pages.py --write"
    page = tmp_path / "configuration.md"
    page.write_text(page.read_text().replace("| `trim` |", "| `trimm` |"))
    assert script["main"]([], tmp_path) == 1
    assert script["main"](["--write"], tmp_path) == 0 == script["main"]([], tmp_path)


def test_the_chinese_of_keys() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "configuration_pages.py"))
    say = script["in_chinese"]
    assert say("a number from 0 to 0.49") == "0 到 0.49 的数" and say("one of geo, async").endswith("geo, async")
    with pytest.raises(SystemExit, match="must have the Chinese .* Add to it: 'folder of nothing': ..."):
        say("folder of nothing")
    said: set[str] = set()

    def noted(text: str) -> str:
        said.update((text, re.sub(script["_NUMBER"], "N", text)))
        return text

    for name, titles in script["TITLES"].items():
        script["tables"]((ROOT / "docs" / name).read_text(), titles, noted)
    chinese = yaml.safe_load((ROOT / "docs" / "configuration.zh.yaml").read_text())
    assert chinese.keys() - said == {"one of "}, "what no page says"


def test_readme_is_short() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(("index", "ending"), [("index.md", ".md"), ("index.zh.md", ".zh.md")])
def test_each_page_is_in_the_index_and_on_the_site(index: str, ending: str) -> None:
    docs = ROOT / "docs"
    there = {each.name for each in docs.glob("*.md") if each.name.endswith(".zh.md") == (ending == ".zh.md")} - {index}
    assert there - {*re.findall(r"\(([^\s()]+\.md)\)", (docs / index).read_text())} == set()
    assert there - {*re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)} == set()


def test_keys_that_are_named_exist() -> None:
    """`runner.epochs` and the like, in text, tables and commands."""
    known = {*KEYS, *RENAMED, *SECTIONS, *ALSO_AT}
    named = re.compile(rf"`({'|'.join(SECTIONS)})\.([a-z_][\w.]*)")
    for page in pages():
        for section, name in named.findall(page.read_text(encoding="utf-8")):
            key = f"{section}.{name.rstrip('.')}"
            if name == "py" or key == "runner.with_coordinator":  # a file; PaddleRec's, of which a page tells
                continue
            within = any(key.startswith(f"{each}.") for each in KEYS)
            above = any(each.startswith(f"{key}.") for each in KEYS)
            assert key in known or within or above, f"{page.name}: {key}"


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("result.json", set(RunResult.model_fields)),
        ("metrics.jsonl", {each.name for each in dataclasses.fields(EpochRecord)} - {"extra", "clients"}),
    ],
)
def test_the_keys_of_a_runs_files_are_those_there_are(file: str, names: set[str]) -> None:
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8").split(f"## {file}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == names


def test_errors_that_are_explained_exist() -> None:
    told = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(told) > 20
    for message in told:
        assert message in CODE, message


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_documented_command_is_one(command: Command) -> None:
    check_command(command)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fl-rec rnu -m configs/config_fl.yaml", "invalid choice: 'rnu'"),
        ("fl-rec run -n configs/config_fl.yaml", "it takes no -n"),
        ("./fl_run.sh -m configs/config.yaml", "configs/config.yaml"),
        ("fl-rec run -m configs/config_fl.yaml -o runner.epcohs=2", "runner.epcohs: unknown key"),
        ("fl-rec run -o runner.epochs=none", "runner.epochs must be an integer"),
        ("python benchmarks/growth.py --pages docs/scaling.md", "--pages"),
        ("python datasets/movielens/prepare.py --surce synthetic", "required: --source"),
        ("flrec run", "flrec"),
    ],
)
def test_a_mistake_in_a_command_is_found(text: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = split(text)
    with pytest.raises((AssertionError, SystemExit, ConfigError)) as told:
        check_command(Command(ROOT / "README.md", tuple(words)))
    assert problem in str(told.value) + capsys.readouterr().err


def check_command(command: Command) -> None:
    """That its program, its options, its keys with their values, and its files exist.

    SystemExit, ConfigError, AssertionError: one of them does not.
    """
    program, arguments = command.name, command.arguments
    if program.startswith("fl-rec "):
        parser, _ = cli.parsers([program.removeprefix("fl-rec ")])
        check_keys(parser.parse_args([program.removeprefix("fl-rec "), *arguments]))
    elif program in SCRIPTS:
        parser, _ = cli.parsers([SCRIPTS[program]])
        parser.parse_args([SCRIPTS[program], *arguments])
    elif program == "fleetrun":
        (script,) = (each for each in arguments if each.endswith(".py"))
        assert (ROOT / "models" / "ncf" / script).is_file() and (ROOT / "models" / "ncf" / arguments[-1]).is_file()
    elif program == "python":
        assert arguments[:2] in (("-m", "pytest"), ("-m", "unittest"))
        assert all((ROOT / each).exists() for each in arguments if each.startswith("tests/"))
    elif (ROOT / program).is_file():
        beside = [ROOT / program, ROOT / program.replace(Path(program).name, "common.py")]
        text = "".join(path.read_text() for path in beside if path.is_file())
        for option in (each.partition("=")[0] for each in arguments if each.startswith("--")):
            assert option in text, f"{program} has no {option}"
    else:
        assert program in OTHERS or program in ("fl_run.sh test", "fl_run.sh lint", "fl_run.sh docs"), program


SCRIPTS = {"datasets/movielens/prepare.py": "prepare", "datasets/movielens/gen_heter_data.py": "partition"}


def check_keys(options: object) -> None:
    """Those of -o, on the configuration of -m, or on the built-in one where that is the reader's."""
    named = getattr(options, "config_yaml", None)
    mine = named is None or not str(named).startswith("configs/")
    path = ROOT / ("configs/config_synthetic.yaml" if mine else named)
    assert path.is_file(), named
    Config.load(path, getattr(options, "opt", None) or [])


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_a_snippet_imports_is_there(page: Path) -> None:
    """Without Paddle, which a job has; `tests/integration/test_docs.py` plays them."""
    for text in blocks(page, "python"):
        imported = re.findall(r"^(?:from (fl_rec[\w.]*) )?import ([\w, ]+)$", text, re.MULTILINE)
        for module, names in imported:
            for name in names.split(", ") if module else ():
                path = ROOT / module.replace(".", "/")
                source = next(each for each in (path / "__init__.py", path.with_suffix(".py")) if each.is_file())
                assert re.search(rf"\b{name}\b", source.read_text()), f"{page.name}: {module} has no {name}"
