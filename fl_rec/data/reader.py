"""The reader: the pipe command that turns a shard into MultiSlot text. No Paddle is imported here.

It is run once for each shard, before training, and not by Paddle in every epoch, which takes a command that dies for
one that had no rows.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from fl_rec.config import Config
from fl_rec.data.manifest import ShardFile
from fl_rec.data.rows import ANY_SIZES, Rows, Sizes, checked, narrowed
from fl_rec.data.text import count_slots, multislot_blocks
from fl_rec.errors import ConfigError, DataError
from fl_rec.packed import open_regular, unpacked

AS_IS = "cat"


# Commands that want .gz as it is; others get what is in it, as from Paddle's own data feed.
_UNPACKS = re.compile(r"\s*(zcat|gunzip|gzip|unpigz|pigz)\b")


# Some thousand rows: enough for a header line, or for labels that are ratings.
_PEEKED_BYTES = 1 << 16


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
        sizes: what ids must be below.
        stated: what a manifest says of a shard, if there is one. Who trains or tests with a shard has read it anyway.
    """

    command: str
    shell: str
    sizes: Sizes = ANY_SIZES
    stated: Mapping[Path, ShardFile] = field(default_factory=dict)

    @classmethod
    def from_config(
        cls, config: Config, resolved: Path, stated: Mapping[Path, ShardFile] = MappingProxyType({})
    ) -> Reader:
        """The reader of a configuration.

        Args:
            config: `runner.pipe_command` is read; scripts in it are looked for beside the YAML and beside the net.
            resolved: the resolved configuration's file, which a Python reader gets as its first argument.
            stated: see above.

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
        # The shell may find another Python, or none.
        shell = _PYTHON.sub(lambda word: f"{word.group(1)}{shlex.quote(sys.executable)}", shell)
        return cls(command, shell, Sizes(config.hyper_parameters.num_users, config.hyper_parameters.num_items), stated)

    def rows(
        self, shards: Sequence[Path], num_slots: int, timeout: float, expected: int | None = None, least: int = 1
    ) -> Rows:
        """All rows of some shards, one shard after another.

        Args:
            num_slots: of a row, the label last.
            timeout: seconds until the reader of a shard is given up.
            expected: rows of all of them; None if unknown, when any number will do that is
            least: or more.

        Raises:
            DataError: a shard can't be read, rows are missing or too many, are not MultiSlot text of so many slots, or
                can't be trained (see `checked`).
        """
        blocks, said = [], b""
        for shard in shards:
            text, complaints = self.run(shard, timeout)
            said += complaints
            blocks += self._checked(text, num_slots, shard)
        rows = tuple(np.concatenate(parts) for parts in zip(*blocks))
        count = len(rows[0])
        if count < least or expected not in (None, count):
            wanted = f"at least {least}" if expected is None else f"{expected:,}"
            more = f" and {len(shards) - 1} more" if len(shards) > 1 else ""
            raise DataError(
                f"The reader must give every row of its shard. Received: {count:,} rows from {shards[0]}{more}, not "
                f"{wanted}. It is {self._described(said)}"
            )
        return rows

    def peek(self, shard: Path) -> None:
        """Checks a shard's first rows, where that takes no command. DataError as for `rows`."""
        if self.shell == AS_IS:
            with _readable(shard), open_regular(shard) as file:
                text = unpacked(file.read(_PEEKED_BYTES), cut_off=True)
            whole = text[: text.rfind(b"\n") + 1] or text
            self._checked(whole, count_slots(whole), shard, complete=False)

    def _checked(self, text: bytes, num_slots: int, shard: Path, complete: bool = True) -> list[list[np.ndarray]]:
        """The rows of a shard, or of its beginning, in blocks."""
        name = str(shard) if self.shell == AS_IS else f"{shard} as {self.command!r} gives it"
        blocks, line = [], 1
        for slots in multislot_blocks(text, num_slots, name):
            *others, labels = checked(slots, self.sizes, name, line)
            blocks.append([*(narrowed(slot, np.int32) for slot in others), narrowed(labels, np.int8)])
            line += len(labels)
        if self.shell == AS_IS and shard in self.stated and complete:
            rows, positives = line - 1, sum(int(block[-1].sum()) for block in blocks)
            expected = self.stated[shard].rows, self.stated[shard].positives
            if (rows, positives) != expected:
                raise DataError(
                    f"{shard} must have {expected[0]:,} rows and {expected[1]:,} positives, says the manifest. "
                    f"Received: {rows:,} and {positives:,}. Make the shards again: fl-rec partition"
                )
        return blocks

    def run(self, shard: Path, timeout: float) -> tuple[bytes, bytes]:
        """A shard as MultiSlot text, and what the reader said to it, which is passed on to our own stderr.

        Args:
            timeout: seconds until the reader is given up.

        Raises:
            DataError: no such file, or the reader failed.
        """
        with _readable(shard):
            with open_regular(shard) as file:
                content = file.read()
            self._verify(shard, content)
            if not _UNPACKS.match(self.shell):
                content = unpacked(content)
        if self.shell == AS_IS:
            return content, b""
        try:
            done = subprocess.run(
                self.shell, shell=True, input=content, capture_output=True, timeout=timeout, check=True
            )
        except subprocess.TimeoutExpired as err:
            raise DataError(
                f"The reader {self.command!r} must read {shard} within {timeout:g} s, and did not. Make it faster, or "
                "raise runner.start_timeout."
            ) from err
        except subprocess.CalledProcessError as err:
            raise DataError(
                f"The reader must exit with 0. Received: {err.returncode} on {shard} from {self._described(err.stderr)}"
            ) from err
        sys.stderr.write(done.stderr.decode("utf-8", "replace"))
        return done.stdout, done.stderr

    def _verify(self, shard: Path, content: bytes) -> None:
        """DataError if a shard is another than its manifest says."""
        if shard in self.stated:
            expected, found = self.stated[shard].sha256, hashlib.sha256(content).hexdigest()
            if found != expected:
                raise DataError(
                    f"{shard} must have the SHA-256 {expected}, says the manifest. Received: {found}. Make the shards "
                    "again: fl-rec partition"
                )

    def _described(self, said: bytes) -> str:
        lines = said.decode("utf-8", "replace").splitlines()[-LAST_LINES:]
        text = "".join(f"\n    {line}" for line in lines) or " nothing"
        return f"runner.pipe_command={self.command!r}, run as: {self.shell}\nIt said:{text}"


@contextmanager
def _readable(shard: Path) -> Iterator[None]:
    """DataError, which names the shard, in place of what a file that can't be read or unpacked raises."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(
            f"A shard must be readable. Received: {shard} ({getattr(err, 'strerror', '') or err})."
        ) from err


def _find_script(script: str, config: Config) -> Path:
    folders = [config.yaml_path.parent, config.runner.model_path.parent]
    for folder in folders:
        if (folder / script).is_file():
            return (folder / script).resolve()
    raise ConfigError(
        f"runner.pipe_command must name a script that exists. Received: {script!r}, looked for in "
        f"{' and '.join(str(folder) for folder in folders)}."
    )
