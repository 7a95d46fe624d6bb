"""The page as a file: nothing from outside, and nothing of a run that would be more than data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import fl_rec.page
from fl_rec.page.content import content_of
from fl_rec.page.render import comparison_page, run_page
from tests.unit.page.conftest import STRANGE, MakeRun

ASSETS = Path(fl_rec.page.__file__).parent / "assets"
# As npm has version 1.6.32.
UPLOT = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def content_in(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S).group(1))


def test_content_stays_data(make_run: MakeRun) -> None:
    run = make_run(name="<i> & $title", rounds=True)
    page = run_page(content_of(run))
    assert content_in(page) == content_of(run) and content_in(page)["clients"][0]["name"] == STRANGE
    assert page.count("<script") == page.count("</script>") == 2 and STRANGE not in page and "<b>" not in page
    assert "<title>&lt;i&gt; &amp; $title · fl_rec</title>" in page


def test_only_its_own_script_and_style_may_work(make_run: MakeRun) -> None:
    page = run_page(content_of(make_run()))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1).split("; ")
    hashes = {}
    for kind in ("script", "style"):
        text = re.search(f"<{kind}>(.*?)</{kind}>", page, re.S).group(1)
        hashes[kind] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy == [
        "default-src 'none'",
        f"script-src 'sha256-{hashes['script']}'",
        f"style-src 'sha256-{hashes['style']}'",
        "img-src data:",
        "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert "connect-src 'self'" in run_page(content_of(make_run(name="live")), live=True)
    assert (
        not re.search(r"<[^>]*\s(src|style|onclick)=", page) and page.count("href=") == page.count('href="data:,"') == 1
    )


def test_twenty_epochs_of_ten_clients_are_small(make_run: MakeRun) -> None:
    page = run_page(content_of(make_run(epochs=20, clients=10, rounds=True)))
    assert len(page.encode()) < 300_000  # the promise is 2 MiB


def test_several_runs(make_run: MakeRun) -> None:
    contents = [content_of(make_run(name=name)) for name in ("one", "two")]
    page = comparison_page(contents)
    assert content_in(page) == {"runs": contents} and "<title>2 runs · fl_rec</title>" in page


def test_the_library_is_as_it_was_published_with_its_licence() -> None:
    assert {name: hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() for name in UPLOT} == UPLOT
    assert "The MIT License (MIT)" in (ASSETS / "uPlot.LICENSE").read_text()
