"""The trainer: one process of a fleet job. A user subclasses `FLTrainer` and passes it to `main`."""

from fl_rec.trainer.fl_trainer import FLTrainer
from fl_rec.trainer.main import main

__all__ = ["FLTrainer", "main"]
