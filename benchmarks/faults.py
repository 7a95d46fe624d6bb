"""Makes every fault of docs/faults.md happen to a real job, and compares what it does with what is documented there.

python benchmarks/faults.py --quick
python benchmarks/faults.py --only "SIGSTOP server"
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from common import PROJECT, Report, new_parser, open_data, run_benchmark, say, titled_table

from fl_rec.data.manifest import TEST_FOLDER, TRAIN_FOLDER, Manifest
from fl_rec.evaluation.metrics import ALL
from fl_rec.job.watch import Mark
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory

DOCUMENT = PROJECT / "docs" / "faults.md"
TRAINER = PROJECT / "benchmarks" / "faults_trainer.py"
# Seconds. No job takes so long, and none that ends leaves a process for so long.
LONGEST, CLEAR = 120.0, 10.0
HEARTBEAT, COORDINATOR_TIMEOUT = 4.0, 3.0
# What is asked of each outcome: seconds from the fault to the job's end.
PROMPT = {"died": 5.0, "frozen": HEARTBEAT + 5, "lost": COORDINATOR_TIMEOUT + 25, "ends": 10.0, "stopped": 10.0}
NOT_REACHED = "not reached"
# Of losses, AUC and HR@10 of runs of the same seed: one or two of 600 users.
SPREAD = 0.004


@dataclass(frozen=True)
class Cell:
    """One fault in one phase, as it is documented."""

    fault: str
    role: str
    phase: str
    outcome: str
    quick: bool

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.fault, self.role, self.phase)))


def documented(text: str) -> list[Cell]:
    """The cells of the tables whose first column is headed `fault`."""
    cells, head = [], None
    for line in text.splitlines():
        row = [each.strip() for each in line.strip().strip("|").split("|")] if line.startswith("|") else None
        if row is None:
            head = None
        elif row[0] in ("fault", "outcome"):
            head = row if row[0] == "fault" else None
        elif head and not set(row[0]) <= {"-"}:
            phases = zip(head[2:], row[2:], strict=True) if head[1] == "role" else [("", row[2])]
            role = row[1] if head[1] == "role" else ""
            cells += [Cell(row[0], role, phase, said.strip("*"), said.startswith("**")) for phase, said in phases]
    return cells


@dataclass
class Job:
    """A job that is held in one phase until it is struck.

    Args:
        folder: new; for this job alone.
        data: three shards.
        held: the role that waits in the phase.
        phase: which.
    """

    folder: Path
    data: Manifest
    held: str
    phase: str
    coordinators: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    prefix: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.run = RunDirectory(self.folder / "run")

    def start(self) -> None:
        keys = {
            "runner.run_dir": str(self.run.path),
            "runner.train_data_dir": str(self.data.folder / TRAIN_FOLDER),
            "runner.test_data_dir": str(self.data.folder / TEST_FOLDER),
            "runner.epochs": 2,
            "runner.exchanges_per_epoch": 2,
            "runner.heartbeat_timeout": HEARTBEAT,
            "runner.start_timeout": LONGEST / 2,
            **({"coordinator.coordinator_timeout": COORDINATOR_TIMEOUT} if self.coordinators else {}),
            **self.overrides,
        }
        command = [*self.prefix, sys.executable, "-m", "fl_rec.cli", "run", f"--script={TRAINER}", *self.options]
        command += ["-m", str(PROJECT / "configs" / "config_fl.yaml"), f"--coordinator_num={self.coordinators}"]
        for key, value in keys.items():
            command += ["-o", f"{key}={json.dumps(value)}"]
        hold = {"FAULTS_FOLDER": str(self.folder), "FAULTS_ROLE": self.held, "FAULTS_PHASE": self.phase}
        with open(self.folder / "said", "wb") as said, open(self.folder / "errors", "wb") as errors:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **hold, "PYTHONPATH": str(PROJECT), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=errors,
                cwd=PROJECT,
                start_new_session=True,
            )

    @property
    def launcher(self) -> psutil.Process:
        """fl-rec run itself, which what goes before it may have started."""
        process = psutil.Process(self.process.pid)
        while self.prefix and "fl_rec.cli" not in process.cmdline() and process.children():
            process = process.children()[0]
        return process

    def pid(self, role: str) -> int:
        if role == "launcher":
            return self.launcher.pid
        if role == "starter":
            return self.launcher.children()[0].pid
        return roles.read_statuses(self.run.roles)[role].pid

    def reach(self) -> bool:
        """Waits for the phase; False if the job has ended before."""
        deadline = time.monotonic() + LONGEST
        while not (self.folder / "reached").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def go_on(self) -> None:
        (self.folder / "struck").touch()

    def ended(self, within: float = LONGEST) -> int | None:
        """Its exit code; None if it is not over in time."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(within)
        return None

    def left_over(self) -> list[str]:
        """Its processes, which get some time to end."""
        mark, deadline = Mark(ENVIRONMENT_KEY, str(self.run.path)), time.monotonic() + CLEAR
        while (left := mark.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            mark.end()
        return [str(process.pid) for process in left]

    def clear(self) -> None:
        for process in [psutil.Process(self.process.pid)] if self.process.poll() is None else []:
            for each in [*process.children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        self.process.wait(CLEAR)
        Mark(ENVIRONMENT_KEY, str(self.run.path)).end()

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text(errors="replace").strip()

    @property
    def result(self) -> Mapping[str, Any]:
        with suppress(OSError, ValueError):
            return json.loads(self.run.result.read_text())  # type: ignore[no-any-return]
        return {}

    def figures(self) -> list[tuple[Any, ...]]:
        """What must be the same in an undisturbed run, by epoch."""
        with suppress(OSError, ValueError):
            return [
                tuple(each.get(name) for name in ("epoch", "rows", "train_loss", "test_auc", "hr", "ndcg"))
                for each in self.run.read_metrics()
                if each["client"] == ALL
            ]
        return []


class NotReached(Exception):
    """This machine, or its user, can't make the fault happen."""


@dataclass(frozen=True)
class Seen:
    """What a job did: the outcome's word, seconds from the fault to its end, and what it said."""

    outcome: str
    seconds: float
    said: str


def alike(figures: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> bool:
    """Whether figures are those of an undisturbed run: a server adds in any order, and rounds to float32."""
    return len(figures) == len(expected) and all(
        seen[:2] == known[:2] and all(abs(a - b) <= SPREAD for a, b in zip(seen[2:], known[2:], strict=True))
        for seen, known in zip(figures, expected, strict=True)
    )


def judge(job: Job, cell: Cell, code: int | None, seconds: float, target: str, expected: Sequence[Any]) -> Seen:
    """The word for what a job did; what breaks a promise has a word that no document has."""
    said, began = job.errors, time.monotonic()
    if code is None:
        return Seen("hangs", seconds, said)
    if left := job.left_over():
        return Seen(f"leaves {len(left)} processes", seconds, said)
    seconds, result = seconds + time.monotonic() - began, job.result
    if code == 0:
        figures = job.figures()
        return Seen("goes on" if alike(figures, expected) else f"other figures: {figures}", seconds, said)
    outcome = "error"
    if code == -signal.SIGKILL:
        outcome = "ends" if result.get("error") == "the launcher was killed" else "ends without a result"
    elif code in (128 + signal.SIGINT, -signal.SIGINT):
        outcome = "stopped"
    elif "The coordinator at" in said and "could not be reached" in said:
        outcome = "lost"
    elif result.get("kind") in ("died", "frozen"):
        outcome = str(result["kind"])
    elif "Traceback" in said or ("error" not in said and "failed" not in said):
        outcome = "unclear"
    if target and outcome in ("died", "frozen", "error") and result.get("role", target) != target:
        outcome += f", but {result['role']}"
    if seconds > PROMPT.get(outcome, LONGEST):
        outcome += f" after {seconds:.1f} s"
    return Seen(outcome, seconds, said)


# --- Faults of roles -----------------------------------------------------------------------------------


def strike_role(cell: Cell, job: Job, target: str) -> None:
    """SIGKILL, SIGSTOP and the like, for a role in a phase."""
    pid = job.pid(target)
    if cell.fault == "SIGINT twice":
        os.kill(pid, signal.SIGINT)
        time.sleep(0.3)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        return
    os.kill(pid, signal.SIGKILL if cell.fault == "SIGKILL" else signal.SIGSTOP)
    if cell.fault == "SIGSTOP, SIGCONT":
        job.go_on()
        # The launcher must not take its own sleep for others' silence.
        time.sleep(2 * HEARTBEAT if target == "launcher" else HEARTBEAT / 2)
        os.kill(pid, signal.SIGCONT)


TARGETS = {"worker": "worker.1", "server": "server.0", "coordinator": "coordinator.0"}


def play_role(cell: Cell, folder: Path, data: Manifest, expected: Mapping[int, Sequence[Any]]) -> Seen:
    target, coordinators = TARGETS.get(cell.role, cell.role), int(cell.role == "coordinator")
    # A role is struck in its own start; what it serves in the phases of the first worker, who saves.
    held = target if cell.role == "worker" or (cell.phase, cell.role) == ("start", "server") else "worker.0"
    job = Job(folder, data, held, cell.phase, coordinators)
    job.start()
    try:
        if (cell.phase, cell.role) == ("start", "coordinator"):
            wait_for(lambda: "coordinator.0" in roles.read_statuses(job.run.roles), job)
        elif not job.reach():
            return Seen("not held", 0.0, job.errors)
        began = time.monotonic()
        strike_role(cell, job, target)
        job.go_on()
        code = job.ended()
        seconds = time.monotonic() - began
        named = target if cell.role not in ("launcher",) else ""
        return judge(job, cell, code, seconds, named, expected[coordinators])
    finally:
        job.clear()


def wait_for(what: Callable[[], bool], job: Job) -> None:
    deadline = time.monotonic() + LONGEST
    while not what() and job.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


# --- Faults of the machine -----------------------------------------------------------------------------


def namespace(*kinds: str, script: str = "") -> list[str]:
    """What a command is started with in namespaces of its own, after a shell script."""
    prefix = ["unshare", "--map-root-user", *kinds]
    probe = subprocess.run([*prefix, "sh", "-c", f"{script or 'true'}"], capture_output=True, text=True, timeout=30)
    if probe.returncode:
        raise NotReached(probe.stderr.strip() or "no namespaces")
    return [*prefix, "sh", "-c", f'{script} && exec "$@"', "sh"]


def small_disk(folder: Path, options: str) -> list[str]:
    folder.mkdir(parents=True)
    return namespace("--mount", script=f"mount -t tmpfs -o {options} tmpfs '{folder}'")


def in_namespace(job: Job, script: str) -> None:
    """Runs a script in the network namespace of a job."""
    command = ["nsenter", f"--target={job.launcher.pid}", "--user", "--net", "--preserve-credentials", "sh", "-c"]
    done = subprocess.run([*command, script], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise NotReached(done.stderr.strip())


CLOCK = """\
import os, time
import psutil
_time, _start = time.time, psutil.Process.create_time
def _step():
    return {step} if os.path.exists({flag!r}) else 0
time.time = lambda: _time() + _step()
psutil.Process.create_time = lambda self: _start(self) + _step()
"""


def play_machine(cell: Cell, folder: Path, data: Manifest, expected: Mapping[int, Sequence[Any]]) -> Seen:
    job = Job(folder, data, "worker.1", "training")
    with ExitStack() as cleared:
        cleared.callback(lambda: job.clear() if hasattr(job, "process") else None)
        strike: Callable[[], None] = job.go_on
        target = ""
        if cell.fault == "port taken":
            taken = cleared.enter_context(socket.create_server(("127.0.0.1", 0)))
            job.options = [f"--servers=127.0.0.1:{taken.getsockname()[1]}"]
        elif cell.fault == "full run folder":
            job.prefix = small_disk(folder / "disk", "size=256k")
            job.overrides["runner.run_dir"] = str(folder / "disk" / "run")
        elif cell.fault == "full TMPDIR":
            job.prefix = small_disk(folder / "disk", "size=4k,nr_inodes=3")
            job.environment["TMPDIR"] = str(folder / "disk")
        elif cell.fault == "read-only run folder":
            job.prefix = small_disk(folder / "disk", "ro")
            job.overrides["runner.run_dir"] = str(folder / "disk" / "run")
        elif cell.fault == "file size limit":
            job.prefix = ["prlimit", "--fsize=24576"]
        elif cell.fault == "slow connection":
            job.prefix = namespace("--net", script="ip link set lo up")

            def strike() -> None:
                blink = "ip link set lo down; sleep 0.2; ip link set lo up"
                in_namespace(job, blink)
                job.go_on()
                with suppress(NotReached, psutil.NoSuchProcess):  # the job is over
                    while job.ended(0.3) is None:
                        in_namespace(job, blink)
        elif cell.fault in ("cut connection", "lost connection"):
            job.prefix = namespace("--net", script="ip link set lo up")
            target = "server.0" if cell.fault == "lost connection" else ""

            def strike() -> None:
                in_namespace(job, "ip link set lo down")
                if not target:
                    job.go_on()
                    time.sleep(3)
                    in_namespace(job, "ip link set lo up")
        elif cell.fault.startswith("clock"):
            step, flag = (3600 if cell.fault == "clock forth" else -3600), folder / "struck"
            (folder / "site").mkdir()
            (folder / "site" / "sitecustomize.py").write_text(CLOCK.format(step=step, flag=str(flag)))
            job.environment["PYTHONPATH"] = f"{folder / 'site'}{os.pathsep}{PROJECT}"
        elif cell.fault == "out of memory":
            target = "worker.1"

            def strike() -> None:
                worker = psutil.Process(job.pid("worker.1"))
                size = worker.memory_info().vms
                worker.rlimit(psutil.RLIMIT_AS, (size, size))
        else:
            raise NotReached("nobody has written how")
        job.start()
        began = time.monotonic()
        if job.reach():
            began = time.monotonic()
            strike()
            job.go_on()
        code = job.ended()
        return judge(job, cell, code, time.monotonic() - began, target, expected[0])


# --- All of them ---------------------------------------------------------------------------------------


def play(cell: Cell, folder: Path, data: Manifest, expected: Mapping[int, Sequence[Any]]) -> Seen:
    try:
        return (play_role if cell.role else play_machine)(cell, folder, data, expected)
    except (NotReached, FileNotFoundError) as err:
        return Seen(NOT_REACHED, 0.0, str(err))


def undisturbed(folder: Path, data: Manifest) -> dict[int, Sequence[Any]]:
    """The figures of a job without and with a coordinator."""
    expected: dict[int, Sequence[Any]] = {}
    for coordinators in (0, 1):
        job = Job(folder / f"undisturbed-{coordinators}", data, "nobody", "", coordinators)
        job.start()
        try:
            if job.ended() != 0 or len(job.figures()) != 2:
                raise SystemExit(f"An undisturbed job must end well. {job.errors}")
            expected[coordinators] = job.figures()
        finally:
            job.clear()
    return expected


def measure(args: argparse.Namespace, folder: Path) -> Report:
    cells = [
        cell
        for cell in documented(DOCUMENT.read_text(encoding="utf-8"))
        if (cell.quick or not args.quick) and re.search(args.only, cell.name)
    ]
    data = open_data(None, folder)
    expected = undisturbed(folder, data)
    seen: dict[Cell, Seen] = {}
    for number, cell in enumerate(cells, 1):
        seen[cell] = play(cell, folder / f"cell-{number}", data, expected)
        mark = f", documented: {cell.outcome}" if _is_wrong(cell, seen[cell]) else ""
        say(f"{number:3} of {len(cells)}  {cell.name}: {seen[cell].outcome} ({seen[cell].seconds:.1f} s){mark}")
    wrong = [f"{cell.name}: {each.outcome}, documented: {cell.outcome}\n{each.said}" for cell, each in _wrong(seen)]
    reached = [each for each in seen.values() if each.outcome != NOT_REACHED]
    told = [each.seconds for each in reached if each.outcome == "frozen"]
    figures = {
        "cells": len(cells),
        "as_documented": len(reached) - len(wrong),
        "not_reached": {cell.name: each.said for cell, each in seen.items() if each.outcome == NOT_REACHED},
        "heartbeat_timeout": HEARTBEAT,
        "frozen_told_after_at_most": max(told, default=None),
        "died_told_after_at_most": max((each.seconds for each in reached if each.outcome == "died"), default=None),
    }
    return Report(_matrix(seen), figures, wrong)


def _is_wrong(cell: Cell, seen: Seen) -> bool:
    return seen.outcome not in (*cell.outcome.split(" or "), NOT_REACHED)


def _wrong(seen: Mapping[Cell, Seen]) -> Iterator[tuple[Cell, Seen]]:
    return ((cell, each) for cell, each in seen.items() if _is_wrong(cell, each))


def _matrix(seen: Mapping[Cell, Seen]) -> str:
    def shown(cell: Cell) -> str:
        each = seen[cell]
        wrong = _is_wrong(cell, each)
        return f"{'! ' if wrong else ''}{each.outcome} {each.seconds:.1f}"

    phases = list(dict.fromkeys(cell.phase for cell in seen if cell.role))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in seen:
        if cell.role:
            rows.setdefault((cell.fault, cell.role), {})[cell.phase] = shown(cell)
    lines = [[*name, *(row.get(phase, "") for phase in phases)] for name, row in rows.items()]
    text = titled_table("what the job did, and seconds from the fault to its end", ["fault", "role", *phases], lines)
    others = [[cell.fault, shown(cell)] for cell in seen if not cell.role]
    return text + ("\n" + titled_table("faults of the machine", ["fault", "outcome"], others) if others else "")


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="cells whose name, FAULT ROLE PHASE, has it")
    return run_benchmark(parser, {}, measure)


if __name__ == "__main__":
    sys.exit(main())
