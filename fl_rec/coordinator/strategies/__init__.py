"""Strategies by name; a user's own is `module:Class` or `path/to/file.py:Class`. No Paddle is imported here."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Mapping

from fl_rec import plugin
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


def find_strategy(name: str, folder: Path | None = None) -> type[Strategy]:
    """The class of a strategy.

    Args:
        name: one of `STRATEGIES`, `module:Class` or `path/to/file.py:Class`.
        folder: where a relative path starts.

    Raises:
        ConfigError: there is none of that name, or it is no `Strategy`.
    """
    if name not in STRATEGIES and ":" not in name:
        near = difflib.get_close_matches(name, STRATEGIES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"coordinator.strategy must be one of {', '.join(STRATEGIES)}, or module:Class. Received: {name!r}.{hint}"
        )
    found = plugin.load(STRATEGIES.get(name, name), "a strategy", folder)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(
            f"coordinator.strategy must be a subclass of fl_rec.coordinator.Strategy. Received: {name!r}, {found!r}."
        )
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"A strategy has the method {', '.join(missing)}. Received: {name!r}, which has not.")
    return found


def new_strategy(name: str, options: Mapping[str, Any], fleet: Fleet, folder: Path | None = None) -> Strategy:
    """A strategy for a fleet.

    Args:
        options: as YAML read them.
        folder: where relative paths in `name` and `options` start; None for the working directory.

    Raises:
        ConfigError: no such strategy, or it has no such options.
    """
    cls = find_strategy(name, folder)
    return cls(fleet, read_options(cls.Options, options, "coordinator.options", folder or Path()))
