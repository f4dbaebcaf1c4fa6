"""The sparsity at which a transformed network costs what the plain one does (arXiv 2303.11525)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.core.errors import ConfigError, refuse
from sparselab.core.model_spec import Layer, ModelSpec
from sparselab.core.sparsity import Sparsity
from sparselab.weights.cost import cost_of

if TYPE_CHECKING:
    from sparselab.weights.distributions import Distribution

WHERE = "sparsity=iso"
PARTS = 10**6  # the sparsity is found to this fraction, and is written with as many digits
TOLERANCE = 1e-3  # of the plain network's FLOPs, as in the authors' bisection


def matched(model_spec: ModelSpec | None, layers: list[Layer], distribution: Distribution) -> Sparsity:
    """The unstructured sparsity of ``layers`` that brings ``model_spec`` nearest to ``model_spec.plain_macs``.

    Found by bisection: what a network costs falls with its sparsity. What stays dense is counted, so this differs from
    the sparsity that the network was made for wherever the first and the last layer have grown too. Raises ConfigError
    where the network is not transformed, where the distribution ranks weights over layers (its FLOPs are not known
    before), and where no sparsity comes within 0.1 % of the cost.
    """
    budget = model_spec.plain_macs if model_spec else None
    if model_spec is None or budget is None:
        refuse(
            WHERE, "there is no network whose cost this one should have", "set model.transform, or write sparsity=0.9"
        )
    if distribution.needs_scores:
        refuse(
            WHERE, f"distribution={distribution.name} decides the cost only in training", "write distribution=uniform"
        )

    def macs(part: int) -> int:
        try:
            return cost_of(model_spec, distribution.allocate(layers, 1 - part / PARTS)).macs
        except ConfigError:  # fewer weights than layers
            return 0

    low, high = 0, PARTS  # dense enough, too sparse
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if macs(middle) >= budget else (low, middle)
    best = min((low, high), key=lambda part: abs(macs(part) - budget) if part < PARTS else budget)
    if abs(macs(best) - budget) > TOLERANCE * budget:
        ratio = f"{macs(best) / budget:.4f}"
        refuse(WHERE, f"the nearest is {ratio}x the plain network's FLOPs", "choose another model.transform or targets")
    return Sparsity.parse(best / PARTS)
