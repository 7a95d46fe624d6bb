"""Cut prepared rows into one shard per worker, unlike each other: the step from rows to federated data.

    python datasets/movielens/gen_heter_data.py --num_shards 10 --partitioner zip_first_digit
    python datasets/movielens/gen_heter_data.py --partitioner dirichlet_tag:alpha=0.3
    python datasets/movielens/gen_heter_data.py --verify

`fl-rec partition`, but that --data and --out are in this folder unless given.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that it runs from a clone without installing

from fl_rec.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("fl_rec.data.shards", folder=HERE))
