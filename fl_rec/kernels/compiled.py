"""How a function becomes machine code, and where that is kept for the next process."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Modules that hold kernels.
_MODULES = ("factorisation", "net")
# A file that says that all of them are there.
_DONE = "complete"
# What changes no result by more than the order in which numbers are added. Infinities and NaN stay what they are.
FAST = frozenset({"reassoc", "contract", "nsz"})


@functools.lru_cache
def cache_folder() -> Path | None:
    """Where machine code is kept, of this source, Python, numba and processor; None if no folder can be written.

    It is one of $NUMBA_CACHE_DIR, or else of what lies beside the source and the user's folder of caches.
    """
    own = Path(__file__).parent
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "fl_rec")
    named = os.environ.get("NUMBA_CACHE_DIR")
    for base in [Path(named)] if named else [own / "__pycache__", user]:
        with contextlib.suppress(OSError):
            folder = base / f"kernels-{_fingerprint(own)}"
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None


def _fingerprint(folder: Path) -> str:
    """numba itself only notices a change of the file that a kernel is in, not of those that it calls."""
    digest = hashlib.sha256(" ".join([sys.version, version("numba"), version("llvmlite"), _processor()]).encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


def cache_environment(spare: str) -> dict[str, str]:
    """The environment by which processes share what the first one compiles; `spare` is a folder that can be written."""
    return {} if cache_folder() is not None else {"NUMBA_CACHE_DIR": spare}


def compile_all(begin: Callable[[], None] = lambda: None) -> None:
    """Has every kernel compiled and kept, if none has done so before; whoever comes at the same time waits.

    Where nothing can be kept it returns at once, and each process compiles for itself.

    Args:
        begin: called if there is something to compile.
    """
    folder = cache_folder()
    if folder is None or (folder / _DONE).exists():
        return
    begin()
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _DONE).exists():
            _import_all()
            (folder / _DONE).touch()


def load_all() -> None:
    """Has every kernel in memory: for a process that forks those that call them."""
    compile_all()
    _import_all()


def _import_all() -> None:
    for name in _MODULES:
        importlib.import_module(f"fl_rec.kernels.{name}")


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compiles a function for the types of its signature when its module is imported, or loads what was kept of it."""
    import numba

    def decorate(function: Callable[..., Any]) -> Any:
        with _kept_in(cache_folder()) as cache:
            return numba.njit(signature, cache=cache, nogil=True, error_model="numpy", fastmath=set(FAST))(function)

    return decorate


@contextlib.contextmanager
def _kept_in(folder: Path | None) -> Iterator[bool]:
    from numba import config

    before = config.CACHE_DIR
    if folder is not None:
        config.CACHE_DIR = str(folder)
    try:
        yield folder is not None
    finally:
        config.CACHE_DIR = before


def part(function: Callable[..., Any]) -> Any:
    """A function that kernels call: compiled with each of them."""
    return _part(function, FAST)


def as_written(function: Callable[..., Any]) -> Any:
    """The same for one whose additions must be done in the order in which they are written."""
    return _part(function, {"contract"})


def _part(function: Callable[..., Any], fast: Collection[str]) -> Any:
    import numba

    options = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(fastmath=set(fast), **options)(function)
