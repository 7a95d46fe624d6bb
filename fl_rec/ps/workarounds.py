"""What Paddle's parameter server needs to work: each with its cause and the Paddle versions in which it was seen."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import signal
import socket
import time
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import paddle
import psutil

log = logging.getLogger(__name__)

# More than the 40 or so handler threads that ten workers can keep waiting in brpc at once.
BRPC_THREADS = 64
# The most that protobuf takes, which many of Paddle's messages are.
MESSAGE_BYTES = (1 << 31) - 1
# Seconds by which a clock may be set: a day.
CLOCK_STEP = 86400


def tune_malloc() -> None:
    """Keeps glibc from hoarding memory, and from giving back what is asked for again at once.

    Each epoch trains in new threads, and glibc gives each a heap that it never returns: ten workers on MovieLens 1M
    held 4.2 GiB after five epochs so, and 3.1 GiB after four with two heaps each. And it maps and unmaps a step's
    tensors of a megabyte or two anew, page by page: that took a fifth to a third of the steps of a net 192 wide.
    """
    m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_arena_max, 2)
        mallopt(m_mmap_threshold, 32 << 20)  # the most that glibc takes
        mallopt(m_trim_threshold, 512 << 20)


def look_often_at_gloos_store() -> None:
    """Server 0 forks the store and waits for its end; it looks only every 5 s if all workers have met (2.6.2, 3.0.0).

    So every start took 5 or 10 s longer than it had to. Then it took up to 0.5 s for the store to see that it shall
    end; and with five connections waiting it took no more, so that one of ten workers came a second later, by TCP.
    """
    from paddle.distributed.fleet.base import role_maker
    from paddle.distributed.fleet.utils.http_server import HTTPServer, KVHTTPServer

    KVHTTPServer.request_queue_size = 1024
    KVHTTPServer.serve_forever = partialmethod(HTTPServer.serve_forever, 0.05)
    role_maker.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.1)))


class _Flag:
    """A dict of one flag that a process shares with those that it forks."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def dict(self) -> _Flag:
        return self

    def __setitem__(self, _name: str, value: bool) -> None:
        self._shared[0] = value

    def get(self, _name: str, _default: bool) -> bool:
        return bool(self._shared[0])


def keep_gloos_flag_in_memory() -> None:
    """Every role starts a process that keeps one flag, which server 0's store alone looks at (2.6.2, 3.0.0).

    Its socket lies in TMPDIR, and a socket's path may have 107 bytes.
    """
    from paddle.distributed.fleet.base import role_maker

    role_maker.Manager = _Flag


def have_gloo_listen_at(host: str) -> None:
    """Gloo listens where the machine's own name leads: it dies of SIGSEGV if that has no address (2.6.2, 3.0.0).

    Args:
        host: as fleetrun names this process's; the interface that has its address is taken instead.
    """
    from paddle.distributed.fleet.base.role_maker import Gloo

    with contextlib.suppress(OSError, StopIteration):  # a name or an address that only others know
        address = socket.gethostbyname(host)
        interfaces = psutil.net_if_addrs().items()
        found = next(name for name, addresses in interfaces if any(each.address == address for each in addresses))
        # Paddle sets it to "" just before it is read.
        Gloo._iface = property(lambda _: found, lambda _, value: None)


def raise_brpc_concurrency() -> None:
    """brpc starts max(trainers, cores) handler threads, which workers that wait in the server can use up."""
    library = ctypes.CDLL(paddle.base.libpaddle.__file__)
    if library.bthread_setconcurrency(BRPC_THREADS) != 0:
        log.warning("brpc refused %d threads; it keeps %d", BRPC_THREADS, library.bthread_getconcurrency())


def allow_long_messages() -> None:
    """A table's rows on a server travel in one message, and brpc drops those above 64 MiB (2.6.2, 3.0.0).

    It tells nobody but the log: a table of a million rows of 128 bytes on one server is then neither initialised nor
    pulled, and a job trains on to its end with HR@10 0.
    """
    library = ctypes.CDLL(paddle.base.libpaddle.__file__)
    for flag in ("5fLU6419FLAGS_max_body_size", "5fLI6432FLAGS_socket_max_unwritten_bytes"):
        ctypes.c_int64.in_dll(library, f"_ZN4brpc{flag}E").value = MESSAGE_BYTES


def allow_long_answers() -> None:
    """A request that a server doesn't answer within 500 s is lost, and a worker then goes on without what it asked for.

    brpc goes by the clock on the wall, so that all requests under way are lost when it is set forth by more. Whether a
    server answers is watched from outside (`fl_rec.job.alive`). 2.6.2, 3.0.0.
    """
    library = ctypes.CDLL(paddle.base.libpaddle.__file__)
    name = "_ZN6paddle11distributed12paddle_flags24FLAGS_pserver_timeout_msE"
    ctypes.c_int32.in_dll(library, name).value = 1000 * CLOCK_STEP


def end_at_once_when_asked() -> None:
    """Paddle writes a stack on SIGTERM, with locks that the interrupted thread may hold (3.0.0): a worker that was
    ending anyway stayed until it was killed, 5 s later. A handler of the user's own stays.
    """
    if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None):
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave_out(private: frozenset[str]) -> None:
    """Paddle derives the servers' tables, the `send` operators and the communicator's context from one list."""
    from paddle.distributed.ps.utils import public

    original = getattr(public.get_param_grads, "fl_rec_original", public.get_param_grads)

    def get_param_grads(program: paddle.static.Program) -> tuple[list[Any], ...]:
        return tuple([pair for pair in pairs if pair[0].name not in private] for pairs in original(program))

    get_param_grads.fl_rec_original = original  # type: ignore[attr-defined]
    public.get_param_grads = get_param_grads


def patch_barrier_table() -> None:
    """The server's barrier table lets every caller through at once; gloo's barriers take its place.

    The table keeps no generation, so that a waiter that wakes late waits for the next round, which never comes.
    """
    _say_trainers("BarrierTable", 1)


def let_geo_forget() -> None:
    """A server of GEO writes down for each trainer which rows were changed, until that trainer asks for them.

    Synchronous workers pull everything and never ask: with ten of them that is 400 bytes for each row, for good, and
    time: ten insertions into sets for each row that each of them sends.
    """
    _say_trainers("GeoSparseTable", 0)


def _say_trainers(kind: str, trainers: int) -> None:
    from paddle.distributed.ps import the_one_ps

    table = getattr(the_one_ps, kind)
    original = getattr(table._set, "fl_rec_original", table._set)

    def _set(self: Any, table_proto: Any) -> None:
        original(self, table_proto)
        table_proto.common.trainer_num = trainers

    _set.fl_rec_original = original  # type: ignore[attr-defined]
    table._set = _set
