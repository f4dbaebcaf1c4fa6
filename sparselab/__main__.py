"""``python -m sparselab COMMAND``: the console script without its file."""

import sys

from sparselab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
