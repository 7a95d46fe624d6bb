"""A project's runs: what each is, how far and how well it came, and how one is named in short."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import EpochRecord, from_one, parse_line, records_of
from fl_rec.packed import open_regular
from fl_rec.runs import roles
from fl_rec.runs.directory import RUNS, Launch, RunDirectory

# States beside those that a result tells.
TRAINING, KILLED, UNREADABLE = "training", "killed", "unreadable"
# Bytes in which a run's `job` has its owner.
_LONGEST_OWNER = 1 << 12
# What `default_path` adds to a configuration's name.
_ADDED = re.compile(r"-\d{8}-\d{6}-\d+(-\d+)?$")


@dataclass(frozen=True)
class Listed:
    """One run.

    Attributes:
        run: its folder.
        short: what names it among the runs of its project: the end of its folder's name.
        configuration: the configuration's name, or else the folder's without what was added to a name.
        overrides: what -o said when it was started last.
        state: a result's, or "training", "killed" (it has ended without a word) or "unreadable".
        epochs: of all clients together, in order.
        error: why it failed; "" if it has not.
        started: in seconds since 1970.
        popularity: what ranking by popularity comes to on its data, by figures' names such as hr@10.
        size: bytes that its folder takes on the disk.
    """

    run: RunDirectory
    short: str
    configuration: str
    overrides: tuple[str, ...]
    state: str
    epochs: tuple[EpochRecord, ...]
    error: str
    started: float
    popularity: Mapping[str, float]
    size: int = 0

    @property
    def kept(self) -> EpochRecord | None:
        """The figures of the epoch that is kept: the best on the validation shards, or without them the last one."""
        validated = [each for each in self.epochs if each.validation_ndcg == each.validation_ndcg]
        return (
            max(validated, key=lambda each: each.validation_ndcg) if validated else next(iter(self.epochs[::-1]), None)
        )


def list_runs(project: Path = Path()) -> list[Listed]:
    """The runs of a project, the newest last. What can't be read of one is left out of it.

    Args:
        project: the folder in which `runs` lies, or that folder itself.
    """
    folder = project / RUNS if (project / RUNS).is_dir() else project
    paths = sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
    with measuring(paths) as sizes:
        runs = [_listed(path, short) for path, short in zip(paths, shortened([path.name for path in paths]))]
        found = [replace(run, size=size) for run, size in zip(runs, sizes())]
    return sorted(found, key=lambda each: (each.started, each.run.path.name))


def open_run(path: Path) -> Listed:
    """One run."""
    return _listed(path, path.name)


def find_run(name: str | Path, project: Path = Path()) -> Path:
    """The folder of a run that is named by its path, or by the end of its name in a project's `runs`.

    Raises:
        DataError: there is none, or several.
    """
    if RunDirectory(Path(name)).metrics.is_file():
        return Path(name)
    paths = sorted(path.parent for path in (project / RUNS).glob("*/metrics.jsonl"))
    same = [path for path in paths if path.name == str(name)] or [p for p in paths if p.name.endswith(f"-{name}")]
    if len(same) == 1:
        return same[0]
    found = ", ".join(path.name for path in same) or f"none of the {len(paths)} in {(project / RUNS).resolve()}"
    raise DataError(
        f"A run is named by its folder, or by the end of its name in runs/. Received: {name}, which is {found}. "
        "fl-rec runs lists them."
    )


def newest(project: Path = Path()) -> Path:
    """The folder of a project's newest run. DataError if it has none."""
    found = sorted((project / RUNS).glob("*/job"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise DataError(
            f"The newest run in {RUNS}/ is taken if none is named. Received: {(project / RUNS).resolve()}, which has "
            "none. Name one, or go to the project's folder."
        )
    return found[-1].parent


def named(path: Path) -> Path:
    """The run that a path, or the end of a name in `runs`, names; what names none as it is."""
    with suppress(DataError):
        return path if path.exists() else find_run(path)
    return path


def shortened(names: Sequence[str]) -> list[str]:
    """The shortest end of each name, in parts between dashes, that no other name has."""
    ends: dict[str, int] = {}
    for name in names:
        for end in _ends(name):
            ends[end] = ends.get(end, 0) + 1
    return [next((end for end in _ends(name) if ends[end] == 1), name) for name in names]


def goes_on(run: RunDirectory) -> bool:
    """Whether a launcher or a role of a run is there."""
    with suppress(OSError, ValueError, DataError):
        with open_regular(run.path / "job") as file:
            owner = file.read(_LONGEST_OWNER).decode("utf-8").split()
        if len(owner) > 2 and roles.started(int(owner[0])) == " ".join(owner[1:3]):
            return True
    with suppress(DataError):
        return any(status.process() is not None for status in roles.read_statuses(run.roles).values())
    return False


@contextmanager
def measuring(folders: Sequence[Path]) -> Iterator[Callable[[], list[int]]]:
    """Has du measure folders meanwhile; what is yielded waits for it.

    Yields:
        the bytes that each takes on the disk; 0 of one that has vanished.
    """
    command = ["du", "-sk0", "--", *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as du:

        def sizes() -> list[int]:
            lines = (line.partition("\t") for line in du.communicate()[0].split("\0")[:-1])
            found = {path: 1024 * int(kilobytes) for kilobytes, _, path in lines}
            return [found.get(str(folder), 0) for folder in folders]

        yield sizes


def _ends(name: str) -> list[str]:
    # Of a name that a user gave, nothing is cut.
    parts = name.split("-") if _ADDED.search(name) else [name]
    return ["-".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _listed(path: Path, short: str) -> Listed:
    run = RunDirectory(path)
    marker = path / "job"
    started = (marker if marker.exists() else run.metrics).stat().st_mtime
    state, error = "", ""
    began = None
    with suppress(DataError):  # an earlier version's has none
        began = Launch.read(run).began
    file, overrides = typed(began.command if began else "")
    popularity = (began.popularity if began else None) or {}
    try:
        if run.result.is_file():
            result = run.read_result()
            state, error = result.state, ": ".join(filter(None, (result.role, result.error)))
        epochs = _totals(run)
    except (DataError, OSError) as err:
        state, error, epochs = UNREADABLE, str(err), ()
    if not state:
        state = TRAINING if goes_on(run) else KILLED
    name = Path(file).stem or _ADDED.sub("", path.name)
    return Listed(run, short, name, overrides, state, epochs, error, started, popularity)


def typed(command: str) -> tuple[str, tuple[str, ...]]:
    """The name of the configuration's file that a command line has, "" if it has none, and its overrides."""
    file, overrides, option = "", [], ""
    words: list[str] = []
    with suppress(ValueError):  # no command line: a quotation without its end
        words = shlex.split(command)
    for word in words:
        option = word if word.startswith("-") else option
        if option in ("-m", "--config_yaml") and word.endswith((".yaml", ".yml")):  # and no module, as of python -m
            file = Path(word).name
        elif option in ("-o", "--opt") and word != option:
            overrides.append(word)
    return file, tuple(overrides)


def _totals(run: RunDirectory) -> tuple[EpochRecord, ...]:
    """As `read_totals`, typed, without looking at each client's lines."""
    with open_regular(run.metrics) as file:
        text = file.read().decode("utf-8", "replace").split("\n")
    written = [(number, line) for number, line in enumerate(text, 1) if f'"{ALL}"' in line]
    lines = [parse_line(line, f"{run.metrics}, line {number}") for number, line in written]
    totals = from_one([line for line in lines if line is not None and line["client"] == ALL])
    by_epoch = {line["epoch"]: line for line in totals}
    return tuple(records_of([by_epoch[epoch] for epoch in sorted(by_epoch)]))
