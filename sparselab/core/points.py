"""Points of a run at which weights are kept: a number of updates, or of passes over the training split."""

from __future__ import annotations

import re
from typing import Any

POINT = re.compile(r"(0|[1-9]\d{0,8})(epochs?)?", re.ASCII)
FORM = "updates, such as 100, or epochs, such as 2epochs"


def point_of(value: Any) -> str | None:
    """Return a point as it is spelled (``100``, ``2epochs``); None for a value that is no point."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    found = POINT.fullmatch(str(value))
    return found and f"{found[1]}{'epochs' if found[2] else ''}"


def update_of(point: str, per_epoch: int) -> int:
    """Return the update of a spelled point; 0 is before the first one. per_epoch: updates of an epoch."""
    epochs = point.removesuffix("epochs")
    return int(epochs) * (per_epoch if epochs != point else 1)
