"""Random weights for a workload: what is timed depends on where zeros lie, not on values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparselab.latency.workloads.workload import Step

if TYPE_CHECKING:
    import numpy as np

RELU6 = (0.0, 6.0)
OPEN = (float("-inf"), float("inf"))


@dataclass(frozen=True)
class Weighted:
    """A step with its weights: (outputs, inputs per group, kernel, kernel) and (outputs,), float32."""

    step: Step
    weight: np.ndarray
    bias: np.ndarray

    @property
    def clamp(self) -> tuple[float, float]:
        return RELU6 if self.step.activated else OPEN


def draw(steps: list[Step], seed: int, mask: Callable[[int, np.ndarray], np.ndarray]) -> list[Weighted]:
    """He-scaled normal weights, those of pointwise step number ``i`` times ``mask(i, weight)`` (outputs, inputs).

    What is kept is scaled up, so that activations neither die out nor become denormal numbers, which are slow.
    """
    import numpy as np

    rng, drawn, pointwise = np.random.default_rng(seed), [], 0
    for step in steps:
        inputs = 1 if step.kind == "depthwise" else step.inputs
        weight = rng.standard_normal((step.outputs, inputs, step.kernel, step.kernel), np.float32)
        if step.kind == "pointwise":
            kept = mask(pointwise, weight[:, :, 0, 0]).astype(np.float32)
            weight *= kept[:, :, None, None] / np.sqrt(max(kept.mean(), 1e-6))
            pointwise += 1
        weight *= np.float32(np.sqrt(2 / (inputs * step.kernel**2)))
        bias = np.full(step.outputs, 0.01, np.float32)
        drawn.append(Weighted(step, np.ascontiguousarray(weight), bias))
    return drawn
