"""`fl-rec completion`: what has a shell complete commands, options, keys of a configuration and a project's runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import shtab

from fl_rec.config.written import KEYS

# Of a shell: the names of functions that complete a key and a run, and their code.
_KEYS = " ".join(f"{name}=" for name in KEYS)
_OWN = {
    "bash": (
        "_fl_rec_keys",
        "_fl_rec_runs",
        f"""
_fl_rec_keys() {{ compopt -o nospace; compgen -W "{_KEYS}" -- "$1"; }}
_fl_rec_runs() {{ compgen -W "$(command ls runs 2>/dev/null)" -- "$1"; compgen -d -- "$1"; }}
""",
    ),
    "zsh": (
        "_fl_rec_keys",
        "_fl_rec_runs",
        f"""
_fl_rec_keys() {{ local -a found=({_KEYS}); compadd -S '' -a found }}
_fl_rec_runs() {{ local -a found=(runs/*(N/:t)); compadd -a found; _files -/ }}
""",
    ),
    "fish": (
        f"(string split ' ' '{_KEYS}')",
        "(command ls runs 2>/dev/null; __fish_complete_directories)",
        "",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec completion`."""
    parser.add_argument("shell", choices=tuple(_OWN), help="the shell that reads it")
    parser.epilog = (
        'bash: eval "$(fl-rec completion bash)" in ~/.bashrc\n'
        'zsh:  eval "$(fl-rec completion zsh)" in ~/.zshrc, after compinit\n'
        "fish: fl-rec completion fish > ~/.config/fish/completions/fl-rec.fish"
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec completion`."""
    keys, runs, preamble = _OWN[options.shell]
    parser, commands = options.parsers()
    parser.prog = "fl-rec"
    for each in commands.values():
        _mark(each, options.shell, keys, runs)
    print(shtab.complete(parser, options.shell, preamble={options.shell: preamble}))
    return 0


def _mark(parser: argparse.ArgumentParser, shell: str, keys: str, runs: str) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _mark(each, shell, keys, runs)
        elif (complete := _completes(action, shell, keys, runs)) is not None:
            action.complete = {shell: complete}  # type: ignore[attr-defined]


def _completes(action: Any, shell: str, keys: str, runs: str) -> str | None:
    if action.dest == "opt" or (action.dest == "keys" and action.metavar == "KEY"):
        return keys
    if action.metavar in ("RUN", "MODEL"):
        return runs
    if action.metavar in ("FOLDER", "DIR"):
        return str(shtab.DIRECTORY[shell])
    return str(shtab.FILE[shell]) if action.type is Path or action.metavar == "FILE" else None
