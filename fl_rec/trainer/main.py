"""The entry of a training script."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import psutil

from fl_rec import environment
from fl_rec.arguments import add_config_arguments
from fl_rec.config import Config, load_from_args
from fl_rec.coordinator.check import check_files
from fl_rec.errors import FLRecError
from fl_rec.job.begun import began
from fl_rec.job.check import Job, check_job
from fl_rec.job.launch import DEFAULT_SCRIPTS
from fl_rec.job.watch import FLEETRUN_MARK
from fl_rec.plugins import where_raised
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, LOG_LEVEL_KEY, Launch, RunDirectory, default_path
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.roles import Role
from fl_rec.terminal.fleetrun import end_unwatched, start_watch
from fl_rec.trainer.fl_trainer import FLTrainer

# Of an error's text.
LAST_LINES = 4
# Seconds for a watch to come up and to judge.
_STAY = 10.0


def main(trainer: type[FLTrainer] = FLTrainer, arguments: Sequence[str] | None = None) -> int:
    """The entry of a training script: reads the command line, plays the role, leaves its status.

    Returns:
        the exit code: 0, or 1 after a failure that the role's status tells of.
    """
    parser = argparse.ArgumentParser(description=trainer.__doc__)
    add_config_arguments(parser)
    options = parser.parse_args(arguments)
    level = os.environ.get(LOG_LEVEL_KEY, "info").upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    role = run = None
    try:
        _agree_on_the_rendezvous()
        role = Role.from_environment()
        environment.check()
        environment.require_old_programs()
        config = load_from_args(options)
        if role.is_first_here and role.num_coordinators and ENVIRONMENT_KEY not in os.environ:  # the launcher's part
            check_files(config, role.own_workers, role.is_here(role.coordinator_endpoints[0]))
        run = open_run(config, role)
        activity.tell(run.roles, role.name)
        roles.write_status(run.roles, role.name, roles.STARTING)
        if role.kind != "server":  # the first server forks gloo's store
            activity.beat()
        # Where Paddle leaves files, wherever it runs.
        os.chdir(run.log)
        job = check_job(config, role.num_workers, role.num_coordinators, role.own_workers)
        alone = not role.own_workers and role.kind == "server"  # there is no worker here to do it
        if (role.is_first_here or alone) and ENVIRONMENT_KEY not in os.environ:
            _launch(job, role, run).write(run)
            job.config.dump(run.config)
        trainer.play(job, role, run)
        roles.write_status(run.roles, role.name, roles.DONE)
        if role.is_first_here:
            tidy(run.log)
        return 0
    except BaseException as err:
        text = (str(err) if isinstance(err, FLRecError) else _in_short(err)) + _left_over()
        if not isinstance(err, FLRecError):
            traceback.print_exc()
        print(f"{role.name if role else 'fl_rec'}: error: {text}", file=sys.stderr, flush=True)
        if role is not None and run is None and ENVIRONMENT_KEY not in os.environ:
            end_unwatched(text)
        if role is not None and run is not None:
            with contextlib.suppress(OSError):  # on a full disk the launcher goes by this process's end
                roles.write_status(run.roles, role.name, roles.FAILED, text)
            if ENVIRONMENT_KEY not in os.environ:
                _stay_for_the_watch()
        return 1


def _stay_for_the_watch() -> None:
    """A bare fleetrun would exit with 0 if all its workers ended before its watch ends it."""
    fleetrun, until = os.getppid(), time.monotonic() + _STAY
    while os.getppid() == fleetrun and time.monotonic() < until:
        time.sleep(0.05)


def tidy(folder: Path) -> None:
    """Removes what Paddle has left there, which is of no use when all went well: gloo's log, descriptions of trainers.

    They are there when training begins, so that the first worker may do so when it has ended.
    """
    for pattern in ("http.log", "*.prototxt"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()


def _in_short(err: BaseException) -> str:
    """What an error says that nobody foresaw: Paddle's are forty lines of a stack before the reason."""
    lines = [line for line in f"{type(err).__name__}: {err}".splitlines() if line.strip()]
    return "\n".join(lines if len(lines) <= LAST_LINES else [lines[0], "  ...", *lines[-LAST_LINES:]]) + where_raised(
        err
    )


def _left_over() -> str:
    """What may have had a bare fleetrun start something else than it was asked to; `fl-rec run` keeps it from it."""
    names: list[str] = []
    if ENVIRONMENT_KEY not in os.environ:
        with contextlib.suppress(psutil.Error):
            # POD_IP is how fleetrun is told which of several hosts it is on.
            names = [each for each in roles.of_paddle(psutil.Process(os.getppid()).environ()) if each != "POD_IP"]
    return f"\nfleetrun was started with variables of another Paddle job: unset {', '.join(names)}." if names else ""


def _own_script() -> str:
    script = Path(sys.argv[0]).resolve()
    return "" if script in DEFAULT_SCRIPTS else str(script)


def _launch(job: Job, role: Role, run: RunDirectory) -> Launch:
    """What the launcher would have written of a job that a bare fleetrun has started."""
    fleetrun = psutil.Process(os.getppid())
    facts = began(job, run, _started(fleetrun), fleetrun.cmdline())
    counts = (role.num_workers, len(role.server_endpoints), role.num_coordinators)
    return Launch(*counts, _own_script(), facts, Hosts.from_environment())


def _agree_on_the_rendezvous() -> None:
    """On several hosts each fleetrun would choose its own, unless its --http_port says it."""
    if ENVIRONMENT_KEY not in os.environ and (hosts := Hosts.from_environment()) is not None:
        fleetrun = psutil.Process(os.getppid())
        if not any(word.startswith("--http_port") for word in fleetrun.cmdline()):
            os.environ["PADDLE_GLOO_HTTP_ENDPOINT"] = hosts.rendezvous


def _started(fleetrun: psutil.Process) -> float:
    """When, in seconds since 1970: the same for all roles, though the clock be set while they start. psutil adds the
    boot time, which moves with it."""
    mark = os.environ[FLEETRUN_MARK]
    return os.stat(mark).st_mtime if os.path.isdir(mark) else fleetrun.create_time()


def open_run(config: Config, role: Role) -> RunDirectory:
    """The run directory of this job: the launcher's, or one named after the fleetrun that started this process.

    Under a fleetrun that was started by hand nobody watches the roles, so the first of them to come here has the job
    watched: a worker that waits for a dead one holds Python's global lock in gloo and can't watch for itself.
    """
    if ENVIRONMENT_KEY in os.environ:
        return RunDirectory(Path(os.environ[ENVIRONMENT_KEY]))
    fleetrun, path = psutil.Process(os.getppid()), config.runner.run_dir
    path = path or default_path(config.yaml_path, _started(fleetrun), fleetrun.pid)
    run, made = RunDirectory.claim(path, os.environ[FLEETRUN_MARK])
    if made:
        start_watch(run, role, fleetrun, config)
    return run
