"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec import files
from fl_rec.errors import DataError
from fl_rec.files import (
    atomic_write,
    begin_draft,
    draft_of,
    drafted,
    last_bytes,
    locked,
    publish,
    read_arrays,
    read_json,
    recover,
    seal,
    verify,
    write_arrays,
    write_json,
)


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


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has come to the disk, in order."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    return synced


def test_what_is_written_is_on_the_disk(tmp_path: Path, synced: list[str]) -> None:
    write_json(tmp_path / "a.json", {})
    assert synced == [f"{tmp_path}/.a.json.{os.getpid()}.tmp", str(tmp_path)], "the content, and then the name"
    synced.clear()
    write_json(tmp_path / "b.json", {}, sync=False)
    assert synced == []
    with drafted(tmp_path / "folder") as draft:
        (draft / "below").mkdir()
        (draft / "below" / "file").touch()
    names = [str(Path(each).relative_to(tmp_path)) for each in synced]
    assert sorted(names[:3]) == [".folder.tmp", ".folder.tmp/below", ".folder.tmp/below/file"] and names[3:] == ["."]


def test_what_does_not_come_to_the_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_json(tmp_path / "a.json", {"old": 1})
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_json(tmp_path / "a.json", {"new": 1})
    assert read_json(tmp_path / "a.json") == {"old": 1} and len(list(tmp_path.iterdir())) == 1


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


def test_the_end_of_a_file_costs_no_more_than_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"abc")
    assert (last_bytes(path, 2), last_bytes(path, 9)) == (b"bc", b"abc")
    os.truncate(path, 1 << 40)
    assert last_bytes(path, 2) == b"\0\0"


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


@pytest.mark.parametrize("swapped", [True, False])
def test_a_folder_is_replaced_with_all_that_is_in_it(
    tmp_path: Path, swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system can't swap two folders too."""
    if not swapped:
        monkeypatch.setattr(files, "_exchange", lambda _one, _other: False)
    folder = tmp_path / "folder"
    for name in ("old", "new"):
        with drafted(folder, 0o700) as draft:
            (draft / "below").mkdir()
            (draft / "below" / name).touch()
    assert [str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")] == [
        "folder",
        "folder/below",
        "folder/below/new",
    ]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_two_change_places_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no moment without the folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (begin_draft(folder) / "new").touch()
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("a moment without it"))
    publish(folder)
    assert (folder / "new").exists() and not draft_of(folder).exists()


def test_a_folder_is_there_again_whose_replacing_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "folder", os.rename
    folder.mkdir()
    (folder / "old").touch()
    begin_draft(folder)
    monkeypatch.setattr(files, "_exchange", lambda _one, _other: False)

    def full(source: Path, target: Path) -> None:
        if source == draft_of(folder):
            raise OSError("full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="full"):
        publish(folder)
    assert (folder / "old").exists()

    def killed(source: Path, target: Path) -> None:
        if source == draft_of(folder):
            os._exit(9)
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    if not (child := os.fork()):
        publish(folder)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9 and not folder.exists()
    monkeypatch.undo()
    recover(folder)
    recover(folder)
    assert (folder / "old").exists()


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "private").mkdir(parents=True)
    (folder / "values").write_bytes(b"12345")
    (folder / "private" / "0").write_bytes(b"own")
    seal(folder, "all.json", {"identity": {"epoch": 3}}, 0o600)
    return folder


def check(folder: Path, **options: Any) -> dict[str, Any]:
    return verify(folder, "all.json", "The rule.", "The remedy.", **options)


def test_what_is_sealed_is_as_it_was(sealed: Path) -> None:
    content = check(sealed)
    assert content["identity"] == {"epoch": 3}
    assert {name: size for name, (size, _) in content["files"].items()} == {"values": 5, "private/0": 3}
    assert (sealed / "all.json").stat().st_mode & 0o777 == 0o600
    (sealed / "notes").touch()
    assert check(sealed) == content, "what lies beside it is no part of it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"12346", "values, whose content is not that of the checksum in all.json. The remedy."),
        (b"123", "values, which has 3 bytes, and 5 in all.json. The remedy."),
        (None, "values, which can't be read (No such file or directory), and is listed in all.json. The remedy."),
    ],
)
def test_what_was_changed_since_is_named(sealed: Path, content: bytes | None, message: str) -> None:
    if content is None:
        (sealed / "values").unlink()
    else:
        (sealed / "values").write_bytes(content)
    with pytest.raises(DataError) as caught:
        check(sealed)
    assert str(caught.value) == f"The rule. Received: {sealed}/{message}"
    assert check(sealed, wanted=lambda name: name.startswith("private/")), "which is as it was"


@pytest.mark.parametrize(
    "content",
    [
        {"identity": {}},
        {"files": {}},
        {"identity": [], "files": {}},
        {"identity": {}, "files": []},
        {"identity": {}, "files": {"values": 5}},
        {"identity": {}, "files": {"values": [5]}},
        {"identity": {}, "files": {"values": ["5", "a"]}},
        {"identity": {}, "files": {"values": [True, "a"]}},
        {"identity": {}, "files": {"../values": [5, "a"]}},
        {"identity": {}, "files": {"/etc/passwd": [5, "a"]}},
    ],
)
def test_a_seal_that_says_nothing(sealed: Path, content: dict[str, Any]) -> None:
    write_json(sealed / "all.json", content)
    with pytest.raises(
        DataError, match=r"all\.json, which does not list the files and of what they are\. The remedy\.$"
    ):
        check(sealed)


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


def test_lines_of_several_processes_are_whole_and_none_is_empty(tmp_path: Path) -> None:
    path, line = tmp_path / "lines", "x" * 3000  # some of them lie on two pages

    def add() -> None:
        for _ in range(300):
            files.append_line(path, line)

    processes = [multiprocessing.get_context("fork").Process(target=add) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert path.read_text().splitlines() == 900 * [line]
