"""Damaged and hostile inputs for every reader of outside data: each is refused in words, or is sound.

    python tests/fuzz.py                          20,000 inputs, as the tests run them
    python tests/fuzz.py --inputs 200000 --seed 7
    python tests/fuzz.py --seed 7 --only partition:93    one of them again, with its traceback

An input is a sound one of `fuzzing.readers`, damaged once or twice by `fuzzing.mutations`; a reader, a seed and a
number give it. It fails if its reader raises anything but a FLRecError with a text, if it is accepted and the
independent look says that it is not sound, or if it takes more than a GiB of memory or 5 seconds of a processor.
Exit code: 1 if one fails.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import mmap
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others reserve more than they use

import psutil  # noqa: E402

from fl_rec.errors import FLRecError  # noqa: E402
from fl_rec.tables import RULE, format_table  # noqa: E402
from tests.fuzzing.mutations import Files, choose, make_bombs  # noqa: E402
from tests.fuzzing.readers import READERS, Wrong  # noqa: E402

MEMORY, SECONDS, LONGEST_TEXT = 1 << 30, 5.0, 4000
# Wall time, after which a reader is taken to wait, or not to listen to the alarm of its processor time.
HANGS = 240.0
OUTCOMES = ("accepted", "refused", "traceback", "wrong", "memory", "slow", "text")
GOOD = OUTCOMES[:2]
# What is said of a user's source that fails in any way; ours are not to.
UNFORESEEN = re.compile(r"The source \S+ failed: ")


class Slow(BaseException):
    """An input took too long."""


class Failure(NamedTuple):
    """An input that failed: `--only READER:NUMBER` gives it again."""

    reader: str
    number: int
    damage: str
    outcome: str
    text: str


def damaged(name: str, number: int, seed: int) -> tuple[Files, str]:
    """The files of an input, and what is wrong with them."""
    reader = READERS[name]
    rng = random.Random(f"{seed}:{name}:{number}")
    files, done = dict(reader.corpus()), []
    for _ in range(rng.choice((1, 1, 1, 2))):
        if files:
            done.append(choose(rng, files))
    if reader.seal and rng.random() < 0.7:
        reader.seal(files)
    return files, "; ".join(done)


def write(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.target == "|":
            os.mkfifo(path)
        elif content.target == "/":
            path.mkdir()
        else:
            path.symlink_to(content.target)


def outcome_of(name: str, folder: Path, show: bool = False) -> tuple[str, str]:
    """One of `OUTCOMES`, and a text."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        READERS[name].read(folder)
        outcome, text = "accepted", ""
    except Slow as err:
        outcome, text = "slow", _where(err)
    except Wrong as err:
        outcome, text = "wrong", str(err)
    except BaseException as err:
        if show:
            traceback.print_exc()
        chain: list[BaseException] = [err]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
            chain.append(cause)
        if any(isinstance(each, MemoryError) for each in chain):
            outcome, text = "memory", _where(err)
        elif any(isinstance(each, Slow) for each in chain):
            outcome, text = "slow", _where(err)
        elif not isinstance(err, FLRecError) or UNFORESEEN.match(str(err)):
            outcome, text = "traceback", f"{type(err).__name__}: {str(err)[:200]} ({_where(err.__cause__ or err)})"
        else:
            outcome, text = "refused", str(err)
            if not 20 < len(text) < LONGEST_TEXT or "Traceback" in text:
                outcome, text = "text", f"{len(text)} characters: {text[:200]!r}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if time.process_time() - began > SECONDS:
        outcome = "slow"
    return outcome, text


def _where(err: BaseException) -> str:
    frames = traceback.extract_tb(err.__traceback__)
    ours = [each for each in frames if "/fl_rec/" in each.filename] or frames
    return f"{ours[-1].filename.rpartition('fl_rec/')[2]}:{ours[-1].lineno}" if ours else ""


def schedule(inputs: int, only: list[str]) -> list[tuple[str, int]]:
    """Which reader gets which numbers, by their weights, one after another so that each worker has of all."""
    names = [name for name in READERS if not only or name in only]
    total = sum(READERS[name].weight for name in names)
    counts = {name: max(1, round(inputs * READERS[name].weight / total)) for name in names}
    return sorted(
        ((name, n) for name in names for n in range(counts[name])), key=lambda each: each[1] / counts[each[0]]
    )


def _work(todo: list[tuple[str, int]], seed: int, folder: Path, progress: mmap.mmap, results: Path) -> None:
    """A child: does all, and says in shared memory where it is."""
    signal.signal(signal.SIGPROF, _alarm)
    logging.disable()
    process = psutil.Process()
    with open(results, "a", buffering=1, encoding="utf-8") as out:
        start = int.from_bytes(progress[:8], "little")
        for place in range(start, len(todo)):
            progress[:8] = place.to_bytes(8, "little")
            name, number = todo[place]
            files, damage = damaged(name, number, seed)
            write(folder, files)
            limit = process.memory_info().vms + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            began = time.process_time()
            outcome, text = outcome_of(name, folder)
            seconds = time.process_time() - began
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            out.write(json.dumps([name, number, outcome, seconds, damage, text]) + "\n")
        progress[:8] = len(todo).to_bytes(8, "little")


def _alarm(*_: object) -> None:
    raise Slow


def fuzz(
    inputs: int, seed: int, only: list[str] | None = None, workers: int = 2
) -> tuple[list[list[Any]], list[Failure]]:
    """Runs inputs in forked processes.

    Returns:
        lines of a table per reader, and what failed.
    """
    plan = schedule(inputs, only or [])
    for name in {name for name, _ in plan}:
        READERS[name].corpus()
    make_bombs()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as scratch:
        shares = [_Share(plan[k::workers], seed, Path(scratch) / str(k)) for k in range(workers)]
        while sum(share.goes_on() for share in shares):
            time.sleep(0.02)
        done = [line for share in shares for line in share.results()]
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in READERS}
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    for name, _, outcome, took, *_ in done:
        counts[name][outcome] += 1
        seconds[name].append(took)
    table = [
        [name, *(each[kind] for kind in OUTCOMES), sum(seconds[name]), max(seconds[name])]
        for name, each in counts.items()
        if each.total()
    ]
    failures = [Failure(name, number, damage, outcome, text) for name, number, outcome, _, damage, text in done]
    return table, [each for each in failures if each.outcome not in GOOD]


class _Share:
    """The inputs of one child after another: one that dies or hangs is told, and the next goes on behind it."""

    def __init__(self, todo: list[tuple[str, int]], seed: int, folder: Path) -> None:
        self._todo, self._seed, self._folder = todo, seed, folder
        self._results = folder.with_suffix(".jsonl")
        self._results.touch()
        self._progress = mmap.mmap(-1, 8)
        self._child, self._at, self._since = 0, -1, 0.0

    def _place(self) -> int:
        return int.from_bytes(self._progress[:8], "little")

    def goes_on(self) -> bool:
        if not self._child:
            if self._place() >= len(self._todo):
                return False
            self._start()
        ended, status = os.waitpid(self._child, os.WNOHANG)
        if ended:
            self._child = 0
            if status:
                self._tell("traceback", f"the process died, status {status}")
        elif self._place() != self._at:
            self._at, self._since = self._place(), time.monotonic()
        elif time.monotonic() - self._since > HANGS:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = 0
            self._tell("slow", f"over {HANGS:g} s, without listening to an alarm")
        return True

    def _start(self) -> None:
        self._at, self._since = self._place(), time.monotonic()
        self._child = os.fork()
        if not self._child:
            status = 1
            try:
                with open(os.devnull, "w") as quiet:
                    os.dup2(quiet.fileno(), 1)
                    _work(self._todo, self._seed, self._folder, self._progress, self._results)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)

    def _tell(self, outcome: str, text: str) -> None:
        place = self._place()
        if place < len(self._todo):
            name, number = self._todo[place]
            line = [name, number, outcome, SECONDS, damaged(name, number, self._seed)[1], text]
            with open(self._results, "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
            self._progress[:8] = (place + 1).to_bytes(8, "little")

    def results(self) -> list[Any]:
        return [json.loads(line) for line in self._results.read_text(encoding="utf-8").splitlines()]


def to_table(table: list[list[Any]]) -> str:
    """For people."""
    columns = list(zip(*table))
    total = ["all", *map(sum, columns[1:-1]), max(columns[-1])]
    lines = [
        [str(name), *(f"{count:,}" if count else "-" for count in counts), f"{seconds:.1f}", f"{slowest:.2f}"]
        for name, *counts, seconds, slowest in (*table, total)
    ]
    header = ["reader", *OUTCOMES, "seconds", "slowest"]
    return format_table([header, RULE, *lines[:-1], RULE, lines[-1]], left=(0,))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--readers", nargs="+", choices=sorted(READERS), metavar="READER", help=", ".join(READERS))
    parser.add_argument("--only", metavar="READER:NUMBER", help="one input again, written into ./fuzz-input")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if options.only:
        name, _, number = options.only.partition(":")
        files, damage = damaged(name, int(number), options.seed)
        folder = Path("fuzz-input")
        write(folder, files)
        print(damage)
        signal.signal(signal.SIGPROF, _alarm)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY, resource.RLIM_INFINITY))
        print(*outcome_of(name, folder, show=True))
        return 0
    began = time.perf_counter()
    table, failures = fuzz(options.inputs, options.seed, options.readers, options.workers)
    print(to_table(table))
    seen: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for each in failures:
        kind = (each.reader, each.outcome, each.text[-60:])
        seen[kind] += 1
        if seen[kind] == 1:
            print(f"{each.reader}:{each.number} {each.outcome}: {each.text}\n    {each.damage}")
    for (name, outcome, text), count in seen.most_common():
        if count > 1:
            print(f"{count} times {name} {outcome}: ... {text}")
    print(
        f"{sum(sum(row[1:-2]) for row in table):,} inputs, {len(failures)} failed, {time.perf_counter() - began:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
