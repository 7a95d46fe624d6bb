"""A job from start to end. No Paddle is imported here."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fl_rec import environment, kernels, plugins
from fl_rec.config import Config
from fl_rec.coordinator.check import check_files
from fl_rec.data.manifest import list_shards
from fl_rec.errors import ConfigError, DataError, JobFailed
from fl_rec.job import attempts, exposed
from fl_rec.job.begun import began
from fl_rec.job.check import Job, check_job
from fl_rec.job.hosts import addresses, company_of
from fl_rec.job.hosts.company import Alone, NotMet
from fl_rec.job.judge import STARTER, Failure
from fl_rec.job.observers import Observer, Observers, RoleView, Started
from fl_rec.job.signals import Stopped, signals_as_exceptions
from fl_rec.job.tails import Tails
from fl_rec.job.tracking import trackers_of
from fl_rec.job.watch import GRACE_SECONDS, SCRATCH, Mark, log_path, watch_with
from fl_rec.nets.contract import check_net
from fl_rec.runs import roles
from fl_rec.runs.directory import (
    AWAY_KEY,
    ENVIRONMENT_KEY,
    JOB_KEY,
    LAUNCHER_KEY,
    LOG_LEVEL_KEY,
    RESUME_KEY,
    Launch,
    RunDirectory,
    default_path,
)
from fl_rec.runs.hosts import Hosts, split
from fl_rec.runs.result import FAILED, INTERRUPTED, RunResult
from fl_rec.secure import INSECURE_KEY

# What starts the roles, by START_KEY: one process that imports Paddle and forks them, or fleetrun.
START_KEY = "FL_REC_START"
STARTERS = {"fork": "tools/fork_server.py", "spawn": "tools/fleetrun.py"}
# Without a coordinator, and with one.
DEFAULT_SCRIPTS = (
    environment.shipped("tools/static_fl_trainer.py"),
    environment.shipped("tools/static_fl_trainer_with_coordinator.py"),
)
# For how long what is compiled will do.
_ONCE = "once and for all runs of this version on this machine"
_EACH_TIME = "for this run alone, since no folder of caches can be written; NUMBA_CACHE_DIR may name one"
# Numbers the jobs of this process.
_JOBS = itertools.count(1)


@dataclass(frozen=True)
class LaunchOptions:
    """What to start.

    Attributes:
        config_yaml, overrides: as for every tool, `-m` and `-o`.
        worker_num: None for as many as there are shards, or addresses.
        server_num, coordinator_num: how many of each; 0: as many as there are addresses, or the run had that is
            resumed, or else one server and no coordinator.
        servers: "host:port,..." for the servers; None lets the system choose.
        script: the training script; None for the one that fits `coordinator_num`.
        resume: the run to go on with, absolute; None for a new one.
        max_restarts: how often the job goes on by itself when a process of it was lost.
        log_level: how much the roles' logs tell: debug, info, warning or error.
        workers, coordinators, host: with `servers` the addresses of a job on several hosts, and which of them this is.
        hosts: what `placed` makes of the addresses; None if all roles are here.
        insecure: whether what others than this machine may reach may be without TLS.
    """

    config_yaml: Path
    overrides: tuple[str, ...] = ()
    worker_num: int | None = None
    server_num: int = 0
    coordinator_num: int = 0
    servers: str | None = None
    script: Path | None = None
    resume: Path | None = None
    max_restarts: int = 0
    log_level: str = "info"
    workers: str | None = None
    coordinators: str | None = None
    host: str | None = None
    hosts: Hosts | None = None
    insecure: bool = False

    @property
    def training_script(self) -> Path:
        return self.script or DEFAULT_SCRIPTS[self.coordinator_num]

    @property
    def own_script(self) -> str:
        """See `fl_rec.runs.directory.Launch`."""
        script = self.training_script.resolve()
        return "" if script in DEFAULT_SCRIPTS else str(script)

    def placed(self) -> LaunchOptions:
        """With every number, and where the roles are. ConfigError: an address can't be taken."""
        counts = {"--worker_num": self.worker_num, "--server_num": self.server_num or None}
        counts["--coordinator_num"] = self.coordinator_num or None
        hosts = addresses.hosts_of(self.servers, self.workers, self.coordinators, self.host, counts)
        if hosts is None:
            return dataclasses.replace(self, server_num=self.server_num or 1)
        addresses.require_usable(hosts)
        return dataclasses.replace(
            self,
            hosts=hosts,
            worker_num=len(hosts.workers),
            server_num=len(hosts.servers),
            coordinator_num=len(hosts.coordinators),
        )


def launch(options: LaunchOptions, observers: Sequence[Observer] = ()) -> RunDirectory:
    """Runs a job from start to end. Signals end it in order; in a thread other than the main one they can't be seen.

    Args:
        options: what to start.
        observers: who is told of it. What one raises ends the job, and is raised.

    Returns:
        where it has written its files.

    Raises:
        FLRecError: something is wrong that shows before any process is started.
        JobFailed: a role failed.
        Stopped: a signal has ended the job.
    """
    started = time.time()
    environment.check()
    if options.resume is not None:
        options = attempts.filled_in(options)
    options = options.placed()
    config = attempts.configuration(options)
    if options.hosts is not None:
        addresses.require_safe_link(options.hosts, config, options.insecure)
    workers = options.worker_num or len(list_shards(config.runner.train_data_dir, "train_data_dir"))
    own = options.hosts.workers_of() if options.hosts else None
    job = check_job(config, workers, options.coordinator_num, own)
    if options.coordinator_num:
        check_files(config, range(workers) if own is None else own, not options.hosts or options.hosts.has_coordinator)
    _check_options(options)
    check_net(config.runner.model_path, options.training_script.resolve().parent)
    run = _claim(config) if options.resume is None else RunDirectory(options.resume)
    observer = Observers([*observers, *trackers_of(job.config)])
    with run.held():
        epoch = None if options.resume is None else attempts.take_up(run, job)
        job.config.dump(run.config)
        if options.config_yaml == run.config:  # which now has them
            options = dataclasses.replace(options, overrides=())
        facts = began(job, run, started, psutil.Process().cmdline())
        counts = (workers, options.server_num, options.coordinator_num)
        begun = Launch(*counts, options.own_script, facts, options.hosts)
        begun.write(run)
        resumed = None if options.resume is None else epoch or 0
        started_job = Started.of(job, begun, run, config.changed(), _notes(options), resumed)
        for note in started_job.notes:
            run.append_table(f"note: {' '.join(note.split())}")
        observer.starting(started_job)
        restarts = attempts.Restarts(job.config.runner, options.max_restarts)
        expected = roles.role_names(workers, options.server_num, options.coordinator_num)
        company = company_of(options.hosts, expected, job, run, options.resume is not None, restarts)
        try:
            while (failure := _play(options, workers, job, run, epoch, company, observer)) is not None:
                if not company.goes_on(failure):
                    raise JobFailed(failure.role, failure.reason, failure.log, run.path)
                epoch = attempts.go_back(run)
                observer.note(f"{failure}\nrestart {restarts.count(failure, epoch)}, {attempts.said(epoch or 0)}")
        finally:
            observer.ended(_result(run))
            if company.is_new:
                run.give_back()
    return run


def _notes(options: LaunchOptions) -> list[str]:
    left_over = roles.of_paddle()
    told = f"variables of another Paddle job are kept from this one: {', '.join(left_over)}"
    return [*([told] if left_over else []), *exposed.notes_of(options.servers, options.workers)]


def _result(run: RunDirectory) -> RunResult:
    try:
        return run.read_result()
    except DataError:  # a full disk has kept it from being written
        return RunResult(state=FAILED, error="see above")


def _play(
    options: LaunchOptions,
    workers: int,
    job: Job,
    run: RunDirectory,
    epoch: int | None,
    company: Alone,
    observer: Observer,
) -> Failure | None:
    """One start of the job's processes, until they have ended.

    Args:
        epoch: of the newest checkpoint here; None if there is none.
        company: with whom the job is played.

    Returns:
        who failed; None if nobody did.
    """
    mark = Mark(ENVIRONMENT_KEY, str(run.path))
    failure: Failure | None
    tails: Tails | None = None

    def look(views: Mapping[str, RoleView]) -> None:
        if tails is not None:
            tails.look()
        observer.poll(views)

    others = {*roles.of_paddle(), RESUME_KEY, AWAY_KEY}
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch,
        ExitStack() as files,
        signals_as_exceptions() as ignore_signals,
    ):
        try:
            # Before they meet: a name that does not resolve any more is this host's trouble alone.
            numbers = addresses.numeric(options.hosts) if options.hosts else None
            begin = company.meet(epoch, observer.note)
            if begin.epoch != epoch and epoch is not None:
                attempts.go_back_to(run, begin.epoch)
                where = attempts.said(begin.epoch) if begin.epoch else "from the beginning"
                observer.note(f"all hosts go on {where}, since not all have what came after")
            tails = Tails(run, workers, observer)
            # Or else ten workers would wait for the first of them to do so.
            kernels.compile_all(
                lambda: observer.note(f"compiling, {_ONCE if kernels.cache_folder() else _EACH_TIME}"), scratch
            )
            start_log = files.enter_context(open(run.log / "start", "wb"))
            process = subprocess.Popen(
                _start_command(options, workers, run, numbers),
                env={
                    JOB_KEY: run.identity,
                    **{name: value for name, value in os.environ.items() if name not in others},
                    mark.name: mark.value,
                    LAUNCHER_KEY: str(os.getpid()),
                    LOG_LEVEL_KEY: options.log_level,
                    **({INSECURE_KEY: "1"} if options.insecure else {}),
                    **begin.variables,
                    **({"POD_IP": numbers.here} if numbers else {}),
                    # Gloo's store and fleetrun leave temporary files behind when they are ended.
                    "TMPDIR": scratch,
                    **kernels.cache_environment(scratch),
                },
                stdin=subprocess.DEVNULL,
                stdout=start_log,
                stderr=subprocess.STDOUT,
                cwd=run.log,
                # Ctrl-C is for the launcher alone, which ends the rest in order.
                start_new_session=True,
            )
            leader = psutil.Process(process.pid)
            failure = watch_with(company.judge(leader, lambda role: _log_of(run, role)), run, look)
            company.tell(failure)
            if failure is None:
                # It stops the servers as soon as the last worker has gone.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
        except NotMet as err:
            failure = err.failure
            company.tell(failure)
        except BaseException as err:
            ignore_signals()
            if isinstance(err, Stopped):
                observer.note(f"{err}: ending the job's processes")
            reason = str(err) if isinstance(err, Stopped) else f"stopped by {err!r}"
            company.leave(reason)
            mark.end()
            with suppress(OSError):  # A full disk must not hide why the run ended.
                run.end(INTERRUPTED, error=reason)
            raise
        finally:
            ignore_signals()
            mark.end()
            company.part()
    if failure is not None:
        company.write(failure)
    if tails is not None:
        tails.look(over=True)
    return failure


def _claim(config: Config) -> RunDirectory:
    """The run directory of a new job. A process may start several, even at the same time."""
    this, number = os.getpid(), next(_JOBS)
    path = config.runner.run_dir
    if path is None:
        path = default_path(config.yaml_path, time.time(), this)
        path = path if number == 1 else path.with_name(f"{path.name}-{number}")
    run, _ = RunDirectory.claim(path, f"{this} {roles.started()} {number}")
    return run


def _log_of(run: RunDirectory, role: str) -> Path:
    """The role's log, or what was said before the role was started."""
    path = log_path(run, role)
    return path if path.exists() else log_path(run, STARTER)


def _start_command(options: LaunchOptions, workers: int, run: RunDirectory, numbers: Hosts | None) -> list[str]:
    # fleetrun gives the folder's name to a shell; it is started there.
    command = [sys.executable, "-u", str(environment.shipped(STARTERS[_starter()])), "--log_dir=."]
    command += [f"--worker_num={workers}", f"--server_num={options.server_num}"]
    if options.hosts is not None and numbers is not None:
        for name in ("servers", "workers", "coordinators"):
            command += [f"--{name}={','.join(getattr(numbers, name))}"] if getattr(numbers, name) else []
        command.append(f"--http_port={split(options.hosts.rendezvous)[1]}")
    elif options.servers:
        command.append(f"--servers={options.servers}")
    if options.coordinator_num:
        command.append(f"--coordinator_num={options.coordinator_num}")
    command += [str(options.training_script.resolve()), "-m", str(options.config_yaml.absolute())]
    for override in options.overrides:
        command += ["-o", override]
    return command


def _starter() -> str:
    return os.environ.get(START_KEY) or "fork"


def _check_options(options: LaunchOptions) -> None:
    if _starter() not in STARTERS:
        raise ConfigError(
            f"{START_KEY} must be fork, or spawn for fleetrun, which starts each role anew. Received: {_starter()}."
        )
    if options.hosts is not None and _starter() != "fork":
        raise ConfigError(
            f"{START_KEY} must be fork on several hosts. Received: {_starter()}. Leave it out, or start fleetrun "
            "itself on each host, with the same addresses."
        )
    script = options.training_script
    if not script.is_file():
        raise ConfigError(f"--script must name a training script. Received: {script}, which is not a file.")
    plugins.check_imports(script, "the training script")
    needed = {path: number for number, path in enumerate(DEFAULT_SCRIPTS)}.get(
        script.resolve(), options.coordinator_num
    )
    if options.coordinator_num != needed:
        raise ConfigError(
            f"--coordinator_num must be {needed} with {script.name}. Received: {options.coordinator_num}. "
            "Leave --script out, and the one that fits is taken."
        )
    endpoints = options.servers.split(",") if options.servers and options.hosts is None else []
    found = [re.fullmatch(r"[^:\s]+:(\d{1,5})", each) for each in endpoints]
    if endpoints and not (
        len(found) == options.server_num and all(each and 0 < int(each[1]) < 65536 for each in found)
    ):
        raise ConfigError(
            f"--servers must name one host:port per server, with ports from 1 to 65535. Received: {options.servers} "
            f"for --server_num {options.server_num}. Leave it out, and free ports of this machine are taken."
        )
