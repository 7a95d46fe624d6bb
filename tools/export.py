"""Writes a saved model as a folder that needs nothing else: `fl-rec export`.

python tools/export.py runs/NAME
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
