"""`fl-rec doctor`: whether this machine can train, and what to do where it can't."""

from __future__ import annotations

import argparse
import functools
import locale
import os
import re
import resource
import shutil
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from fl_rec import environment, kernels
from fl_rec.arguments import called_as
from fl_rec.commands.words import bytes_in_words
from fl_rec.runs import roles

# Bytes below which a job of ten workers fails, and below which it may.
_MEMORY = (1 << 30, 4 << 30)
_DISK = (100 << 20, 2 << 30)
_FILES = 1024
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Found:
    """What was found of one thing.

    Attributes:
        what: in words.
        remedy: what to do about it; "" if it is as it should be.
        fatal: whether a job fails by it.
    """

    what: str
    remedy: str = ""
    fatal: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec doctor`."""


def command(_options: argparse.Namespace) -> int:
    """Plays `fl-rec doctor`: 1 if something is in the way of a job."""
    found = []
    width = min(shutil.get_terminal_size().columns, 120)
    for name, check in CHECKS.items():
        print(f"{name:<11} ", end="", flush=True)  # some take seconds
        each = check()
        found.append(each)
        sign = "FAILS" if each.fatal else "note" if each.remedy else "ok"
        wrap = functools.partial(textwrap.wrap, width=width - 19, break_long_words=False, break_on_hyphens=False)
        lines = wrap(each.what) + wrap(each.remedy and f"-> {each.remedy}")
        print(f"{sign:<6} " + f"\n{'':<19}".join(lines), flush=True)
    fatal = sum(each.fatal for each in found)
    notes = sum(bool(each.remedy) for each in found) - fatal
    print()
    if fatal:
        print(f"A job would fail here: {fatal} thing{'s' * (fatal > 1)} to mend, marked FAILS.")
    else:
        print(f"This machine can train: {called_as()} run" + f" ({notes} note{'s' * (notes > 1)} above)" * bool(notes))
    return int(fatal > 0)


def python() -> Found:
    lowest, highest = environment.PYTHONS
    what = f"{sys.version.split()[0]}, {sys.executable}"
    if not lowest <= sys.version_info[:2] <= highest:
        wanted = f"{lowest[0]}.{lowest[1]} to {highest[0]}.{highest[1]}"
        return Found(what, f"Install Python {wanted}, for which Paddle has wheels.", True)
    if not sys.platform.startswith("linux"):
        return Found(f"{what}, on {sys.platform}", "Use Linux: elsewhere Paddle has no parameter server.", True)
    return Found(what)


def paddle() -> Found:
    version = _version("paddlepaddle")
    if version in environment.KNOWN_PADDLES:
        return Found(version)
    return Found(
        version or "not installed",
        "pip install paddlepaddle==3.0.0: wheels that hold the parameter server are "
        f"{' and '.join(environment.KNOWN_PADDLES)}. One that you built with it will do too.",
        version is None,
    )


def ps_core() -> Found:
    began = time.monotonic()
    said = environment.probe()
    if said is None:
        return Found(f"Paddle's parameter server is there (imported in {time.monotonic() - began:.1f} s)")
    illegal = "Its wheels need a processor with AVX. " if "avx" not in _processor() else ""
    return Found(
        f"Paddle can't be imported with its parameter server: {said}",
        f"{illegal}pip install paddlepaddle==3.0.0 'protobuf<7' in an environment of its own, as ./fl_run.sh makes it.",
        True,
    )


def packages() -> Found:
    wrong, checked = [], []
    for name, rule in _requirements():
        version = _version(name)
        checked.append(f"{name} {version}")
        if version is None or not all(_holds(version, each) for each in rule.split(",") if each):
            wrong.append(f"'{name}{rule}'")
    protobuf = next((each for each in checked if each.startswith("protobuf")), f"protobuf {_version('protobuf')}")
    if wrong:
        return Found(
            f"{protobuf}; not as fl_rec needs them: {', '.join(wrong)}", f"pip install {' '.join(wrong)}", True
        )
    return Found(f"{protobuf}, and {len(checked) - 1} others, are as fl_rec needs them" if checked else protobuf)


def compiled() -> Found:
    folder = kernels.cache_folder()
    if folder is None:
        remedy = "export NUMBA_CACHE_DIR=FOLDER, one that you can write: else each job compiles its step anew."
        return Found("what is compiled can't be kept", remedy)
    if not kernels.is_compiled():
        import numba

        return Found(f"numba {numba.__version__}; the first job compiles it, once, in about half a minute")
    try:
        kernels.load_all()
    except Exception as err:  # whatever LLVM says of a damaged file
        return Found(f"{type(err).__name__}: {err}", f"rm -r {folder}, and the next job compiles it anew.", True)
    return Found(f"compiled, in {folder}")


def ports() -> Found:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname(), timeout=5):
                pass
    except OSError as err:
        return Found(f"no connection within this machine: {err}", "Have a firewall or sandbox allow 127.0.0.1.", True)
    low, high = (int(each) for each in _read("/proc/sys/net/ipv4/ip_local_port_range", "32768 60999").split())
    what = f"127.0.0.1 answers; ports {low} to {high} are for whoever asks"
    if high - low < 1000:
        return Found(what, "sysctl -w net.ipv4.ip_local_port_range='32768 60999': few are left for a job's processes.")
    return Found(what)


def memory() -> Found:
    available = min(psutil.virtual_memory().available, _left_to_the_group())
    least, enough = _MEMORY
    what = f"{bytes_in_words(available)} available, {len(os.sched_getaffinity(0))} cores"
    if available < enough:
        remedy = "End other programs, or start fewer workers (--worker_num): each takes some 200 MB, and its shard."
        return Found(what, remedy, available < least)
    return Found(what)


def disk() -> Found:
    least, enough = _DISK
    told = []
    for folder in dict.fromkeys((Path.cwd(), Path(tempfile.gettempdir()))):
        try:
            with tempfile.TemporaryFile(dir=folder):
                free = shutil.disk_usage(folder).free
        except OSError as err:
            return Found(f"{folder}: {err.strerror}", "Go to a folder that you can write; $TMPDIR names another.", True)
        told.append(f"{bytes_in_words(free)} in {folder}")
        if free < enough:
            remedy = "Free some: a run of MovieLens 1M takes some 100 MB. fl-rec runs tells which are large."
            return Found(told[-1], remedy, free < least)
    return Found(", ".join(told))


def files() -> Found:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FILES:
        return Found(f"{soft} open files allowed", f"ulimit -n {_FILES}: servers hold connections to all workers.")
    return Found(f"{'any number of' if soft < 0 else f'{soft:,}'} open files allowed")


def words() -> Found:
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8" or (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return Found(f"{encoding}, which has no letters for many names", "export PYTHONUTF8=1 LC_ALL=C.UTF-8")
    return Found(encoding)


def proxies() -> Found:
    given = [name for each in _PROXIES for name in (each, each.upper()) if os.environ.get(name)]
    if not given:
        return Found("none")
    return Found(f"{', '.join(given)}: for pip and downloads; the processes of a job don't use them among themselves")


def variables() -> Found:
    if left_over := roles.of_paddle():
        what = f"of another Paddle job: {', '.join(left_over)}"
        return Found(what, f"unset {' '.join(left_over)}; fl-rec run keeps them from its job, a bare fleetrun doesn't.")
    return Found("none of another Paddle job")


CHECKS: dict[str, Callable[[], Found]] = {
    "Python": python,
    "Paddle": paddle,
    "PS core": ps_core,
    "packages": packages,
    "compiled": compiled,
    "ports": ports,
    "memory": memory,
    "disk": disk,
    "open files": files,
    "locale": words,
    "proxies": proxies,
    "variables": variables,
}


def _requirements() -> Iterator[tuple[str, str]]:
    """Names and rules of what the package needs, without extras; none if it runs without having been installed."""
    try:
        required = metadata.requires("fl_rec") or []
    except metadata.PackageNotFoundError:
        required = []
    for each in required:
        if "extra ==" not in each and (found := re.match(r"([\w.-]+)\s*\(?([<>=!~,.\d\s]*)", each)):
            yield found[1], found[2].replace(" ", "")


def _holds(version: str, rule: str) -> bool:
    sign, wanted = re.match(r"([<>=!]+)(.*)", rule).groups()  # type: ignore[union-attr]
    is_less, is_same = _parts(version) < _parts(wanted), _parts(version) == _parts(wanted)
    return {"<": is_less, ">=": not is_less, "==": is_same, "!=": not is_same}.get(sign, True)


def _parts(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version.partition("+")[0])[:3]]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    return _read("/proc/cpuinfo", "avx")


def _left_to_the_group() -> int:
    """What a container may still take of memory, in bytes."""
    most, used = (_read(f"/sys/fs/cgroup/memory.{name}", "max").strip() for name in ("max", "current"))
    return int(most) - int(used) if most.isdecimal() and used.isdecimal() else sys.maxsize


def _read(path: str, otherwise: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return otherwise
