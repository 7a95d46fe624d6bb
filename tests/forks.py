"""Plays Python programs, each in a fork of a process that has imported what takes long to import.

So a program finds what it would find in a process of its own, but for the second or two that its imports take.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Far above what any of these programs takes.
TIMEOUT = 180


class Forks:
    """The process that forks.

    Args:
        imported: modules, imported before it forks.
        environment: variables that it has besides this process's.
    """

    def __init__(self, *imported: str, **environment: str) -> None:
        command = [sys.executable, "-m", "tests.forks", *imported]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, **pipes, text=True, cwd=ROOT, env={**os.environ, **environment})

    def play(self, program: str, *arguments: Any, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Plays a program.

        Args:
            program: its file, if it ends in .py, or its text.
            arguments: for `sys.argv`.
            cwd: the folder that it finds itself in.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([program, [*map(str, arguments)], str(cwd)]) + "\n")
        self._process.stdin.flush()
        code, output, errors = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess([program, *arguments], code, output, errors)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=TIMEOUT)


def _play(program: str, arguments: Sequence[str], cwd: str) -> int:
    try:
        os.chdir(cwd)
        if program.endswith(".py"):
            sys.argv = [program, *arguments]
            runpy.run_path(program, run_name="__main__")
        else:
            sys.argv = ["-c", *arguments]
            exec(program, {"__name__": "__main__"})
        return 0
    except SystemExit as err:
        return err.code if isinstance(err.code, int) else int(err.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _fork(program: str, arguments: Sequence[str], cwd: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a program that takes too long is killed, and its exit code is below 0."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, open(os.devnull) as nothing:
        child = os.fork()
        if not child:
            for file, descriptor in ((nothing, 0), (output, 1), (errors, 2)):
                os.dup2(file.fileno(), descriptor)
            code = _play(program, arguments, cwd)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        deadline = time.monotonic() + TIMEOUT
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            time.sleep(0.002)
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                deadline += TIMEOUT
        for file in (output, errors):
            file.seek(0)
        return os.waitstatus_to_exitcode(ended[1]), output.read().decode(), errors.read().decode()


def main(imported: Sequence[str]) -> None:
    for each in imported:
        import_module(each)
    for line in sys.stdin:
        print(json.dumps(_fork(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
