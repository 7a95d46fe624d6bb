"""Plays Python programs, each in a fork of this process, which has imported Paddle and nothing else.

So a program finds what it would find in a process of its own, without the second or two that Paddle takes to import.
Each line of stdin is JSON, [program, arguments, seconds]; for each there is a line of JSON on stdout, [exit code,
stdout, stderr]. A program that takes longer is killed, which gives an exit code below 0.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from fl_rec import environment


def play(program: str, arguments: Sequence[str]) -> int:
    sys.argv[1:] = arguments
    try:
        exec(program, {"__name__": "__main__"})
        return 0
    except SystemExit as err:
        return err.code if isinstance(err.code, int) else int(err.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def fork(program: str, arguments: Sequence[str], seconds: float) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, open(os.devnull) as nothing:
        child = os.fork()
        if not child:
            for file, descriptor in ((nothing, 0), (output, 1), (errors, 2)):
                os.dup2(file.fileno(), descriptor)
            code = play(program, arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        deadline = time.monotonic() + seconds
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            time.sleep(0.005)
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                deadline += seconds
        for file in (output, errors):
            file.seek(0)
        return os.waitstatus_to_exitcode(ended[1]), output.read().decode(), errors.read().decode()


if __name__ == "__main__":
    environment.quiet_paddle()
    for line in sys.stdin:
        print(json.dumps(fork(*json.loads(line))), flush=True)
