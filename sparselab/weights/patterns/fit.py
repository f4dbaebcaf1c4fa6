"""The check that a sparsity fits a layer, from the shape alone [no torch]."""

from __future__ import annotations

from sparselab.core.errors import Issue
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity

EXCLUDE = "exclude it (targets.exclude) or use another pattern"


def misfit(layer: Layer, sparsity: Sparsity, axis: str = "in") -> Issue | None:
    """Why ``sparsity`` cannot be put on ``layer`` with N:M groups along ``axis`` (in, out, kernel); None if it can."""
    where = f"sparsity={sparsity}"
    if not sparsity.prunes:
        return None
    if len(layer.shape) < 2:
        return Issue(where, f"{layer.name} is 1-D and sparsity needs at least 2-D", "exclude it (targets.exclude)")
    problem = sparsity.misfit(layer, axis)
    return None if problem is None else Issue(where, problem, EXCLUDE)
