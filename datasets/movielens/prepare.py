"""Split interactions leave-one-out and sample negatives: the step from a data set to training and test rows.

    python datasets/movielens/prepare.py --source ml-1m.zip --test_negative ml-1m.test.negative.gz
    python datasets/movielens/prepare.py --source synthetic --validation

`fl-rec prepare`, but that --out is this folder unless given. docs/data.md describes sources and columns.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that it runs from a clone without installing

from fl_rec.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("fl_rec.data.prepare", folder=HERE))
