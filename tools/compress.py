"""Makes a saved model smaller: `fl-rec compress`.

python tools/compress.py runs/NAME --bits 8 --out small
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.cli import main

if __name__ == "__main__":
    sys.exit(main(["compress", *sys.argv[1:]]))
