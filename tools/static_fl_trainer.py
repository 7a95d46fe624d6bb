"""Federated training without a coordinator: one process of a fleet job.

    cd models/ncf
    fleetrun --worker_num=10 --server_num=1 ../../tools/static_fl_trainer.py -m ../../configs/config_fl.yaml

To change what a client does, override `run_worker` or a step of it; see `fl_rec.trainer.FLTrainer`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.errors import packages_needed

with packages_needed():
    from fl_rec.trainer import FLTrainer, main


class Trainer(FLTrainer):
    """One role of a federated training job, started by fleetrun."""


if __name__ == "__main__":
    sys.exit(main(Trainer))
