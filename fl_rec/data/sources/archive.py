"""Files as they come: in a folder or a zip, plain or gzip'd."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from fl_rec.errors import DataError
from fl_rec.packed import check_growth, open_regular, unpacking


@dataclass(frozen=True)
class TableFile:
    """A file that can be read as often as it is opened."""

    name: str
    """Its path, for errors."""
    opened: Callable[[], BinaryIO]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it at its start, unpacked if it is gzip. DataError if it can't be read, now or until it is closed."""
        try:
            with self.opened() as raw:
                yield unpacking(raw)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, UnicodeError) as err:
            raise DataError(
                f"A data file must be readable. Received: {self.name} ({err}). Check path and download."
            ) from err


class Files:
    """A folder's or zip's files, at the top or one folder down (archives wrap theirs in a folder)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if not path.is_dir():
            try:
                self._zip = zipfile.ZipFile(open_regular(path))
            except (OSError, zipfile.BadZipFile, RuntimeError, UnicodeError) as err:
                raise DataError(
                    f"--source must be a folder, a table or a zip. Received: {path} ({err}). Download it again."
                ) from err

    def find(self, *names: str) -> str:
        """Return the path inside of the first of these files that is there, plain or .gz, '' if none is."""
        return next((found for name in names for found in self._all(name, name + ".gz")), "")

    def where(self, name: str) -> str:
        return str(self.path / self.find(name))

    def table(self, name: str) -> TableFile:
        """Return a file. DataError if there is none."""
        found = self.find(name)
        if not found:
            raise DataError(f"This source must hold {name}. Received: {self.path}, which does not.")
        if self._zip is None:
            return _on_disk(self.path / found)
        archive, member = self._zip, self._zip.getinfo(found)
        return TableFile(str(self.path / found), lambda: _opened(archive, member))

    def read(self, name: str) -> bytes:
        """Return a file's content. DataError if there is none, or it can't be read or is empty."""
        file = self.table(name)
        with file.open() as raw:
            content = raw.read()
        if not content.strip():
            raise DataError(f"A data file must hold at least one row. Received: {file.name}, which is empty.")
        return content

    def ending(self, *suffixes: str) -> list[str]:
        """Return the names, without their folders, of all files that end so, or so and .gz."""
        paths = self._inside() if self._zip else [p.name for p in self.path.iterdir() if p.is_file()]
        return sorted(Path(name).name for name in paths if name.removesuffix(".gz").endswith(suffixes))

    def only(self) -> str:
        """Return the name of the only file of a zip. DataError if there are others."""
        names = self._inside()
        if len(names) != 1:
            raise DataError(
                f"A zip in no known layout must hold one table. Received: {self.path} with "
                f"{', '.join(names[:5]) or 'no file'}. Unpack it, and name the file with the interactions."
            )
        return Path(names[0]).name

    def _inside(self) -> list[str]:
        """The files of a zip, without folders and what macOS adds."""
        names = self._zip.namelist() if self._zip else []
        return [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]

    def _all(self, *names: str) -> list[str]:
        """Return the paths inside of the files of these names, the least deep first."""
        if self._zip is None:
            found = [each for name in names for each in (self.path / name, *sorted(self.path.glob(f"*/{name}")))]
            return [path.relative_to(self.path).as_posix() for path in found if path.is_file()]
        deepest = names[0].count("/") + 1
        inside = [n for n in self._inside() if any(n == name or n.endswith("/" + name) for name in names)]
        return sorted((n for n in inside if n.count("/") <= deepest), key=lambda n: (n.count("/"), n))


def table_file(path: Path) -> TableFile:
    """A table by its path; of a zip the only file inside. DataError if it is a zip of several."""
    if path.suffix == ".zip":
        files = Files(path)
        return files.table(files.only())
    return _on_disk(path)


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    check_growth(member)
    return cast(BinaryIO, archive.open(member))


def _on_disk(path: Path) -> TableFile:
    return TableFile(str(path), lambda: open_regular(path))
