"""How many weights each layer keeps, so that all layers together keep exactly what was asked for."""

from __future__ import annotations

from sparselab.weights.distributions.base import DISTRIBUTIONS, Distribution, whole_numbers

__all__ = ["DISTRIBUTIONS", "Distribution", "whole_numbers"]
