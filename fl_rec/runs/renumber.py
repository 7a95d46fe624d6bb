"""Epochs are counted from 1, and were from 0 in runs, models and checkpoints of earlier versions.

Those are read as if they counted from 1: records in `fl_rec.evaluation.records.read_lines`, what lies in a folder by
`from_one`. The names of their folders stay, until a run goes on: `renumber`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_rec.evaluation.records import counts_from_zero, from_one_on
from fl_rec.files import atomic_write, read_json, whole_line, write_json
from fl_rec.runs.directory import RunDirectory

# What a model.json and a checkpoint.json say of how they count.
COUNTED = {"first_epoch": 1}


def from_one(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a model.json or a checkpoint.json says, its epochs counted from 1."""
    epoch = content.get("epoch")
    if COUNTED.items() <= content.items() or type(epoch) is not int or epoch < 0:
        return dict(content)
    found = {**content, **COUNTED, "epoch": epoch + 1}
    if isinstance(identity := content.get("identity"), dict):
        found["identity"] = {**identity, "epoch": epoch + 1}
    if isinstance(best := content.get("best"), list) and best and type(best[0]) is int:
        found["best"] = [best[0] + 1, *best[1:]]
    return found


def renumber(run: RunDirectory, models: Path) -> None:
    """Has a run that counts its epochs from 0 count them from 1; it may be broken off and done again.

    Args:
        models: where its models are.

    Raises:
        DataError: a file can't be read.
        OSError: one can't be written.
    """
    records = run.metrics.read_bytes()
    if not counts_from_zero(_lines(records)):
        return
    _renumber_result(run)
    # The last one first, so that the name after each is free.
    for folder in sorted(_numbered(models) + _numbered(run.checkpoint), key=lambda path: -int(path.name)):
        for path in (folder / "model.json", folder / "checkpoint.json"):
            if path.is_file():
                old = read_json(path)
                new = from_one(old)
                if new != old and (lengths := new.get("lengths")):
                    upto = lengths.get(run.metrics.name, 0)
                    new["lengths"] = {**lengths, run.metrics.name: len(_counted_on(records[:upto]))}
                write_json(path, new)
                folder.rename(folder.parent / str(new["epoch"]))
    with atomic_write(run.metrics) as file:  # last: by it the run is known
        file.write(_counted_on(records))


def _renumber_result(run: RunDirectory) -> None:
    """Has the result, which tells of a model that is still to be renamed, name it as it will be; once."""
    if run.result.is_file() and "format" not in read_json(run.result):
        result = run.read_result()
        model = Path(result.model or "")
        if model.name.isdecimal():
            result = result.model_copy(update={"model": str(model.with_name(str(int(model.name) + 1)))})
        run.write_result(result)


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]


def _counted_on(records: bytes) -> bytes:
    return "".join(json.dumps(from_one_on(line)) + "\n" for line in _lines(records)).encode()


def _lines(records: bytes) -> list[dict[str, Any]]:
    """Those of a metrics.jsonl that are whole."""
    lines = [whole_line(line, "metrics.jsonl") for line in records.decode("utf-8", "replace").splitlines() if line]
    return [line for line in lines if line is not None]
