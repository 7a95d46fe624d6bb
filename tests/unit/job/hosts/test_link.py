"""The link between two hosts' launchers, on real sockets; roles are processes that sleep."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import reduce
from operator import getitem
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import msgpack
import psutil
import pytest

from fl_rec.commands import certs
from fl_rec.config import Config
from fl_rec.errors import DataError
from fl_rec.job.hosts import linked
from fl_rec.job.hosts.company import Linked, NotMet, difference, settings_of
from fl_rec.job.hosts.members import Member, Members
from fl_rec.job.hosts.messages import (
    LARGEST,
    METHOD,
    Answer,
    Begin,
    Hello,
    Report,
    Verdict,
    Word,
    decode,
    encode,
    taken_in,
)
from fl_rec.job.hosts.refusals import Refusals
from fl_rec.job.judge import Failure, Judge, Patience
from fl_rec.job.watch import log_path
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import AWAY_KEY, RESUME_KEY, RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.secure import Tls

# Silence for longer than HEARTBEAT - 2 * BEAT is told.
DEADLINE, HEARTBEAT, BEAT = 30.0, 1.3, 0.05
START = DEADLINE  # but for the `hurried`
HUB, OTHER = "127.0.0.1", "elsewhere"


@dataclasses.dataclass
class Party:
    """A host: its launcher's end of the link, its run and its roles."""

    company: Linked
    run: RunDirectory
    notes: list[str]
    sleeper: Callable[[], subprocess.Popen]

    def meet(self, epoch: int | None = None) -> Begin:
        return self.company.meet(epoch, self.notes.append)

    def start(self, *names: str) -> dict[str, subprocess.Popen]:
        started = {name: self.sleeper() for name in names}
        for name in names:
            self.status(name, started[name])
        return started

    def status(self, name: str, process: subprocess.Popen, state: str = roles.RUNNING, error: str = "") -> None:
        now = time.monotonic()
        status = {"role": name, "pid": process.pid, "started": roles.started(process.pid), "state": state}
        status.update({"error": error, "times": {state: now}})
        draft = self.run.path / "draft"
        draft.write_text(json.dumps(status))
        draft.rename(self.run.roles / f"{name}.json")
        activity.write_told(self.run.roles, name, activity.Activity("training epoch 3", now))

    def judge(self) -> Judge:
        leader = psutil.Process(self.sleeper().pid)
        return self.company.judge(leader, lambda role: log_path(self.run, role))


class Two:
    """Both hosts, met or about to."""

    def __init__(self, make: Callable[[str], Party]) -> None:
        self.hub, self.other = make(HUB), make(OTHER)
        self.threads = ThreadPoolExecutor()

    def met(self) -> tuple[Begin, Begin]:
        there: Future[Begin] = self.threads.submit(self.other.meet)
        return self.hub.meet(), there.result(DEADLINE)

    def judged(self) -> tuple[Judge, Judge]:
        """Both judges, when two workers run."""
        self.met()
        return self.hub.judge(), self.other.judge()


def until(happens: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (found := happens()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def failure_of(judge: Judge) -> Callable[[], Failure | None]:
    def look() -> Failure | None:
        judge.look()
        return judge.failure()

    return look


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("hub", "members", "branch", "company"):
        monkeypatch.setattr(f"fl_rec.job.hosts.{module}.BEAT", BEAT)
    monkeypatch.setattr("fl_rec.job.hosts.hub._SAID_AFTER", DEADLINE)
    monkeypatch.setattr("fl_rec.job.alive.LONGEST_STEP", 0.3)
    monkeypatch.setattr("fl_rec.job.hosts.branch._PAUSE", 0.1)
    monkeypatch.setattr("fl_rec.job.hosts.branch._FAREWELL", 0.5)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not come is not waited for long."""
    monkeypatch.setitem(globals(), "START", 1.5)
    monkeypatch.setattr("fl_rec.job.hosts.hub._SAID_AFTER", 0.2)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((HUB, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def make(tmp_path: Path, port: int, sleeper: Callable[[], subprocess.Popen]) -> Iterator[Callable[..., Party]]:
    """`make(here, tls, **changes)`: a host whose hello is changed so."""
    made = []

    def make(here: str, tls: Tls | None = None, **changes: Any) -> Party:
        run, _ = RunDirectory.claim(tmp_path / here, "this test")
        hosts = Hosts((f"{HUB}:1",), (f"{HUB}:{port}", f"{OTHER}:1"), (), here)
        own = {"version": "1", "host": here, "addresses": (hosts.servers, hosts.workers, ()), "settings": {"a": "1"}}
        own.update({"data": "ab", "identity": "", "checkpoints": (), **changes})
        patience = Patience(START, HEARTBEAT, DEADLINE, True)
        company = linked(hosts, lambda _again, **more: Hello(**{**own, **more}), False, tls, run, patience, None)
        made.append(company)
        return Party(company, run, [], sleeper)

    yield make
    for company in made:
        company.leave("the test is over")
    with ThreadPoolExecutor() as threads:  # each waits for the other
        list(threads.map(lambda company: company.part(), made))


@pytest.fixture
def two(make: Callable[[str], Party]) -> Two:
    return Two(make)


def test_both_begin_with_what_both_have(make: Callable[..., Party]) -> None:
    two = Two(lambda here: make(here, identity="ab", checkpoints=(1, 2, 4) if here == HUB else (1, 2, 3)))
    here, there = two.met()
    assert here.epoch == there.epoch == 2
    assert two.hub.run.identity == two.other.run.identity == here.identity != ""
    assert two.hub.notes == ["elsewhere (worker.1) has joined"]
    (joined,) = map(json.loads, two.hub.run.audit.read_text().splitlines())
    assert (joined["what"], joined["who"]) == ("joined", OTHER) and "with worker.1" in joined["why"]


def test_checkpoints_that_a_host_has_lost_cost_nobody_elses(make: Callable[..., Party]) -> None:
    two = Two(lambda here: make(here, identity="ab", checkpoints=(3, 4) if here == HUB else ()))
    with pytest.raises(NotMet, match=r"127\.0\.0\.1: 3, 4; elsewhere: none\. Put .* none was removed") as refused:
        two.met()
    assert refused.value.failure.role == "worker.1"


def test_hosts_that_parted_at_the_first_checkpoint_begin_anew(make: Callable[..., Party]) -> None:
    two = Two(lambda here: make(here, identity="ab", checkpoints=(1,) if here == HUB else ()))
    assert [begin.epoch for begin in two.met()] == [None, None]


def test_what_the_roles_begin_with_is_told(two: Two) -> None:
    two.hub.company._restarts = SimpleNamespace(away="1:4,2:inf")  # type: ignore[assignment]
    assert [begin.variables for begin in two.met()] == [{AWAY_KEY: "1:4,2:inf"}] * 2
    assert Begin("ab", 0).variables == {RESUME_KEY: "0"}


def test_each_knows_the_others_roles_in_its_own_time(two: Two) -> None:
    two.judged()
    began = time.monotonic()
    started = two.other.start("worker.1")
    two.hub.start("server.0", "worker.0")
    until(lambda: "worker.1" in roles.read_statuses(two.hub.run.roles), "the other's worker")
    until(lambda: {"server.0", "worker.0"} <= roles.read_statuses(two.other.run.roles).keys(), "the hub's roles")
    status = roles.read_statuses(two.hub.run.roles)["worker.1"]
    assert (status.host, status.lives, status.has_ended, status.process()) == (OTHER, True, False, None)
    assert began - 1 < status.time < time.monotonic()
    told = activity.read(two.hub.run.roles, "worker.1")
    assert told is not None and told.what == "training epoch 3" and began - 1 < told.since < time.monotonic()
    assert roles.read_statuses(two.other.run.roles)["server.0"].host == HUB
    started["worker.1"].kill()
    until(lambda: roles.read_statuses(two.hub.run.roles)["worker.1"].has_ended, "the end of the other's worker")


def test_where_a_server_listens_is_told(two: Two, spawn: Callable[..., subprocess.Popen]) -> None:
    code = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
    listening = spawn("python3", "-c", code + "print(s.getsockname()[1], flush=True); time.sleep(60)")
    port = int(listening.stdout.readline())
    two.judged()
    two.hub.status("server.0", listening)
    until(lambda: roles.listens(two.other.run.roles, "server.0", port), "the server's port")
    assert not roles.listens(two.other.run.roles, "server.0", port + 1)


def test_a_role_that_is_lost_elsewhere_ends_it_for_all(two: Two) -> None:
    judges = two.judged()
    started = two.other.start("worker.1")
    two.hub.start("server.0", "worker.0")
    log_path(two.other.run, "worker.1").write_text("ValueError: no\nlater\n")
    until(lambda: "worker.1" in roles.read_statuses(two.hub.run.roles), "the worker")
    assert failure_of(judges[0])() is None and failure_of(judges[1])() is None
    started["worker.1"].kill()
    failure = until(failure_of(judges[0]), "the hub's verdict")
    assert (failure.role, failure.kind) == ("worker.1", "died")
    assert failure.reason == (
        "on elsewhere: it ended without a word: killed by SIGKILL, as by kill -9, or by Linux if memory has run out. "
        "First error in its log: ValueError: no"
    )
    assert failure.log == log_path(two.hub.run, "worker.1")
    two.hub.company.tell(failure)
    told = until(failure_of(judges[1]), "the other's")
    assert (told.role, told.reason, told.kind) == (failure.role, failure.reason, failure.kind)
    assert not two.other.company.goes_on(told)
    parted = two.threads.submit(two.other.company.part)
    two.hub.company.part()
    parted.result(DEADLINE)
    assert log_path(two.hub.run, "worker.1").read_text() == "ValueError: no\nlater\n"


def test_who_has_ended_sooner_waits_for_the_next_attempt(two: Two) -> None:
    judges = two.judged()
    for party in (two.hub, two.other):
        party.company._restarts = SimpleNamespace(  # type: ignore[assignment]
            are_left=lambda _failure: True, away=""
        )
    two.hub.company.tell(Failure("worker.1", "killed", Path(), "died"))
    failure = until(failure_of(judges[1]), "the verdict")
    two.other.company.part()
    assert two.other.company.goes_on(failure)
    again = two.threads.submit(two.other.meet)
    until(lambda: two.other.notes, "that it waits, while the hub's processes end")
    two.hub.company.part()
    assert two.hub.meet().identity == again.result(DEADLINE).identity


def test_an_error_that_a_role_tells_elsewhere(two: Two) -> None:
    judges = two.judged()
    two.hub.start("server.0", "worker.0")
    two.other.status("worker.1", two.other.sleeper(), roles.FAILED, "its shard is torn")
    failure = until(failure_of(judges[0]), "the hub's verdict")
    assert (failure.role, failure.reason, failure.kind) == ("worker.1", "on elsewhere: its shard is torn", "failed")
    two.hub.company.tell(dataclasses.replace(failure, reason="of Paddle: " + "x" * 99_999))
    told = until(failure_of(judges[1]), "the other's")
    assert re.fullmatch("of Paddle: x{1989} ...", told.reason), "as much as fits a message"


def test_a_stopped_role_elsewhere_is_named(two: Two) -> None:
    judges = two.judged()
    started = two.other.start("worker.1")
    two.hub.start("server.0")
    psutil.Process(started["worker.1"].pid).suspend()
    members = two.hub.company._members  # type: ignore[attr-defined]
    until(lambda: (report := members.report("worker.1")) and report.stopped, "its stop")
    waits = two.hub.sleeper()
    two.hub.status("worker.0", waits, roles.FAILED, "one did not come")
    failure = until(failure_of(judges[0]), "the hub's verdict")
    assert (failure.role, failure.kind) == ("worker.1", "frozen") and "A signal has stopped it." in failure.reason


def test_all_done(two: Two) -> None:
    judges = two.judged()
    two.hub.start("server.0")
    for party, name in ((two.hub, "worker.0"), (two.other, "worker.1")):
        party.status(name, party.sleeper(), roles.DONE)

    def over() -> bool:
        judges[0].look()
        assert judges[0].failure() is None
        return judges[0].is_over()

    until(over, "the hub's end")
    assert not judges[1].is_over()
    two.hub.company.tell(None)
    until(judges[1].is_over, "the other's end")
    assert failure_of(judges[1])() is None


def test_a_server_that_ends_with_its_hosts_workers_is_not_lost(two: Two) -> None:
    """fleetrun ends it when the last worker of its host has ended, before others are known to be done."""
    judges = two.judged()
    started = two.hub.start("server.0")
    two.hub.status("worker.0", two.hub.sleeper(), roles.DONE)
    two.other.start("worker.1")
    until(lambda: "worker.1" in roles.read_statuses(two.hub.run.roles), "the worker")
    started["server.0"].kill()
    started["server.0"].wait()
    for _ in range(10):
        assert failure_of(judges[0])() is None
        time.sleep(BEAT)


# -- a host that is lost ---------------------------------------------------------------------------------------


def test_a_host_that_is_cut_off_is_told_on_both_sides(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    judges = two.judged()
    two.hub.start("server.0")
    complaining = two.hub.sleeper()
    two.hub.status("worker.0", complaining)
    two.other.start("worker.1")
    until(lambda: "worker.1" in roles.read_statuses(two.hub.run.roles), "the worker")
    whole = [True]
    hub: Any = two.hub.company
    take = hub._take

    def carry(*word: Any) -> None:
        until(lambda: whole[0], "the cable")
        take(*word)

    monkeypatch.setattr(hub, "_take", carry)
    whole[0] = False
    time.sleep(2 * BEAT)  # in which a word is on its way
    two.hub.status("worker.0", complaining, roles.FAILED, "connection lost")  # the effect, which is not blamed
    failures = [until(failure_of(judge), "a verdict") for judge in judges]
    whole[0] = True
    assert [each.kind for each in failures] == ["died", "died"]
    assert failures[0].role == failures[1].role == "worker.1"
    assert failures[0].reason == (
        "its host elsewhere (worker.1) has not been heard for 1 s (runner.heartbeat_timeout=1.3): it is cut off, "
        "frozen or switched off."
    )
    assert failures[1].reason.startswith("this host, elsewhere, is cut off: 127.0.0.1, which judges the job, has not")


def test_who_hears_nobody_is_cut_off_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(("north:1",), ("north:2", "south:2", "west:2"), (), "north")
    members = Members(hosts, Patience(30, 6, 30, False), 5.0)
    monkeypatch.setattr(members, "clock", lambda: 20.0)

    def why(**heard: float) -> str:
        for name, moment in heard.items():
            said = Hello("1", name, ((), (), ()), {}, "", "", ())
            members[name] = Member(said, moment, Word(moment), lambda: None)
        return members.why("south")[0]

    assert why(south=14.9, west=15.4) == (
        "none of the other hosts, south, west, has been heard for 5 s (runner.heartbeat_timeout=6): this one, "
        "north, is cut off, or all of them are."
    )
    assert why(west=20.0).startswith("its host south (worker.1) has not been heard for 5 s (")


def test_who_stood_still_takes_that_for_nobodys_silence(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    judges = two.judged()
    two.hub.start("server.0", "worker.0")
    two.other.start("worker.1")
    until(lambda: "worker.1" in roles.read_statuses(two.hub.run.roles), "the worker")
    now = time.monotonic
    monkeypatch.setattr("fl_rec.job.alive.time.monotonic", lambda: now() + 3600)
    assert [failure_of(judge)() for judge in judges] == [None, None]


def test_the_last_word_is_not_needed(two: Two) -> None:
    """A worker that is done knows that all others have done everything."""
    judges = two.judged()
    two.hub.start("server.0")
    two.hub.status("worker.0", two.hub.sleeper(), roles.DONE)
    two.other.status("worker.1", two.other.sleeper(), roles.DONE)
    two.other.company._link._call.cancel()  # type: ignore[attr-defined]
    for judge in judges:

        def over(judge: Judge = judge) -> bool:
            assert failure_of(judge)() is None
            return judge.is_over()

        until(over, "the end")


def test_a_launcher_that_is_killed_is_told_at_once(two: Two) -> None:
    judges = two.judged()
    two.hub.start("server.0", "worker.0")
    two.other.start("worker.1")
    until(lambda: "worker.1" in roles.read_statuses(two.hub.run.roles), "the worker")
    two.other.company._link._call.cancel()  # type: ignore[attr-defined]
    failure = until(failure_of(judges[0]), "the hub's verdict")
    assert "its host elsewhere (worker.1) has ended the link without a word: its launcher was killed" in failure.reason
    failure = until(failure_of(judges[1]), "the other's")
    assert failure.kind == "died"


@pytest.mark.parametrize("what", ["its word", "its answer", "the hub's"])
def test_an_error_of_the_link_is_no_death_of_a_launcher(two: Two, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def fail(*_arguments: Any) -> None:
        raise OSError("Too many open files")

    judges = two.judged()
    two.hub.start("server.0", "worker.0")
    two.other.start("worker.1")
    until(lambda: "worker.1" in roles.read_statuses(two.hub.run.roles), "the worker")
    link: Any = two.other.company._link  # type: ignore[attr-defined]
    broken: Any = {"its word": (link, "_word"), "its answer": (link, "_take"), "the hub's": (two.hub.company, "_take")}
    monkeypatch.setattr(*broken[what], fail)
    here, there = (until(failure_of(judge), "a verdict") for judge in judges)
    said = "OSError: Too many open files"
    assert (here.role, here.kind, there.role, there.kind) == ("worker.1", "failed") * 2
    if what == "the hub's":
        assert here.reason == f"the link to its host elsewhere (worker.1) was ended on 127.0.0.1: {said}"
    else:
        assert here.reason == f"its host elsewhere (worker.1) has ended its part: an error of its link: {said}."
    assert there.reason == f"the link to 127.0.0.1, which judges the job, has ended by an error: {said}"


def test_a_launcher_that_ends_by_itself_says_why(two: Two) -> None:
    judges = two.judged()
    two.other.company.leave("stopped by SIGINT")
    failure = until(failure_of(judges[0]), "the hub's verdict")
    assert (failure.role, failure.kind) == ("worker.1", "failed"), "which is not begun again"
    assert failure.reason == "its host elsewhere (worker.1) has ended its part: stopped by SIGINT."


def test_a_hub_that_ends_by_itself_says_why(two: Two) -> None:
    judges = two.judged()
    two.hub.company.leave("stopped by SIGINT")
    failure = until(failure_of(judges[1]), "the other's verdict")
    assert failure.reason == "ended on 127.0.0.1: stopped by SIGINT"
    two.other.company.part()
    two.other.company.write(failure)
    assert two.other.run.read_result().state == "interrupted"


@pytest.mark.usefixtures("hurried")
def test_who_does_not_come_is_named(two: Two) -> None:
    with pytest.raises(NotMet) as told:
        two.hub.meet()
    failure = told.value.failure
    assert (failure.role, failure.kind) == ("worker.1", "failed")
    assert "within runner.start_timeout=1.5 s, and nothing has linked to 127.0.0.1:" in failure.reason
    assert "from elsewhere (worker.1). Start the same command there, with --host elsewhere;" in failure.reason
    assert any("waiting for elsewhere (worker.1) to link to 127.0.0.1:" in note for note in two.hub.notes)


@pytest.mark.usefixtures("hurried")
def test_a_hub_that_does_not_answer_is_named(two: Two) -> None:
    with pytest.raises(NotMet) as told:
        two.other.meet()
    reason = told.value.failure.reason
    assert reason.startswith(
        "127.0.0.1, the first worker's host, must answer within runner.start_timeout=1.5 s. Received: "
    )
    assert any(note.startswith("waiting for 127.0.0.1, the first worker's host, to answer") for note in two.other.notes)


# -- who is refused --------------------------------------------------------------------------------------------


def greeting(**changes: Any) -> Hello:
    return dataclasses.replace(
        Hello("1", HUB, (("a:1",), ("b:1",), ()), {"runner.seed": "7"}, "ab" * 8, "", ()), **changes
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "2"}, "one version of fl_rec. Received: 1 and 2."),
        (
            {"addresses": (("a:1",), ("c:1",), ())},
            "the same addresses, in the same order. Received: a:1 b:1  and a:1 c:",
        ),
        (
            {"settings": {"runner.seed": "8"}},
            "the same configuration and code, at .* Received: runner.seed=7 and 8.",
        ),
        ({"settings": {}}, "Received: runner.seed=7 and none."),
        ({"data": "cd"}, "shards of one data set, .*Received: checksums abababababab and cd."),
        ({"identity": "ef"}, "begin a run, or resume it. Received: 127.0.0.1 begins one and 127.0.0.1 resumes one."),
        ({"host": OTHER, "checkpoints": (3,)}, "^$"),
    ],
)
def test_what_all_hosts_have_alike(changes: dict[str, Any], message: str) -> None:
    assert re.search(message, difference(greeting(), greeting(**changes)))


def test_code_is_compared_where_paths_are_not(tmp_path: Path) -> None:
    files = {
        "job.yaml": "runner: {train_data_dir: .}\nhyper_parameters: {loss: 'losses.py:mine'}\n",
        "static_model.py": "def late():\n    import net\n",
        "net.py": "import beside, os\n",
        "beside.py": "width = 8\n",
        "losses.py": "mine = 0\n",
        "unused.py": "",
    }

    def settings(name: str, **changed: str) -> dict[str, str]:
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_text(changed.get(file.partition(".")[0], content))
        return settings_of(Config.load(folder / "job.yaml"))

    first = greeting(settings=settings("first"))
    assert difference(first, greeting(settings=settings("second", unused="1"))) == ""
    with_beside = "static_model.py with net.py, beside.py .checksum"
    for name, told in {
        "beside": f'runner.model_path="{with_beside} .* and "{with_beside} ',
        "static_model": rf'runner.model_path="{with_beside} .* and "static_model.py .checksum',
        "losses": 'hyper_parameters.loss="losses.py .checksum .* and "losses.py .checksum ',
    }.items():
        wrong = difference(first, greeting(settings=settings(name, **{name: "width = 9\n"})))
        assert re.search(f"the same configuration and code, at any path. Received: {told}", wrong), wrong


def test_parts_of_two_runs() -> None:
    told = difference(greeting(identity="a" * 32), greeting(identity="b" * 32))
    assert told == "All hosts resume their part of one run. Received: runs aaaaaaaa and bbbbbbbb."


@pytest.mark.usefixtures("hurried")
def test_a_host_with_another_configuration_is_told_so(make: Callable[..., Party]) -> None:
    two = Two(lambda here: make(here, settings={"runner.seed": "7" if here == HUB else "8"}))
    waiting = two.threads.submit(two.hub.meet)
    with pytest.raises(NotMet) as told:
        two.other.meet()
    assert re.sub(r"for \d s more", "for some seconds more", told.value.failure.reason) == (
        "127.0.0.1, the first worker's host, has refused this one: All hosts have the same configuration and code, at "
        "any path. Received: runner.seed=7 and 8. The first is of 127.0.0.1, the second of elsewhere. 127.0.0.1 waits "
        "for some seconds more: mend it there, or here and start again."
    )
    assert told.value.failure.log is None and two.other.company.is_new
    with pytest.raises(NotMet, match="seed=7 and 8"):
        make(OTHER, settings={"runner.seed": "8"}).meet()
    with pytest.raises(NotMet) as told:
        waiting.result(DEADLINE)
    assert told.value.failure.reason.startswith(
        "its host must come within runner.start_timeout=1.5 s, and elsewhere (worker.1) was refused: All hosts have "
    )
    assert two.hub.company.is_new and told.value.failure.log is None
    (said,) = (note for note in two.hub.notes if "was refused" in note)
    assert re.match(
        r"elsewhere \(worker.1\) was refused: .*seed=7 and 8.* It is waited for until \d\d:\d\d:\d\d \(runner.start_",
        said,
    )
    assert '"what": "refused"' in two.hub.run.audit.read_text()


def test_a_host_that_was_mended_comes_again(make: Callable[..., Party]) -> None:
    two = Two(make)
    waiting = two.threads.submit(two.hub.meet)
    with pytest.raises(NotMet, match="one version of fl_rec. Received: 1 and 0. Install the same."):
        make(OTHER, version="0").meet()
    assert two.other.meet().identity == waiting.result(DEADLINE).identity
    assert not two.hub.company.is_new and not two.other.company.is_new


def test_strangers_fill_no_terminal() -> None:
    notes: list[str] = []
    refusals = Refusals("north", 60.0, notes)
    for number in range(100):
        refusals.refused(f"ipv4:10.0.0.9:{number}", DataError("A host says first who it is.\x1b[2J"), "")
    assert notes == ["a host was refused, which linked from ipv4:10.0.0.9: A host says first who it is.?[2J"]
    for number in range(100):
        refusals.refused("ipv4:10.0.0.9:1", DataError(f"{number}"), "")
    assert len(notes) == 20


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (OTHER, ""),
        ("client-0", r"A host's certificate is of its name, elsewhere. Received: one of .*client-0"),
        (HUB, r"A host's certificate is of its name, elsewhere. Received: one of .*127.0.0.1"),
        ("coordinator", r"A host's certificate is of its name, elsewhere. Received: one of .*coordinator, elsewhere"),
        (
            "stranger",
            "no link to .*, the first worker's host: The certificate of .* is of another authority than tls.ca",
        ),
        (
            "revoked",
            r"must be one that tls.crl lets in. Received: one of elsewhere, which has been revoked: fl-rec certs",
        ),
        ("", "there is no link to 127.0.0.1, the first worker's host: 127.0.0.1:.* asks for TLS: set tls.cert"),
    ],
)
def test_whose_certificate_it_is(make: Callable[..., Party], tmp_path: Path, shown: str, message: str) -> None:
    pytest.importorskip("cryptography")
    certs.create(tmp_path / "certs", 1, [HUB, OTHER])
    certs.create(tmp_path / "theirs", 1, ["stranger"])

    def tls(name: str) -> Tls | None:
        if not name:
            return None
        folder = tmp_path / {"stranger": "theirs", "revoked": "before"}.get(name, "certs")
        name = OTHER if name == "revoked" else name
        crl = folder / "crl.pem" if name == HUB else None
        return Tls(folder / f"{name}.crt", folder / f"{name}.key", folder / "ca.crt", crl)

    if shown == "revoked":
        shutil.copytree(tmp_path / "certs", tmp_path / "before")
    certs.revoke(tmp_path / "certs", [OTHER] if shown == "revoked" else [])
    two = Two(lambda here: make(here, tls(HUB if here == HUB else shown)))
    waiting = two.threads.submit(two.hub.meet)
    if not message:
        assert two.other.meet().identity == waiting.result(DEADLINE).identity
        return
    with pytest.raises(NotMet) as told:
        two.other.meet()
    assert re.search(message, told.value.failure.reason)
    hub: Any = two.hub.company
    hub._refusals._until = time.monotonic()
    with pytest.raises(NotMet):
        waiting.result(DEADLINE)


def test_a_host_takes_no_other_hosts_name(two: Two) -> None:
    hub: Any = two.hub.company
    hub._tls = Tls(Path(), Path(), Path())
    context = SimpleNamespace(auth_context=lambda: {"x509_common_name": [OTHER.encode()]})
    hub._require_certificate(context)
    hub._require_certificate(context, OTHER)
    with pytest.raises(DataError, match="is of its name, third. Received: one of elsewhere."):
        hub._require_certificate(context, "third")


def test_a_host_tells_of_its_own_roles(two: Two) -> None:
    judges = two.judged()
    two.hub.start("server.0", "worker.0")
    reporter = until(lambda: two.other.company._link.reporter, "its reporter")  # type: ignore[attr-defined]
    status = roles.RoleStatus("worker.0", 1, "", roles.FAILED, "not so", {roles.FAILED: 1.0})
    report = Report(status, None, 0.0, False, "")
    reporter._over, reporter.reports = False, lambda: {"worker.0": report}
    failure = until(failure_of(judges[0]), "the hub's verdict")
    told = "A host tells of its own roles. Received: worker.0 of elsewhere."
    assert (failure.role, failure.kind) == ("worker.1", "failed")
    assert failure.reason == f"the link to its host elsewhere (worker.1) was ended on 127.0.0.1: {told}"
    assert told in until(failure_of(judges[1]), "the other's").reason
    assert roles.read_statuses(two.hub.run.roles)["worker.0"].state == roles.RUNNING
    assert told in two.hub.run.audit.read_text()


def channel_to(port: int) -> grpc.Channel:
    """To a hub that may be about to listen."""
    channel = grpc.insecure_channel(f"{HUB}:{port}", options=[("grpc.initial_reconnect_backoff_ms", 100)])
    grpc.channel_ready_future(channel).result(DEADLINE)
    return channel


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([b"nonsense"], "of one version of fl_rec. Received: "),
        ([encode(Word(1.0))], "A host says first who it is."),
        ([encode(Word(1.0, greeting(host="nobody")))], "A host is one of elsewhere. Received: nobody."),
        ([encode(Word(1.0, greeting(host=HUB)))], "A host is one of elsewhere. Received: 127.0.0.1."),
    ],
)
def test_a_stranger_is_refused(two: Two, port: int, words: list[bytes], message: str) -> None:
    waiting = two.threads.submit(two.hub.meet)
    with closing(channel_to(port)) as channel:
        with pytest.raises(grpc.RpcError) as told:
            list(channel.stream_stream(METHOD)(iter(words), timeout=DEADLINE))
    assert told.value.code() == grpc.StatusCode.FAILED_PRECONDITION and message in told.value.details()
    (line,) = map(json.loads, two.hub.run.audit.read_text().splitlines())
    assert line["what"] == "refused" and line["who"].startswith("ipv4:127.0.0.1:") and message in line["why"]
    begin = two.other.meet()
    assert waiting.result(DEADLINE).identity == begin.identity, "and the job begins all the same"


class Silent:
    """Streams to the hub that say nothing, or but one word."""

    def __init__(self, port: int, count: int, *words: bytes) -> None:
        self._over = threading.Event()
        self._channel = channel_to(port)
        self.streams = [self._channel.stream_stream(METHOD)(self._say(words), timeout=DEADLINE) for _ in range(count)]

    def _say(self, words: Sequence[bytes]) -> Iterator[bytes]:
        yield from words
        self._over.wait(DEADLINE)

    def close(self) -> None:
        self._over.set()
        self._channel.close()


def test_who_says_nothing_keeps_nobody_out(two: Two, port: int) -> None:
    hub: Any = two.hub.company
    waiting = two.threads.submit(two.hub.meet)
    with closing(Silent(port, 12)) as silent:
        until(lambda: len(hub._first_words._silent) == 2, "those who are waited for")
        until(lambda: sum(each.done() for each in silent.streams) == 10, "the end of all others")
        assert two.other.meet().identity == waiting.result(DEADLINE).identity


def test_who_opens_many_connections_takes_no_files(two: Two, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.job.hosts.hub._MORE_CONNECTIONS", 2)
    hub: Any = two.hub.company
    waiting = two.threads.submit(two.hub.meet)
    channel_to(port).close()
    hub._refusals._until += DEADLINE
    with ExitStack() as held:
        peers = [held.enter_context(socket.create_connection((HUB, port), DEADLINE)) for _ in range(20)]
        # One that is sent away is told nothing; another is greeted.
        greeted = [bool(peer.recv(1 << 10)) for peer in peers]
    assert sum(greeted) <= 6
    assert two.other.meet().identity == waiting.result(DEADLINE).identity


@pytest.mark.parametrize("greets", [False, True])
def test_a_connection_on_which_no_host_speaks_is_closed(
    make: Callable[..., Party], port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greets: bool
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setattr("fl_rec.job.hosts.hub._UNUSED_SECONDS", 2.0)
    certs.create(folder := tmp_path / "certs", 1, [HUB, OTHER])
    two = Two(lambda here: make(here, Tls(folder / f"{here}.crt", folder / f"{here}.key", folder / "ca.crt")))
    waiting = two.threads.submit(two.hub.meet)
    hub: Any = two.hub.company
    until(lambda: hub._server, "the hub's service")
    hub._refusals._until += DEADLINE
    with socket.create_connection((HUB, port), DEADLINE) as peer:
        if greets:
            context = ssl.create_default_context(cafile=folder / "ca.crt")
            context.load_cert_chain(folder / "client-0.crt", folder / "client-0.key")
            context.set_alpn_protocols(["h2"])
            peer = context.wrap_socket(peer, server_hostname=HUB)
            peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        while peer.recv(1 << 10):
            pass
    assert two.other.meet().identity == waiting.result(DEADLINE).identity


def test_who_says_nothing_is_not_waited_for(two: Two, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_rec.job.hosts.first_words._SECONDS", 0.1)
    waiting = two.threads.submit(two.hub.meet)
    with closing(Silent(port, 1)) as silent:
        assert silent.streams[0].code() == grpc.StatusCode.CANCELLED
        until(two.hub.run.audit.is_file, "the audit")
    assert "A host says first who it is, at once. Received: nothing." in two.hub.run.audit.read_text()
    assert two.other.meet().identity == waiting.result(DEADLINE).identity


def test_a_second_launcher_of_a_host_is_refused(two: Two, make: Callable[..., Party]) -> None:
    judges = two.judged()
    message = r"A host has one launcher at a time\. Received: a second one of elsewhere, whose first was heard \d\.\d s"
    with pytest.raises(NotMet, match=message):
        make(OTHER).meet()
    two.other.company._link._call.cancel()  # type: ignore[attr-defined]
    until(failure_of(judges[0]), "its loss")
    with pytest.raises(NotMet, match=r"joins before the job begins\. Received: elsewhere, .*heartbeat_timeout=1\.3 s"):
        make(OTHER).meet()


def test_a_launcher_whose_connection_is_dead_has_its_place_taken(
    two: Two, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Any = two.hub.company
    met, common = threading.Event(), hub._common
    monkeypatch.setattr(hub, "_common", lambda: (met.wait(DEADLINE), common())[1])  # as if a third host were missing
    waiting = two.threads.submit(two.hub.meet)
    with closing(Silent(port, 1, encode(Word(1.0, hub._hello(False, host=OTHER))))) as first:
        until(lambda: hub._members and hub._members.silence(hub._members[OTHER]) > 4 * BEAT, "its silence")
        there = two.threads.submit(two.other.meet)
        with pytest.raises(grpc.RpcError) as told:
            list(first.streams[0])
        assert told.value.code() == grpc.StatusCode.CANCELLED
        met.set()
        assert there.result(DEADLINE).identity == waiting.result(DEADLINE).identity


def test_another_hosts_times_are_made_this_ones() -> None:
    """Of a machine that was booted a day later."""
    now = time.monotonic()
    status = roles.RoleStatus("worker.1", 1, "", roles.RUNNING, "", {roles.RUNNING: now - 86400 - 7})
    doing = activity.Activity("training epoch 3", now - 86400 - 5)
    report = taken_in(Report(status, doing, 0.0, False, ""), OTHER, now - 86400)
    assert report.status.host == OTHER and report.activity is not None
    assert report.status.time == pytest.approx(now - 7, abs=1) and report.activity.since == pytest.approx(
        now - 5, abs=1
    )
    with pytest.raises(DataError, match="has the time of its state. Received: none of 'worker.1' on elsewhere."):
        taken_in(Report(dataclasses.replace(status, times={}), None, 0.0, False, ""), OTHER, now)


def test_a_message_is_read_within_limits() -> None:
    word = Word(1.0, greeting(), logs={"worker.1": b"text"})
    assert decode(Word, encode(word), "a host") == word
    for wrong in (
        {"now": "soon"},
        {"now": -1e308},
        {"now": 1e308},
        {"now": 1.0, "reports": [{}]},
        {"now": 1.0, "leaving": "x" * 9000},
        7,
    ):
        with pytest.raises(DataError, match="of one version of fl_rec. Received: a Word of a host"):
            decode(Word, msgpack.packb(wrong), "a host")
    with pytest.raises(DataError, match=r"Received: 1 bytes of a host that are none \(FormatError\)\."):
        decode(Word, b"\xc1", "a host")


@pytest.mark.parametrize("nested", [False, True])
def test_a_message_of_nothing_but_values(nested: bool) -> None:
    """Of which each would take a thousand bytes and more, to be told that it is wrong."""
    values = LARGEST // 2
    array = msgpack.packb([[] for _ in range(64)]) if nested else b"\x01"
    number = min(values // len(array), 1 << 16) if nested else values
    data = b"\x82\xa3now\x01\xa7reports" + b"\xdd" + number.to_bytes(4, "big") + array * number
    tracemalloc.start()
    with pytest.raises(DataError, match=r"max_array_len\(131072\)|more than 131072 values"):
        decode(Word, data, "a host")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 25


def test_what_a_host_tells_steers_no_terminal() -> None:
    status = roles.RoleStatus("worker.1", 1, "", roles.FAILED, "first\n\tsecond\x1b[2J", {roles.FAILED: 1.0})
    report = Report(status, activity.Activity("training\x1b]0;x\x07", 1.0), 0.0, False, "gone\r\x9b2J")
    word = decode(Word, encode(Word(1.0, None, (report,), leaving="why\x00", logs={"worker.1": b"\x1b"})), "a host")
    (told,) = word.reports
    assert told.activity is not None
    assert (told.status.error, told.activity.what) == ("first\n\tsecond?[2J", "training?]0;x?")
    assert (told.error, word.leaving, word.logs) == ("gone??2J", "why?", {"worker.1": b"\x1b"})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("statuses", 0, "state"), "dancing", "statuses.0.state: Input should be 'starting', 'running', 'done' or "),
        (("statuses", 0, "times", "dancing"), 1.0, "statuses.0.times.dancing"),
        (("tokens", 0, 1), "../secret", "tokens.0.1"),
        (("begin", "identity"), "ab\nconfig.yaml", "begin.identity"),
        (("begin", "away"), "1:4\0", "begin.away"),
        (("begin", "away"), "everybody", "begin.away"),
        (("verdict", "state"), "fine", "verdict.state"),
    ],
)
def test_a_text_that_decides_something_is_one_of_few(path: Sequence[Any], value: Any, message: str) -> None:
    status = roles.RoleStatus("worker.1", 1, "", roles.RUNNING, "", {roles.RUNNING: 1.0})
    answer = Answer(1.0, Begin("ab", 3, "1:4,2:inf"), (status,), ((1, "cd"),), Verdict("done"))
    content = msgpack.unpackb(encode(answer))
    assert decode(Answer, msgpack.packb(content), "the hub") == answer
    *before, last = path
    reduce(getitem, before, content)[last] = value
    with pytest.raises(DataError, match=message):
        decode(Answer, msgpack.packb(content), "the hub")
