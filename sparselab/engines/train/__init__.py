"""The training engine. Importing it costs no torch."""

from sparselab.engines.train.engine import Train

__all__ = ["Train"]
