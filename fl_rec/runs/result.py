"""result.json: how a job ended, with what it was begun, and what it came to. `RunResult` is its schema."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fl_rec.files import read_json
from fl_rec.outside import Count, Number, Share, as_typed

NAME = "result.json"
State = Literal["done", "failed", "interrupted"]
DONE: Final = "done"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
_RULE = "A result tells how the job ended."
# Of `metrics.jsonl`, whose top_k says what they are at.
_AT_K = ("hr", "ndcg", "validation_hr", "validation_ndcg")


@dataclass(frozen=True)
class Versions:
    """Of what trained: `commit` is that of the clone which the package lies in, with "-dirty" if it was changed."""

    fl_rec: str
    paddle: str | None
    python: str
    commit: str | None = None


@dataclass(frozen=True)
class Data:
    """The training shards' `folder`, from the run's; the SHA-256 of their manifest, if they have one."""

    folder: str
    checksum: str | None = None


@dataclass(frozen=True)
class Began:
    """What is known of a job when it begins.

    Attributes:
        started: when, ISO 8601 with its zone.
        clock: the same, in seconds since the machine's boot.
        command: the command line.
        popularity: see `RunResult`.
    """

    started: str
    clock: Number
    command: str
    versions: Versions
    data: Data
    popularity: Mapping[str, Share] | None = None


def _key(meaning: str, default: Any = None) -> Any:
    return Field(default=default, description=meaning)


class RunResult(BaseModel):
    """result.json. Paths are from the run's folder; null is what nobody knows, or there is not.

    `last`, `best` and each of `epochs` have the figures of all clients together by their names: epoch (from 1), rows,
    seconds (of training, the slowest client's), rows_per_second, train_loss, train_auc, test_auc, test_users,
    test_tied, hr@K and ndcg@K such as `hr@10`, with validation shards validation_hr@K and validation_ndcg@K, with
    differential privacy epsilon, and what a trainer of one's own has added.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[2] = 2
    state: State = _key("interrupted: by a signal, or by who looked at it", ...)
    started: str | None = _key("ISO 8601 with zone; the last start of a run that was resumed")
    ended: str | None = _key("ISO 8601 with zone")
    seconds: Number | None = _key("from start to end")
    start_seconds: Number | None = _key("from the start until all clients could train")
    command: str | None = _key("the command line")
    versions: Versions | None = _key("of what trained")
    data: Data | None = _key("the training shards")
    workers: Count | None = _key("clients that trained")
    servers: Count | None = _key("parameter servers")
    coordinators: Count | None = _key("coordinators")
    popularity: dict[str, Share] | None = _key("hr@K and ndcg@K of ranking by the items' training counts in all shards")
    model: str | None = _key("folder of the model that is kept: the best epoch's, or the last one's")
    best: dict[str, Any] | None = _key("figures of the epoch that the validation shards chose")
    last: dict[str, Any] | None = _key("figures of the last epoch")
    epochs: list[dict[str, Any]] = _key("figures of each epoch", [])
    role: str | None = _key("who failed, such as worker.3")
    kind: Literal["died", "frozen", "failed"] | None = _key("how")
    error: str | None = _key("why it has not come to its end")
    log: str | None = _key("the log of who failed")
    local_step: dict[str, Any] | None = _key("how clients trained: name, and why_not_compiled")
    privacy: dict[str, Any] | None = _key("what differential privacy has spent, and its settings")

    @classmethod
    def read(cls, folder: Path) -> RunResult:
        """That of a run's folder, also of one that an earlier version has written.

        Raises:
            DataError: it can't be read, or does not tell.
        """
        content = read_json(folder / NAME)
        return as_typed(cls, content if "format" in content else _from_before(content, folder), _RULE, folder / NAME)

    @property
    def kept(self) -> Mapping[str, Any] | None:
        """The figures of the epoch whose model is kept."""
        return self.best or self.last

    def __getitem__(self, name: str) -> Any:
        """As of the JSON's mapping."""
        if name not in type(self).model_fields:
            raise KeyError(name)
        value = getattr(self, name)
        return asdict(value) if isinstance(value, Versions | Data) else value

    def get(self, name: str, default: Any = None) -> Any:
        """As of the JSON's mapping."""
        return self[name] if name in type(self).model_fields else default

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl, of all clients together, by the names of `RunResult`."""
    names = {name: f"{name}@{record.get('top_k')}" for name in _AT_K}
    return {names.get(name, name): value for name, value in record.items() if name not in ("client", "top_k")}


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def result_of(
    state: State, folder: Path, began: Began | None, totals: Sequence[Mapping[str, Any]], best: int | None, **more: Any
) -> RunResult:
    """A result as of now.

    Args:
        folder: the run's.
        totals: lines of metrics.jsonl of all clients together, by epoch.
        best: the epoch that the validation shards chose.
        more: further fields; paths of any kind.
    """
    epochs = [figures(each) for each in totals]
    known = {} if began is None else {name: each for name, each in vars(began).items() if name != "clock"}
    for name in ("model", "log"):
        if more.get(name) is not None:
            more[name] = os.path.relpath(more[name], folder)
    return RunResult(
        state=state,
        ended=now(),
        seconds=None if began is None else round(time.monotonic() - began.clock, 3),
        best=next((each for each in epochs if each["epoch"] == best), None),
        last=epochs[-1] if epochs else None,
        epochs=epochs,
        **{**known, **more},
    )


def _from_before(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The first version's: absolute paths, `hr` with its top_k, a `best` without anything to choose it by, epochs from
    0 in the oldest ones."""
    told = {name: each for name, each in content.items() if name in RunResult.model_fields}
    lines = told.get("epochs")
    lines = lines if isinstance(lines, list) and all(isinstance(each, dict) for each in lines) else []
    from_zero = any(each.get("epoch") == 0 for each in lines)

    def renamed(line: Any) -> Any:
        if not isinstance(line, dict):
            return None
        epoch = line.get("epoch")
        return figures({**line, "epoch": epoch + 1} if from_zero and type(epoch) is int else line)

    told["epochs"], told["last"] = [renamed(each) for each in lines], renamed(told.get("last"))
    best = told.get("best")
    told["best"] = renamed(best) if isinstance(best, dict) and "validation_ndcg" in best else None
    for name in ("model", "log"):
        path = told.get(name)
        if isinstance(path, str) and os.path.isabs(path) and "\0" not in path:
            # Of a run that was moved, the model has moved with it.
            moved = folder / "model" / Path(path).name
            told[name] = os.path.relpath(moved if name == "model" and moved.is_dir() else path, folder)
    return told
