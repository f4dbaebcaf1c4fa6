"""The one layer that a rule singles out."""

from __future__ import annotations

from sparselab.core.errors import refuse
from sparselab.core.model_spec import Layer


def sole(layers: list[Layer], role: str, where: str) -> Layer:
    """The layer with ``role``; ConfigError unless exactly one of the sparse layers has it."""
    found = [layer for layer in layers if role in layer.roles]
    if len(found) != 1:
        problem = f"needs one layer with role {role} among the sparse ones, found {len(found)}"
        refuse(where, problem, f"include @{role} (targets) or use distribution=erk")
    return found[0]
