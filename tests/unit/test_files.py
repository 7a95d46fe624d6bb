"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from fl_rec.errors import DataError
from fl_rec.files import atomic_write, drafted, locked, read_arrays, read_json, write_arrays, write_json


def test_interrupted_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_named_and_not_its_draft(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as caught, atomic_write(tmp_path / "file" / "below"):
        pass
    assert caught.value.filename == str(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as taken, atomic_write(tmp_path / "folder"):
        pass
    assert (taken.value.filename, taken.value.filename2) == (str(tmp_path / "folder"), None)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_a_draft_of_a_killed_writer_gives_nobody_its_mode(tmp_path: Path) -> None:
    draft = tmp_path / f".secret.{os.getpid()}.tmp"
    draft.touch(0o644)
    with atomic_write(tmp_path / "secret", mode=0o600) as file:
        file.write(b"word")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secret").read_bytes() == b"word" and not draft.exists()


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as file:
        other = os.fork()
        if not other:
            with atomic_write(path) as theirs:
                theirs.write(b"child")
            os._exit(0)
        assert os.waitpid(other, 0)[1] == 0
        assert path.read_bytes() == b"child"
        file.write(b"parent")
    assert path.read_bytes() == b"parent" and list(tmp_path.iterdir()) == [path]


def test_json_comes_back_and_is_readable_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"title": "Café"})
    assert (tmp_path / "new" / "a.json").read_text(encoding="utf-8") == '{\n  "title": "Café"\n}\n'
    assert read_json(tmp_path / "new" / "a.json") == {"title": "Café"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "A b.json must be readable JSON. Received: {} (Expecting property name"),
        ("[]", "A b.json must be readable JSON. Received: {} (it holds a list)."),
        (None, "A b.json must be readable JSON. Received: {} ([Errno 2] No such file"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "b.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert str(caught.value).startswith(message.format(path))
    with pytest.raises(DataError, match=r"^The rule\. Received: .*\. The remedy\.$"):
        read_json(path, "The rule.", "The remedy.")


def test_arrays_come_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", {"some": np.arange(3), "number": 7})
    found = read_arrays(tmp_path / "a", "The rule.")
    assert found["some"].tolist() == [0, 1, 2] and int(found["number"]) == 7


def test_a_folder_takes_its_place_when_all_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(OSError, match="full"), drafted(folder) as draft:
        (draft / "new").touch()
        raise OSError("full")
    assert [each.name for each in tmp_path.rglob("*")] == ["folder", "old"]
    with drafted(folder) as draft:
        (draft / "new").touch()
    assert [each.name for each in tmp_path.rglob("*")] == ["folder", "new"]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_arrays_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"^The rule\. Received: .*a\.npz \("):
        read_arrays(tmp_path / "a.npz", "The rule.")


def test_who_comes_to_a_lock_at_the_same_time_waits(tmp_path: Path) -> None:
    path, said = tmp_path / "new" / "lock", []

    def second() -> None:
        with locked(path):
            said.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        said.append("first")
    thread.join(30)
    assert said == ["first", "second"]
