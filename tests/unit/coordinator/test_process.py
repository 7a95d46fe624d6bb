"""The coordinator's process: how clients find it, when it ends, and how it is started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec import cli, environment
from fl_rec.config import Config
from fl_rec.coordinator import process
from fl_rec.coordinator.client import CoordinatorClient, CoordinatorLost
from fl_rec.coordinator.messages import ClientReport, Decision
from fl_rec.coordinator.process import (
    Address,
    awaited_token_of,
    coordinate,
    coordinate_again,
    hand_out,
    replay,
    token_of,
    tokens_of,
)
from fl_rec.coordinator.rounds import Round, RoundLog
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.runs import roles, training_state
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.result import Began, Data, Versions
from fl_rec.runs.training_state import TrainingState
from fl_rec.secure import INSECURE_KEY, is_insecure

DEADLINE = 30.0
WORKERS = 2
# A coordinator whose last answers are given half a second.
SCRIPT = """
import sys
from pathlib import Path
from fl_rec.config import Config
from fl_rec.coordinator import process
from fl_rec.runs.directory import RunDirectory
process.GRACE_SECONDS = 0.5
config, run = Config.load(sys.argv[1]), RunDirectory(Path(sys.argv[2]))
if len(sys.argv) > 3:
    process.coordinate(config, run, sys.argv[3], int(sys.argv[4]))
else:
    process.coordinate_again(config, run)
"""

Spawn = Callable[..., subprocess.Popen]
SetStatus = Callable[..., None]
MakeJob = Callable[..., Path]


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, f"{what} should have come within {DEADLINE:g} s"
        time.sleep(0.01)


class Job:
    """A run with fake workers, which only live, and a real coordinator."""

    def __init__(self, run: RunDirectory, spawn: Spawn, set_status: SetStatus, yaml: Path) -> None:
        self.run, self._spawn, self.yaml = run, spawn, yaml
        self.workers = [spawn("sleep", "600") for _ in range(WORKERS)]
        for number, worker in enumerate(self.workers):
            set_status(f"worker.{number}", roles.RUNNING, worker)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.endpoint = f"127.0.0.1:{probe.getsockname()[1]}"

    def start(self) -> subprocess.Popen:
        return self._spawn(
            *(sys.executable, "-c", SCRIPT, str(self.yaml), str(self.run.path), self.endpoint, str(WORKERS)),
            cwd=environment.CLONE,
        )

    def start_again(self) -> subprocess.Popen:
        return self._spawn(sys.executable, "-c", SCRIPT, str(self.yaml), str(self.run.path), cwd=environment.CLONE)

    def end_workers(self, count: int = WORKERS) -> None:
        for worker in self.workers[:count]:
            worker.kill()
            worker.wait(DEADLINE)

    def report(self, client: int, round: int, timeout: float = DEADLINE) -> Decision:
        peer = CoordinatorClient(self.endpoint, lambda: token_of(self.run, client), 1 << 20, DEADLINE)
        try:
            return peer.report(ClientReport(client, round), timeout)
        finally:
            peer.close()

    def play(self, round: int) -> list[str]:
        with ThreadPoolExecutor(WORKERS) as pool:
            told = pool.map(lambda client: self.report(client, round), range(WORKERS), timeout=DEADLINE)
            return [each.next_state for each in told]


@pytest.fixture
def job(run: RunDirectory, spawn: Spawn, set_status: SetStatus, make_job: MakeJob) -> Callable[..., Job]:
    """`job(strategy=, ...)`: keys of `coordinator`."""

    def job(**settings: Any) -> Job:
        yaml = make_job()
        content = json.loads(yaml.read_text())
        content["coordinator"] = settings
        content["runner"]["epochs"] = 3
        yaml.write_text(json.dumps(content))
        return Job(run, spawn, set_status, yaml)

    return job


def output_of(ended: subprocess.Popen, code: int) -> str:
    text = str(ended.communicate(timeout=DEADLINE)[0].decode())
    assert ended.returncode == code, text
    return text


# -- the address -------------------------------------------------------------------------------------------


def test_a_token_that_comes_from_another_host_is_awaited(run: RunDirectory) -> None:
    assert awaited_token_of(run, 3, 0.0) == ""
    comes = threading.Timer(0.2, hand_out, (run, {3: "of three"}))
    comes.start()
    assert awaited_token_of(run, 3, DEADLINE) == "of three"
    comes.join()


def test_address_is_for_this_user_only(run: RunDirectory) -> None:
    assert Address.read(run) is None and token_of(run, 0) == ""
    address = Address("127.0.0.1:1234", 3, "secret")
    before = os.umask(0)
    try:
        address.write(run)
    finally:
        os.umask(before)
    path = run.path / "coordinator" / "address.json"
    assert Address.path(run) == path
    assert path.stat().st_mode & 0o777 == 0o600
    assert Address.read(run) == address
    assert [each.name for each in run.coordinator.iterdir()] == ["address.json"]


def test_address_is_replaced_whole(run: RunDirectory) -> None:
    Address("a:1", 3, "first").write(run)
    # What a writer left that was killed; it may be readable by anyone.
    draft = run.coordinator / f".address.json.{os.getpid()}.tmp"
    draft.write_text("half")
    draft.chmod(0o644)
    Address("b:2", 3, "second").write(run)
    assert Address.read(run) == Address("b:2", 3, "second")
    assert Address.path(run).stat().st_mode & 0o777 == 0o600
    assert not draft.exists()


def test_each_client_has_a_token_of_its_own(run: RunDirectory) -> None:
    assert tokens_of(run, range(3)) == {}
    Address("a:1", 3, "secret").write(run)
    tokens = tokens_of(run, range(3))
    assert len(set(tokens.values())) == 3 and {len(each) for each in tokens.values()} == {64}
    hand_out(run, {1: tokens[1]})
    assert [token_of(run, client) for client in range(3)] == ["", tokens[1], ""]
    assert (run.coordinator / "tokens" / "1").stat().st_mode & 0o777 == 0o600
    Address("a:1", 3, "another").write(run)
    assert not set(tokens.values()) & set(tokens_of(run, range(3)).values())


def test_where_others_come_to_it_needs_tls(
    run: RunDirectory, load_job: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INSECURE_KEY, "")  # which brings back what was, whatever the command sets
    config = load_job()
    with pytest.raises(ConfigError, match=r"^The coordinator needs TLS where .* Received: 0\.0\.0\.0:1, and no tls"):
        coordinate(config, run, "0.0.0.0:1", WORKERS)
    lost = tmp_path / "no.crt"
    with pytest.raises(ConfigError, match=f"^tls.cert must be a file. Received: {lost}. fl-rec certs DIR makes them"):
        coordinate(config.replace(tls={"cert": lost, "key": lost, "ca": lost}), run, "127.0.0.1:1", WORKERS)
    # Said so, it is tried.
    asked: list[bool] = []
    monkeypatch.setattr(process, "coordinate_again", lambda *_: asked.append(is_insecure()))
    run.metrics.touch()
    config.dump(run.config)
    for flag in ([], ["--insecure"]):
        assert cli.main(["coordinator", str(run.path), *flag]) == 0
    assert asked == [False, True]


# -- the process -------------------------------------------------------------------------------------------


def test_it_ends_when_its_workers_have_ended(job: Callable[..., Job]) -> None:
    played = job(strategy="random_k", options={"k": 1})
    started = played.start()
    for round in range(3):
        assert sorted(played.play(round)) == ["JOIN", "WAIT"]
    assert played.play(3) == ["FINISH", "FINISH"]
    played.end_workers(1)
    time.sleep(2 * process.POLL_SECONDS)
    assert started.poll() is None, "one worker lives"
    played.end_workers()
    output = output_of(started, 0)
    assert "round 0, for epoch 1 of 3, random_k: 1 JOIN, 1 WAIT, 0 FINISH\n" in output
    assert "round 3, after 3 epochs, random_k: 2 FINISH; that was the last epoch\n" in output
    assert output.strip() == played.run.tables.read_text().strip().replace("\n\n", "\n")
    assert [each.round for each in RoundLog(played.run.rounds)] == [0, 1, 2, 3]
    status = roles.read_statuses(played.run.roles)["coordinator.0"]
    assert (status.state, status.pid) == (roles.RUNNING, started.pid)


def test_no_more_statuses_are_read_than_need_be(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    played, read, looked = job(), roles.read_status, []
    monkeypatch.setattr(roles, "read_status", lambda folder, role: looked.append(role) or read(folder, role))
    for ended, alone in ((0, ["worker.0"]), (1, ["worker.0", "worker.1"]), (2, ["worker.0", "worker.1"])):
        played.end_workers(ended)
        looked.clear()
        assert process._workers_ended(played.run, 2) is (ended == 2)
        assert looked == alone


def test_it_waits_for_workers_that_have_not_come_up(job: Callable[..., Job]) -> None:
    played = job()
    played.end_workers()
    (played.run.roles / "worker.1.json").unlink()
    started = played.start()
    assert played.play(0) == ["JOIN", "JOIN"]
    time.sleep(2 * process.POLL_SECONDS)
    assert started.poll() is None
    started.terminate()
    output_of(started, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told_to(job: Callable[..., Job], number: signal.Signals) -> None:
    played = job()
    started = played.start()
    assert played.play(0) == ["JOIN", "JOIN"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(played.report, 0, 1, 0)
        time.sleep(0.3)
        started.send_signal(number)
        with pytest.raises(CoordinatorLost):
            waiting.result(DEADLINE)
    output_of(started, 0)


HANGS = """
import time
from fl_rec.coordinator import Strategy

class Hangs(Strategy):
    def decide(self, reports, round):
        time.sleep(600)
"""


@pytest.mark.parametrize("told", [True, False])
def test_strategy_that_hangs_does_not_keep_it(job: Callable[..., Job], told: bool) -> None:
    played = job(strategy="hangs.py:Hangs", round_timeout=DEADLINE if told else 0.5)
    (played.yaml.parent / "hangs.py").write_text(HANGS)
    started = played.start()
    wait_until("the coordinator", lambda: "coordinator.0" in roles.read_statuses(played.run.roles))
    error = CoordinatorLost if told else RunError
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting = [pool.submit(played.report, client, 0, 1) for client in range(WORKERS)]
        if told:
            time.sleep(0.5)
            started.terminate()
        texts = []
        for each in waiting:
            with pytest.raises(error) as caught:
                each.result(DEADLINE)
            texts.append(str(caught.value))
    reason = "the strategy Hangs must decide within coordinator.round_timeout=0.5 s, and did not in round 0."
    output = output_of(started, 0 if told else 1)
    assert told or (all(reason in text for text in texts) and f"RunError: {reason}" in output)


FAILS = """
from fl_rec.coordinator import Strategy

class Fails(Strategy):
    def decide(self, reports, round):
        raise ValueError("no idea")
"""


def test_strategy_that_fails_ends_it(job: Callable[..., Job]) -> None:
    played = job(strategy="fails.py:Fails")
    (played.yaml.parent / "fails.py").write_text(FAILS)
    started = played.start()
    with pytest.raises(RunError, match=r"\(ABORTED\): the strategy Fails failed in round 0: ValueError: no idea"):
        played.play(0)
    assert "RunError: the strategy Fails failed in round 0: ValueError: no idea" in output_of(started, 1)


def test_port_that_is_taken(job: Callable[..., Job]) -> None:
    played = job()
    with socket.create_server(("127.0.0.1", 0)) as other:
        played.endpoint = f"127.0.0.1:{other.getsockname()[1]}"
        assert f"must be able to listen on its port. Received: {played.endpoint}" in output_of(played.start(), 1)


def test_strategy_that_can_not_be_made(job: Callable[..., Job]) -> None:
    played = job(strategy="random_k", options={"kk": 1})
    assert "ConfigError: coordinator.options: kk: unknown key. Did you mean k?" in output_of(played.start(), 1)


# -- started again -----------------------------------------------------------------------------------------


def test_killed_and_started_again(job: Callable[..., Job]) -> None:
    played = job(strategy="random_k", options={"k": 1})
    first = played.start()
    told = played.play(0)
    address = Address.read(played.run)
    assert address is not None
    assert (address.endpoint, address.workers, len(address.token)) == (played.endpoint, WORKERS, 32)
    # As on a host without workers, whose checkpoints the coordinator writes.
    hosts = Hosts(("a:1",), tuple(f"a:{2 + worker}" for worker in range(WORKERS)), ("b:1",), "b")
    began = Began("", 1.0, "", Versions("", None, ""), Data("data", "of the data"))
    Launch(WORKERS, 1, 1, "", began, hosts).write(played.run)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(played.report, 0, 1)
        time.sleep(0.2)
        first.kill()
        first.wait(DEADLINE)
        again = played.start_again()
        assert played.report(1, 1).next_state != waiting.result(DEADLINE).next_state
    assert Address.read(played.run) == address, "clients know its token"
    (kept,) = training_state.whole(played.run)
    assert kept == 2 and TrainingState.read(played.run, kept).content["identity"]["data"] == "of the data"
    assert [each.round for each in RoundLog(played.run.rounds)] == [0, 1]
    (before, _) = RoundLog(played.run.rounds)
    assert [before.decisions[client].next_state for client in range(WORKERS)] == told
    with pytest.raises(RunError) as caught:
        coordinate_again(Config.load(played.yaml), played.run)
    assert str(caught.value) == (
        f"A run has one coordinator. Received: {played.run.path}, whose own lives (process {again.pid})."
    )
    played.end_workers()
    output_of(again, 0)
    with pytest.raises(RunError) as caught:
        coordinate_again(Config.load(played.yaml), played.run)
    assert str(caught.value) == (
        f"A coordinator is started again while its workers live. Received: {played.run.path}, which is over."
    )


DRAWS = """
import numpy as np
from fl_rec.coordinator import Decision, Strategy

class Draws(Strategy):
    def decide(self, reports, round):
        logits = np.random.default_rng().normal(size=(3000, 100)).astype(np.float32)
        return {client: Decision(extra={"logits": logits}) for client in self.fleet}
"""


def test_killed_and_started_again_it_tells_the_same_arrays(job: Callable[..., Job]) -> None:
    played = job(strategy="draws.py:Draws")
    (played.yaml.parent / "draws.py").write_text(DRAWS)
    content = json.loads(played.yaml.read_text())
    content["runner"]["compress_report"] = "int8"
    played.yaml.write_text(json.dumps(content))
    first = played.start()
    with ThreadPoolExecutor(WORKERS) as pool:
        told = list(pool.map(lambda client: played.report(client, 0), range(WORKERS), timeout=DEADLINE))
    first.kill()
    first.wait(DEADLINE)
    again = played.start_again()
    for client in range(WORKERS):
        logits = played.report(client, 0).extra["logits"]
        np.testing.assert_array_equal(logits, told[client].extra["logits"])
        np.testing.assert_array_equal(logits, told[0].extra["logits"])
    played.end_workers()
    output_of(again, 0)
    (done,) = RoundLog(played.run.rounds)
    exact = done.decisions[0].extra["logits"]
    assert 0 < np.abs(exact - told[0].extra["logits"]).max() < 0.05, "the record is not compressed"
    (path,) = (played.run.path / "coordinator" / "arrays").iterdir()
    assert exact.nbytes < path.stat().st_size < exact.nbytes + 1000
    assert 300_000 < done.decision_bytes[0] < 315_000
    assert " KiB up and " in played.run.tables.read_text()


def test_run_without_a_coordinator(run: RunDirectory, load_job: Callable[..., Config]) -> None:
    with pytest.raises(RunError) as caught:
        coordinate_again(load_job(), run)
    assert str(caught.value) == (
        f"A coordinator is started again in a run that had one. Received: {run.path}, which had none."
    )
    assert not run.coordinator.exists()


# -- replayed ----------------------------------------------------------------------------------------------


def replayed(config: Config, run: RunDirectory) -> list[str]:
    said: list[str] = []
    replay(config, run, said.append)
    return said


def fake_round(number: int, clients: Mapping[int, int]) -> Round:
    """`clients`: number -> rows that it trained."""
    reports = {
        client: ClientReport(client, number, shard_rows=100, rows=rows, seconds=rows / 100, train_loss=0.5)
        for client, rows in clients.items()
    }
    return Round(number, "join_all", reports, {client: Decision() for client in reports})


def test_replay(run: RunDirectory, load_job: Callable[..., Config]) -> None:
    log = RoundLog(run.rounds)
    log.append(fake_round(0, {0: 0, 1: 0, 2: 0}))
    log.append(fake_round(1, {0: 100, 2: 100}))
    log.append(fake_round(2, {0: 100, 1: 100, 2: 100}))
    config = load_job("coordinator.strategy=random_k", "coordinator.options.k=2")
    said = replayed(config, run)
    assert [text.split("\n")[0] for text in said] == [
        "round 0, for epoch 1 of 2, random_k: 2 JOIN, 1 WAIT, 0 FINISH",
        "round 1, for epoch 2 of 2, random_k: 2 JOIN, 1 WAIT, 0 FINISH",
        "round 2, after 2 epochs, random_k: 3 FINISH; that was the last epoch",
    ]
    assert "      1  WAIT       -       -  no report in time\n" in said[1]
    assert replayed(config, run) == said
    assert len(list(log)) == 3, "nothing is written"


@pytest.mark.parametrize("strategy", ["join_all", "random_k", "resource_aware", "utility"])
def test_replay_of_a_run_that_was_without_a_coordinator_for_a_while(
    run: RunDirectory, load_job: Callable[..., Config], strategy: str
) -> None:
    log = RoundLog(run.rounds)
    log.append(fake_round(0, {0: 0, 1: 0}))
    log.append(fake_round(3, {0: 100, 1: 100}))
    titles = [text.split("\n")[0] for text in replayed(load_job(f"coordinator.strategy={strategy}"), run)]
    assert titles[1:] == [
        f"round 1, for epoch 2 of 3, {strategy}: 0 JOIN, 2 WAIT, 0 FINISH; nobody trains; no report in time",
        f"round 2, for epoch 3 of 3, {strategy}: 0 JOIN, 2 WAIT, 0 FINISH; nobody trains; no report in time",
        f"round 3, after 3 epochs, {strategy}: 2 FINISH; that was the last epoch",
    ]


def test_replay_of_nothing(run: RunDirectory, load_job: Callable[..., Config]) -> None:
    with pytest.raises(DataError, match="A recorded run has figures of at least one epoch"):
        replayed(load_job(), run)


def test_replay_with_a_strategy_that_fails(run: RunDirectory, make_job: MakeJob) -> None:
    RoundLog(run.rounds).append(fake_round(0, {0: 0}))
    yaml = make_job()
    (yaml.parent / "fails.py").write_text(FAILS)
    with pytest.raises(RunError, match=r"^the strategy Fails failed in round 0: ValueError: no idea \(.*, line \d+\)$"):
        replayed(Config.load(yaml, ["coordinator.strategy=fails.py:Fails"]), run)
    with pytest.raises(ConfigError, match="coordinator.strategy must be one of join_all, "):
        replayed(Config.load(yaml, ["coordinator.strategy=joinall2"]), run)
