"""Starting a job, watching it, judging it, and ending every process of it. No Paddle is imported here.

fleetrun does not judge: in PS mode it exits with 0 when every worker has crashed, waits for workers only, and leaves
behind what its roles have forked. So the launcher goes by what each role wrote of itself (`fl_rec.roles`), and finds
the job's processes by an environment variable that all of them have inherited, and no other process has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

import psutil

from fl_rec import environment, roles
from fl_rec.cli import count
from fl_rec.config import PROJECT, Config, add_config_arguments
from fl_rec.errors import ConfigError, RunError
from fl_rec.history import ENVIRONMENT_KEY, RunDirectory, default_path
from fl_rec.preflight import check_job, list_shards
from fl_rec.roles import RoleStatus

TOOLS = PROJECT / "tools"
# Without a coordinator, and with one.
DEFAULT_SCRIPTS = (TOOLS / "static_fl_trainer.py", TOOLS / "static_fl_trainer_with_coordinator.py")
POLL_SECONDS = 0.2
# How long a process may take to end when asked, and then when killed.
GRACE_SECONDS, KILL_SECONDS = 5.0, 10.0
# With less than this a log may have been cut off, and a status not been written.
FULL_DISK_BYTES = 32 * 1024
# fleetrun sets this for every role, to a fresh folder's path.
FLEETRUN_MARK = "PADDLE_GLOO_FS_PATH"
# "ValueError: ..." where a line begins, and neither `raise ValueError(...)` nor Paddle's "Error Message Summary:".
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception)\b(:|$)|terminate called|Check failed|\berror:|^Killed|^Aborted")


@dataclass(frozen=True)
class Mark:
    """The environment variable by which a job's processes are known."""

    name: str
    value: str

    def processes(self) -> list[psutil.Process]:
        """Every live process of the job but this one."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.pid != os.getpid() and process.environ().get(self.name) == self.value
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def end(self) -> None:
        """Ends every process of the job: politely, and after `GRACE_SECONDS` for good."""
        politely = time.monotonic() + GRACE_SECONDS
        # Again and again, since a process may be starting another one, or be unreadable while it starts a program.
        while True:
            alive = self.processes()
            if not alive or time.monotonic() > politely + KILL_SECONDS:
                return
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.terminate() if time.monotonic() < politely else process.kill()
            psutil.wait_procs(alive, timeout=max(0.2, politely - time.monotonic()))


@dataclass(frozen=True)
class Failure:
    """Who failed first, and why."""

    role: str
    reason: str
    log: Path

    def __str__(self) -> str:
        return f"{self.role} failed: {self.reason}\n  its log: {self.log}"


def log_path(run: RunDirectory, role: str) -> Path:
    """The log that fleetrun keeps of a role."""
    kind, index = role.split(".")
    name = "coordinator." if kind == "coordinator" else f"{kind}log."
    return run.log / f"{name}{index}"


def watch(
    run: RunDirectory,
    expected: Sequence[str],
    leader: psutil.Process,
    start_timeout: float,
    logs: Callable[[str], Path],
    on_poll: Callable[[], None] = lambda: None,
) -> Failure | None:
    """Waits until a job is over, or has failed.

    Args:
        run: where the roles write their statuses.
        expected: the names of all roles.
        leader: fleetrun's process.
        start_timeout: seconds by which every role must be running.
        logs: the log of a role.
        on_poll: called at each look, to show progress.

    Returns:
        who failed first, or None if every worker is done. Processes may still be alive.
    """
    start_deadline = time.monotonic() + start_timeout
    workers = [name for name in expected if name.startswith("worker")]
    lost: set[str] = set()
    while True:
        # Who has ended is looked for first: a role writes that it is done, and then ends.
        over = roles.has_ended(leader)
        ended = {name for name, status in roles.read_statuses(run.roles).items() if status.process() is None}
        statuses = roles.read_statuses(run.roles)
        on_poll()
        failure = _first_failure(statuses, ended, logs)
        if failure is not None:
            return failure
        done = [name for name in workers if name in statuses and statuses[name].state == roles.DONE]
        missing = [name for name in expected if name not in statuses]
        gone = {name for name in ended if not done and not _is_needed(statuses[name])}
        notes = [
            f"note: {name} is gone. Workers try to reach it for coordinator.coordinator_timeout; until then this "
            f"starts it again: fl-rec coordinator {run.path}"
            for name in gone - lost
        ]
        notes += [f"note: {name} is back." for name in lost - gone if not done]
        lost = gone
        with suppress(OSError):  # a full disk must not end the watch
            for note in notes:
                run.append_table(note)
        if len(done) == len(workers):
            if not missing:
                return None
            return Failure(missing[0], f"it never started. {_first_error(logs(missing[0]))}", logs(missing[0]))
        late = [name for name in expected if name not in statuses or statuses[name].state == roles.STARTING]
        if over:
            name = (late or [name for name in workers if name not in done])[0]
            return Failure(name, f"it never came to its end. {_first_error(logs(name))}", logs(name))
        if late and time.monotonic() > start_deadline:
            reason = f"not running {start_timeout:g} s after the start (runner.start_timeout), as {', '.join(late)}."
            reason += " Raise it if this machine is busy."
            return Failure(late[0], f"{reason} {_first_error(logs(late[0]))}", logs(late[0]))
        time.sleep(POLL_SECONDS)


def _first_failure(statuses: Mapping[str, RoleStatus], ended: set[str], logs: Callable[[str], Path]) -> Failure | None:
    # fleetrun stops the servers when all workers have ended, well or not, and leaves them no time for a last word.
    working = any(
        name.startswith("worker") and name not in ended and each.state in (roles.STARTING, roles.RUNNING)
        for name, each in statuses.items()
    )
    lost = [
        name
        for name in ended
        if statuses[name].state in (roles.STARTING, roles.RUNNING)
        and (name.startswith("worker") or (working and _is_needed(statuses[name])))
    ]
    if lost:
        # A role that vanished is the cause and others' complaints the effect; a server's end is felt by all workers.
        role = min(lost, key=lambda name: (not name.startswith("server"), name))
        reason = f"it ended without a word: killed, or crashed in native code. {_first_error(logs(role))}"
        return Failure(role, reason, logs(role))
    failed = [each for each in statuses.values() if each.state == roles.FAILED]
    if failed:
        first = min(failed, key=lambda each: each.time)
        return Failure(first.role, first.error, logs(first.role))
    return None


def _is_needed(status: RoleStatus) -> bool:
    # What happens when a running coordinator is lost, the workers decide, as they are configured to.
    return not (status.role.startswith("coordinator") and status.state == roles.RUNNING)


def _first_error(path: Path) -> str:
    """The first line of a log that looks like an error, or else its last one."""
    try:
        lines = [
            line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError:
        return "It left no log."
    if shutil.disk_usage(path.parent).free < FULL_DISK_BYTES:
        return f"No space left on device, which holds {path.parent}: free some, or name another runner.run_dir."
    if not lines:
        return "Its log is empty."
    # A reader's broken pipe is what a worker's end does to it, never the cause.
    found = next((line for line in lines if _ERROR_LINE.search(line) and "Broken pipe" not in line), None)
    return f"First error in its log: {found}" if found else f"Last line of its log: {lines[-1]}"


@dataclass(frozen=True)
class LaunchOptions:
    """What to start.

    Attributes:
        config_yaml, overrides: as for every tool, `-m` and `-o`.
        worker_num: None for as many as there are shards.
        server_num, coordinator_num: how many of each.
        servers: "host:port,..." for the servers; None lets the system choose.
        script: the training script; None for the one that fits `coordinator_num`.
    """

    config_yaml: Path
    overrides: tuple[str, ...] = ()
    worker_num: int | None = None
    server_num: int = 1
    coordinator_num: int = 0
    servers: str | None = None
    script: Path | None = None

    @property
    def training_script(self) -> Path:
        return self.script or DEFAULT_SCRIPTS[self.coordinator_num]


def launch(options: LaunchOptions, say: Callable[[str], None] = print) -> int:
    """Runs a job from start to end.

    Returns:
        0 if every role did its part, 1 otherwise; 128 + the signal if one ended the launcher.

    Raises:
        FLRecError: something is wrong that shows before any process is started.
    """
    environment.check()
    config = Config.load(options.config_yaml, options.overrides)
    workers = options.worker_num or len(list_shards(config.runner.train_data_dir, "train_data_dir"))
    job = check_job(config, workers, options.coordinator_num)
    _check_options(options)
    this = psutil.Process()
    run, _ = RunDirectory.claim(
        config.runner.run_dir or default_path(config.yaml_path, this), f"{this.pid} {this.create_time()}"
    )
    job.config.dump(run.config)
    say(job.config.describe())
    for note in job.notes:
        say(f"note: {note}")
    rows = [count for count in job.train_rows if count is not None]
    say(f"\ndata      {workers} shards" + (f", {sum(rows):,} training rows" if len(rows) == workers else ""))
    say(f"roles     {options.server_num} server(s), {workers} worker(s), {options.coordinator_num} coordinator(s)")
    say(f"run       {run.path}\nlogs      {run.log}\n")

    mark = Mark(ENVIRONMENT_KEY, str(run.path))
    expected = roles.role_names(workers, options.server_num, options.coordinator_num)
    show = _TableTail(run, say)
    with tempfile.TemporaryDirectory(prefix="fl_rec_") as scratch, open(
        run.log / "fleetrun", "wb"
    ) as fleetrun_log, _signals_as_exceptions() as ignore_signals:
        try:
            process = subprocess.Popen(
                _fleetrun_command(options, workers, run),
                # Gloo's store and fleetrun leave temporary files behind when they are ended.
                env={**os.environ, mark.name: mark.value, "TMPDIR": scratch},
                stdin=subprocess.DEVNULL,
                stdout=fleetrun_log,
                stderr=subprocess.STDOUT,
                cwd=run.log,
                # Ctrl-C is for the launcher alone, which ends the rest in order.
                start_new_session=True,
            )
            leader = psutil.Process(process.pid)
            timeout = config.runner.start_timeout
            failure = watch(run, expected, leader, timeout, lambda role: _log_of(run, role), show)
            if failure is None:
                # fleetrun stops the servers as soon as the last worker has gone.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
        except _Signalled as err:
            say(f"\n{err}: ending the job's processes")
            mark.end()
            with suppress(OSError):  # A full disk must not hide why the run ended.
                run.write_result({"state": roles.FAILED, "error": str(err)})
            return 128 + err.number
        finally:
            ignore_signals()
            mark.end()
    show()
    if failure is not None:
        print(f"fl_rec: {failure}", file=sys.stderr, flush=True)
        _write_failure(run, failure)
        return 1
    result = json.loads(run.result.read_text(encoding="utf-8"))
    say(f"done      {run.result}\nmodel     {result['model']}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec run`."""
    add_config_arguments(parser)
    parser.add_argument(
        "--worker_num", type=count, metavar="N", help="workers, one per shard; default: the number of shards"
    )
    parser.add_argument("--server_num", type=count, default=1, metavar="N", help="parameter servers; default: 1")
    parser.add_argument("--coordinator_num", type=int, choices=(0, 1), default=0, help="coordinators; default: 0")
    parser.add_argument(
        "--servers",
        metavar="HOST:PORT,...",
        help="the servers' addresses; default: free ports of this machine",
    )
    parser.add_argument(
        "--script",
        type=Path,
        help="training script; default: the one in tools/ with or without a coordinator",
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec run`."""
    return launch(
        LaunchOptions(
            config_yaml=Path(options.config_yaml),
            overrides=tuple(options.opt),
            worker_num=options.worker_num,
            server_num=options.server_num,
            coordinator_num=options.coordinator_num,
            servers=options.servers,
            script=options.script,
        ),
        say=lambda text: print(text, flush=True),
    )


def _write_failure(run: RunDirectory, failure: Failure) -> None:
    with suppress(OSError):  # It has been told; a full disk may be what failed.
        run.write_result(
            {"state": roles.FAILED, "role": failure.role, "error": failure.reason, "log": str(failure.log)}
        )


def _log_of(run: RunDirectory, role: str) -> Path:
    """The role's log, or fleetrun's if that never came to starting the role."""
    path = log_path(run, role)
    return path if path.exists() else run.log / "fleetrun"


def start_watch(run: RunDirectory, role: roles.Role, fleetrun: psutil.Process, start_timeout: float) -> None:
    """Has a job that was started by a bare fleetrun watched by a process of its own."""
    expected = roles.role_names(role.num_workers, len(role.server_endpoints), role.num_coordinators)
    command = [
        sys.executable,
        "-m",
        "fl_rec.launch",
        str(run.path),
        str(fleetrun.pid),
        str(start_timeout),
        *expected,
    ]
    log = open(run.log / "watch", "wb")  # noqa: SIM115 - the child keeps it
    paths = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    log.close()


def watch_by_hand(arguments: Sequence[str]) -> int:
    """The process that `start_watch` starts: on a failure it ends the job, and with it fleetrun."""
    parser = argparse.ArgumentParser(description=watch_by_hand.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("fleetrun", type=int)
    parser.add_argument("start_timeout", type=float)
    parser.add_argument("expected", nargs="+")
    options = parser.parse_args(arguments)
    run = RunDirectory(options.run)
    fleetrun = psutil.Process(options.fleetrun)
    mark = Mark(FLEETRUN_MARK, os.environ[FLEETRUN_MARK])
    log_of = {name: _stdout_of(fleetrun, name, run) for name in options.expected}
    failure = watch(run, options.expected, fleetrun, options.start_timeout, log_of.__getitem__)
    if failure is None:
        with suppress(psutil.TimeoutExpired):
            fleetrun.wait(GRACE_SECONDS)
        mark.end()
        return 0
    print(f"fl_rec: {failure}", flush=True)
    _write_failure(run, failure)
    # fleetrun would wait for its workers and exit with 0; ended first, it exits with what the signal says.
    with suppress(psutil.NoSuchProcess):
        fleetrun.terminate()
    mark.end()
    return 1


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


def _fleetrun_command(options: LaunchOptions, workers: int, run: RunDirectory) -> list[str]:
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--log_dir={run.log}"]
    command += [f"--worker_num={workers}", f"--server_num={options.server_num}"]
    if options.servers:
        command.append(f"--servers={options.servers}")
    if options.coordinator_num:
        command.append(f"--coordinator_num={options.coordinator_num}")
    command += [str(options.training_script.resolve()), "-m", str(options.config_yaml.resolve())]
    for override in options.overrides:
        command += ["-o", override]
    return command


def _check_options(options: LaunchOptions) -> None:
    script = options.training_script
    if not script.is_file():
        raise ConfigError(f"--script must name a training script. Received: {script}, which is not a file.")
    needed = {path: number for number, path in enumerate(DEFAULT_SCRIPTS)}.get(
        script.resolve(), options.coordinator_num
    )
    if options.coordinator_num != needed:
        raise ConfigError(
            f"--coordinator_num must be {needed} with {script.name}. Received: {options.coordinator_num}. "
            "Leave --script out, and the one that fits is taken."
        )
    endpoints = options.servers.split(",") if options.servers else []
    if endpoints and not (
        len(endpoints) == options.server_num and all(re.fullmatch(r"[^:\s]+:\d+", each) for each in endpoints)
    ):
        raise ConfigError(
            f"--servers must name one host:port per server. Received: {options.servers} for "
            f"--server_num {options.server_num}."
        )


class _TableTail:
    """Shows what has been added to tables.txt since the last call."""

    def __init__(self, run: RunDirectory, say: Callable[[str], None]) -> None:
        self._path, self._say, self._offset = run.tables, say, 0

    def __call__(self) -> None:
        with open(self._path, encoding="utf-8") as file:
            file.seek(self._offset)
            text = file.read()
            self._offset = file.tell()
        if text:
            self._say(text.rstrip("\n") + "\n")


class _Signalled(RunError):
    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def _signals_as_exceptions() -> Iterator[Callable[[], None]]:
    """Yields what has them ignored from then on: clearing up must not be interrupted."""

    def ignore() -> None:
        for each in kept:
            signal.signal(each, signal.SIG_IGN)

    def stop(number: int, _frame: object) -> None:
        ignore()
        raise _Signalled(number)

    # What is ignored stays so: nohup has the job outlive its terminal.
    kept = {
        each: handler
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for handler in [signal.getsignal(each)]
        if handler is not signal.SIG_IGN
    }
    for each in kept:
        signal.signal(each, stop)
    try:
        yield ignore
    finally:
        for each, handler in kept.items():
            signal.signal(each, handler)


if __name__ == "__main__":
    sys.exit(watch_by_hand(sys.argv[1:]))
