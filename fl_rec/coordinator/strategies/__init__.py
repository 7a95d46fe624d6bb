"""Strategies by name; a user's own is `module:Class` or `path/to/file.py:Class`. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_rec.coordinator.strategies.base import Fleet, Standing, Strategy
from fl_rec.plugins import Registry
from fl_rec.typed import read_options

__all__ = ["STRATEGIES", "Fleet", "Standing", "Strategy", "new_strategy"]

STRATEGIES: Registry[type[Strategy]] = Registry(
    "a strategy",
    "coordinator.strategy",
    {
        "join_all": "fl_rec.coordinator.strategies.join_all:JoinAll",
        "random_k": "fl_rec.coordinator.strategies.random_k:RandomK",
        "resource_aware": "fl_rec.coordinator.strategies.resource_aware:ResourceAware",
        "utility": "fl_rec.coordinator.strategies.utility:Utility",
        "distill": "fl_rec.coordinator.strategies.distill:Distill",
        "ddpg": "fl_rec.coordinator.strategies.ddpg:Ddpg",
    },
    base="fl_rec.coordinator:Strategy",
)


def new_strategy(
    name: str,
    options: Mapping[str, Any],
    fleet: Fleet,
    folder: Path | None = None,
    key: str = "coordinator.strategy",
) -> Strategy:
    """A strategy for a fleet.

    Args:
        name: one of `STRATEGIES`, `module:Class` or `path/to/file.py:Class`.
        options: as YAML read them.
        folder: where relative paths in `name` and `options` start; None for the working directory.
        key: the setting that names it, for errors; its options are beside it.

    Raises:
        ConfigError: no such strategy, or it has no such options.
    """
    cls = STRATEGIES.find(name, folder, key)
    beside = "coordinator.options" if key == "coordinator.strategy" else f"{key}_options"
    return cls(fleet, read_options(cls.Options, options, beside, folder or Path()))
