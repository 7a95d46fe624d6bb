"""What is around the package: the files that come with it, and whether this Python and this Paddle can run a job."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from fl_rec.errors import RunError

PACKAGE = Path(__file__).resolve().parent
# The clone that the package lies in; None if it was installed from a wheel, which has the clone's other folders inside.
CLONE = None if (PACKAGE / "shipped").is_dir() else PACKAGE.parent

PYTHONS = ((3, 10), (3, 13))
# Wheels of PyPI that were seen to hold the parameter server (PS core); later ones were built without it.
KNOWN_PADDLES = ("2.6.2", "3.0.0")
PROBE_SECONDS = 120
PIR_FLAG = "FLAGS_enable_pir_api"
# Whoever changes how Paddle works in this process.
_STATIC = threading.RLock()
_PROBE = "import os; os.environ['FLAGS_enable_pir_api'] = '0'; from paddle.base import core; core.DistFleetWrapper"


def shipped(name: str) -> Path:
    """A file that comes with the package, such as "models/ncf/static_model.py"."""
    return (CLONE or PACKAGE / "shipped") / name


def check(version_info: tuple[int, int] = sys.version_info[:2]) -> None:
    """Checks the interpreter and the installed Paddle.

    Raises:
        RunError: naming the versions that work.
    """
    lowest, highest = PYTHONS
    if not lowest <= version_info <= highest:
        raise RunError(
            f"Python must be {lowest[0]}.{lowest[1]} to {highest[0]}.{highest[1]}, for which Paddle has wheels. "
            f"Received: {version_info[0]}.{version_info[1]}."
        )
    try:
        version = metadata.version("paddlepaddle")
    except metadata.PackageNotFoundError:
        version = None
    if version in KNOWN_PADDLES:
        return
    said = probe()
    if said is not None:
        raise RunError(
            f"Paddle must hold the parameter server: the wheels {' and '.join(KNOWN_PADDLES)} do, later ones of PyPI "
            f"do not. Received: paddlepaddle {version or 'not installed'}, which said: {said}. Install one of them "
            "(pip install paddlepaddle==3.0.0), or build Paddle with -DWITH_PSCORE=ON."
        )


def probe() -> str | None:
    """What Paddle says when it can't be imported with its parameter server, in another process; None if it can."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"nothing within {PROBE_SECONDS} s"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["nothing"])[-1]


@contextmanager
def importing() -> Iterator[None]:
    """For long imports: Python's collector takes an eighth of Paddle's, and frees nothing; and a tenth goes to finding
    each function of its libraries, most of which are never called. What they warn of is no user's business."""
    enabled, flags = gc.isenabled(), sys.getdlopenflags()
    gc.disable()
    sys.setdlopenflags(os.RTLD_LAZY)
    try:
        with warnings.catch_warnings(), _nothing_at_home():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.setdlopenflags(flags)
        gc.freeze()  # nor is it looked through later
        if enabled:
            gc.enable()


@contextmanager
def _nothing_at_home() -> Iterator[None]:
    """Keeps Paddle (2.6.2, 3.0.0) from making ~/.cache/paddle/dataset when it is imported: as if it were there."""
    makedirs = os.makedirs

    def make(name: Any, *arguments: Any, **options: Any) -> None:
        if str(name).endswith("/.cache/paddle/dataset"):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        makedirs(name, *arguments, **options)

    os.makedirs = make
    try:
        yield
    finally:
        os.makedirs = makedirs


def quiet_paddle() -> None:
    """Imports Paddle for static programs, without what it says about itself on stderr."""
    _import_paddle().enable_static()


@contextmanager
def static_paddle() -> Iterator[None]:
    """Paddle for static programs, in a process that has its own use for it, and finds it afterwards as it was.

    That may be in dynamic mode, or with PIR, of which see `fl_rec/__init__.py`. One thread at a time can be inside.
    """
    with _STATIC:
        paddle = _import_paddle()
        was_dynamic = paddle.in_dynamic_mode()
        paddle.enable_static()
        try:
            # Paddle 2.6.2 has none, nor PIR unless asked for.
            with getattr(paddle.pir_utils, "OldIrGuard", nullcontext)():
                yield
        finally:
            if was_dynamic:
                paddle.disable_static()


def require_old_programs() -> None:
    """RunError if Paddle was imported before fl_rec, and can't read or train the programs that are made here."""
    with importing():
        import paddle

    if paddle.get_flags(PIR_FLAG)[PIR_FLAG]:
        raise RunError(
            f"fl_rec must be imported before paddle, which reads {PIR_FLAG} once. Put `import fl_rec` first, or set "
            f"{PIR_FLAG}=0 in the environment."
        )


def _import_paddle() -> Any:
    os.environ.setdefault("GLOG_minloglevel", "1")
    if "paddle" not in sys.modules:
        with importing():
            import_module("paddle")
    return sys.modules["paddle"]
