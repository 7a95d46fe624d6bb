"""What a run is resumed from: all that training goes on with, as it was at the end of an epoch. No Paddle is imported.

RUN/checkpoint/EPOCH/shared.npz        what the servers held, by parameter
RUN/checkpoint/EPOCH/worker/K.npz      what worker K needs beside that, as only this user may read it: its private rows,
                                       its optimizers' moments, its place in its rows
RUN/checkpoint/EPOCH/coordinator/      files of the coordinator's strategy, such as a teacher
RUN/checkpoint/EPOCH/checkpoint.json   of which run, net and data it is, checksums, how long the records were

The workers write a draft of the folder together, each its own file. The first of them seals it and puts it in its
place. On several hosts those of each host do, in the folder of the run that is there, and the coordinator does where
no worker is.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Strict

from fl_rec.errors import DataError
from fl_rec.files import atomic_write, begin_draft, draft_of, publish, read_arrays, seal, verify, write_arrays
from fl_rec.outside import Count, Inside, Number, as_typed
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.renumber import COUNTED

SEAL, SHARED, WORKERS, COORDINATOR = "checkpoint.json", "shared.npz", "worker", "coordinator"
_RULE = "A checkpoint must be whole."
_OTHERS = "Remove it, and fl-rec resume takes the one before, or begins anew."


@dataclass(frozen=True)
class _Content:
    """A checkpoint.json, beside the checksums."""

    epoch: Count
    best: tuple[Annotated[int, Strict()], Number | None]
    lengths: Mapping[Inside, Count]


@dataclass(frozen=True)
class TrainingState:
    """A checkpoint.

    Attributes:
        folder: where it is.
        content: its checkpoint.json.
    """

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, run: RunDirectory, epoch: int, worker: int | None = None) -> TrainingState:
        """That of an epoch. DataError if it is not whole.

        Args:
            worker: who goes by it, and has others look at the others' parts; None for all.
        """
        folder, own = run.checkpoint / str(epoch), f"{WORKERS}/{worker}.npz"
        content = verify(folder, SEAL, _RULE, _OTHERS, lambda file: worker is None or file in (SHARED, own))
        if as_typed(_Content, content, _RULE, folder / SEAL, _OTHERS).epoch != epoch:
            raise DataError(f"{_RULE} Received: {folder / SEAL}, of another epoch. {_OTHERS}")
        return cls(folder, content)

    @property
    def epoch(self) -> int:
        """At whose end it was."""
        return int(self.content["epoch"])

    @property
    def best(self) -> tuple[int, float]:
        """The epoch whose model was the best, and its figure; NaN if there was none."""
        epoch, figure = self.content["best"]
        return epoch, math.nan if figure is None else figure

    def shared(self) -> dict[str, np.ndarray]:
        return read_arrays(self.folder / SHARED, _RULE)

    def own(self, worker: int) -> dict[str, dict[str, np.ndarray]]:
        """What a worker kept, part by part; see `write_own`."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, values in read_arrays(self.folder / WORKERS / f"{worker}.npz", _RULE).items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = values
        return parts


def write_shared(run: RunDirectory, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Begins a checkpoint with what all workers share, and what the coordinator's strategy keeps. OSError."""
    draft = begin_draft(run.checkpoint / str(epoch), 0o700)
    (draft / WORKERS).mkdir(0o700)
    write_arrays(draft / SHARED, arrays, sync=False)
    _copy_strategys(run, draft)


def write_coordinators(run: RunDirectory, epoch: int, identity: Mapping[str, Any], keep: int) -> None:
    """A whole checkpoint of a host where the coordinator is and no worker: before it decides an epoch's round. OSError.

    Args:
        identity, keep: see `content` and `complete`.
    """
    _copy_strategys(run, begin_draft(run.checkpoint / str(epoch), 0o700))
    complete(run, epoch, content(run, epoch, (0, math.nan), identity), keep)


def _copy_strategys(run: RunDirectory, draft: Path) -> None:
    for path in strategy_files(run):
        (draft / COORDINATOR).mkdir(exist_ok=True)
        shutil.copyfile(path, draft / COORDINATOR / path.name)


def write_own(run: RunDirectory, epoch: int, worker: int, parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Adds a worker's own part, when the first worker has called `write_shared`. OSError.

    Args:
        parts: arrays by their names, by the part of the worker that they are of.
    """
    arrays = {f"{part}/{name}": values for part, own in parts.items() for name, values in own.items()}
    write_arrays(draft_of(run.checkpoint / str(epoch)) / WORKERS / f"{worker}.npz", arrays, 0o600, sync=False)


def content(run: RunDirectory, epoch: int, best: tuple[int, float], identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint's `SEAL` says of a run as it is now.

    Args:
        best: see `TrainingState`.
        identity: of the run, its net and its data.
    """
    return {
        "identity": {**identity, "epoch": epoch},
        **COUNTED,
        "epoch": epoch,
        "best": [best[0], best[1] if math.isfinite(best[1]) else None],
        "lengths": {path.name: path.stat().st_size for path in run.records if path.is_file()},
    }


def complete(run: RunDirectory, epoch: int, content: Mapping[str, Any], keep: int) -> None:
    """Ends a checkpoint that all workers have written to, and removes the oldest ones. OSError.

    Args:
        content: see the function of that name.
        keep: how many stay.
    """
    folder = run.checkpoint / str(epoch)
    seal(draft_of(folder), SEAL, content)
    publish(folder)
    for old in epochs(run)[:-keep]:
        shutil.rmtree(run.checkpoint / str(old), ignore_errors=True)


def is_due(epoch: int, interval: int, epochs: int) -> bool:
    """Whether an epoch ends with a checkpoint: every `interval`-th does, and the last; 0: none."""
    return bool(interval) and epoch <= epochs and (epoch % interval == 0 or epoch == epochs)


def epochs(run: RunDirectory) -> list[int]:
    """Of which there are checkpoints, ascending."""
    return sorted(int(path.parent.name) for path in run.checkpoint.glob(f"*/{SEAL}") if path.parent.name.isdecimal())


def newest(run: RunDirectory) -> TrainingState | None:
    """The last checkpoint that is whole; None if there is none."""
    return next(_whole(run), None)


def whole(run: RunDirectory) -> list[int]:
    """The epochs of all that are whole, ascending. On several hosts all go on from one that each of them has."""
    return sorted(state.epoch for state in _whole(run))


def _whole(run: RunDirectory) -> Iterator[TrainingState]:
    for epoch in reversed(epochs(run)):
        with suppress(DataError):
            yield TrainingState.read(run, epoch)


def strategy_files(run: RunDirectory) -> list[Path]:
    """What the coordinator's strategy keeps in the run's folder; what it is writing just now has a hidden name."""
    return sorted(path for path in run.coordinator.glob("[!.]*") if path.is_file() and path.name != "address.json")


def go_back(run: RunDirectory, to: TrainingState | None) -> None:
    """Has a run's folder be as it was when a checkpoint was complete, or before the first epoch.

    What the broken attempt has written besides goes to log/before-N: logs, statuses and its result. It may be broken
    off at any moment and done again.

    Args:
        to: a checkpoint; those of later epochs are removed. None: the beginning.

    Raises:
        DataError: a record is shorter than it was then.
        OSError: something can't be written.
    """
    for epoch in epochs(run):
        # On several hosts one may have been further; what comes now may come out otherwise.
        if epoch > (to.epoch if to else 0):
            shutil.rmtree(run.checkpoint / str(epoch))
    run.set_aside()
    lengths = to.content["lengths"] if to else {}
    for path in run.records:
        if path.is_file():
            _cut(path, lengths.get(path.name, 0))
    for path in (*strategy_files(run), *run.coordinator.glob(".*.tmp")):
        path.unlink()
    for path in to.folder.glob(f"{COORDINATOR}/*") if to else ():
        with atomic_write(run.coordinator / path.name) as file:
            file.write(path.read_bytes())


def _cut(path: Path, length: int) -> None:
    size = path.stat().st_size
    if size < length:
        raise DataError(
            f"A run that is resumed has its records. Received: {path} of {size:,} bytes, of which there were "
            f"{length:,} when its checkpoint was written. Copy a run with all of its files."
        )
    with open(path, "rb") as file:
        content = file.read(length)
    with atomic_write(path) as file:
        file.write(content)
