"""What a client does in an epoch, named by --script: train, evaluate, report, and whether to go on."""

import sys

from fl_rec.trainer import main
from fl_rec.trainer.coordinated import CoordinatedTrainer  # FLTrainer of fl_rec.trainer does without a coordinator


class Trainer(CoordinatedTrainer):
    """Stops when all clients together are good enough; every step of `run_worker` can be overridden like this."""

    def apply(self, everyone):
        """Whether another epoch comes; `everyone` has each client's figures, so that all come to the same."""
        goes_on = super().apply(everyone)  # every client must ask
        enough = self.config.get("hyper_parameters.extra.enough")  # a key of your own
        return goes_on and self.total(everyone).hit_rate < enough


if __name__ == "__main__":
    sys.exit(main(Trainer))
