"""The pages in a real browser: what they show is what the run has written, and nothing in a run can do anything."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_rec.page.content import content_of
from fl_rec.page.render import comparison_page, run_page
from fl_rec.page.serve import LivePage
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult
from tests.unit.conftest import DEADLINE
from tests.unit.page.conftest import NAMES, MakeRun, lines
from tests.unit.page.test_serve import started

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no chromium with its chromedriver")

NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(DEADLINE)
    driver.set_script_timeout(DEADLINE)
    yield driver
    driver.quit()


@pytest.fixture
def look(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """`look(page)` opens a page, of which there must be no complaint in the console, then or later."""

    def look(page: str, width: int = 1280, dark: bool = False, language: str = "en") -> Any:
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.get(f"{path.as_uri()}?lang={language}")
        return browser

    yield look
    assert browser.get_log("browser") == []


def cells(browser: Any, selector: str) -> list[list[str]]:
    """The texts of a table's body, by line."""
    texts = "[...row.cells].map((cell) => cell.textContent)"
    script = f"return [...document.querySelectorAll(arguments[0])].map((row) => {texts})"
    return browser.execute_script(script, f"{selector} tbody tr")


def until(true: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.05)
    pytest.fail(f"not within {DEADLINE:g} s: {what}")


def test_every_number_is_that_of_metrics_jsonl(make_run: MakeRun, look: Open) -> None:
    run = make_run(epochs=4, clients=3)
    browser = look(run_page(content_of(run)))
    choose = "const [choice, value] = arguments; choice.value = value; choice.dispatchEvent(new Event('change'))"
    for client in ("all", 0, 1, 2):
        browser.execute_script(choose, browser.find_element("css selector", "#learning select"), str(client))
        expected = [
            [
                str(each["epoch"]),
                f"{each['rows']:,}",
                f"{each['seconds']:.2f}",
                *(f"{each[name]:.4f}" for name in ("hr", "ndcg", "test_auc", "train_loss", "train_auc")),
            ]
            for each in run.read_metrics()
            if each["client"] == client
        ]
        assert cells(browser, "table.figures") == expected
    for name in ("hr", "ndcg", "test_auc", "train_loss"):
        drawn = browser.execute_script(f"return document.querySelector('[data-figure={name}]').chart.plot.data")
        by_client = [
            [each[name] for each in run.read_metrics() if each["client"] == client] for client in (0, 1, 2, "all")
        ]
        assert drawn == [[1, 2, 3, 4], *by_client]


def test_how_good_it_is_against_popularity(make_run: MakeRun, look: Open) -> None:
    run = make_run(epochs=3, clients=3)
    browser = look(run_page(content_of(run)))
    hr = run.read_totals()[-1]["hr"]
    said = f"HR@10 is {hr:.4f} after 3 epochs, {hr - 24 / 150:.4f} above ranking by popularity (0.1600)."
    assert browser.find_element("css selector", ".verdict").text == said
    assert browser.execute_script("return document.querySelector('[data-figure=hr]').chart.reference") == 24 / 150
    last = [each for each in run.read_metrics() if each["epoch"] == 3 and each["client"] != "all"]
    worst = min(last, key=lambda each: each["hr"])
    shown = browser.find_element("css selector", ".worst").text.splitlines()
    assert shown[:3] == ["Worst-served shard", NAMES[worst["client"]], f"{worst['hr']:.4f}"]
    assert shown[4:7] == ["Worst-served group of users", "0 to 19 training items", "0.1000"]
    assert [row[:2] for row in cells(browser, "table.groups")] == [
        ["0 to 19", "30"],
        ["20 to 49", "105"],
        ["200 or more", "15"],
    ]


def test_where_the_time_goes(make_run: MakeRun, look: Open) -> None:
    run = make_run(epochs=2, clients=3, result={"format": 2, "state": "done", "seconds": 60.0, "start_seconds": 7.5})
    browser = look(run_page(content_of(run)))
    parts = ("train", "exchange", "wait", "evaluation", "save")
    spent = [[each[f"{part}_seconds"] for each in run.read_totals()] for part in parts]
    drawn = browser.execute_script(
        "return document.querySelector('#time figure').chart.parts.map(({values}) => values)"
    )
    assert [pytest.approx(each, abs=1e-4) for each in spent] == drawn
    legend = browser.find_element("css selector", "#time .legend").text.split("\n")
    assert legend[0] == "start 7.50 s" and legend[1] == f"training {sum(spent[0]):.2f} s"
    assert legend[-1] == f"the rest {60 - 7.5 - sum(map(sum, spent)):.1f} s"


def test_a_name_is_a_name(make_run: MakeRun, look: Open) -> None:
    run = make_run(rounds=True)
    run.append_table("note: <img src=x onerror=alert(1)>")
    browser = look(run_page(content_of(run)))
    assert browser.title == "a run · fl_rec"
    assert [row[0] for row in cells(browser, "table.clients")] == NAMES
    assert (
        browser.execute_script("return document.querySelectorAll('main script, main b b, main img, main i i').length")
        == 0
    )
    assert browser.find_element("id", "notes").text.endswith("<img src=x onerror=alert(1)>")


def test_the_page_can_do_nothing_but_show(make_run: MakeRun, look: Open) -> None:
    browser = look(run_page(content_of(make_run())))
    inject = (
        "const made = document.createElement('script'); made.textContent = 'window.ran = 1'; document.body.append(made)"
    )
    browser.execute_script(inject)
    refused = browser.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org').then(() => done('fetched'), () => done('refused'))"
    )
    assert browser.execute_script("return window.ran") is None and refused == "refused"
    assert all("Content Security Policy" in each["message"] for each in browser.get_log("browser"))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_fits_its_window_and_draws(make_run: MakeRun, look: Open, width: int, dark: bool) -> None:
    browser = look(run_page(content_of(make_run(epochs=20, clients=10, rounds=True))), width, dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    painted = """return [...document.querySelectorAll("canvas")].map((canvas) => {
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.some((value) => value > 0) && canvas.width > 250;
    })"""
    assert browser.execute_script(painted) == [True] * 5
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 20, 23)" if dark else "rgb(246, 246, 243)")
    milliseconds = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"loaded in {milliseconds:.0f} ms")  # the promise is a second, on a machine with nothing else to do


def test_rounds_say_who_joined_and_why(make_run: MakeRun, look: Open) -> None:
    browser = look(run_page(content_of(make_run(epochs=3, clients=3, rounds=True))))
    joins, waits = ["JOIN", "2.00", "0.5", NONE], ["WAIT", NONE, NONE, "it waits: <i>slow</i>"]
    missing = ["missing", NONE, NONE, "it waits: <i>slow</i>"]
    assert cells(browser, "table.round") == [[f"{NAMES[0]}, {NAMES[1]}", *joins], [NAMES[2], *missing]]
    browser.execute_script("document.querySelector('.matrix button[data-round=\"0\"]').click()")
    assert cells(browser, "table.round")[0] == [NAMES[0], *waits]
    assert browser.find_element("css selector", "#rounds .row-between").text.startswith("Round 0 decided on epoch 1: ")


def test_a_client_is_followed_through_all_charts(make_run: MakeRun, look: Open) -> None:
    browser = look(run_page(content_of(make_run(clients=3))))
    browser.execute_script("document.querySelector('tr[data-client=\"1\"]').click()")
    widths = """return [...document.querySelectorAll("[data-figure]")].map(
        ({chart}) => chart.plot.series.slice(1).map(({width}) => width))"""
    assert all(each[1] > each[0] == each[2] for each in browser.execute_script(widths))
    picked = browser.find_elements("css selector", ".chip[aria-pressed=true]")
    assert [each.text for each in picked] == [NAMES[1]]


def test_a_run_that_failed_before_an_epoch(make_run: MakeRun, look: Open) -> None:
    run = make_run(epochs=1, result={"state": "failed", "role": "worker.1", "error": "<u>It died.</u>", "log": "log/x"})
    run.metrics.write_text("")
    browser = look(run_page(content_of(run)))
    assert "<u>It died.</u>" in browser.find_element("id", "failure").text
    assert browser.find_element("css selector", ".verdict").text == "No epoch was finished."
    assert browser.find_element("id", "learning").text == ""


def test_several_runs(make_run: MakeRun, look: Open) -> None:
    runs = [make_run(name="one", runner={"geo_step": 7}), make_run(epochs=2, name="<b>two")]
    browser = look(comparison_page([content_of(run) for run in runs]), 390)
    hr = [run.read_totals()[-1]["hr"] for run in runs]
    (one, two) = cells(browser, "table.figures")
    assert (one[0], one[2], two[0], two[2]) == ("A", f"{hr[0]:.4f}", "B", f"{hr[1]:.4f}{MINUS}{hr[0] - hr[1]:.4f}")
    assert two[1] == "<b>twodone, 2 epochs"
    differ = {row[0]: row[1:] for row in cells(browser, "table.changed")}
    assert differ == {"runner.epochs": ["A 3", "B 2"], "runner.geo_step": ["A 7", "B 100"]}
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390


# What a Chinese page has in Latin letters besides what is the run's own.
LATIN = {"HR", "NDCG", "AUC", "JOIN", "WAIT", "FINISH", "fl", "rec", "English", "kB", "epoch", "random", "report"}


def strings(content: Any) -> set[str]:
    """All that is in a content."""
    if isinstance(content, dict):
        return {str(name) for name in content}.union(*map(strings, content.values()))
    return set().union(*map(strings, content)) if isinstance(content, (list, tuple)) else {str(content)}


def in_english(browser: Any, content: Any) -> set[str]:
    """Texts of the page that are neither the run's own nor in the reader's language."""
    script = """
        const found = [], walk = document.createTreeWalker(document.getElementById("page"), NodeFilter.SHOW_TEXT);
        while (walk.nextNode())
            if (!walk.currentNode.parentElement.closest("code, pre")) found.push(walk.currentNode.data);
        for (const name of ["title", "aria-label", "placeholder"])
            document.querySelectorAll(`#page [${name}]`).forEach((each) => found.push(each.getAttribute(name)));
        return found;"""
    own = sorted((each for each in strings(content) if len(each) > 2), key=len, reverse=True)
    found = set()
    for text in browser.execute_script(script):
        rest = text
        for each in own:
            rest = rest.replace(each, "")
        if set(re.findall("[A-Za-z]{2,}", rest)) - LATIN:
            found.add(text)
    return found


def rich(content: dict[str, Any]) -> dict[str, Any]:
    """A content with all that there may be."""
    sizes = {"bytes": 1e6, "hr": 0.5}
    model = {"folder": "small", "bits": 8, "prune": 0.5, "before": sizes, "after": sizes}
    spent = {"epsilon": 1.5, "delta": 1e-5, "exchanges": 5, "noise_multiplier": 1, "clip": 1, "users_per_exchange": 0.5}
    taught = {
        "strategy": "distill",
        "positives": 9,
        "temperature": 2,
        "weight": 4,
        "students": {"1": {}},
        "options": {},
    }
    role = {"state": "running", "what": "", "epoch": 2, "rows": 5, "rows_of_epoch": 9}
    failure = {"role": "worker.1", "kind": "", "error": "It.", "log": "x", "tail": "y"}
    run = {**content["run"], "private": ["user", "*"], "best": content["epochs"][-1]}
    progress = {"worker.0": role, "worker.1": {"state": "", "what": ""}}
    told = {"compression": {"reports": "int8", "models": [model]}, "privacy": spent, "distillation": taught}
    return {**content, **told, "failure": failure, "run": run, "progress": progress, "notes": ["It."]}


def test_it_speaks_chinese(make_run: MakeRun, look: Open) -> None:
    run = make_run(
        epochs=3, rounds=True, result={"state": "done", "model": "m", "seconds": 600.0, "start_seconds": 7.5}
    )
    content = content_of(run)
    empty = {**content, "epochs": [], "figures": {}, "rounds": [], "configuration": [], "popularity": None}
    contents = (content, rich(content), empty, {**rich(content), "popularity": None})
    said = look(run_page(content), language="zh").find_element("css selector", ".verdict").text
    hr = run.read_totals()[-1]["hr"]
    comma, rest = "\uff0c", "按流行度排序\uff080.1600\uff09\u3002"
    assert said.split(comma) == [f"HR@10 为 {hr:.4f}", "经过 3 个 epoch", f"高出 {hr - 0.16:.4f}", f"相比{rest}"]
    found = set()
    for each in contents:
        found |= in_english(look(run_page(each), language="zh"), each)
    for runs in ([content, content], [content, {**content, "configuration": []}], [empty, empty]):
        found |= in_english(look(comparison_page(runs), language="zh"), runs)

    assert found == set()


def test_it_is_live_without_a_reload(make_run: MakeRun, look: Open) -> None:
    run = make_run(epochs=2, clients=2, result={})
    run.metrics.write_text("")
    page = LivePage("127.0.0.1", 0, print)
    page.starting(started(run))
    with contextlib.closing(_Ended(page, run)) as job:
        browser = look("")
        browser.get(page.url)
        browser.execute_script("window.mark = 'the same page'")
        shown = "return [...document.querySelectorAll('table.figures tbody tr')].map((row) => row.cells[3].textContent)"
        assert browser.execute_script(shown) == []
        for epoch in (1, 2):
            run.append_metrics(lines(epoch, 2))
            until(lambda: len(browser.execute_script(shown)) == epoch, f"epoch {epoch} on the page")  # noqa: B023
            assert browser.execute_script(shown) == [f"{each['hr']:.4f}" for each in run.read_totals()]
        job.close()
        state = "return document.querySelector('.pill').textContent"
        until(lambda: browser.execute_script(state) == "done", "the end on the page")
        assert browser.execute_script("return window.mark") == "the same page"


class _Ended:
    """Ends a job that is only a page, once."""

    def __init__(self, page: LivePage, run: RunDirectory) -> None:
        self._page, self._run = page, run

    def close(self) -> None:
        if not self._run.result.exists():
            self._run.write_result(RunResult(state="done", model="m"))
            self._page.ended(self._run.read_result())
