"""Paddle's fleetrun, as `fl-rec run` calls it with FL_REC_START=spawn: it ends with the launcher."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.environment import importing
from fl_rec.errors import packages_needed

with packages_needed():
    from fl_rec.job.watch import end_with_the_launcher

if __name__ == "__main__":
    end_with_the_launcher()
    with importing():
        from paddle.distributed.launch.main import launch
    launch()
