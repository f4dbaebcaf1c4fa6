"""Overrides written as a mapping in a table's YAML. [no torch]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparselab.core.errors import spell


def listed(value: Any) -> Any:
    """A mapping of keys to values as the list of overrides that it stands for; anything else as it is.

    ``{method: srste, optim.lr: 0.1, sparsity: "2:4"}`` is ``[method=srste, optim.lr=0.1, sparsity=2:4]``: a text stands as it
    would on the command line.
    """
    return [f"{key}={spell(item)}" for key, item in value.items()] if isinstance(value, Mapping) else value
