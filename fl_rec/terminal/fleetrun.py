"""A job that a bare fleetrun has started: watched, and shown on fleetrun's terminal. No Paddle is imported here."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import psutil

from fl_rec import environment
from fl_rec.config import Config
from fl_rec.data.manifest import MANIFEST_NAME, load_manifest
from fl_rec.files import sha256_of
from fl_rec.job import exposed
from fl_rec.job.check import check_job
from fl_rec.job.hosts import addresses, linked
from fl_rec.job.hosts.company import Alone, NotMet, hello
from fl_rec.job.hosts.messages import Hello
from fl_rec.job.judge import STARTER, Failure, Patience
from fl_rec.job.observers import Observer, Observers, RoleView, Started
from fl_rec.job.tails import Tails
from fl_rec.job.tracking import trackers_of
from fl_rec.job.watch import FLEETRUN_MARK, GRACE_SECONDS, Mark, log_path, watch_with
from fl_rec.outside import as_typed
from fl_rec.runs import roles
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.roles import Role
from fl_rec.secure import Tls
from fl_rec.terminal.plain import Plain
from fl_rec.terminal.words import place

# In which fleetrun ends by a signal that it heeds.
_SECONDS = 1.0


def start_watch(run: RunDirectory, role: Role, fleetrun: psutil.Process, config: Config) -> None:
    """Has a job that was started by a bare fleetrun watched by a process of its own."""
    expected = roles.role_names(role.num_workers, len(role.server_endpoints), role.num_coordinators)
    link = None
    if (hosts := Hosts.from_environment()) is not None:
        manifest = load_manifest(config.runner.train_data_dir)
        data = sha256_of(manifest.folder / MANIFEST_NAME) if manifest else ""
        link = _Linked(hosts, Tls.of(config.tls, hosts.here), hello(hosts, config, data, run, False))
        addresses.require_safe_link(hosts, config, False)
        expected = hosts.roles_of(hosts.here)
    command = [
        sys.executable,
        "-m",
        "fl_rec.terminal.fleetrun",
        str(run.path),
        str(fleetrun.pid),
        json.dumps(dataclasses.asdict(Patience.of(config))),
        json.dumps(config.changed()),
        *expected,
    ]
    if link is not None:
        command.append(f"--linked={json.dumps(dataclasses.asdict(link), default=str)}")
    log = open(run.log / "watch", "wb")  # noqa: SIM115 - the child keeps it
    paths = os.pathsep.join(filter(None, [str(environment.PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    log.close()
    with _terminal_of(fleetrun) as terminal:  # the watch takes a second to come up
        Plain(terminal).lines([("starting", place(run.path))])


def watch_by_hand(arguments: Sequence[str]) -> int:
    """The process that `start_watch` starts: on a failure it ends the job, and with it fleetrun."""
    parser = argparse.ArgumentParser(description=watch_by_hand.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("fleetrun", type=int)
    parser.add_argument("patience", type=lambda text: Patience(**json.loads(text)))
    parser.add_argument("changed", type=json.loads)
    parser.add_argument("expected", nargs="+")
    parser.add_argument("--linked", type=json.loads)
    options = parser.parse_args(arguments)
    run = RunDirectory(options.run)
    fleetrun = psutil.Process(options.fleetrun)
    mark = Mark(FLEETRUN_MARK, os.environ[FLEETRUN_MARK])
    told = _Told(run, options.changed, Plain(_terminal_of(fleetrun)))
    company: Alone = Alone(run, options.expected, options.patience, None)
    number: Callable[[str], str] = str
    if options.linked is not None:
        link = as_typed(_Linked, options.linked, "A watch is told of the other hosts by a role.", "arguments")
        number = link.hosts.number_here
        company = linked(link.hosts, lambda _resumed: link.hello, False, link.tls, run, options.patience, None)
    log_of = {name: _stdout_of(fleetrun, number(name), run) for name in options.expected}
    log_of[STARTER] = run.log / "watch"
    try:
        company.meet(None, told.note)
        failure = watch_with(company.judge(fleetrun, lambda role: log_of.get(role, log_of[STARTER])), run, told.look)
    except NotMet as err:
        failure = err.failure
    except BaseException as err:
        company.leave(f"its watch has failed: {err!r}")
        raise
    company.tell(failure)
    if failure is None:
        told.end(None)
        with suppress(psutil.TimeoutExpired):
            fleetrun.wait(GRACE_SECONDS)
        mark.end()
        company.part()
        return 0
    print(f"fl_rec: {failure}", flush=True)
    company.write(failure)
    told.end(failure)
    _end(fleetrun)
    mark.end()
    company.part()
    if company.is_new:
        run.give_back()
    return 1


def end_unwatched(why: str) -> None:
    """Ends the fleetrun that has started this role, whose job nobody watches yet, and says why on its terminal: once,
    though each role finds the same mistake."""
    fleetrun, mark = psutil.Process(os.getppid()), Path(os.environ.get(FLEETRUN_MARK, ""))
    with suppress(FileExistsError, psutil.NoSuchProcess):
        if sys.argv[0] not in fleetrun.cmdline():  # it has ended, and this role is somebody else's child now
            return
        if mark.is_dir():
            (mark / "told").mkdir()
        with _terminal_of(fleetrun, 2) as terminal:
            print(f"fl_rec: error: {why}", file=terminal)
        _end(fleetrun)


def _end(fleetrun: psutil.Process) -> None:
    """Left to itself it would wait for its workers, and exit with 0. On SIGTERM Paddle writes a stack trace of its own
    to the terminal; under nohup, or as a container's first process, it does not heed SIGHUP."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        until = time.monotonic() + _SECONDS
        with suppress(psutil.NoSuchProcess):
            fleetrun.send_signal(number)
        while time.monotonic() < until and not roles.has_ended(fleetrun):
            time.sleep(0.02)


@dataclass(frozen=True)
class _Linked:
    """What a watch needs to link to the other hosts'."""

    hosts: Hosts
    tls: Tls | None
    hello: Hello


class _Told:
    """Tells an observer and the trackers of a job that this process has not started, as soon as a worker has checked
    it. What goes wrong with that is in the watch's log: a job must be watched whether or not it can be shown."""

    def __init__(self, run: RunDirectory, changed: Mapping[str, Any], observer: Observer) -> None:
        self._run, self._changed, self._observer = run, changed, observer
        self._tails: Tails | None = None
        self._broken = False

    def look(self, views: Mapping[str, RoleView]) -> None:
        """At every look of the watch."""
        self._try(partial(self._look, views))

    def note(self, text: str) -> None:
        """While hosts are waited for."""
        self._try(partial(self._observer.note, text))

    def end(self, failure: Failure | None) -> None:
        """When nobody writes any more."""
        self._try(partial(self._end, failure))

    def _try(self, tell: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            tell()
        except Exception:
            traceback.print_exc()
            self._broken = True

    def _look(self, views: Mapping[str, RoleView], over: bool = False) -> None:
        if self._tails is None:
            if not self._run.config.is_file():
                return
            begun = Launch.read(self._run)
            own = begun.hosts.workers_of() if begun.hosts else None
            job = check_job(Config.load(self._run.config), begun.workers, begun.coordinators, own)
            self._observer = Observers([self._observer, *trackers_of(job.config)])
            notes = exposed.notes_of(*map(os.environ.get, ("PADDLE_PSERVERS_IP_PORT_LIST", "PADDLE_TRAINER_ENDPOINTS")))
            self._observer.starting(Started.of(job, begun, self._run, self._changed, notes))
            self._tails = Tails(self._run, begun.workers, self._observer, from_start=True)
        self._tails.look(over)
        self._observer.poll(views)

    def _end(self, failure: Failure | None) -> None:
        self._look({}, over=True)
        if failure is not None:
            self._observer.note(str(failure))
        if self._tails is not None:
            self._observer.ended(self._run.read_result())


def _terminal_of(fleetrun: psutil.Process, stream: int = 1) -> TextIO:
    """Where fleetrun writes; roles write to their logs."""
    try:
        return open(f"/proc/{fleetrun.pid}/fd/{stream}", "a", encoding="utf-8")
    except OSError:
        return open(os.devnull, "w", encoding="utf-8")


def _stdout_of(fleetrun: psutil.Process, role: str, run: RunDirectory) -> Path:
    """The log of a role under a bare fleetrun: in its --log_dir, `log` where it was started unless given."""
    arguments = fleetrun.cmdline()
    folder = "log"
    for index, word in enumerate(arguments):
        if word == "--log_dir" and index + 1 < len(arguments):
            folder = arguments[index + 1]
        elif word.startswith("--log_dir="):
            folder = word.split("=", 1)[1]
    return Path(fleetrun.cwd()) / folder / log_path(run, role).name


if __name__ == "__main__":
    sys.exit(watch_by_hand(sys.argv[1:]))
