"""What is too small to be a normal float32 counts as 0 while a kernel runs."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

# Of C's fenv_t: which of its uint32 says so, and the bits: flush to zero, and on x86 denormals are zeros.
_BITS = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}


@contextlib.contextmanager
def tiny_is_zero() -> Iterator[None]:
    """For this thread, within the block.

    The gradient of a dead ReLU is 0, and after some 800 steps of Adam its moments are denormal, with which a processor
    is slow: half of a layer's units dead took a net 2.3 times as long.
    """
    word, bits = _BITS.get(platform.machine(), (0, 0))
    environment, before = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)()
    library = ctypes.CDLL(None)
    if not bits or not hasattr(library, "fegetenv"):
        yield
        return
    library.fegetenv(before)
    library.fegetenv(environment)
    environment[word] |= bits
    library.fesetenv(environment)
    try:
        yield
    finally:
        library.fesetenv(before)
