"""When masks are made, and how far on the way to the final sparsity they are."""

from __future__ import annotations

from sparselab.weights.schedules.base import SCHEDULES, Schedule

__all__ = ["SCHEDULES", "Schedule"]
