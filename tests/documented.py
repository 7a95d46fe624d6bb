"""What the documentation tells a reader to type: its commands and its snippets, as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """README, CONTRIBUTING, docs/, examples/, deploy/, in English; docs/check_languages.py has both be equal."""
    docs = [page for page in ROOT.glob("docs/*.md") if not page.name.endswith(".zh.md")]
    readmes = sorted([*ROOT.glob("examples/**/README.md"), *ROOT.glob("deploy/**/README.md")])
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(docs), *readmes]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language in a page."""
    return [text for found, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def snippet(name: str) -> str:
    """The Python file `name`, which one page shows, under its name in a comment."""
    (text,) = (text for page in pages() for text in blocks(page, "python") if text.startswith(f"# {name}\n"))
    return text


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: its file.
        words: as a shell splits them, without comments.
    """

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {shlex.join(self.words)}"

    @cached_property
    def name(self) -> str:
        """`fl-rec run`, a script's file, or another program."""
        first, *rest = self.words
        if first == "fl-rec":
            return f"fl-rec {rest[0]}"
        if first == "./fl_run.sh":
            own = rest and not rest[0].startswith("-")
            return f"fl_run.sh {rest[0]}" if own and rest[0] in ("test", "lint", "docs") else self._passed(rest)
        return rest[0] if first == "python" and rest[0] != "-m" else first

    def _passed(self, rest: list[str]) -> str:
        return f"fl-rec {rest[0]}" if rest and not rest[0].startswith("-") else "fl-rec run"

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """What comes after the name."""
        first, *rest = self.words
        if first in ("fl-rec", "./fl_run.sh"):
            return tuple(rest[1:] if rest and not rest[0].startswith("-") else rest)
        return tuple(rest[1:] if self.name != first else rest)


@cache
def commands(page: Path) -> list[Command]:
    """All commands of a page, in order."""
    return [Command(page, tuple(words)) for text in blocks(page, "bash") for words in split(text)]


def split(text: str) -> Iterator[list[str]]:
    """The commands of a block of shell, without what joins them."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        words.whitespace_split = True
        command: list[str] = []
        for word in words:
            if set(word) <= set("&|;"):
                yield command
                command = []
            else:
                command.append(word)
        if command:
            yield command
