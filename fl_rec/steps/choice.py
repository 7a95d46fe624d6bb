"""Which local step a worker takes. Paddle is imported when one is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fl_rec import kernels
from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.kernels.arrays import LOSSES
from fl_rec.steps.base import LocalStep

if TYPE_CHECKING:
    from fl_rec.nets.program import TrainingProgram
    from fl_rec.steps.compiled_step import Receiver


def obstacles(config: Config) -> list[str]:
    """What of a configuration stands in the compiled step's way."""
    runner, hyper = config.runner, config.hyper_parameters
    found = {
        f"hyper_parameters.loss={hyper.loss}": hyper.loss not in LOSSES,
        f"hyper_parameters.proximal={hyper.proximal:g}": hyper.proximal > 0,
        f"runner.sync_mode={runner.sync_mode}": runner.sync_mode != "geo",
        f"runner.thread_num={runner.thread_num}": runner.thread_num != 1,
        "runner.keep_zeros": runner.keep_zeros,
        "runner.need_dump": runner.need_dump,
        "runner.dataset_debug": runner.dataset_debug,
        "privacy.clip": config.privacy.clip is not None,
        "distillation.proxy_data_dir": config.distillation.proxy_data_dir is not None,
    }
    return [what for what, stands in found.items() if stands]


def check(config: Config, job: Facts) -> Config:
    """ConfigError if the compiled step is asked for, and the configuration stands in its way."""
    _require_none(config, obstacles(config))
    return config


def _require_none(config: Config, received: list[str]) -> None:
    if config.runner.local_step == "compiled" and received:
        raise ConfigError(
            f"runner.local_step=compiled can't train everything. Received: {'; '.join(received)}. Set it to auto."
        )


def new_step(config: Config, program: TrainingProgram, exchange: Receiver, scratch: Path) -> LocalStep:
    """The step of a configuration.

    Args:
        program: initialised, and known to the servers.
        exchange: takes what the step trains.
        scratch: a file for the step's own use.

    Raises:
        ConfigError: it is the compiled one, which can't train this net so.
    """
    from fl_rec.nets.structure import structure_of
    from fl_rec.steps.compiled_step import CompiledStep, obstacles_of
    from fl_rec.steps.graph import GraphStep

    received = ["runner.local_step=graph"] if config.runner.local_step == "graph" else obstacles(config)
    if not received:
        structure = structure_of(program.model)
        received = [structure] if isinstance(structure, str) else obstacles_of(program, structure, exchange)
        if not received and not isinstance(structure, str):
            kernels.load_all()
            return CompiledStep(config, program, structure, exchange)
    _require_none(config, received)
    step = GraphStep(config, program, scratch)
    step.why_not_compiled = received
    return step
