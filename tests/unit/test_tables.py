"""The table printer. Whole tables are in the tests of those who print them."""

from __future__ import annotations

import json
import math

import pytest

from fl_rec.tables import RULE, column_widths, cut, figure, format_table, printable, shown_json, text_width


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [(None, "d", "-"), (math.nan, ".4f", "-"), (-math.inf, ".4f", "-"), (0.0, ".2f", "0.00"), (1234, ",d", "1,234")],
)
def test_a_figure_or_none(value: float | None, spec: str, text: str) -> None:
    assert figure(value, spec) == text


def test_columns_rules_and_title() -> None:
    lines = [["name", "n", "why"], RULE, ["a", "1,000", ""], ["long name", "-", "because"], RULE, ["all", "7", "x"]]
    assert format_table(lines, title="what", left=[0, 2]).splitlines() == [
        "what",
        "name           n  why",
        "-" * 25,
        "a          1,000",
        "long name      -  because",
        "-" * 25,
        "all            7  x",
    ]


def test_letters_of_two_columns_and_of_none() -> None:
    assert (text_width("霸王别姬"), text_width("Ame\u0301lie"), text_width("")) == (8, 6, 0)
    assert format_table([["霸王", "1"], ["abcde", "22"]], left=[0]).splitlines() == ["霸王    1", "abcde  22"]
    assert column_widths([["a", "霸"], RULE, ["abc", ""]]) == [3, 2]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("Alien", 5, "Alien"), ("Aliens", 5, "Alie…"), ("Action, Horror", 9, "Action…"), ("霸王别姬", 6, "霸王…")],
)
def test_what_does_not_fit_is_cut(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert text_width(shown) <= width


def test_given_widths_cut_and_pad() -> None:
    assert format_table([["abcdef", "1"], RULE, ["", "2"]], widths=[4, 3]).splitlines() == [
        "abc…    1",
        "---------",
        "        2",
    ]


STEERS = "\x1b]0;name\x07\x9b2J\r\u202e\x7f"


def test_nothing_steers_the_terminal() -> None:
    assert printable(f"{STEERS}\n\t", but="\n") == "??0;name??2J???\n?".replace("??0", "?]0", 1)
    assert cut(STEERS, 80) == format_table([[STEERS]]) == "?]0;name??2J???"
    assert format_table([["a\nb", "1"], RULE], left=[0]).splitlines()[0] == "a?b  1"
    kept = "霸王\u3000别姬 \u0645\u06cc\u200c\u062e 10\u00a0%"
    assert printable(kept) == kept


def test_json_is_read_as_it_was() -> None:
    text = shown_json(content := {"title": f"霸王{STEERS}\ud800\U000e0001"})
    assert "霸王" in text and printable(text) == text
    assert json.loads(text) == content
