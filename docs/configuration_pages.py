"""Compares configuration.md and configuration.zh.md with the keys that there are, and fails if they differ.

python docs/configuration_pages.py            # --write makes them anew
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fl_rec.config import reference  # noqa: E402
from fl_rec.config.schema import Sections  # noqa: E402

TITLES = {
    "configuration.md": ("key", "type", "default", "unit", "meaning"),
    "configuration.zh.md": ("键", "类型", "默认值", "单位", "含义"),
}
CHINESE = HERE / "configuration.zh.yaml"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_CHOICE = "one of "


@cache
def _known() -> dict[str, str]:
    known: dict[str, str] = yaml.safe_load(CHINESE.read_text(encoding="utf-8"))
    return known


def in_chinese(text: str) -> str:
    """A meaning, a type or a unit. SystemExit if configuration.zh.yaml has it not."""
    known = _known()
    numbers = iter(_NUMBER.findall(text))
    for english in (text, _NUMBER.sub("N", text)):
        if english in known:
            return known[english] if english == text else re.sub(r"\bN\b", lambda _: next(numbers), known[english])
    if text.startswith(_CHOICE):
        return known[_CHOICE] + text.removeprefix(_CHOICE)
    sys.exit(f"docs/{CHINESE.name} must have the Chinese of all that configuration.md says. Add to it: {text!r}: ...")


def tables(text: str, titles: tuple[str, ...], say: Callable[[str], str]) -> str:
    """A page with the table of each section after what it says first, which is written by hand."""
    parts = [text.partition("\n## ")[0].rstrip("\n") + "\n"]
    for section in Sections.model_fields:
        table = reference.to_markdown(section, titles, say)
        parts.append(f"## {section}\n\n{say(reference.meaning_of(section))}\n\n{table}\n")
    return "\n".join(parts)


def main(arguments: list[str] | None = None, folder: Path = HERE) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the pages anew")
    options = parser.parse_args(arguments)
    code = 0
    for name, titles in TITLES.items():
        text = (folder / name).read_text(encoding="utf-8")
        wanted = tables(text, titles, in_chinese if name.endswith(".zh.md") else str)
        if options.write:
            (folder / name).write_text(wanted, encoding="utf-8")
        elif text != wanted:
            print(f"docs/{name} must show the keys that there are: --write makes it anew.")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
