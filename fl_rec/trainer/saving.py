"""The models that a worker saves, and which of them is kept."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_rec import __version__
from fl_rec.config import Config
from fl_rec.config.received import portable
from fl_rec.distillation.student import Student
from fl_rec.errors import RunError
from fl_rec.evaluation.metrics import EpochMetrics
from fl_rec.files import draft_of, publish
from fl_rec.nets.inference import InferenceNet
from fl_rec.nets.program import TrainingProgram
from fl_rec.ps.exchange import Exchange
from fl_rec.runs import models, private_parts
from fl_rec.runs.roles import Role
from fl_rec.runs.saved import DATA_DIRS
from fl_rec.trainer.private_params import PrivateParams

if TYPE_CHECKING:
    from fl_rec.trainer.fl_trainer import FLTrainer


class Saving:
    """Writes a worker's share of each epoch's model.

    Args:
        config: this worker's.
        role: this worker; the first of its host writes what is shared.
        folder: where the epochs' folders go.
        mappings: see `Job.mappings`.
        identity: the run's, and the data's; see `fl_rec.files.seal`.
        net: the model to save, as it was evaluated.
        program: has this worker's private parameters.
        private: which they are.
        exchange: has the servers' tables.
        student: adds to the signature.

    Attributes:
        best_epoch: the epoch whose model is kept; 0 before the first.
    """

    def __init__(
        self,
        config: Config,
        role: Role,
        folder: Path,
        mappings: Mapping[str, str],
        identity: Mapping[str, str],
        net: InferenceNet,
        program: TrainingProgram,
        private: PrivateParams,
        exchange: Exchange,
        student: Student,
    ) -> None:
        self.folder = folder
        self.best_epoch, self._best_figure = 0, math.nan
        self._worse: list[int] = []
        self._config, self._role, self._mappings, self._identity = config, role, mappings, identity
        self._net, self._program, self._private = net, program, private
        self._exchange, self._student = exchange, student

    @property
    def best_model(self) -> Path:
        """The folder of the epoch that is kept."""
        return self.folder / str(self.best_epoch)

    @property
    def last_good(self) -> str:
        """For an error: where the model of the last good epoch is, and how to go on after it."""
        if not self.best_epoch:
            return "No epoch gave a good model."
        goes_on = "; fl-rec resume RUN goes on from the last checkpoint" if self._config.runner.save_interval else ""
        return f"The last good model is {self.best_model}{goes_on}."

    def save_shared(self, epoch: int) -> None:
        """Writes what all workers share of an epoch's model; the first of each host does, within `Exchange.settled`.

        Raises:
            RunError: it can't be written.
        """
        if self._role.is_first_here:
            folder = self.folder / str(epoch)
            with _writing("model", folder):
                models.begin(self._net, folder, self._exchange.servers.save, self._private)

    def save_private(self, epoch: int) -> None:
        """Writes this worker's private part into an epoch's model, when `save_shared` has been called by all.

        Raises:
            RunError: it can't be written.
        """
        if not self._private:
            return
        path = models.private_path(draft_of(self.folder / str(epoch)), self._role.index)
        with _writing("private part", path):
            private_parts.save(path, self._private.parts(self._program))
            if self._config.distillation.students:
                models.write_own(self._net, path, self._private)

    def _publish(self, epoch: int) -> None:
        """Puts an epoch's model in its place, when all workers of this host have written their parts."""
        signature: dict[str, Any] = {
            "fl_rec": __version__,
            "epoch": epoch,
            "mappings": dict(self._mappings),
            "identity": {**self._identity, "epoch": epoch},
            "config": portable(self._config.to_dict()),
            "data": {name: path for name in DATA_DIRS if (path := getattr(self._config.runner, name))},
            **self._student.signature(),
            **({"elsewhere": sorted(self._role.elsewhere)} if self._role.elsewhere else {}),
        }
        folder = self.folder / str(epoch)
        with _writing("model", folder):
            models.sign(self._net, draft_of(folder), signature, self._private)
            publish(folder)

    @property
    def best(self) -> tuple[int, float]:
        """The epoch whose model is kept, and its figure; NaN if there is none."""
        return self.best_epoch, self._best_figure

    def go_on(self, best: tuple[int, float]) -> None:
        """Has this be the best one so far, in a run that is resumed."""
        self.best_epoch, self._best_figure = best

    def keep_the_best(self, total: EpochMetrics, validated: bool) -> None:
        """Puts an epoch's model in its place, when every worker has written its private part.

        With validation shards, it stays only until a better one is there; without, the last counts.

        Args:
            total: the epoch's figures of all workers.
            validated: whether there are validation shards.

        Raises:
            RunError: it can't be written.
        """
        if self._role.is_first_here:
            self._publish(total.epoch)
        if not validated:
            self.best_epoch = total.epoch
            return
        figure = total.validation_ndcg
        if self.best_epoch and not figure > self._best_figure:
            worse = total.epoch
        else:
            worse, self.best_epoch, self._best_figure = self.best_epoch, total.epoch, figure
        self._worse.append(worse)

    def worse(self) -> list[int]:
        """The epochs whose models `keep_the_best` keeps no longer, since the last time."""
        worse, self._worse = self._worse, []
        return worse

    def remove(self, epochs: Iterable[int]) -> None:
        """Removes their models; the first worker of each host does."""
        if self._role.is_first_here:
            for epoch in epochs:
                shutil.rmtree(self.folder / str(epoch), ignore_errors=True)

    def patience_is_over(self, epoch: int) -> bool:
        """Whether `runner.early_stopping` says that training ends with this epoch."""
        patience = self._config.runner.early_stopping
        return bool(patience) and epoch - self.best_epoch >= patience


@contextmanager
def _writing(what: str, path: Path) -> Iterator[None]:
    """RunError in place of OSError."""
    try:
        yield
    except OSError as err:
        raise RunError(
            f"The {what} must be saved, and {path} can't be written ({err.strerror or err}). Free some space or name "
            "another runner.model_save_path."
        ) from err


def new_saving(trainer: FLTrainer) -> Saving:
    """A worker's, when its net and its exchange are there."""
    return Saving(
        trainer.config,
        trainer.role,
        trainer.config.runner.model_save_path or trainer.run_directory.model,
        trainer.job.mappings,
        {"run": trainer.run_directory.identity, "data": trainer.job.checksum},
        trainer.net,
        trainer.program,
        trainer.private_params,
        trainer.exchange,
        trainer.student,
    )
