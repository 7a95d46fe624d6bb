"""Compares each page's two languages, and follows its links; fails with what differs.

python docs/check_languages.py       # headings, code blocks, figures; links that lead nowhere
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FIGURE = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_COMMENT = re.compile(r"(^|\s+)(#|//) .*$")


@dataclass
class Section:
    """What stands under a heading, until the next one."""

    level: int
    title: str
    line: int
    text: list[str] = field(default_factory=list)
    code: list[list[str]] = field(default_factory=list)

    def figures(self) -> Counter[str]:
        """The numbers in its text, those of links' targets left out."""
        text = _LINK.sub(lambda link: f" {link[1]} ", "\n".join([self.title, *self.text]))
        return Counter(figure.replace(",", "") for figure in _FIGURE.findall(text))


def sections(text: str) -> list[Section]:
    """A page by its headings; comments in code blocks are left out, which each language has in its own."""
    found = [Section(0, "", 0)]
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+)", line)
        if fence:
            if mark and line.strip() == fence:
                fence = ""
            elif kept := _COMMENT.sub("", line).rstrip():
                found[-1].code[-1].append(kept)
        elif mark:
            fence = mark[1]
            found[-1].code.append([line.strip()])
        elif heading := re.match(r"(#+) (.*)", line):
            found.append(Section(len(heading[1]), heading[2], number))
        else:
            found[-1].text.append(line)
    return found


def differences(english: list[Section], chinese: list[Section]) -> Iterator[str]:
    """What one language has and the other has not."""
    levels = [[f"{'#' * each.level} {each.title}" for each in page] for page in (english, chinese)]
    if [each.level for each in english] != [each.level for each in chinese]:
        yield f"the headings must have the same levels in both. Received: {levels[0]} and {levels[1]}"
        return
    for one, other in zip(english, chinese, strict=True):
        place = f'"{one.title}" (line {one.line}; {other.line})'
        if one.code != other.code:
            ours, theirs = (["\n".join(block) for block in each.code] for each in (one, other))
            apart = [block for block in ours if block not in theirs], [block for block in theirs if block not in ours]
            yield f"{place}: the code blocks must be the same, comments left out. Received: {apart[0]} and {apart[1]}"
        ours, theirs = one.figures(), other.figures()
        if ours != theirs:
            apart = sorted((ours - theirs).elements()), sorted((theirs - ours).elements())
            yield f"{place}: the figures must be the same. Received: {apart[0]} and {apart[1]} beside those of both"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs.yml's slugs name them."""
    found: Counter[str] = Counter()
    names = set()
    for each in sections(text)[1:]:
        plain = _LINK.sub(r"\1", each.title).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def dead_links(page: Path, text: str, docs: Path) -> Iterator[str]:
    """Links of a page to files or headings that are not there, or from one in `docs` out of it, where a site ends."""
    prose = "\n".join(line for each in sections(text) for line in (each.title, *each.text))
    for link in _LINK.finditer(prose):
        target, _, anchor = link[2].partition("#")
        if re.match(r"\w+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (page.is_relative_to(docs) and not file.is_relative_to(docs)):
            yield f"a link must lead to a file{' of docs/' * page.is_relative_to(docs)}. Received: {link[2]}"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"a link must lead to a heading of {file.name}. Received: {link[2]}"


def pairs(project: Path) -> Iterator[tuple[Path, Path]]:
    """Each English page with its Chinese one."""
    for page in [*project.glob("docs/*.md"), *project.glob("examples/*/*.md")]:
        if page.name.endswith(".zh.md"):
            page = page.with_name(page.name.replace(".zh.md", ".md"))
        yield page, page.with_name(f"{page.stem}.zh.md")
    yield project / "README.md", project / "README.zh-CN.md"


def problems(project: Path) -> list[str]:
    """All that is wrong, in the order of the pages' names."""
    found = []
    for pair in sorted(set(pairs(project))):
        missing = [page for page in pair if not page.is_file()]
        found += [f"{page.relative_to(project)} must be there, in both languages." for page in missing]
        texts = {page: page.read_text(encoding="utf-8") for page in pair if page not in missing}
        for page, text in texts.items():
            found += [f"{page.relative_to(project)}: {problem}" for problem in dead_links(page, text, project / "docs")]
        if not missing:
            english, chinese = map(sections, texts.values())
            found += [f"{pair[1].relative_to(project)}: {each}" for each in differences(english, chinese)]
    return found


def main(project: Path = PROJECT) -> int:
    found = problems(project)
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
