"""What is shown of a job: on a terminal of some width, and in lines elsewhere."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fl_rec.cli import main
from fl_rec.config import Config
from fl_rec.evaluation.records import EpochRecord
from fl_rec.job.observers import Observers, RoleView, Started
from fl_rec.runs.activity import Activity, Progress
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult
from fl_rec.tables import text_width
from fl_rec.terminal import plain
from fl_rec.terminal.live import Live
from fl_rec.terminal.passing import Client, Pass, passing, start_up
from fl_rec.terminal.plain import Plain
from fl_rec.terminal.screen import NORMAL, QUIET, VERBOSE, Screen

CLIENTS = ("Boston", "北京市海淀区的一个很长的名字", "Zürich")
Start = Callable[..., Started]


@pytest.fixture
def started(load_job: Callable[..., Config], run: RunDirectory) -> Start:
    """A job of three clients, one of whose names takes two columns a letter."""

    def started(*overrides: str, **changes: Any) -> Started:
        config = load_job("runner.epochs=20", "runner.geo_step=20", "hyper_parameters.optimizer.learning_rate=0.01")
        config = config.replace(**dict(each.split("=") for each in overrides)) if overrides else config
        rows, popularity = (100, 2000, 30_000), {"hr@10": 0.452, "ndcg@10": 0.25}
        kept: dict[str, Any] = {"clients": CLIENTS, "rows": rows, "popularity": popularity, "notes": (), **changes}
        return Started(
            "job.yaml", config=config, changed=config.changed(), run=run, workers=3, servers=1, coordinators=0, **kept
        )

    return started


def record(epoch: int, hr: float, **further: float) -> EpochRecord:
    def one(client: Any, hr: float, clients: tuple[EpochRecord, ...] = ()) -> EpochRecord:
        figures = {"seconds": 2.0, "rows_per_second": 1e4, "train_loss": 0.3301, "train_auc": 0.9, "test_auc": 0.877}
        return EpochRecord(
            epoch, client, 100, **figures, hr=hr, ndcg=0.265, test_users=9, top_k=10, clients=clients, **further
        )

    return one("all", hr, tuple(one(client, hr + 0.01 * (client - 1)) for client in range(3)))


def view(what: str, epoch: int = 3, rows: int = 50, of_rows: int = 100, seconds: float = 2.0) -> RoleView:
    waits = what == "the others"
    return RoleView("running", Activity(what, 0.0, waits, Progress(epoch, rows, of_rows, seconds)))


TRAINING = {
    "server.0": RoleView("running", Activity("serving", 0.0)),
    "worker.0": view("training epoch 3"),
    "worker.1": view("the others", rows=300, of_rows=300),
    "worker.2": view("waiting", rows=0, of_rows=0, seconds=0.0),
}


def play(screen: Screen, job: Started, *epochs: EpochRecord, state: str = "done") -> None:
    """A whole job, in no time."""
    observers = Observers([screen])
    with screen:
        observers.starting(job)
        observers.poll({"server.0": RoleView("", None), "worker.0": RoleView("", None)})
        observers.poll(TRAINING)
        for each in epochs:
            observers.epoch(each)
            observers.table(f"of {each.epoch}\nthe whole table")
        observers.round("round 1, mine: 3 JOIN")
        observers.round("round 2, mine: 2 JOIN, 1 WAIT\nwho, and why")
        observers.note("client 1 is left out")
        figures = [{"epoch": each.epoch, "hr@10": each.hr, "ndcg@10": each.ndcg} for each in epochs]
        chosen = figures[:1] if job.config.runner.validation_data_dir else []
        ends = {"last": figures[-1] if figures else None, "best": next(iter(chosen), None)}
        observers.ended(RunResult.model_validate({"state": state, "model": "model/2", **ends}))


def on_terminal(job: Started, *epochs: EpochRecord, width: int = 80, level: int = NORMAL, **how: Any) -> list[str]:
    """Lines that stay, without spaces at their ends."""
    file = io.StringIO()
    play(Live(file, level, width, 24), job, *epochs, **how)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def elsewhere(job: Started, *epochs: EpochRecord, level: int = NORMAL, **how: Any) -> list[str]:
    """Lines, without their times."""
    file = io.StringIO()
    play(Plain(file, level), job, *epochs, **how)
    lines = file.getvalue().splitlines()
    timed = [line for line in lines if level < VERBOSE and not line.startswith("who,")]
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in timed), "but for lines of a table"
    return [line[9:] if line[2:3] == ":" else line for line in lines]


def without_seconds(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+\.\d s$", "T", line) for line in lines]


# -- on a terminal ---------------------------------------------------------------------------------------------


def test_a_job_on_a_terminal(started: Start, run: RunDirectory) -> None:
    lines = without_seconds(on_terminal(started(), record(1, 0.444), record(2, 0.463)))
    where = f"model     {run.path}/model/2"
    assert lines[:3] == [
        "job       job.yaml: 20 epochs, 3 workers, 1 server, geo",
        "data      32,100 rows, 100 to 30,000 a client; popularity: HR@10 0.452",
        "settings  geo_step=20, optimizer.learning_rate=0.01",
    ]
    assert "".join(lines).replace(" ", "").count(str(run.path).replace(" ", "")) == 4, "where it is, and what is next"
    shown = lines[lines.index("round 2, mine: 2 JOIN, 1 WAIT") - 3 :]
    assert shown[:6] == [
        "epoch    loss    AUC  HR@10  change  vs pop.  NDCG@10  worst  client        time",
        " 1/20  0.3301  0.877  0.444           -0.008    0.265  0.434  0 Boston     T",
        " 2/20  0.3301  0.877  0.463  +0.019   +0.011    0.265  0.453  0 Boston     T",
        "round 2, mine: 2 JOIN, 1 WAIT",
        "who, and why",
        "note      client 1 is left out",
    ]
    assert shown[6:10] == [
        "done      2 epochs in T",
        "result    HR@10 0.463, NDCG@10 0.265: epoch 2, the last",
        "          0.011 above popularity (0.452): a hit for 1.1 more of 100 users",
        "clients   best: 2 Zürich 0.473, worst: 0 Boston 0.453",
    ]
    assert where.replace(" ", "") in "".join(lines).replace(" ", "")
    assert not any("whole table" in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(started: Start, width: int) -> None:
    bad = [record(epoch, 0.44, epsilon=1.25, validation_ndcg=0.2) for epoch in range(1, 23)]
    lines = on_terminal(started(), *bad, width=width)
    epochs = [line for line in lines if re.match(r" *\d+/20 ", line)]
    assert len(epochs) == 22 and sum(line.startswith("epoch ") for line in lines) == 2, "its titles again after 20"
    if width >= 80:
        assert max(map(text_width, lines)) <= width
        assert len({text_width(line[: line.rindex("  ")]) for line in epochs}) <= 2
    assert ("epsilon" in "".join(lines)) and ("valid." in "".join(lines))
    assert ("rows/s" in "".join(lines)) == (width == 120), "where there is room"


def test_names_of_somebody_elses_clients_steer_no_terminal(started: Start) -> None:
    name = "A\x1b[2J\x9bm\rB"
    job = started(clients=(name,) * 3, notes=(f"so is {name}",))
    for shown in (on_terminal, elsewhere):
        lines = [line for level in (NORMAL, VERBOSE) for line in shown(job, record(1, 0.4), level=level)]
        assert all(line.isprintable() for line in lines)
        assert any("0 A?[2J?m?B" in line for line in lines) and any("so is A?[2J?m?B" in line for line in lines)


def test_names_in_letters_of_two_columns_are_in_line(started: Start) -> None:
    goes_on = Pass(3, [Client(f"{number} {name}", 50, 100, 25.0, "training") for number, name in enumerate(CLIENTS)])
    lines = rendered(started(), goes_on)
    assert {text_width(line) for line in lines[1:]} == {80}
    assert "北京" in lines[2]


def rendered(job: Started, goes_on: Pass | None, width: int = 80, height: int = 24) -> list[str]:
    """What changes in place."""
    file = io.StringIO()
    screen = Live(io.StringIO(), NORMAL, width, height)
    screen.starting(job)
    screen._pass = goes_on
    Console(file=file, width=width).print(screen.render())
    return file.getvalue().rstrip("\n").split("\n")


def test_what_goes_on_in_an_epoch(started: Start) -> None:
    goes_on = passing(TRAINING, lambda number: f"client {number}")
    assert goes_on is not None
    total, first, second, third = rendered(started(), goes_on)
    assert re.match(r". epoch 3/20 [━╸╺]+ +88%  25 rows/s  2.0 s left *$", total)
    assert re.match(r"   client 0 [━╸╺]+ +50% +50 +25/s +training", first)
    assert re.match(r"   client 1 [━]+ +100% +300 +150/s +waiting", second)
    assert re.match(r"   client 2 sits out +0 +waiting", third)


def test_more_clients_than_lines(started: Start) -> None:
    many = [Client(f"client {number}", number, 100, 1.0, "training") for number in reversed(range(50))]
    lines = rendered(started(), Pass(1, many), height=10)
    assert len(lines) == 7 and lines[-1].strip() == "... and 45 who are further"
    assert [line.split()[1] for line in lines[1:-1]] == ["4", "3", "2", "1", "0"]


def test_how_long_the_rest_takes(started: Start) -> None:
    job, screen = started(), Live(io.StringIO(), NORMAL, 80, 24)
    screen.starting(job)
    story = screen._story
    assert story is not None
    goes_on = passing(TRAINING, story.title)
    assert goes_on is not None and goes_on.left == 2.0 and goes_on.share == 350 / 400 and goes_on.rate == 25.0
    assert story.left(goes_on) != story.left(goes_on), "nobody knows before the first epoch's end"
    story.tell(record(2, 0.4), 5.0)
    assert story.left(goes_on) == 2.0 + 17 * 5.0
    assert story.left(Pass(20, goes_on.clients)) == 2.0


def test_an_epoch_in_which_nobody_trains() -> None:
    nobody = Pass(1, [Client("client 0", 0, 0, 0.0, "waiting")])
    assert (nobody.share, nobody.rate, nobody.left, nobody.doing) == (1.0, 0.0, 0.0, "waiting")
    assert passing({"server.0": RoleView("running", None)}, str) is None


def test_who_begins_an_epoch_is_shown_before_the_others_come() -> None:
    views = {"worker.0": view("training epoch 4", epoch=4), "worker.1": view("reporting epoch 3")}
    goes_on = passing(views, str)
    assert goes_on is not None and goes_on.epoch == 4 and [each.name for each in goes_on.clients] == ["0"]


def test_a_start_by_role() -> None:
    late = RoleView("starting", Activity("building the network", 0.0))
    views: dict[str, RoleView] = {f"worker.{number}": RoleView("", None) for number in range(3)}
    views |= {"server.0": RoleView("", None)}
    assert start_up(views) == "servers 0/1, workers 0/3, importing Paddle"
    views |= {"server.0": RoleView("running", None), "worker.1": late, "worker.2": view("training")}
    assert start_up(views) == "servers 1/1, workers 1/3, building the network"
    views |= dict.fromkeys(("worker.0", "worker.1"), RoleView("running", None))
    assert start_up(views) == ""


@pytest.mark.parametrize("shown", [on_terminal, elsewhere])
def test_the_table_of_an_epoch_is_for_verbose(started: Start, shown: Callable[..., list[str]]) -> None:
    lines = shown(started(), record(1, 0.5), level=VERBOSE)
    first = lines.index("epoch 1 of 20")
    assert lines[first + 2].split()[:2] == ["client", "rows"] and lines[first + 4].startswith("0 Boston ")
    assert text_width(lines[first + 5]) == text_width(lines[first + 4]) <= 80, "of two columns a letter"
    assert "the whole table" in lines and "round 1, mine: 3 JOIN" in lines


def test_a_wide_terminal_has_a_wide_table(started: Start) -> None:
    job = started()
    narrow, wide = (on_terminal(job, record(1, 0.5), level=VERBOSE, width=width) for width in (80, 120))
    assert "rows/s" not in narrow[narrow.index("epoch 1 of 20") + 2]
    assert "rows/s" in wide[wide.index("epoch 1 of 20") + 2]


@pytest.mark.parametrize("shown", [on_terminal, elsewhere])
def test_quiet_shows_the_result_alone(started: Start, shown: Callable[..., list[str]]) -> None:
    lines = shown(started(notes=("a note",)), record(2, 0.4), level=QUIET)
    assert [line.split()[0] for line in lines[:3]] == ["done", "result", "0.052"]
    assert "0.052 BELOW popularity (0.452): ranking by counts is better" in lines[2]


def test_a_long_note_is_said_once(started: Start) -> None:
    screen = Live(file := io.StringIO(), NORMAL, 80, 24)
    screen.starting(started())
    before = file.tell()
    for users in (800, 600):
        screen.note(f"{users} users have no hit, " + "and that has a long reason, " * 5)
    screen.note("another")
    lines = file.getvalue()[before:].splitlines()
    assert [line.startswith("note") for line in lines] == [True, False, False, True, True]
    assert lines[3].startswith("note      600 users") and lines[3].rstrip().endswith("…") and text_width(lines[3]) <= 80


def test_many_settings_take_two_lines(started: Start) -> None:
    keys = [f"runner.{name}_timeout=77" for name in ("start", "barrier", "heartbeat")]
    job = started(*keys, "runner.seed=11", "runner.thread_num=2", "runner.server_learning_rate=0.5")
    lines = on_terminal(dataclasses.replace(job, run=RunDirectory(Path("run"))))
    first = next(number for number, line in enumerate(lines) if line.startswith("settings"))
    assert lines[first + 1].endswith("…") and lines[first + 2].startswith("run ")


def test_what_is_about_to_happen_takes_five_lines(started: Start) -> None:
    """With a coordinator, in a run that goes on, and with more settings than there is room for."""
    keys = [f"runner.{name}_timeout=77" for name in ("start", "barrier", "heartbeat")]
    job = dataclasses.replace(started(*keys, resumed=3), coordinators=1, run=RunDirectory(Path("run")))
    screen = Live(file := io.StringIO(), NORMAL, 80, 24)
    screen.starting(job)
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["job", "resumed", "data", "settings", "run"]
    assert lines[3].rstrip().endswith("…")


def test_notes_before_a_job_take_a_line_each(started: Start) -> None:
    notes = ("one key has no effect: " + "and that has a long reason, " * 5, "another")
    job = dataclasses.replace(started(notes=notes), run=RunDirectory(Path("run")))
    for level, count in ((NORMAL, 3), (VERBOSE, 4)):
        screen = Live(file := io.StringIO(), level, 80, 24)
        screen.starting(job)
        lines = [line.rstrip() for line in file.getvalue().splitlines()]
        lines = lines[next(number for number, line in enumerate(lines) if line.startswith("note")) :]
        assert len(lines) == count
        if level == NORMAL:
            assert lines[0].endswith("…") and lines[1] == "note      another"
            assert lines[2] == "          in full: run/tables.txt"


def test_the_worst_client_beside_its_own_popularity(started: Start) -> None:
    own = ({"hr@10": 0.435}, None, {"hr@10": 0.6})
    job = started(own_popularity=own)
    lines = on_terminal(job, record(1, 0.45))
    assert "clients   best: 2 Zürich 0.460, worst: 0 Boston 0.440 (popularity there: 0.435)" in lines
    unknown = on_terminal(dataclasses.replace(job, own_popularity=(None,) * 3), record(1, 0.45))
    assert "worst: 0 Boston 0.440" in "".join(unknown) and "popularity there" not in "".join(unknown)


def on_screen(text: str) -> list[str]:
    """What stands on a terminal that is high enough, of lines that are written as a whole."""
    lines, at = [""], 0
    for word in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\n|[^\x1b\r\n]+", text):
        if word == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif word == "\x1b[1A":
            at -= 1
        elif word == "\x1b[2K" or word[0] != "\x1b":
            lines[at] = word if word[0] != "\x1b" else ""
    return [line for line in lines if line]


def test_a_line_is_not_drawn_over(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on has now more lines, now less, while one thread draws it anew and another says something."""
    monkeypatch.setattr("fl_rec.terminal.live._REFRESH", 500)
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    monkeypatch.setattr(file, "isatty", lambda: True)
    job, screen = started(), Live(file, NORMAL, 80, 24)
    lines = [f"line {number}" for number in range(50)]
    with screen:
        screen.starting(job)
        for number, line in enumerate(lines):
            clients = [Client(f"client {each}", 1, 2, 1.0, "training") for each in range(number * 7 % 12)]
            screen._pass = Pass(1, clients) if clients else None
            screen.say(line)
    assert [line for line in on_screen(file.getvalue()) if line.startswith("line")] == lines


# -- elsewhere -------------------------------------------------------------------------------------------------


def test_a_job_in_lines(started: Start, run: RunDirectory) -> None:
    lines = without_seconds(elsewhere(started(notes=("a key has no effect",)), record(1, 0.444), record(2, 0.463)))
    assert lines == [
        "job       job.yaml: 20 epochs, 3 workers, 1 server, geo",
        "data      32,100 rows, 100 to 30,000 a client; popularity: HR@10 0.452",
        "settings  geo_step=20, optimizer.learning_rate=0.01",
        f"run       {run.path}",
        "note: a key has no effect",
        "starting  servers 0/1, workers 0/1, importing Paddle",
        "started",
        "epoch 1/20  loss 0.3301  AUC 0.877  HR@10 0.444 (popularity 0.452)  NDCG@10 0.265  worst: 0 Boston 0.434  T",
        "epoch 2/20  loss 0.3301  AUC 0.877  HR@10 0.463 (+0.019, popularity 0.452)  NDCG@10 0.265"
        "  worst: 0 Boston 0.453  T",
        "round 2, mine: 2 JOIN, 1 WAIT",
        "who, and why",
        "note: client 1 is left out",
        "done      2 epochs in T",
        "result    HR@10 0.463, NDCG@10 0.265: epoch 2, the last",
        "          0.011 above popularity (0.452): a hit for 1.1 more of 100 users",
        "clients   best: 2 Zürich 0.473, worst: 0 Boston 0.453",
        f"model     {run.path}/model/2",
        f"next      fl-rec report {run.path}",
        f"          fl-rec export {run.path}",
    ]


def test_data_that_does_not_say(started: Start) -> None:
    """No popularity, no rows, no names."""
    job = started(popularity=None, rows=(None, 5, None), clients=())
    lines = elsewhere(job, record(1, 0.4), record(2, 0.41))
    assert lines[1] == "data      3 shards"
    assert "HR@10 0.410 (+0.010)  NDCG@10 0.265  worst: client 0 0.400" in "".join(lines)
    assert "popular" not in "".join(lines + on_terminal(job, record(1, 0.4)))


def test_a_long_epoch_is_told_of(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    screen = Plain(file)
    screen.starting(started())
    screen.poll({"worker.0": RoleView("", None)})
    screen.poll(TRAINING)
    screen.epoch(record(2, 0.4))
    screen.poll(TRAINING)
    monkeypatch.setattr(plain, "_OF_EPOCH", -1.0)
    screen.poll(TRAINING)
    assert file.getvalue().splitlines()[-1][9:] == "epoch 3/20  88% of 400 rows, 25 rows/s, 2.0 s left"
    assert file.getvalue().count("rows/s") == 1


def test_a_job_that_fails_says_how_to_go_on(started: Start, run: RunDirectory) -> None:
    job = started()
    lines = elsewhere(job, record(1, 0.4), state="failed")
    assert lines[-1] == f"next      fl-rec resume {run.path}" and not any(line.startswith("model") for line in lines)
    assert not any("resume" in line for line in elsewhere(job, state="failed"))


def test_the_best_epoch_is_called_so_where_something_chose_it(started: Start, tmp_path: Path) -> None:
    job = started(f"runner.validation_data_dir={tmp_path}")
    assert "result    HR@10 0.444, NDCG@10 0.265: epoch 1, the best on the validation shards" in elsewhere(
        job, record(1, 0.444), record(2, 0.463)
    )


def test_an_epoch_that_is_trained_again_counts_once(started: Start) -> None:
    """As after a restart: its figures were told, and its checkpoint had not been written."""
    lines = elsewhere(started(), record(1, 0.40), record(2, 0.41), record(2, 0.42), record(3, 0.45))
    changes = [re.findall(r"[+-]0[.]0[0-9]+", line) for line in lines if line.startswith(("epoch 2", "epoch 3"))]
    assert changes == [["+0.010"], ["+0.020"], ["+0.030"]]
    assert any(line.startswith("done      3 epochs in ") for line in lines)


def test_a_run_that_goes_on(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_REC_PROGRAM", "./fl_run.sh")
    lines = elsewhere(started(resumed=3), record(4, 0.4))
    assert lines[1] == "resumed   after epoch 3" and lines[-1].strip().startswith("./fl_run.sh export ")


# -- as a command ----------------------------------------------------------------------------------------------


def test_help_is_one_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80


def test_a_command_shows_that_it_lives_before_it_imports_what_it_needs() -> None:
    """Neither pydantic nor numpy, which take most of a second on a busy machine."""
    code = "import sys; from fl_rec import cli; cli.parsers(['run', 'resume']); "
    code += "print(sorted({'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done.stderr
