"""A configuration that a run or a model brings along, which may be somebody else's: it is read, has nothing run, and
chooses no folder to write.

Code, commands and such a folder come from a user's own -m and -o. Relative paths in -o start at the current folder, not
beside what was received.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_rec import environment
from fl_rec.config.loading import Config
from fl_rec.config.written import KEYS, parse_override, read
from fl_rec.errors import ConfigError
from fl_rec.typed import to_plain


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, names of mappings too."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name)
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
    elif value is not None:
        yield str(value)


def _names_own(value: Any) -> bool:
    """Whether `module:Name` or `file.py:Name` is in it."""
    return any(":" in text for text in _texts(value))


def _is_own_net(value: Any) -> bool:
    return environment.shipped("models").resolve() not in Path(str(value)).parents


_NET = environment.shipped("models/ncf/static_model.py")
# Keys by which a configuration has code or a command run, and whether a value does: what is built in does not;
# or folders replaced and removed that may be any.
OWN: Mapping[str, Callable[[Any], bool]] = {
    "runner.pipe_command": lambda value: value != KEYS["runner.pipe_command"].default,
    "runner.model_path": _is_own_net,
    "runner.exchange": _names_own,
    "runner.log_to": _names_own,
    # Paddle makes that folder through a shell.
    "runner.dump_fields_path": lambda value: value is not None,
    "hyper_parameters.loss": _names_own,
    "coordinator.strategy": _names_own,
    "coordinator.options": _names_own,
    "distillation.students": _names_own,
    "runner.model_save_path": lambda value: value is not None,
}


def _does(name: str) -> str:
    return "folders there replaced and removed" if name == "runner.model_save_path" else "code or a command run"


def load(path: Path, overrides: Sequence[str] = (), used: Collection[str] = tuple(OWN)) -> Config:
    """The configuration in a run's file; see `from_tree`."""
    tree, _ = read(path)
    return from_tree(tree, path, overrides, used)


def from_tree(
    tree: Mapping[Any, Any], path: Path, overrides: Sequence[str] = (), used: Collection[str] = tuple(OWN)
) -> Config:
    """A configuration as it was received, and the user's own overrides.

    Args:
        tree: as it was read.
        path: its file, for errors.
        overrides: the user's, whose relative paths start at the current folder.
        used: keys of `OWN` that whoever asks for it goes by; others are as if they were left out.

    Raises:
        ConfigError: one of these names code, a command or a folder to write, and no override does; or as `Config.load`.
    """
    left = dict(tree)
    for name, is_code in OWN.items():
        section, _, key = name.partition(".")
        if name not in used and isinstance(left.get(section), Mapping) and is_code(left[section].get(key)):
            left[section] = {
                **left[section],
                key: _NET if name == "runner.model_path" else to_plain(KEYS[name].default),
            }
    config = Config.from_tree(left, Path(path.name).absolute(), overrides)
    given = {parse_override(each)[0] for each in overrides}
    for name in used:
        # An override of a mapping leaves what it does not name.
        if OWN[name](config[name]) and (name not in given or isinstance(config[name], Mapping)):
            raise ConfigError(
                f"{path}: {name} has {_does(name)}, and a run or a model may be somebody else's: that is taken "
                f"from your own -m and -o only. Received: {config[name]!r}. If you trust it, name it yourself: "
                f"-o {name}=..., or -m FILE with your configuration."
            )
    return config


def portable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's plain values, to go with a model: without paths of this machine.

    Folders and files are left out; of a `file.py:Name` and in a command, the name stays.
    """
    # A command may begin with a path.
    return {name: _portable(each) for name, each in values.items() if name == "pipe_command" or not _is_path(each)}


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return portable(value)
    if isinstance(value, list):
        return [_portable(each) for each in value if not _is_path(each)]
    return without_folders(value) if isinstance(value, str) else value


def without_folders(text: str) -> str:
    """A text of whose paths the names stay."""
    return _FOLDER.sub("", text)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and not _WITH_NAME.search(value)


_WITH_NAME = re.compile(r"\.py:\w+$")
# The folders before a file's name in a text: in quotes, of all of it, or of a word.
_FOLDER = re.compile(r"""(?<=')/[^']*/|(?<=")/[^"]*/|^/.*/(?=[^/]+\.py:\w+$)|(?<![^\s'"=|;&(<>])/(?:[^/\s'"]+/)*""")
