"""The `measure` engine: how long a network takes, side by side with others."""

from sparselab.engines.measure.engine import Measure

__all__ = ["Measure"]
