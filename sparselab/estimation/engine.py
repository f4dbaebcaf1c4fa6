"""The engines of this package: `estimate` and `online`."""

from sparselab.estimation.estimate import Estimate
from sparselab.estimation.online import Online

__all__ = ["Estimate", "Online"]
