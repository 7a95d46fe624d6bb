"""Compares configuration.md and configuration.zh.md with the keys that there are, and fails if they differ.

python docs/configuration_pages.py            # --write makes them anew
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fl_rec.config import reference  # noqa: E402
from fl_rec.config.schema import Sections  # noqa: E402

TITLES = {
    "configuration.md": ("key", "type", "default", "unit", "meaning"),
    "configuration.zh.md": ("键", "类型", "默认值", "单位", "含义"),
}


def tables(text: str, titles: tuple[str, ...]) -> str:
    """A page with the table of each section after what it says first, which is written by hand."""
    parts = [text.partition("\n## ")[0].rstrip("\n") + "\n"]
    for section in Sections.model_fields:
        parts.append(f"## {section}\n\n{reference.meaning_of(section)}\n\n{reference.to_markdown(section, titles)}\n")
    return "\n".join(parts)


def main(arguments: list[str] | None = None, folder: Path = HERE) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the pages anew")
    options = parser.parse_args(arguments)
    code = 0
    for name, titles in TITLES.items():
        text = (folder / name).read_text(encoding="utf-8")
        wanted = tables(text, titles)
        if options.write:
            (folder / name).write_text(wanted, encoding="utf-8")
        elif text != wanted:
            print(f"docs/{name} must show the keys that there are: --write makes it anew.")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
