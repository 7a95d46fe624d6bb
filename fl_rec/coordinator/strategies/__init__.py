"""Strategies by name; a user's own is `module:Class` or `path/to/file.py:Class`. No Paddle is imported here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_rec import plugins
from fl_rec.config import read_options
from fl_rec.coordinator.strategies.base import Fleet, Standing, Strategy
from fl_rec.errors import ConfigError

__all__ = ["STRATEGIES", "Fleet", "Standing", "Strategy", "find_strategy", "new_strategy"]

# Each is imported when it is asked for.
STRATEGIES = {
    "join_all": "fl_rec.coordinator.strategies.join_all:JoinAll",
    "random_k": "fl_rec.coordinator.strategies.random_k:RandomK",
    "resource_aware": "fl_rec.coordinator.strategies.resource_aware:ResourceAware",
    "utility": "fl_rec.coordinator.strategies.utility:Utility",
    "distill": "fl_rec.coordinator.strategies.distill:Distill",
    "ddpg": "fl_rec.coordinator.strategies.ddpg:Ddpg",
}


def find_strategy(name: str, folder: Path | None = None, key: str = "coordinator.strategy") -> type[Strategy]:
    """The class of a strategy.

    Args:
        name: one of `STRATEGIES`, `module:Class` or `path/to/file.py:Class`.
        folder: where a relative path starts.
        key: the setting that names it, for errors.

    Raises:
        ConfigError: there is none of that name, or it is no `Strategy`.
    """
    if name not in STRATEGIES and ":" not in name:
        near = difflib.get_close_matches(name, STRATEGIES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{key} must be one of {', '.join(STRATEGIES)}, or module:Class. Received: {name!r}.{hint}")
    found = plugins.load(STRATEGIES.get(name, name), "a strategy", folder)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"{key} must be a subclass of fl_rec.coordinator.Strategy. Received: {name!r}, {found!r}.")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"A strategy has the method {', '.join(missing)}. Received: {name!r}, which has not.")
    return found


def new_strategy(
    name: str,
    options: Mapping[str, Any],
    fleet: Fleet,
    folder: Path | None = None,
    key: str = "coordinator.strategy",
) -> Strategy:
    """A strategy for a fleet.

    Args:
        options: as YAML read them.
        folder: where relative paths in `name` and `options` start; None for the working directory.
        key: the setting that names it, for errors; its options are beside it.

    Raises:
        ConfigError: no such strategy, or it has no such options.
    """
    cls = find_strategy(name, folder, key)
    beside = "coordinator.options" if key == "coordinator.strategy" else f"{key}_options"
    return cls(fleet, read_options(cls.Options, options, beside, folder or Path()))
