"""Federated training with a coordinator: one process of a fleet job.

    cd models/ncf
    fleetrun --worker_num=10 --server_num=1 --coordinator_num=1 ../../tools/static_fl_trainer_with_coordinator.py \
        -m ../../configs/config_fl_coordinator.yaml

To change what a client does, override `run_worker` or a step of `fl_rec.trainer.coordinated.CoordinatedTrainer`.
To change what the coordinator decides, write a strategy; see `fl_rec.coordinator.Strategy`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.errors import packages_needed

with packages_needed():
    from fl_rec.trainer import main
    from fl_rec.trainer.coordinated import CoordinatedTrainer


class Trainer(CoordinatedTrainer):
    """One role of a federated training job with a coordinator, started by fleetrun."""


if __name__ == "__main__":
    sys.exit(main(Trainer))
