"""Which local step a worker takes. Paddle is imported when one is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.steps.base import LocalStep

if TYPE_CHECKING:
    from fl_rec.nets.program import TrainingProgram


def obstacles(config: Config) -> list[str]:
    """What of a configuration stands in the compiled step's way."""
    return ["there is no compiled step yet"]


def check(config: Config, job: Facts) -> Config:
    """ConfigError if the compiled step is asked for, and the configuration stands in its way."""
    _require_none(config, obstacles(config))
    return config


def _require_none(config: Config, received: list[str]) -> None:
    if config.runner.local_step == "compiled" and received:
        raise ConfigError(
            f"runner.local_step=compiled can't train everything. Received: {'; '.join(received)}. Set it to auto."
        )


def new_step(config: Config, program: TrainingProgram, scratch: Path) -> LocalStep:
    """The step of a configuration.

    Args:
        program: initialised, and known to the servers.
        scratch: a file for the step's own use.

    Raises:
        ConfigError: it is the compiled one, which can't train this net so.
    """
    from fl_rec.steps.graph import GraphStep

    received = obstacles(config)
    _require_none(config, received)
    step = GraphStep(config, program, scratch)
    step.why_not_compiled = ["runner.local_step=graph"] if config.runner.local_step == "graph" else received
    return step
