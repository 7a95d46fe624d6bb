"""Content as one HTML file: style, scripts and figures inside, and nothing else allowed.

Everything of a run is data: it is JSON in an element that is not run, in which `<` is written as an escape, and the
page's script makes text of it. A policy (CSP) lets only this very style and this very script work.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

_ASSETS = Path(__file__).parent / "assets"
# uPlot is vendored as it was published; its licence is beside it.
_STYLES, _SCRIPTS = ("uPlot.min.css", "page.css"), ("uPlot.iife.min.js", "chinese.js", "charts.js", "shared.js")


def run_page(content: Mapping[str, Any], live: bool = False) -> str:
    """The page of a run.

    Args:
        content: see `fl_rec.page.content`.
        live: whether it asks for `content.json` beside it, again and again.
    """
    return _page(content, f"{content['run']['name']} · fl_rec", "run.js", live)


def comparison_page(contents: Sequence[Mapping[str, Any]]) -> str:
    """The page of several runs beside each other."""
    return _page({"runs": list(contents)}, f"{len(contents)} runs · fl_rec", "compare.js", False)


def _page(content: Any, title: str, script: str, live: bool) -> str:
    style, code = _joined(_STYLES), _joined((*_SCRIPTS, script))
    policy = [
        "default-src 'none'",
        f"script-src {_hash(code)}",
        f"style-src {_hash(style)}",
        "img-src data:",
        f"connect-src '{'self' if live else 'none'}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return _template().substitute(
        live=" data-live" * live,
        policy="; ".join(policy),
        title=html.escape(title),
        style=style,
        content=json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        script=code,
    )


@cache
def _template() -> Template:
    return Template((_ASSETS / "page.html").read_text(encoding="utf-8"))


@cache
def _joined(names: tuple[str, ...]) -> str:
    return "\n" + "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
