"""The command `fl-rec`: one name per module, which is imported only when it is asked for."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from fl_rec import __version__, one_thread_each
from fl_rec.arguments import called_as
from fl_rec.errors import FLRecError, lacking, packages_needed

one_thread_each()  # before a command's module loads numpy

# Each module has add_arguments(parser), and command(options), which returns the exit code.
COMMANDS = {
    "new": ("fl_rec.commands.new", "make a project of your own, in which all is in use"),
    "prepare": ("fl_rec.data.prepare", "make training and test rows from interactions"),
    "partition": ("fl_rec.data.shards", "cut prepared rows into one shard per worker"),
    "shards": ("fl_rec.data.adopt", "count and check shards that somebody else wrote"),
    "run": ("fl_rec.terminal.run", "train: a job from start to end; without -m, the built-in one"),
    "resume": ("fl_rec.terminal.resume", "go on with a run that ended early, or is to have more"),
    "coordinator": ("fl_rec.coordinator.process", "start a lost coordinator again, or try a strategy"),
    "runs": ("fl_rec.commands.runs", "list a project's runs, or remove some"),
    "report": ("fl_rec.page.report", "write a run as one HTML page, which works offline"),
    "compare": ("fl_rec.commands.compare", "show in what runs differ: keys, figures, curves"),
    "export": ("fl_rec.serving.export", "write a saved model as a folder that needs nothing else"),
    "recommend": ("fl_rec.serving.recommend", "show what a model would recommend to a user"),
    "evaluate": ("fl_rec.serving.evaluate", "measure saved models on test shards"),
    "compress": ("fl_rec.serving.compress", "make a saved model smaller"),
    "config": ("fl_rec.commands.config", "explain the keys of a configuration"),
    "certs": ("fl_rec.commands.certs", "make certificates for the coordinator, hosts and clients"),
    "doctor": ("fl_rec.commands.doctor", "look whether this machine can train, and what to mend"),
    "completion": ("fl_rec.commands.completion", "print what has a shell complete commands and keys"),
}

# What else somebody may call a command.
OTHERS_NAMES = {"train": "run", "fit": "run", "list": "runs", "init": "new", "predict": "recommend", "test": "evaluate"}

DESCRIPTION = """\
Federated training of recommenders on Paddle's parameter server.

  fl-rec doctor             can this machine train?
  fl-rec run                the built-in job, whose data is made on the way
  fl-rec new shop           a project of your own, with data, to be changed
  fl-rec COMMAND --help     what a command takes
"""
EXIT_CODES = "exit codes: 0 done; 1 failed; 2 refused: mend what it says; 128 + N by signal N"
# What a command imports that shows a sign of life before.
_IMPORTED = ("numpy", "psutil", "pydantic", "rich", "yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 if it could not start."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = next((each for each in arguments if not each.startswith("-")), None)
    parser, _ = parsers([asked] if asked in COMMANDS else [])
    if not arguments:
        parser.print_help()
        return 0
    if asked not in COMMANDS and not {"-h", "--help", "--version"} & set(arguments):
        parser.refuse_command(arguments)
    options = parser.parse_args(arguments)
    return _play(import_module(COMMANDS[options.command][0]), options, parser.prog)


def parsers(names: Iterable[str] = tuple(COMMANDS)) -> tuple[Parser, Mapping[str, Parser]]:
    """The parser of the command line, and those of its commands, of which the named ones know their arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    program = called_as()
    parser = Parser(
        program,
        description=DESCRIPTION.replace("fl-rec", program),
        epilog=EXIT_CODES,
        formatter_class=_Commands,
    )
    parser.set_defaults(parsers=parsers)  # for `fl-rec completion`
    parser.add_argument("--version", action=_Version, nargs=0, help="show the versions of fl_rec, Paddle and Python")
    _add_debug(parser, False)
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    commands: dict[str, Parser] = {}
    for name, (module, summary) in COMMANDS.items():
        commands[name] = command = added.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", formatter_class=raw
        )
        if name in names:
            _load(module, program).add_arguments(command)
            _add_debug(command, argparse.SUPPRESS)
            command.epilog = "\n".join(filter(None, (command.epilog, EXIT_CODES)))
    return parser, commands


def run_script(module: str, **defaults: Any) -> int:
    """Runs a command's module as a script of its own; `defaults` are for its add_arguments."""
    parser = Parser(formatter_class=argparse.RawDescriptionHelpFormatter)
    command = _load(module, parser.prog)
    parser.description = command.__doc__
    command.add_arguments(parser, **defaults)
    _add_debug(parser, False)
    return _play(command, parser.parse_args(), parser.prog)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are short, and name what was meant."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            parser = self._of(getattr(options, "command", None))
            parser.error(f"it takes no {' '.join(rest)}. {parser.meant(rest)}")
        return options

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help shows what there is.\n")

    def refuse_command(self, arguments: Sequence[str]) -> NoReturn:
        """Of a command line without one."""
        from fl_rec.plugins import nearest

        word = arguments[0]
        if word.startswith("-"):
            self.error(f"a command comes first, as in {self.prog} run {' '.join(arguments)}")
        near = nearest(word, [*OTHERS_NAMES, *COMMANDS])
        hint = f"Did you mean {OTHERS_NAMES.get(near, near)}?" if near else ""
        if word.endswith((".yaml", ".yml")):
            hint = f"To train with a configuration: {self.prog} run -m {word}"
        self.error(f"there is no command {word!r}. {hint}".rstrip())

    def meant(self, rest: Sequence[str]) -> str:
        """What whoever wrote these may have meant, of which the first is neither an option nor an argument."""
        from fl_rec.plugins import nearest

        word, _, value = rest[0].partition("=")
        value = value or next(iter(rest[1:]), "VALUE")
        options = {name for each in self._actions for name in each.option_strings if name.startswith("--")}
        keys = _keys() if "--opt" in options else {}
        if not word.startswith("-"):
            if word.endswith((".yaml", ".yml")) and keys:
                return f"A configuration is named by -m: -m {word}"
            return f"A key is set by -o: -o {' '.join(rest)}" if "=" in rest[0] and keys else ""
        name = word.lstrip("-").replace("-", "_")
        found = nearest(name, [*(each.lstrip("-") for each in options), *keys])
        if found in keys:
            return f"{keys[found]} is a key of the configuration: -o {keys[found]}={value}"
        return f"Did you mean --{found}?" if found else ""

    def _of(self, command: str | None) -> Parser:
        parser: Parser
        for each in self._actions:
            if isinstance(each, argparse._SubParsersAction) and command in each.choices:
                parser = each.choices[command]
                return parser
        return self


class _Commands(argparse.RawDescriptionHelpFormatter):
    """Has each command and its summary in one line: argparse doesn't count by how much commands are indented."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 4 + max(map(len, COMMANDS))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        try:
            paddle = metadata.version("paddlepaddle")
        except metadata.PackageNotFoundError:
            paddle = "is not installed"
        print(f"fl_rec {__version__}, Paddle {paddle}, Python {sys.version.split()[0]}")
        parser.exit()


def _add_debug(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument("--debug", action="store_true", default=default, help="show where in the code an error came up")


def _keys() -> dict[str, str]:
    """Dotted names of keys by what somebody may write as an option."""
    from fl_rec.config.written import by_last_part

    return by_last_part()


def _load(module: str, program: str) -> ModuleType:
    with packages_needed(program):
        return import_module(module)


def _play(command: ModuleType, options: argparse.Namespace, program: str) -> int:
    try:
        code: int = command.command(options)
        return code
    except BrokenPipeError:  # as in `fl-rec ... | head`; Python would complain of it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as err:
        if options.debug:
            traceback.print_exc()
        from fl_rec.tables import printable

        # What it quotes may be somebody else's.
        said = printable(_in_words(err).replace("fl-rec ", f"{called_as()} "), but="\n\t")
        print(f"{program}: error: {said}", file=sys.stderr)
        return 2


def _in_words(err: Exception) -> str:
    if isinstance(err, FLRecError | OSError):
        return str(err)
    if isinstance(err, ModuleNotFoundError) and err.name in _IMPORTED:
        return lacking(err)
    from fl_rec.plugins import where_raised

    return (
        f"{type(err).__name__}: {err}{where_raised(err)}\nThat was not foreseen, here or in code of yours: --debug "
        "shows where it came up."
    )


if __name__ == "__main__":
    sys.exit(main())
