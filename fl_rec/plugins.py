"""What users name in a configuration or on a command line: something built in, or a class or function of their own."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from fl_rec.errors import ConfigError

T = TypeVar("T")
# Folders that are on sys.path for users' files.
_folders: set[str] = set()


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All that may be named in one place: what is built in, by name, and a user's own, `module:Name` or `file.py:Name`.

    Attributes:
        what: what each of them is, for errors, such as "a loss".
        key: the setting that names one, for errors, such as "hyper_parameters.loss".
        known: what is built in: the thing itself, or its `module:Name`, which is imported when it is asked for.
        base: `module:Class`, as users import it, whose subclasses the things are; None if they are functions.
    """

    what: str
    key: str
    known: Mapping[str, T | str]
    base: str | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def find(self, name: str, folder: Path | None = None, key: str | None = None) -> T:
        """The thing of a name.

        Args:
            name: as the user wrote it.
            folder: where a relative path starts; None for the working directory.
            key: the setting that names it, if it is another than usual.

        Raises:
            ConfigError: there is none of that name, it can't be imported, or it is something else.
        """
        self.locate(name, folder, key)
        entry = self.known.get(name, name)
        found = load(entry, self.what, folder) if isinstance(entry, str) else entry
        self._check(found, name, key or self.key)
        return found

    def locate(self, name: str, folder: Path | None = None, key: str | None = None) -> None:
        """ConfigError if nothing can be of that name; a user's own is not imported. For the arguments see `find`."""
        key = key or self.key
        if name not in self.known and ":" not in name:
            kind = "function" if self.base is None else "Class"
            hint = did_you_mean(name, self.known) or f"Your own is named module:{kind} or file.py:{kind}."
            raise ConfigError(
                f"{key} must be one of {', '.join(self.known)}, or module:{kind}. Received: {name!r}. {hint}"
            )
        _require_file(name, self.what, folder)

    def _check(self, found: Any, name: str, key: str) -> None:
        if self.base is None:
            if not callable(found):
                raise ConfigError(
                    f"{_capital(self.what)} must be a function. Received: {name!r}, {type(found).__name__}."
                )
            return
        if not (isinstance(found, type) and issubclass(found, load(self.base, self.what))):
            base = self.base.replace(":", ".")
            raise ConfigError(f"{key} must be a subclass of {base}. Received: {name!r}, {found!r}.")
        missing = sorted(getattr(found, "__abstractmethods__", ()))
        if missing:
            raise ConfigError(
                f"{_capital(self.what)} has the method {', '.join(missing)}. Received: {name!r}, which has not."
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like it; '' if none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question for an error's end; '' if no known name is like it."""
    near = nearest(name, known)
    return f"Did you mean {near}?" if near else ""


def where_raised(err: BaseException) -> str:
    """The file and line at which a user's code failed, not those of a library that it called, in parentheses after a
    space, for an error's end; "" if no code of a user's had a part in it."""
    frames = reversed(traceback.extract_tb(err.__traceback__))
    at = next((each for each in frames if _is_a_users(each.filename)), None)
    return f" ({Path(at.filename).name}, line {at.lineno})" if at else ""


def _is_a_users(file: str) -> bool:
    libraries = (str(Path(__file__).parent), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
    return not file.startswith(("<", *(f"{each}{os.sep}" for each in libraries)))


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """A name and its options, written on a command line as `name:key=value,key=value`.

    Raises:
        ConfigError: a part between commas is no key=value.
    """
    found = re.fullmatch(r"(.*?):([^\W\d]\w*=.*)", text)
    if not found:
        return text, {}
    options = {}
    for part in found[2].split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"Options are written as name:key=value,key=value. Received: {part!r} in {text!r}.")
        options[key.strip()] = value.strip()
    return found[1], options


def load(name: str, what: str, folder: Path | None = None) -> Any:
    """The object called `module:Name` or `path/to/file.py:Name`.

    Args:
        name: as the user wrote it.
        what: what it must be, for errors, such as "a partitioner".
        folder: where a relative path starts; None for the working directory.

    Raises:
        ConfigError: there is no such thing, or it can't be imported.
    """
    source, _, attribute = name.rpartition(":")
    path = _require_file(name, what, folder)
    try:
        module = load_file(path) if path else importlib.import_module(source)
        return getattr(module, attribute)
    except SyntaxError as err:
        raise ConfigError(
            f"{_capital(what)} must be importable. Received: {name!r}; {err.filename}, line {err.lineno}: {err.msg}."
        ) from err
    except Exception as err:  # a user's file may fail in any way while it is imported
        raise ConfigError(
            f"{_capital(what)} must be importable. Received: {name!r} ({err!r}). "
            "Give module:name, importable (PYTHONPATH), or path/to/file.py:name."
        ) from err


def absolute(name: str, folder: Path) -> str:
    """A user's `file.py:name` with the file's whole path; any other name as it is."""
    source, _, attribute = name.rpartition(":")
    if not source.endswith(".py"):
        return name
    return f"{path_from(folder, source).resolve()}:{attribute}"


def path_from(folder: Path, written: str) -> Path:
    """A path that somebody wrote; with `~` as it is where there is no such home, as for a user whom no file knows."""
    return folder / os.path.expanduser(written)


def check_imports(path: Path, what: str, folders: Iterable[Path] = ()) -> None:
    """Looks whether a user's file can be imported, without importing what it imports, such as Paddle.

    Of it and of its neighbours the imports are looked at that stand under no condition and in no function.

    Args:
        what: as of `load`.
        folders: where modules are looked for besides its own folder and `sys.path`.

    Raises:
        ConfigError: it is no Python, or a module is not there.
    """
    own = path.resolve().parent
    where, known = [str(own), *map(str, folders)], set(sys.modules) | set(sys.builtin_module_names)
    files = [path]
    for file in files:
        try:
            statements = ast.parse(file.read_bytes()).body
        except SyntaxError as err:
            raise ConfigError(
                f"{_capital(what)} must be Python. Received: {file}, line {err.lineno}: {err.msg}."
            ) from err
        if b"sys.path" in file.read_bytes():
            continue  # it may look anywhere
        for line, name in _imported(statements):
            if name in known:
                continue
            known.add(name)
            spec = PathFinder.find_spec(name, where) or importlib.util.find_spec(name)
            if spec is None:
                raise ConfigError(
                    f"{_capital(what)} must be importable. Received: {file}, line {line}: there is no module {name!r}. "
                    "Put it beside the file, install it, or name its folder in PYTHONPATH."
                )
            if spec.origin and Path(spec.origin).parent == own and spec.origin.endswith(".py"):
                files.append(Path(spec.origin))


def told_apart(path: Path) -> str:
    """A user's file by its name, and a checksum of it and of those of its folder that it imports, wherever it does.

    Raises:
        OSError: one can't be read.
    """
    files = [path.resolve()]
    for file in files:
        with suppress(SyntaxError, ValueError):  # who imports it says so
            for _, name in _imported(ast.walk(ast.parse(file.read_bytes()))):
                beside = file.with_name(f"{name}.py")
                files += [beside] if beside.is_file() and beside not in files else []
    content = sorted((file.name, file.read_bytes()) for file in files)
    beside_it = f" with {', '.join(file.name for file in files[1:4])}{', ...' * (len(files) > 4)}" * (len(files) > 1)
    return f"{path.name}{beside_it} (checksum {hashlib.sha256(repr(content).encode()).hexdigest()[:12]})"


def _imported(statements: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """The line and the outermost package of each import."""
    for each in statements:
        if isinstance(each, ast.Import):
            yield from ((each.lineno, alias.name.partition(".")[0]) for alias in each.names)
        elif isinstance(each, ast.ImportFrom) and each.module and not each.level:
            yield each.lineno, each.module.partition(".")[0]


def import_from(folder: Path, first: bool = True) -> None:
    """Has a user's file import modules of a folder, also where one of the same name, such as net.py, was another's.

    Args:
        first: look there before anywhere else, and not after.
    """
    name = str(folder.resolve())
    if first:
        for path in folder.glob("*.py"):
            file = getattr(sys.modules.get(path.stem), "__file__", None)
            if file and str(Path(file).parent) in _folders - {name}:
                del sys.modules[path.stem]
        sys.path[:] = [name, *(each for each in sys.path if each != name)]
    elif name not in sys.path:
        sys.path.append(name)
    _folders.add(name)


def load_file(path: Path) -> ModuleType:
    """A Python file as a module, which can import its neighbours; it raises whatever the file raises."""
    import_from(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(f"fl_rec_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} must be a file whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    # A module of dataclasses looks itself up there.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _require_file(name: str, what: str, folder: Path | None) -> Path | None:
    """The file of a user's `file.py:Name`, None of another name. ConfigError if it is not there."""
    source = name.rpartition(":")[0]
    if not source.endswith(".py"):
        return None
    path = path_from(folder or Path(), source)
    if not path.is_file():
        raise ConfigError(
            f"{_capital(what)} must be importable. Received: {name!r}; there is no file {path.resolve()}. "
            "A relative path starts at the configuration's folder, or on a command line where you are."
        )
    return path
