"""The dense baseline."""

from __future__ import annotations

from sparselab.weights.method import METHODS, Method


@METHODS.register("dense")
class Dense(Method):
    """No mask anywhere: the cell that every sparse one is compared with."""

    patterns = ("dense",)
    schedules = ("constant",)
    weight_grad = "dense"
