"""The coordinator's part of what a run is resumed from, where no worker is on its host. No Paddle is imported here."""

from __future__ import annotations

from fl_rec.config import RunnerConfig
from fl_rec.runs import training_state
from fl_rec.runs.directory import RunDirectory


class Checkpoints:
    """One for each epoch of which the workers write one: the strategy as it was before it decided the epoch's round.

    Args:
        runner: says of which epochs.
        run: where.
        data: the checksum of the data; see `Job`.
    """

    def __init__(self, runner: RunnerConfig, run: RunDirectory, data: str) -> None:
        self._runner, self._run = runner, run
        self._identity = {"run": run.identity, "data": data}

    def decided(self, round: int) -> None:
        """The epoch after a round begins, in which nothing else happens here. OSError."""
        runner, epoch = self._runner, round + 1
        if training_state.is_due(epoch, runner.save_interval, runner.epochs):
            # The workers' newest may be two epochs back: this one's is not complete, and the last may not have been.
            training_state.write_coordinators(self._run, epoch, self._identity, runner.keep_checkpoints + 2)
