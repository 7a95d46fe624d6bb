"""`fl-rec new`: a project of one's own, in which everything that can be changed is there and in use."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
from pathlib import Path

from fl_rec import environment
from fl_rec.arguments import PROGRAM_KEY
from fl_rec.errors import ConfigError, RunError

TEMPLATE = "examples/project"
_NAME = re.compile(r"\w([\w .-]*\w)?")
_COMMANDS = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec new`."""
    parser.add_argument("name", type=Path, metavar="NAME", help="the folder to make")


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec new`."""
    project = make(options.name)
    shown = _COMMANDS.search((project / "README.md").read_text(encoding="utf-8"))
    lines = [f"cd {shlex.quote(str(options.name))}", *(shown[1].splitlines() if shown else ())]
    if PROGRAM_KEY in os.environ and environment.CLONE is not None:
        program = os.path.relpath(environment.CLONE / "fl_run.sh", project)
        lines = [re.sub("^fl-rec", shlex.quote(program), line) for line in lines]
    print(f"made      {options.name}: its README.md says what each file is for")
    print("next      " + "\n          ".join(lines))
    return 0


def make(folder: Path) -> Path:
    """A new project.

    Args:
        folder: where; the folders above it are made too.

    Returns:
        the folder, absolute.

    Raises:
        ConfigError: it is there already, or its name is none for a project.
        RunError: it can't be written.
    """
    if not _NAME.fullmatch(folder.name):
        raise ConfigError(
            "A project is a new folder, whose name has letters, digits, and between them spaces, dots and dashes. "
            f"Received: {str(folder)!r}. Name another, such as shop."
        )
    folder = Path(os.path.abspath(folder))
    if os.path.lexists(folder):
        raise ConfigError(
            f"A project is a new folder. Received: {folder}, which is there. Name another, or move it away."
        )
    try:
        shutil.copytree(
            environment.shipped(TEMPLATE),
            folder,
            ignore=shutil.ignore_patterns("__pycache__", "data", "runs"),
            copy_function=shutil.copyfile,
        )
    except (OSError, shutil.Error) as err:
        shutil.rmtree(folder, ignore_errors=True)
        raise RunError(
            f"A project's folder must be writable. Received: {folder} ({err}). Name another, or mend its permissions."
        ) from err
    return folder
