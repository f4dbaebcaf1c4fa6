"""The intervening engine. Importing it costs no torch."""

from sparselab.engines.intervene.engine import Intervene

__all__ = ["Intervene"]
