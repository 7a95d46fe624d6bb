"""What the benchmarks share: their command line, data, one job from start to end, and how a result is shown.

A benchmark starts a job as a user does, and reads its figures from what the job writes of itself: metrics.jsonl and
the roles' statuses, never a log.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))  # so that it runs from a clone without installing

import numpy as np
import psutil
from usage import Known, Usage, end, watch

from fl_rec import environment, one_thread_each
from fl_rec.config import Config
from fl_rec.data.manifest import (
    PUBLIC_FOLDER,
    TEST_FOLDER,
    TRAIN_FOLDER,
    VALIDATION_FOLDER,
    Manifest,
    ShardFile,
    check_shards,
    load_manifest,
)
from fl_rec.data.text import parse_multislot
from fl_rec.errors import DataError, FLRecError, RunError
from fl_rec.evaluation.metrics import ALL, Evaluation
from fl_rec.evaluation.ranking import rank_metrics
from fl_rec.job.watch import Mark
from fl_rec.runs import roles
from fl_rec.runs.directory import ENVIRONMENT_KEY, RunDirectory
from fl_rec.tables import RULE, format_table

# As under fl-rec, also what a benchmark compares a job with.
one_thread_each()

CONFIG = PROJECT / "configs" / "config_fl.yaml"
BEST_CONFIG = PROJECT / "configs" / "ml1m_best.yaml"
MOVIELENS = PROJECT / "datasets" / "movielens"
QUICK_WORKERS = 3
GIB = 1 << 30
# A ranking's figures, by their names in a record.
TOP_K = 10
METRICS = {"hr": f"HR@{TOP_K}", "ndcg": f"NDCG@{TOP_K}"}

T = TypeVar("T")


# --- The command line ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        text: tables for people.
        figures: the same for machines.
        failures: one message for each job that did not end well.
    """

    text: str
    figures: Mapping[str, Any]
    failures: Sequence[str]


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with the options of all benchmarks; `description` is the script's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, measures nothing")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder: data, logs, models")
    return parser


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--data``, which `open_data` understands."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FL_DATA_DIR",
        help="a folder that gen_heter_data.py wrote (default: datasets/movielens/fl_data; --quick: synthetic)",
        default=MOVIELENS / "fl_data",
    )


def add_config_argument(parser: argparse.ArgumentParser, default: Path = BEST_CONFIG) -> None:
    """Adds ``--config``."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the configuration that is measured (default: configs/{default.name})",
        default=default,
    )


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {text}")
    return value


def run_benchmark(
    parser: argparse.ArgumentParser,
    quick: Mapping[str, Any],
    measure: Callable[[argparse.Namespace, Path], Report],
) -> int:
    """Plays a benchmark from its command line to its line of JSON.

    Args:
        parser: see `new_parser`.
        quick: the defaults that hold under ``--quick``; an option that is given wins.
        measure: (arguments, an empty temporary folder) -> what was found.

    Returns:
        the exit code: 0; 1 if a job failed; 2 if nothing could be measured; 128 + the signal that stopped it.
    """
    if parser.parse_args().quick:
        parser.set_defaults(**quick)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        environment.check()
        with _temporary_folder(parser.prog, args.keep) as folder:
            report = measure(args, folder)
    except FLRecError as err:
        say(f"{parser.prog}: error: {err}")
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(report.text)
    for failure in report.failures:
        say(f"{parser.prog}: {failure}")
    if report.failures and not args.keep:
        say("The logs are removed; run it again with --keep to look into them.")
    line = {"benchmark": Path(parser.prog).stem, "quick": args.quick, **_machine(), **report.figures}
    print(json.dumps({**line, "failures": report.failures}), flush=True)
    return 1 if report.failures else 0


def say(text: str) -> None:
    """Shows progress or trouble, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    try:
        paddle = metadata.version("paddlepaddle")
    except metadata.PackageNotFoundError:  # a build of one's own, under another name
        paddle = None
    return {"paddle": paddle, "python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}


@contextmanager
def _temporary_folder(name: str, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"fl_rec-{Path(name).stem}-")).resolve()
    try:
        yield folder
    finally:
        if keep:
            say(f"kept      {folder}")
        else:
            shutil.rmtree(folder)


# --- Data ----------------------------------------------------------------------------------------------


def open_data(folder: Path | None, temporary: Path, workers: int = QUICK_WORKERS, config: Path = CONFIG) -> Manifest:
    """The shards to train on.

    Args:
        folder: where gen_heter_data.py wrote them; None for synthetic ones, made now.
        temporary: where to make them.
        workers: how many to make.
        config: what will be trained with them; if it uses validation shards, there must be some.

    Raises:
        DataError: there are none, or they are not what their manifest says.
    """
    validation, public = _validates(config), _distils(config)
    if folder is None:
        folder = _make_synthetic(temporary / "data", workers, validation, public)
    manifest = load_manifest(folder.resolve())
    if manifest is None:
        raise DataError(
            f"--data must be a folder with a manifest.json. Received: {folder}. "
            "Make one with datasets/movielens/run.sh, or try --quick, which needs none."
        )
    if public and manifest.public is None:
        raise DataError(
            f"{config.name} needs public users beside the shards. Received: {folder}, which has none. Make it with "
            "datasets/movielens/run.sh --public 0.03, or prepare.py --public."
        )
    check_shards(
        manifest,
        manifest.folder / TRAIN_FOLDER,
        manifest.folder / TEST_FOLDER,
        manifest.folder / VALIDATION_FOLDER if validation else None,
    )
    return manifest


def _validates(config: Path) -> bool:
    return Config.load(config).runner.validation_data_dir is not None


def _distils(config: Path) -> bool:
    return Config.load(config).distillation.proxy_data_dir is not None


def _make_synthetic(folder: Path, shards: int, validation: bool, public: bool) -> Path:
    say(f"data      synthetic, {shards} shards")
    # There are ten regions, and so at most ten shards of them.
    partitioner = "zip_first_digit" if shards <= 10 else "iid"
    options = [*(["--validation"] if validation else []), *(["--public", "0.1"] if public else [])]
    _run_tool("prepare.py", "--source", "synthetic", "--out", folder, *options)
    _run_tool(
        *("gen_heter_data.py", "--data", folder, "--out", folder / "fl_data"),
        *("--num_shards", shards, "--partitioner", partitioner),
    )
    return folder / "fl_data"


def _run_tool(script: str, *arguments: object) -> None:
    command = [sys.executable, str(MOVIELENS / script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RunError(f"{script} must make the synthetic data. It ended with {done.returncode}:\n{done.stdout}")


def describe_data(manifest: Manifest) -> dict[str, Any]:
    """Figures that tell what was trained on."""
    return {
        "source": manifest.source["kind"],
        "workers": manifest.num_shards,
        "train_rows": manifest.totals["train_rows"],
        "test_negative": manifest.source.get("test_negative"),
    }


def read_rows(data: Manifest, file: ShardFile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A shard's rows.

    Returns:
        users, int64 [rows, 1]; items and labels, int64 [rows, items of a row].

    Raises:
        DataError: it is not MultiSlot text.
    """
    if data.format != "multislot":
        raise DataError(
            f"--data must hold MultiSlot shards. Received: {data.format} in {data.folder}. Write them with "
            "gen_heter_data.py --format multislot."
        )
    users, items, labels = parse_multislot((data.folder / file.file).read_bytes(), len(data.slots), file.file)
    return users, items, labels


def popularity(data: Manifest, top_k: int) -> list[Evaluation]:
    """How well each test shard's users are served by the items with the most training positives of all shards."""
    positives: np.ndarray = np.zeros(data.num_items, np.int64)
    for shard in data.shards:
        _, items, labels = read_rows(data, shard.train)
        positives += np.bincount(items[labels == 1], minlength=data.num_items)
    ranked = []
    for shard in data.shards:
        users, items, labels = read_rows(data, shard.test)
        ranked.append(rank_metrics(users, labels, positives[items], top_k, items))
    return ranked


# --- One job -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobRun:
    """What one launch did.

    Attributes:
        exit_code: the launcher's; None if it hung and was stopped.
        seconds: from the command to its end.
        running_after: seconds from the command until the last role was running; None if one never was.
        peak_pss: see `Usage`; looked at every 0.5 s.
        cpu_per_million: CPU seconds of all processes per million rows, from when the first epoch's figures are known
            until the last one's; None with fewer than two epochs.
        known_after: of each epoch, seconds from the command until its figures were known.
        leftovers: the job's processes that outlived the launcher, by name; ended since.
        epochs: the records of all workers together in metrics.jsonl, one per epoch.
        failure: what went wrong; None if it ended well.
    """

    exit_code: int | None
    seconds: float
    running_after: float | None
    peak_pss: int
    cpu_per_million: float | None
    known_after: tuple[float, ...]
    leftovers: tuple[str, ...]
    epochs: tuple[Mapping[str, Any], ...]
    failure: str | None

    @property
    def hung(self) -> bool:
        return self.exit_code is None

    def rows_per_second(self, summary: Callable[[Iterable[float]], float] = statistics.median) -> float | None:
        """Of all workers together: that of the median epoch, or `max` for the fastest; None without any."""
        rates = [epoch["rows_per_second"] for epoch in self.epochs]
        return summary(rates) if rates else None

    def to_record(self) -> dict[str, Any]:
        """For the line of JSON."""
        return asdict(self)


def run_job(
    path: Path,
    data: Manifest,
    overrides: Mapping[str, Any],
    timeout: float,
    servers: int = 1,
    coordinators: int = 0,
    show: bool = False,
    config: Path = CONFIG,
    stop: threading.Event | None = None,
    script: Path | None = None,
) -> JobRun:
    """Runs a job once, as a user does, and sees that nothing of it is left.

    Args:
        path: the run directory to make.
        data: the shards; each gets a worker.
        overrides: further keys of the configuration.
        timeout: seconds after which it counts as hung, and is stopped.
        servers, coordinators: how many.
        show: whether the job's own tables are shown as progress.
        config: its configuration, of which the folders of data are replaced.
        stop: once it is set, the job is stopped as one that hung.
        script: a training script of the benchmark's; None for a user's.
    """
    run = RunDirectory(path)
    mark = Mark(ENVIRONMENT_KEY, str(run.path))
    command = job_command(run, data, overrides, servers, coordinators, config, script)
    expected = roles.role_names(data.num_shards, servers, coordinators)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        started, clock = time.time(), time.monotonic()
        launcher = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if show else subprocess.DEVNULL,
            stderr=complaints,
            cwd=PROJECT,
            # Ctrl-C is for the benchmark alone, which stops the job in order.
            start_new_session=True,
        )
        usage, known = Usage(launcher, mark), Known()
        running: dict[str, float] = {}

        def look() -> None:
            for status in roles.read_statuses(run.roles).values():
                if status.state == roles.RUNNING:
                    running[status.role] = status.time
            known.look(all_of(run))

        try:
            watch(launcher, clock + timeout, stop or threading.Event(), usage, look)
            exit_code, seconds = launcher.poll(), time.monotonic() - clock
            statuses = roles.read_statuses(run.roles)
        finally:
            end(launcher)
            leftovers = tuple(sorted(_name(process) for process in mark.processes()))
            mark.end()
        complaints.seek(0)
        said = complaints.read().strip() or "it said nothing"
    failure = None
    if exit_code is None:
        states = (f"{role} {statuses[role].state if role in statuses else 'unheard of'}" for role in expected)
        failure = f"not over after {timeout:g} s: {', '.join(states)}"
    elif exit_code:
        failure = f"exit code {exit_code}: {said}"
    elif leftovers:
        failure = f"processes left: {', '.join(leftovers)}"
    known.look(all_of(run))
    return JobRun(
        exit_code=exit_code,
        seconds=seconds,
        running_after=max(running.values()) - clock if running.keys() >= set(expected) else None,
        peak_pss=usage.peak_pss,
        cpu_per_million=known.cpu_per_million(usage),
        known_after=tuple(moment - started for moment in known.times),
        leftovers=leftovers,
        epochs=tuple(known.epochs),
        failure=f"{path.name}: {failure}" if failure else None,
    )


def run_side_by_side(jobs: Sequence[Callable[[threading.Event], T]], width: int) -> list[T]:
    """Calls the jobs in threads, so many at a time, in their order.

    Args:
        jobs: each gets an event, for `run_job`. If one raises an error, or this process is to end, it is set.
        width: how many at a time.

    Returns:
        what they have returned, in their order.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(width) as pool:
        futures = [pool.submit(job, stop) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def job_command(
    run: RunDirectory,
    data: Manifest,
    overrides: Mapping[str, Any],
    servers: int = 1,
    coordinators: int = 0,
    config: Path = CONFIG,
    script: Path | None = None,
) -> list[str]:
    """What `run_job` starts; see there."""
    command = [*fl_rec_run(config), f"--worker_num={data.num_shards}", f"--server_num={servers}"]
    command += [f"--coordinator_num={coordinators}", *([] if script is None else [f"--script={script}"])]
    return command + job_keys(run, data, overrides, config)


def fl_rec_run(config: Path) -> list[str]:
    """`fl-rec run` of a configuration."""
    # A job starts in the project's folder, where a relative path would name another file.
    return [sys.executable, "-m", "fl_rec.cli", "run", "-m", str(config.resolve())]


def job_keys(run: RunDirectory, data: Manifest, overrides: Mapping[str, Any], config: Path = CONFIG) -> list[str]:
    """The option that gives a job its run directory, its folders of data, and further keys."""
    keys = {
        "runner.run_dir": str(run.path),
        "runner.train_data_dir": str(data.folder / TRAIN_FOLDER),
        "runner.test_data_dir": str(data.folder / TEST_FOLDER),
        **({"runner.validation_data_dir": str(data.folder / VALIDATION_FOLDER)} if _validates(config) else {}),
        **({"distillation.proxy_data_dir": str(data.folder / PUBLIC_FOLDER)} if _distils(config) else {}),
        **overrides,
    }
    return ["-o", *(f"{key}={json.dumps(value)}" for key, value in keys.items())]  # JSON is YAML


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "gone"


def all_of(run: RunDirectory) -> list[dict[str, Any]]:
    """The records of all workers together that a run has so far, one per epoch."""
    return [each for each in run.read_metrics() if each["client"] == ALL] if run.metrics.is_file() else []


# --- Showing -------------------------------------------------------------------------------------------


def median(values: Iterable[float | None]) -> float | None:
    """Of the figures that there are; None without any."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """None if either is missing."""
    return part / whole if part is not None and whole else None


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None of fewer than two figures."""
    return statistics.stdev(values) if len(values) > 1 else None


def titled_table(title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A title and right-aligned columns."""
    return format_table([header, RULE, *lines], title=title)
