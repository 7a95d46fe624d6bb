"""Plays Python programs, each in a fork of a process that has imported what takes long to import.

A program finds what it would find in a process of its own, but for the second or two that its imports take: arguments,
environment (in `/proc/PID/environ` too, by which a job's processes are known), folder and files. Its command line is
that of the process that forks.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from fl_rec.trainer.fork_server import fork

ROOT = Path(__file__).resolve().parent.parent
# Far above what any of these programs takes.
TIMEOUT = 180
# Bytes of a request at most, and of the environment that a fork may have.
LONGEST, ROOM = 1 << 17, 1 << 15


class Forks:
    """The process that forks.

    Args:
        imported: modules, imported before it forks.
        environment: variables that it has besides this process's.
    """

    def __init__(self, *imported: str, **environment: str) -> None:
        self._asked, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", str(server.fileno()), *imported],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT, pass_fds=[server.fileno()],
            env={**os.environ, **environment, "FL_REC_ROOM": "." * ROOM},
        )  # fmt: skip
        server.close()

    def start(self, words: Sequence[str], *, spare: bool = False, **options: Any) -> subprocess.Popen[str]:
        """Starts `python WORDS`; options as of `subprocess.Popen`: env, cwd, stdout, stderr.

        Args:
            spare: whether the first Python that it starts itself is a fork too.
        """
        return _Fork(self._asked, spare, words, text=True, **options)

    def play(
        self, program: str, *arguments: Any, cwd: Path = ROOT, spare: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Plays a program to its end; one that takes too long is killed, and its exit code is below 0.

        Args:
            program: its file, if it ends in .py, or its text.
            arguments: for `sys.argv`.
            cwd: the folder that it finds itself in.
            spare: as of `start`.
        """
        words = [*([] if program.endswith(".py") else ["-c"]), program, *map(str, arguments)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started = self.start(words, spare=spare, cwd=cwd, **pipes)
        try:
            said = started.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            started.kill()
            said = started.communicate(timeout=TIMEOUT)
        return subprocess.CompletedProcess([program, *arguments], started.returncode, *said)

    def close(self) -> None:
        self._asked.close()
        self._process.wait(TIMEOUT)


class _Asking(subprocess.Popen):
    """A program that another process makes of a fork of itself."""

    def _ask(self, server: socket.socket, given: tuple[Any, ...], spare: bool = False) -> Any:
        """Arguments of `_execute_child`, which all Pythons have alike up to the files."""
        words, _, _, _, _, cwd, env, _, _, _, *files = given[:16]
        handed = [own if file < 0 else file for own, file in enumerate((files[0], files[3], files[5]))]
        env = {**(os.environ if env is None else env)}
        text = json.dumps([words, str(cwd or os.getcwd()), env, given[21], spare])
        socket.send_fds(server, [text.encode()], handed)
        self._child_created = True
        self._close_pipe_fds(*files)  # type: ignore[attr-defined]
        return json.loads(server.recv(LONGEST))


class _Fork(_Asking):
    """A program in a fork of the process that forks."""

    def __init__(self, server: socket.socket, spare: bool, *arguments: Any, **options: Any) -> None:
        self._server, self._spare = server, spare
        super().__init__(*arguments, **options)

    def _execute_child(self, *given: Any) -> None:  # type: ignore[override]
        self.pid = self._ask(self._server, given, self._spare)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        """It is no child of ours, so its parent is asked."""
        if self.returncode is None:
            self._server.send(json.dumps(self.pid).encode())
            self.returncode = json.loads(self._server.recv(LONGEST))
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        deadline = time.monotonic() + (TIMEOUT if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or TIMEOUT)
            time.sleep(0.005)
        return code


def _with_a_spare() -> None:
    """Has the first Python that this process starts be a fork of what it is by now."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    spare = fork()
    if not spare:
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):  # or who reads what we print would wait for it
            os.dup2(nothing, descriptor)
        os.close(nothing)
        text, files, *_ = socket.recv_fds(theirs, LONGEST, 3)
        if not text:  # it was not needed
            os._exit(0)
        theirs.send(json.dumps(os.getpid()).encode())
        theirs.close()
        _become(files, *json.loads(text))
    theirs.close()
    left = [spare]

    class Popen(_Asking):
        def _execute_child(self, *given: Any) -> None:  # type: ignore[override]
            if given[0][0] != sys.executable or not left:
                super()._execute_child(*given)  # type: ignore[misc]
                return
            self.pid = left.pop()
            self._ask(ours, (given[0][1:], *given[1:]))
            ours.close()

    subprocess.Popen = Popen  # type: ignore[misc]


def _become(files: Sequence[int], words: Sequence[str], cwd: str, env: Mapping[str, str], *how: bool) -> NoReturn:
    """Makes of a fork what would be a new process, and plays it to its end."""
    session, spare = how
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
        os.close(file)
    if session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    _show_environment()
    if spare:
        _with_a_spare()
    unbuffered = words[0] == "-u"
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", 1 if unbuffered else -1, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    code = _play(words[unbuffered:])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _show_environment() -> None:
    """Writes the environment to where the system looks for it, which is where this process was given one."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = map(int, fields[47:49])
    text = b"".join(name + b"=" + value + b"\0" for name, value in os.environb.items())
    assert len(text) < end - start, f"{len(text)} bytes of environment, and room for {end - start}"
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _play(words: Sequence[str]) -> int:
    first, *rest = words
    try:
        if first == "-m":
            sys.argv, sys.path[0] = rest, os.getcwd()
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
            exec(rest[0], {"__name__": "__main__"})
        else:
            sys.argv, sys.path[0] = list(words), str(Path(first).parent)
            runpy.run_path(first, run_name="__main__")
        return 0
    except SystemExit as err:
        if isinstance(err.code, str):
            print(err.code, file=sys.stderr)
        return err.code if isinstance(err.code, int) else int(err.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def main(number: str, *imported: str) -> None:
    server = socket.socket(fileno=int(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in imported:
            import_module(each)
    while True:
        text, files, *_ = socket.recv_fds(server, LONGEST, 3)
        if not text:
            return
        asked = json.loads(text)
        if isinstance(asked, int):
            child, status = os.waitpid(asked, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if child else None
        else:
            answer = fork()
            if not answer:
                server.close()
                _become(files, *asked)
        for file in files:
            os.close(file)
        server.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
