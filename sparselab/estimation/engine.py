"""The engines of this room: `estimate` and `interact`."""

from sparselab.estimation.estimate import Estimate
from sparselab.estimation.online import Interact

__all__ = ["Estimate", "Interact"]
