"""The entry point: `python run.py method=srste sparsity=2:4 model=vit_s`. `python run.py --help` shows the groups."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sparselab.cli.application import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
