"""Compares architecture.svg, and the table in architecture.md and its Chinese twin, with what the code imports.

It fails with the difference:

python docs/check_architecture.py            # --write draws it anew; the sentences stay
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from picture import svg

HERE = Path(__file__).resolve().parent
# What every room may stand on; its arrows would hide all others.
GROUND = ("arguments", "errors", "files", "packed", "outside", "tables", "plugins", "kinds", "typed", "environment")
Arrows = Mapping[str, Collection[str]]
_MODULE = re.compile(r"fl_rec\.(\w+)(\.\w+)*(:\w+)?")
_ROW = re.compile(r"^\| `(\w+)` \| (.*) \| .* \|\n", re.MULTILINE)
_ROWS = re.compile(rf"(?:{_ROW.pattern})+", re.MULTILINE)


def imports(package: Path) -> dict[str, set[str]]:
    """For each room, which is a package or module right in `package`, the rooms that it imports, or names in a text."""
    found: dict[str, set[str]] = {
        path.stem: set() for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # as fl_rec.cli names its commands
                names = [node.value]
            found.get(room, set()).update(match[1] for name in names if (match := _MODULE.fullmatch(name)))
    found.pop("__init__", None)
    return {room: (others & set(found)) - {room} for room, others in found.items()}


def reach(arrows: Arrows) -> dict[str, set[str]]:
    """For each room all that lies below it. SystemExit if it lies below itself."""
    below = {room: set(others) for room, others in arrows.items()}
    for _ in below:
        below = {room: others.union(*(below[other] for other in others)) for room, others in below.items()}
    circle = sorted(room for room in below if room in below[room])
    if circle:
        sys.exit(f"docs/check_architecture.py: packages import downwards only. Received: a circle of {circle}")
    return below


def drawn(found: Arrows) -> dict[str, list[str]]:
    """The arrows of the picture: none to the ground, and none where another way leads there."""
    below, arrows = reach(found), {}
    for room in (each for each in found if each not in GROUND):
        imported = set(found[room]) - set(GROUND)
        if shown := imported.difference(*(below[other] for other in imported)):
            arrows[room] = sorted(shown)
    return arrows


def write_rows(text: str, found: Arrows, others: str = "") -> str:
    """The page with the table's last column as it is found, and a row for every room, highest first.

    Sentences that it has not are taken from the page `others`.
    """
    below = reach(found)
    rooms = sorted(found, key=lambda room: (-len(below[room]), room))
    sentences = {**dict(_ROW.findall(others)), **dict(_ROW.findall(text))}
    rows = ""
    for room in rooms:
        rows += f"| `{room}` | {sentences.get(room, 'to be written')} | {', '.join(sorted(found[room]))} |\n"
    return _ROWS.sub(lambda _: rows, text)


def main(arguments: list[str] | None = None, page: Path = HERE / "architecture.md") -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="change the drawing")
    options = parser.parse_args(arguments)
    found, english = imports(page.parent.parent / "fl_rec"), page.read_text(encoding="utf-8")
    code = 0
    picture = page.with_suffix(".svg")
    for each in (page, page.with_suffix(".zh.md"), picture):
        text = each.read_text(encoding="utf-8") if each.is_file() else ""
        wanted = svg(drawn(found)) if each == picture else write_rows(text, found, english)
        if options.write:
            each.write_text(wanted, encoding="utf-8")
        elif wanted != text or "| to be written |" in text:
            lines = difflib.unified_diff(text.splitlines(True), wanted.splitlines(True), "drawn", "imported")
            sys.stdout.writelines(lines)
            print(f"docs/{each.name} must show what is imported: --write draws it anew; missing sentences are yours.")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
