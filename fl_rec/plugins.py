"""What users name in a configuration or on a command line: a class or function of their own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fl_rec.errors import ConfigError


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
    path = (folder or Path()) / Path(source).expanduser()
    try:
        module = load_file(path) if source.endswith(".py") else importlib.import_module(source)
        return getattr(module, attribute)
    except SyntaxError as err:
        raise ConfigError(
            f"{what[0].upper()}{what[1:]} must be importable. Received: {name!r}; {err.filename}, line {err.lineno}: "
            f"{err.msg}."
        ) from err
    except FileNotFoundError as err:
        raise ConfigError(
            f"{what[0].upper()}{what[1:]} must be importable. Received: {name!r}; there is no file {path.resolve()}. "
            "A relative path starts at the configuration's folder, or on a command line where you are."
        ) from err
    except Exception as err:  # a user's file may fail in any way while it is imported
        raise ConfigError(
            f"{what[0].upper()}{what[1:]} must be importable. Received: {name!r} ({err!r}). "
            "Give module:name, importable (PYTHONPATH), or path/to/file.py:name."
        ) from err


def absolute(name: str, folder: Path) -> str:
    """A user's `file.py:name` with the file's whole path; any other name as it is."""
    source, _, attribute = name.rpartition(":")
    if not source.endswith(".py"):
        return name
    return f"{(folder / Path(source).expanduser()).resolve()}:{attribute}"


def load_file(path: Path) -> ModuleType:
    """A Python file as a module; it raises whatever the file raises."""
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
