"""SECURITY.md claims what a test shows; the tests that it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_what_is_claimed_is_shown_by_tests_that_there_are() -> None:
    named = NAMED.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 0
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        there = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
        assert name in there, f"SECURITY.md names {file}::{name}, which is not there"
