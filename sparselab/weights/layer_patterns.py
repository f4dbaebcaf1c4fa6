"""The sparsity of each layer: one sparsity for all, and patterns of their own for some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparselab.core.errors import Issues, refuse
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.weights.targets import matching

WHERE = "targets.patterns"


def own_patterns(patterns: Mapping[str, Any]) -> dict[str, Sparsity]:
    """Selectors with their sparsities, parsed; ConfigError with every one that is none."""
    own: dict[str, Sparsity] = {}
    issues = Issues()
    for selector, value in patterns.items():
        where = f"{WHERE}.{selector}"
        with issues.collect():
            own[selector] = parsed = Sparsity.parse(value, where)
            if not parsed.prunes:
                refuse(f"{where}={parsed}", "keeps every weight", f'write targets.exclude=["{selector}"]')
            if parsed.matches_cost:
                refuse(f"{where}={parsed}", "is worked out for a whole network", 'write a pattern such as "1:8"')
    issues.raise_if_any()
    return own


def exceptions(layers: list[Layer], sparsity: Sparsity, own: Mapping[str, Sparsity]) -> dict[str, Sparsity]:
    """The layers among ``layers``, by name, that do not have ``sparsity``, and what they have instead.

    Of several selectors the first that matches counts. ConfigError for one that no layer is left for, and where no layer is
    left for ``sparsity`` itself.
    """
    found: dict[str, Sparsity] = {}
    issues = Issues()
    for selector, pattern in own.items():
        where = f"{WHERE}.{selector}"
        with issues.collect():
            matched = {layer.name for layer in matching(layers, selector, where)}
            if matched <= found.keys():
                refuse(where, "earlier selectors have all its layers", "write it before them")
            found = {**dict.fromkeys(matched, pattern), **found}
    issues.raise_if_any()
    if own and len(found) == len(layers):
        fix = f"make one of them the sparsity, and leave it out of {WHERE}"
        refuse(f"sparsity={sparsity}", f"no layer has it: {WHERE} has one for each", fix)
    return found


def spelled(sparsity: Sparsity, own: Mapping[str, Sparsity]) -> str:
    """For records and people: ``1:32``, or ``1:32, @q 1:8, @k 1:8``."""
    return ", ".join([str(sparsity), *(f"{selector} {pattern}" for selector, pattern in own.items())])
