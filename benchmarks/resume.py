"""What is lost when a job is killed and resumed, and what its checkpoints cost.

python benchmarks/resume.py --data datasets/movielens/fl_data --kills 100

Kills: one run, of which a process is killed with SIGKILL at a random moment, again and again: a role, all of them or
the launcher, while they start, train, exchange, save or end. Each time `fl-rec resume` goes on. Whatever was complete
must stay, no process be left, and the figures of the end be those of the same run unbroken, bit for bit.
Distance: all processes are killed after the half of the epochs, and the run is resumed.
Cost: the time from epoch to epoch with a checkpoint each and without.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
    BEST_CONFIG,
    PROJECT,
    JobRun,
    Report,
    add_config_argument,
    add_data_argument,
    count,
    describe_data,
    job_command,
    median,
    new_parser,
    open_data,
    run_benchmark,
    run_job,
    say,
    titled_table,
)

from fl_rec.data.manifest import Manifest
from fl_rec.errors import RunError
from fl_rec.evaluation.metrics import ALL, Times
from fl_rec.job.watch import Mark
from fl_rec.runs import roles, training_state
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory
from fl_rec.tables import figure

POLL_SECONDS = 0.02
# By which a job whose process was killed has ended with all the others.
END_SECONDS = 60.0
# Of a record, what a clock has measured.
TIMES = ("seconds", "rows_per_second", *Times().to_record())
# Of an attempt that is killed, so that the run is not over before the last kill; one more may end meanwhile.
_MOST_EPOCHS = 3
VICTIMS = ("server.0", "worker.0", "worker.1", "everybody", "launcher")


@dataclass
class Job:
    """One run, which is started and resumed."""

    run: RunDirectory
    first: Sequence[str]

    @property
    def mark(self) -> Mark:
        return Mark(ENVIRONMENT_KEY, str(self.run.path))

    def start(self) -> subprocess.Popen[bytes]:
        command = self.first
        if self.run.launch.is_file():
            command = [sys.executable, "-m", "fl_rec.cli", "resume", str(self.run.path)]
        log = open(self.run.path.with_name("said"), "ab")  # noqa: SIM115 - the child keeps it
        with log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=PROJECT, start_new_session=True
            )

    def kill(self, launcher: subprocess.Popen[bytes], victim: str) -> list[str]:
        """Kills, waits for the end of the job, and returns what was left of it then."""
        status = roles.read_statuses(self.run.roles).get(victim) if self.run.roles.is_dir() else None
        process = status.process() if status else None
        if victim == "everybody":
            found = [each.pid for each in self.mark.processes()]
            for pid in (launcher.pid, *found):
                _kill(pid)
        else:
            _kill(process.pid if process else launcher.pid)
        deadline = time.monotonic() + END_SECONDS
        launcher.wait(END_SECONDS)
        while (left := self.mark.processes()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        names = [process.name() for process in left]
        self.mark.end()
        return names

    def totals(self) -> list[dict[str, Any]]:
        return [without_times(each) for each in self.run.read_metrics() if each["client"] == ALL]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it must be the same in each run of the same seed."""
    return {name: value for name, value in record.items() if name not in TIMES}


def kill_again_and_again(
    job: Job, kills: int, longest: float, seed: int, timeout: float
) -> tuple[dict[str, Any], list[str]]:
    """Kills a run at random moments, and has it end.

    Args:
        longest: seconds of an attempt until the kill at most; it comes before an attempt has had `_MOST_EPOCHS`.
        seed: of the moments and the victims.
        timeout: seconds for the last attempt.

    Returns:
        figures, and what went wrong.
    """
    draw, problems, left, begun = random.Random(seed), [], 0, time.monotonic()
    victims: dict[str, int] = dict.fromkeys(VICTIMS, 0)
    complete = 0
    for number in range(1, kills + 1):
        launcher, victim, moment = job.start(), draw.choice(VICTIMS), draw.uniform(0, longest)
        until = time.monotonic() + moment
        while time.monotonic() < until and max(training_state.epochs(job.run), default=0) < complete + _MOST_EPOCHS:
            time.sleep(POLL_SECONDS)
        found = job.kill(launcher, victim)
        left += len(found)
        problems += [f"kill {number}, {victim}: processes left: {', '.join(found)}"] if found else []
        victims[victim] += 1
        newest = training_state.newest(job.run)
        complete = 0 if newest is None else newest.epoch
        say(f"kill      {number} of {kills}: {victim} after {moment:.1f} s; complete: {complete} epochs")
        kept = [each for each in job.totals() if each["epoch"] <= complete]
        if [each["epoch"] for each in kept] != list(range(1, complete + 1)):
            problems.append(f"kill {number}: of {complete} complete epochs metrics.jsonl has {len(kept)}")
    launcher = job.start()
    code = launcher.wait(timeout)
    if code:
        problems.append(f"the last attempt ended with {code}: see {job.run.path.with_name('said')}")
    figures = {"kills": sum(victims.values()), "victims": victims, "processes_left": left}
    return {**figures, "seconds": time.monotonic() - begun}, problems


def compare(name: str, run: RunDirectory, unbroken: RunDirectory) -> list[str]:
    """How the records of a run differ from those of the same one unbroken, but for times."""
    found, wanted = ([without_times(each) for each in one.read_metrics()] for one in (run, unbroken))
    places = [(each["epoch"], each["client"]) for each in found]
    if places != [(each["epoch"], each["client"]) for each in wanted]:
        return [f"{name}: metrics.jsonl has {len(places)} records, and the unbroken run's {len(wanted)}"]
    differing = [place for place, mine, theirs in zip(places, found, wanted) if mine != theirs]
    return [f"{name}: figures differ from the unbroken run's from {differing[0]} on"] if differing else []


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All three parts."""
    data = open_data(None if args.quick else args.data, folder, config=args.config)
    problems: list[str] = []
    lines: list[list[str]] = []
    figures: dict[str, Any] = {"config": args.config.name, **describe_data(data)}
    if args.kills:
        kills, wrong = _kills(args, folder / "kills")
        figures["kills"], problems = kills, wrong
        lines.append(["kills", f"{kills['kills']}, {kills['processes_left']} processes left", "; ".join(wrong) or "-"])
    distance, wrong = _distance(args, folder / "distance", data)
    figures["distance"] = distance
    problems += wrong
    hr = " and ".join(figure(distance[which], ".4f") for which in ("unbroken", "resumed"))
    lines.append(["HR@10 unbroken and resumed", hr, "equal" if distance["equal"] else "differs"])
    cost = _cost(args, folder / "cost", data)
    figures["cost"] = cost
    lines.append(["seconds of an epoch without", figure(cost["without"], ".3f"), "-"])
    lines.append(["seconds of an epoch with", figure(cost["with"], ".3f"), figure(cost["percent"], "+.1f") + " %"])
    return Report(titled_table(f"{args.config.name}", ["what", "found", "remark"], lines), figures, problems)


def _kills(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    # A job whose epochs take less than its start, so that every phase is hit.
    data = open_data(None, folder)
    epochs = (1 + _MOST_EPOCHS) * args.kills
    overrides = {"runner.epochs": epochs, "runner.exchanges_per_epoch": 3, "runner.reproducible": True}
    unbroken = _must(run_job(folder / "unbroken", data, overrides, args.timeout, config=args.config))
    start = unbroken.seconds - sum(each["seconds"] for each in unbroken.epochs)
    each_epoch = (unbroken.known_after[-1] - unbroken.known_after[0]) / max(1, epochs - 1)
    run = RunDirectory(folder / "killed")
    job = Job(run, job_command(run, data, overrides, config=args.config))
    figures, problems = kill_again_and_again(
        job, args.kills, min(start, unbroken.known_after[0]) + 4 * each_epoch, args.seed, args.timeout
    )
    problems += compare("killed", run, RunDirectory(folder / "unbroken"))
    return figures, problems


def _distance(args: argparse.Namespace, folder: Path, data: Manifest) -> tuple[dict[str, Any], list[str]]:
    overrides = {"runner.epochs": args.epochs, "runner.reproducible": True}
    unbroken = _must(run_job(folder / "unbroken", data, overrides, args.timeout, config=args.config))
    run = RunDirectory(folder / "killed")
    job = Job(run, job_command(run, data, overrides, config=args.config))
    launcher, deadline = job.start(), time.monotonic() + args.timeout
    while args.epochs // 2 not in training_state.epochs(run):
        if launcher.poll() is not None or time.monotonic() > deadline:
            job.kill(launcher, "everybody")
            raise RunError(f"The job must come to epoch {args.epochs // 2}. It ended before: see {run.path}")
        time.sleep(POLL_SECONDS)
    left, killed = job.kill(launcher, "everybody"), time.monotonic()
    launcher = job.start()
    code = launcher.wait(args.timeout)
    problems = [f"resume: processes left: {', '.join(left)}"] if left else []
    problems += [f"resume: exit code {code}"] if code else []
    figures = {
        "epochs": args.epochs,
        "unbroken": unbroken.epochs[-1]["hr"],
        "resumed": job.totals()[-1]["hr"],
        "equal": not compare("resumed", run, RunDirectory(folder / "unbroken")),
        "seconds_unbroken": unbroken.seconds,
        "seconds_resumed": time.monotonic() - killed,
    }
    return figures, problems


def _cost(args: argparse.Namespace, folder: Path, data: Manifest) -> dict[str, Any]:
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for pair in range(args.pairs):
        for interval in ((0, 1), (1, 0))[pair % 2]:
            overrides = {"runner.epochs": args.epochs, "runner.save_interval": interval}
            run = run_job(folder / f"{pair}-{interval}", data, overrides, args.timeout, config=args.config)
            known = _must(run).known_after
            seconds[interval].append((known[-1] - known[0]) / (len(known) - 1))
            say(f"cost      save_interval {interval}: {seconds[interval][-1]:.3f} s an epoch")
    without, with_them = (median(seconds[interval]) for interval in (0, 1))
    percent = 100 * (with_them / without - 1) if without and with_them else None
    return {"without": without, "with": with_them, "percent": percent, "pairs": args.pairs}


def _must(run: JobRun) -> JobRun:
    if run.failure:
        raise RunError(f"A job that nobody kills must end well. {run.failure}")
    return run


def main() -> int:
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser, BEST_CONFIG)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="(default: 100; --quick: 3)")
    parser.add_argument("--epochs", type=count, default=6, metavar="N", help="of the other parts (default: 6)")
    parser.add_argument("--pairs", type=count, default=3, metavar="N", help="of jobs for the cost (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims (default: 0)")
    parser.add_argument("--timeout", type=count, default=900, metavar="S", help="seconds of a job (default: 900)")
    return run_benchmark(parser, {"kills": 3, "pairs": 1, "epochs": 4, "timeout": 180}, measure)


if __name__ == "__main__":
    sys.exit(main())
