"""What `fl-rec recommend` prints and refuses; the model itself is in tests/integration/test_export.py."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest

from fl_rec import cli
from fl_rec.errors import DataError
from fl_rec.serving import recommend
from fl_rec.serving.recommend import Recommendation, to_record, to_text

ALIEN = Recommendation(1, 1214, "Alien (1979)", ("Action", "Horror"), 0.98765)
LONG = Recommendation(2, 2, "Nightmare on Elm Street 4: The Dream Master, A (1988)", ("Horror", "Sci-Fi"), 0.5)
NAMELESS = Recommendation(3, 77, "", (), 0.25)


def test_a_table_is_aligned() -> None:
    text = to_text(42, [ALIEN, LONG], [NAMELESS, ALIEN], 1, 100)
    assert text.splitlines() == [
        "user 42, 2 items in the history: Action 50 %, Horror 50 %",
        "",
        "rank   score  history                                                tags",
        "-" * 83,
        "   3  0.2500  item 77",
        "",
        "rank   score  recommended                                            tags",
        "-" * 83,
        "   1  0.9877  Alien (1979)                                           Action, Horror",
        "   2  0.5000  Nightmare on Elm Street 4: The Dream Master, A (1988)  Horror, Sci-Fi",
    ]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_table_fits_the_terminal(width: int) -> None:
    text = to_text(42, [ALIEN, LONG], [NAMELESS, ALIEN] * 50, 0, width)
    assert max(map(len, text.splitlines())) == width
    assert "history" not in text.splitlines()[2], "none of it was asked for"
    cut = text.splitlines()[-1]
    assert "Nightmare on" in cut and "…" in cut


def test_wide_letters_take_two_columns() -> None:
    """Chinese titles, and an accent that is a character of its own."""
    wide = [
        Recommendation(1, 1, "霸王别姬", ("剧情",), 0.5),
        Recommendation(2, 2, "Ame\u0301lie", ("爱情",), 0.4),
        Recommendation(3, 3, "臥虎藏龍" * 20, ("动作",), 0.3),
    ]
    lines = to_text(1, wide, [], 0, 60).splitlines()[4:]
    starts = []
    for line, each in zip(lines, wide):
        before = line[: line.index(each.tags[0])]
        starts.append(sum(2 if "\u4e00" <= letter <= "\u9fff" else letter != "\u0301" for letter in before))
    assert len(set(starts)) == 1, lines
    assert lines[2][14:].startswith("臥虎藏龍") and "…" in lines[2]


def test_json_is_one_object() -> None:
    assert to_record(42, [ALIEN], []) == {
        "user": 42,
        "recommendations": [
            {"rank": 1, "item": 1214, "title": "Alien (1979)", "tags": ["Action", "Horror"], "score": 0.98765}
        ],
    }
    assert to_record(42, [], [NAMELESS])["history"][0]["item"] == 77


class Told:
    """A model that knows users 1 to 9, and says who was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def user(self, text: str) -> int | str:
        if text not in "123456789":
            raise DataError(f"nobody knows {text}")
        return int(text)

    def recommend(self, user: int | str, top: int) -> list[Recommendation]:
        return [ALIEN] * top

    def history(self, user: int | str) -> list[Recommendation]:
        return [ALIEN, LONG]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no runs
    monkeypatch.setattr(recommend, "Recommender", Told)


def test_batches_stream(told: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What came before a wrong line is answered, each user on a line."""
    monkeypatch.setattr("sys.stdin", io.StringIO("3\n\n 4 \nx5\n6\n"))
    assert cli.main(["recommend", "--model", ".", "--users", "-", "--format", "json", "--top", "2"]) == 2
    out, err = capsys.readouterr()
    assert [json.loads(line)["user"] for line in out.splitlines()] == [3, 4]
    assert err == "fl-rec: error: standard input, line 4: nobody knows x5\n"


def test_a_file_of_users_is_checked_before_the_first_is_answered(
    told: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users").write_text("3\n-4\n")
    assert cli.main(["recommend", "--model", ".", "--users", str(tmp_path / "users")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path / 'users'}, line 2: nobody knows -4" in err


def test_several_users(told: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recommend", "--model", ".", "--user", "3", "--user", "4", "5", "--history", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("user")] == [
        f"user {user}, 2 items in the history: Horror 100 %, Action 50 %, Sci-Fi 50 %" for user in (3, 4, 5)
    ]
    assert sum(line.split()[2:3] == ["history"] for line in lines) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user", "3", "abc"], "--user: nobody knows abc"),
        (["--users", "no/such/file"], "--users must be a file with one id per line, or - for standard input."),
    ],
)
def test_mistakes(told: None, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recommend", "--model", ".", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"fl-rec: error: {message}")


@pytest.mark.parametrize("arguments", [[], ["--user", "1", "--users", "-"], ["--user", "1", "--top", "0"]])
def test_arguments_that_do_not_go_together(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["recommend", *arguments])
    assert end.value.code == 2


def test_the_help_needs_no_model() -> None:
    parser = argparse.ArgumentParser()
    recommend.add_arguments(parser)
    assert "--history N" in parser.format_help()
