"""Jobs on several hosts: each in a network namespace, with an address, a run folder and shards of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_rec.coordinator.messages import JOIN
from fl_rec.coordinator.rounds import RoundLog
from fl_rec.job.watch import Mark, log_path
from fl_rec.runs import activity, private_parts, training_state
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory
from tests.documented import blocks

from . import held
from .conftest import ROOT, TIMEOUT, Commands, Finished, Job, Once, SharedJob, clean_environment, run_script
from .namespaces import Host, cut, heal, namespaces, run_in
from .test_resume import figures, together

TEN, HEARTBEAT = 10, 6


@pytest.fixture(scope="session")
def ten_shards(prepared: Path, once: Once) -> Path:
    split = ("datasets/movielens/gen_heter_data.py", "--data", prepared, "--num_shards", TEN)
    return once("ten shards", lambda folder: run_script(*split, "--out", folder))


@dataclass
class Place:
    """A host's part of a job.

    Attributes:
        host: the host.
        folder: what is on it: the configuration, its shards, its run.
        workers: the numbers of its workers.
    """

    host: Host
    folder: Path
    workers: list[int]

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.folder / "run")

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.run.result.read_text())

    def doing(self, role: str) -> str:
        found = activity.read(self.run.roles, role)
        return "" if found is None else found.what

    def start(self, *words: Any) -> subprocess.Popen[str]:
        env = {**clean_environment(), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "fl_rec.cli", *words, "--host", self.host.name, "--insecure"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        return run_in(self.host, command, cwd=self.folder, env=env, **pipes)


class Spread:
    """A job on several hosts.

    Args:
        folder: has a folder for each host.
        shards: of all workers; a host gets its own workers' and the manifest.
        servers, workers, coordinators: for each of them, the number of its host.
        change: is given the job's configuration.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        folder: Path,
        shards: Path,
        servers: Sequence[int],
        workers: Sequence[int],
        coordinators: Sequence[int] = (),
        change: Callable[[Job], Any] = lambda job: None,
    ) -> None:
        def addresses(numbers: Sequence[int], port: int) -> str:
            return ",".join(f"{hosts[number].name}:{port + place}" for place, number in enumerate(numbers))

        self.options = ["--servers", addresses(servers, 8900), "--workers", addresses(workers, 8800)]
        self.options += ["--coordinators", addresses(coordinators, 8700)] if coordinators else []
        self.places = []
        for number, host in enumerate(hosts):
            place = Place(host, folder / host.name, [k for k, each in enumerate(workers) if each == number])
            hand_out(shards, place.folder, place.workers)
            job = Job(place.folder, place.folder)
            change(job)
            assert job.yaml.is_file()
            self.places.append(place)

    def play(self, *words: Any) -> list[subprocess.Popen[str]]:
        """Starts the same command on each host."""
        return [place.start(*words) for place in self.places]

    def run(self, *options: str) -> list[subprocess.Popen[str]]:
        return self.play("run", "-m", "job.yaml", *self.options, *options)

    def resume(self, *options: str) -> list[subprocess.Popen[str]]:
        return self.play("resume", "run", *options)

    def wait(self, started: Sequence[subprocess.Popen[str]], timeout: float = TIMEOUT) -> list[tuple[int, str]]:
        """Exit codes and what was said, by host."""
        deadline, ended = time.monotonic() + timeout, []
        for each in started:
            try:
                said, _ = each.communicate(timeout=max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self.end(started)
                pytest.fail(f"{self.places[len(ended)].host.name} did not end within {timeout:g} s: {ended}")
            ended.append((each.returncode, said))
        for place in self.places:
            assert Mark(ENVIRONMENT_KEY, str(place.run.path)).processes() == [], f"{place.host.name} left some behind"
        return ended

    def end(self, started: Sequence[subprocess.Popen[str]]) -> None:
        for each in started:
            each.kill()
        for place in self.places:
            Mark(ENVIRONMENT_KEY, str(place.run.path)).end()


def hand_out(shards: Path, folder: Path, workers: Sequence[int]) -> None:
    """What of a job's data a host needs: the manifest, the names of items, and its own workers' shards."""
    manifest = json.loads((shards / "manifest.json").read_text())
    folder.mkdir(parents=True)
    for name in ("manifest.json", "items.csv", "users.csv"):
        shutil.copy(shards / name, folder)
    for worker in workers:
        for kind in ("train", "test"):
            file = manifest["shards"][worker][kind]["file"]
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy(shards / file, folder / file)


def until(started: Sequence[subprocess.Popen[str]], happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not happens():
        assert time.monotonic() < deadline and all(each.poll() is None for each in started), f"{what} did not come"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    with namespaces(3) as made:
        yield made


# -- ten workers, two servers, a coordinator -------------------------------------------------------------------


def ten(job: Job) -> None:
    together(job)
    job.runner.update(epochs=2)
    job.coordinator = {"strategy": "random_k", "options": {"k": 6}}


@pytest.fixture(scope="module")
def on_one_host(shared_job: SharedJob, ten_shards: Path) -> Finished:
    def change(job: Job) -> None:
        ten(job)
        job.runner.update(train_data_dir=f"{ten_shards}/fl_train_data", test_data_dir=f"{ten_shards}/fl_test_data")
        job.arguments = ["--server_num", 2, "--coordinator_num", 1]

    return shared_job("ten workers", change)


@pytest.fixture(scope="module")
def on_three(hosts: list[Host], tmp_path_factory: pytest.TempPathFactory, ten_shards: Path) -> Spread:
    """Ended well: workers on the first two hosts, a server each, the coordinator on the third, with no worker."""
    workers = [0, 1, 1, 0, 1, 0, 0, 1, 0, 0]
    spread = Spread(hosts, tmp_path_factory.mktemp("hosts"), ten_shards, [0, 1], workers, [2], ten)
    started = spread.run()
    try:
        for code, said in spread.wait(started):
            assert code == 0, said
    finally:
        spread.end(started)
    return spread


def test_the_figures_are_those_of_one_host(on_three: Spread, on_one_host: Finished) -> None:
    for place in on_three.places:
        assert figures(place.run) == (figures(on_one_host.run) if place.workers else []), place.host.name
        assert place.result["state"] == "done"
    for name in ("workers", "servers", "coordinators"):
        assert [each.result[name] for each in on_three.places] == [on_one_host.result[name]] * 3, name
    joined = [
        [each.clients(JOIN) for each in RoundLog(run.rounds)] for run in (on_three.places[2].run, on_one_host.run)
    ]
    assert joined[0] == joined[1] and len(joined[0]) == 3


def test_each_host_has_its_own_workers_parts_and_what_all_share(on_three: Spread, on_one_host: Finished) -> None:
    for place in on_three.places[:2]:
        model = place.run.path / place.result["model"]
        assert private_parts.clients(model) == place.workers
        shared = {path.name: path.read_bytes() for path in (model / "tables").iterdir()}
        assert shared == {path.name: path.read_bytes() for path in (on_one_host.model / "tables").iterdir()}
        parts = (place.run.checkpoint / "2" / "worker").iterdir()
        assert sorted(int(path.stem) for path in parts) == place.workers
    hosts_epochs = [training_state.whole(place.run) for place in on_three.places]
    assert hosts_epochs == [[1, 2], [1, 2], [1, 2]]


def test_the_first_workers_host_has_every_log(on_three: Spread) -> None:
    names = [*(f"worker.{worker}" for worker in range(TEN)), "server.0", "server.1", "coordinator.0"]
    hub, other, _ = on_three.places
    assert all(log_path(hub.run, name).stat().st_size for name in names)
    assert not log_path(other.run, "worker.0").exists()


def test_a_hosts_model_is_for_its_own_clients(on_three: Spread, commands: Commands) -> None:
    place, others = on_three.places[1], on_three.places[0].workers
    listed = ", ".join(map(str, others))
    said = commands.succeed("export", place.run.path)
    assert f"epoch 2, all clients but {listed} of other hosts" in said
    manifest = json.loads((place.folder / "manifest.json").read_text())
    shards = [manifest["shards"][worker] for worker in place.workers]
    # Users are in one shard each.
    assert f"ids       {sum(each['train']['users'] for each in shards):,} users, " in said
    found = json.loads(commands.succeed("evaluate", place.run.path, "--format", "json"))
    assert found["elsewhere"] == others
    assert found["test_users"] == sum(each["test"]["users"] for each in shards)
    last = {each["client"]: each for each in figures(place.run) if each["epoch"] == 2}
    hits = sum(last[worker]["hr"] * last[worker]["test_users"] for worker in place.workers)
    assert found["hr"] == pytest.approx(hits / found["test_users"])
    refused = commands.refusal("export", place.run.path, "--client", others[0], "--out", place.folder / "other")
    assert f"Received: --client {others[0]}, which trained on another host, as {listed} did. Export it" in refused


# -- a host that is cut off ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(shared_job: SharedJob) -> Finished:
    """As of test_resume.py."""
    return shared_job("unbroken", together)


def brief(job: Job) -> None:
    together(job)
    job.runner.update(heartbeat_timeout=HEARTBEAT)


@pytest.fixture
def three(hosts: list[Host], tmp_path: Path, shards: Path) -> Iterator[Spread]:
    """A worker on each of three hosts, servers on the first two; the first worker is on the second."""
    yield Spread(hosts, tmp_path, shards, [0, 1], [1, 0, 2], (), brief)
    for host in hosts:
        heal(host)


@pytest.mark.skipif(
    "FL_REC_EVERY_CUT" not in os.environ, reason="a minute: FL_REC_EVERY_CUT=1 cuts a host off each time"
)
@pytest.mark.parametrize("doing", ["training epoch 2", "saving epoch 2", "finishing"])
def test_a_host_that_is_cut_off_goes_on_when_it_is_back(three: Spread, unbroken: Finished, doing: str) -> None:
    last = three.places[2]
    for place in three.places:
        held.script(place.folder)
    file = held.hold(last.folder, doing)
    started = three.run("--script", held.NAME)
    try:
        until(started, lambda: last.doing("worker.2") == doing, doing)
        cut(last.host)
        file.unlink()
        ended = three.wait(started)
        assert [code for code, _ in ended] == [1, 1, 1], ended
        lost = r"worker\.2 failed: its host host-2 \(worker\.2\) has not been heard for (\d+) s"
        alone = r"worker\.2 failed: this host, host-2, is cut off: host-1, which judges .* been heard for (\d+) s"
        for (_, said), why in zip(ended, (lost, lost, alone)):
            found = re.search(why, said)
            assert found and int(found[1]) <= HEARTBEAT, said
        assert [place.result["state"] for place in three.places] == ["failed"] * 3
        heal(last.host)
        started = three.resume("--script", held.NAME)
        resumed = three.wait(started)
        assert [code for code, _ in resumed] == [0, 0, 0], resumed
    finally:
        three.end(started)
    for place in three.places:
        assert figures(place.run) == figures(unbroken.run)


# -- docs/two-machines.md --------------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "two-machines.md"


class Reader:
    """Who follows the page on two machines: commands as they stand there, in a shell on each.

    Args:
        folder: gets a folder for each machine, which is all that a shell there goes by.
    """

    def __init__(self, hosts: Sequence[Host], folder: Path) -> None:
        self._folder, self.hosts = folder, {host.name: host for host in hosts}
        commands = {"fl-rec": f'exec {sys.executable} -m fl_rec.cli "$@"', "scp": f'cp "$1" {folder}'}
        for name in self.hosts:
            (folder / name).mkdir()
        (folder / "bin").mkdir()
        for name, line in commands.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (folder / "bin" / name).chmod(0o755)

    def start(self, host: str, text: str) -> subprocess.Popen[str]:
        env = {**clean_environment(), "PYTHONPATH": str(ROOT), "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        return run_in(self.hosts[host], ["bash", "-ec", text], cwd=self._folder / host, env=env, **pipes)

    def play(self, *commands: tuple[str, str]) -> list[tuple[int, str]]:
        """Exit codes and what was said of commands on hosts, side by side."""
        return [said(each) for each in [self.start(*command) for command in commands]]

    def run(self, host: str) -> RunDirectory:
        return RunDirectory(self._folder / host / "run")


def said(started: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        text, _ = started.communicate(timeout=TIMEOUT)
    finally:
        started.kill()
    return started.returncode, text


def test_the_page_of_two_machines(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    prepare, unpack, north, south, use, resume = blocks(PAGE, "bash")
    (job,) = blocks(PAGE, "yaml")
    # Shorter, and told sooner.
    for as_written, here in (("epochs: 12", "epochs: 5"), ("batch_size: 32", "batch_size: 256"), ("out: 10", "out: 6")):
        assert as_written in job
        job = job.replace(as_written, here)
    with namespaces(2, "north", "south") as hosts:
        reader = Reader(hosts, tmp_path)
        for name, text in (("north", prepare), ("south", unpack)):
            assert reader.play((name, text))[0][0] == 0
            (tmp_path / name / "job.yaml").write_text(job)
        theirs = {path.name for path in (tmp_path / "south").rglob("*") if path.is_file()}
        parts = {"part-002.txt", "part-003.txt"}
        tables = {"manifest.json", "items.csv", "users.csv", "job.yaml"}
        assert theirs == {*parts, *tables, "ca.crt", "south.crt", "south.key"}

        started = [reader.start("north", north), reader.start("south", south)]
        until(started, lambda: 2 in training_state.epochs(reader.run("south")), "the second epoch")
        cut(reader.hosts["south"])
        (code, told), (there, told_there) = map(said, started)
        assert (code, there) == (1, 1), told + told_there
        assert "worker.2 failed: its host south (worker.2, worker.3) has not been heard for " in told
        assert "worker.2 failed: this host, south, is cut off: north, which judges the job, has not been" in told_there
        heal(reader.hosts["south"])
        for code, told in reader.play(("north", resume), ("south", resume)):
            assert code == 0 and re.search(r" resumed   after epoch [1-5]\n", told), told
        results = [reader.run(name).read_result() for name in ("north", "south")]
        assert [each.state for each in results] == ["done", "done"]
        assert results[0].epochs == results[1].epochs and len(results[0].epochs) == 5

        ((code, told),) = reader.play(("south", use))
        assert code == 0 and "all clients but 0, 1 of other hosts" in told, told
