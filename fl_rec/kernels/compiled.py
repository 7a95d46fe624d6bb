"""How a function becomes machine code, and where that is kept for the next process.

numba compiles, once. Whoever trains or scores loads what was kept without numba, which would take as long as Paddle to
import and load it: ten workers that start at once have two cores for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import importlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.errors import RunError

# Functions that become machine code, by their module and name.
KERNELS = ("factorisation.train", "net.score", "net.train")
# A file that says that all of them are there.
_DONE = "complete"
# What changes no result by more than the order in which numbers are added. Infinities and NaN stay what they are.
FAST = frozenset({"reassoc", "contract", "nsz"})
# Nothing of Python's is called.
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# All that numba's code takes of its runtime: memory of an array, with a count of its users at 0 and the data's address
# at 24; and that memory's end.
_MEMORY = """
declare ptr @malloc(i64)
declare void @free(ptr)
define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %wanted = add i64 %size, 128
  %head = call ptr @malloc(i64 %wanted)
  %failed = icmp eq ptr %head, null
  br i1 %failed, label %end, label %fill
fill:
  store i64 1, ptr %head
  %address = ptrtoint ptr %head to i64
  %beyond = add i64 %address, 112
  %data = and i64 %beyond, -64
  %place = getelementptr i8, ptr %head, i64 24
  store i64 %data, ptr %place
  br label %end
end:
  ret ptr %head
}
define void @NRT_MemInfo_call_dtor(ptr %head) {
  call void @free(ptr %head)
  ret void
}
"""
# And of other libraries.
_KNOWN = re.compile(r"llvm\..*|malloc|free|mem(set|cpy|move)|(sqrt|log)f?")


@functools.lru_cache
def cache_folder() -> Path | None:
    """Where machine code is kept, of this source, Python, numba and processor; None if no folder can be written.

    It is one of $NUMBA_CACHE_DIR, or else of what lies beside the source and the user's folder of caches.
    """
    own = Path(__file__).parent / "__pycache__"
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "fl_rec")
    named = os.environ.get("NUMBA_CACHE_DIR")
    bases = [Path(named)] if named else [own, *([user] if user.is_absolute() else [])]
    return next(filter(None, map(_folder_in, bases)), None)


def _folder_in(base: Path) -> Path | None:
    """None if it can't be written, and nobody who could has left all of it there, as an image's build does."""
    with contextlib.suppress(OSError):
        folder = base / f"kernels-{_fingerprint(Path(__file__).parent)}"
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _DONE).exists() or os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256(" ".join([sys.version, version("numba"), version("llvmlite"), _processor()]).encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _named_processor() -> tuple[str, str] | None:
    """By both of numba's variables: what is compiled on one machine is then for all that can do as much."""
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    return (name, features) if name and features is not None else None


def _processor() -> str:
    if named := _named_processor():
        return " ".join(named)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


def cache_environment(spare: str) -> dict[str, str]:
    """The environment by which processes share what the first one compiles; `spare` is a folder that can be written."""
    return {} if cache_folder() is not None else {"NUMBA_CACHE_DIR": spare}


def is_compiled() -> bool:
    """Whether every kernel has been compiled and kept."""
    folder = cache_folder()
    return folder is not None and (folder / _DONE).exists()


def compile_all(begin: Callable[[], None] = lambda: None, spare: str | None = None) -> None:
    """Has every kernel compiled and kept, if none has done so before; whoever comes at the same time waits.

    Where nothing can be kept it returns at once, and each process compiles for itself.

    Args:
        begin: called if there is something to compile.
        spare: a folder that can be written, for where nothing can be kept; see `cache_environment`.
    """
    folder = cache_folder() or (_folder_in(Path(spare)) if spare else None)
    if folder is None or (folder / _DONE).exists():
        return
    begin()
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _DONE).exists():
            for name in KERNELS:
                (folder / name).write_bytes(_compile(name))
            (folder / _DONE).touch()


def load_all() -> None:
    """Has every kernel in memory: for a process that forks those that call them."""
    for name in KERNELS:
        load(name)


@functools.lru_cache
def load(name: str) -> Callable[..., float]:
    """A kernel, compiled if it was not before.

    Args:
        name: one of KERNELS.

    Returns:
        takes what the kernel does, and returns what it does, 0 if that is nothing. It raises TypeError if an array is
        not of the dtype and dimensions of the kernel's signature, in C's order.
    """
    import llvmlite.binding as llvm

    compile_all()
    folder = cache_folder()
    head, _, code = (_compile(name) if folder is None else (folder / name).read_bytes()).partition(b"\n")
    kinds = [(np.dtype(dtype), dimensions) for dtype, dimensions in json.loads(head)]
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    # numba's calling convention: places for the result and for an exception, and of an array what numba knows of it.
    types = [
        each
        for _, dimensions in kinds
        for each in (
            [ctypes.c_void_p] * 2 + [ctypes.c_int64] * (3 + 2 * dimensions) if dimensions else [ctypes.c_int64]
        )
    ]
    convention = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *types)
    function = convention(engine.get_function_address(name))

    def call(*arguments: Any) -> float:
        result, exception, flat = ctypes.c_double(), ctypes.c_void_p(), list[Any]()
        for value, (dtype, dimensions) in zip(arguments, kinds, strict=True):
            if not dimensions:
                flat.append(int(value))
                continue
            if (value.dtype, value.ndim, value.flags.c_contiguous) != (dtype, dimensions, True):
                raise TypeError(
                    f"{name} takes C-ordered {dtype} [{dimensions}]. Received: {value.dtype} {value.shape}."
                )
            flat += [None, None, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
        if function(ctypes.byref(result), ctypes.byref(exception), *flat):
            raise MemoryError(f"{name} has no memory for its work.")
        return result.value

    call.__dict__["engine"] = engine  # whose memory the code is in
    return call


def _machine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    processor, features = _named_processor() or (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=processor,
        features=features,
        opt=3,
        # As numba has it.
        reloc="static" if platform.machine() == "x86_64" else "default",
        codemodel="jitdefault",
        jit=True,
    )


def _compile(name: str) -> bytes:
    """Machine code as an object file, after a line of its arguments' dtypes and dimensions, 0 for a number."""
    # Its functions would have to be there whenever the code is loaded; read when numba is imported.
    os.environ["NUMBA_DISABLE_INTEL_SVML"] = "1"
    import llvmlite.binding as llvm

    module, function = name.split(".")
    dispatcher = getattr(importlib.import_module(f"fl_rec.kernels.{module}"), function)
    (types,) = dispatcher.signatures
    code = llvm.parse_assembly(dispatcher.inspect_llvm(types))
    code.get_function(dispatcher.overloads[types].fndesc.llvm_func_name).name = name
    code.link_in(llvm.parse_assembly(_MEMORY))
    # LLVM ends the process where one is missing.
    if missing := [each.name for each in code.functions if each.is_declaration and not _KNOWN.fullmatch(each.name)]:
        raise RunError(
            f"{name} must need nothing of numba's when it runs. Received: {', '.join(missing)} from numba "
            f"{version('numba')}. Install another version, or set runner.local_step to graph."
        )
    kinds = [(str(getattr(each, "dtype", each)), getattr(each, "ndim", 0)) for each in types]
    machine_code: bytes = _machine().emit_object(code)
    return json.dumps(kinds).encode() + b"\n" + machine_code


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compiles a function for the types of its signature when its module is imported. It is called through `load`."""
    import numba

    decorate: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(signature, fastmath=set(FAST), **_OPTIONS)
    return decorate


def part(function: Callable[..., Any]) -> Any:
    """A function that kernels call: compiled with each of them."""
    return _part(function, FAST)


def as_written(function: Callable[..., Any]) -> Any:
    """The same for one whose additions must be done in the order in which they are written."""
    return _part(function, {"contract"})


def _part(function: Callable[..., Any], fast: Collection[str]) -> Any:
    import numba

    return numba.njit(fastmath=set(fast), **_OPTIONS)(function)
