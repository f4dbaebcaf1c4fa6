"""The folder of things that only save time: ``SPARSELAB_CACHE`` or ``~/.cache/sparselab``.

Whoever keeps something there makes it again when it is missing or damaged, and does without where the folder cannot be
written.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    return Path(os.environ.get("SPARSELAB_CACHE") or Path("~/.cache/sparselab").expanduser())
