"""The reader: the pipe command that turns a shard into MultiSlot text. No Paddle is imported here.

Paddle runs the command itself, in C++, so that a user's own is named by its command and by no registry. Paddle takes
one that dies for one that had no rows: it is run inside a shell group that notes its exit code and its complaints,
which are looked at after every epoch.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fl_rec.config import Config
from fl_rec.errors import ConfigError, DataError

AS_IS = "cat"


LAST_LINES = 8


# A word that names a Python file, quoted or not, and a bare Python at the start of a command.
_SCRIPT = re.compile(r"""(?<![^\s|;&(])(?:"[^"]*\.py"|'[^']*\.py'|[^\s"'|;&()<>]+\.py)(?![^\s|;&)<>])""")


_PYTHON = re.compile(r"(^\s*|[|;&(]\s*)python3?(?=\s)")


@dataclass(frozen=True)
class Reader:
    """How shards are read.

    Attributes:
        command: as written in `runner.pipe_command`.
        shell: what is run: this Python, a script's full path, and the configuration as its first argument.
        log: the file for its complaints and exit codes.
    """

    command: str
    shell: str
    log: Path

    @classmethod
    def from_config(cls, config: Config, resolved: Path, log: Path) -> Reader:
        """The reader of a configuration.

        Args:
            config: `runner.pipe_command` is read; scripts in it are looked for beside the YAML and beside the net.
            resolved: the resolved configuration's file, which a Python reader gets as its first argument.
            log: where the reader's stderr goes.

        Raises:
            ConfigError: the command names a script that does not exist, or can't be parsed.
        """
        command = config.runner.pipe_command
        configuration = shlex.quote(str(resolved))
        try:
            shlex.split(command)
        except ValueError as err:
            raise ConfigError(f"runner.pipe_command must be a shell command. Received: {command!r} ({err}).") from err
        # A script gets its full path, and the configuration as its first argument.
        shell = _SCRIPT.sub(
            lambda word: f"{shlex.quote(str(_find_script(shlex.split(word.group())[0], config)))} {configuration}",
            command,
        )
        # Paddle's shell may find another Python, or none.
        shell = _PYTHON.sub(lambda word: f"{word.group(1)}{shlex.quote(sys.executable)}", shell)
        return cls(command, shell, log)

    def pipe(self, rows: slice | None = None) -> str:
        """The command for Paddle's data feed, which appends `< "SHARD"`.

        Args:
            rows: those to pass on, from start to stop; None for all.
        """
        command = AS_IS
        if self.shell != AS_IS:
            command = f'{{ {self.shell}; code=$?; echo >&2; echo "exit $code" >&2; }} 2>> {shlex.quote(str(self.log))}'
        if rows is None:
            return command
        # sed reads on after the last row: a reader whose output nobody takes would fail.
        return f"{{ {command} | sed -n {rows.start + 1},{rows.stop}p; }}"

    def begin_epoch(self) -> None:
        """Forgets the last epoch's complaints."""
        self.log.unlink(missing_ok=True)

    def check(self, shard: Path, rows: int, expected: int | None) -> None:
        """Compares what an epoch has read with what there was.

        Args:
            shard: the file, for the error's text.
            rows: rows that were trained.
            expected: rows of the shard; None if unknown, when any number but 0 will do.

        Raises:
            DataError: the reader failed, or rows are missing or too many.
        """
        complaints = self._complaints()
        failed = any(re.fullmatch(r"exit [1-9]\d*", line) for line in complaints)
        if failed or rows == 0 or (expected is not None and rows != expected):
            wanted = "at least 1" if expected is None else f"{expected:,}"
            said = "".join(f"\n    {line}" for line in complaints[-LAST_LINES:]) or " nothing"
            raise DataError(
                f"An epoch trains every row of its shard. Received: {rows:,} rows from {shard}, not {wanted}. "
                f"The reader is runner.pipe_command={self.command!r}, run as: {self.shell}\nIt said:{said}"
            )

    def read(self, shard: Path, timeout: float) -> bytes:
        """A shard as MultiSlot text, read here and not in Paddle.

        Args:
            timeout: seconds until the reader is given up.

        Raises:
            DataError: no such file, or the reader failed.
        """
        try:
            if self.shell == AS_IS:
                return shard.read_bytes()
            with open(shard, "rb") as file:
                done = subprocess.run(
                    self.shell, shell=True, stdin=file, capture_output=True, timeout=timeout, check=True
                )
            return done.stdout
        except OSError as err:
            raise DataError(f"A shard must be readable. Received: {shard} ({err.strerror}).") from err
        except subprocess.TimeoutExpired as err:
            raise DataError(
                f"The reader {self.command!r} must read {shard} within {timeout:g} s, and did not."
            ) from err
        except subprocess.CalledProcessError as err:
            lines = err.stderr.decode("utf-8", "replace").splitlines()[-LAST_LINES:]
            said = "".join(f"\n    {line}" for line in lines) or " nothing"
            raise DataError(
                f"The reader must exit with 0. Received: {err.returncode} from runner.pipe_command={self.command!r} "
                f"on {shard}, run as: {self.shell}\nIt said:{said}"
            ) from err

    def _complaints(self) -> list[str]:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if line.strip()]


def _find_script(script: str, config: Config) -> Path:
    folders = [config.yaml_path.parent, config.runner.model_path.parent]
    for folder in folders:
        if (folder / script).is_file():
            return (folder / script).resolve()
    raise ConfigError(
        f"runner.pipe_command must name a script that exists. Received: {script!r}, looked for in "
        f"{' and '.join(str(folder) for folder in folders)}."
    )
