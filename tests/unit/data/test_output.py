"""Two data tools that write one folder at the same time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import fl_rec
from fl_rec.data import prepare, shards
from fl_rec.data.output import writing
from fl_rec.errors import DataError

DEADLINE = 30
SMALL = "synthetic:num_users=20,num_items=30,positives=200"


def test_one_waits_for_the_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = []
    inside, coming = threading.Event(), threading.Event()

    def first() -> None:
        with writing(tmp_path / "out"):
            inside.set()
            coming.wait(DEADLINE)
            coming.clear()
            coming.wait(0.2)  # so long the other would have time
            seen.append("first")

    def second() -> None:
        inside.wait(DEADLINE)
        coming.set()
        with writing(tmp_path / "out"):
            seen.append("second")

    threads = [threading.Thread(target=each, daemon=True) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert seen == ["first", "second"]
    assert caplog.messages == [f"another fl-rec writes {tmp_path / 'out'}: waiting for it"]
    assert list((tmp_path / "out").iterdir()) == []


def held(folder: Path) -> bool:
    """Whether somebody writes there."""
    if not folder.exists():
        return False
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False


def test_a_folder_is_held_from_the_first_file_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, seen = tmp_path / "out", []

    def look(module: Any, name: str) -> None:
        function = getattr(module, name)

        def looked(*args: Any, **kwargs: Any) -> Any:
            seen.append((name, held(out), held(out / "fl_data")))
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, looked)

    for module, name in ((prepare, "make"), (prepare, "write"), (shards, "write_shards"), (prepare, "write_starter")):
        look(module, name)
    fl_rec.prepare(SMALL, out, num_shards=2)
    assert seen == [
        ("make", False, False),
        ("write", True, False),
        ("write_shards", True, True),
        ("write_starter", True, False),
    ]
    assert not held(out) and not held(out / "fl_data")


def test_rows_that_change_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fl_rec.prepare(SMALL, tmp_path / "data")
    read_users = shards.read_users

    def meanwhile(path: Path) -> Any:
        meta = json.loads((data / "meta.json").read_text())
        (data / "meta.json").write_text(json.dumps({**meta, "seed": 1}))
        return read_users(path)

    (data / "meta.json").rename(tmp_path / "meta.json")
    with pytest.raises(
        DataError, match=f"Received: {data}, without meta.json. Let the one end that writes there now, "
    ):
        shards.generate(data, tmp_path / "shards", 2, None, "multislot", 2022)
    (tmp_path / "meta.json").rename(data / "meta.json")
    monkeypatch.setattr(shards, "read_users", meanwhile)
    with pytest.raises(
        DataError, match=f"meanwhile. Received: {data}, which another fl-rec prepare has made anew. Run"
    ):
        shards.generate(data, tmp_path / "shards", 2, None, "multislot", 2022)
    assert not (tmp_path / "shards").exists()
