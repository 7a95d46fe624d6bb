"""Evaluates saved models on test shards, without fleet: `fl-rec evaluate`.

python tools/evaluate.py runs/NAME
python tools/evaluate.py -m configs/config_fl.yaml -o runner.infer_load_path=../runs/NAME/model runner.infer_end_epoch=2
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
