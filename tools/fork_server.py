"""Starts the roles of a job in fleetrun's place; `fl-rec run` calls it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.errors import packages_needed

with packages_needed():
    from fl_rec.trainer.fork_server import main

if __name__ == "__main__":
    sys.exit(main())
